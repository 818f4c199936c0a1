"""What a calibrator does to samples that its fit did not see: accuracy, NLL and ECE by cross-fitting."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self

import torch
from torch import Tensor

from fedlas._core.check import InputError, check_number, reason
from fedlas.calibrators import Calibrator
from fedlas.calibrators._fit.folds import stratified_folds
from fedlas.calibrators._fit.prepare import as_predictions
from fedlas.calibrators.base import fit_with_notes
from fedlas.metrics.evaluate import entries_of, values_of
from fedlas.predictions import Predictions, TopLabel
from fedlas.predictions.predictions import AnyPredictions
from fedlas.stats import noise_floor

FOLDS = 5
NUM_BINS = 15
ENOUGH = 5000
"""Folds are left out until they have this many rows together."""
_METRICS = ("nll", "ece", "accuracy")


@dataclass(frozen=True)
class CrossFit:
    """Metrics of rows that were left out of the fit, before and after calibration.

    Attributes:
        rows: Rows that were left out, each once.
        folds: Folds of the cross-fitting.
        before: Metrics by registry name, as predicted.
        after: The same, calibrated by fits on the other folds.
        floor: Mean ECE of a perfectly calibrated model with the confidences after.
    """

    rows: int
    folds: int
    before: Mapping[str, float]
    after: Mapping[str, float]
    floor: float

    def __str__(self) -> str:
        """Return one sentence."""
        parts = [f"ECE {self._percent('ece')} (of a calibrated model {100 * self.floor:.2f})"]
        if "nll" in self.before:
            parts.insert(0, f"NLL {self.before['nll']:.4f} -> {self.after['nll']:.4f}")
            parts.append(f"accuracy {self._percent('accuracy')}")
        worse = self.after.get("nll", 0) > self.before.get("nll", 0)
        advice = " It does not help them: more held-out rows may." if worse else ""
        return f"On {self.rows:,} rows left out of the fit in turn: {', '.join(parts)}.{advice}"

    def _percent(self, name: str) -> str:
        return f"{100 * self.before[name]:.2f} -> {100 * self.after[name]:.2f} %"

    def plain(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return asdict(self)

    @classmethod
    def read(cls, content: Mapping[str, Any]) -> Self:
        """Read the result of :meth:`plain`.

        Raises:
            ValueError: If it is something else.
        """
        before, after = (
            {str(k): _number(v) for k, v in content[name].items()} for name in ("before", "after")
        )
        if not {"ece", "accuracy"} <= before.keys() or before.keys() != after.keys():
            raise ValueError("metrics before and after must be the same")
        return cls(
            int(content["rows"]), int(content["folds"]), before, after, _number(content["floor"])
        )


def cross_fit(calibrator: Calibrator, val: AnyPredictions) -> CrossFit | None:
    """Fit on all folds but one, calibrate that one, and measure; None for fewer than two distinct rows.

    Args:
        calibrator: One with the options of the fit; it is not changed.
        val: Held-out predictions with labels.
    """
    both = as_predictions(val)
    folds = stratified_folds(both.logits, both.target, FOLDS, both.weights)
    if int(folds.max()) < 1:
        return None
    before: list[AnyPredictions] = []
    after: list[AnyPredictions] = []
    for fold in range(int(folds.max()) + 1):
        left_out = folds == fold
        fitted, _ = fit_with_notes(copy.deepcopy(calibrator), _rows(val, ~left_out))
        before.append(_rows(val, left_out))
        after.append(fitted.transform(before[-1]))
        if sum(part.num_samples for part in before) >= ENOUGH:
            break
    first = _joined(before)
    last = _joined(after)
    names = [name for name in _METRICS if name != "nll" or isinstance(val, Predictions)]
    floor = noise_floor(last, replicates=200).mean if last.num_samples > 1 else 0.0
    entries = entries_of(names)
    values = [values_of(part, entries, NUM_BINS) for part in (first, last)]
    return CrossFit(first.num_samples, int(folds.max()) + 1, values[0], values[1], floor)


def _rows(val: AnyPredictions, mask: Tensor) -> AnyPredictions:
    if isinstance(val, Predictions):
        return val.rows(mask)
    others = {
        name: value[mask]
        for name in ("weights", "features")
        if (value := getattr(val, name)) is not None
    }
    return TopLabel(val.confidence[mask], val.correct[mask], **others)


def _joined(parts: list[AnyPredictions]) -> AnyPredictions:
    def column(name: str) -> Tensor | None:
        values = [getattr(part, name) for part in parts]
        return None if values[0] is None else torch.cat(values)

    if isinstance(parts[0], Predictions):
        return Predictions(column("logits"), column("target"), weights=column("weights"))
    return TopLabel(column("confidence"), column("correct"), column("weights"))


def _number(value: Any) -> float:
    """Return a number of a file, whose reader names the file."""
    try:
        return check_number("a metric", value)
    except InputError as error:
        raise ValueError(reason(error)) from error
