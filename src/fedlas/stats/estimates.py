"""How much of a metric is noise: its value with an interval over the samples, and what it would be if calibrated."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from functools import partial
from typing import Any

import numpy as np

from fedlas._core.check import InputError, check_number
from fedlas.metrics import METRICS, evaluate
from fedlas.metrics.base import AnyOnePass, MetricEntry
from fedlas.metrics.classwise import ClasswiseSums, errors_by_class
from fedlas.metrics.evaluate import lacking, values_of
from fedlas.metrics.groups import calibration_by_class
from fedlas.predictions import Predictions, TopLabel
from fedlas.predictions.predictions import AnyPredictions, check_measurable, check_predictions
from fedlas.stats.bootstrap import error_interval, is_error, plain_interval
from fedlas.stats.cell_bias import cell_bias, class_bias
from fedlas.stats.draws import MANY_PROBS, rows_for, values_in_both
from fedlas.stats.intervals import ALPHA, check_bootstrap, fewest_replicates
from fedlas.stats.noise_floor import least_p, p_value
from fedlas.stats.replicates import Replicates
from fedlas.stats.rows import Floats, Rows, confidence_of, probs_of
from fedlas.stats.tables import class_table, mean_quantity, replicate_values

REPLICATES = 1000
"""Replicates of every interval and every noise floor, where nothing else is asked for."""
COSTLY = {"smooth_ece": 99}
"""At most so many replicates of metrics that take a hundred times as long as the others on small test sets."""
MANY_CLASS_REPLICATES = 99
"""At most so many replicates of metrics of every class's probability from :data:`MANY_PROBS` probabilities on."""
CONFIDENCE_LEVEL = 1.0 - ALPHA
"""Level of the intervals."""


@dataclass(frozen=True)
class Estimate:
    """A number from one test set, and how much of it is chance.

    Attributes:
        value: The number itself, from all samples.
        low: Lower end of its bootstrap interval.
        high: Upper end.
        floor: Its mean for a perfectly calibrated model with the same confidences; None for what is no calibration
            error.
        p: P-value of the test that the model is calibrated, in ``(0, 1]``; None where there is no floor.
        least_p: The smallest p-value that so many replicates can give; None where there is no floor.
        replicates: How many there were, of the bootstrap and of the floor.
    """

    value: float
    low: float
    high: float
    floor: float | None = None
    p: float | None = None
    least_p: float | None = None
    replicates: int = 0

    def plain(self) -> dict[str, float]:
        """Its numbers by name, as JSON has them; without those that there are not."""
        return {name: value for name, value in asdict(self).items() if value is not None}

    @classmethod
    def of(cls, content: Mapping[str, Any]) -> Estimate:
        """What :meth:`plain` returned.

        Raises:
            InputError: If a number is missing, or is none.
        """
        optional = ("floor", "p", "least_p")
        names = [each.name for each in fields(cls) if each.name not in optional or content.get(each.name) is not None]
        numbers: dict[str, Any] = {name: check_number("Estimate", name, content.get(name)) for name in names}
        return cls(**{**numbers, "replicates": int(numbers["replicates"])})


def estimates(
    predictions: Predictions | TopLabel,
    metrics: Sequence[str] | None = None,
    *,
    num_bins: int = 15,
    confidence_level: float = CONFIDENCE_LEVEL,
    replicates: int = REPLICATES,
    seed: int = 0,
) -> dict[str, Estimate]:
    """Metrics with their bootstrap intervals, noise floors and calibration tests.

    Every number is what the metric's own function, :func:`~fedlas.stats.bootstrap_interval` and
    :func:`~fedlas.stats.noise_floor` return, but samples and labels are drawn once for all metrics. The ends of an
    interval of a metric in percent are at most 1.

    Args:
        predictions: Logits ``(N, C)`` and target ``(N,)``, or a ``TopLabel``; at least 2 samples.
        metrics: Registry names; None for those that :func:`~fedlas.evaluate` computes.
        num_bins: Bins of the metrics that have any, at least 1.
        confidence_level: Confidence level of the intervals, in ``(0, 1)``.
        replicates: Of the bootstrap and of the noise floor, at least 39 for level 0.95. What takes long has fewer at
            that level: the smooth ECE 99, and so has the classwise ECE from 8 million probabilities on.
        seed: The same seed draws the same samples and labels.

    Returns:
        Estimate by registry name.

    Raises:
        InputError: For an unknown metric, options out of range, too few replicates for the level, or fewer than 2
            samples.

    Note:
        The interval is over test sets, given the model; how much another training would differ only seeds can tell.
        A p-value that equals ``least_p`` is a bound: more replicates could make it smaller. One above the level does
        not show that the model is calibrated.

    Example:
        >>> import torch
        >>> logits = 2 * torch.randn(2000, 5, generator=torch.Generator().manual_seed(0))
        >>> target = torch.multinomial(logits.softmax(1), 1, generator=torch.Generator().manual_seed(1)).squeeze(1)
        >>> found = estimates(Predictions(2 * logits, target), ["accuracy", "ece"], replicates=199)
        >>> found["ece"].low > found["ece"].floor > 0, found["ece"].p, found["accuracy"].floor
        (True, 0.005, None)
    """
    check_measurable("estimates", predictions)
    values = evaluate(predictions, num_bins=num_bins) if metrics is None else None
    names = list(values or ()) if metrics is None else list(metrics)
    options: dict[str, Any] = {
        "num_bins": num_bins,
        "confidence_level": confidence_level,
        "replicates": replicates,
        "seed": seed,
    }
    return estimated("estimates", predictions, names, values=values, **options)[0]


