"""The Brier loss by hand."""

import math

import pytest
import torch
import torch.nn.functional as F

from fedlas.losses import BrierLoss

LOGITS = torch.tensor([[math.log(2), 0.0, 0.0], [0.0, 0.0, math.log(4)]], dtype=torch.float64)
PROBS = torch.tensor([[1 / 2, 1 / 4, 1 / 4], [1 / 6, 1 / 6, 2 / 3]], dtype=torch.float64)


def test_by_hand():
    # (1/2)^2 + (1/4)^2 + (1/4)^2 and (1/6)^2 + (5/6)^2 + (2/3)^2.
    each = BrierLoss(reduction="none")(LOGITS, torch.tensor([0, 1]))
    torch.testing.assert_close(each, torch.tensor([3 / 8, 7 / 6], dtype=torch.float64))


@pytest.mark.parametrize("soft", [False, True])
def test_gradients_are_autograds(soft):
    generator = torch.Generator().manual_seed(0)
    logits = 2 * torch.randn(7, 5, generator=generator, dtype=torch.float64)
    logits.requires_grad_()
    target = torch.randint(5, (7,), generator=generator)
    if soft:
        target = torch.rand(7, 5, generator=generator, dtype=torch.float64)
        target = (0.1 + 0.8 * target).requires_grad_()
    wanted = (logits, target) if soft else (logits,)
    plain = (logits.softmax(1) - (target if soft else F.one_hot(target, 5))).square().sum(1)
    criterion = BrierLoss(reduction="none")
    value = criterion(logits, target)
    torch.testing.assert_close(value, plain)
    upstream = torch.linspace(-1, 2, 7, dtype=torch.float64)
    ours, theirs = (torch.autograd.grad(each @ upstream, wanted) for each in (value, plain))
    torch.testing.assert_close(ours, theirs)
    assert torch.autograd.gradgradcheck(
        criterion if soft else lambda z: criterion(z, target), wanted
    )


def test_prediction_equal_to_soft_target_has_zero_loss():
    torch.testing.assert_close(BrierLoss()(LOGITS, PROBS), torch.tensor(0.0, dtype=torch.float64))


def test_bounded():
    logits = torch.tensor([[1e4, -1e4]], requires_grad=True)
    value = BrierLoss()(logits, torch.tensor([1]))
    value.backward()
    assert value.item() == pytest.approx(2)
    assert (logits.grad == 0).all()


def test_class_weights():
    target, weight = torch.tensor([0, 1]), torch.tensor([1.0, 3.0, 5.0])
    value = BrierLoss(weight=weight)(LOGITS, target)
    assert value.item() == pytest.approx((3 / 8 + 3 * 7 / 6) / 4)
    soft = torch.tensor([[0.5, 0.5, 0.0], [0.0, 0.0, 1.0]], dtype=torch.float64)
    each = BrierLoss(weight=weight, reduction="none")(LOGITS, soft)
    torch.testing.assert_close(
        each, (PROBS - soft).square().sum(1) * torch.tensor([2.0, 5.0], dtype=torch.float64)
    )
