"""What plots draw of samples with weights: the same as of rows that are there as often, with wider intervals."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from fedlas import Predictions
from fedlas.metrics import METRICS
from fedlas.plots import consistency_band, reliability_diagram, risk_coverage, risk_coverage_curve

generator = torch.Generator().manual_seed(0)
LOGITS = 2 * torch.randn(300, 3, generator=generator, dtype=torch.float64)
TARGET = torch.multinomial((LOGITS / 2).softmax(1), 1, generator=generator).squeeze(1)
COUNT = torch.randint(0, 4, (300,), generator=generator)
WEIGHTED = Predictions(LOGITS, TARGET, weights=COUNT)
INDEX = torch.arange(300).repeat_interleave(COUNT)
REPEATED = Predictions(LOGITS[INDEX], TARGET[INDEX])


def test_weighted_diagram_matches_repeated_rows():
    ours, theirs = (
        reliability_diagram(WEIGHTED, num_bins=5),
        reliability_diagram(REPEATED, num_bins=5),
    )
    (wide, _, points), (narrow, _, expected) = ours.collections, theirs.collections
    np.testing.assert_allclose(points.get_offsets(), expected.get_offsets())
    np.testing.assert_allclose(points.get_sizes(), expected.get_sizes())
    length, other = (
        np.ptp(np.array(each.get_segments())[:, :, 1], axis=1) for each in (wide, narrow)
    )
    assert (length > other).all()
    assert [b.get_height() for b in ours.child_axes[0].patches] == pytest.approx(
        [b.get_height() for b in theirs.child_axes[0].patches]
    )
    ece, worth = METRICS["ece"].value(WEIGHTED, num_bins=5), COUNT.sum() ** 2 / (COUNT**2).sum()
    assert ours.texts[0].get_text() == f"ECE {100 * ece:.2f} %  ·  n = 300, worth {worth:.0f}"


def test_weighted_band_uses_effective_sample_size():
    heavy = replace(WEIGHTED, weights=torch.where(torch.arange(300) < 30, 100.0, 1.0))
    ours, plain = (
        consistency_band(p, num_bins=2) for p in (heavy, replace(WEIGHTED, weights=None))
    )
    # Worth 3270**2 / 300270 = 35.6 of 300, so 2.9 times as wide.
    width, other = (np.nanmax(band.high - band.low) for band in (ours, plain))
    assert width / other == pytest.approx(2.9, rel=0.35)


def test_weighted_risk_coverage_matches_repeated_rows():
    coverage, risk = risk_coverage(WEIGHTED)
    others, expected = risk_coverage(REPEATED)
    assert len(coverage) == int((COUNT > 0).sum())
    np.testing.assert_allclose(risk, expected[np.searchsorted(others, coverage - 1e-9)])
    ours, theirs = (risk_coverage_curve(p).lines[2].get_xydata() for p in (WEIGHTED, REPEATED))
    np.testing.assert_allclose(np.interp(ours[:, 0], *theirs.T), ours[:, 1], atol=0.3)