def class_estimates(
    predictions: Predictions,
    *,
    num_bins: int = 15,
    confidence_level: float = CONFIDENCE_LEVEL,
    replicates: int = REPLICATES,
    seed: int = 0,
) -> dict[int, Estimate]:
    """The ECE of every class's probability with its interval, noise floor and calibration test.

    The ECE is that of :func:`~fedlas.metrics.calibration_by_class`, whose mean is the classwise ECE.

    Args:
        predictions: Logits ``(N, C)`` and target ``(N,)``, at least 2 samples.
        num_bins: Number of bins of equal width over ``[0, 1]``, at least 1.
        confidence_level: Confidence level in ``(0, 1)``.
        replicates: Of the bootstrap and of the floor, at least 39 for level 0.95.
        seed: The same seed draws the same samples and labels.

    Returns:
        One entry for each of the ``C`` classes, in their order. ``p`` is of the test that all probabilities of the
        class are those of the label.

    Raises:
        InputError: For options out of range, too few replicates for the level, or fewer than 2 samples.

    Note:
        All samples count for every class. Of ``C`` p-values of a calibrated model one in twenty is below 0.05: correct
        them, for instance by :func:`~fedlas.stats.holm`, before a class is singled out. No p-value is below
        ``1 / (1 + R)``, so that after Holm's correction none is below 0.05 with fewer than ``20 C`` replicates.

    Example:
        >>> import torch
        >>> logits = 2 * torch.randn(800, 3, generator=torch.Generator().manual_seed(0))
        >>> target = torch.multinomial(logits.softmax(1), 1, generator=torch.Generator().manual_seed(1)).squeeze(1)
        >>> found = class_estimates(Predictions(logits, target), replicates=199)[0]
        >>> found.p > 0.05, found.low, found.floor > 0.01
        (True, 0.0, True)
    """
    check_predictions("class_estimates", predictions)
    options: dict[str, Any] = {
        "num_bins": num_bins,
        "confidence_level": confidence_level,
        "replicates": replicates,
        "seed": seed,
    }
    return estimated("class_estimates", predictions, [], class_replicates=replicates, **options)[1]


