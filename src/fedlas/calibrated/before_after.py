"""What a calibration did: accuracy, NLL and ECE on test data, without and with it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from fedlas.calibrated.batches import Outputs
from fedlas.calibrators import Calibrator
from fedlas.metrics import StreamingMetrics, evaluate, expected_calibration_error
from fedlas.predictions import Predictions
from fedlas.stats import noise_floor

__all__ = ["BeforeAfter", "Measured"]

_METRICS = ("accuracy", "nll", "ece")


@dataclass(frozen=True)
class Measured:
    """Metrics of one stage.

    Attributes:
        accuracy: Share of right predictions.
        nll: Mean negative log-likelihood, in nats.
        ece: Expected calibration error, 15 bins of equal width.
        floor: Mean ECE of a perfectly calibrated model with the same confidences; None for dense outputs, whose
            positions are not independent.
    """

    accuracy: float
    nll: float
    ece: float
    floor: float | None


@dataclass(frozen=True, repr=False)
class BeforeAfter:
    """Metrics of a model without and with its calibration; printed, a table.

    Attributes:
        before: Without.
        after: With.
        samples: Samples (positions of dense outputs) that were measured.
    """

    before: Measured
    after: Measured
    samples: int

    def __str__(self) -> str:
        """A table of four lines."""
        columns = [["before", *_texts(self.before)], ["after", *_texts(self.after)]]
        heads = ["", "accuracy", "NLL", "ECE"]
        lines = [f"{head:<10}{before:>10}{after:>10}" for head, before, after in zip(heads, *columns, strict=True)]
        if self.after.floor is not None:
            lines[-1] += f"   (of a perfectly calibrated model: {100 * self.after.floor:.2f} %)"
        lines[0] += f"   {self.samples:,} samples"
        return "\n".join(line.rstrip() for line in lines)

    __repr__ = __str__


def in_sample(calibrator: Calibrator, val: Predictions) -> str:
    """One line: how many samples a calibrator was fitted on, and their ECE before and after."""
    before, after = (expected_calibration_error(part) for part in (val, calibrator.transform(val)))
    return f"{val.num_samples:,} samples, ECE {100 * before:.2f} % before, {100 * after:.2f} % after on them"


def measured_both(before: Predictions, after: Predictions) -> BeforeAfter:
    """Metrics of the same samples without and with calibration."""

    def measured(part: Predictions) -> Measured:
        values = evaluate(part)
        return Measured(values["accuracy"], values["nll"], values["ece"], noise_floor(part).mean)

    return BeforeAfter(measured(before), measured(after), before.num_samples)


def before_and_after(
    model: nn.Module,
    calibration: nn.Module,
    loader: Iterable[Any],
    *,
    device: str | torch.device | None,
    ignore_index: int | None,
    tap: Any,
) -> BeforeAfter:
    """Measure both stages in one pass over the loader.

    Raises:
        InputError: As :func:`fedlas.calibrate`.
    """
    owner = "CalibratedModel.before_after"
    outputs = Outputs(owner, model, loader, device=device, ignore_index=ignore_index, tap=tap)
    stages: list[StreamingMetrics] = []
    logits_by_stage: tuple[list[Tensor], list[Tensor]] = ([], [])
    targets: list[Tensor] = []
    for logits, target, *features in outputs:
        with torch.no_grad():
            where = next((buffer.device for buffer in calibration.buffers()), logits.device)
            after = calibration(*(part.to(where) for part in (logits, *features))).cpu()
        if not stages:
            stages = [StreamingMetrics(logits.shape[1], metrics=_METRICS) for _ in range(2)]
        for stage, rows in zip(stages, (logits, after), strict=True):
            stage.update(rows, target)
        # Only samples that are independent have a floor, and memory holds those of a classifier.
        if not outputs.dense:
            targets.append(target)
            for kept, rows in zip(logits_by_stage, (logits, after), strict=True):
                kept.append(rows)
    floors = [_floor(kept, targets) for kept in logits_by_stage]
    before, after_ = (Measured(floor=floor, **stage.compute()) for stage, floor in zip(stages, floors, strict=True))
    return BeforeAfter(before, after_, stages[0].num_samples)


def _floor(logits: list[Tensor], targets: list[Tensor]) -> float | None:
    target = torch.cat(targets) if targets else torch.empty(0)
    return noise_floor(Predictions(torch.cat(logits), target)).mean if len(target) > 1 else None


def _texts(measured: Measured) -> list[str]:
    return [f"{100 * measured.accuracy:.2f} %", f"{measured.nll:.4f}", f"{100 * measured.ece:.2f} %"]
