"""Calibration cards of predictions, and the files of a card."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from fedlas._core.check import InputError
from fedlas._core.files import write_json, write_text
from fedlas.deploy.calibration import Calibration
from fedlas.deploy.make_card import make_card, stages_of
from fedlas.predictions import Predictions
from fedlas.present.calibrate import is_same
from fedlas.present.card_page import card_page
from fedlas.present.intervals import estimates_by_stage
from fedlas.stats.estimates import REPLICATES
from fedlas.stats.selective_risk import DEFAULT_RISKS


@dataclass(frozen=True)
class MadeCard:
    """A card, and what its diagrams are drawn of.

    Attributes:
        content: Plain values for JSON.
        stages: Test predictions before and after calibration.
        num_bins: Bins of the metrics.
    """

    content: dict[str, Any]
    stages: Mapping[str, Predictions]
    num_bins: int


def file_card(
    val: Predictions,
    test: Predictions,
    calibration: Calibration,
    *,
    name: str,
    data: str,
    risks: Sequence[float] = DEFAULT_RISKS,
    replicates: int = REPLICATES,
    classes: Sequence[str] | None = None,
    num_bins: int = 15,
) -> MadeCard:
    """The calibration card of a model of which there are two sets of predictions, not calibrated.

    Args:
        val: Held-out predictions, on which thresholds are chosen.
        test: Others, on which everything is measured.
        calibration: What the model's predictions go through.
        name: What the model is called.
        data: What the test data are called.
        risks: Wanted risks, each in (0, 1).
        replicates: Of intervals and noise floors; 0 computes none.
        classes: Names of the classes, where they are known.
        num_bins: Bins of the calibration errors.

    Raises:
        InputError: If the two are the same or have different numbers of classes, or a number is out of range.
    """
    if is_same(val, test):
        fix = "Pass held-out predictions and others to test on; thresholds chosen on the test set would flatter it."
        raise InputError("card", "validation and test must be different predictions", "the same logits", fix)
    if val.num_classes != test.num_classes:
        got = f"{val.num_classes} and {test.num_classes}"
        raise InputError("card", "both files must have the same classes", got, "Pass predictions of one model.")
    content = make_card(
        val,
        test,
        calibration,
        model={"run": name, "classes": list(classes) if classes is not None else None},
        data={"name": data},
        num_bins=num_bins,
        risks=risks,
        intervals=partial(estimates_by_stage, num_bins=num_bins, replicates=replicates),
        replicates=replicates,
    )
    return MadeCard(content, stages_of(test, calibration), num_bins)


def write_card(card: MadeCard, path: Path) -> Path:
    """Write a card as JSON to ``path``, which ends in ``.json``, and as a page beside it; returns the place of that."""
    page = card_page(card.content, card.stages, num_bins=card.num_bins)
    write_json(path, card.content)
    return write_text(path.with_suffix(".html"), page)
