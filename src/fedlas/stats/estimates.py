"""Estimates of metrics with bootstrap intervals, noise floors and calibration tests."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fedlas._core.check import InputError, check_count, check_number, reject_other_content
from fedlas._core.defaults import CONFIDENCE_LEVEL as CONFIDENCE_LEVEL
from fedlas._core.defaults import REPLICATES as REPLICATES
from fedlas._core.kinds import check_argument_types
from fedlas._core.threads import run_single_threaded
from fedlas.metrics import METRICS
from fedlas.metrics.classwise import ClasswiseSums, class_errors
from fedlas.metrics.evaluation import compute_metrics, default_metrics, resolve_metrics
from fedlas.metrics.metric import Metric, lacks_inputs
from fedlas.predictions.any_predictions import (
    AnyPredictions,
    PredictionTable,
    require_predictions,
    require_top_label,
)
from fedlas.stats.bootstrap import calibration_error_interval, is_nonnegative_error, metric_interval
from fedlas.stats.cell_bias import metric_bias_bounds
from fedlas.stats.draws import BY_CLASS, bootstrap_and_null_values, prepare_rows
from fedlas.stats.intervals import (
    auroc_interval,
    check_bootstrap_options,
    check_confidence_level,
    metric_influence,
    min_replicates,
    normal_interval,
    standard_error,
)
from fedlas.stats.joint import GAP_STATISTICS, NullReplicates, observed_gap_statistics
from fedlas.stats.noise_floor import least_p, p_value
from fedlas.stats.result_table import ResultTable
from fedlas.stats.rows import ClassBlockSums, Rows, confidence_quantity, probs_quantity

if TYPE_CHECKING:
    from fedlas._core.types import FloatArray
    from fedlas.predictions import Predictions

RESAMPLING = "consistency resampling"
"""Name of the test whose replicates draw labels from the model's probabilities."""


