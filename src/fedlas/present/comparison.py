"""``fedlas.compare``: compares two models on the same samples, or two methods over seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from math import isfinite, nan
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fedlas._core.check import Argument, InputError
from fedlas._core.kinds import check_argument_types
from fedlas.metrics import METRICS
from fedlas.metrics.evaluation import compute_metrics
from fedlas.predictions import MultiLabel, Predictions
from fedlas.predictions.any_predictions import (
    AnyPredictions,
    PredictionTable,
    require_top_label,
    unwrap_table,
)
from fedlas.predictions.event import event_index, quoted_event, with_event
from fedlas.present.gate import (
    GateResult,
    apply_row_limits,
    check_metric_direction,
    check_not_worse,
)
from fedlas.present.positive_class import has_event
from fedlas.stats import Difference, two_models
from fedlas.stats.draws import has_several_units
from fedlas.stats.estimates import CONFIDENCE_LEVEL, REPLICATES
from fedlas.stats.result_table import ResultTable

if TYPE_CHECKING:
    from fedlas._core.types import IntArray
    from fedlas.stats.difference import Unit


class Comparison(ResultTable[str, Difference]):
    """Differences between two models or methods, by metric, with a non-inferiority gate.

    Attributes:
        unit: ``"samples"`` for two models, ``"seeds"`` for two methods.
        event: Name of the class that the metrics are about; empty if the predicted class is the subject.
        samples: Samples of the test set that were compared; the fewest, of seeds that have test sets of their own.
        groups: The comparison of each group's samples; its ``p`` and ``better`` are corrected (Holm) for all metrics
            of all groups. A group of one sample, of one cluster or without weight cannot tell: its ends are NaN, and
            it counts in no correction.
        dropped: Rows that lacked a value and were left out, of the table that has more of them.
    """

    unit: Unit
    event: str
    samples: int
    dropped: int
    groups: Mapping[str, Comparison]

    @check_argument_types
    def __init__(
        self,
        content: Mapping[str, Difference],
        *,
        samples: int = 0,
        dropped: int = 0,
        event: str = "",
        groups: Mapping[str, Comparison] | None = None,
        unit: Unit = "samples",
    ) -> None:
        super().__init__(content)
        self.unit = unit
        self.event = event
        self.samples = samples
        self.dropped = dropped
        self.groups = groups or {}

    @check_argument_types
    def fail_if_worse(
        self,
        *metrics: str,
        margin: float = 0.0,
        strict: bool = False,
        names: tuple[str, str] = ("a", "b"),
    ) -> GateResult:
        """Check that the first model is not significantly worse than the second.

        Args:
            *metrics: Metrics that were compared.
            margin: How much worse it may be, as a fraction.
            strict: Whether a metric in which the interval does not decide fails.
            names: Names of the models in the sentences.

        Returns:
            A gate that is true if it passes, with ``status`` for a pipeline, and prints its sentences.

        Raises:
            InputError: For a metric that was not compared or has no better direction, or a margin that allows
                anything.

        Example:
            >>> import fedlas, torch
            >>> logits = torch.randn(800, 5, generator=torch.Generator().manual_seed(0))
            >>> target = torch.multinomial(logits.softmax(1), 1, generator=torch.Generator().manual_seed(1))[:, 0]
            >>> old, new = fedlas.Predictions(logits, target), fedlas.Predictions(3 * logits, target)
            >>> fedlas.compare(new, old, replicates=99).fail_if_worse("nll", "ece").status
            3
        """
        check_metric_direction(metrics, margin)
        missing = [name for name in metrics if name not in self]
        if missing or not metrics:
            raise InputError(
                f"metrics must be among the compared metrics, {', '.join(self)}",
                ", ".join(missing) or "none",
                "Name a compared metric, or add yours: fedlas.compare(a, b, [...]).",
            )
        checks = [check_not_worse(self[name], margin, names, event=self.event) for name in metrics]
        return GateResult(
            tuple(apply_row_limits(checks, samples=self.samples, dropped=self.dropped)), strict
        )


@check_argument_types
def compare(
    a: AnyPredictions | MultiLabel | PredictionTable | Sequence[AnyPredictions | PredictionTable],
    b: AnyPredictions | MultiLabel | PredictionTable | Sequence[AnyPredictions | PredictionTable],
    metrics: Sequence[str] | None = None,
    *,
    num_bins: int = 15,
    confidence_level: float = CONFIDENCE_LEVEL,
    replicates: int = REPLICATES,
    seed: int = 0,
    event: str | int | None = None,
    groups: Sequence[Any] | None = None,
    top_label: bool = False,
    test_share: float | None = None,
) -> Comparison:
    """Compare two models on the same samples, or two methods over seeds, with a paired test per metric.

    Args:
        a: Predictions of the first model, or a ``TopLabel``, or several labels as a ``MultiLabel``; or a list of those
            of several seeds of one method.
        b: Predictions of the second model for the same samples in the same order; or a list, seeds in the same order.
            The two predictions of a seed are for the same samples.
        metrics: Names of metrics, of several labels such as ``"macro_ece"``; None for accuracy, NLL, Brier score and
            ECE, as far as the predictions allow; of two classes AUROC, NLL, Brier score and ECE. For two classes
            ``"ece"`` and ``"brier"`` are those of the event's probability, and ``"top_label_ece"`` is that of the
            predicted class.
        num_bins: Bins of the metrics that have any, at least 1.
        confidence_level: Confidence level of the intervals, in ``(0, 1)``.
        replicates: Replicates of the paired bootstrap, at least 39 for level 0.95; lists need none.
        seed: The same seed draws the same samples; lists need none.
        event: Positive class of two, by name or index; None: the event of the predictions, else the affirmative class
            ("yes", "1"), else the second.
        groups: Group of each sample ``(N,)``, to compare each group as well; None: the groups of the tables, if any.
            Not for lists of seeds.
        top_label: For two classes, whether to compare the predicted class instead of the event.
        test_share: Of lists whose seeds have test samples of their own, the share of the data that each tests, in
            ``[0, 1)``: 0.2 for five folds. Where training parts overlap so, the test is Nadeau and Bengio's corrected
            t-test. 0 if they do not overlap: new data for each seed.

    Returns:
        Difference by name, as a dict that a notebook shows as a table; ``to_frame()`` makes a data frame, and
        ``fail_if_worse("nll")`` a gate.

    Raises:
        InputError: For different samples, as far as targets show (a top label has none), an unknown metric, or seeds
            with test samples of their own without ``test_share``.

    Note:
        Two predictions are two models, not two methods: whether another training would give the same order only seeds
        can tell. Lists are tested as the methods of a bench are, by the paired t-test over seeds, with Holm's
        correction for the number of metrics; the interval is about other seeds on the same test set. Of two models the
        difference of calibration errors comes out too small where one is calibrated, see
        :func:`~fedlas.stats.paired_bootstrap`.

    Example:
        >>> import torch
        >>> from fedlas import Predictions
        >>> logits = 2 * torch.randn(2000, 5, generator=torch.Generator().manual_seed(0))
        >>> target = torch.multinomial(logits.softmax(1), 1, generator=torch.Generator().manual_seed(1)).squeeze(1)
        >>> differences = compare(Predictions(logits, target), Predictions(3 * logits, target), replicates=199)
        >>> {name: each.better for name, each in differences.items()}
        {'accuracy': None, 'nll': 'a', 'brier': 'a', 'ece': 'a'}
        >>> seeds = [logits + 0.1 * k * logits.roll(k, 0) for k in range(3)]
        >>> plain, sharp = ([Predictions(scale * each, target) for each in seeds] for scale in (1, 3))
        >>> nll = compare(sharp, plain)["nll"]
        >>> nll.better, nll.unit, nll.count
        ('b', 'seeds', 3)

    Source:
        McNemar, "Note on the sampling error of the difference between correlated proportions or percentages",
        Psychometrika 12 (1947), in its exact form.
    """
    options: dict[str, Any] = {"num_bins": num_bins, "confidence_level": confidence_level}
    if isinstance(a, list | tuple) or isinstance(b, list | tuple):
        if (replicates, seed, groups) != (REPLICATES, 0, None):
            raise InputError(
                "replicates, seed and groups must not be passed with lists of seeds",
                "lists of seeds",
                "Omit them: lists are compared by a paired t-test over seeds.",
            )
        options |= {"event": event, "top_label": top_label, "test_share": test_share}
        return _compare_over_seeds(a, b, metrics, **options)
    if test_share is not None:
        raise InputError(
            "is for lists of seeds with test samples of their own",
            "two predictions",
            "Omit it.",
            argument="test_share",
        )
    if isinstance(unwrap_table(a), MultiLabel) and isinstance(unwrap_table(b), MultiLabel):
        names = _group_names(a, b, groups, unwrap_table(a).num_samples)
        of_one = {"event": event, "groups": names, "top_label": top_label}
        return _compare_labels(a, b, metrics, of_one, replicates=replicates, seed=seed, **options)
    if a is b:
        raise InputError(
            "a and b must be different predictions",
            "the same object twice",
            "Pass the predictions of both models.",
        )
    dropped = max(getattr(each, "dropped", 0) for each in (a, b))
    (first, second), name = _align_events((a, b), event, top_label=top_label)
    options |= {"replicates": replicates, "seed": seed, "top_label": top_label}
    differences = two_models.compare(first, second, metrics, **options)
    names = _group_names(a, b, groups, first.num_samples)
    return Comparison(
        differences,
        samples=two_models.count_used_samples(first),
        groups={}
        if names is None
        else _compare_by_group(first, second, names, [*differences], options),
        dropped=dropped,
        event=name,
    )


def _compare_labels(
    a: Any,
    b: Any,
    metrics: Sequence[str] | None,
    single_label_arguments: Mapping[str, Any],
    **options: Any,
) -> Comparison:
    """Return the comparison of two multi-label models; raise InputError for arguments of single-label predictions."""
    from fedlas.binary.label_differences import compare_labels

    for name, value in single_label_arguments.items():
        if value is not None and value is not False:
            raise InputError(
                "requires one label per sample",
                "multi-label predictions",
                "Omit it.",
                argument=name,
            )
    first, second = unwrap_table(a), unwrap_table(b)
    return Comparison(
        compare_labels(first, second, metrics, **options),
        samples=two_models.count_used_samples(first),
        dropped=max(getattr(each, "dropped", 0) for each in (a, b)),
    )


def _align_events(
    sources: Sequence[Any], event: str | int | None, *, top_label: bool
) -> tuple[list[AnyPredictions], str]:
    """Return all predictions with the same event, and the event's name (empty if the predicted class is compared)."""
    tables = (each.classes for each in sources if isinstance(each, PredictionTable))
    classes = next(tables, ())
    predictions = [with_event(require_top_label(each), event, classes) for each in sources]
    if top_label or not all(map(has_event, predictions)):
        return predictions, ""
    first = predictions[0]
    for other in predictions[1:]:
        if event_index(first) == event_index(other):
            continue
        if first.classes and first.classes == (other.classes or ())[::-1]:
            raise InputError(
                "a and b must have their classes in the same order",
                f"{', '.join(first.classes)} and {', '.join(other.classes)}",
                "Reorder the columns and class names of one of them.",
            )
        raise InputError(
            "a and b must be about the same event",
            f"{quoted_event(first)} and {quoted_event(other)}",
            ("Name the positive class by ", Argument("event"), "; order the classes alike."),
        )
    return predictions, quoted_event(first)


