"""Poly-1 loss by hand and by its series."""

import math

import pytest
import torch
import torch.nn.functional as F

from fedlas.errors import InputError
from fedlas.losses import PolyLoss

# p = (3/4, 1/4), (1/5, 4/5)
LOGITS = torch.tensor([[math.log(3), 0.0], [0.0, math.log(4)]], dtype=torch.float64)


def test_by_hand():
    each = PolyLoss(eps=2, reduction="none")(LOGITS, torch.tensor([0, 0]))
    expected = [-math.log(3 / 4) + 2 / 4, -math.log(1 / 5) + 2 * 4 / 5]
    torch.testing.assert_close(each, torch.tensor(expected, dtype=torch.float64))


def test_without_eps_it_is_cross_entropy():
    target = torch.tensor([0, 1])
    torch.testing.assert_close(PolyLoss(eps=0)(LOGITS, target), F.cross_entropy(LOGITS, target))


@pytest.mark.parametrize("eps", [-1.0, 0.5, 2.0])
def test_is_the_series_with_another_first_coefficient(eps):
    """-log p = sum_j (1 - p)^j / j."""
    value = PolyLoss(eps=eps)(LOGITS[:1], torch.tensor([0])).item()
    series = sum((1 / 4) ** j / j for j in range(1, 40))
    assert value == pytest.approx(series + eps / 4)


def test_gradient():
    """For the target's logit -(1 - p)(1 + eps p); the other one's is the opposite."""
    logits = LOGITS.clone().requires_grad_()
    PolyLoss(eps=2, reduction="sum")(logits, torch.tensor([0, 0])).backward()
    slope = torch.tensor([-(1 / 4) * (1 + 2 * 3 / 4), -(4 / 5) * (1 + 2 / 5)], dtype=torch.float64)
    torch.testing.assert_close(logits.grad, torch.stack((slope, -slope), 1))


def test_soft_targets_take_shares():
    soft = torch.tensor([[0.3, 0.7], [1.0, 0.0]], dtype=torch.float64)
    weight = torch.tensor([2.0, 0.5])
    hard = [PolyLoss(reduction="none", weight=weight)(LOGITS, torch.tensor([k, k])) for k in (0, 1)]
    each = PolyLoss(reduction="none", weight=weight)(LOGITS, soft)
    torch.testing.assert_close(each, hard[0] * soft[:, 0] + hard[1] * soft[:, 1])


@pytest.mark.parametrize("options", [{"eps": -1.01}, {"eps": "1"}])
def test_invalid_poly_arguments_raise(options):
    with pytest.raises(InputError, match="PolyLoss: eps"):
        PolyLoss(**options)
