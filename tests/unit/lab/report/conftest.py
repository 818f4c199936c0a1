"""A bench folder as the benchmark leaves it, without training anything."""

import json
import math

import numpy as np
import pytest
import torch
import yaml

from fedlas.lab.report import read_report
from fedlas.lab.report import write_report as write_everything
from fedlas.lab.runs import default_metrics
from fedlas.predictions import Predictions

# Intervals and pages of runs have tests of their own, which take their time.


def write_report(folder):
    return write_everything(read_report(folder, replicates=0))


# Factor on the log of the true probabilities: above 1 is over-confident, below 1 under-confident.
SHARPNESS = {"acls": 1.06, "ce": 1.55, "fedlas": 1.03, "fedlas+": 1.12, "ls": 0.72, "mbls": 1.22}


def fake_predictions(sharpness, seed, samples=2000, classes=10):
    """Labels drawn from known probabilities, and logits that overstate or understate them.

    The seed gives the samples, so methods with the same seed saw the same images; the noise is the method's own.
    """
    data = np.random.default_rng(seed)
    score = (
        2.1 * data.normal(size=(samples, classes))
        + 3.0 * np.eye(classes)[data.integers(classes, size=samples)]
    )
    probs = np.exp(score) / np.exp(score).sum(1, keepdims=True)
    target = (probs.cumsum(1) > data.random((samples, 1))).argmax(1)
    own = np.random.default_rng([seed, int(1000 * sharpness)])
    logits = (sharpness + 0.02 * own.normal()) * score + 0.15 * own.normal(size=score.shape)
    return Predictions(torch.as_tensor(logits, dtype=torch.float32), torch.as_tensor(target))


def temperature_of(predictions):
    grid = np.arange(0.4, 2.5, 0.05)
    loss = torch.nn.functional.cross_entropy
    return float(
        min(
            grid,
            key=lambda t: loss(
                predictions.tensors().logits / t, predictions.tensors().target
            ).item(),
        )
    )


def fake_log(sharpness, seed, epochs, accuracy):
    rng = np.random.default_rng([seed, int(100 * sharpness)])
    final = abs(math.log(sharpness)) * 0.12 + 0.012
    for epoch in range(1, epochs + 1):
        progress = 1 - math.exp(-4 * epoch / epochs)
        yield {
            "epoch": epoch,
            "lr": 0.1 * 0.5 * (1 + math.cos(math.pi * epoch / epochs)),
            "seconds": 2.1,
            "train": {"loss": 2.3 * (1 - 0.8 * progress), "accuracy": accuracy * progress},
            "val": {
                "accuracy": accuracy * (0.25 + 0.75 * progress)
                + 0.01 * rng.normal() * (1 - progress),
                "ece": max(0.002, 0.2 * (1 - progress) + final * progress + 0.004 * rng.normal()),
                "nll": 2.3 - 1.7 * progress,
            },
        }


def write_run(folder, *, loss="ce", seed=0, recipe="digits", epochs=30, samples=2000, **changes):
    """One finished run folder; ``changes`` replace entries of its metrics.json."""
    sharpness = SHARPNESS.get(loss, 1.3)
    # What is fitted on validation takes the longest, and few samples are enough for it.
    val, test = (
        fake_predictions(sharpness, seed + 1000, min(samples, 600)),
        fake_predictions(sharpness, seed, samples),
    )
    temperature = temperature_of(val)
    folder.mkdir(parents=True)
    (folder / "predictions").mkdir()
    val.save(folder / "predictions" / "val.npz")
    test.save(folder / "predictions" / "test.npz")
    measured = default_metrics(test)
    lines = "".join(
        json.dumps(line) + "\n" for line in fake_log(sharpness, seed, epochs, measured["accuracy"])
    )
    (folder / "log.jsonl").write_text(lines)
    config = {
        "recipe": recipe, "loss": {"name": loss}, "seed": seed, "data": {"name": "digits", "train_size": 1200},
        "train": {"epochs": epochs, "batch_size": 64}, "optimizer": {"name": "sgd", "lr": 0.1, "momentum": 0.9},
    }  # fmt: skip
    (folder / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
    environment = {
        "fedlas": "0.1.0", "python": "3.12.4", "torch": "2.13.0", "platform": "Linux-6.1-x86_64", "cpu": "Xeon 2.2 GHz",
        "threads": 2, "device": "cpu", "commit": "2be3c3f", "dirty": False, "command": "fedlas bench digits",
    }  # fmt: skip
    (folder / "environment.json").write_text(json.dumps([environment]))
    metrics = {
        "format": 1, "run": folder.name, "recipe": recipe, "loss": loss, "seed": seed, "epochs": epochs,
        "best_epoch": epochs - 2, "selected_by": "accuracy", "parameters": 12345, "seconds": 71.2 + seed,
        "temperature": temperature, "temperature_ece": round(temperature, 1), "val": default_metrics(val),
        "test": measured,
        "test_calibrated": default_metrics(test.with_logits(test.tensors().logits / temperature)),
    }  # fmt: skip
    (folder / "metrics.json").write_text(json.dumps({**metrics, **changes}))
    return folder


def write_bench(folder, *, losses=tuple(SHARPNESS), seeds=(0, 1, 2), **options):
    """A folder of finished runs, one for each loss and seed."""
    for loss in losses:
        for seed in seeds:
            write_run(folder / f"{loss}-s{seed}", loss=loss, seed=seed, **options)
    return folder


@pytest.fixture(name="write_run")
def _write_run():
    return write_run


@pytest.fixture(name="write_bench")
def _write_bench():
    return write_bench


@pytest.fixture(scope="session")
def bench_writer():
    """``write_bench`` for fixtures that outlive a test."""
    return write_bench


@pytest.fixture(scope="session")
def full_bench(tmp_path_factory):
    """Six methods, three seeds. Shared: tests may write reports there, nothing else."""
    return write_bench(tmp_path_factory.mktemp("bench") / "digits", samples=500)


@pytest.fixture(scope="session")
def full_report(full_bench):
    """The report over ``full_bench``."""
    return write_report(full_bench)
