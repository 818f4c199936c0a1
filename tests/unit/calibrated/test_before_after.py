"""What a calibration did to test samples of clusters."""

import warnings

import numpy as np
import pytest
import torch

from fedlas import Predictions
from fedlas.calibrated import measure_before_after
from fedlas.errors import CalibrationWarning

RISE = np.array([0.10, 0.02, 0.05, 0.15])
"""Rise of the NLL in each cluster: its mean is 2.8 standard errors."""


def test_rise_in_few_clusters_uses_student_t():
    """Of four clusters chance makes 3.2 standard errors, not 1.96."""
    zero = torch.zeros(400, dtype=torch.float64)
    prob = torch.tensor(0.5 * np.exp(-RISE.repeat(100)))
    before = Predictions(
        torch.stack([zero, zero], dim=1), zero.long(), clusters=np.arange(400) // 100
    )
    after = before.with_logits(torch.stack([prob.log(), (1 - prob).log()], dim=1))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        measured = measure_before_after(before, after)
    assert abs(measured.after.nll - measured.before.nll - RISE.mean()) < 1e-9
    alone = Predictions(before.tensors().logits, before.tensors().target)
    with pytest.warns(CalibrationWarning, match="raises the NLL"):
        measure_before_after(alone, alone.with_logits(after.tensors().logits))
