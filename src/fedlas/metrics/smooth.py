"""Smooth calibration error: gaps between confidence and outcome, smoothed over confidence instead of binned."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from fedlas._core.check import check_choice
from fedlas.metrics.base import METRICS, Estimator
from fedlas.metrics.binning import EqualMass
from fedlas.metrics.fine_grid import WIDTH_BITS, FineGrid, Masses
from fedlas.predictions import Predictions

Floats = NDArray[np.float64]
STEPS = 2**WIDTH_BITS
"""The confidence axis is cut into as many steps; every cell of :class:`FineGrid` lies within one of them."""
_PRECISION = 1e-12
_MOST_ROUNDS = 200


class SmoothedGap:
    """``scale -> integral over [0, 1] of |r(t)|``, ``r(t)`` the gaps smoothed by a reflected Gaussian of that scale.

    Reflection at both ends makes smoothing the diffusion of heat in an insulated rod, so it is done there: the gaps are
    put on nodes, the cosine transform is taken once, and a scale costs one inverse transform. The nodes' own diffusion
    stands for the Gaussian's: it never creates nor loses anything either, and more of it never raises the integral.

    Args:
        masses: Groups with their positions and gaps.
    """

    def __init__(self, masses: Masses) -> None:
        place = masses.position.numpy() * STEPS
        node = np.minimum(np.floor(place).astype(np.int64), STEPS - 1)
        gap, upper = masses.gap.numpy() / masses.num_samples, place - node
        # Divided between the nodes around it, a group keeps its sum and its centre.
        on_nodes = np.bincount(node, gap * (1 - upper), STEPS + 1) + np.bincount(node + 1, gap * upper, STEPS + 1)
        on_nodes[[0, -1]] *= 2  # a node at an end has half the width of the others to spread over
        self._spectrum = np.fft.rfft(np.concatenate((on_nodes, on_nodes[-2:0:-1])))
        self._decay = 1 - np.cos(np.pi * np.arange(STEPS + 1) / STEPS)

    def __call__(self, scale: float) -> float:
        """The integral at ``scale >= 0``."""
        smoothed = np.abs(np.fft.irfft(self._spectrum * np.exp(-self._decay * (scale * STEPS) ** 2), 2 * STEPS))
        return float(smoothed[1:STEPS].sum() + (smoothed[0] + smoothed[STEPS]) / 2)


def fixed_scale(smoothed: SmoothedGap, total: float) -> float:
    """The ``scale`` that equals ``smoothed(scale)``: regula falsi (Illinois), as the difference has one zero.

    Args:
        smoothed: Never rising with the scale.
        total: ``|mean gap|``, which the integral never falls below.

    Returns:
        The zero, within 1e-12: where the difference is that small, it is that near, since it falls at least as fast as
        the scale rises.
    """
    low = total
    at_low = smoothed(low) - low
    if at_low <= _PRECISION:
        return low
    high = low + at_low
    at_high = smoothed(high) - high
    above = 0  # how often in a row the zero was above (below, if negative) the last guess
    for _ in range(_MOST_ROUNDS):
        scale = high - at_high * (high - low) / (at_high - at_low)
        value = smoothed(scale) - scale
        if abs(value) <= _PRECISION or high - low <= _PRECISION:
            break
        if value > 0:
            above = max(above, 0) + 1
            low, at_low, at_high = scale, value, at_high / 2 if above > 1 else at_high
        else:
            above = min(above, 0) - 1
            high, at_high, at_low = scale, value, at_low / 2 if above < -1 else at_low
    return scale


def _smooth(grid: FineGrid) -> float:
    masses = grid.masses()
    total = abs(float(masses.gap.sum())) / masses.num_samples
    return fixed_scale(SmoothedGap(masses), total)


def _published(statistic: EqualMass) -> float:
    """The published package's search: halve until the bracket is below 0.001, and take the value at its upper end."""
    confidence, correct = statistic.confidence.double().numpy(), statistic.correct.numpy()
    low, high = 0.0, 1.0
    while high - low > 1e-3:
        scale = (low + high) / 2
        if _published_at(scale, confidence, correct) < scale:
            high = scale
        else:
            low = scale
    return _published_at(high, confidence, correct)


