import math

import numpy as np
import pytest
import torch
from torchmetrics.functional.classification import multiclass_calibration_error

from fedlas import Predictions
from fedlas.metrics import (
    ece,
    mce,
    reliability_bins,
    rmsce,
)


def test_by_hand():
    p = Predictions(torch.tensor([[0.9, 0.1], [0.8, 0.2]]).log(), [0, 1])
    assert rmsce(p, num_bins=10) == pytest.approx(math.sqrt((0.01 + 0.64) / 2), rel=1e-6)


@pytest.mark.parametrize("classes", [2, 10])
@pytest.mark.parametrize("num_bins", [1, 10, 15])
def test_against_torchmetrics(classes, num_bins):
    torch.manual_seed(classes)
    logits, target = torch.randn(900, classes), torch.randint(classes, (900,))
    expected = multiclass_calibration_error(logits, target, classes, n_bins=num_bins, norm="l2")
    value = rmsce(Predictions(logits, target), num_bins=num_bins)
    assert value == pytest.approx(float(expected), rel=1e-4)


def test_lies_between_ece_and_mce():
    torch.manual_seed(0)
    p = Predictions(torch.randn(200, 5), torch.randint(5, (200,)))
    assert ece(p) < rmsce(p) < mce(p)
    bins = reliability_bins(p)
    square = np.nansum(bins.count / 200 * (bins.confidence - bins.accuracy) ** 2)
    assert rmsce(p) == pytest.approx(float(np.sqrt(square)), rel=1e-12)
