"""Weights without a gradient, label relaxation and comp-sum losses, by hand."""

import math

import pytest
import torch
import torch.nn.functional as F

from fedlas.losses import BSCEGRA, GCE, DualFocalGRA, DualFocalLoss, LabelRelaxation

LOGITS = torch.tensor([[2.0, 0.0, -1.0], [0.0, 1.0, 0.5]], dtype=torch.float64)
TARGET = torch.tensor([0, 2])


def gradient(criterion, logits=LOGITS, target=TARGET):
    logits = logits.clone().requires_grad_()
    criterion(logits, target).backward()
    return logits.grad


@pytest.mark.parametrize(("gamma", "norm"), [(1.0, 2.0), (0.5, 1.0)])
def test_bsce_gra_scales_the_gradient_of_cross_entropy(gamma, norm):
    gap = LOGITS.softmax(1) - F.one_hot(TARGET, 3)
    weight = torch.linalg.vector_norm(gap, norm, dim=1, keepdim=True) ** gamma
    torch.testing.assert_close(gradient(BSCEGRA(gamma=gamma, norm=norm)), weight * gap / 2)


def test_bsce_gra_in_numbers():
    """p = (3/4, 1/4) and the label second: the distance is sqrt(2) 3/4, and the gradient that times (3/4, -3/4)."""
    logits, target = torch.tensor([[math.log(3), 0.0]]), torch.tensor([1])
    assert BSCEGRA()(logits, target).item() == pytest.approx(1.0606602 * 1.3862944)
    assert gradient(BSCEGRA(), logits, target)[0].tolist() == pytest.approx([0.7954951, -0.7954951])


def test_dual_focal_gra_detaches_the_weight():
    criterion, plain = DualFocalGRA(gamma=2.0), DualFocalLoss(gamma=2.0)
    torch.testing.assert_close(criterion(LOGITS, TARGET), plain(LOGITS, TARGET))
    probs = LOGITS.softmax(1)
    bracket = torch.stack((1 - probs[0, 0] + probs[0, 1], 1 - probs[1, 2] + probs[1, 0])) ** 2
    torch.testing.assert_close(
        gradient(criterion), bracket[:, None] * (probs - F.one_hot(TARGET, 3)) / 2
    )


def test_label_relaxation_equals_divergence_from_nearest_target():
    criterion, alpha = LabelRelaxation(alpha=0.2), 0.2
    probs = LOGITS.softmax(1)
    assert probs[0, 0] > 0.8 > probs[1, 2]  # the first is permitted, the second not
    r = alpha * probs[1] / (1 - probs[1, 2])
    r[2] = 1 - alpha
    expected = torch.stack((torch.zeros((), dtype=torch.float64), (r * (r / probs[1]).log()).sum()))
    torch.testing.assert_close(criterion(LOGITS, TARGET), expected.mean())
    torch.testing.assert_close(gradient(criterion)[1], (probs[1] - r) / 2)
    assert not gradient(criterion)[0].any()


@pytest.mark.parametrize("tau", [0.0, 0.5, 1.0, 1.7, 2.0])
def test_comp_sum_family(tau):
    p = LOGITS.softmax(1)[[0, 1], TARGET]
    expected = -p.log() if tau == 1 else (1 - p ** (tau - 1)) / (tau - 1)
    torch.testing.assert_close(GCE(tau=tau)(LOGITS, TARGET), expected.mean())
    assert GCE(tau=tau)(torch.tensor([[40.0, 0.0]]), torch.tensor([0])) == pytest.approx(
        0, abs=1e-6
    )
    assert math.isfinite(GCE(tau=tau)(torch.tensor([[0.0, 40.0]]), torch.tensor([0])))


def test_zero_soft_target_class_adds_nothing():
    criterion = GCE(tau=0.0)
    assert criterion(
        torch.tensor([[300.0, 0.0]]), torch.tensor([[1.0, 0.0]])
    ).item() == pytest.approx(0.0, abs=1e-6)
