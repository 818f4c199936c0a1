"""Forms of metrics that compare ranks of confidence: bins of equal mass, cumulated gaps, risk and coverage."""

from __future__ import annotations

import numpy as np

from fedlas.metrics.binning import equal_mass_ranks
from fedlas.metrics.calibration_error import adaptive_calibration_error
from fedlas.metrics.ks import ks_calibration_error
from fedlas.metrics.selective import area_under_risk_coverage, excess_area_under_risk_coverage
from fedlas.stats.forms.base import form_of
from fedlas.stats.replicates import Replicates
from fedlas.stats.rows import Floats, Integers, Rows


@form_of(adaptive_calibration_error, zero_if_calibrated=True)
def _adaptive(replicates: Replicates) -> Floats:
    rows = replicates.rows
    gaps = equal_mass_gaps(replicates.ordered_weights, replicates.ordered_gaps, rows.tie_starts, rows.num_bins)
    return np.abs(gaps).sum(axis=1) / rows.num_samples


@form_of(ks_calibration_error, zero_if_calibrated=True)
def _kolmogorov_smirnov(replicates: Replicates) -> Floats:
    cumulated = np.cumsum(np.add.reduceat(replicates.ordered_gaps, replicates.rows.tie_starts, axis=1), axis=1)
    return np.abs(cumulated).max(axis=1) / replicates.rows.num_samples


@form_of(area_under_risk_coverage)
def _area(replicates: Replicates) -> Floats:
    """The area as ``fedlas.metrics.selective.area_of`` has it; runs that lost all their rows add nothing."""
    rows = replicates.rows
    weights = replicates.ordered_weights
    count = np.add.reduceat(weights, rows.tie_starts, axis=1)[:, ::-1]
    wrong = np.add.reduceat(weights * (1.0 - replicates.ordered_correct), rows.tie_starts, axis=1)[:, ::-1]
    upto = np.cumsum(count, axis=1)
    before, errors = upto - count, np.cumsum(wrong, axis=1) - wrong
    harmonic = rows.table(_harmonic)
    added = harmonic[upto.astype(np.int64)] - harmonic[before.astype(np.int64)]
    risks = wrong + (errors - before * wrong / np.maximum(count, 1.0)) * added
    return risks.sum(axis=1) / rows.num_samples


@form_of(excess_area_under_risk_coverage)
def _excess(replicates: Replicates) -> Floats:
    rows = replicates.rows
    right = (replicates.ordered_weights * replicates.ordered_correct).sum(axis=1)
    harmonic = rows.table(_harmonic)
    # All right ones first: no errors among them, then 1, 2, ... of them after `right` samples.
    least = rows.num_samples - right - right * (harmonic[-1] - harmonic[np.rint(right).astype(np.int64)])
    return np.maximum(0.0, _area(replicates) - least / rows.num_samples)


def _harmonic(rows: Rows) -> Floats:
    """``1 + 1/2 + ... + 1/n`` for ``n`` from 0 to ``N``."""
    return np.concatenate(([0.0], np.cumsum(1.0 / np.arange(1, rows.num_samples + 1))))


def equal_mass_gaps(weights: Floats, gaps: Floats, tie_starts: Integers, num_bins: int) -> Floats:
    """Sums of ``gaps`` in bins of as equal mass as ties allow ``(R, B)``.

    Args:
        weights: How often each row occurs ``(R or 1, N)``, in the order in which bins are cut; adds up to ``N``.
        gaps: Weight times gap ``(R or 1, N)``, in that order.
        tie_starts: First row of each run that must not be cut.
        num_bins: ``B``.
    """
    upto = np.cumsum(np.add.reduceat(weights, tie_starts, axis=1), axis=1)
    cumulated = np.cumsum(np.add.reduceat(gaps, tie_starts, axis=1), axis=1)
    below = _runs_below_cuts(upto, weights.shape[1], num_bins)
    below = np.broadcast_to(below, (len(gaps), below.shape[1]))
    at_cuts = np.take_along_axis(np.pad(cumulated, ((0, 0), (1, 0))), below, axis=1)
    return np.diff(np.concatenate((at_cuts, cumulated[:, -1:]), axis=1), axis=1, prepend=0.0)


def _runs_below_cuts(upto: Floats, num_samples: int, num_bins: int) -> Integers:
    """How many runs are below each cut ``(R or 1, cuts)``: a cut within a run moves to its nearer end.

    Args:
        upto: Rows in the runs up to each one ``(R or 1, runs)``, ascending to ``num_samples``.
        num_samples: ``N``.
        num_bins: ``B``.
    """
    ranks = equal_mass_ranks(num_samples, num_bins).numpy()
    # One search for all replicates: each is moved up by N + 1 more than the one before, which keeps the order.
    offset = np.arange(len(upto))[:, None] * (num_samples + 1.0)
    run = np.searchsorted((upto + offset).ravel(), (ranks + offset).ravel(), side="right").reshape(len(upto), -1)
    run -= np.arange(len(upto))[:, None] * upto.shape[1]
    start = np.take_along_axis(np.pad(upto, ((0, 0), (1, 0))), run, axis=1)
    end = np.take_along_axis(upto, run, axis=1)
    return run + (ranks - start >= end - ranks)
