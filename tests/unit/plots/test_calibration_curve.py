"""Curves of accuracy over confidence, and the diagrams that draw them."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from fedlas import TopLabel
from fedlas.errors import InputError
from fedlas.plots import calibration_curve, consistency_band, reliability_diagram


def sample(samples=4000, factor=1.0):
    random = np.random.default_rng(0)
    accuracy = random.uniform(0.5, 0.98, samples)
    return TopLabel(1 - (1 - accuracy) / factor, random.random(samples) < accuracy)


@pytest.mark.parametrize("estimator", ["smooth", "isotonic"])
def test_the_curve_is_the_accuracy(estimator):
    curve = calibration_curve(sample(), estimator)
    middle = (curve.confidence > 0.55) & (curve.confidence < 0.93)
    assert np.abs(curve.accuracy - curve.confidence)[middle].max() < 0.08
    inside = (curve.low <= curve.confidence) & (curve.confidence <= curve.high)
    assert inside[middle].mean() > 0.8
    over = calibration_curve(sample(factor=2.0), estimator)
    expected = 2 * over.confidence - 1
    middle = (expected > 0.55) & (expected < 0.93)
    assert np.abs(over.accuracy - expected)[middle].max() < 0.1


def test_isotonic_is_that_of_scikit_learn():
    from sklearn.isotonic import IsotonicRegression

    top = sample(300)
    theirs = IsotonicRegression().fit_transform(top.confidence, top.correct)
    curve = calibration_curve(top, "isotonic")
    assert np.interp(top.confidence, curve.confidence, curve.accuracy) == pytest.approx(
        theirs, abs=1e-9
    )


@pytest.mark.parametrize("estimator", ["bins", "smooth", "isotonic"])
@pytest.mark.parametrize("scale", ["linear", "logit"])
def test_diagrams_can_be_drawn(estimator, scale):
    axes = reliability_diagram(sample(500), estimator=estimator, scale=scale, band=True)
    axes.figure.canvas.draw()
    assert axes.get_xscale() == scale


def test_refuses():
    with pytest.raises(InputError, match="estimator must be one of"):
        reliability_diagram(sample(50), estimator="loess")
    with pytest.raises(InputError, match="scale must be one of"):
        reliability_diagram(sample(50), scale="log")
    with pytest.raises(InputError, match="replicates must be"):
        calibration_curve(sample(50), replicates=3)


@pytest.mark.parametrize(
    "draw",
    [
        calibration_curve,
        lambda p: calibration_curve(p, "isotonic"),
        lambda p: consistency_band(p, num_bins=5),
    ],
)
def test_clusters_widen_band_equal_weights_do_not(draw):
    """They drew rows where whole clusters depend on each other: 20 copies of each sample gave a fourth of the width."""
    random = np.random.default_rng(0)
    confidence = random.uniform(0.5, 1.0, 100)
    correct = random.random(100) < confidence
    few = TopLabel(confidence, correct)
    copies = TopLabel(confidence.repeat(20), correct.repeat(20))
    clustered = replace(copies, clusters=torch.arange(100).repeat_interleave(20))
    weighted = replace(few, weights=torch.ones(100))

    def width(predictions):
        band = draw(predictions)
        return float(np.nanmean(band.high - band.low))

    assert width(clustered) == pytest.approx(width(few), rel=0.2)
    assert width(weighted) == pytest.approx(width(few), rel=0.2)
    assert width(copies) < 0.5 * width(few)
