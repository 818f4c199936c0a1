"""Calibration errors against torchmetrics, an independent implementation, on data without confidences on a bin edge."""

import pytest
import torch
from torchmetrics.functional.classification import multiclass_calibration_error

from fedlas import Predictions
from fedlas.metrics import mce, top_label_ece


@pytest.mark.parametrize("classes", [2, 10, 100])
@pytest.mark.parametrize("num_bins", [5, 15])
@pytest.mark.parametrize(
    ("ours", "norm"),
    [(top_label_ece, "l1"), (mce, "max")],
    ids=["ece", "mce"],
)
def test_agrees_with_torchmetrics(classes, num_bins, ours, norm):
    generator = torch.Generator().manual_seed(classes)
    logits = 2 * torch.randn(3000, classes, generator=generator)
    target = torch.randint(classes, (3000,), generator=generator)
    theirs = multiclass_calibration_error(
        logits, target, num_classes=classes, n_bins=num_bins, norm=norm
    )
    assert ours(Predictions(logits, target), num_bins=num_bins) == pytest.approx(
        float(theirs), abs=2e-6
    )
