"""The predictions of published networks give the figures that were computed of them without this library."""

import re
from pathlib import Path

import numpy as np
import pytest

import fedlas
from fedlas import Predictions, TopLabel
from fedlas.predictions import Columns, read_predictions

REAL = Path(__file__).parents[3] / "shared" / "real"
pytestmark = pytest.mark.skipif(
    not REAL.exists(), reason="needs the predictions of published networks"
)


def figures():
    """Name, samples, accuracy, mean confidence and ECE of each row of the table in the README."""
    text = (REAL / "README.md").read_text(encoding="utf-8") if REAL.exists() else ""
    rows = re.findall(
        r"^\| (\w+)[^|]*\| (\d+) \| ([\d.]+) \| ([\d.]+) \| ([\d.]+) \|$", text, flags=re.M
    )
    return [(name, int(samples), *map(float, others)) for name, samples, *others in rows]


def test_all_of_them_are_there():
    assert len(figures()) == 13


@pytest.mark.parametrize(("name", "samples", "accuracy", "confidence", "ece"), figures())
def test_their_figures(name, samples, accuracy, confidence, ece):
    if name.endswith("_probs"):
        read = read_predictions(REAL / f"{name}.npz", Columns(probs="probs", target="target"))
    else:
        parts = {part: f"{name}.{part}" for part in ("confidence", "predicted", "target")}
        read = read_predictions(REAL / "top_label.npz", Columns(**parts))
    found = fedlas.evaluate(read.predictions)
    # The figures are of the rows as they stand; those of IMDB miss 1 by 2e-5, and divided by their sums differ by that.
    exact = 2.5e-5 if name == "imdb_probs" else 1e-5
    assert read.predictions.num_samples == samples
    assert found["accuracy"] == pytest.approx(accuracy, abs=1e-5)
    assert float(read.predictions.confidence.mean(dtype=np.float64)) == pytest.approx(
        confidence, abs=exact
    )
    # Of two classes "ece" is the event's; the table has that of the predicted class.
    assert found["top_label_ece" if name == "imdb_probs" else "ece"] == pytest.approx(
        ece, abs=exact
    )


def test_what_is_said_of_rows_that_miss_one():
    with np.load(REAL / "imdb_probs.npz") as archive:
        probs, target = archive["probs"], archive["target"]
    read = read_predictions(REAL / "imdb_probs.npz", Columns(probs="probs", target="target"))
    missing = np.abs(probs.sum(1) - 1)
    assert 1e-6 < missing.max() < 2.1e-5
    assert any(
        f"{(missing > 1e-6).sum():,} of 25,000 rows were divided by their sums" in note
        for note in read.notes
    )
    one_line = Predictions.from_probs(probs, target)
    assert fedlas.evaluate(one_line) == fedlas.evaluate(read.predictions)
    as_they_stand = TopLabel(probs.max(1), probs.argmax(1) == target)
    assert fedlas.evaluate(as_they_stand)["ece"] == pytest.approx(0.04040, abs=1e-5)


def test_logits_of_published_networks():
    for depth, ece in ((20, 0.05317), (56, 0.04645)):
        found = fedlas.evaluate(
            read_predictions(REAL / f"resnet{depth}-cifar10-test.npz").predictions
        )
        assert found["ece"] == pytest.approx(ece, abs=1e-5)


def test_peoples_distributions_are_read():
    """Mean probability that people give to the predicted class against the confidence: 6.48 %."""
    named = Columns(probs="probs", target="target", label_probs="human_probs")
    found = fedlas.evaluate(read_predictions(REAL / "cifar10_probs.npz", named).predictions)
    assert found["true_ece"] == pytest.approx(0.0648, abs=5e-5)
