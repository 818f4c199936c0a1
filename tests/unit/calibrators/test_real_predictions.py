"""Published predictions on CIFAR-10, which lie next to the checkout and not in it."""

from pathlib import Path

import numpy as np
import pytest
import torch

from fedlas import Predictions
from fedlas.calibrators import (
    DirichletCalibration,
    MatrixScaling,
    TemperatureScaling,
    VectorScaling,
)
from fedlas.metrics import nll as negative_log_likelihood

ARCHIVE = Path(__file__).parents[4] / "shared" / "real" / "cifar10_probs.npz"


@pytest.fixture(scope="module")
def halves():
    if not ARCHIVE.is_file():
        pytest.skip(f"{ARCHIVE} is not there")
    arrays = np.load(ARCHIVE)
    logits, target = (
        torch.from_numpy(arrays["probs"]).log(),
        torch.from_numpy(arrays["target"]).long(),
    )
    order = torch.randperm(len(target), generator=torch.Generator().manual_seed(0))
    return tuple(Predictions(logits[rows], target[rows]) for rows in (order[:1000], order[5000:]))


@pytest.fixture(scope="module")
def nll(halves):
    val, test = halves
    return lambda calibrator: negative_log_likelihood(calibrator.fit(val).transform(test))


@pytest.mark.filterwarnings("ignore::fedlas.calibrators.CalibrationWarning")
@pytest.mark.parametrize("kind", [VectorScaling, MatrixScaling, DirichletCalibration])
def test_flexible_maps_never_lose_to_temperature_scaling(kind, nll):
    assert nll(kind()) < nll(TemperatureScaling()) + 0.003


@pytest.mark.filterwarnings("ignore::fedlas.calibrators.CalibrationWarning")
def test_without_its_penalties_the_matrix_is_worse(nll):
    """What the test above would see: the matrix of Guo et al. over-fits these samples."""
    assert nll(MatrixScaling(off_diagonal=0.0, intercept=0.0)) > nll(TemperatureScaling()) + 0.03
