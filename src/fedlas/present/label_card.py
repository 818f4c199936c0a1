"""The calibration card of multi-label predictions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from fedlas._core.check import InputError
from fedlas.deploy.build_card import STAGES, make_card
from fedlas.predictions.multi_label import check_same_labels, require_known_labels
from fedlas.present.label_tables import label_measures_to_dict
from fedlas.present.labels import LabelEvaluation
from fedlas.present.positive_class import measures_to_dict
from fedlas.stats.selective_risk import DEFAULT_RISKS

if TYPE_CHECKING:
    from fedlas.deploy.calibration import Calibration
    from fedlas.deploy.card import Card
    from fedlas.predictions import MultiLabel

_SINGLE_LABEL_ARGUMENTS = (
    "event",
    "top_label",
    "cost_ratio",
    "budget",
    "recall",
    "precision",
    "classes",
)


def check_label_pair(
    val: object, test: object, arguments: Mapping[str, Any]
) -> tuple[MultiLabel, MultiLabel]:
    """Return ``val`` and ``test``; raise InputError if their labels differ or an argument is for one label per sample.

    Raises:
        InputError: Then.
    """
    for name in _SINGLE_LABEL_ARGUMENTS:
        if arguments[name] not in (None, False):
            raise _single_label_error(name)
    if tuple(arguments["risks"]) != tuple(DEFAULT_RISKS):
        raise _single_label_error("risks")
    val, test = check_same_labels(val, test, "validation predictions")
    return require_known_labels(val), require_known_labels(test)


def _single_label_error(name: str) -> InputError:
    return InputError(
        "requires one label per sample",
        "multi-label predictions",
        "Omit it, or pass the predictions of one label, predictions.label(name).",
        argument=name,
    )


def build_label_card(
    val: MultiLabel,
    test: MultiLabel,
    calibration: Calibration,
    *,
    model: Mapping[str, Any],
    data: Mapping[str, Any],
    title: str,
    **options: Any,
) -> tuple[Card, LabelEvaluation]:
    """Return the card and the evaluation of multi-label test predictions, before and after ``calibration``."""
    from fedlas.binary import label_measures

    stages = {STAGES[0]: test}
    fitted = {}
    if calibration.calibrator is not None:
        stages[STAGES[1]] = calibration.transform(test)
        fitted[calibration.method] = calibration
    tables = {stage: label_measures(each, **options) for stage, each in stages.items()}
    name = str(model["run"])
    evaluation = LabelEvaluation(name, stages, tables, fitted, heading=title, **options)
    metrics = measures_to_dict(evaluation.estimates)
    labels = {
        stage: {label: label_measures_to_dict(each) for label, each in table.items()}
        for stage, table in tables.items()
    }
    last = list(tables)[-1]
    card = make_card(
        val,
        test,
        calibration,
        model=model,
        data=data,
        metrics={stage: metrics.get(stage, metrics[last]) for stage in STAGES},
        labels={stage: labels.get(stage, labels[last]) for stage in STAGES},
        **options,
    )
    return card, evaluation
