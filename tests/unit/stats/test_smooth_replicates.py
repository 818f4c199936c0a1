"""Replicates of the smooth error against the metric where they could part: confidences of 1, small and large errors."""

import numpy as np
import pytest
import torch

from fedlas import Predictions
from fedlas.metrics import METRICS
from fedlas.metrics.grids import FineGrid
from fedlas.metrics.smooth import Spectra, fixed_scales, gaps_on_nodes, spectrum
from fedlas.stats.draws import redrawn, resampled
from fedlas.stats.replicates import Resampled
from fedlas.stats.rows import Rows
from fedlas.stats.tables import replicate_values


def sampled(sharpness, certain=0.0, samples=400, seed=0):
    """A share of ``certain`` samples has a confidence of exactly 1, and some of these are wrong."""
    generator = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(samples, 3, generator=generator)
    target = torch.multinomial(logits.softmax(1), 1, generator=generator).squeeze(1)
    logits = sharpness * logits
    logits[: int(certain * samples)] *= 1e4
    return Predictions(logits, target)


CASES = [(1.0, 0.0), (1.0, 0.5), (0.3, 0.4), (5.0, 0.0), (0.0, 0.0), (0.0, 0.3), (1.0, 1.0)]


@pytest.mark.parametrize(("sharpness", "certain"), CASES)
def test_values(sharpness, certain):
    entry, rows = METRICS["smooth_ece"], Rows(sampled(sharpness, certain), 15)
    for draw in (resampled, redrawn):
        (block,) = draw(rows, replicates=12, seed=0)
        one_by_one = [entry.value(p) for p in block.predictions()]
        np.testing.assert_allclose(replicate_values(entry, block), one_by_one, rtol=1e-5, atol=1e-7)


def test_the_given_rows_once():
    rows = Rows(sampled(1.3, 0.2), 15)
    value = replicate_values(METRICS["smooth_ece"], Resampled(rows, np.ones((1, 400))))
    assert value == pytest.approx(METRICS["smooth_ece"].value(rows.predictions), abs=1e-7)


def test_what_other_replicates_are_in_a_block_plays_no_part():
    """They say which frequencies are computed."""
    rows = Rows(sampled(1.3, 0.2), 15)
    weights = next(resampled(rows, replicates=40, seed=0)).weights
    entry = METRICS["smooth_ece"]
    whole = replicate_values(entry, Resampled(rows, weights))
    far = np.zeros_like(weights)
    far[:, 0] = weights.sum(axis=1)  # one row drawn again and again: another error by far
    found = replicate_values(entry, Resampled(rows, np.concatenate([far, weights])))[40:]
    np.testing.assert_allclose(found, whole, rtol=1e-11)


@pytest.mark.parametrize("guess", [1e-3, 1.0])
def test_a_worse_guess_finds_the_same(guess):
    rows = Rows(sampled(1.3, 0.2), 15)
    spectra = Spectra(spectrum(gaps_on_nodes(FineGrid.of(rows.predictions).table()))[None])
    total = np.abs(spectra.lowest(1)[:, 0].real) / 2
    (scale,) = fixed_scales(spectra.integrals, total, guess=guess)
    assert scale == pytest.approx(METRICS["smooth_ece"].value(rows.predictions), abs=1e-11)
