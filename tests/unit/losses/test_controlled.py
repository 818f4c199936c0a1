"""The strength that follows the held-out gap."""

import pytest
import torch

from fedlas.errors import InputError
from fedlas.losses import Controlled, LabelSmoothing
from fedlas.predictions import Predictions


def held_out(confidence, right, total=100):
    """Two classes, every sample with this confidence in class 0, ``right`` of them right."""
    logits = torch.tensor([[torch.logit(torch.tensor(confidence)).item(), 0.0]]).expand(total, 2)
    return Predictions(logits, (torch.arange(total) >= right).long())


def test_strength_follows_gap_within_bounds():
    criterion = Controlled(base={"name": "ls", "alpha": 0.1}, rate=0.5, low=0.05, high=0.3)
    criterion.update_from_validation(held_out(0.9, right=70))
    assert criterion.value.item() == pytest.approx(0.1 + 0.5 * 0.2, abs=1e-6)
    criterion.update_from_validation(held_out(0.9, right=50))
    assert criterion.value.item() == pytest.approx(0.3)
    for _ in range(9):
        criterion.update_from_validation(held_out(0.6, right=90))
    assert criterion.value.item() == pytest.approx(0.05)


def test_it_is_the_base_at_that_strength():
    criterion = Controlled(base="ls")
    criterion.update_from_validation(held_out(0.9, right=70))
    logits, target = torch.randn(6, 2), torch.tensor([0, 1, 1, 0, 0, 1])
    expected = LabelSmoothing(alpha=criterion.value.item())(logits, target)
    torch.testing.assert_close(criterion(logits, target), expected)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"base": "ce"}, "base must be a loss with a strength option"),
        ({"low": 0.5, "high": 0.2}, "low must be"),
        ({"high": 1.5}, "high must be"),
    ],
)
def test_options_that_cannot_be(options, message):
    with pytest.raises(InputError, match=message):
        Controlled(**options)


def test_initial_strength_equals_base_strength_above_one():
    assert Controlled(base={"name": "focal", "gamma": 3.0}).value.item() == 3