def estimated(
    owner: str,
    predictions: AnyPredictions,
    metrics: Sequence[str],
    *,
    num_bins: int,
    confidence_level: float = CONFIDENCE_LEVEL,
    replicates: int = REPLICATES,
    class_replicates: int = 0,
    seed: int = 0,
    values: Mapping[str, float] | None = None,
    advance: Callable[[float], None] | None = None,
) -> tuple[dict[str, Estimate], dict[int, Estimate]]:
    """:func:`estimates` of ``metrics`` and :func:`class_estimates`, from the same draws.

    Args:
        owner: Who asks, for errors.
        predictions: As there, and so are the others.
        metrics: Registry names.
        num_bins: As there.
        confidence_level: As there.
        replicates: As there.
        class_replicates: Of the classes, at most ``replicates``; 0 leaves them out.
        seed: As there.
        values: The metrics, if they have been computed.
        advance: Called with the share of the work that has been done since the last call; all calls add up to 1.
    """
    check_bootstrap(owner, confidence_level=confidence_level, replicates=replicates, seed=seed, method="auto")
    rows = rows_for(owner, predictions, num_bins)
    entries = {name: METRICS[name] for name in dict.fromkeys(metrics)}
    if values is None:
        values = values_of(predictions, list(entries.values()), num_bins)
    # What most need is computed in one pass.
    means = [quantity for entry in entries.values() if (quantity := mean_quantity(entry, rows))]
    classwise = [name for name, entry in entries.items() if _is_by_class(entry)]
    rows.gather([*means, confidence_of, *([probs_of] if class_replicates or classwise else [])])

    forms: dict[str | None, tuple[Callable[[Replicates], Floats], int]] = {
        name: (
            partial(replicate_values, entry),
            max(_at_most(entry, rows, replicates), fewest_replicates(confidence_level)),
        )
        for name, entry in entries.items()
    }
    if class_replicates:
        forms[None] = (_errors_by_class, min(class_replicates, replicates))
    tested = {name: form for name, form in forms.items() if name is None or is_calibration_error(name)}
    total = sum(max((drawn for _, drawn in each.values()), default=0) for each in (forms, tested))

    count = (lambda drawn: advance(drawn / total)) if advance is not None else (lambda _drawn: None)
    options: dict[str, Any] = {"seed": seed, "narrow": {*entries} - {*classwise}, "advance": count}
    samples, floors = values_in_both(rows, forms, tested, **options)
    found = {
        name: _estimate(
            entry, rows, values[name], samples[name], floors.get(name), confidence_level, cell_bias(entry, rows)
        )
        for name, entry in entries.items()
    }
    classes = calibration_by_class(rows.of_all_classes, num_bins=num_bins) if class_replicates else {}
    of_class = METRICS["classwise_ece"]
    biases = class_bias(rows, errors_by_class) if class_replicates else np.empty(0)
    return found, {
        label: _estimate(
            of_class, rows, row.ece, samples[None][:, label], floors[None][:, label], confidence_level, biases[label]
        )
        for label, row in classes.items()
    }


def _at_most(entry: MetricEntry, rows: Rows, replicates: int) -> int:
    many = _is_by_class(entry) and rows.num_samples * rows.num_classes > MANY_PROBS
    return min(replicates, COSTLY.get(entry.name, replicates), MANY_CLASS_REPLICATES if many else replicates)


def _is_by_class(entry: MetricEntry) -> bool:
    one_pass: AnyOnePass | None = entry.metadata.get("one_pass")
    return one_pass is not None and one_pass.statistic is ClasswiseSums


def _errors_by_class(block: Replicates) -> Floats:
    return errors_by_class(block.table(class_table).table())


def _estimate(
    entry: MetricEntry,
    rows: Rows,
    value: float,
    samples: Floats,
    floors: Floats | None,
    confidence_level: float,
    bias: float,
) -> Estimate:
    """From bootstrap replicates and, for a calibration error, values for a calibrated model ``(R,)``."""
    if is_error(entry):
        interval = error_interval(value, samples, floors, confidence_level=confidence_level, bias=bias)
    else:
        interval = plain_interval(entry, rows, value, samples, confidence_level=confidence_level, method="auto")
    # A moved end can lie beyond what a fraction can be; to cut it off there loses no coverage.
    high = min(interval.high, 1.0) if entry.metadata["percent"] else interval.high
    if floors is None:
        return Estimate(value, interval.low, high, replicates=len(samples))
    alternative = "different" if entry.metadata["higher_is_better"] is None else "worse"
    p, least = p_value(entry, value, floors, alternative), least_p(len(floors), alternative)
    return Estimate(value, interval.low, high, float(floors.mean()), p, least, len(samples))


def check_replicates(owner: str, replicates: int) -> None:
    """Check a number of replicates before anything long begins.

    Raises:
        InputError: If it is neither 0 nor enough for an interval.
    """
    least = fewest_replicates(CONFIDENCE_LEVEL)
    if replicates and replicates < least:
        raise InputError(
            owner,
            f"replicates must be 0 or at least {least} for {100 * CONFIDENCE_LEVEL:g} % intervals",
            replicates,
            "Ask for more, such as 1000, or for none with 0.",
        )


def is_calibration_error(metric: str) -> bool:
    """Whether a calibrated model has 0 of ``metric``, but for chance, so that it has a noise floor.

    Example:
        >>> [name for name in ("accuracy", "ece", "classwise_ece", "debiased_ece2") if is_calibration_error(name)]
        ['ece', 'classwise_ece', 'debiased_ece2']
    """
    if metric not in METRICS:
        return False
    return is_error(METRICS[metric]) or METRICS[metric].metadata["higher_is_better"] is None


def measurable(metrics: Sequence[str], predictions: AnyPredictions) -> list[str]:
    """Those of ``metrics`` that are registered and need nothing that ``predictions`` lack."""
    return [name for name in metrics if name in METRICS and not lacking(METRICS[name], predictions)]
