"""One class against the rest: its log-odds, probability and outcome, and bins of the probability."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

from fedlas._core.check import Argument, InputError, Text, check_choice, check_count
from fedlas._core.ops import sigmoid
from fedlas._core.types import FloatArray, IntArray
from fedlas.metrics.calibration_error import equal_mass_bins
from fedlas.metrics.equal_width import BinSums, bins_from_table
from fedlas.metrics.ranking_scores import make_class_scorer
from fedlas.metrics.sums import normalized_weights
from fedlas.predictions.any_predictions import require_predictions
from fedlas.predictions.event import event_index
from fedlas.predictions.probabilities import FLOOR, is_zero_or_one
from fedlas.resample.clusters import clustered_sum_variance
from fedlas.stats.degrees import degrees_of_freedom
from fedlas.stats.intervals import check_confidence_level
from fedlas.stats.proportion import clopper_pearson, weighted_share_interval, wilson_interval

if TYPE_CHECKING:
    from fedlas._core.types import BoolArray, FloatArray, IntArray
    from fedlas.predictions import Predictions

T = TypeVar("T")

_PROBS_RANGE = (math.log(FLOOR), -math.log(FLOOR))
"""Range of the finite log-odds of probabilities, as of their logits."""


@dataclass(frozen=True, eq=False)
class Positive:
    """One class against the rest; rows of weight 0 are left out."""

    # `log p / (1 - p)` of the class `(N,)` float64, finite.
    log_odds: FloatArray
    # `p (N,)` float64.
    probability: FloatArray
    # 1 where it was the class, else 0 `(N,)` float64.
    outcome: FloatArray
    # `(N,)` float64 that average 1; None if every sample counts once.
    weights: FloatArray | None = None
    # Number of each sample's cluster `(N,)`, from 0 on; None if all samples are independent.
    clusters: IntArray | None = None
    # Whether the probability is exactly 0 or 1, so that the log-odds are a stand-in `(N,)`; None if none is.
    is_certain: BoolArray | None = None
    # Log-odds by which samples rank `(N,)`, infinite for probabilities of 0 and 1; None: `log_odds`.
    unbounded_log_odds: FloatArray | None = None
    _tables: dict[Any, Any] = field(default_factory=dict, init=False, repr=False)

    @property
    def num_samples(self) -> int:
        """Number of samples ``N``."""
        return len(self.outcome)

    @property
    def is_iid(self) -> bool:
        """Whether samples are independent and unweighted."""
        return self.weights is None and self.clusters is None

    @property
    def counts(self) -> FloatArray:
        """Weight of each sample ``(N,)``, or ones; adds up to ``N``."""
        return np.ones(self.num_samples) if self.weights is None else self.weights

    @property
    def ranked(self) -> FloatArray:
        """Log-odds by which samples rank ``(N,)``: also those below the least finite ones differ."""
        return self.log_odds if self.unbounded_log_odds is None else self.unbounded_log_odds

    @cached_property
    def order(self) -> IntArray:
        """Sample indices by ascending log-odds ``(N,)``; ties keep their order."""
        return np.argsort(self.ranked, kind="stable")

    def table(self, make: Callable[[Positive], T]) -> T:
        """Return ``make(self)``, cached: a fit or an order that several measures need."""
        if make not in self._tables:
            self._tables[make] = make(self)
        return cast(T, self._tables[make])

    def rows(self, index: IntArray) -> Positive:
        """Return the samples at the given indices, with weights rescaled to average 1."""
        weights = None if self.weights is None else self.weights[index]
        clusters = None if self.clusters is None else self.clusters[index]
        return Positive(
            self.log_odds[index],
            self.probability[index],
            self.outcome[index],
            None if weights is None else weights / weights.mean(),
            None if clusters is None else np.unique(clusters, return_inverse=True)[1],
            None if self.is_certain is None else _mask_or_none(self.is_certain[index]),
            None if self.unbounded_log_odds is None else self.unbounded_log_odds[index],
        )

    @property
    def left_out(self) -> int | None:
        """Number of samples with a probability of exactly 0 or 1; None if there are none."""
        return None if self.is_certain is None else int(self.is_certain.sum())

    def count_ones(self) -> int:
        """Return the number of samples with a probability of exactly 1."""
        is_certain = self.is_certain
        return 0 if is_certain is None else int((is_certain & (self.log_odds > 0)).sum())

    @cached_property
    def finite(self) -> Positive:
        """The samples whose log-odds are finite: those of a probability of 0 or 1 are left out."""
        return self if self.is_certain is None else self.rows(np.flatnonzero(~self.is_certain))

    def mean(self, values: FloatArray) -> float:
        """Return the weighted mean of ``values (N,)``."""
        return float(np.average(values, weights=self.weights))

    def error_of_mean(self, terms: FloatArray) -> float:
        """Return the standard error of the weighted mean of ``terms (N,)``, which have mean 0."""
        sums = terms * self.counts
        if self.clusters is None:
            return math.sqrt(sums @ sums) / self.num_samples
        totals = np.bincount(self.clusters, sums)
        return math.sqrt(clustered_sum_variance(totals @ totals, len(totals))) / self.num_samples

    def degrees(self, terms: FloatArray | None = None) -> float:
        """Return the degrees of freedom of the variance of a sum of ``terms (N,)``; default: of ones."""
        sums = self.counts if terms is None else terms * self.counts
        return degrees_of_freedom(sums, self.clusters)

    def share(
        self, hits: NDArray[np.bool_], rows: IntArray, confidence_level: float
    ) -> tuple[float, float, float]:
        """Return the share of ``hits (N,)`` among the samples in ``rows``, and the ends of its interval."""
        inside = hits[rows]
        value = float(np.average(inside, weights=self.counts[rows]))
        if self.degrees() == 0.0:
            return value, math.nan, math.nan
        level: Any = {"confidence_level": confidence_level}
        if self.is_iid:
            return value, *clopper_pearson(int(inside.sum()), len(rows), **level)
        clusters = self.clusters
        if clusters is not None:
            clusters = np.unique(clusters[rows], return_inverse=True)[1]
        low, high = weighted_share_interval(inside, self.counts[rows], clusters, **level)
        return value, float(low), float(high)


def positive_class(
    predictions: Predictions, event: int | str | None, *, both_outcomes: bool = False
) -> Positive:
    """Return the class ``event``, given by name or index, against the rest; by default the event of two classes."""
    predictions = require_predictions(predictions)
    classes = predictions.num_classes
    if classes < 2 or (event is None and classes != 2):
        expected = "predictions must have two classes, or event must name the positive class"
        got = f"{classes} class{'es' if classes > 1 else ''}, event={event}"
        fix: Text = (
            ("Pass ", Argument("event"), "k, the index of the class.")
            if classes > 1
            else "Pass predictions with at least two classes."
        )
        raise InputError(expected, got, fix)
    number = event_index(predictions) if event is None else _class_index(event, predictions)
    predictions = drop_zero_weights(predictions)
    unbounded = make_class_scorer(predictions)(number)
    log_odds = np.clip(unbounded, *_PROBS_RANGE) if predictions.are_probs else unbounded
    outcome = (predictions.target == number).astype(np.float64)
    weights = normalized_weights(predictions)
    names = getattr(predictions, "clusters", None)
    clusters = None if names is None else np.unique(names, return_inverse=True)[1]
    if both_outcomes and outcome.min() == outcome.max():
        got = f"{len(outcome)} samples, {'only' if outcome[0] else 'no'} class {number}"
        fix = "Pass a test set in which both occur."
        raise InputError(f"class {number} and other classes must both occur as labels", got, fix)
    # What lies beyond the range is taken for its end, as in a file of logits.
    stands_in = np.isinf(unbounded) | is_zero_or_one(log_odds, classes)
    probability = sigmoid(log_odds)
    certain = _mask_or_none(stands_in)
    return Positive(log_odds, probability, outcome, weights, clusters, certain, unbounded)


def _mask_or_none(mask: BoolArray) -> BoolArray | None:
    """Return a mask, or None if it is all false."""
    return mask if mask.any() else None


def _class_index(event: int | str, predictions: Predictions) -> int:
    """Return the class index for a class name or index."""
    names = predictions.classes or ()
    if isinstance(event, str):
        if event in names:
            return names.index(event)
        fix = f"Name one of {', '.join(names)}." if names else "Pass the class index, or classes=."
        raise InputError("event must be the name of a class", repr(event), fix)
    number = check_count("event", event, low=0)
    if number >= predictions.num_classes:
        fix = "Pass the index of a class."
        raise InputError(f"event must be a class in [0, {predictions.num_classes})", number, fix)
    return number


def drop_zero_weights(predictions: Predictions) -> Predictions:
    """Return the samples with positive weight."""
    weights = predictions.weights
    if weights is None or weights.all():
        return predictions
    return predictions.rows(weights > 0)


_SCHEMES = ("equal-width", "equal-mass")


@dataclass(frozen=True, eq=False)
class PositiveBins:
    """Mean probability and frequency per bin of the probability; float64 arrays, NaN where a bin is empty.

    Attributes:
        edges: ``(B + 1,)`` from 0 to 1, ascending; bin ``b`` is ``(edges[b], edges[b + 1]]``, and 0 is in the first.
        count: Samples in each bin ``(B,)``, by their weights.
        probability: Mean probability ``(B,)``.
        frequency: Share of positives ``(B,)``.
        low: Lower end of Wilson's interval of the frequency ``(B,)``; with weights or clusters that of an effective
            number of samples.
        high: Upper end.
    """

    edges: FloatArray
    count: FloatArray
    probability: FloatArray
    frequency: FloatArray
    low: FloatArray
    high: FloatArray


def positive_bins(
    predictions: Predictions,
    *,
    event: int | str | None = None,
    num_bins: int = 10,
    scheme: str = "equal-width",
    confidence_level: float = 0.95,
) -> PositiveBins:
    """Return mean probability and frequency of the positive class in bins of its probability.

    :func:`~fedlas.metrics.reliability_bins` has the confidence of the *predicted* class, which is never below one half
    for two classes, and hides on which side a model errs. Here 0.1 stays 0.1.

    Args:
        predictions: Logits ``(N, C)`` and target ``(N,)``.
        event: The positive class, by name or index; None: the event of two classes.
        num_bins: At least 1.
        scheme: ``"equal-width"``, or ``"equal-mass"``: as many samples in each, as in tables of deciles of risk.
        confidence_level: Level of the interval of each frequency, in ``(0, 1)``.

    Returns:
        The bins, those without samples included.

    Raises:
        InputError: For another scheme or a ``num_bins`` below 1, or as all functions here, for predictions of other
            than two classes without ``event``.

    Example:
        >>> from fedlas import Predictions
        >>> bins = positive_bins(Predictions([[0.0, -3.0], [0.0, -2.0], [0.0, 2.0]], [0, 1, 1]), num_bins=2)
        >>> bins.count.tolist(), bins.frequency.tolist(), bins.probability.round(3).tolist()
        ([2.0, 1.0], [0.5, 1.0], [0.083, 0.881])

    Source:
        Murphy and Winkler, "Reliability of subjective probability forecasts of precipitation and temperature" (1977);
        Wilson 1927 for the interval.
    """
    import torch

    check_count("num_bins", num_bins)
    check_choice("scheme", scheme, _SCHEMES)
    check_confidence_level(confidence_level)
    data = positive_class(predictions, event)
    # In the precision of the scores, because what counts as equal to an edge depends on it.
    probability = data.probability.astype(predictions.scores.dtype)
    if scheme == "equal-mass":
        bins = bins_from_table(*equal_mass_bins(probability, data.outcome > 0, num_bins))
    else:
        sums = BinSums(num_bins)
        outcome = torch.from_numpy(data.outcome)
        sums.add(torch.from_numpy(probability), outcome, torch.ones_like(outcome))
        bins = sums.bins()
    edges = bins.edges
    if data.is_iid:
        count = bins.count.astype(np.float64)
        frequency = bins.accuracy
        with np.errstate(invalid="ignore", divide="ignore"):  # empty bins
            low, high = wilson_interval(frequency, count, confidence_level=confidence_level)
        return PositiveBins(edges, count, bins.confidence, frequency, low, high)
    place = np.clip(np.searchsorted(edges, probability, side="left") - 1, 0, len(edges) - 2)
    rows = [np.flatnonzero(place == number) for number in range(len(edges) - 1)]
    return PositiveBins(
        edges, *np.array([_summarize_bin(data, each, confidence_level) for each in rows]).T
    )


def _summarize_bin(data: Positive, rows: IntArray, confidence_level: float) -> tuple[float, ...]:
    """Return count, probability, frequency and interval ends of one bin; NaN without samples."""
    if not len(rows):
        return 0.0, *[math.nan] * 4
    weights = data.counts[rows]
    mean = float(np.average(data.probability[rows], weights=weights))
    return float(weights.sum()), mean, *data.share(data.outcome > 0, rows, confidence_level)
