"""Smooth calibration error (smooth ECE): gaps smoothed over confidence by a kernel instead of binned."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fedlas._core.check import check_choice
from fedlas.metrics.calibration_error import EqualMass
from fedlas.metrics.grids import WIDTH_BITS, FineGrid
from fedlas.metrics.metric import METRICS, VARIANTS, Variant
from fedlas.metrics.ranking import CellRuns
from fedlas.metrics.sums import check_no_weights, nonzero

if TYPE_CHECKING:
    from fedlas._core.types import FloatArray, IntArray
    from fedlas.predictions import Predictions, TopLabel
    from fedlas.predictions.any_predictions import AnyPredictions

STEPS = 2**WIDTH_BITS
"""The confidence axis is cut into as many steps; every cell of :class:`FineGrid` lies within one of them."""
_PRECISION = 1e-12
_NODES_TIMES_SCALE = 16.0
_MAX_ROUNDS = 200
_DECAY = 1.0 - np.cos(np.pi * np.arange(STEPS + 1) / STEPS)


class Spectra:
    """Cosine transforms of gaps along the confidence axis ``(R, K)``, with settings of the search for the scale."""

    # `2 / N * sum_i gap_i * cos(pi * k * position_i)` for the frequencies `k`. Smoothed on a scale of `s`, a function
    # has next to nothing left beyond frequency `4 / s`.

    # Scale at which the search begins.
    guess = 0.0
    # Of the scale.
    precision = _PRECISION
    # Nodes that integrate at least.
    min_nodes = STEPS

    def __init__(self, values: NDArray[Any]) -> None:
        self.values = values

    def lowest_frequencies(self, count: int) -> NDArray[Any]:
        """Return the transforms of the ``count`` lowest frequencies ``(R, up to count)``."""
        return self.values[:, :count]

    def integrals(self, scales: FloatArray, rows: IntArray) -> FloatArray:
        """Return the integral over [0, 1] of ``|r(t)|`` for ``rows (k,)``, smoothed with ``scales (k,)``."""
        # Reflection at both ends makes smoothing the diffusion of heat in an insulated rod, so it is done there: the
        # gaps are put on nodes, the cosine transform is taken once, and a scale costs one inverse transform. The nodes'
        # own diffusion stands for the Gaussian's: it never creates nor loses anything either, and more of it never
        # raises the integral.
        least = np.maximum(self.min_nodes, _NODES_TIMES_SCALE / np.maximum(scales, 1.0 / STEPS))
        nodes = np.minimum(STEPS, 2 ** np.ceil(np.log2(least)).astype(np.int64))
        integrals = np.empty(len(scales))
        # `exp(-nothing)` is so far below the precision that it plays no part which rows are computed together.
        nothing = -3.0 * math.log(self.precision)
        for count in np.unique(nodes):  # few sizes
            which = np.flatnonzero(nodes == count)
            # Random steps of one node, of this variance in all, multiply each frequency by exp(-_DECAY * steps).
            steps = (scales[which, None] * STEPS) ** 2
            # Beyond so many frequencies even the least smoothed row has nothing left; the transform takes them as 0.
            some = int(np.searchsorted(_DECAY[: count + 1] * steps.min(), nothing)) or 1
            spectra = self.lowest_frequencies(some)[rows[which]]
            spectra = spectra * np.exp(-_DECAY[: spectra.shape[1]] * steps)
            smoothed = np.abs(np.fft.irfft(spectra, 2 * int(count), axis=1)[:, : count + 1])
            integrals[which] = (
                smoothed[:, 1:count].sum(axis=1) + (smoothed[:, 0] + smoothed[:, count]) / 2
            )
        return integrals


def interpolate_gaps(runs: CellRuns) -> FloatArray:
    """Return the gaps interpolated linearly onto the nodes ``(STEPS + 1,)``, preserving sum and center."""
    # Those of right and of wrong predictions of a cell are at their own mean confidence.
    count = np.concatenate([runs.wrong, runs.right])
    confidence = np.concatenate([runs.wrong_confidence, runs.right_confidence])
    right = np.concatenate([np.zeros_like(runs.wrong), runs.right])
    gap = (confidence - right) / runs.num_samples
    place = STEPS * confidence / nonzero(count)
    node = np.minimum(np.floor(place).astype(np.int64), STEPS - 1)
    upper = place - node
    lower = np.bincount(node, gap * (1 - upper), STEPS + 1)
    sums = lower + np.bincount(node + 1, gap * upper, STEPS + 1)
    return sums.astype(np.float64)


def cosine_transform(nodes: FloatArray) -> NDArray[np.complex128]:
    """Return the cosine transform of gaps at the nodes ``(STEPS + 1,)``."""
    # It is the Fourier transform of the gaps and their mirror image, whose ends are not repeated.
    mirrored = np.concatenate((nodes, nodes[-2:0:-1]))
    mirrored[[0, STEPS]] *= 2.0  # a node at an end has half the width of the others to spread over
    return np.fft.rfft(mirrored)


def find_fixed_points(
    integrals: Callable[[FloatArray, IntArray], FloatArray],
    total: FloatArray,
    *,
    guess: float = 0.0,
    precision: float = _PRECISION,
) -> FloatArray:
    """Return the fixed point ``integrals(scale) = scale`` of each row ``(R,)``."""
    # The difference `integral - scale` falls at least as fast as the scale rises, so it has one zero, and its value at
    # any scale says how far that can be. Between these ends regula falsi (Illinois) finds it.
    every = np.arange(len(total))
    # The integral never rises, so the zero lies between any scale and the integral there: two evaluations bracket it.
    one = np.maximum(guess, total)
    at_one = integrals(one, every) - one
    other = np.maximum(one + at_one, total)
    at_other = integrals(other, every) - other
    result = np.where(np.abs(at_one) <= precision, one, other)
    active = np.flatnonzero((np.abs(at_one) > precision) & (np.abs(at_other) > precision))
    low, high = np.sort([one, other], axis=0)
    at_high, at_low = np.sort([at_one, at_other], axis=0)
    last = np.zeros(len(total))  # side of the last guess: 1 if the zero was above it
    for _ in range(_MAX_ROUNDS):
        if len(active) == 0:
            break
        lower = low[active]
        upper = high[active]
        at_lower = at_low[active]
        at_upper = at_high[active]
        # The secant through both ends meets 0 between them, because their signs differ.
        scale = upper - at_upper * (upper - lower) / (at_upper - at_lower)
        value = integrals(scale, active) - scale
        result[active] = scale
        above = value > 0
        side = np.where(above, 1.0, -1.0)
        # An end that stays twice counts half, or it would stay for long where the curve is steep.
        stays = np.where(last[active] == side, 0.5, 1.0)
        low[active], high[active] = np.where(above, scale, lower), np.where(above, upper, scale)
        at_low[active] = np.where(above, value, at_lower * stays)
        at_high[active] = np.where(above, at_upper * stays, value)
        last[active] = side
        active = active[(np.abs(value) > precision) & (upper - lower > precision)]
    return result


def solve_smooth_ece(source: CellRuns | Spectra) -> FloatArray:
    """Return the smooth ECE of each row: the scale that equals the integral of the gaps smoothed with it."""
    if isinstance(source, CellRuns):
        return solve_smooth_ece(Spectra(cosine_transform(interpolate_gaps(source))[None]))[0]
    # Frequency 0 is twice the sum of the gaps, which smoothing keeps.
    total = np.abs(source.lowest_frequencies(1)[:, 0].real) / 2
    return find_fixed_points(
        source.integrals, total, guess=source.guess, precision=source.precision
    )


def _reference_smooth_ece(predictions: AnyPredictions) -> float:
    """Return smooth ECE as the published package: bisection to 0.001, then the value at the upper end."""
    check_no_weights(predictions)
    statistic = EqualMass.from_predictions(predictions)
    confidence = statistic.confidence.astype(np.float64)
    correct = statistic.correct
    low = 0.0
    high = 1.0
    while high - low > 1e-3:
        scale = (low + high) / 2
        if _reference_error(scale, confidence, correct) < scale:
            high = scale
        else:
            low = scale
    return _reference_error(high, confidence, correct)


def _reference_error(scale: float, confidence: FloatArray, correct: NDArray[np.bool_]) -> float:
    """Return the average smoothed |gap| over the average smoothed density, at points of ``[0, 1]``."""
    # The Gaussian is cut off at a distance of 1/2. Ends are reflected about their nodes, so that what is put on an end
    # node counts half.
    steps = max(1000, round(10 / scale))
    place = confidence * steps
    node = np.minimum(np.floor(place).astype(np.int64), steps - 1)
    distance = np.arange(-(steps // 2), steps // 2 + 1) / steps
    kernel = np.exp(-((distance / scale) ** 2) / 2) / (scale * math.sqrt(2 * math.pi))
    points = np.linspace(0, 1, max(200, round(10 / scale)))

    def smooth(weights: FloatArray) -> FloatArray:
        lower = weights * (1 - place + node)
        on_nodes = np.bincount(node, lower, steps + 1) + np.bincount(
            node + 1, weights - lower, steps + 1
        )
        mirrored = np.pad(on_nodes, steps // 2, mode="reflect")
        # At this length the circular convolution does not wrap around, and a power of 2 makes the transforms fast.
        length = 2 ** (len(mirrored) + len(kernel)).bit_length()
        full = np.fft.irfft(np.fft.rfft(mirrored, length) * np.fft.rfft(kernel, length), length)
        return np.interp(points, np.arange(steps + 1) / steps, full[len(kernel) - 1 :][: steps + 1])

    gap = smooth(correct - confidence)
    density = smooth(np.ones_like(confidence))
    return float(np.abs(gap).mean() / (density.mean() + 1e-4))


@METRICS.register(
    "smooth_ece",
    order=90,
    title="Smooth ECE",
    detail=True,
    zero_if_calibrated=True,
    paper="Błasiok & Nakkiran 2024, Smooth ECE: principled reliability diagrams via kernel smoothing",
    statistic=FineGrid,
    formula=solve_smooth_ece,
    takes_replicates=True,
)
def smooth_ece(predictions: Predictions | TopLabel, *, variant: Variant = "exact") -> float:
    """Calibration error without bins: gaps are smoothed over confidence, with a scale equal to the result.

    ``smECE_s = integral_0^1 |1 / N * sum_i K_s(t, confidence_i) * (correct_i - confidence_i)| dt``, where ``K_s`` is
    the Gaussian density of standard deviation ``s`` reflected at 0 and 1. It never rises with ``s``; the result is the
    ``s`` with ``smECE_s = s``. So there is nothing to choose, and it moves little when confidences move little, which
    cannot be said of bins.

    Args:
        predictions: Logits ``(N, C)`` and target ``(N,)``, or a ``TopLabel``.
        variant: ``"exact"``: the paper's definition. ``"reference"``: the numbers of the published package.

    Returns:
        A fraction in ``[0, 1]``, at least ``|mean confidence - accuracy|``.

    Raises:
        InputError: For another variant.

    Note:
        Computed on nodes ``h = 2**-14`` apart. Grid and definition differ by at most ``(h / s)**2 * mean gap``, where
        ``mean gap`` is that of ``|correct - confidence|`` and ``s`` the result: by 1e-5 at a smooth ECE of 0.01, and
        not at all where all gaps have one sign at that scale. Memory does not depend on ``N``.

        The published package cuts the Gaussian off at a distance of 1/2, counts confidences within one step of 1 (or
        0) up to half, averages over at least 200 points, and finds ``s`` to 0.001 only. For large errors this matters:
        on 2,000 predictions with many confidences of 1, it has 0.1439 where the definition gives 0.1332.

    Example:
        >>> from fedlas import Predictions
        >>> round(smooth_ece(Predictions([[0.0, 0.0], [0.0, 0.0]], [1, 1])), 6)
        0.5

    Source:
        Błasiok & Nakkiran 2024 (ICLR), with the reflected Gaussian kernel at its fixed-point scale;
        https://arxiv.org/abs/2309.12236
    """
    if check_choice("variant", variant, VARIANTS) == "reference":
        return _reference_smooth_ece(predictions)
    return float(solve_smooth_ece(FineGrid.from_predictions(predictions).table()))