@dataclass(frozen=True)
class Estimate:
    """A metric's value on one test set, with its interval and, if it is tested, its noise floor and p-value.

    Attributes:
        value: The number itself, from all samples.
        low: Lower end of its bootstrap interval.
        high: Upper end.
        floor: Its mean for a perfectly calibrated model with the same confidences; None for what is no calibration
            error.
        p: P-value of the test that the model is calibrated, in ``[0, 1]``; None where there is no such test.
        least_p: The smallest p-value that so many replicates can give; None where there is no floor.
        replicates: How many there were, of the bootstrap and of the floor.
        confidence_level: Level of the interval.
        test: Name of the test that gave ``p``, such as ``"consistency resampling"`` or ``"Wald"``; empty without one.
        left_out: Number of samples that ``value`` leaves out since their probability is exactly 0 or 1, as the
            calibration slope does; None if none.
    """

    value: float
    low: float
    high: float
    floor: float | None = None
    p: float | None = None
    least_p: float | None = None
    replicates: int = 0
    confidence_level: float = CONFIDENCE_LEVEL
    test: str = ""
    left_out: int | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as a dict for JSON, without missing values."""
        return {name: value for name, value in vars(self).items() if value not in (None, "")}

    @classmethod
    @reject_other_content
    def from_dict(cls, content: Mapping[str, Any]) -> Estimate:
        """Return the estimate written by :meth:`to_dict`.

        Raises:
            InputError: If a number is missing, or is none.
        """
        optional = ("floor", "p", "least_p", "confidence_level", "left_out")
        there = [name for name in optional if content.get(name) is not None]
        numbers: dict[str, Any] = {
            name: check_number(name, content.get(name))
            for name in ("value", "low", "high", "replicates", *there)
        }
        numbers["replicates"] = int(numbers["replicates"])
        if numbers.get("left_out") is not None:
            numbers["left_out"] = int(numbers["left_out"])
        return cls(**numbers, test=str(content.get("test", "")))


class EstimateTable(ResultTable[str, Estimate]):
    """Estimates by name, and the joint p-value of all calibration tests.

    Attributes:
        tests: P-value of each test that ``joint_p`` joins, by name: those of the metrics, of mean confidence against
            accuracy (``"confidence"``), and of Spiegelhalter's z (``"spiegelhalter"``).
        joint_p: P-value in ``(0, 1]`` of the hypothesis that the model is calibrated, by all of these tests together:
            the min-p of Westfall and Young, see :func:`~fedlas.stats.joint_p_value`; None without a test.
        least_joint_p: The smallest that its replicates can give; None without a test.
    """

    tests: Mapping[str, float]
    joint_p: float | None
    least_joint_p: float | None

    @check_argument_types
    def __init__(
        self, content: Mapping[str, Estimate] | None = None, null: NullReplicates | None = None
    ) -> None:
        super().__init__(content or {})
        self.tests = {} if null is None else null.p_values()
        self.joint_p = None if null is None else null.joint_p()
        self.least_joint_p = None if null is None else null.least_p


@check_argument_types
def estimates(
    predictions: AnyPredictions | PredictionTable,
    metrics: Sequence[str] | None = None,
    *,
    num_bins: int = 15,
    confidence_level: float = CONFIDENCE_LEVEL,
    replicates: int = REPLICATES,
    seed: int = 0,
) -> EstimateTable:
    """Estimate metrics with bootstrap intervals, noise floors and calibration tests.

    Every number is what the metric's own function, :func:`~fedlas.stats.bootstrap_interval` and
    :func:`~fedlas.stats.noise_floor` return, but samples and labels are drawn once for all metrics. The ends of an
    interval of a metric in percent are at most 1.

    Args:
        predictions: Logits ``(N, C)`` and target ``(N,)``, or a ``TopLabel``; at least 2 samples.
        metrics: Registry names; None for those that :func:`~fedlas.evaluate` computes.
        num_bins: Bins of the metrics that have any, at least 1.
        confidence_level: Confidence level of the intervals, in ``(0, 1)``.
        replicates: Replicates of bootstrap and noise floor, at least 39 for level 0.95. From 8,192 samples or 4
            million probabilities on, they draw groups of rows, see :mod:`fedlas.stats.replicates`; with sample weights
            always rows.
        seed: The same seed draws the same samples and labels.

    Returns:
        Estimate by registry name, as a dict that a notebook shows as a table; ``to_frame()`` makes a data frame of it,
        and ``joint_p`` is one p-value of all its calibration tests.

    Raises:
        InputError: For an unknown metric, options out of range, too few replicates for the level, or fewer than 2
            samples.

    Note:
        The interval is over test sets, given the model; how much another training would differ only seeds can tell.
        A p-value that equals ``least_p`` is a bound: more replicates could make it smaller. One above the level does
        not show that the model is calibrated.

    Example:
        >>> import torch
        >>> from fedlas import Predictions
        >>> logits = 2 * torch.randn(2000, 5, generator=torch.Generator().manual_seed(0))
        >>> target = torch.multinomial(logits.softmax(1), 1, generator=torch.Generator().manual_seed(1)).squeeze(1)
        >>> table = estimates(Predictions(2 * logits, target), ["accuracy", "ece"], replicates=199)
        >>> table["ece"].low > table["ece"].floor > 0, table["ece"].p, table["accuracy"].floor
        (True, 0.005, None)
    """
    predictions = require_top_label(predictions)
    names = (
        [entry.name for entry in default_metrics(predictions)] if metrics is None else list(metrics)
    )
    return metric_and_class_estimates(
        predictions,
        names,
        num_bins=num_bins,
        confidence_level=confidence_level,
        replicates=replicates,
        seed=seed,
    )[0]


def class_estimates(
    predictions: Predictions,
    *,
    num_bins: int = 15,
    confidence_level: float = CONFIDENCE_LEVEL,
    replicates: int = REPLICATES,
    seed: int = 0,
) -> dict[int, Estimate]:
    """Return the ECE of every class's probability with interval, noise floor and calibration test.

    The ECE is that of :func:`~fedlas.metrics.calibration_by_class`, whose mean is the classwise ECE.

    Args:
        predictions: Logits ``(N, C)`` and target ``(N,)``, at least 2 samples.
        num_bins: Number of bins of equal width over ``[0, 1]``, at least 1.
        confidence_level: Confidence level in ``(0, 1)``.
        replicates: Replicates of bootstrap and floor, at least 39 for level 0.95.
        seed: The same seed draws the same samples and labels.

    Returns:
        One entry for each of the ``C`` classes, in their order. ``p`` is of the test that all probabilities of the
        class are those of the label.

    Raises:
        InputError: For options out of range, too few replicates for the level, or fewer than 2 samples.

    Note:
        All samples count for every class. One in twenty of the ``C`` p-values of a calibrated model is below 0.05:
        correct them, for instance by :func:`~fedlas.stats.holm`, before a class is singled out. No p-value is below
        ``1 / (1 + R)``, so that after Holm's correction none is below 0.05 with fewer than ``20 C`` replicates.

    Example:
        >>> import torch
        >>> from fedlas import Predictions
        >>> logits = 2 * torch.randn(800, 3, generator=torch.Generator().manual_seed(0))
        >>> target = torch.multinomial(logits.softmax(1), 1, generator=torch.Generator().manual_seed(1)).squeeze(1)
        >>> first = class_estimates(Predictions(logits, target), replicates=199)[0]
        >>> first.p > 0.05, first.low, first.floor > 0.01
        (True, 0.0, True)
    """
    predictions = require_predictions(predictions)
    return metric_and_class_estimates(
        predictions,
        [],
        num_bins=num_bins,
        by_class=True,
        confidence_level=confidence_level,
        replicates=replicates,
        seed=seed,
    )[1]


@run_single_threaded
def metric_and_class_estimates(
    predictions: AnyPredictions,
    metrics: Sequence[str],
    *,
    num_bins: int,
    confidence_level: float = CONFIDENCE_LEVEL,
    replicates: int = REPLICATES,
    by_class: bool = False,
    seed: int = 0,
    values: Mapping[str, float] | None = None,
    advance: Callable[[float], None] | None = None,
) -> tuple[EstimateTable, dict[int, Estimate]]:
    """Compute :func:`estimates` of ``metrics`` and, with ``by_class``, :func:`class_estimates` from the same draws."""
    check_bootstrap_options(
        confidence_level=confidence_level, replicates=replicates, seed=seed, method="auto"
    )
    rows = prepare_rows(predictions, num_bins)
    records = resolve_metrics(metrics, predictions)
    options: dict[str, Any] = {"replicates": replicates, "seed": seed}
    by_record = {
        entry.name: registered_estimate(
            entry, predictions, confidence_level=confidence_level, **options
        )
        for entry in records
        if entry.estimate is not None
    }
    others = [entry for entry in records if entry.name not in by_record]
    influences = {entry.name: metric_influence(entry, rows.predictions) for entry in others}
    entries = [entry for entry in others if influences[entry.name] is None]
    tested = [entry for entry in entries if is_calibration_error(entry.name)]
    if values is None:
        values = compute_metrics(predictions, others, num_bins)

    # What most need is computed in one pass.
    means = [metric.quantity for metric in entries if metric.quantity is not None]
    if not (by_class or ClasswiseSums in {metric.statistic for metric in entries}):
        rows.gather([*means, confidence_quantity])
    elif rows.has_many_rows:
        rows.gather([*means, confidence_quantity], ClassBlockSums)
    else:
        rows.gather([*means, confidence_quantity, probs_quantity])

    # Replicates of the metrics, and of what they would be if the model were calibrated.
    draws = 2 if tested or by_class else 1
    share = None if advance is None else lambda part: advance(part / draws)
    options |= {"by_class": by_class, "advance": share}
    samples, floors = bootstrap_and_null_values(
        rows, entries, tested, extra=GAP_STATISTICS if tested else {}, **options
    )

    def make_estimate(entry: Metric) -> Estimate:
        if entry.name in by_record:
            return by_record[entry.name]
        value = values[entry.name]
        influence = influences[entry.name]
        if influence is None:
            both = samples[entry.name], floors.get(entry.name)
            return _estimate_from_replicates(
                entry, rows, value, *both, confidence_level, metric_bias_bounds(entry, rows)
            )
        ends = auroc_interval(
            value,
            standard_error(influence, rows.predictions),
            influence,
            rows.target,
            clusters=rows.clusters,
            confidence_level=confidence_level,
        )
        return Estimate(value, *ends, confidence_level=confidence_level)

    table = EstimateTable(
        {entry.name: make_estimate(entry) for entry in records},
        _null_replicates(rows, tested, values, floors) if tested else None,
    )
    if not by_class:
        return table, {}
    classes = _per_class_estimates(
        rows, num_bins, samples[BY_CLASS], floors[BY_CLASS], confidence_level
    )
    return table, ResultTable(classes)


def registered_estimate(entry: Metric, predictions: AnyPredictions, **options: Any) -> Estimate:
    """Call the metric's own ``estimate`` function, with those options that it accepts."""
    function: Any = entry.estimate
    accepted = inspect.signature(function).parameters.keys()
    estimate: Estimate = function(
        predictions, **{key: value for key, value in options.items() if key in accepted}
    )
    return estimate


