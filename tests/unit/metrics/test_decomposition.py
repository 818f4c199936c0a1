import numpy as np
import pytest
import torch

from fedlas import Predictions
from fedlas.metrics import brier, brier_calibration, brier_decomposition, brier_refinement


def sampled(samples=500, classes=4, over=1.5, seed=0):
    generator = torch.Generator().manual_seed(seed)
    logits = 1.5 * torch.randn(samples, classes, generator=generator, dtype=torch.float64)
    target = torch.multinomial(logits.softmax(1), 1, generator=generator).squeeze(1)
    return Predictions(logits * over, target)


def literal(p, num_bins):
    probs, labels = p.probs, np.eye(p.num_classes)[p.target]
    bins = np.clip(np.ceil(probs * num_bins) - 1, 0, num_bins - 1)
    # calibration, refinement, variance of p, covariance of p and y; all within bins
    parts = np.zeros(4)
    for k in range(p.num_classes):
        for b in range(num_bins):
            inside = bins[:, k] == b
            if inside.any():
                x, y = probs[inside, k], labels[inside, k]
                parts += inside.sum() * np.array(
                    [
                        (x.mean() - y.mean()) ** 2,
                        y.mean() * (1 - y.mean()),
                        x.var(),
                        ((x - x.mean()) * y).mean(),
                    ]
                )
    return parts / p.num_samples


@pytest.mark.parametrize("num_bins", [1, 7, 15])
def test_decomposition_matches_definition_and_sums_to_brier(num_bins):
    p = sampled()
    calibration, refinement, variance, covariance = literal(p, num_bins)
    parts = brier_decomposition(p, num_bins=num_bins)
    assert parts.calibration == pytest.approx(calibration, rel=1e-9)
    assert parts.refinement == pytest.approx(refinement, rel=1e-9)
    assert parts.within_bins == pytest.approx(variance - 2 * covariance, rel=1e-7)
    assert parts.brier == brier(p)
    assert parts.calibration + parts.refinement + parts.within_bins == pytest.approx(
        parts.brier, rel=1e-12
    )
    assert brier_calibration(p, num_bins=num_bins) == parts.calibration
    assert brier_refinement(p, num_bins=num_bins) == parts.refinement


def test_within_bins_is_zero_for_constant_bins():
    rows = torch.tensor([[0.7, 0.2, 0.1], [0.1, 0.3, 0.6]], dtype=torch.float64).log()
    p = Predictions(rows[torch.tensor([0, 0, 0, 1, 1])], [0, 0, 1, 2, 0])
    parts = brier_decomposition(p, num_bins=20)
    assert parts.within_bins == pytest.approx(0.0, abs=1e-11)
    assert parts.calibration + parts.refinement == pytest.approx(brier(p), rel=1e-9)


def test_the_bias_is_as_large_as_said():
    """Of calibrated predictions, all of the calibration term is chance; the estimate finds it."""
    sets = [sampled(200, over=1.0, seed=seed) for seed in range(300)]
    parts = [brier_decomposition(p) for p in sets]
    calibration = np.array([each.calibration for each in parts])
    bias = np.array([each.calibration_bias for each in parts])
    large = np.mean(
        [brier_decomposition(sampled(50_000, over=1.0, seed=seed)).calibration for seed in range(3)]
    )
    error = calibration.std() / 300**0.5
    assert large < 0.05 * calibration.mean()
    assert bias.mean() == pytest.approx(calibration.mean() - large, abs=6 * error)


def test_overconfidence_is_in_calibration_and_not_in_refinement():
    calibrated, over = (
        brier_decomposition(sampled(20_000, over=1.0)),
        brier_decomposition(sampled(20_000, over=3.0)),
    )
    assert over.calibration > 20 * calibrated.calibration
    assert over.refinement == pytest.approx(calibrated.refinement, rel=0.1)
