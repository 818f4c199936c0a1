"""MDCA by hand, and around other losses."""

import math

import pytest
import torch
import torch.nn.functional as F

from batches import penalty_of
from fedlas.errors import InputError
from fedlas.losses import MDCA, FocalLoss, LabelSmoothing

# Probabilities (1/2, 1/4, 1/4) and (1/6, 1/6, 2/3): means (1/3, 5/24, 11/24).
LOGITS = torch.tensor([[math.log(2), 0.0, 0.0], [0.0, 0.0, math.log(4)]], dtype=torch.float64)


def gap_of(logits, target):
    return penalty_of(MDCA(), logits, target)


def test_by_hand():
    gap = (abs(1 / 3 - 1 / 2) + abs(5 / 24 - 1 / 2) + abs(11 / 24 - 0)) / 3
    assert gap_of(LOGITS, torch.tensor([0, 1])).item() == pytest.approx(gap)
    target = torch.tensor([0, 1])
    torch.testing.assert_close(
        MDCA(alpha=3)(LOGITS, target), F.cross_entropy(LOGITS, target) + 3 * gap
    )


def test_soft_targets_count_by_their_mean():
    soft = torch.tensor([[0.5, 0.5, 0.0], [0.1, 0.2, 0.7]], dtype=torch.float64)
    gap = (abs(1 / 3 - 0.3) + abs(5 / 24 - 0.35) + abs(11 / 24 - 0.35)) / 3
    assert gap_of(LOGITS, soft).item() == pytest.approx(gap)


def test_permuted_labels_change_nothing():
    target = torch.tensor([0, 1])
    assert gap_of(LOGITS, target) == gap_of(LOGITS, target.flip(0))


@pytest.mark.parametrize(
    "base", ["focal", {"name": "focal", "gamma": 3.0}, FocalLoss()], ids=["name", "mapping", "loss"]
)
@pytest.mark.parametrize("weight", [None, [1.0, 2.0, 0.5]], ids=["plain", "weighted"])
def test_around_focal_loss(base, weight):
    target = torch.tensor([2, 0])
    focal = FocalLoss(weight=weight)(LOGITS, target)
    torch.testing.assert_close(
        MDCA(base=base, weight=weight)(LOGITS, target), focal + gap_of(LOGITS, target)
    )


def test_options_of_the_base():
    target = torch.tensor([2, 0])
    criterion = MDCA(base={"name": "ls", "alpha": 0.2}, alpha=0)
    torch.testing.assert_close(criterion(LOGITS, target), LabelSmoothing(alpha=0.2)(LOGITS, target))


def test_needs_what_its_base_needs():
    criterion = MDCA(num_classes=3, base="fedlas", alpha=2)
    assert criterion.needs == {"features"}
    assert MDCA().needs == frozenset()
    target, features = torch.tensor([0, 1]), torch.rand(2, 4)
    with pytest.raises(TypeError, match="MDCA: features"):
        criterion(LOGITS, target)
    value = criterion(LOGITS, target, features=features)
    assert criterion.base.nci.num_batches_tracked == 1
    # NCI has moved to this batch and stays there
    base = criterion.base.eval()(LOGITS, target, features=features)
    torch.testing.assert_close(value, base + 2 * gap_of(LOGITS, target))


@pytest.mark.parametrize(
    ("options", "match"),
    [({"alpha": -1.0}, "alpha"), ({"base": 3}, "base must be"), ({"base": "focl"}, "Did you mean 'focal'"),
     ({"base": FocalLoss(reduction="sum")}, "base must have default reduction"), ({"num_classes": 0}, "num_classes")],
)  # fmt: skip
def test_invalid_mdca_arguments_raise(options, match):
    with pytest.raises(InputError, match=match):
        MDCA(**options)
