"""Fitting a calibrator and collecting its warnings and notes."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

from fedlas._core.errors import collect_warnings
from fedlas.calibrators.base import Calibrator
from fedlas.predictions import MultiLabel, Predictions, TopLabel

if TYPE_CHECKING:
    from fedlas.calibrators._fit.folds import OutOfFold
    from fedlas.calibrators.multilabel import MultiLabelCalibration

C = TypeVar("C", bound="Calibrator | MultiLabelCalibration")


def fit_with_notes(
    calibrator: C,
    val: Predictions | TopLabel | MultiLabel,
    *,
    unlabeled: Predictions | TopLabel | None = None,
    left_out: list[OutOfFold] | None = None,
    warn: Callable[[str], None] | None = None,
) -> tuple[C, tuple[str, ...]]:
    """Fit the calibrator to ``val`` and return it with its warnings and notes.

    Args:
        calibrator: One with the options of the fit; it is fitted itself.
        val: Held-out predictions with labels.
        unlabeled: Samples that a calibrator with ``adapt`` adapts to; their labels are not used.
        left_out: A list that the out-of-fold predictions of the fit are added to, if it has any.
        warn: Called with each warning after the fit; None: the notes alone have them.
    """
    notes: tuple[str, ...] = ()
    with collect_warnings() as texts:
        if (
            left_out is None
            or not isinstance(calibrator, Calibrator)
            or isinstance(val, MultiLabel)
        ):
            fit: Callable[..., Any] = calibrator.fit
            fit(val)
        else:
            left_out += calibrator._fit_out_of_fold(val)
        if isinstance(unlabeled, Predictions) and hasattr(calibrator, "adapt"):
            calibrator.adapt(unlabeled)
            notes = (
                "LabelShift: class shares are estimated from the evaluated samples, without their labels.",
            )
    if warn is not None:
        for text in texts:
            warn(text)
    return calibrator, (*notes, *texts, *getattr(calibrator, "notes", ()))
