import pytest
import torch

from fedlas import Predictions
from fedlas.metrics import confidence_gap, ks


def literal(p):
    """Over every threshold, sample by sample."""
    confidence, correct = p.tensors().confidence.double().tolist(), p.correct.tolist()
    return max(
        abs(sum(c - r for c, r in zip(confidence, correct, strict=True) if c <= t))
        / len(confidence)
        for t in confidence
    )


@pytest.mark.parametrize("samples", [1, 2, 30, 150])
def test_is_the_definition(samples):
    torch.manual_seed(samples)
    p = Predictions(torch.randn(samples, 4) * 2, torch.randint(4, (samples,)))
    assert ks(p) == pytest.approx(literal(p), rel=1e-12)


def test_ties_enter_together():
    # One after another the wrong half would take the sum to 1/4 first.
    target = [1] * 10 + [0] * 10
    for labels in (target, target[::-1]):
        assert ks(Predictions(torch.zeros(20, 2), labels)) == 0.0


def test_everywhere_overconfident_is_the_gap():
    # right half of the time
    confidence = torch.tensor([0.6, 0.7, 0.8, 0.9], dtype=torch.float64).repeat(10)
    p = Predictions(torch.stack([confidence, 1 - confidence], 1).log(), [0] * 20 + [1] * 20)
    assert confidence_gap(p) == pytest.approx(0.25, rel=1e-9)
    assert ks(p) == pytest.approx(confidence_gap(p), rel=1e-9)


def test_opposite_errors_at_different_confidences_do_not_cancel():
    logits = torch.tensor([[0.6, 0.4]] * 10 + [[0.9, 0.1]] * 10, dtype=torch.float64).log()
    # 0.6 is right 9 in 10, 0.9 is right 6 in 10
    p = Predictions(logits, [0] * 9 + [1] + [0] * 6 + [1] * 4)
    assert confidence_gap(p) == pytest.approx(0.0, abs=1e-9)
    assert ks(p) == pytest.approx(0.15, rel=1e-9)