def _compare_over_seeds(
    a: Any,
    b: Any,
    metrics: Sequence[str] | None,
    *,
    num_bins: int,
    confidence_level: float,
    event: str | int | None,
    top_label: bool,
    test_share: float | None,
) -> Comparison:
    """Return the comparison of two methods; ``a`` and ``b`` each list the predictions of every seed."""
    from fedlas.stats.compare import apply_holm, seed_difference

    if not all(isinstance(each, list | tuple) for each in (a, b)):
        raise InputError(
            "a and b must both be predictions, or both be lists of predictions",
            "one of each",
            "Pass a list with the predictions of each seed for both methods.",
        )
    if len(a) != len(b) or len(a) < 2:
        raise InputError(
            "a and b must have the same number of seeds, at least 2",
            f"{len(a)} and {len(b)}",
            "Pass the predictions of each seed in the same order; to compare two models, pass no lists.",
        )
    if len({id(each) for each in (*a, *b)}) < 2 * len(a):
        raise InputError(
            "all predictions in a and b must be different",
            "the same object twice",
            "Pass the predictions of each seed once.",
        )
    predictions, name = _align_events([*a, *b], event, top_label=top_label)
    pairs = zip(predictions[: len(a)], predictions[len(a) :], strict=True)
    for number, pair in enumerate(pairs, start=1):
        names = (f"seed {number} of a", f"seed {number} of b")
        two_models.check_same_samples(*pair, names=names)
    if test_share is None:
        _check_one_test_set(predictions[: len(a)])
    entries = two_models.metrics_to_compare(
        predictions[0], predictions[len(a)], metrics, top_label=top_label
    )
    values = [compute_metrics(each, entries, num_bins) for each in predictions]
    differences = [
        seed_difference(
            *([each[entry.name] for each in side] for side in (values[: len(a)], values[len(a) :])),
            metric=entry.name,
            confidence_level=confidence_level,
            test_share=test_share,
        )
        for entry in entries
    ]
    return Comparison(
        {each.metric: each for each in apply_holm(differences)},
        samples=min(map(two_models.count_used_samples, predictions)),
        dropped=max(getattr(each, "dropped", 0) for each in (*a, *b)),
        event=name,
        unit="seeds",
    )


