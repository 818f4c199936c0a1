"""Spline-smoothed frequency of an event by its probability."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from fedlas._core.check import InputError, check_count
from fedlas._core.ops import sigmoid
from fedlas.binary.grouped_samples import GroupedSamples
from fedlas.binary.logistic import fit_logistic
from fedlas.binary.positive import positive_class
from fedlas.binary.recalibration import fit_recalibration
from fedlas.stats.degrees import critical_t
from fedlas.stats.intervals import check_confidence_level

if TYPE_CHECKING:
    from fedlas._core.types import FloatArray
    from fedlas.predictions import Predictions

_POINTS = 201
_KNOTS = {3: (0.1, 0.5, 0.9), 4: (0.05, 0.35, 0.65, 0.95), 5: (0.05, 0.275, 0.5, 0.725, 0.95)}
"""Quantiles at which the knots lie, by their number."""


@dataclass(frozen=True, eq=False)
class SplineCurve:
    """Spline-smoothed frequency of the positive class by its probability; float64 arrays ``(G,)``.

    Attributes:
        probability: Where the curve is given, ascending.
        frequency: The curve, in ``[0, 1]``.
        low: Lower end of its pointwise interval.
        high: Upper end.
        knots: Probabilities of the knots.
    """

    probability: FloatArray
    frequency: FloatArray
    low: FloatArray
    high: FloatArray
    knots: FloatArray


def spline_curve(
    predictions: Predictions,
    *,
    event: int | str | None = None,
    num_knots: int = 5,
    confidence_level: float = 0.95,
) -> SplineCurve:
    """Fit a flexible calibration curve: a logistic regression of the outcomes on a spline of the log-odds.

    The spline is a restricted cubic one: cubic between the knots, a line beyond the outer ones.

    Args:
        predictions: Logits ``(N, C)`` and target ``(N,)``.
        event: The positive class, by name or index; None: the event of two classes.
        num_knots: 3, 4 or 5, at fixed quantiles of the log-odds; knots that coincide are one.
        confidence_level: Level of the pointwise interval, in ``(0, 1)``.

    Raises:
        InputError: If a threshold separates the outcomes, an option is out of range, or as all functions here, for
            predictions of other than two classes without ``event``.

    Note:
        It follows a step less closely than a loess. With weights or clusters the interval is that of the sandwich
        estimate.

    Example:
        >>> import torch
        >>> from fedlas import Predictions
        >>> log_odds = torch.randn(2000, generator=torch.Generator().manual_seed(0))
        >>> happened = torch.bernoulli(log_odds.sigmoid(), generator=torch.Generator().manual_seed(1)).long()
        >>> curve = spline_curve(Predictions(torch.stack([0 * log_odds, log_odds], dim=1), happened))
        >>> bool(np.abs(curve.frequency - curve.probability).mean() < 0.03)
        True

    Source:
        Harrell, "Regression Modeling Strategies" (2015), sections 2.4.5 and 2.4.6, for the spline and its knots; Van
        Calster et al., Journal of Clinical Epidemiology 74 (2016), for the flexible curve.
    """
    if check_count("num_knots", num_knots) not in _KNOTS:
        raise InputError("num_knots must be 3, 4 or 5", num_knots, "Use 5, or 3 for few samples.")
    data = positive_class(predictions, event, both_outcomes=True)
    data.table(fit_recalibration)  # refuses outcomes that can be separated
    data = data.finite
    center = float(data.log_odds.mean())
    unit = float(data.log_odds.std())
    x = (data.log_odds - center) / unit
    knots = np.unique(np.quantile(x, _KNOTS[num_knots]))
    places = np.unique(np.quantile(x, np.linspace(0.0, 1.0, _POINTS)))
    fit = fit_logistic(data.table(GroupedSamples.from_positive), _spline_basis(x, knots))
    if not fit.exists.all():
        raise InputError(
            "the outcomes must determine a curve through all knots",
            f"{len(knots)} knots on {data.num_samples:,} samples",
            "Use num_knots=3, or more test samples.",
        )
    columns = _spline_basis(places, knots)
    line = fit.coefficients[0] @ columns
    degrees = float(fit.joint_degrees[0])
    reach = critical_t(check_confidence_level(confidence_level), degrees) * fit.errors(columns.T)[0]
    probability, bends = (sigmoid(center + unit * each) for each in (places, knots))
    return SplineCurve(
        probability, sigmoid(line), sigmoid(line - reach), sigmoid(line + reach), bends
    )


def _spline_basis(x: FloatArray, knots: FloatArray) -> FloatArray:
    """Return the restricted cubic spline basis ``(K, N)``: constant, linear, and one term per inner knot."""
    columns = [np.ones_like(x), x]
    *bends, last_but_one, last = knots if len(knots) > 2 else (0.0, 1.0)

    def cube(knot: float) -> FloatArray:
        return np.maximum(x - knot, 0.0) ** 3

    for knot in bends:
        share = (last - knot) / (last - last_but_one)
        bend = cube(knot) - share * cube(last_but_one) + (share - 1.0) * cube(last)
        columns.append(bend / (last - knots[0]) ** 2)
    return np.stack(columns)
