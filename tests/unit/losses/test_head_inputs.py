"""Features and head weight, one row a position."""

import pytest
import torch

from fedlas.losses.base import prepare
from fedlas.losses.head_inputs import counted_rows, linear_inputs


def batch(features, target, dense=(), weight=True):
    logits = torch.randn(target.shape[0], 3, *dense, dtype=torch.float64)
    return prepare("test", logits, target, features, head_weight=torch.randn(3, 4) if weight else None)


def test_plain():
    features = torch.randn(2, 4).half()
    given = batch(features, torch.tensor([0, 1]))
    rows, weight = linear_inputs("test", given)
    assert rows.dtype == weight.dtype == torch.float64
    assert rows.equal(features.double())
    assert counted_rows(given) is None


def test_ignored_rows_are_zero_whatever_they_hold():
    features = torch.tensor([[1.0] * 4, [float("nan")] * 4])
    given = batch(features, torch.tensor([0, -100]))
    assert linear_inputs("test", given)[0].tolist() == [[1.0] * 4, [0.0] * 4]
    assert counted_rows(given).tolist() == [True, False]


def test_features_of_an_image_are_repeated_for_its_positions():
    features = torch.randn(2, 4)
    given = batch(features, torch.tensor([[0, -100, 2], [-100, -100, -100]]), dense=(3,))
    rows = linear_inputs("test", given)[0].float()
    assert rows[0].equal(features[0])
    assert rows[2].equal(features[0])
    assert (rows[[1, 3, 4, 5]] == 0).all()
    assert counted_rows(given).tolist() == [True, False]


@pytest.mark.parametrize(("given", "missing"), [
    (batch(None, torch.tensor([0, 1])), "features"),
    (batch(torch.randn(2, 4), torch.tensor([0, 1]), weight=False), "head_weight"),
])  # fmt: skip
def test_what_is_missing_is_named(given, missing):
    with pytest.raises(TypeError, match=f"test: {missing}"):
        linear_inputs("test", given)
