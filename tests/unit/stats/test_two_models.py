import math

import numpy as np
import pytest
import torch

import fedlas
from fedlas import Predictions, TopLabel
from fedlas.metrics import METRICS
from fedlas.stats import holm, paired_bootstrap


def two(samples=1500):
    """The second is sharper than the truth, and its mistakes are others."""
    generator = torch.Generator().manual_seed(0)
    logits = 2 * torch.randn(samples, 5, generator=generator)
    target = torch.multinomial(logits.softmax(1), 1, generator=generator).squeeze(1)
    worse = 2 * (logits + torch.randn(samples, 5, generator=generator))
    return Predictions(logits, target), Predictions(worse, target)


def top(p):
    return TopLabel(p.tensors().confidence, p.tensors().correct)


def test_who_is_better_in_what():
    a, b = two()
    found = fedlas.compare(a, b, replicates=199)
    assert list(found) == ["accuracy", "nll", "brier", "ece"]
    assert {each.better for each in found.values()} == {"a"}
    assert {each.better for each in fedlas.compare(b, a, replicates=199).values()} == {"b"}
    same = fedlas.compare(a, a.with_logits(a.tensors().logits), replicates=60)
    assert {each.better for each in same.values()} == {None}
    assert {each.p for each in same.values()} == {1.0}
    for name, each in found.items():
        alone = paired_bootstrap(a, b, metric=name, replicates=199)
        assert (each.a, each.b, each.low, each.high) == (
            alone.a,
            alone.b,
            alone.low,
            alone.high,
        )
        assert each.a == METRICS[name].value(a)
        assert name == "accuracy" or each.p_value == alone.p_value
    assert [each.p for each in found.values()] == holm([each.p_value for each in found.values()])


def test_metric_without_direction_has_no_winner():
    a, b = two()
    assert fedlas.compare(a, b, ["debiased_ece2"], replicates=99)["debiased_ece2"].better is None


def test_top_labels_compare_as_their_predictions_do():
    a, b = two()
    whole = fedlas.compare(a, b, ["accuracy", "ece"], replicates=99)
    assert fedlas.compare(top(a), top(b), replicates=99) == whole
    assert fedlas.compare(top(a), b, replicates=99) == whole
    with pytest.raises(ValueError, match=r"'nll' .*probabilities of all"):
        fedlas.compare(top(a), b, ["nll"], replicates=99)


def test_other_samples_are_refused():
    a, b = two()
    shuffled = Predictions(b.tensors().logits, b.tensors().target.roll(1))
    with pytest.raises(ValueError, match=r"different targets in [\d,]+ of 1,500 .*row \d"):
        fedlas.compare(a, shuffled)
    with pytest.raises(ValueError, match="got 1,500 and 10 samples"):
        fedlas.compare(top(a), TopLabel([0.5] * 10, [True] * 10))
    with pytest.raises(ValueError, match="predictions must be Predictions"):
        fedlas.compare(a, "b.npz")


@pytest.mark.parametrize(
    ("alone", "other"), [(0, 0), (1, 0), (6, 2), (30, 41), (300, 340), (900, 2)]
)
def test_mcnemar_by_hand(alone, other):
    a = np.array([True] * alone + [False] * other + [True] * 5)
    b = np.array([False] * alone + [True] * other + [True] * 5)
    total = alone + other
    exact = sum(math.comb(total, k) for k in range(min(alone, other) + 1)) * 2 / 2**total
    models = [TopLabel([0.6] * len(right), right) for right in (a, b)]
    for pair in (models, models[::-1]):
        accuracy = fedlas.compare(*pair, ["accuracy"], replicates=39)["accuracy"]
        assert accuracy.p_value == pytest.approx(min(1.0, exact), rel=1e-9)
