"""Bootstrap optimism: how much a metric on the training samples overstates performance on new samples."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from fedlas._core.check import InputError, check_count, describe
from fedlas._core.kinds import check_argument_types
from fedlas.metrics.evaluation import compute_metrics, resolve_metrics
from fedlas.predictions import Predictions
from fedlas.predictions.sample_values import cluster_codes
from fedlas.stats.degrees import degrees_of_freedom
from fedlas.stats.intervals import check_confidence_level, interval_from_replicates, min_replicates
from fedlas.stats.result_table import ResultTable
from fedlas.stats.two_models import COMPARED, COMPARED_EVENTS

if TYPE_CHECKING:
    from fedlas._core.types import FloatArray


@dataclass(frozen=True)
class Optimism:
    """A metric on the training samples, its bootstrap optimism, and the corrected value.

    Attributes:
        apparent: The metric on the samples that the model was fitted on.
        optimism: Mean over refits of the metric on the refit's own samples less that on all samples.
        corrected: ``apparent - optimism``: what to expect on other samples.
        low: Lower end of its interval.
        high: Upper end.
        replicates: Number of refits.
    """

    apparent: float
    optimism: float
    corrected: float
    low: float
    high: float
    replicates: int


@check_argument_types
def optimism(
    fit: Callable[[Any, Any], Any],
    X: Any,  # noqa: N803 (as scikit-learn names it)
    y: Any,
    *,
    metrics: Sequence[str] | None = None,
    clusters: Any = None,
    confidence_level: float = 0.95,
    replicates: int = 200,
    seed: int = 0,
) -> ResultTable[str, Optimism]:
    """Correct metrics measured on the training samples for optimism, by Harrell's bootstrap.

    Each replicate draws samples with replacement, fits the model on them, and compares its metrics on them with those
    on all samples. The mean difference is what the fit gains by knowing the samples; the model of all samples gains as
    much. Everything that the data decide belongs into ``fit``: the choice of variables, tuning, a calibrator.

    Args:
        fit: Called with rows of ``X`` and ``y``; returns a function from rows to probabilities ``(n,)`` of class 1 or
            ``(n, C)``, or a fitted scikit-learn classifier with ``predict_proba``.
        X: Inputs ``(N, ...)``: an array or a pandas DataFrame.
        y: Labels ``(N,)``, whole numbers from 0.
        metrics: Registry names; None for AUROC, NLL, Brier score and ECE of the event, or of more than two
            classes accuracy, NLL, Brier score and ECE.
        clusters: Cluster of each sample ``(N,)``, such as its patient: they are drawn whole; None draws samples.
        confidence_level: Level of the intervals, in ``(0, 1)``.
        replicates: Number of refits, at least 39 for level 0.95.
        seed: The same seed draws the same samples.

    Returns:
        Optimism by registry name, as a dict that a notebook shows as a table.

    Raises:
        InputError: If ``X``, ``y`` and ``clusters`` do not fit each other, or options are out of range.

    Note:
        The interval has the spread of the refits' metrics on their own samples, moved about the corrected value
        (location-shifted bootstrap, Noma et al. 2021). A draw without one of the classes is drawn again. Outcomes that
        are censored, such as times to an event, are not dealt with.

    Example:
        >>> from sklearn.linear_model import LogisticRegression
        >>> random = np.random.default_rng(0)
        >>> X = random.standard_normal((120, 20))
        >>> y = (random.random(120) < 1 / (1 + np.exp(-X[:, 0]))).astype(int)
        >>> found = optimism(LogisticRegression(C=100.0).fit, X, y, metrics=["auroc"], replicates=39)["auroc"]
        >>> found.apparent > found.corrected
        True

    Source:
        Harrell, Lee and Mark, "Multivariable prognostic models", Statistics in Medicine 15 (1996); Noma et al.,
        "Confidence intervals of prediction accuracy measures for multivariable prediction models based on the
        bootstrap-based optimism correction methods", Statistics in Medicine 40 (2021).
    """
    check_confidence_level(confidence_level)
    check_count("replicates", replicates, low=min_replicates(confidence_level))
    check_count("seed", seed, low=0)
    labels = np.asarray(y)
    if labels.ndim != 1 or len(labels) != len(X) or labels.dtype.kind not in "iub":
        raise InputError(
            f"y must have shape ({len(X)},) and hold class indices from 0",
            describe(y),
            "Pass one class index per row of X.",
        )
    units = (
        np.arange(len(labels))
        if clusters is None
        else np.unique(cluster_codes(clusters, len(labels)), return_inverse=True)[1]
    )
    degrees = degrees_of_freedom(np.ones(len(units)), None if clusters is None else units)
    # The model of all samples, on these samples.
    classes = int(labels.max()) + 1
    default_metrics = COMPARED_EVENTS if classes == 2 else COMPARED
    first = _predict(fit(X, labels), X, labels)
    entries = resolve_metrics(default_metrics if metrics is None else metrics, first)
    apparent = compute_metrics(first, entries, 15)

    # Refits: their metrics on their own samples, and on all.
    random = np.random.default_rng(seed)
    rows_by_unit = [np.flatnonzero(units == unit) for unit in range(int(units.max()) + 1)]
    inside_values: dict[str, list[float]] = {entry.name: [] for entry in entries}
    gains: dict[str, list[float]] = {entry.name: [] for entry in entries}
    for _ in range(replicates):
        rows = _draw_rows(rows_by_unit, labels, classes, random)
        part = _take_rows(X, rows)
        model = fit(part, labels[rows])
        inside = compute_metrics(_predict(model, part, labels[rows]), entries, 15)
        outside = compute_metrics(_predict(model, X, labels), entries, 15)
        for name, value in inside.items():
            inside_values[name].append(value)
            gains[name].append(value - outside[name])
    table: ResultTable[str, Optimism] = ResultTable()
    for name, value in apparent.items():
        gain = float(np.mean(gains[name]))
        ends = interval_from_replicates(
            value,
            np.array(inside_values[name]),
            confidence_level=confidence_level,
            method="centered",
            degrees=degrees,
        )
        table[name] = Optimism(
            value, gain, value - gain, ends.low - gain, ends.high - gain, replicates
        )
    return table


def _draw_rows(
    rows_by_unit: Sequence[Any], labels: Any, num_classes: int, random: np.random.Generator
) -> Any:
    """Return the row indices of units drawn with replacement, drawn again until every class occurs."""
    while True:
        rows = np.concatenate(
            [
                rows_by_unit[unit]
                for unit in random.integers(len(rows_by_unit), size=len(rows_by_unit))
            ]
        )
        if len(np.unique(labels[rows])) == min(num_classes, len(np.unique(labels))):
            return rows


def _take_rows(X: Any, rows: Any) -> Any:  # noqa: N803
    return X.iloc[rows] if hasattr(X, "iloc") else np.asarray(X)[rows]


def _predict(model: Any, X: Any, labels: Any) -> Predictions:  # noqa: N803
    """Return the model's predictions for the rows of ``X``."""
    probs: FloatArray = np.asarray(
        model.predict_proba(X) if hasattr(model, "predict_proba") else model(X)
    )
    return Predictions.from_probs(probs, labels)
