"""What a checked batch offers: features one row a position, means of samples, costs of the target."""

import pytest
import torch

from batches import batch_of


def batch(features, target, dense=(), weight=True):
    logits = torch.randn(target.shape[0], 3, *dense, dtype=torch.float64)
    extras = {"features": features, "head_weight": torch.randn(3, 4) if weight else None}
    return batch_of(logits, target, **extras)


def test_plain():
    features = torch.randn(2, 4).half()
    given = batch(features, torch.tensor([0, 1]))
    rows, weight = given.features_and_head_weight()
    assert rows.dtype == weight.dtype == torch.float64
    assert rows.equal(features.double())
    assert given.valid_samples(2) is None


def test_ignored_rows_with_nan_become_zero():
    features = torch.tensor([[1.0] * 4, [float("nan")] * 4])
    given = batch(features, torch.tensor([0, -100]))
    assert given.features_and_head_weight()[0].tolist() == [[1.0] * 4, [0.0] * 4]
    assert given.valid_samples(2).tolist() == [True, False]


def test_image_features_are_repeated_per_position():
    features = torch.randn(2, 4)
    given = batch(features, torch.tensor([[0, -100, 2], [-100, -100, -100]]), dense=(3,))
    rows = given.features_and_head_weight()[0].float()
    assert rows[0].equal(features[0])
    assert rows[2].equal(features[0])
    assert (rows[[1, 3, 4, 5]] == 0).all()
    assert given.valid_samples(2).tolist() == [True, False]


@pytest.mark.parametrize(("given", "missing"), [
    (batch(None, torch.tensor([0, 1])), "features"),
    (batch(torch.randn(2, 4), torch.tensor([0, 1]), weight=False), "head_weight"),
])  # fmt: skip
def test_a_missing_tensor_is_named(given, missing):
    with pytest.raises(TypeError, match=f"{missing} must be passed"):
        given.features_and_head_weight()


@pytest.mark.parametrize("masked", [False, True])
def test_mean_of_a_samples_valid_positions(masked):
    ignored = -100 if masked else 0
    target = torch.tensor([[0, ignored, 2], [ignored] * 3])
    given = batch(None, target, dense=(3,))
    values = torch.tensor([1.0, 20.0, 3.0, 4.0, 5.0, 9.0])
    mean = given.mean_per_sample(values, 2)
    assert mean.tolist() == ([2.0, 0.0] if masked else [8.0, 6.0])
    columns = given.mean_per_sample(torch.stack((values, -values), dim=1), 2)
    assert columns.tolist() == torch.stack((mean, -mean), dim=1).tolist()
    assert given.repeat_per_position(mean).tolist() == [mean[0]] * 3 + [mean[1]] * 3


def test_one_value_a_row_is_its_own_mean():
    given = batch(None, torch.tensor([0, -100]))
    values = torch.randn(2)
    assert given.mean_per_sample(values, 2).equal(values)


@pytest.mark.parametrize(
    "weight", [None, torch.tensor([0.5, 1.0, 3.0], dtype=torch.float64)], ids=["plain", "weighted"]
)
def test_target_cost_averages_over_soft_targets(weight):
    logits, soft = (
        torch.randn(4, 3, dtype=torch.float64),
        torch.rand(4, 3, dtype=torch.float64).softmax(1),
    )
    each = [
        batch_of(logits, torch.full((4,), k), weight=weight).target_cost(torch.square)
        for k in range(3)
    ]
    factor = 1 if weight is None else weight
    torch.testing.assert_close(torch.stack(each, dim=1), logits.log_softmax(1).square() * factor)
    found = batch_of(logits, soft, weight=weight).target_cost(torch.square)
    torch.testing.assert_close(found, (soft * torch.stack(each, dim=1)).sum(1))
