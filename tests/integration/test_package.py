"""What is installed is what is in the tree, and the core needs torch and numpy alone."""

import importlib.metadata
import os
import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def extras():
    """Distributions of the extras, without contributors' tools and baycomp, whose own `tests` would hide these."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = {
        re.match(r"[\w.-]+", spec)[0]
        for extra, specs in project["optional-dependencies"].items()
        if extra not in ("dev", "dev-min", "bayes")
        for spec in specs
    }
    return sorted(wanted - {"fedlas"})


@pytest.mark.skipif(
    "FEDLAS_CI" not in os.environ, reason="a missing extra skips tests, but not in CI"
)
@pytest.mark.parametrize("distribution", extras())
def test_every_extra_is_installed(distribution):
    assert importlib.metadata.version(distribution)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    out = tmp_path_factory.mktemp("wheel")
    build = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--quiet",
        "--no-deps",
        "--no-build-isolation",
        "--wheel-dir",
        str(out),
        str(ROOT),
    ]
    done = subprocess.run(build, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return next(out.glob("*.whl"))


@pytest.mark.system
def test_the_wheel_holds_every_file_of_the_package(wheel):
    skipped = {"__pycache__"}
    tree = {
        path.relative_to(ROOT / "src").as_posix()
        for path in (ROOT / "src" / "fedlas").rglob("*")
        if path.is_file() and not skipped & set(path.parts)
    }
    assert tree <= set(zipfile.ZipFile(wheel).namelist())
    assert {
        "fedlas/py.typed",
        "fedlas/lab/recipes/presets/digits.yaml",
        "fedlas/present/templates/page.css",
    } <= tree


@pytest.mark.system
def test_the_core_requires_six_packages(wheel):
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert sorted(name.split(">")[0] for name in project["dependencies"]) == [
        "numpy",
        "rich",
        "safetensors",
        "scipy",
        "threadpoolctl",
        "torch",
    ]
    name = next(n for n in zipfile.ZipFile(wheel).namelist() if n.endswith("METADATA"))
    lines = zipfile.ZipFile(wheel).read(name).decode().splitlines()
    required = [
        line for line in lines if line.startswith("Requires-Dist:") and "extra ==" not in line
    ]
    assert len(required) == 6


@pytest.mark.system
def test_the_wheel_works_with_its_own_requirements_alone(wheel, tmp_path):
    program = """
import sys
class Block:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {"accelerate", "msgspec", "matplotlib", "sklearn", "torchvision",
                                  "jinja2", "yaml", "filelock", "torchmetrics", "onnx", "pyarrow"}:
            raise ModuleNotFoundError(name, name=name)
sys.meta_path.insert(0, Block())
import torch, fedlas
from fedlas.losses import LOSSES, FedLAS
assert ".whl" in fedlas.__file__, fedlas.__file__
model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3))
objective = fedlas.Objective(model, FedLAS(num_classes=3), head="2")
loss, logits = objective(torch.randn(6, 4), torch.arange(6) % 3)
loss.backward()
print(sorted(fedlas.evaluate(fedlas.Predictions(logits.detach(), torch.arange(6) % 3))))
loader = [(torch.randn(90, 4), torch.arange(90) % 3)]
calibrated = fedlas.calibrate(model, loader)
print(calibrated.before_after(loader))
calibrated.save("calibrated.safetensors")
again = fedlas.CalibratedModel.load("calibrated.safetensors", model)
print(torch.equal(again.predict_proba(loader[0][0]), calibrated.predict_proba(loader[0][0])))
from fedlas.cli import main
assert main(["list", "losses"]) == 0
sys.exit(main(["list", "recipes"]))
"""
    environment = {**os.environ, "PYTHONPATH": str(wheel), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        env=environment,
        cwd=tmp_path,
        check=False,
    )
    assert "'ece'" in done.stdout, done.stderr
    assert "before     after   90 samples" in done.stdout, done.stderr
    assert "True\n" in done.stdout
    assert done.returncode == 2
    assert "pip install '.[bench]'" in done.stderr
