"""Form of the smooth calibration error: the scales of many replicates are sought at the same time.

The metric's transform has 2**14 nodes at every scale that it tries. Smoothed on a scale of ``s`` a function has next to
nothing left beyond frequency ``2 / s``, so here fewer nodes integrate it, and every search starts where that of the
rows themselves ended. Values agree with the metric's to about 1e-7.
"""

from __future__ import annotations

import numpy as np
import torch

from fedlas.metrics.fine_grid import cell_of
from fedlas.metrics.smooth import STEPS, smooth_calibration_error
from fedlas.stats.forms.base import form_of
from fedlas.stats.replicates import Replicates
from fedlas.stats.rows import Floats, Integers, Rows, starts_of_runs

_FEWEST_NODES = 2**12
_NODES_TIMES_SCALE = 16.0
_PRECISION = 1e-9
_MOST_ROUNDS = 100
_TOGETHER = 64
"""Replicates whose transforms are held together: 16 MiB of complex numbers."""
_DECAY = 1.0 - np.cos(np.pi * np.arange(STEPS + 1) / STEPS)


@form_of(smooth_calibration_error, zero_if_calibrated=True)
def _smooth(replicates: Replicates) -> Floats:
    rows = replicates.rows
    guess, starts = rows.table(_value), rows.table(_cell_starts)
    values = np.empty(replicates.size)
    for start in range(0, replicates.size, _TOGETHER):
        part = slice(start, start + _TOGETHER)
        weights, correct = (
            each[part] if len(each) > 1 else each for each in (replicates.ordered_weights, replicates.ordered_correct)
        )
        right = weights * correct
        nodes = _on_nodes(right, 1.0, rows, starts) + _on_nodes(weights - right, 0.0, rows, starts)
        values[part] = _fixed_scales(nodes / rows.num_samples, guess)
    return values


def _value(rows: Rows) -> float:
    return smooth_calibration_error(rows.predictions)


def _cell_starts(rows: Rows) -> Integers:
    """First ordered row of each cell of the metric's grid that is not empty."""
    return starts_of_runs(cell_of(torch.from_numpy(rows.confidence[rows.order])).numpy())


def _on_nodes(weights: Floats, outcome: float, rows: Rows, starts: Integers) -> Floats:
    """Gaps ``confidence - outcome`` of rows with these ``weights (R, N)``, put on nodes ``(R, STEPS + 1)``.

    As in the metric, those of a cell are one mass at their mean confidence, divided between the nodes around it.
    """
    count = np.add.reduceat(weights, starts, axis=1)
    confidence = np.add.reduceat(weights * rows.ordered_confidence, starts, axis=1)
    filled = np.nonzero(count)
    count, confidence = count[filled], confidence[filled]
    place = confidence / count * STEPS
    node = np.minimum(np.floor(place).astype(np.int64), STEPS - 1)
    gap, upper = confidence - count * outcome, place - node
    at, size = filled[0] * (STEPS + 1) + node, len(weights) * (STEPS + 1)
    sums = np.bincount(at, gap * (1 - upper), size) + np.bincount(at + 1, gap * upper, size)
    return sums.reshape(len(weights), STEPS + 1).astype(np.float64)  # integers if there is no mass at all


def _fixed_scales(nodes: Floats, guess: float) -> Floats:
    """For each row of ``nodes (R, STEPS + 1)`` the scale that equals the integral of the gaps smoothed on it.

    The difference ``integral - scale`` falls at least as fast as the scale rises. So from its value at ``guess`` one
    knows an interval that holds the zero, in which regula falsi (Illinois) finds it.
    """
    total = np.abs(nodes.sum(axis=1))  # which the integral never falls below
    nodes[:, [0, -1]] *= 2.0  # a node at an end has half the width of the others to spread over
    spectra = np.fft.rfft(np.concatenate((nodes, nodes[:, -2:0:-1]), axis=1))
    one = np.maximum(guess, total)
    at_one = _integrals(spectra, one) - one
    other = np.maximum(one + at_one, total)
    at_other = _integrals(spectra, other) - other
    result = np.where(np.abs(at_one) <= _PRECISION, one, other)
    active = np.flatnonzero((np.abs(at_one) > _PRECISION) & (np.abs(at_other) > _PRECISION))
    swap = at_one < 0
    low, high = np.where(swap, other, one), np.where(swap, one, other)
    at_low, at_high = np.where(swap, at_other, at_one), np.where(swap, at_one, at_other)
    for _ in range(_MOST_ROUNDS):
        if len(active) == 0:
            break
        left, right, at_left, at_right = low[active], high[active], at_low[active], at_high[active]
        scale = right - at_right * (right - left) / (at_right - at_left)
        value = _integrals(spectra[active], scale) - scale
        result[active] = scale
        above = value > 0
        low[active], high[active] = np.where(above, scale, left), np.where(above, right, scale)
        at_low[active] = np.where(above, value, at_left / 2)
        at_high[active] = np.where(above, at_right / 2, value)
        active = active[(np.abs(value) > _PRECISION) & (right - left > _PRECISION)]
    return result


def _integrals(spectra: np.ndarray, scales: Floats) -> Floats:
    """Integral over ``[0, 1]`` of the absolute value of each row, smoothed on its scale ``(R,)``."""
    wanted = np.maximum(_FEWEST_NODES, _NODES_TIMES_SCALE / np.maximum(scales, 1.0 / STEPS))
    nodes = np.minimum(STEPS, 2 ** np.ceil(np.log2(wanted)).astype(np.int64))
    integrals = np.empty(len(scales))
    for count in np.unique(nodes):  # three sizes at most
        which = nodes == count
        decay = np.exp(-_DECAY[: count + 1] * (scales[which, None] * STEPS) ** 2)
        smoothed = np.abs(np.fft.irfft(spectra[which, : count + 1] * decay, 2 * count, axis=1))
        integrals[which] = smoothed[:, 1:count].sum(axis=1) + (smoothed[:, 0] + smoothed[:, count]) / 2
    return integrals
