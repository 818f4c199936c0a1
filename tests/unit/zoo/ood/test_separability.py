"""Separability by angle and by length: cases that can be counted, and agreement with the scores."""

import math

import pytest
import torch

from fedlas._core.check import InputError
from fedlas.zoo.ood import angular_separability, detection_metrics, feature_norm_score, norm_separability

AXES = torch.tensor([[1.0, 0.0], [9.0, 0.0], [0.0, 2.0]])
CLASSES = torch.tensor([0, 0, 3])  # a class without training images has no direction


def at(*degrees, length=1.0):
    turned = torch.tensor([math.radians(angle) for angle in degrees])
    return length * torch.stack([turned.cos(), turned.sin()], dim=1)


def test_angles_by_hand():
    """Known samples are 5, 20 and 40 degrees from the nearer axis, unknown ones 30 and 135 - 90 = 45."""
    known, unknown = at(5, 70, 40), at(60, 135, length=100.0)
    # 5 and 20 are below both, 40 below 45 only: 5 of 6 pairs.
    value = angular_separability(known, unknown, train_features=AXES, train_target=CLASSES)
    assert value == pytest.approx(5 / 6)


def test_mean_directions_by_hand():
    """Directions of 0 and 60 degrees have their mean at 30, however long the features are."""
    train = torch.cat([at(0, length=50.0), at(60)])
    same = torch.zeros(2, dtype=torch.int64)
    assert angular_separability(at(30), at(29, 31), train_features=train, train_target=same) == 1.0
    assert angular_separability(at(0), at(29, 31), train_features=train, train_target=same) == 0.0


def test_equal_angles_count_half():
    above, below = torch.tensor([[3.0, 4.0]]), torch.tensor([[3.0, -4.0]])
    axis = torch.tensor([[1.0, 0.0]])
    assert angular_separability(above, below, train_features=axis, train_target=torch.tensor([0])) == 0.5


def test_a_vector_of_zeros_is_far_from_everything():
    zeros = torch.zeros(1, 2)
    assert angular_separability(at(80), zeros, train_features=AXES, train_target=CLASSES) == 1.0


def test_lengths_by_hand():
    """Lengths 5 and 1 against 2 and 1: 5 exceeds both, 1 equals one of them."""
    known, unknown = torch.tensor([[3.0, 4.0], [0.0, 1.0]]), torch.tensor([[0.0, 2.0], [-1.0, 0.0]])
    assert norm_separability(known, unknown) == (2 + 0.5) / 4
    assert norm_separability(unknown, known) == 1 - (2 + 0.5) / 4


@pytest.mark.parametrize("order", [1.0, 2.0, math.inf])
def test_lengths_are_the_score_of_the_feature_norm(order):
    generator = torch.Generator().manual_seed(0)
    known, unknown = 1.2 * torch.randn(30, 5, generator=generator), torch.randn(20, 5, generator=generator)
    scores = (feature_norm_score(rows, order=order) for rows in (known, unknown))
    assert norm_separability(known, unknown, order=order) == pytest.approx(detection_metrics(*scores)["auroc"])


def test_what_cannot_be():
    known = at(5, 70)
    with pytest.raises(InputError, match=r"train_target must be the classes \(3,\)"):
        angular_separability(known, known, train_features=AXES, train_target=CLASSES[:2])
    with pytest.raises(InputError, match="int64 and at least 0"):
        angular_separability(known, known, train_features=AXES, train_target=CLASSES - 1)
    with pytest.raises(InputError, match=r"features must be a dense floating tensor \(N, 2\)"):
        angular_separability(known, torch.rand(3, 4), train_features=AXES, train_target=CLASSES)
    with pytest.raises(InputError, match=r"norm_separability: features .* \(N, 2\)"):
        norm_separability(known, torch.rand(3, 4))
    with pytest.raises(InputError, match="order"):
        norm_separability(known, known, order=0.0)
