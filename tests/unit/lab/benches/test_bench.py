"""``fedlas.lab.bench``: data, models and losses as Python objects."""

import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from fedlas.errors import InputError
from fedlas.lab import BenchResult, bench
from fedlas.lab.report import read_bench_result
from fedlas.losses import LabelSmoothing
from fedlas.predictions import Predictions

pytestmark = pytest.mark.usefixtures("few_replicates")
QUICK = {"train": {"epochs": 2, "batch_size": 20}, "optimizer": {"lr": 0.1}}
SCRIPT = """
import sys
sys.path[:0] = sys.argv[3:5]
from test_bench import parts, run
if sys.argv[2] != "0":
    from stop_by_count import arm
    arm("step", int(sys.argv[2]))
run(sys.argv[1])
"""


def parts():
    random = torch.Generator().manual_seed(0)
    x = torch.randn(160, 3, generator=random)
    y = (x[:, 0] + torch.randn(160, generator=random) > 0).long()
    return (x[:80], y[:80]), (x[80:120], y[80:120]), (x[120:], y[120:])


def small(num_classes):
    return nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Dropout(0.2), nn.Linear(4, num_classes))


def gentle(num_classes):
    return LabelSmoothing(alpha=0.01)


def run(out, **changes):
    options = {
        "models": {"own": small, "linear": None},
        "losses": {"ce": None, "gentle": gentle},
        "seeds": 2,
        "calibrators": ["raw", "temperature"],
        "settings": QUICK,
        "out": out,
    }
    return bench(*parts(), **{**options, **changes})


@pytest.fixture(scope="module")
def result(tmp_path_factory):
    return run(tmp_path_factory.mktemp("python") / "bench")


def content(folder):
    """What runs leave, without times and the places of files."""
    kept = {}
    for path in sorted(folder.rglob("*")):
        if path.suffix == ".npz":
            kept[str(path.relative_to(folder))] = {k: v.tolist() for k, v in np.load(path).items()}
        elif path.name in ("metrics.json", "intervals.json", "config.yaml", "data.json"):
            lines = path.read_text().splitlines()
            kept[str(path.relative_to(folder))] = [x for x in lines if '"seconds"' not in x]
    return kept


def test_result_has_every_model_loss_seed_and_calibrator(result):
    assert isinstance(result, BenchResult)
    frame = result.to_frame()
    assert len(frame) == 2 * 2 * 2 * 2
    assert set(frame.calibrator) == {"raw", "temperature"}
    assert result.methods == ["ce", "ce@temperature", "gentle", "gentle@temperature"]
    folder = next(iter(result.models.values())).summary.folder
    test = Predictions.load(folder / "gentle-s1" / "predictions" / "test.npz")
    assert test.target.tolist() == parts()[2][1].tolist()
    row = frame[(frame.bench == "own") & (frame.loss == "gentle") & (frame.seed == 1)].iloc[0]
    assert row.nll == pytest.approx(
        nn.functional.cross_entropy(test.tensors().logits, test.tensors().target).item()
    )
    assert "Fewer than 3 are not tested" in result._repr_html_()
    assert "Mean rank by NLL over 2 models: " in repr(result)


def test_a_second_call_computes_nothing(result, monkeypatch):
    folder = next(iter(result.models.values())).summary.folder.parent
    before = content(folder)
    monkeypatch.setattr(torch.Tensor, "backward", None)
    assert run(folder).to_frame().equals(result.to_frame())
    assert content(folder) == before


@pytest.mark.system
@pytest.mark.parametrize("step", [3, 19])
def test_killed_and_resumed_it_ends_as_undisturbed(result, tmp_path, step):
    tests = Path(__file__).parents[3]
    command = [sys.executable, "-c", SCRIPT, str(tmp_path / "killed")]
    places = [str(tests), str(Path(__file__).parent)]
    killed = subprocess.run([*command, str(step), *places], check=False, capture_output=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()
    assert not list((tmp_path / "killed" / "linear").rglob("metrics.json"))
    again = run(tmp_path / "killed")
    undisturbed = next(iter(result.models.values())).summary.folder.parent
    assert content(tmp_path / "killed") == content(undisturbed)
    assert again.to_frame().equals(result.to_frame())


def test_folder_with_other_data_or_settings_is_refused(result, tmp_path):
    folder = shutil.copytree(
        next(iter(result.models.values())).summary.folder.parent, tmp_path / "bench"
    )
    with pytest.raises(InputError, match=r"optimizer\.lr"):
        run(folder, settings={**QUICK, "optimizer": {"lr": 0.2}}, seeds=3)
    (x, y), val, test = parts()
    with pytest.raises(InputError, match="same data"):
        bench(
            (x + 1, y),
            val,
            test,
            models={"linear": None},
            losses=["ce"],
            out=folder,
            settings=QUICK,
        )


def test_what_failed_is_named(tmp_path):
    class Broken(nn.Module):
        def forward(self, logits, target):
            raise RuntimeError("no value today")

    result = run(
        tmp_path,
        models={"linear": None},
        losses={"ce": None, "broken": Broken},
        calibrators=["raw"],
        seeds=1,
    )
    assert result.methods == ["ce"]
    assert "broken-s0 failed: RuntimeError: no value today." in result.missing()
    assert "no value today" in result._repr_html_()


def test_a_model_that_fails_stops_no_other(tmp_path):
    class Broken(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(3, 2)

        def forward(self, x):
            if len(x) > 5:
                raise RuntimeError("no batch today")
            return self.fc(x)

    models = {"broken": lambda num_classes: Broken(), "linear": None}
    with pytest.raises(InputError, match="no batch today"):
        run(tmp_path, models=models, losses=["ce"], calibrators=["raw"], seeds=1)
    assert (tmp_path / "linear" / "ce-s0" / "metrics.json").exists()


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"calibrators": ["temprature"]}, "Did you mean 'temperature'"),
        ({"losses": ["cee"]}, "'cee'"),
        ({"models": ["mlp"]}, "models must be"),
        ({"models": {}}, "models must name at least one"),
        ({"models": {"a/b": None}}, "a/b"),
        ({"models": {"mpl": None}}, "Did you mean 'mlp'"),
        ({"models": {"own": lambda: 3}}, "must return a torch.nn.Module"),
        ({"seeds": 0}, "seeds"),
        ({"settings": {"trian": {}}}, "trian"),
    ],
)
def test_what_cannot_be_used_starts_nothing(tmp_path, changes, match):
    with pytest.raises(InputError, match=match):
        run(tmp_path / "bench", **changes)
    assert not (tmp_path / "bench").exists()


def test_bench_of_objects_is_reported_without_objects(result, capsys):
    from fedlas.cli import main

    folder = next(iter(result.models.values())).summary.folder
    assert main(["compare", str(folder), "ce:gentle", "--metrics", "nll"]) == 0
    assert "ce - gentle" in capsys.readouterr().out
    assert read_bench_result([folder]).methods == ["ce", "gentle"]
    assert json.loads((folder / "ce-s0" / "data.json").read_text())["train"]["samples"] == 80
