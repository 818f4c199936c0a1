"""Decision curve analysis: net benefit of acting on the model, compared with treating all or none."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from fedlas._core.check import InputError, as_float_array, describe
from fedlas.binary.positive import Positive, positive_class
from fedlas.metrics.sums import ROUNDING
from fedlas.stats.degrees import critical_t
from fedlas.stats.intervals import check_confidence_level

if TYPE_CHECKING:
    from fedlas._core.types import FloatArray, IntArray
    from fedlas.predictions import Predictions

THRESHOLDS = tuple(step / 100 for step in range(1, 100))
"""Thresholds where none are chosen."""


@dataclass(frozen=True, eq=False, repr=False)
class NetBenefit:
    """Net benefit at each threshold; float64 arrays ``(T,)``, in true positives per sample.

    Attributes:
        threshold: Probability from which on one acts.
        model: Net benefit of acting where the model's probability is at least the threshold.
        low: Lower end of its interval.
        high: Upper end.
        treat_all: Net benefit of acting on every sample; that of acting on none is 0.
        gain: ``model`` minus the better of acting on all and on none.
        gain_low: Lower end of its interval; above 0 the model is of use at this threshold.
        gain_high: Upper end.
    """

    threshold: FloatArray
    model: FloatArray
    low: FloatArray
    high: FloatArray
    treat_all: FloatArray
    gain: FloatArray
    gain_low: FloatArray
    gain_high: FloatArray

    def __str__(self) -> str:
        """Return at how many thresholds the model is of use, in a sentence."""
        useful = self.threshold[self.gain_low > 0]
        ends = f", from {useful.min():g} to {useful.max():g}" if len(useful) else ""
        return (
            f"Net benefit at {len(self.threshold)} thresholds: significantly above acting on all and on none at "
            f"{len(useful)}{ends}"
        )

    __repr__ = __str__


def net_benefit(
    predictions: Predictions,
    *,
    thresholds: Sequence[float] = THRESHOLDS,
    event: int | str | None = None,
    confidence_level: float = 0.95,
) -> NetBenefit:
    """Return net benefit ``TP / N - w FP / N`` at each threshold ``t``, with ``w = t / (1 - t)``.

    A threshold ``t`` says how much worse a missed positive is than a needless action: ``1 / w`` times. So the curve
    matters only at thresholds that somebody would choose.

    Args:
        predictions: Logits ``(N, C)`` and target ``(N,)``.
        thresholds: Probabilities in ``(0, 1)``; by default 0.01, 0.02, ..., 0.99.
        event: The positive class, by name or index; None: the event of two classes.
        confidence_level: Confidence level of the intervals, in ``(0, 1)``, one threshold at a time.

    Returns:
        The curve, with those of acting on all and on none.

    Raises:
        InputError: For thresholds out of ``(0, 1)``, or as all functions here, for predictions of other than two
            classes without ``event``.

    Note:
        Assumes that the share of positives among the samples is that of the people whom the model will be used for; in
        a case-control sample it is not.

        Net benefit is a mean over samples, its interval the normal one of a mean, with clusters Student's of sums.
        Its width is 0 where the model acts on no sample, and that of ``gain`` where it acts as the better default does.

    Example:
        >>> from fedlas import Predictions
        >>> p = Predictions([[0.0, 2.0], [0.0, 1.0], [0.0, -1.0], [0.0, -2.0]], [1, 0, 1, 0])
        >>> curve = net_benefit(p, thresholds=[0.2, 0.5])
        >>> curve.model.tolist(), curve.treat_all.tolist()
        ([0.4375, 0.0], [0.375, 0.0])

    Source:
        Vickers and Elkin, "Decision curve analysis: a novel method for evaluating prediction models", Medical Decision
        Making 26 (2006).
    """
    data = positive_class(predictions, event)
    z = critical_t(check_confidence_level(confidence_level), data.degrees())
    limit = as_float_array(thresholds)
    if limit.ndim != 1 or not len(limit) or not bool(((limit > 0) & (limit < 1)).all()):
        raise InputError(
            "thresholds must be probabilities in (0, 1)",
            describe(thresholds),
            "Pass a list such as [0.1, 0.2].",
        )
    # Positives and others from each rank on are counted once, so that each threshold costs one look-up.
    order = np.argsort(data.probability, kind="stable")
    totals = CumulativeTotals(data, order)
    # A probability equals a threshold also where its logarithm was rounded in between.
    rounding = ROUNDING * np.finfo(predictions.scores.dtype).eps * (1.0 - np.log(limit))
    first = np.searchsorted(data.probability[order], limit * (1.0 - rounding), side="left")
    weight = limit / (1.0 - limit)
    model, error = totals.mean(first, weight)
    treat_all, _ = totals.mean(np.zeros_like(first), weight)
    # Compared with acting on all, the model saves needless actions and loses hits below the threshold.
    below, below_error = totals.mean(first, weight, below=True)
    gain = np.where(treat_all > 0, below, model)
    gain_error = np.where(treat_all > 0, below_error, error)
    return NetBenefit(
        limit,
        model,
        model - z * error,
        model + z * error,
        treat_all,
        gain,
        gain - z * gain_error,
        gain + z * gain_error,
    )


class CumulativeTotals:
    """Reverse cumulative sums of positives and others, by rank of the probability."""

    def __init__(self, data: Positive, order: IntArray) -> None:
        self._data = data
        self._order = order
        weights = data.counts[order]
        self._happened = data.outcome[order] > 0
        self.positives = _reverse_cumsum(weights * self._happened)
        self.others = _reverse_cumsum(weights * ~self._happened)
        self._square_positives = _reverse_cumsum(weights**2 * self._happened)
        self._square_others = _reverse_cumsum(weights**2 * ~self._happened)

    def mean(
        self, first: IntArray, weight: FloatArray, *, below: bool = False
    ) -> tuple[FloatArray, FloatArray]:
        """Return the mean net benefit per sample and its standard error; a false positive costs ``weight``."""

        def sums(totals: FloatArray) -> FloatArray:
            return totals[0] - totals[first] if below else totals[first]

        samples = self._data.num_samples
        value = (sums(self.positives) - weight * sums(self.others)) / samples
        squares = sums(self._square_positives) + weight**2 * sums(self._square_others)
        # Around the mean, as each row adds its weight times what it brings less the mean.
        all_squares = self._square_positives[0] + self._square_others[0]
        crossed = sums(self._square_positives) - weight * sums(self._square_others)
        variance = (squares - 2.0 * value * crossed + value**2 * all_squares) / samples
        error = np.sqrt(np.maximum(variance, 0.0) / samples)
        if self._data.clusters is not None:
            thresholds = zip(first, weight, value, strict=True)
            error = np.array([self._clustered_error(*each, below=below) for each in thresholds])
        return (-value if below else value), error

    def _clustered_error(self, first: int, weight: float, value: float, *, below: bool) -> float:
        """Return the standard error of the mean from sums over clusters."""
        part = slice(None, first) if below else slice(first, None)
        terms = np.zeros(self._data.num_samples)
        terms[self._order[part]] = np.where(self._happened[part], 1.0, -weight)
        return self._data.error_of_mean(terms - value)


def _reverse_cumsum(values: FloatArray) -> FloatArray:
    """Return reverse cumulative sums of ``values (N,)``, ``(N + 1,)``."""
    return np.concatenate([np.cumsum(values[::-1])[::-1], [0.0]])
