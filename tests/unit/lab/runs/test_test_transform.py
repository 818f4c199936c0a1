"""A recipe's own transform of the test part is used by everything that predicts on it."""

import json

import pytest

from fedlas.lab.recipes import load_recipe, plan_runs
from fedlas.lab.runs import RunFolder, execute, load_trained_run
from fedlas.lab.studies import measure_shift
from fedlas.lab.studies.uncertainty import apply_method, plan_method

OWN = ["data.mean=[0.3]", "data.std=[0.3]", "data.test_mean=[0.6]", "data.test_std=[0.1]"]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    options = [*OWN, "train.epochs=3", "model.width=4", "model.dropout=0.000001"]
    recipe = load_recipe("digits", options)
    (run,) = plan_runs(recipe, losses=["ce"], seeds=[0], out=tmp_path_factory.mktemp("own"))
    execute(run)
    return run.folder


def test_shift(run):
    [found] = measure_shift([load_trained_run(run)], [])
    assert found["clean"]["test"] == json.loads((run / "metrics.json").read_text())["test"]


def test_uncertainty(run, tmp_path):
    """With hardly any dropout its average is the run itself."""
    derived = plan_method("mc-dropout", [run], out=tmp_path / "mc", options={"samples": 2})
    mine = apply_method(derived)["test"]
    expected = RunFolder(run).metrics["test"]
    assert mine["accuracy"] == expected["accuracy"]
    assert mine["nll"] == pytest.approx(expected["nll"], abs=1e-3)
