import pytest
import torch

from fedlas import Predictions
from fedlas.metrics import classwise_ece


def test_two_classes_by_hand():
    p = Predictions(torch.tensor([[0.9, 0.1], [0.8, 0.2]]).log(), [0, 1])
    # Both classes: gaps 0.1 and 0.8 in bins of their own.
    assert classwise_ece(p, num_bins=10) == pytest.approx((0.1 + 0.8) / 2, rel=1e-5)


def test_classes_without_labels_count():
    probs = torch.tensor([[0.5, 0.25, 0.25]] * 4)
    p = Predictions(probs.log(), [0, 0, 0, 0])
    assert classwise_ece(p) == pytest.approx((0.5 + 0.25 + 0.25) / 3, rel=1e-5)
    assert classwise_ece(p, variant="reference") == pytest.approx(0.5, rel=1e-5)


def test_zero_probability_is_in_first_bin():
    p = Predictions(torch.tensor([[500.0, 0.0]]), torch.tensor([1]))
    assert p.probs.tolist() == [[1.0, 0.0]]
    assert classwise_ece(p) == 1.0
    assert classwise_ece(p, variant="reference") == 0.5


def test_one_bin_compares_means():
    torch.manual_seed(0)
    p = Predictions(torch.randn(50, 4, dtype=torch.float64), torch.randint(4, (50,)))
    shares = torch.nn.functional.one_hot(p.tensors().target, 4).double().mean(0)
    expected = (p.tensors().probs.mean(0) - shares).abs().mean()
    assert classwise_ece(p, num_bins=1) == pytest.approx(float(expected), rel=1e-9)
