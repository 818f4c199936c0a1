"""The calibration card of multi-label predictions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fedlas._core.check import InputError
from fedlas.binary import label_measures
from fedlas.deploy.calibration import Calibration
from fedlas.deploy.card import Card
from fedlas.deploy.make_card import STAGES, make_card
from fedlas.predictions import MultiLabel
from fedlas.predictions.multi_label import check_known, check_same_labels
from fedlas.present.label_tables import plain_measures_of
from fedlas.present.labels import LabelEvaluation
from fedlas.present.positive_class import plain_measures
from fedlas.stats.selective_risk import DEFAULT_RISKS

_OF_ONE_LABEL = ("event", "top_label", "cost_ratio", "budget", "recall", "precision", "classes")


def checked_labels(
    val: object, test: object, arguments: Mapping[str, Any]
) -> tuple[MultiLabel, MultiLabel]:
    """Return ``val`` and ``test``; raise InputError if their labels differ or an argument is for one label per sample.

    Raises:
        InputError: Then.
    """
    for name in _OF_ONE_LABEL:
        if arguments[name] not in (None, False):
            raise _of_one_label(name)
    if tuple(arguments["risks"]) != tuple(DEFAULT_RISKS):
        raise _of_one_label("risks")
    val, test = check_same_labels(val, test, "validation predictions")
    return check_known(val), check_known(test)


def _of_one_label(name: str) -> InputError:
    return InputError(
        "requires one label per sample",
        "multi-label predictions",
        "Omit it, or pass the predictions of one label, predictions.label(name).",
        argument=name,
    )


def card_of_labels(
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
    stages = {STAGES[0]: test}
    fitted: Any = {}
    if calibration.calibrator is not None:
        stages[STAGES[1]] = calibration.transform(test)
        fitted[calibration.method] = calibration.calibrator
    tables = {stage: label_measures(each, **options) for stage, each in stages.items()}
    name = str(model["run"])
    evaluation = LabelEvaluation(name, stages, tables, fitted, heading=title, **options)
    metrics = plain_measures(evaluation.estimates)
    labels = {
        stage: {label: plain_measures_of(each) for label, each in table.items()}
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
