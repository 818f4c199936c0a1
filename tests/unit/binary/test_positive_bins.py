"""Bins of the positive class against scikit-learn, and their intervals by hand."""

import numpy as np
import pytest
import torch
from sklearn.calibration import calibration_curve

from fedlas import Predictions
from fedlas.binary import positive_bins


@pytest.mark.parametrize(
    ("scheme", "strategy"), [("equal-width", "uniform"), ("equal-mass", "quantile")]
)
def test_scikit_learn_has_the_same_bins(draw, scheme, strategy):
    p = draw(1000)
    found = positive_bins(p, num_bins=8, scheme=scheme)
    filled = found.count > 0
    frequency, probability = calibration_curve(
        p.target, p.tensors().logits[:, 1].sigmoid().numpy(), n_bins=8, strategy=strategy
    )
    np.testing.assert_allclose(found.frequency[filled], frequency, rtol=1e-9)
    np.testing.assert_allclose(found.probability[filled], probability, rtol=1e-9)
    assert found.count.sum() == 1000


def test_intervals(draw):
    found = positive_bins(draw(200), num_bins=40)
    empty = found.count == 0
    assert empty.any()
    assert np.isnan(found.low[empty]).all()
    n, f, z = found.count[~empty], found.frequency[~empty], 1.959964
    # Wilson's ends solve (f - p)^2 = z^2 p (1 - p) / n
    for end in (found.low[~empty], found.high[~empty]):
        np.testing.assert_allclose((f - end) ** 2, z**2 * end * (1 - end) / n, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_rounded_probabilities_meet_the_edges(dtype):
    for bins in (10, 20, 100):
        probs = torch.arange(1, 101, dtype=torch.float64).div(100).to(dtype)
        p = Predictions.from_probs(probs, torch.ones(100, dtype=torch.int64))
        assert positive_bins(p, num_bins=bins).count.tolist() == [100 / bins] * bins


@pytest.mark.parametrize(
    "options", [{"num_bins": 0}, {"scheme": "deciles"}, {"confidence_level": 1.0}]
)
def test_options_out_of_range(predictions, options):
    with pytest.raises(ValueError, match=f"positive_bins: {next(iter(options))} must be"):
        positive_bins(predictions, **options)
