"""What a checked batch offers: features one row a position, means of samples, costs of the target."""

import pytest
import torch

from fedlas.losses import prepare


def batch(features, target, dense=(), weight=True):
    logits = torch.randn(target.shape[0], 3, *dense, dtype=torch.float64)
    return prepare("test", logits, target, features, head_weight=torch.randn(3, 4) if weight else None)


def test_plain():
    features = torch.randn(2, 4).half()
    given = batch(features, torch.tensor([0, 1]))
    rows, weight = given.linear_inputs("test")
    assert rows.dtype == weight.dtype == torch.float64
    assert rows.equal(features.double())
    assert given.valid_rows(2) is None


def test_ignored_rows_are_zero_even_if_they_hold_nan():
    features = torch.tensor([[1.0] * 4, [float("nan")] * 4])
    given = batch(features, torch.tensor([0, -100]))
    assert given.linear_inputs("test")[0].tolist() == [[1.0] * 4, [0.0] * 4]
    assert given.valid_rows(2).tolist() == [True, False]


def test_features_of_an_image_are_repeated_for_its_positions():
    features = torch.randn(2, 4)
    given = batch(features, torch.tensor([[0, -100, 2], [-100, -100, -100]]), dense=(3,))
    rows = given.linear_inputs("test")[0].float()
    assert rows[0].equal(features[0])
    assert rows[2].equal(features[0])
    assert (rows[[1, 3, 4, 5]] == 0).all()
    assert given.valid_rows(2).tolist() == [True, False]


@pytest.mark.parametrize(("given", "missing"), [
    (batch(None, torch.tensor([0, 1])), "features"),
    (batch(torch.randn(2, 4), torch.tensor([0, 1]), weight=False), "head_weight"),
])  # fmt: skip
def test_a_missing_tensor_is_named(given, missing):
    with pytest.raises(TypeError, match=f"test: {missing}"):
        given.linear_inputs("test")
