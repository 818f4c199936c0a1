"""The part of a calibration card about the event of two classes: its measures, and from which probability to act."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import isfinite
from typing import Any

from fedlas.binary import Rule, decide, measures
from fedlas.predictions import Predictions
from fedlas.predictions.predictions import AnyPredictions

RULES = (Rule(recall=0.5), Rule(recall=0.8), Rule(recall=0.9))
"""Rules where none is asked for."""


def event_content(
    stages: Mapping[str, AnyPredictions],
    val: AnyPredictions,
    rules: Sequence[Rule],
    *,
    replicates: int,
) -> dict[str, Any] | None:
    """Return measures by stage, joint p-values and decisions of the last stage; None for other than two classes.

    Args:
        stages: Test predictions by stage; the last is calibrated.
        val: Calibrated validation predictions, on which thresholds are chosen.
        rules: What decides; empty takes :data:`RULES`.
        replicates: Of intervals and tests.
    """
    test = list(stages.values())[-1]
    if (
        not isinstance(test, Predictions)
        or not isinstance(val, Predictions)
        or test.num_classes != 2
    ):
        return None
    tables = {
        name: measures(each, replicates=replicates)
        for name, each in stages.items()
        if isinstance(each, Predictions)
    }
    return {
        "measures": {stage: {name: _finite(each.plain()) for name, each in table.items()}
                     for stage, table in tables.items()},
        "joint_p": {stage: table.joint_p for stage, table in tables.items()},
        "decisions": [decide(val, test, rule).plain() for rule in rules or RULES],
    }  # fmt: skip


def _finite(content: Mapping[str, Any]) -> dict[str, Any]:
    return {
        key: value for key, value in content.items() if isinstance(value, str) or isfinite(value)
    }
