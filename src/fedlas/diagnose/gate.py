"""Diagnostics of the gate: directions of samples, how often they flip, and the resulting strengths."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fedlas._core.check import InputError, check_number, describe

STRENGTH_QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
"""Quantiles of the strengths in a report."""


def replace_non_finite(content: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``content`` with None in place of NaN and infinities, for JSON."""
    return {
        k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in content.items()
    }


@dataclass(frozen=True)
class GateReport:
    """Summary of the directions and strengths of samples.

    Attributes:
        plus: Share of samples whose strength grows with the feature norm (psi = +1), in ``[0, 1]``.
        minus: Share of samples with psi = -1.
        zero: Share of samples with psi = 0.
        alpha: Mean strength ``alpha_i``.
        alpha_std: Standard deviation of the strength; 0 if every sample has the same.
        alpha_quantiles: Quantiles of the strength at :data:`STRENGTH_QUANTILES`.
        alpha_correct: Mean strength of the samples that the model predicts right; NaN if there are none.
        alpha_wrong: Mean strength of the samples that it predicts wrong; NaN if there are none.
        correlation: Pearson correlation of strength and correctness; NaN if one of them does not vary.
        saturated: Share of samples whose strength lies within 2 % of an end of ``(0, 2 alpha)``.
    """

    plus: float
    minus: float
    zero: float
    alpha: float
    alpha_std: float
    alpha_quantiles: tuple[float, ...]
    alpha_correct: float
    alpha_wrong: float
    correlation: float
    saturated: float

    def as_dict(self) -> dict[str, object]:
        """Return the report as a dict for JSON: NaN becomes None, and quantiles a list."""
        return replace_non_finite(asdict(self) | {"alpha_quantiles": list(self.alpha_quantiles)})


def gate_report(psi: Tensor, alpha_i: Tensor, correct: Tensor, *, alpha: float) -> GateReport:
    """Summarize directions and strengths of samples.

    Args:
        psi: Directions ``(N,)`` in {-1, 0, +1}.
        alpha_i: Strengths ``(N,)`` in ``[0, 2 alpha]``.
        correct: Whether the model predicts each sample right ``(N,)``, bool.
        alpha: Strength at the mean feature norm.

    Raises:
        InputError: For other shapes, or no samples.

    Example:
        >>> psi = torch.tensor([1.0, 1.0, 1.0, -1.0])
        >>> alpha_i = torch.tensor([0.05, 0.06, 0.07, 0.02])
        >>> report = gate_report(psi, alpha_i, torch.tensor([True, True, False, True]), alpha=0.05)
        >>> report.plus, round(report.alpha, 3), round(report.alpha_wrong, 3)
        (0.75, 0.05, 0.07)
    """
    shapes = {part.shape if isinstance(part, Tensor) else None for part in (psi, alpha_i, correct)}
    if (
        len(shapes) > 1
        or None in shapes
        or psi.ndim != 1
        or not len(psi)
        or psi.is_complex()
        or alpha_i.is_complex()
    ):
        raise InputError(
            "psi, alpha_i and correct must have one shape (N,), N at least 1",
            ", ".join(map(describe, (psi, alpha_i, correct))),
            "Pass one value of each per sample.",
        )
    check_number("alpha", alpha, low=0)
    psi = psi.float()
    strength = alpha_i.double()
    right = correct.bool()
    # Strengths lie in [0, 2 alpha]; the outer 2 % at either end count as saturated.
    margin = 0.02 * 2 * alpha
    # NumPy's: torch's takes at most 16.7 million elements, and a dense training set has more.
    quantiles = np.quantile(strength.cpu().numpy(), STRENGTH_QUANTILES)
    return GateReport(
        plus=float((psi > 0).double().mean()),
        minus=float((psi < 0).double().mean()),
        zero=float((psi == 0).double().mean()),
        alpha=float(strength.mean()),
        alpha_std=float(strength.std(correction=0)),
        alpha_quantiles=tuple(map(float, quantiles)),
        alpha_correct=float(strength[right].mean()),  # NaN if there are none
        alpha_wrong=float(strength[~right].mean()),
        correlation=_pearson(strength, right.double()),
        saturated=float(((strength <= margin) | (strength >= 2 * alpha - margin)).double().mean()),
    )


def _pearson(x: Tensor, y: Tensor) -> float:
    # A float32 constant may vary in its last bit once it is averaged, which is no spread.
    if (
        float(x.std(correction=0)) <= 1e-6 * float(x.abs().mean())
        or float(y.std(correction=0)) == 0
    ):
        return math.nan
    return float(torch.corrcoef(torch.stack((x, y)))[0, 1])


def flipped_share(before: Tensor, after: Tensor) -> float:
    """Return the share of samples whose direction changed, among samples seen both times.

    Args:
        before: Directions ``(N,)``.
        after: Later directions of the same samples ``(N,)``.

    Returns:
        A fraction in ``[0, 1]``; NaN if no sample was seen both times.
    """
    common = (before != DirectionRecorder.UNSEEN) & (after != DirectionRecorder.UNSEEN)
    return float((before != after)[common].double().mean())


class DirectionRecorder:
    """Recorder of the gate's direction for each training sample, epoch by epoch.

    State:
        :meth:`record` collects on the device of its arguments, without waiting for it. :meth:`end_epoch` compares with
        the epoch before. One byte per sample is kept.
    """

    UNSEEN = 2

    def __init__(self) -> None:
        self.last_directions = torch.empty(0, dtype=torch.int8)
        self._batches: list[tuple[Tensor, Tensor]] = []

    def record(self, psi: Tensor, index: Tensor) -> None:
        """Record the directions ``psi (B,)`` of the training samples ``index (B,)``."""
        self._batches.append((index.detach(), psi.detach().to(torch.int8)))

    def pop_directions(self) -> Tensor:
        """Return and clear the directions ``(N,)`` recorded this epoch, :attr:`UNSEEN` for samples not seen."""
        if not self._batches:
            return torch.empty(0, dtype=torch.int8)
        index, psi = (torch.cat(parts).cpu() for parts in zip(*self._batches, strict=True))
        self._batches = []
        now = torch.full((int(index.max()) + 1,), self.UNSEEN, dtype=torch.int8)
        now[index] = psi
        return now

    def end_epoch(self, parts: Sequence[Tensor] | None = None) -> float:
        """End the epoch; return the share of samples whose direction flipped since the last epoch, NaN after the first.

        Args:
            parts: What :meth:`pop_directions` returned in each process; None means this process alone.
        """
        parts = [self.pop_directions()] if parts is None else parts
        now = torch.full((max(map(len, parts)),), self.UNSEEN, dtype=torch.int8)
        for part in parts:
            # UNSEEN is above every direction
            now[: len(part)] = torch.minimum(now[: len(part)], part)
        shared = min(len(self.last_directions), len(now))
        flips = flipped_share(self.last_directions[:shared], now[:shared])
        self.last_directions = now
        return flips

    def state_dict(self) -> dict[str, Tensor]:
        """Return the directions of the last epoch, for a checkpoint."""
        return {"before": self.last_directions}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Restore the state that :meth:`state_dict` returned.

        Raises:
            KeyError: If it is missing.
            ValueError: If it is something else.
        """
        before = state["before"]
        if (
            not isinstance(before, Tensor)
            or before.ndim != 1
            or before.dtype != self.last_directions.dtype
        ):
            raise ValueError(f"before is {describe(before)}")
        self.last_directions = before
