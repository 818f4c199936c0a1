"""What a calibration did: accuracy, NLL and ECE on test data, without and with it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from fedlas._core.check import warn_user
from fedlas.calibrators import Calibrator
from fedlas.features.read import Reader
from fedlas.metrics import StreamingMetrics, evaluate, expected_calibration_error
from fedlas.objective.runner import Runner
from fedlas.predictions import Predictions
from fedlas.stats import noise_floor

__all__ = ["BeforeAfter", "Measured"]

_METRICS = ("accuracy", "nll", "ece")
_CERTAIN = 1.96
"""Standard errors by which a rise of the NLL is more than chance."""


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
        """Return a table of four lines."""
        columns = [["before", *_texts(self.before)], ["after", *_texts(self.after)]]
        heads = ["", "accuracy", "NLL", "ECE"]
        lines = [
            f"{head:<10}{before:>10}{after:>10}"
            for head, before, after in zip(heads, *columns, strict=True)
        ]
        if self.after.floor is not None:
            lines[-1] += f"   (of a perfectly calibrated model: {100 * self.after.floor:.2f} %)"
        lines[0] += f"   {self.samples:,} samples"
        return "\n".join(line.rstrip() for line in lines)

    __repr__ = __str__


def in_sample(calibrator: Calibrator, val: Predictions) -> str:
    """Return one line: how many samples a calibrator was fitted on, and their ECE before and after."""
    before, after = (expected_calibration_error(part) for part in (val, calibrator.transform(val)))
    return f"{val.num_samples:,} samples, ECE {100 * before:.2f} % before, {100 * after:.2f} % after on them"


def measured_both(before: Predictions, after: Predictions) -> BeforeAfter:
    """Return metrics of the same samples without and with calibration; warn if the NLL rises by more than chance."""

    def measured(part: Predictions) -> Measured:
        values = evaluate(part)
        floor = noise_floor(part).mean if part.num_samples > 1 else None
        return Measured(values["accuracy"], values["nll"], values["ece"], floor)

    nll = [
        cross_entropy(part.logits.double(), part.target, reduction="none")
        for part in (before, after)
    ]
    rise = nll[1] - nll[0]
    mean = float(rise.mean())
    error = float(rise.std()) / len(rise) ** 0.5
    if mean > _CERTAIN * error:
        warn_user(
            f"calibration raises the NLL of these samples by {mean:.4f} (standard error {error:.4f}). Calibrate on "
            "more samples like these, or use the model without it."
        )
    return BeforeAfter(measured(before), measured(after), before.num_samples)


def before_and_after(
    model: nn.Module,
    calibration: nn.Module,
    loader: Iterable[Any],
    *,
    device: str | torch.device | None,
    ignore_index: int | None,
    reader: Reader,
) -> BeforeAfter:
    """Measure both stages in one pass over the loader.

    Raises:
        InputError: As :func:`fedlas.calibrate`.
    """
    runner = Runner(
        model, loader, device=device, reader=reader, ignore_index=ignore_index, labeled=True
    )
    where = next((buffer.device for buffer in calibration.buffers()), None)
    stages: list[StreamingMetrics] = []
    batches: list[tuple[Tensor, Tensor, Tensor]] = []
    for rows in runner:
        logits = rows["logits"]
        target = rows["target"]
        parts = [
            rows[name].to(where or logits.device) for name in ("logits", "features") if name in rows
        ]
        with torch.no_grad():
            after = calibration(*parts).cpu()
        # Positions of dense outputs are many, and not independent: no floor, no standard error, and none is kept.
        if not runner.dense:
            batches.append((logits, after, target))
            continue
        stages = stages or [StreamingMetrics(logits.shape[1], metrics=_METRICS) for _ in range(2)]
        for stage, scores in zip(stages, (logits, after), strict=True):
            stage.update(scores, target)
    if batches:
        before, after, target = (torch.cat(column) for column in zip(*batches, strict=True))
        return measured_both(Predictions(before, target), Predictions(after, target))
    before_, after_ = (Measured(floor=None, **stage.compute()) for stage in stages)
    return BeforeAfter(before_, after_, stages[0].num_samples)


def _texts(measured: Measured) -> list[str]:
    return [
        f"{100 * measured.accuracy:.2f} %",
        f"{measured.nll:.4f}",
        f"{100 * measured.ece:.2f} %",
    ]
