"""Forms of metrics of the predicted class, with bins of equal width or none."""

from __future__ import annotations

import numpy as np

from fedlas.metrics.accuracy import accuracy
from fedlas.metrics.calibration_error import expected_calibration_error, maximum_calibration_error
from fedlas.metrics.debiased import debiased_squared_calibration_error
from fedlas.metrics.rmsce import root_mean_square_calibration_error
from fedlas.metrics.signed import (
    confidence_gap,
    overconfidence,
    overconfident_calibration_error,
    underconfidence,
    underconfident_calibration_error,
)
from fedlas.metrics.true_error import true_calibration_error
from fedlas.stats.forms.base import form_of
from fedlas.stats.replicates import Replicates
from fedlas.stats.rows import Floats


def _by_bin(replicates: Replicates, ordered: Floats) -> Floats:
    """Sums ``(R or 1, B)`` of ``ordered (R or 1, N)`` over the bins; only those that hold rows of the given set."""
    return np.add.reduceat(ordered, replicates.rows.width_starts, axis=1)


def _gaps(replicates: Replicates) -> Floats:
    return _by_bin(replicates, replicates.ordered_gaps)


def _counts(replicates: Replicates) -> Floats:
    return _by_bin(replicates, replicates.ordered_weights)


@form_of(accuracy)
def _accuracy(replicates: Replicates) -> Floats:
    return (replicates.ordered_weights * replicates.ordered_correct).sum(axis=1) / replicates.rows.num_samples


@form_of(expected_calibration_error, zero_if_calibrated=True)
def _expected(replicates: Replicates) -> Floats:
    return np.abs(_gaps(replicates)).sum(axis=1) / replicates.rows.num_samples


@form_of(overconfident_calibration_error, zero_if_calibrated=True)
def _over(replicates: Replicates) -> Floats:
    return np.maximum(_gaps(replicates), 0.0).sum(axis=1) / replicates.rows.num_samples


@form_of(underconfident_calibration_error, zero_if_calibrated=True)
def _under(replicates: Replicates) -> Floats:
    return np.maximum(-_gaps(replicates), 0.0).sum(axis=1) / replicates.rows.num_samples


@form_of(true_calibration_error, zero_if_calibrated=True)
def _true(replicates: Replicates) -> Floats:
    gaps = replicates.ordered_weights * (replicates.rows.ordered_confidence - replicates.ordered_known)
    return np.abs(_by_bin(replicates, gaps)).sum(axis=1) / replicates.rows.num_samples


@form_of(maximum_calibration_error, zero_if_calibrated=True)
def _maximum(replicates: Replicates) -> Floats:
    # A bin that lost all its rows has no gap either, so a count of 1 for it leaves it out.
    return (np.abs(_gaps(replicates)) / np.maximum(_counts(replicates), 1.0)).max(axis=1)


@form_of(root_mean_square_calibration_error, zero_if_calibrated=True)
def _root_mean_square(replicates: Replicates) -> Floats:
    squares = _gaps(replicates) ** 2 / np.maximum(_counts(replicates), 1.0)
    return np.sqrt(squares.sum(axis=1) / replicates.rows.num_samples)


@form_of(debiased_squared_calibration_error)
def _debiased(replicates: Replicates) -> Floats:
    gaps, counts = _gaps(replicates), _counts(replicates)
    right = _by_bin(replicates, replicates.ordered_weights * replicates.ordered_correct)
    enough = np.maximum(counts, 2.0)
    squares = gaps**2 / enough - right * (1.0 - right / enough) / (enough - 1.0)
    return np.where(counts > 1.0, squares, 0.0).sum(axis=1) / replicates.rows.num_samples


@form_of(confidence_gap)
def _confidence_gap(replicates: Replicates) -> Floats:
    return replicates.ordered_gaps.sum(axis=1) / replicates.rows.num_samples


@form_of(overconfidence)
def _confidence_when_wrong(replicates: Replicates) -> Floats:
    return _mean_where(replicates, 1.0 - replicates.ordered_correct, replicates.rows.ordered_confidence)


@form_of(underconfidence)
def _doubt_when_right(replicates: Replicates) -> Floats:
    return _mean_where(replicates, replicates.ordered_correct, 1.0 - replicates.rows.ordered_confidence)


def _mean_where(replicates: Replicates, chosen: Floats, values: Floats) -> Floats:
    """Mean of ``values (N,)`` over the rows that are ``chosen (R or 1, N)``, 0 if there is none."""
    weights = replicates.ordered_weights * chosen
    return (weights * values).sum(axis=1) / np.maximum(weights.sum(axis=1), 1.0)
