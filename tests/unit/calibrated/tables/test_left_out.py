"""The check that a calibration of a table prints is honest, and takes no further fit of a mixture."""

import numpy as np
import pytest
import torch

import fedlas.calibrators.fit_mixture as fit_mixture
from fedlas import Predictions
from fedlas.calibrated.tables.cross_fit import cross_fit, fit_and_check
from fedlas.calibrators import AutoCalibration, TemperatureScaling


def problem(samples, classes, seed, *, features=0, strength=0.0, size=None):
    generator = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(samples, classes, generator=generator, dtype=torch.float64)
    columns = torch.randn(samples, max(1, features), generator=generator, dtype=torch.float64)
    effect = strength * torch.randn(len(columns[0]), classes, generator=generator).double()
    target = torch.multinomial((logits + columns @ effect).softmax(1), 1, generator=generator)[:, 0]
    clusters = None if size is None else torch.arange(samples) // size
    return Predictions(
        2 * logits, target, features=columns if features else None, clusters=clusters
    )


@pytest.mark.parametrize(
    "val",
    [
        problem(400, 3, 1),
        problem(300, 10, 2),
        problem(300, 3, 6, features=20),
        problem(400, 3, 5, features=4, strength=0.5),
        problem(400, 2, 7, features=5, strength=0.3, size=20),
    ],
    ids=["3 classes", "10 classes", "useless features", "features", "clusters"],
)
def test_out_of_fold_ece_is_not_optimistic(val):
    """Weights that saw the labels would look better than they are; those of the other folds do not."""
    _, _, check = fit_and_check(AutoCalibration(), val)
    full = cross_fit(AutoCalibration(), val)
    assert check.after.nll == pytest.approx(full.after.nll, rel=0.02)
    assert check.after.nll > 0.999 * full.after.nll
    assert check.before.nll == pytest.approx(full.before.nll)
    assert check.clusters == full.clusters


def test_a_mixture_is_fitted_once(monkeypatch):
    fits = []
    real = fit_mixture.fit_calibrated_mixture
    monkeypatch.setattr(
        fit_mixture,
        "fit_calibrated_mixture",
        lambda *args, **more: fits.append(1) or real(*args, **more),
    )
    auto, _, check = fit_and_check(AutoCalibration(), problem(300, 3, 0))
    assert (len(fits), check.samples) == (1, 300)
    same = AutoCalibration().fit(problem(300, 3, 0)).transform(problem(300, 3, 0)).logits
    np.testing.assert_array_equal(auto.transform(problem(300, 3, 0)).logits, same)


def test_another_calibrator_is_fitted_without_each_fold():
    val = problem(300, 3, 0)
    _, _, check = fit_and_check(TemperatureScaling(), val)
    assert check.to_dict() == cross_fit(TemperatureScaling(), val).to_dict()