def _per_class_estimates(
    rows: Rows,
    num_bins: int,
    replicates: FloatArray,
    null_replicates: FloatArray,
    confidence_level: float,
) -> dict[int, Estimate]:
    """Return the estimate of each class from the columns of ``replicates`` and ``null_replicates``."""
    from fedlas.metrics.groups import calibration_by_class
    from fedlas.stats.cell_bias import class_bias_upper_bounds

    entry = METRICS["classwise_ece"]
    biases = class_bias_upper_bounds(rows, class_errors)
    classes = calibration_by_class(rows.multiclass_predictions, num_bins=num_bins)
    return {
        k: _estimate_from_replicates(
            entry,
            rows,
            each.ece,
            replicates[:, k],
            null_replicates[:, k],
            confidence_level,
            (0.0, biases[k]),
        )
        for k, each in classes.items()
    }


def _null_replicates(
    rows: Rows,
    entries: Sequence[Metric],
    values: Mapping[str, float],
    null_values: Mapping[str, FloatArray],
) -> NullReplicates:
    """Return observed and null values of the metrics, of mean confidence and of Spiegelhalter's z."""
    null = NullReplicates()
    for entry in entries:
        two_sided = entry.higher_is_better is None
        null.add(entry.name, values[entry.name], null_values[entry.name], two_sided=two_sided)
    for name, statistic in observed_gap_statistics(rows).items():
        null.add(name, statistic, null_values[name])
    return null


