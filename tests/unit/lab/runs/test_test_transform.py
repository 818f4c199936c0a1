"""A recipe's own transform of the test part is used by everything that predicts on it."""

import json

import pytest

from fedlas.cli import main
from fedlas.lab.runs import load_trained
from fedlas.lab.studies import measure_shift

OWN = ["data.mean=[0.3]", "data.std=[0.3]", "data.test_mean=[0.6]", "data.test_std=[0.1]"]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("own") / "run"
    options = [*OWN, "train.epochs=3", "model.width=4", "model.dropout=0.000001"]
    assert (
        main(
            [
                "runs",
                "train",
                "digits",
                "--loss",
                "ce",
                *(w for o in options for w in ("--set", o)),
                "--out",
                str(folder),
            ]
        )
        == 0
    )
    return folder


def test_shift(run):
    [found] = measure_shift([load_trained(run)], [])
    assert found["clean"]["test"] == json.loads((run / "metrics.json").read_text())["test"]


def test_uncertainty(run, tmp_path):
    """With hardly any dropout its average is the run itself."""
    out = tmp_path / "mc"
    assert (
        main(
            ["runs", "uncertainty", "mc-dropout", str(run), "--set", "samples=2", "--out", str(out)]
        )
        == 0
    )
    mine, expected = (
        json.loads((folder / "metrics.json").read_text())["test"] for folder in (out, run)
    )
    assert mine["accuracy"] == expected["accuracy"]
    assert mine["nll"] == pytest.approx(expected["nll"], abs=1e-3)
