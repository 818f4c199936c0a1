"""ICI, E50, E90 and Emax: distances of probabilities from loess-smoothed frequencies."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from fedlas._core.check import InputError, check_count, check_number
from fedlas.binary.cells import Loess
from fedlas.binary.positive import Positive, positive_class
from fedlas.stats.bootstrap import calibration_error_interval
from fedlas.stats.cell_sums import CellResampler
from fedlas.stats.degrees import pointwise_interval
from fedlas.stats.estimates import RESAMPLING, Estimate, check_replicates
from fedlas.stats.joint import NullReplicates
from fedlas.stats.noise_floor import least_p, monte_carlo_p_value

if TYPE_CHECKING:
    from fedlas._core.types import FloatArray
    from fedlas.predictions import Predictions

_MAX_CELLS = 8192
_REPLICATE_CELLS = 1024
DISTANCES = ("ici", "e50", "e90", "emax")
SPAN = 0.75
"""Share of the samples that each parabola sees, as in the paper."""


@dataclass(frozen=True, eq=False, repr=False)
class IntegratedCalibration:
    """Distances of probabilities from smoothed frequencies, and the curve; float64 arrays ``(G,)``.

    Attributes:
        ici: Mean distance: the integrated calibration index.
        e50: Median distance.
        e90: Ninetieth percentile of the distances.
        emax: Largest distance.
        probability: Where the curve is given, ascending.
        frequency: The curve: the frequency of the positive class at that probability. It can leave ``[0, 1]`` a little.
        low: Lower end of its pointwise bootstrap interval; NaN without replicates.
        high: Upper end.
    """

    ici: Estimate
    e50: Estimate
    e90: Estimate
    emax: Estimate
    probability: FloatArray
    frequency: FloatArray
    low: FloatArray
    high: FloatArray

    def __str__(self) -> str:
        """Return the distances in percentage points, with intervals and what chance gives, in a sentence."""
        numbers = []
        for name, each in zip(("ICI", "E50", "E90", "Emax"), self._distances, strict=True):
            parts = (
                [] if math.isnan(each.low) else [f"[{100 * each.low:.2f}, {100 * each.high:.2f}]"]
            )
            parts += [] if each.floor is None else [f"({100 * each.floor:.2f} by chance)"]
            numbers.append(" ".join([f"{name} {100 * each.value:.2f}", *parts]))
        return f"Distances from the loess curve, in points: {', '.join(numbers)}"

    __repr__ = __str__

    @property
    def _distances(self) -> tuple[Estimate, Estimate, Estimate, Estimate]:
        return self.ici, self.e50, self.e90, self.emax


def integrated_calibration(
    predictions: Predictions,
    *,
    event: int | str | None = None,
    span: float = SPAN,
    confidence_level: float = 0.95,
    replicates: int = 199,
    seed: int = 0,
) -> IntegratedCalibration:
    """Compute ICI, E50, E90 and Emax with intervals, noise floors and tests, and the loess calibration curve.

    The curve is a loess of the outcomes on the probabilities: at each place a parabola is fitted to the nearest
    ``span`` of the samples, with tricube weights. Unlike bins it has no edges, and unlike the calibration slope it can
    bend.

    Args:
        predictions: Logits ``(N, C)`` and target ``(N,)``, at least 10 samples.
        event: The positive class, by name or index; None: the event of two classes.
        span: Share of the samples that each parabola sees, in ``(0, 1]``; the paper's is 0.75.
        confidence_level: Confidence level of the intervals, in ``(0, 1)``.
        replicates: Replicates of bootstrap and noise floor, at least 39 for level 0.95; 0 computes neither, and the
            ends of the intervals are NaN.
        seed: The same seed draws the same samples and labels.

    Returns:
        Distances as fractions, each with the floor that a calibrated model with these probabilities would have.

    Raises:
        InputError: For fewer than 10 samples or options out of range, or as all functions here, for predictions of
            other than two classes without ``event``.

    Note:
        Assumes that the frequency is a smooth function of the probability; a step within the span is smoothed over.

        These numbers are above 0 by chance, as ECE is: compare them with their floors. Floor and test redraw every
        label from its probability. The bootstrap keeps the windows of the parabolas.

        The smoother is our own loess of degree 2, as R's ``loess``; ``lowess`` of R and of statsmodels has lines
        instead of parabolas, with which ICI and E90 come out up to a few tenths of a point apart. The fitted curve is
        not clipped to ``[0, 1]``, as in the paper. More than 8,192 distinct probabilities (1,024 in the replicates) are
        put together with their neighbors, and between 200 places the curve is a line.

        With clusters the bootstrap draws clusters, and the floor turns the gaps of whole clusters (wild bootstrap).

    Example:
        >>> import torch
        >>> from fedlas import Predictions
        >>> logits = 2 * torch.randn(3000, generator=torch.Generator().manual_seed(0))
        >>> happened = torch.bernoulli(logits.sigmoid(), generator=torch.Generator().manual_seed(1)).long()
        >>> two = torch.stack([torch.zeros(3000), logits], dim=1)
        >>> calibrated = integrated_calibration(Predictions(two, happened)).ici
        >>> too_extreme = integrated_calibration(Predictions(3 * two, happened)).ici
        >>> calibrated.p > 0.05, too_extreme.p < 0.01, round(too_extreme.value, 2)
        (True, True, 0.1...)

    Source:
        Austin and Steyerberg, "The Integrated Calibration Index (ICI) and related metrics for quantifying the
        calibration of logistic regression models", Statistics in Medicine 38 (2019); Cleveland, Devlin, Grosse,
        "Regression by local fitting", Journal of Econometrics 37 (1988), for loess.
    """
    check_number("span", span, low=0.0, high=1.0, low_open=True)
    check_count("seed", seed, low=0)
    check_replicates(replicates, confidence_level)
    return curve_and_tests(
        positive_class(predictions, event),
        span=span,
        confidence_level=confidence_level,
        replicates=replicates,
        seed=seed,
    )[0]


def curve_and_tests(
    data: Positive, *, span: float = SPAN, confidence_level: float, replicates: int, seed: int
) -> tuple[IntegratedCalibration, NullReplicates]:
    """Return the calibration curve with its distances, and the null replicates of the calibration tests."""
    if data.num_samples < 10:
        raise InputError(
            "predictions must hold at least 10 samples for a calibration curve",
            data.num_samples,
            "Use a larger test set.",
        )
    smoother = Loess(data, span, max_cells=_MAX_CELLS)
    counts = smoother.counts[None]
    curve = smoother.curves(counts, smoother.positives[None])
    values = {name: float(value[0]) for name, value in smoother.distances(curve, counts).items()}
    null = NullReplicates()
    parts: dict[str, Any] = {"probability": smoother.places, "frequency": curve[0]}
    degrees = data.degrees()
    # A single cluster has neither intervals nor tests.
    if not replicates or degrees == 0.0:
        unknown = np.full(curve.shape[1], np.nan)
        parts |= {name: Estimate(values[name], math.nan, math.nan) for name in DISTANCES}
        return IntegratedCalibration(**parts, low=unknown, high=unknown), null

    # Replicates need no finer cells than that; what is compared with them is computed from the same cells.
    coarse = Loess(data, span, max_cells=_REPLICATE_CELLS, places=smoother.places)
    draws = CellResampler(coarse.sums, replicates, seed)
    counts_drawn, positives_drawn = draws.draw_bootstrap()
    redrawn = coarse.curves(counts_drawn, positives_drawn)
    samples = coarse.distances(redrawn, counts_drawn)
    labels = draws.draw_calibrated_outcomes()
    counts = coarse.counts[None]
    floors = coarse.distances(coarse.curves(counts, labels), counts)
    observed = coarse.distances(coarse.curves(counts, coarse.positives[None]), counts)

    def estimate_distance(name: str) -> Estimate:
        ends = calibration_error_interval(
            values[name],
            samples[name],
            floors[name],
            confidence_level=confidence_level,
            degrees=degrees,
        )
        null.add(name, float(observed[name][0]), floors[name])
        return Estimate(
            values[name],
            ends.low,
            min(ends.high, 1.0),
            float(floors[name].mean()),
            monte_carlo_p_value(floors[name], float(observed[name][0])),
            least_p(replicates, "worse"),
            replicates,
            confidence_level,
            RESAMPLING,
        )

    low, high = pointwise_interval(redrawn, confidence_level, degrees)
    parts |= {name: estimate_distance(name) for name in DISTANCES}
    for name, terms in _score_test_weights(data, coarse).items():
        size = abs(float((coarse.positives - coarse.counts * coarse.means) @ terms))
        null.add(name, size, np.abs((labels - coarse.counts * coarse.means) @ terms))
    return IntegratedCalibration(**parts, low=low, high=high), null


def _score_test_weights(data: Positive, cells: Loess) -> dict[str, FloatArray]:
    """Return each cell's weight in the score tests of shift and slope, and in Spiegelhalter's z."""
    # The score of the slope is taken at the shift that fits best, to first order: gaps are weighted by the log-odds
    # less their mean, which the variances of the outcomes weight.
    # Samples of a probability of 0 or 1 have none, and cells of these alone have no weight.
    has_odds = np.ones(data.num_samples)
    if data.is_certain is not None:
        has_odds[data.is_certain] = 0.0
    count = cells.sums.total(has_odds)
    log_odds = cells.sums.total(has_odds * data.log_odds) / np.maximum(count, 1e-300)
    spread = count * cells.means * (1.0 - cells.means)
    terms = {"in_the_large": np.ones(len(spread)), "spiegelhalter": 1.0 - 2.0 * cells.means}
    if spread.sum() > 0:
        mean = float(spread @ log_odds) / float(spread.sum())
        terms["slope"] = np.where(count > 0, log_odds - mean, 0.0)
    return terms
