"""Out-of-fold metrics of a calibrator: each fold is calibrated by a fit on the other folds."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar

from fedlas.calibrators import Calibrator, MultiLabelCalibration
from fedlas.calibrators._fit.rowwise import to_predictions
from fedlas.predictions import MultiLabel, Predictions, TopLabel
from fedlas.predictions.sample_values import SAMPLE_VALUES
from fedlas.predictions.tensors import binary_logits

if TYPE_CHECKING:
    from torch import Tensor

    from fedlas.calibrated.before_after import BeforeAfter
    from fedlas.calibrated.tables.word_shares import PhraseRows
    from fedlas.calibrators._fit.folds import OutOfFold
    from fedlas.predictions.any_predictions import AnyPredictions

C = TypeVar("C", bound=Calibrator | MultiLabelCalibration)
_FOLDS = 5
_ENOUGH = 5000
"""Number of out-of-fold rows after which no further fold is calibrated."""


def fit_and_check(
    calibrator: C, val: AnyPredictions | MultiLabel, phrases: PhraseRows | None = None
) -> tuple[C, tuple[str, ...], BeforeAfter | None]:
    """Fit a calibrator and return it with the notes of its fit and its out-of-fold metrics.

    A mixture holds folds out to find its weights; what it predicts for each, with weights of the other folds, is
    measured. Any other calibrator is fitted again without each fold.

    Args:
        calibrator: One with the options of the fit.
        val: With labels; each has some weight.
        phrases: Phrases whose confidences were learned from ``val``; they are learned again without each fold.
    """
    import torch

    from fedlas.calibrated.before_after import measured_left_out
    from fedlas.calibrators._fit.folds import has_time_order
    from fedlas.calibrators.fit_notes import fit_with_notes

    left_out: list[OutOfFold] = []
    calibrator, notes = fit_with_notes(calibrator, val, left_out=left_out)
    if not left_out or not isinstance(val, Predictions):
        return calibrator, notes, cross_fit(calibrator, val, phrases)
    enough = [0]
    for each in left_out:
        if enough[-1] < _ENOUGH:
            enough.append(enough[-1] + len(each.rows))
    first = val.rows(torch.cat([each.rows for each in left_out])[: enough[-1]])
    after = torch.cat([each.log_probs for each in left_out])[: enough[-1]]
    last = first.with_logits(after)
    return (
        calibrator,
        notes,
        measured_left_out(first, last, len(left_out), in_time=has_time_order(val)),
    )


def cross_fit(
    calibrator: Calibrator | MultiLabelCalibration,
    val: AnyPredictions | MultiLabel,
    phrases: PhraseRows | None = None,
) -> BeforeAfter | None:
    """Return out-of-fold metrics before and after calibration, or None for fewer than two distinct rows.

    Args:
        calibrator: One with the options of the fit; it is not changed.
        val: Held-out predictions with labels.
        phrases: Phrases whose confidences are learned from the rows: for each fold, from the other folds. A row of the
            fold whose phrase these lack states nothing, and is not measured.
    """
    import torch

    from fedlas.calibrated.before_after import measured_left_out
    from fedlas.calibrators._fit.folds import make_folds
    from fedlas.calibrators.fit_notes import fit_with_notes

    both = _any_label_predictions(val) if isinstance(val, MultiLabel) else to_predictions(val)
    folds = make_folds(both, _FOLDS, weights=both.tensors().weights)
    if not folds.count:
        return None
    rows: list[Tensor] = []
    stated: list[Tensor] = []
    after: list[Tensor] = []
    for fold in range(folds.count):
        left_out, train, fold_val = folds.test(fold), folds.train(fold), val
        rows_of_fit = val
        if phrases is not None and isinstance(val, TopLabel):
            learned = phrases.learn(val, train.numpy())
            fold_val, is_stated = phrases.restate(val, learned)
            left_out = left_out & torch.from_numpy(is_stated)
            rows_of_fit = phrases.restate_out_of_fold(val, train.numpy())
        fitted, _ = fit_with_notes(copy.deepcopy(calibrator), rows_of_fit.rows(train))
        rows.append(left_out.nonzero()[:, 0])
        transform: Callable[..., Any] = fitted.transform
        before = fold_val.rows(left_out)
        if isinstance(before, TopLabel):
            stated.append(before.tensors().confidence)
        part = transform(before)
        after.append(
            part.tensors().confidence if isinstance(part, TopLabel) else part.tensors().logits
        )
        if sum(map(len, rows)) >= _ENOUGH:
            break
    first = val.rows(torch.cat(rows))
    if isinstance(first, TopLabel):
        first = replace(first, confidence=torch.cat(stated))
        last: AnyPredictions | MultiLabel = replace(first, confidence=torch.cat(after))
    else:
        last = first.with_logits(torch.cat(after))
    return measured_left_out(first, last, folds.count, in_time=folds.in_time)


def _any_label_predictions(val: MultiLabel) -> Predictions:
    """Return two-class predictions of whether a sample has any label, for stratified folds of multi-label samples."""
    mean = val.tensors().logits.mean(dim=1)
    others = {name: getattr(val, name) for name in SAMPLE_VALUES}
    has_label = (val.tensors().target == 1).any(dim=1).long()
    return Predictions(binary_logits(mean), has_label, **others)