def _check_one_test_set(seeds: Sequence[AnyPredictions]) -> None:
    """Raise InputError, which asks for ``test_share``, if the seeds of a method have different test samples."""
    for number, each in enumerate(seeds[1:], start=2):
        if mismatch := two_models.describe_sample_mismatch(seeds[0], each):
            raise InputError(
                (
                    Argument("test_share"),
                    " is required, because seeds have test samples of their own",
                ),
                f"seeds 1 and {number} of a with {mismatch}",
                "Pass the share of the data that each seed tests, such as 0.2; 0 if training data do not overlap.",
            )


def _group_names(
    a: object, b: object, groups: Sequence[Any] | None, samples: int
) -> NDArray[np.str_] | None:
    """Return the group of each sample ``(N,)``, or None if neither ``groups`` nor the tables have groups."""
    of_tables = [names for each in (a, b) if (names := getattr(each, "groups", None)) is not None]
    if groups is None and not of_tables:
        return None
    names = np.array([str(name) for name in (of_tables[0] if groups is None else groups)])
    if len(names) != samples:
        raise InputError(
            f"groups must have one entry per sample, {samples:,}",
            f"{len(names):,}",
            "Pass the group of each compared sample.",
        )
    if groups is None and len(of_tables) > 1 and of_tables[0] != of_tables[1]:
        raise InputError(
            "both tables must have the same samples in the same order",
            "different groups",
            "Sort both tables by sample.",
        )
    return names