def _estimate_from_replicates(
    entry: Metric,
    rows: Rows,
    value: float,
    replicates: FloatArray,
    null_replicates: FloatArray | None,
    confidence_level: float,
    bias: tuple[float, float],
) -> Estimate:
    """Return an estimate from bootstrap replicates and, for a calibration error, null replicates ``(R,)``."""
    if is_nonnegative_error(entry):
        interval = calibration_error_interval(
            value,
            replicates,
            null_replicates,
            confidence_level=confidence_level,
            bias=bias,
            degrees=rows.degrees,
        )
    else:
        interval = metric_interval(
            entry, rows, value, replicates, confidence_level=confidence_level, method="auto"
        )
    # A moved end can lie beyond what a fraction can be; to cut it off there loses no coverage.
    high = min(interval.high, 1.0) if entry.percent else interval.high
    options: dict[str, Any] = {"replicates": len(replicates), "confidence_level": confidence_level}
    if null_replicates is None:
        return Estimate(value, interval.low, high, **options)
    alternative = "different" if entry.higher_is_better is None else "worse"
    p = p_value(entry, value, null_replicates, alternative)
    least = least_p(len(null_replicates), alternative)
    return Estimate(
        value,
        interval.low,
        high,
        float(null_replicates.mean()),
        p,
        least,
        test=RESAMPLING,
        **options,
    )


def unit_interval_estimate(
    value: float, error: float, confidence_level: float, degrees: float = math.inf
) -> Estimate:
    """Return a value in ``[0, 1]`` with its normal interval, or Student's t interval with few clusters."""
    ends = normal_interval(value, error, confidence_level=confidence_level, degrees=degrees)
    low = max(ends.low, 0.0)
    return Estimate(value, low, min(ends.high, 1.0), confidence_level=confidence_level)


def check_replicates(replicates: int, confidence_level: float = CONFIDENCE_LEVEL) -> None:
    """Raise InputError unless ``replicates`` is 0, or a whole number that suffices for intervals of this level."""
    check_confidence_level(confidence_level)
    least = min_replicates(confidence_level)
    if 0 < check_count("replicates", replicates, low=0) < least:
        raise InputError(
            f"replicates must be 0 or at least {least} for {100 * confidence_level:g} % intervals",
            replicates,
            "Pass more, such as 1000, or 0 for no intervals.",
        )


def is_calibration_error(metric: str) -> bool:
    """Return whether a calibrated model has 0 of ``metric`` up to sampling noise, so that a noise floor is defined.

    Those of an event have floors and tests of their own, in :func:`fedlas.binary.measures`.

    Example:
        >>> [name for name in ("accuracy", "ece", "classwise_ece", "debiased_ece2") if is_calibration_error(name)]
        ['ece', 'classwise_ece', 'debiased_ece2']
    """
    entry = METRICS.get(metric)
    if entry is None or entry.subject == "event":
        return False
    return is_nonnegative_error(entry) or entry.higher_is_better is None


def available_metrics(metrics: Sequence[str], predictions: AnyPredictions) -> list[str]:
    """Return the registered ``metrics`` that can be computed from ``predictions``."""
    entries = zip(metrics, map(METRICS.get, metrics), strict=True)
    return [
        name for name, each in entries if each is not None and not lacks_inputs(each, predictions)
    ]
