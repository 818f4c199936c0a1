"""Estimates of accuracy without labels: what each is, and that it is right where its assumption is."""

import numpy as np
import pytest
import torch

from fedlas import Predictions
from fedlas.stats import accuracy_without_labels

METHODS = ("atc-entropy", "atc-confidence", "difference", "mean-confidence")


def predictions(samples, *, scale, seed, sharp=1.0, classes=5):
    """Labels drawn from logits of this spread; the predictions are sharper by a factor."""
    generator = torch.Generator().manual_seed(seed)
    logits = scale * torch.randn(samples, classes, generator=generator)
    return Predictions(sharp * logits, torch.multinomial(logits.softmax(1), 1, generator=generator).squeeze(1))


@pytest.mark.parametrize("method", METHODS)
def test_it_finds_the_accuracy_of_the_source_itself(method):
    source = predictions(1000, scale=3.0, seed=0)
    found = accuracy_without_labels(source, source, method=method, replicates=99)
    assert found.value == pytest.approx(float(source.correct.double().mean()), abs=0.03)
    assert found.low < found.value < found.high


def test_by_hand():
    source = Predictions([[0.0, 1.0], [0.0, 2.0], [0.0, 3.0], [4.0, 0.0]], [0, 1, 1, 0])  # the least sure is wrong
    target = torch.tensor([[0.0, 0.5], [0.0, 1.5], [2.5, 0.0], [0.0, 2.0], [5.0, 0.0]])
    sure = target.double().softmax(1).amax(1)
    drop = float(sure.mean() - source.probs.double().amax(1).mean())
    options = {"replicates": 39}
    # The threshold is the score of the second sample: two of five lie below it.
    assert accuracy_without_labels(source, target, method="atc-confidence", **options).value == pytest.approx(0.6)
    assert accuracy_without_labels(source, target, method="atc-entropy", **options).value == pytest.approx(0.6)
    found = accuracy_without_labels(source, target, method="mean-confidence", **options).value
    assert found == pytest.approx(float(sure.mean()))
    found = accuracy_without_labels(source, target, method="difference", **options).value
    assert found == pytest.approx(0.75 + drop, abs=1e-6)


@pytest.mark.parametrize("method", ["difference", "mean-confidence"])
def test_a_model_that_is_calibrated_on_both_is_judged_rightly(method):
    source, target = predictions(4000, scale=3.0, seed=0), predictions(4000, scale=1.0, seed=1)
    found = accuracy_without_labels(source, target, method=method)
    truth = float(target.correct.double().mean())
    assert truth < float(source.correct.double().mean()) - 0.2
    assert found.value == pytest.approx(truth, abs=0.03)


def test_an_overconfident_model_is_not():
    """The assumption decides: confidence exceeds accuracy everywhere, and a difference removes only a constant."""
    source, target = (predictions(4000, scale=s, seed=i, sharp=3.0) for i, s in enumerate((3.0, 1.0)))
    truth = float(target.correct.double().mean())
    found = {m: accuracy_without_labels(source, target, method=m, replicates=39).value - truth for m in METHODS}
    assert found["mean-confidence"] > found["difference"] > 0.05


def test_the_interval_holds_the_mean_confidence_of_other_samples():
    every = predictions(200_000, scale=2.0, seed=9).confidence.double().mean()
    hits = 0
    for seed in range(60):
        source, target = predictions(200, scale=2.0, seed=seed), predictions(200, scale=2.0, seed=1000 + seed)
        found = accuracy_without_labels(source, target, method="mean-confidence", replicates=199)
        hits += found.low <= every <= found.high
    assert hits >= 53


@pytest.mark.parametrize("labels", ["all wrong", "all right"])
@pytest.mark.parametrize("method", METHODS)
def test_extreme_sources(method, labels):
    logits = torch.randn(50, 3, generator=torch.Generator().manual_seed(0))
    right = logits.argmax(1)
    source = Predictions(logits, right if labels == "all right" else (right + 1) % 3)
    found = accuracy_without_labels(source, 1e29 * logits, method=method, replicates=39)
    assert 0 <= found.value <= 1
    if method.startswith("atc"):
        assert found.value == float(labels == "all right")


def test_labels_of_the_target_are_not_seen():
    source, target = predictions(100, scale=3.0, seed=0), predictions(100, scale=3.0, seed=1)
    other = Predictions(target.logits, (target.target + 1) % 5)
    for method in METHODS:
        found = [
            accuracy_without_labels(source, t, method=method, replicates=39) for t in (target, other, target.logits)
        ]
        assert found[0] == found[1] == found[2]
    changed = accuracy_without_labels(source, target, replicates=39, seed=1)
    assert changed.value == accuracy_without_labels(source, target, replicates=39).value
    assert changed.low != accuracy_without_labels(source, target, replicates=39).low or np.isclose(changed.low, 1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"method": "gde"},
            "method must be one of atc-entropy, atc-confidence, difference, mean-confidence; got 'gde'",
        ),
        ({"replicates": 10}, "replicates must be at least 39"),
        ({"confidence_level": 1.0}, "confidence_level must be below 1"),
        ({"target": torch.zeros(3, 4)}, r"target must be logits \(M, 5\) like those of the source"),
        ({"target": torch.zeros(0, 5)}, r"target must be logits \(M, 5\) .* with at least one sample"),
        ({"target": torch.full((2, 5), float("inf"))}, "target must be finite"),
        ({"target": [[0.0] * 5]}, "logits must be a dense floating tensor"),
        ({"source": torch.zeros(3, 5)}, "predictions must be Predictions"),
    ],
)
def test_wrong_use(options, message):
    source = predictions(50, scale=1.0, seed=0)
    given = {"source": source, "target": source.logits, **options}
    with pytest.raises(ValueError, match=f"accuracy_without_labels: {message}"):
        accuracy_without_labels(given.pop("source"), given.pop("target"), **given)


def test_weights_are_refused_and_not_ignored():
    source = predictions(50, scale=1.0, seed=0)
    object.__setattr__(source, "weights", torch.ones(50))
    with pytest.raises(ValueError, match="accuracy_without_labels: predictions must have no weights"):
        accuracy_without_labels(source, torch.zeros(3, 5))
