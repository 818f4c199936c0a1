"""Uncertainty baselines from the command line: train, make, report, evaluate."""

import json
import re

import numpy as np
import pytest

from fedlas.cli import main

pytestmark = pytest.mark.system

TINY = [
    "train.epochs=2", "train.batch_size=50", "data.train_size=100", "data.val_size=50", "data.test_size=200",
    "model.hidden=[8]",
    "model.dropout=0.2", "data.split_seed=0", "losses.ce-again.loss=ce",
]  # fmt: skip
OVERRIDES = [word for setting in TINY for word in ("--set", setting)]


def call(capsys, *arguments):
    """Standard output and standard error of a command that succeeds, in one."""
    assert main(list(arguments)) == 0
    captured = capsys.readouterr()
    return re.sub(r"\s+", " ", captured.out + captured.err)


def probs(folder, part="test"):
    with np.load(folder / "predictions" / f"{part}.npz") as saved:
        powers = np.exp(saved["logits"].astype(np.float64))
    return powers / powers.sum(1, keepdims=True)


def test_from_runs_to_a_report(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "160")
    seeds = ["0", "1", "2"]
    call(
        capsys,
        "bench",
        "synthetic",
        "--losses",
        "ce",
        "ls",
        "--seeds",
        *seeds,
        "--out",
        "b",
        *OVERRIDES,
    )
    runs = [f"b/ce-s{seed}" for seed in seeds]

    out = call(capsys, "runs", "uncertainty", "deep-ensemble", *runs)
    assert "Deep ensemble on synthetic, test set" in out
    assert "made of ce-s0, ce-s1, ce-s2" in out
    assert "folder: b/deep-ensemble-ce-s0" in out
    expected = sum(probs(tmp_path / run) for run in runs) / 3
    np.testing.assert_allclose(probs(tmp_path / "b/deep-ensemble-ce-s0"), expected, atol=1e-6)
    call(
        capsys,
        "runs",
        "uncertainty",
        "hyper-ensemble",
        "b/ce-s0",
        "b/ls-s1",
        "--set",
        "selection=all",
        "--out",
        "b/two",
    )
    expected = (probs(tmp_path / "b/ce-s0") + probs(tmp_path / "b/ls-s1")) / 2
    np.testing.assert_allclose(probs(tmp_path / "b/two"), expected, atol=1e-6)
    call(
        capsys,
        "runs",
        "uncertainty",
        "mc-dropout",
        "b/ce-s0",
        "--set",
        "samples=5",
        "--name",
        "passes",
    )
    again = call(capsys, "runs", "uncertainty", "deep-ensemble", *runs)
    assert "folder: b/deep-ensemble-ce-s0" in again

    out = call(capsys, "runs", "report", "b", "--details")
    for line in (
        "deep-ensemble(ce) has n = 1",
        "hyper-ensemble(ce, ls) has n = 1",
        "passes has n = 1",
        "ce 3 ",
    ):
        assert line in out
    out = call(
        capsys,
        "evaluate",
        "b/deep-ensemble-ce-s0",
        "--method",
        "temperature",
        "--json",
        "--replicates",
        "0",
    )
    metrics = json.loads((tmp_path / "b/deep-ensemble-ce-s0/metrics.json").read_text())
    for stage, recorded in {"as predicted": "test", "after temperature": "test_calibrated"}.items():
        assert metrics[recorded].pop("aurc") >= 0  # which a run records too
        printed, _ = json.JSONDecoder().raw_decode(out)  # warnings follow it
        assert printed[stage] == pytest.approx(metrics[recorded])
    assert "mc-dropout" in call(capsys, "list", "uncertainty")
    assert call(
        capsys, "bench", "synthetic", "--losses", "ce", "--seeds", "0", "--out", "b", *OVERRIDES
    )


@pytest.mark.parametrize("average", ["ema", "swa"])
def test_averaged_weights_are_what_a_run_predicts_with(capsys, tmp_path, average):
    from fedlas.lab.runs import load_trained_run, predict_part
    from fedlas.lab.train import load_checkpoint
    from fedlas.predictions import Predictions

    settings = [
        "--set",
        f"train.average={average}",
        "--set",
        "train.epochs=4",
        "--set",
        "optimizer.lr=0.2",
    ]
    settings += ["--set", "train.average_start=0.25"]
    call(
        capsys,
        "runs",
        "train",
        "synthetic",
        "--loss",
        "fedlas",
        "--out",
        str(tmp_path / "x"),
        *OVERRIDES,
        *settings,
    )
    trained = load_trained_run(tmp_path / "x")
    found = predict_part(
        trained.objective, trained.splits, trained.splits.test, batch_size=50, features=True
    )
    saved = Predictions.load(tmp_path / "x" / "predictions" / "test.npz")
    assert np.array_equal(found.logits, saved.logits)
    assert np.array_equal(found.features, saved.features)
    last = load_checkpoint(tmp_path / "x" / "checkpoint.pt")["objective"]["model.fc.weight"]
    assert not np.allclose(last, trained.objective.model.fc.weight.detach(), atol=1e-4)
