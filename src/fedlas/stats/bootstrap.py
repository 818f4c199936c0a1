"""Bootstrap confidence intervals of metrics over the samples of one test set."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from fedlas._core.kinds import check_argument_types
from fedlas.metrics.evaluation import compute_metrics, default_metrics, resolve_metrics
from fedlas.metrics.metric import Metric, resolve_metric
from fedlas.predictions.any_predictions import AnyPredictions, require_top_label
from fedlas.stats.cell_bias import metric_bias_bounds
from fedlas.stats.draws import DrawPurpose, metrics_over_replicates, prepare_rows
from fedlas.stats.intervals import (
    Bounds,
    Interval,
    check_bootstrap_options,
    floor_corrected_interval,
    interval_from_replicates,
)
from fedlas.stats.noise_floor import is_significant, monte_carlo_p_value
from fedlas.stats.proportion import clopper_pearson, weighted_share_interval
from fedlas.stats.tables import row_hits

if TYPE_CHECKING:
    from fedlas._core.types import FloatArray
    from fedlas.predictions import Predictions, TopLabel
    from fedlas.stats.rows import Rows


def bootstrap_interval(
    predictions: Predictions | TopLabel,
    *,
    metric: str = "ece",
    confidence_level: float = 0.95,
    replicates: int = 1000,
    seed: int = 0,
    num_bins: int = 15,
    method: str = "auto",
) -> Interval:
    """Compute a bootstrap confidence interval of a metric, over the samples of one test set.

    Each replicate draws ``N`` samples with replacement and computes the metric of them. What varies is the test set;
    the model is given. How much another *training* would differ only seeds can tell: see
    :func:`~fedlas.stats.compare_to_best`.

    Args:
        predictions: Logits ``(N, C)`` and target ``(N,)``, or a ``TopLabel``; at least 2 samples.
        metric: Name of a registered metric.
        confidence_level: Confidence level in ``(0, 1)``.
        replicates: Number of replicates; at least 39 for level 0.95, and a thousand for steady ends.
        seed: The same seed draws the same samples, for every metric and every model on the same number of samples.
        num_bins: Bins of the metrics that have any.
        method: No matter for a share of samples, such as accuracy: that has the exact interval of Clopper and Pearson,
            or with weights Wilson's of an effective number of samples.
            ``"percentile"``, ``"basic"``, ``"centered"`` (see Note), or ``"auto"``: the basic interval where the
            bootstrap finds a bias of more than a quarter of a standard error, else the percentile interval; of metrics
            registered as ``unbiased`` the centered one. For calibration errors, which are 0 for a calibrated model, the
            upper end is not moved down by any bias, the lower one by what the noise floor allows for, and it is 0
            unless :func:`~fedlas.stats.noise_floor` rejects calibration at ``1 - confidence_level``.

    Returns:
        The interval, with the bootstrap's estimates of bias and standard error. ``value`` is what the metric's own
        function returns.

    Raises:
        InputError: For an unknown metric, options out of range, too few replicates for the level, or fewer than 2
            samples.

    Note:
        ``results/coverage.md`` has how often intervals hold the truth, by method, and where the bootstrap fails.

        A calibration error is biased upward, and its replicates are so twice: they resample the labels' chance that
        is in the sample already. Near calibration all of them lie above the truth, so no interval between two of them
        can hold it, neither percentile nor BCa (0.00 as well). How large the bias is depends on the truth: from the
        noise floor of a calibrated model to nothing where all gaps are larger than chance. So each end of ``"auto"``
        stands for the bias that moves it further out, see :func:`fedlas.stats.intervals.floor_corrected_interval`.

        An unbiased estimator has replicates that are biased all the same, for that reason: they estimate the square of
        a gap with chance in it. The debiased square's are moved back about its value. There is too much chance in them
        near calibration, so that its intervals are wider than they need be there.

        With weights, rows are drawn with theirs, and each replicate is normalized by its own sum: so the interval is
        for the mean over the population that the weights describe, as sure as
        :func:`~fedlas.stats.effective_sample_size` says, and takes
        the weights as known. Rows of weight 0 are left out first.

        All metrics of this library are computed for many replicates at a time. So is one that you registered yourself
        if it is a mean over samples (``quantity=`` of its record); any other is called on one resampled
        :class:`~fedlas.Predictions` after another.

    Example:
        >>> import torch
        >>> from fedlas import Predictions
        >>> logits = torch.randn(500, 3, generator=torch.Generator().manual_seed(0))
        >>> interval = bootstrap_interval(Predictions(logits, logits.argmax(1)), metric="accuracy")
        >>> interval.value, interval.low, interval.high
        (1.0, 0.9926..., 1.0)

    Source:
        Efron & Tibshirani, "An Introduction to the Bootstrap" (1993), chapters 10 and 13; Davison & Hinkley, "Bootstrap
        Methods and their Application" (1997), section 5.2, for the basic interval.
    """
    entry = resolve_metric(metric, require_top_label(predictions))
    return _compute_intervals(
        predictions,
        [entry],
        confidence_level=confidence_level,
        replicates=replicates,
        seed=seed,
        num_bins=num_bins,
        method=method,
    )[entry.name]


@check_argument_types
def bootstrap_intervals(
    predictions: Predictions | TopLabel,
    *,
    metrics: Sequence[str] | None = None,
    confidence_level: float = 0.95,
    replicates: int = 1000,
    seed: int = 0,
    num_bins: int = 15,
    method: str = "auto",
) -> dict[str, Interval]:
    """Compute bootstrap confidence intervals of several metrics from the same replicates.

    Args:
        predictions: Logits ``(N, C)`` and target ``(N,)``, or a ``TopLabel``; at least 2 samples.
        metrics: Names of registered metrics; None for those that :func:`~fedlas.evaluate` computes.
        confidence_level: As in :func:`bootstrap_interval`.
        replicates: As in :func:`bootstrap_interval`.
        seed: As in :func:`bootstrap_interval`.
        num_bins: As in :func:`bootstrap_interval`.
        method: As in :func:`bootstrap_interval`.

    Returns:
        Interval by metric name.

    Raises:
        InputError: As in :func:`bootstrap_interval`.

    Example:
        >>> from fedlas import Predictions
        >>> p = Predictions([[2.0, 0.0], [0.0, 1.0], [3.0, 0.0], [0.0, 0.5]], [0, 0, 0, 1])
        >>> accuracy = bootstrap_intervals(p, metrics=["accuracy", "nll"], replicates=99)["accuracy"]
        >>> accuracy.value, accuracy.low, accuracy.high
        (0.75, 0.1941..., 0.9936...)
    """
    predictions = require_top_label(predictions)
    entries = (
        default_metrics(predictions) if metrics is None else resolve_metrics(metrics, predictions)
    )
    return _compute_intervals(
        predictions,
        entries,
        confidence_level=confidence_level,
        replicates=replicates,
        seed=seed,
        num_bins=num_bins,
        method=method,
    )


def _compute_intervals(
    predictions: AnyPredictions,
    entries: Sequence[Metric],
    *,
    confidence_level: float,
    replicates: int,
    seed: int,
    num_bins: int,
    method: str,
) -> dict[str, Interval]:
    check_bootstrap_options(
        confidence_level=confidence_level, replicates=replicates, seed=seed, method=method
    )
    rows = prepare_rows(predictions, num_bins)
    values = compute_metrics(predictions, entries, num_bins)
    samples = metrics_over_replicates(
        DrawPurpose.BOOTSTRAP, rows, entries, replicates=replicates, seed=seed
    )
    errors = [entry for entry in entries if method == "auto" and is_nonnegative_error(entry)]

    # The floor can only lower what is above 0, so it is drawn for no other metric.
    def has_positive_low(name: str) -> bool:
        return (
            floor_corrected_interval(
                values[name],
                samples[name],
                floor=0.0,
                confidence_level=confidence_level,
                degrees=rows.degrees,
            ).low
            > 0
        )

    above = [entry for entry in errors if has_positive_low(entry.name)]
    floors = metrics_over_replicates(
        DrawPurpose.NOISE_FLOOR, rows, above, replicates=replicates, seed=seed
    )
    biases = {entry.name: metric_bias_bounds(entry, rows) for entry in errors}

    def make_interval(entry: Metric) -> Interval:
        value = values[entry.name]
        replicate_values = samples[entry.name]
        if entry not in errors:
            return metric_interval(
                entry,
                rows,
                value,
                replicate_values,
                confidence_level=confidence_level,
                method=method,
            )
        bias = biases.get(entry.name, (0.0, 0.0))
        return calibration_error_interval(
            value,
            replicate_values,
            floors.get(entry.name),
            confidence_level=confidence_level,
            bias=bias,
            degrees=rows.degrees,
        )

    return {entry.name: make_interval(entry) for entry in entries}


def is_nonnegative_error(entry: Metric) -> bool:
    """Return whether the metric is a calibration error: never negative, and 0 for a calibrated model as ``N`` grows."""
    return bool(entry.zero_if_calibrated)


def calibration_error_interval(
    value: float,
    replicates: FloatArray,
    null_replicates: FloatArray | None,
    *,
    confidence_level: float,
    bias: Bounds = (0.0, 0.0),
    degrees: float = math.inf,
) -> Interval:
    """Return the interval of a calibration error; its lower end is 0 unless calibration is rejected at that level."""
    rejected = null_replicates is not None and is_significant(
        monte_carlo_p_value(null_replicates, value), 1.0 - confidence_level
    )
    floor = float(null_replicates.mean()) if null_replicates is not None else 0.0
    interval = floor_corrected_interval(
        value,
        replicates,
        floor=floor,
        confidence_level=confidence_level,
        bias=bias,
        degrees=degrees,
    )
    return replace(interval, low=max(0.0, interval.low) if rejected else 0.0)


def metric_interval(
    entry: Metric,
    rows: Rows,
    value: float,
    replicates: FloatArray,
    *,
    confidence_level: float,
    method: str,
) -> Interval:
    """Return the interval of a metric that is no calibration error; a proportion gets an exact or Wilson interval."""
    if (hits := row_hits(entry, rows)) is not None:
        # Replicates of samples that are all right are all right, too, and leave no room for a mistake.
        interval = interval_from_replicates(
            value,
            replicates,
            confidence_level=confidence_level,
            method="percentile",
            degrees=rows.degrees,
        )
        if not rows.is_iid:
            low, high = weighted_share_interval(
                hits, rows.weights, rows.clusters, confidence_level=confidence_level
            )
            return replace(interval, low=low, high=high, method="wilson")
        low, high = clopper_pearson(int(hits.sum()), len(hits), confidence_level=confidence_level)
        return replace(interval, low=low, high=high, method="exact")
    # "auto" finds a bias in the replicates of an unbiased estimator, which is theirs alone: not the value's.
    centered = method == "auto" and entry.unbiased
    return interval_from_replicates(
        value,
        replicates,
        confidence_level=confidence_level,
        method="centered" if centered else method,
        degrees=rows.degrees,
    )
