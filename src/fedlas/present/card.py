"""``fedlas.card``: what a model may be trusted with, as one object to print, show or save."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from fedlas._core.check import InputError
from fedlas._core.files import write_json, write_text
from fedlas.calibrated import CalibratedModel
from fedlas.calibrators import Calibrator
from fedlas.deploy.calibration import Calibration, fit_calibration
from fedlas.deploy.card import check_card_place
from fedlas.deploy.make_card import make_card, stages_of
from fedlas.predictions.predictions import AnyPredictions
from fedlas.present.blocks import Block, text_of
from fedlas.present.calibrate import DEFAULT, is_same
from fedlas.present.card_page import card_answers, card_metrics, card_page, thresholds_table
from fedlas.present.intervals import estimates_by_stage
from fedlas.present.metric_tables import classes_of
from fedlas.stats.estimates import REPLICATES
from fedlas.stats.selective_risk import DEFAULT_RISKS


@dataclass(frozen=True, eq=False, repr=False)
class CalibrationCard:
    """What a model may be trusted with; see :func:`fedlas.card`.

    Attributes:
        content: Everything as plain values for JSON.
        stages: Test predictions before and after calibration.
        num_bins: Bins of the calibration errors.
    """

    content: dict[str, Any]
    stages: Mapping[str, AnyPredictions]
    num_bins: int = 15

    def __repr__(self) -> str:
        return self.text()

    def blocks(self, *, details: bool = False) -> list[Block]:
        """Return the sentences and tables that :meth:`text` prints."""
        content, thresholds = self.content, thresholds_table(self.content)
        parts = ", ".join(f"{size:,} {part}" for part, size in content["data"]["samples"].items())
        method = content["calibration"]["method"]
        blocks: list[Block] = [
            f"{content['model']['run']}: calibration {method}; {parts} samples; calibrated, on test:",
            *(f"{answer.question}: {answer.text}" for answer in card_answers(content)),
            thresholds if details else thresholds.where((0, 1, 4, 5, 6)),
        ]
        return [*blocks, card_metrics(content), *content["limits"]] if details else blocks

    def text(self, *, details: bool = False) -> str:
        """Return thresholds and main metrics for a terminal; ``details`` adds all metrics and the known limits."""
        return text_of(self.blocks(details=details), details=details)

    def html(self) -> str:
        """Return a page that needs no other file."""
        return card_page(self.content, self.stages, num_bins=self.num_bins)

    def save(self, path: str | Path) -> Path:
        """Write the card as JSON to ``path``, which ends in ``.json``, and as a page beside it; return its place.

        Raises:
            InputError: If another file is there, or the folder cannot be written to.
        """
        path = Path(path)
        check_card_place(path)
        page = self.html()
        write_json(path, self.content)
        return write_text(path.with_suffix(".html"), page)


def card(
    val: AnyPredictions,
    test: AnyPredictions,
    calibrator: str | Calibrator | CalibratedModel = DEFAULT,
    *,
    name: str = "model",
    data: str = "test data",
    risks: Sequence[float] = DEFAULT_RISKS,
    replicates: int = REPLICATES,
    classes: Sequence[str] | None = None,
    num_bins: int = 15,
) -> CalibrationCard:
    """Make the calibration card of a model from its predictions: thresholds for a risk, metrics and known limits.

    Args:
        val: Held-out predictions, not calibrated, on which thresholds are chosen.
        test: Others, on which everything is measured. Both may be a :class:`~fedlas.TopLabel`.
        calibrator: Name of a calibrator to fit on ``val``, or ``"none"``; a fitted one; or a calibrated model.
        name: Name of the model.
        data: Name of the test data.
        risks: Shares of wrong among accepted predictions, each in (0, 1).
        replicates: Of intervals and noise floors; 0 computes none.
        classes: Names of the classes, where they are known.
        num_bins: Bins of the calibration errors.

    Returns:
        An object that prints, and gives ``text()``, ``html()`` and ``save(path)``, which ``fedlas monitor`` reads.

    Raises:
        InputError: If the two are the same or have different numbers of classes, the calibrator cannot be used, or a
            number is out of range.
    """
    if is_same(val, test):
        fix = "Pass held-out predictions and others to test on; thresholds chosen on the test set would flatter it."
        raise InputError("card", "validation and test must be different predictions", "the same", fix)
    if classes_of(val) != classes_of(test):
        got = f"{classes_of(val)} and {classes_of(test)}"
        raise InputError("card", "both files must have the same classes", got, "Pass predictions of one model.")
    if isinstance(calibrator, str):
        calibration = fit_calibration(calibrator, val)
    else:
        fitted = calibrator.calibrator if isinstance(calibrator, CalibratedModel) else calibrator
        calibration = Calibration(fitted, fitted_on=f"other data, see {name}")
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
    return CalibrationCard(content, stages_of(test, calibration), num_bins)
