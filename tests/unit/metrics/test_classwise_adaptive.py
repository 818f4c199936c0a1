import numpy as np
import pytest
import torch

from fedlas import Predictions
from fedlas.metrics import (
    ace,
    adaptive_ece,
    classwise_ece,
)


def sampled(samples=120, classes=6, seed=0):
    torch.manual_seed(seed)
    logits = torch.randn(samples, classes, dtype=torch.float64)
    return Predictions(logits * 2, torch.multinomial(logits.softmax(1), 1).squeeze(1))


@pytest.mark.parametrize("num_bins", [1, 5, 8])
def test_ace_matches_paper_for_equal_bin_counts(num_bins):
    p = sampled()
    probs, target = p.probs, p.target
    errors = [
        abs((target[rows] == label).mean() - probs[rows, label].mean())
        for label in range(p.num_classes)
        # 120 samples: as many in every bin
        for rows in np.array_split(np.argsort(probs[:, label]), num_bins)
    ]
    assert ace(p, num_bins=num_bins) == pytest.approx(np.mean(errors), rel=1e-9)


def test_is_neither_adaptive_nor_classwise_ece():
    p = sampled()
    value = ace(p)
    assert value != pytest.approx(adaptive_ece(p), rel=0.1)
    assert value != pytest.approx(classwise_ece(p), rel=0.01)
    # With a single bin the two classwise errors are the same comparison of means.
    one = ace(p, num_bins=1)
    assert one == pytest.approx(classwise_ece(p, num_bins=1), rel=1e-9)


def test_no_class_is_lost_between_blocks():
    """More than 2^22 probabilities are sorted in blocks of classes."""
    p = sampled(2000, 2100)
    one = ace(p, num_bins=1)
    assert one == pytest.approx(classwise_ece(p, num_bins=1), rel=1e-9)


def test_underflowed_probabilities_stay_together():
    p = Predictions(torch.tensor([[900.0, 0.0, 0.0]] * 10), [0] * 9 + [1])
    # Classes 0, 1, 2 have probabilities 1, 0, 0 and frequencies 0.9, 0.1, 0.
    assert ace(p) == pytest.approx(0.2 / 3, rel=1e-12)


@pytest.mark.parametrize("num_bins", [0, 2.5])
def test_num_bins_must_be_a_count(num_bins):
    with pytest.raises(ValueError, match=r"ace: num_bins .*whole number"):
        ace(sampled(), num_bins=num_bins)
