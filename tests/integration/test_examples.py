"""Every example runs as a stranger runs it, in its own process, and prints accuracy and ECE before and after."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "examples"
EXAMPLES = sorted(path for path in FOLDER.glob("*.py") if path.name != "noisy_digits.py")
NEEDS = {
    "accelerate_loop": "accelerate",
    "huggingface_trainer": "transformers",
    "lightning_module": "lightning",
    "skorch_classifier": "skorch",
    "timm_task": "timm",
    "torch_uncertainty_routine": "torch_uncertainty",
    "torchmetrics_collection": "torchmetrics",
}
QUICK = {"custom_calibrators", "plain_pytorch"}
LINE = re.compile(r"^(before|after): .*accuracy (\d\.\d{4})  ECE (\d\.\d{4})$", flags=re.M)


def run(path, folder):
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "default"}
    done = subprocess.run(
        [sys.executable, str(path)],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def marked():
    """Those that take more than a few seconds run with the long tests; ``make examples`` runs all."""
    return [
        pytest.param(path, id=path.stem, marks=() if path.stem in QUICK else pytest.mark.long)
        for path in EXAMPLES
    ]


@pytest.mark.system
@pytest.mark.parametrize("path", marked())
def test_it_runs_and_prints_before_and_after(path, tmp_path):
    if path.stem in NEEDS and "FEDLAS_CI" not in os.environ:
        pytest.importorskip(NEEDS[path.stem])
    found = LINE.findall(run(path, tmp_path))
    assert [when for when, *_ in found][:2] == ["before", "after"]
    before, *after = [(float(accuracy), float(ece)) for _, accuracy, ece in found]
    for accuracy, ece in after:
        assert accuracy > before[0] - 0.03  # as good a classifier
        assert ece < before[1]  # and a better calibrated one
    assert not list(tmp_path.iterdir())  # nothing is left behind


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_it_is_short_and_documented(path):
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 65
    assert f"python examples/{path.name}" in text
    assert f"examples/{path.name}" in (ROOT / "docs" / "integrations.md").read_text(
        encoding="utf-8"
    )


def test_every_example_says_what_it_needs():
    assert {path.stem for path in EXAMPLES} == set(NEEDS) | QUICK


@pytest.mark.system
def test_the_code_of_the_page_runs_and_its_links_lead_somewhere():
    text = (ROOT / "docs" / "integrations.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```", text, flags=re.S)
    assert blocks
    namespace = {"__name__": "block"}
    for block in blocks:
        for package, written in (
            ("lightning", "import lightning"),
            ("transformers", "integrations.huggingface"),
        ):
            if written in block and "FEDLAS_CI" not in os.environ:
                pytest.importorskip(package)
        exec(block, namespace)
    for target in re.findall(r"\]\(([^)#]+)", text):
        assert (ROOT / "docs" / target).exists(), target