def _published_at(scale: float, confidence: Floats, correct: NDArray[np.bool_]) -> float:
    """Smoothed |gap| over smoothed density, averaged over points of ``[0, 1]``.

    The Gaussian is cut off at a distance of 1/2. Ends are reflected about their nodes, so that what is put on an end
    node counts half.
    """
    steps = max(1000, round(10 / scale))
    place = confidence * steps
    node = np.minimum(np.floor(place).astype(np.int64), steps - 1)
    distance = np.arange(-(steps // 2), steps // 2 + 1) / steps
    kernel = np.exp(-((distance / scale) ** 2) / 2) / (scale * math.sqrt(2 * math.pi))
    points = np.linspace(0, 1, max(200, round(10 / scale)))

    def smoothed(weights: Floats) -> Floats:
        lower = weights * (1 - place + node)
        on_nodes = np.bincount(node, lower, steps + 1) + np.bincount(node + 1, weights - lower, steps + 1)
        mirrored = np.pad(on_nodes, steps // 2, mode="reflect")
        length = 2 ** (len(mirrored) + len(kernel)).bit_length()
        full = np.fft.irfft(np.fft.rfft(mirrored, length) * np.fft.rfft(kernel, length), length)
        return np.interp(points, np.arange(steps + 1) / steps, full[len(kernel) - 1 :][: steps + 1])

    gap, density = smoothed(correct - confidence), smoothed(np.ones_like(confidence))
    return float(np.abs(gap).mean() / (density.mean() + 1e-4))


_SMOOTH: dict[str, Estimator[FineGrid] | Estimator[EqualMass]] = {
    "exact": Estimator("smooth_calibration_error", FineGrid, _smooth),
    "reference": Estimator("smooth_calibration_error", EqualMass, _published),
}


@METRICS.register(
    "smooth_ece",
    title="Smooth ECE",
    higher_is_better=False,
    percent=True,
    detail=True,
    paper="Błasiok & Nakkiran 2024, Smooth ECE: principled reliability diagrams via kernel smoothing",
    estimator=_SMOOTH["exact"],
)
def smooth_calibration_error(predictions: Predictions, *, convention: str = "exact") -> float:
    """Calibration error without bins: the gaps are smoothed over confidence, at the one scale that equals the result.

    ``smECE_s = integral_0^1 |1 / N * sum_i K_s(t, confidence_i) * (correct_i - confidence_i)| dt``, where ``K_s`` is
    the Gaussian density of standard deviation ``s`` reflected at 0 and 1. It never rises with ``s``; the result is the
    ``s`` with ``smECE_s = s``. So there is nothing to choose, and it moves little when confidences move little, which
    cannot be said of bins.

    Args:
        predictions: Logits ``(N, C)`` and target ``(N,)``.
        convention: ``"exact"``: the paper's definition. ``"reference"``: the numbers of the published package.

    Returns:
        A fraction in ``[0, 1]``, at least ``|mean confidence - accuracy|``.

    Raises:
        InputError: For another convention.

    Note:
        Computed on nodes ``h = 2**-14`` apart. Grid and definition differ by at most ``(h / s)**2 * mean gap``, where
        ``mean gap`` is that of ``|correct - confidence|`` and ``s`` the result: by 1e-5 at a smooth ECE of 0.01, and
        not at all where all gaps have one sign at that scale. Memory does not depend on ``N``.

        The published package cuts the Gaussian off at a distance of 1/2, counts confidences within one step of 1 (or
        0) up to half, averages over at least 200 points, and finds ``s`` to 0.001 only. For large errors this matters:
        on 2,000 predictions with many confidences of 1, it has 0.1439 where the definition gives 0.1332.

    Example:
        >>> round(smooth_calibration_error(Predictions([[0.0, 0.0], [0.0, 0.0]], [1, 1])), 6)
        0.5

    Source:
        Błasiok & Nakkiran 2024 (ICLR), with the reflected Gaussian kernel at its fixed-point scale;
        https://arxiv.org/abs/2309.12236
    """
    return _SMOOTH[check_choice("smooth_calibration_error", "convention", convention, _SMOOTH)](predictions)
