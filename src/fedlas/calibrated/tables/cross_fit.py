"""What a fit makes of rows that it did not see: one fold after another is left out, calibrated and measured."""

from __future__ import annotations

import copy
from dataclasses import replace

import torch
from torch import Tensor

from fedlas._core.errors import collected_warnings
from fedlas.calibrated.before_after import BeforeAfter, measured_left_out
from fedlas.calibrators import Calibrator
from fedlas.calibrators._fit.folds import folds_of, in_order
from fedlas.calibrators._fit.rowwise import as_predictions
from fedlas.calibrators.fit_notes import fit_with_notes
from fedlas.predictions import Predictions
from fedlas.predictions.any_predictions import AnyPredictions

_FOLDS = 5
_ENOUGH = 5000
"""Folds are left out until they have this many rows together."""


def fit_and_check(
    calibrator: Calibrator, val: AnyPredictions
) -> tuple[Calibrator, tuple[str, ...], BeforeAfter | None]:
    """Return the fitted calibrator, its notes, and metrics of rows that were left out in turn.

    A mixture holds folds out to find its weights; what it predicts for each, with weights of the other folds, is
    measured. Any other calibrator is fitted again without each fold.

    Args:
        calibrator: One with the options of the fit.
        val: With labels; each has some weight.
    """
    with collected_warnings() as texts:
        left_out = calibrator._fit_with_left_out(val)
    notes = (*texts, *getattr(calibrator, "notes", ()))
    if not left_out or not isinstance(val, Predictions):
        return calibrator, notes, cross_fit(calibrator, val)
    enough = [0]
    for each in left_out:
        if enough[-1] < _ENOUGH:
            enough.append(enough[-1] + len(each.rows))
    first = val.rows(torch.cat([each.rows for each in left_out])[: enough[-1]])
    after = torch.cat([each.log_probs for each in left_out])[: enough[-1]]
    last = first.with_logits(after)
    return calibrator, notes, measured_left_out(first, last, len(left_out), in_time=in_order(val))


def cross_fit(calibrator: Calibrator, val: AnyPredictions) -> BeforeAfter | None:
    """Fit on all folds but one, calibrate that one, and measure; None for fewer than two distinct rows.

    Args:
        calibrator: One with the options of the fit; it is not changed.
        val: Held-out predictions with labels.
    """
    both = as_predictions(val)
    folds = folds_of(both, _FOLDS, weights=both.weights)
    if not folds.count:
        return None
    rows: list[Tensor] = []
    after: list[Tensor] = []
    for fold in range(folds.count):
        left_out = folds.test(fold)
        fitted, _ = fit_with_notes(copy.deepcopy(calibrator), val.rows(folds.train(fold)))
        rows.append(left_out.nonzero()[:, 0])
        part = fitted.transform(val.rows(left_out))
        after.append(part.logits if isinstance(part, Predictions) else part.confidence)
        if sum(map(len, rows)) >= _ENOUGH:
            break
    first = val.rows(torch.cat(rows))
    last = (
        first.with_logits(torch.cat(after))
        if isinstance(first, Predictions)
        else replace(first, confidence=torch.cat(after))
    )
    return measured_left_out(first, last, folds.count, in_time=folds.in_time)
