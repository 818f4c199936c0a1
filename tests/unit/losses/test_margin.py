"""MbLS by hand."""

import pytest
import torch
import torch.nn.functional as F

from batches import penalty_of
from fedlas.errors import InputError
from fedlas.losses import MbLS


def test_by_hand():
    # Distances to the largest logit: 0, 3, 10; beyond a margin of 2: 0, 1, 8; mean over all three classes: 3.
    logits = torch.tensor([[10.0, 7.0, 0.0]])
    assert penalty_of(MbLS(margin=2), logits, torch.tensor([1])).tolist() == [3.0]
    expected = F.cross_entropy(logits, torch.tensor([1])) + 0.5 * 3
    torch.testing.assert_close(MbLS(alpha=0.5, margin=2)(logits, torch.tensor([1])), expected)


def test_gradient_reaches_the_largest_logit_too():
    logits = torch.tensor([[10.0, 7.0, 0.0]], requires_grad=True)
    penalty_of(MbLS(margin=2), logits, torch.tensor([1])).sum().backward()
    torch.testing.assert_close(logits.grad, torch.tensor([[2.0, -1.0, -1.0]]) / 3)


def test_within_the_margin_it_is_cross_entropy():
    logits, target = torch.randn(6, 4), torch.tensor([0, 1, 2, 3, 0, 1])
    torch.testing.assert_close(
        MbLS(alpha=0.1, margin=100)(logits, target), F.cross_entropy(logits, target)
    )


def test_class_weights_weigh_the_penalty_by_the_target():
    logits, target, weight = (
        torch.randn(6, 3) * 9,
        torch.tensor([0, 1, 2, 2, 0, 1]),
        torch.tensor([1.0, 2.0, 0.5]),
    )
    each = MbLS(margin=6, reduction="none")(logits, target)
    value = MbLS(margin=6, weight=weight)(logits, target)
    torch.testing.assert_close(value, (each * weight[target]).sum() / weight[target].sum())


@pytest.mark.parametrize(
    "options", [{"alpha": -1.0}, {"margin": -0.1}, {"margin": float("inf")}, {"alpha": "1"}]
)
def test_invalid_margin_arguments_raise(options):
    with pytest.raises(InputError, match=f"MbLS: {next(iter(options))}"):
        MbLS(**options)
