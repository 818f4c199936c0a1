"""Fitting a calibrator and collecting its warnings and notes."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from fedlas._core.errors import collect_warnings
from fedlas._core.ops import logsumexp, sigmoid
from fedlas._core.text import join_words
from fedlas.calibrators.base import Calibrator
from fedlas.predictions import MultiLabel, Predictions, TopLabel
from fedlas.predictions.probabilities import is_zero_or_one

if TYPE_CHECKING:
    from fedlas._core.types import FloatArray
    from fedlas.calibrators._fit.folds import OutOfFold
    from fedlas.calibrators.multilabel import MultiLabelCalibration

_MANY = 0.01
"""Share of probabilities of exactly 0 or 1 from which a note says what they become."""
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
    notes = (*notes, *texts, *getattr(calibrator, "notes", ()))
    return calibrator, (*notes, *_certain_rows_notes(calibrator, val))


def _certain_rows_notes(
    calibrator: Calibrator | MultiLabelCalibration, val: Predictions | TopLabel | MultiLabel
) -> list[str]:
    """Return a note on many probabilities of exactly 0 or 1, and what they become; an empty list if they are few."""
    if isinstance(val, TopLabel) or (isinstance(val, Predictions) and val.num_classes < 2):
        return []
    log_odds, subject = _log_odds_and_subject(val, val)
    classes = val.num_classes if isinstance(val, Predictions) else 2
    is_certain = is_zero_or_one(log_odds, classes)
    share = float(is_certain.mean())
    if share < _MANY:
        return []
    rows = is_certain.reshape(len(is_certain), -1).any(axis=1)
    some: Any = val.rows(rows)
    after = sigmoid(_log_odds_and_subject(calibrator.transform(some), some)[0])
    ends = [
        f"{value} becomes {_format_range(after[is_value])}"
        for value, sign in ((0, -1), (1, 1))
        if (is_value := is_certain[rows] & (sign * log_odds[rows] > 0)).any()
    ]
    return [
        f"{int(is_certain.sum()):,} of {is_certain.size:,} probabilities {subject} ({100 * share:.0f} %) are "
        f"exactly 0 or 1, which hides how sure the model is. Calibrated, {join_words(ends)}."
    ]


def _log_odds_and_subject(
    predictions: Predictions | MultiLabel, before: Predictions | MultiLabel
) -> tuple[FloatArray, str]:
    """Return log-odds ``(N,)`` of the second of two classes, or the class predicted before, or labels ``(N, L)``."""
    logits = predictions.logits.astype(np.float64)
    if isinstance(before, MultiLabel):
        return logits, "of labels"
    if before.num_classes == 2:
        return logits[:, 1] - logits[:, 0], "of the event"
    rows, top = np.arange(len(logits)), before.predicted
    of_top = logits[rows, top]
    logits[rows, top] = -np.inf
    return of_top - logsumexp(logits), "of the predicted class"


def _format_range(values: FloatArray) -> str:
    """Return the smallest and the largest value as text, or one if they are the same."""
    ends = [float(end) for end in (values.min(), values.max())]
    low, high = (">0.999" if 0.9995 <= end < 1.0 else f"{end:.3g}" for end in ends)
    return low if low == high else f"{low} to {high}"
