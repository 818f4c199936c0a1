import pytest
import torch

from fedlas import Predictions
from fedlas.metrics import (
    METRICS,
    confidence_gap,
    ece,
    o_ece,
    reliability_bins,
    u_ece,
)


def mixed(samples=400):
    torch.manual_seed(0)
    logits = torch.randn(samples, 6) * 2
    return Predictions(logits, torch.multinomial((logits / 1.2).softmax(1), 1).squeeze(1))


@pytest.mark.parametrize("num_bins", [1, 4, 15, 90])
def test_parts_sum_to_ece_and_differ_by_gap(num_bins):
    p = mixed()
    over = o_ece(p, num_bins=num_bins)
    under = u_ece(p, num_bins=num_bins)
    assert over + under == pytest.approx(ece(p, num_bins=num_bins), rel=1e-12)
    assert over - under == pytest.approx(confidence_gap(p), rel=1e-9, abs=1e-12)


def test_each_part_has_its_own_bins():
    p, bins = mixed(), reliability_bins(mixed())
    gap = bins.count / 400 * (bins.confidence - bins.accuracy)
    assert o_ece(p) == pytest.approx(float(gap[gap > 0].sum()), rel=1e-12)
    assert u_ece(p) == pytest.approx(-float(gap[gap < 0].sum()), rel=1e-12)
    assert min(o_ece(p), u_ece(p)) > 0


def test_gap_is_mean_confidence_minus_accuracy():
    p = mixed()
    assert confidence_gap(p) == pytest.approx(
        float(p.tensors().confidence.double().mean() - p.tensors().correct.double().mean()),
        rel=1e-9,
    )
    assert confidence_gap(Predictions(p.tensors().logits * 100, p.tensors().target)) > 0.3
    assert confidence_gap(Predictions(p.tensors().logits * 0.01, p.tensors().target)) < -0.2


def test_signed_parts_have_direction_but_are_not_ranked():
    """A model that is more confident throughout has less of one part and more of the other."""
    for name in ("o_ece", "u_ece"):
        assert METRICS[name].ranked is False
        assert METRICS[name].higher_is_better is False
    assert all(entry.ranked for entry in METRICS.entries() if entry.name in ("ece", "smooth_ece"))
