"""``fedlas.report``: measures predictions before and after calibration."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from math import nan
from typing import TYPE_CHECKING, Any, overload

import numpy as np

from fedlas._core.check import Argument, InputError, describe
from fedlas._core.kinds import check_argument_types
from fedlas.metrics import evaluate
from fedlas.predictions import MultiLabel, PredictionTable, read_predictions
from fedlas.predictions.any_predictions import (
    AnyPredictions,
    drop_zero_weights,
    is_table,
    require_predictions,
    require_top_label,
    unwrap_table,
    zero_weight_note,
)
from fedlas.predictions.event import event_note, with_event
from fedlas.predictions.tables.roles import OF_FIT, columns_from_kwargs
from fedlas.predictions.two_arrays import predictions_from_arrays
from fedlas.present.evaluation import CALIBRATE_HINT, Evaluation
from fedlas.present.metric_tables import CALIBRATOR_METRICS
from fedlas.present.positive_class import has_event, make_rules, measures_by_stage
from fedlas.present.stages import (
    ALL_CALIBRATORS,
    DEFAULT,
    RAW,
    CalibratedStages,
    DeferredEstimates,
    HeldOut,
    Rejections,
    apply_calibrators,
    check_decision_rules,
    check_options,
    check_stage_arguments,
    estimates_by_stage,
    reject_options_by_stage,
)
from fedlas.present.verdict import training_data_warning
from fedlas.stats.draws import has_several_units
from fedlas.stats.estimates import CONFIDENCE_LEVEL, REPLICATES, Estimate, EstimateTable

if TYPE_CHECKING:
    from fedlas.binary import Decision, Heterogeneity, Rule
    from fedlas.calibrated.calibration import Calibration
    from fedlas.present.labels import LabelEvaluation

_EVENT_METRICS = ("ece", "nll")
"""Metrics whose estimates are copied into the measures of an event."""


@overload
def report(predictions: MultiLabel, target: None = None, **options: Any) -> LabelEvaluation: ...
@overload
def report(
    predictions: Any, target: object = None, *, labels: Any, **options: Any
) -> LabelEvaluation: ...
@overload
def report(predictions: Any, target: object = None, **options: Any) -> Evaluation: ...
@check_argument_types
def report(
    predictions: Any,
    target: object = None,
    *,
    on: Any = None,
    method: str | None = None,
    reject: Sequence[float] = (),
    groups: str | Sequence[Any] | None = None,
    cost_ratio: float | None = None,
    budget: float | None = None,
    recall: float | None = None,
    precision: float | None = None,
    event: str | int | None = None,
    top_label: bool = False,
    heterogeneity: bool = False,
    num_bins: int = 15,
    confidence_level: float = CONFIDENCE_LEVEL,
    replicates: int = REPLICATES,
    name: str = "predictions",
    classes: Sequence[str] = (),
    grouped_by: str = "group",
    notes: Sequence[str] = (),
    repair: str = CALIBRATE_HINT,
    title: str = "",
    period: str = "",
    **columns: Any,
) -> Evaluation | LabelEvaluation:
    """Measure predictions with intervals and calibration tests, before and after calibration.

    With two classes one is the event, and its probability is the subject; of more classes, and of confidences
    alone, the predicted class is.

    Args:
        predictions: Logits ``(N, C)`` and target ``(N,)``, a :class:`~fedlas.TopLabel`, or what
            :func:`~fedlas.read_predictions` returned, whose groups and class names are used. A
            :class:`~fedlas.MultiLabel` gives a row per label, and their means. Or two arrays, as
            :func:`~fedlas.evaluate` takes them: ``report(y_true, y_prob)``. Or a data frame or a file, with
            ``columns``: ``report(frame, probs="p_*", target="y")``.
        target: The second of two arrays; or the column of the labels of a table.
        on: Held-out predictions of the same model, of the same kind, which a calibrator is fitted on.
        method: Registry name of the calibrator, or ``"all"`` to compare all; None with ``on``: ``"auto"``.
        reject: Shares of wrong among accepted predictions, each in (0, 1): from which confidence to accept.
        groups: Group of each sample ``(N,)``, or the column of a table: events expected and observed in each, or
            accuracy and ECE; for multi-label predictions, all labels and the worst label in each.
        cost_ratio: For two classes, how many false alarms are as bad as a missed event: from which probability to act.
        budget: The same for a number of samples to act on, out of those measured; it needs ``on``, as the next two do.
        recall: The same for a share of the events to find, in (0, 1].
        precision: The same for a share of events among the alarms, in (0, 1].
        event: Positive class of two, by name or index; None: the event of the predictions, else the affirmative class
            ("yes", "1"), else the second. A note names the event.
        top_label: For two classes, whether to measure the predicted class instead of the event.
        heterogeneity: For two classes and samples in clusters, such as hospitals: observed over expected, slope and
            AUROC in each, and their random-effects means, see :func:`fedlas.binary.heterogeneity`.
        num_bins: Number of bins of calibration errors, at least 1.
        confidence_level: Level of the intervals, in ``(0, 1)``.
        replicates: Number for intervals and tests, at least 39 for level 0.95; 0 makes none.
        name: Name of the predictions, for titles.
        classes: Names of the classes.
        grouped_by: Name of the groups, for titles.
        notes: Sentences to pass on.
        repair: How to fit a calibrator, for a reader of the verdict; empty to leave it out.
        title: Title of the page; empty is ``name``.
        period: When the samples were collected, such as ``"October 2026"``, for the page.
        **columns: What the columns of a table hold: ``probs``, ``logits`` or ``confidence`` and other fields of
            ``fedlas.predictions.Columns``; ``groups`` and ``classes`` are then those of the table.

    Returns:
        An object that prints, shows itself in a notebook, and gives ``text()``, ``json()``, ``html()``, ``to_frame()``
        and ``to_latex()``; of several labels a :class:`LabelEvaluation`.

    Raises:
        InputError: For predictions without labels, an unknown calibrator or one that cannot run, ``method`` or
            ``reject`` without ``on``, ``on`` that is ``predictions``, or a number out of range.

    Example:
        >>> import torch
        >>> from fedlas import Predictions
        >>> logits = 3 * torch.randn(400, 5, generator=torch.Generator().manual_seed(0))
        >>> target = torch.multinomial((logits / 2).softmax(1), 1, generator=torch.Generator().manual_seed(1))[:, 0]
        >>> report(Predictions(logits, target), replicates=99).verdict[0]
        'Over-confident: it claims 76.1 % on average and is right in 59.5 % (400 samples; joint p ≤ 0.01).'
    """
    if is_table(predictions) and not _is_frame_of_scores(predictions, target):
        if isinstance(groups, str):
            columns["groups"], grouped_by, groups = groups, groups, None
        source, on, event = _read_tables(
            predictions, on, columns | {"event": event}, target, classes
        )
    else:
        source = _from_arrays(predictions, target, columns, groups)
    if isinstance(unwrap_table(source), MultiLabel):
        return _report_labels(source, dict(locals()))  # most arguments are for one label per sample
    level: dict[str, Any] = {"confidence_level": confidence_level, "replicates": replicates}
    check_options(
        risk_argument="reject",
        risks=reject,
        classes=list(classes),
        name=name,
        num_bins=num_bins,
        **level,
    )
    predictions, classes, groups = _split_table(source, classes, groups)
    predictions = with_event(require_top_label(predictions), event, classes)
    predictions, groups, weightless = _drop_weightless_rows(predictions, groups)
    val = unwrap_table(on)
    val = with_event(val, event, classes) if isinstance(val, AnyPredictions) else val
    held_out: HeldOut | None = HeldOut(val) if isinstance(val, AnyPredictions) else val
    if held_out is not None and method is None and not reject:
        method = DEFAULT
    check_stage_arguments(predictions, held_out, method, reject, groups)
    of_event = has_event(predictions) and not top_label
    rules = make_rules(cost_ratio, budget, recall, precision)
    check_decision_rules(rules, event=of_event, has_val=held_out is not None)
    _check_heterogeneity(predictions, requested=heterogeneity, event=of_event)
    # The stages: as predicted, and after each calibrator.
    stages: dict[str, AnyPredictions] = {RAW: predictions}
    outcome = CalibratedStages()
    remarks = [*notes, weightless, event_note(predictions) if of_event else ""]
    if held_out is not None:
        remarks.append(
            "" if held_out.val is None else training_data_warning(held_out.val, predictions)
        )
        if method is not None:
            outcome = apply_calibrators(method, predictions, held_out)
            stages |= {f"after {each}": after for each, after in outcome.predictions.items()}
    options: dict[str, Any] = {"event": of_event, "num_bins": num_bins, **level}
    by_group = {} if groups is None else _measure_groups(stages, groups, **options)
    # What is decided on held-out predictions.
    fitted = {f"after {each}": calibration for each, calibration in outcome.fitted.items()}
    rejected: Rejections = {}
    if reject and held_out is not None:
        rejected = reject_options_by_stage(stages, reject, held_out.validation(), fitted)
    names = CALIBRATOR_METRICS if method == ALL_CALIBRATORS else None
    return Evaluation(
        name,
        stages,
        **measure_stages(stages, names, **options),
        groups=by_group,
        heterogeneity=_clusters_by_stage(stages, source, confidence_level) if heterogeneity else {},
        rejected=rejected,
        decisions=_decide_by_stage(stages, rules, held_out, fitted, confidence_level),
        outcome=outcome,
        num_bins=num_bins,
        **level,
        notes=(*filter(None, [*remarks, _single_cluster_note(predictions)]), *outcome.notes),
        classes=tuple(classes),
        grouped_by=grouped_by,
        repair=repair,
        heading=title,
        period=period,
        dropped=getattr(source, "dropped", 0),
        scores=source.scores if isinstance(source, PredictionTable) else (),
    )


_SINGLE_LABEL_ARGUMENTS = ("reject", "cost_ratio", "budget", "recall", "precision", "event", "top_label",
                 "heterogeneity", "classes")  # fmt: skip
_LABEL_ARGUMENTS = (
    "method",
    "num_bins",
    "confidence_level",
    "replicates",
    "name",
    "notes",
    "repair",
    "period",
    "grouped_by",
)
"""Arguments of :func:`report` for single-label predictions, and for multi-label predictions."""


def _report_labels(source: Any, arguments: Mapping[str, Any]) -> LabelEvaluation:
    """Return the evaluation of multi-label predictions; raise InputError for arguments of single-label predictions."""
    from fedlas.present.labels_report import report_labels

    for name in _SINGLE_LABEL_ARGUMENTS:
        if arguments[name] not in (None, False, (), []):
            raise InputError(
                "requires one label per sample",
                "multi-label predictions",
                "Omit it, or pass the predictions of one label, predictions.label(name).",
                argument=name,
            )
    options = {name: arguments[name] for name in _LABEL_ARGUMENTS}
    level = {name: options[name] for name in ("confidence_level", "replicates", "num_bins")}
    check_options(risks=(), classes=None, name=options["name"], **level)
    on = arguments["on"]
    val = unwrap_table(on.val if isinstance(on, HeldOut) else on)
    options |= {"dropped": getattr(source, "dropped", 0), "heading": arguments["title"]}
    predictions, _, groups = _split_table(source, (), arguments["groups"])
    counted: Any = _drop_weightless_rows(predictions, groups)
    predictions, groups, weightless = counted
    options["notes"] = [*options["notes"], weightless]
    return report_labels(predictions, val, groups=groups, **options)


_SINGLE_CLUSTER_NOTE = (
    "All samples are in one cluster, so that there are no intervals and no tests."
)


def _single_cluster_note(predictions: AnyPredictions) -> str:
    """Return a note if all samples are in one cluster, else an empty string."""
    return (
        ""
        if predictions.clusters is None or has_several_units(predictions)
        else _SINGLE_CLUSTER_NOTE
    )


def _check_heterogeneity(predictions: AnyPredictions, *, requested: bool, event: bool) -> None:
    """Raise InputError if clusters are to be compared without an event or without two clusters."""
    if requested and not event:
        raise InputError(
            "requires an event of two classes",
            "the predicted class",
            ("Pass predictions of two classes, and omit ", Argument("top_label"), "."),
            argument="heterogeneity",
        )
    if requested and (predictions.clusters is None or not has_several_units(predictions)):
        raise InputError(
            "requires samples from at least two clusters",
            "none" if predictions.clusters is None else "one",
            ("Name the cluster of each sample: ", Argument("clusters"), "."),
            argument="heterogeneity",
        )


def _clusters_by_stage(
    stages: Mapping[str, AnyPredictions], source: object, confidence_level: float
) -> dict[str, Heterogeneity]:
    """Return the heterogeneity between clusters for each stage."""
    from fedlas.binary import heterogeneity as compare_clusters

    names = getattr(source, "cluster_names", ())
    clusters = {}
    for stage, each in stages.items():
        predictions = require_predictions(each)
        titles = None
        if names and predictions.clusters is not None:
            titles = [names[number] for number in np.unique(predictions.clusters).tolist()]
        clusters[stage] = compare_clusters(predictions, titles, confidence_level=confidence_level)
    return clusters


def _read_tables(
    table: object, on: object, columns: dict[str, Any], target: object, classes: Sequence[str]
) -> tuple[Any, Any, int | None]:
    """Read the table and the held-out table; return both predictions and the index of the event."""
    if columns.get("covariates") is not None and on is None:
        raise covariates_unused_error()
    for name in OF_FIT if on is None else ():
        if columns.get(name) is not None:
            raise InputError(
                ("requires ", Argument("on")),
                ("no ", Argument("on")),
                ("Pass ", Argument("on"), ", or omit ", Argument(name), "."),
                argument=name,
            )
    columns = columns | ({} if target is None else {"target": target})
    columns |= {"classes": tuple(classes)} if classes else {}
    validation = read_predictions(on, **columns) if is_table(on) else on
    read = read_predictions(table, **columns)
    return read, validation, getattr(read.predictions, "event", None)


def covariates_unused_error() -> InputError:
    """Return the error for covariates without a calibrator to use them."""
    return InputError(
        ("requires ", Argument("on"), ": calibrators are fitted on held-out predictions"),
        ("no ", Argument("on")),
        ("Pass ", Argument("on"), ", or omit ", Argument("covariates"), "."),
        argument="covariates",
    )


def _from_arrays(
    predictions: object, target: object, columns: dict[str, Any], groups: object
) -> Any:
    """Return predictions built from two arrays; other predictions are returned unchanged."""
    if columns or isinstance(groups, str):
        columns_from_kwargs(columns)
        raise InputError(
            f"{next(iter(columns), 'groups')}= names columns, so that predictions must be a table",
            describe(predictions),
            "Pass a data frame or the path of a file.",
        )
    if _is_frame_of_scores(predictions, target):
        predictions = np.asarray(predictions)
    return predictions if target is None else predictions_from_arrays(predictions, target)


def _is_frame_of_scores(predictions: object, target: object) -> bool:
    """Return whether ``predictions`` is a data frame of scores, with the labels in a separate array."""
    return hasattr(predictions, "to_numpy") and not isinstance(target, str | None)


def _split_table(
    predictions: object, classes: Sequence[str], groups: Sequence[Any] | None
) -> tuple[Any, Sequence[str], Sequence[Any] | None]:
    """Return predictions, class names and groups; a table supplies the names and groups that are not passed."""
    if isinstance(predictions, PredictionTable):
        groups = predictions.groups if groups is None else groups
        return predictions.predictions, classes or predictions.classes or (), groups
    return predictions, classes, groups


def _drop_weightless_rows(
    predictions: AnyPredictions, groups: Sequence[Any] | None
) -> tuple[AnyPredictions, Sequence[Any] | None, str]:
    """Drop rows of weight zero; return predictions, groups, and a note on the dropped rows."""
    some, counts = drop_zero_weights(predictions)
    if counts is None:
        return predictions, groups, ""
    if groups is not None:
        if len(groups) != len(counts):  # refused with the samples that there are
            return predictions, groups, ""
        groups = [group for group, is_in in zip(groups, counts.tolist(), strict=True) if is_in]
    return some, groups, zero_weight_note(counts)


def measure_stages(
    stages: Mapping[str, AnyPredictions],
    names: Sequence[str] | None = None,
    *,
    event: bool,
    num_bins: int,
    confidence_level: float,
    replicates: int,
) -> dict[str, Any]:
    """Return metrics, estimates, tests and event measures of each stage, as fields of :class:`Evaluation`."""
    from fedlas.stats import spiegelhalter_test

    level: dict[str, Any] = {"confidence_level": confidence_level, "replicates": replicates}
    measured = {stage: evaluate(each, num_bins=num_bins) for stage, each in stages.items()}
    names = list(next(iter(measured.values()))) if names is None else names

    def estimate(some: Sequence[str]) -> dict[str, EstimateTable]:
        return estimates_by_stage(stages, some, values=measured, num_bins=num_bins, **level)

    z: dict[str, Any] = {}
    for stage, each in stages.items() if replicates else ():
        with suppress(InputError):  # confidences of 0, 1/2 and 1 alone
            z[stage] = spiegelhalter_test(each)
    if not event:
        return {"measured": measured, "estimates": estimate(names), "z": z, "positive": {}}
    positive = measures_by_stage(stages, **level)
    # The main numbers of an event have intervals of two metrics alone. Those of all take longer, and wait to be asked
    # for; several calibrators are compared by them.
    deferred = len(positive) == len(stages)
    first = estimate([name for name in _EVENT_METRICS if name in names] if deferred else names)
    for stage, table in positive.items():
        for name in _EVENT_METRICS:
            interval = first[stage].get(name) if stage in first else None
            table[name] = interval or Estimate(measured[stage][name], nan, nan)

    def estimate_all() -> dict[str, EstimateTable]:
        tables = estimate(names) if deferred else first
        for stage, table in tables.items():
            if stage in positive:
                table["brier"] = positive[stage]["brier"]
        return tables

    estimates = DeferredEstimates(first, estimate_all)
    return {"measured": measured, "estimates": estimates, "z": z, "positive": positive}


def _decide_by_stage(
    stages: Mapping[str, AnyPredictions],
    rules: Sequence[Rule],
    held_out: HeldOut | None,
    fitted: Mapping[str, Calibration],
    confidence_level: float,
) -> dict[str, list[Decision]]:
    """Return the decisions of each stage by each rule, with thresholds chosen on held-out predictions of that stage."""
    from fedlas.binary import decide

    decisions = {}
    for stage, each in stages.items() if rules else ():
        val = None
        if held_out is not None:
            raw = held_out.validation()
            val = require_predictions(fitted[stage].transform(raw) if stage in fitted else raw)
        test = require_predictions(each)
        decisions[stage] = [
            decide(val, test, rule, confidence_level=confidence_level) for rule in rules
        ]
    return decisions


def _measure_groups(
    stages: Mapping[str, AnyPredictions],
    groups: Sequence[Any],
    *,
    event: bool,
    num_bins: int,
    confidence_level: float,
    replicates: int,
) -> dict[str, Any]:
    """Return the measures of each group by stage, of the event or of the predicted class."""
    from fedlas.binary import group_measures
    from fedlas.stats import group_estimates

    level: dict[str, Any] = {"confidence_level": confidence_level}
    if event:
        return {
            stage: group_measures(require_predictions(each), groups, **level)
            for stage, each in stages.items()
        }
    level |= {"num_bins": num_bins, "replicates": replicates}
    return {stage: group_estimates(each, groups, **level) for stage, each in stages.items()}
