"""The strength that follows the held-out gap."""

import pytest
import torch

from fedlas._core.check import InputError
from fedlas.losses import Controlled, LabelSmoothing
from fedlas.predictions import Predictions


def held_out(confidence, right, total=100):
    """Two classes, every sample with this confidence in class 0, ``right`` of them right."""
    logits = torch.tensor([[torch.logit(torch.tensor(confidence)).item(), 0.0]]).expand(total, 2)
    return Predictions(logits, (torch.arange(total) >= right).long())


def test_the_strength_moves_by_the_gap_and_stops_at_its_bounds():
    criterion = Controlled(base={"name": "ls", "alpha": 0.1}, rate=0.5, low=0.05, high=0.3)
    criterion.update_from_validation(held_out(0.9, right=70))
    assert criterion.strengths.item() == pytest.approx(0.1 + 0.5 * 0.2, abs=1e-6)
    criterion.update_from_validation(held_out(0.9, right=50))
    assert criterion.strengths.item() == pytest.approx(0.3)
    for _ in range(9):
        criterion.update_from_validation(held_out(0.6, right=90))
    assert criterion.strengths.item() == pytest.approx(0.05)


def test_it_is_the_base_at_that_strength():
    criterion = Controlled(base="ls")
    criterion.update_from_validation(held_out(0.9, right=70))
    logits, target = torch.randn(6, 2), torch.tensor([0, 1, 1, 0, 0, 1])
    expected = LabelSmoothing(alpha=criterion.strengths.item())(logits, target)
    torch.testing.assert_close(criterion(logits, target), expected)


def test_each_cell_of_confidence_has_its_own_strength():
    sure, unsure = held_out(0.9, right=60), held_out(0.6, right=80)
    predictions = Predictions(torch.cat((sure.logits, unsure.logits)), torch.cat((sure.target, unsure.target)))
    criterion = Controlled(base={"name": "ls", "alpha": 0.2}, rate=0.5, num_cells=2)
    criterion.update_from_validation(predictions)
    assert criterion.strengths.tolist() == pytest.approx([0.2 - 0.5 * 0.2, 0.2 + 0.5 * 0.3], abs=1e-6)
    low, high = (LabelSmoothing(alpha=alpha.item()) for alpha in criterion.strengths)
    logits, target = torch.tensor([[0.1, 0.0], [3.0, 0.0]]), torch.tensor([0, 1])
    expected = (low(logits[:1], target[:1]) + high(logits[1:], target[1:])) / 2
    torch.testing.assert_close(criterion(logits, target), expected)


def test_cells_of_norms_need_features_and_change_nothing_without():
    criterion = Controlled(num_cells=2, by="norm")
    assert "features" in criterion.needs
    with pytest.raises(InputError, match=r"features of the validation samples; got none"):
        criterion.update_from_validation(held_out(0.9, right=70))
    assert criterion.strengths.tolist() == pytest.approx([0.05, 0.05])
    sure = held_out(0.9, right=7, total=10)
    features = torch.arange(10.0)[:, None].expand(10, 4)  # the three wrong ones have the largest norms
    criterion.update_from_validation(Predictions(sure.logits, sure.target, features=features))
    low, high = criterion.strengths.tolist()
    assert low < high


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"base": "ce"}, "base must have a strength"),
        ({"low": 0.5, "high": 0.2}, "low must be"),
        ({"high": 1.5}, "high must be"),
        ({"by": "size"}, "Did you mean|Choose"),
    ],
)
def test_options_that_cannot_be(options, message):
    with pytest.raises(InputError, match=message):
        Controlled(**options)
