"""Fitting a calibrator and collecting its warnings and notes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from fedlas._core.errors import collect_warnings
from fedlas.calibrators.base import Calibrator
from fedlas.calibrators.multilabel import MultiLabelCalibration
from fedlas.predictions import MultiLabel, Predictions, TopLabel

C = TypeVar("C", bound=Calibrator | MultiLabelCalibration)


def fit_with_notes(
    calibrator: C,
    val: Predictions | TopLabel | MultiLabel,
    *,
    unlabeled: Predictions | TopLabel | None = None,
) -> tuple[C, tuple[str, ...]]:
    """Fit the calibrator to ``val`` and return it with its warnings and notes.

    If ``unlabeled`` is given and the calibrator has ``adapt``, it adapts to those samples; their labels are not used.
    """
    notes: tuple[str, ...] = ()
    with collect_warnings() as texts:
        fit: Callable[..., Any] = calibrator.fit
        fit(val)
        if isinstance(unlabeled, Predictions) and hasattr(calibrator, "adapt"):
            calibrator.adapt(unlabeled)
            notes = (
                "LabelShift: class shares are estimated from the evaluated samples, without their labels.",
            )
    return calibrator, (*notes, *texts, *getattr(calibrator, "notes", ()))