def _compare_by_group(
    first: AnyPredictions,
    second: AnyPredictions,
    names: NDArray[np.str_],
    metrics: Sequence[str],
    options: Mapping[str, Any],
) -> dict[str, Comparison]:
    """Return a comparison per group, with p-values corrected (Holm) over all metrics of all testable groups."""
    from fedlas.stats.compare import apply_holm

    by_group: dict[str, Comparison] = {}
    for name in np.unique(names):
        rows = np.flatnonzero(names == name)
        differences = _compare_rows(first, second, rows, metrics, options)
        by_group[str(name)] = Comparison(differences, samples=len(rows))
    tested = [
        (group, each)
        for group, table in by_group.items()
        for each in table.values()
        if each.interval is not None
    ]
    corrected = apply_holm(each for _, each in tested)
    for (group, _), each in zip(tested, corrected, strict=True):
        by_group[group][each.metric] = each
    return by_group


def _compare_rows(
    first: AnyPredictions,
    second: AnyPredictions,
    rows: IntArray,
    metrics: Sequence[str],
    options: Mapping[str, Any],
) -> Mapping[str, Difference]:
    """Return the differences on the samples ``rows``, for metrics that are defined there."""
    if first.weights is not None:
        rows = rows[first.weights[rows] > 0]
    if not len(rows):
        return {name: two_models.untested_difference(name, nan, nan) for name in metrics}
    one, other = first.rows(rows), second.rows(rows)
    has_both = not isinstance(one, Predictions) or len(np.unique(one.target)) > 1
    possible = [
        each
        for each in metrics
        if (has_both or not METRICS[each].several_labels) and _is_defined(each, one, other)
    ]
    if has_several_units(one):
        return two_models.compare(one, other, possible, **options)
    return two_models.untested_differences(one, other, possible, options["num_bins"])


def _is_defined(metric: str, *predictions: AnyPredictions) -> bool:
    """Return whether the metric is finite for all ``predictions``, as a slope on few samples may not be."""
    entry = METRICS[metric]
    if entry.estimate is None:
        return True
    with suppress(InputError):
        return all(isfinite(entry.value(each)) for each in predictions)
    return False


def differences_to_dict(compared: Comparison) -> dict[str, Any]:
    """Return the differences by metric and by group as a dict for JSON, without NaN and empty fields."""
    content: dict[str, Any] = {
        name: {
            key: value
            for key, value in {**asdict(each), "difference": each.difference}.items()
            if not (isinstance(value, float) and not isfinite(value))
            and value not in ("", (), ((), ()))
        }
        for name, each in compared.items()
    }
    if compared.groups:
        content["groups"] = {
            name: differences_to_dict(each) for name, each in compared.groups.items()
        }
    return content
