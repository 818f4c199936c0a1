"""Probability of classes without a validation sample, bounded by a few samples."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from fedlas.calibrators._fit.buffers import BufferModule, float64_tensor
from fedlas.calibrators._fit.state import require_valid

_MIN_LOG_FACTOR = -30.0
"""Smallest log factor, at which absent classes have practically no probability."""
_MAX_HALVINGS = 60


class AbsentShare(BufferModule):
    """Map that bounds the probability of classes without a validation sample.

    ``p_k = c r_k / (1 - r_A + c r_A)`` for the absent classes A, where ``r`` is the mean of ``softmax(z / T)`` and the
    probabilities of the mixture; the other classes keep their ratios. The mean is used since temperature scaling is
    uninformative where a model gives exactly 0, and members fitted without a class underestimate it.

    Attributes:
        absent: 1 for absent classes, else 0 ``(C,)``.
        temperature: ``T ()``.
        log_factor_of_both: ``log c ()``, at most 0.
    """

    shapes: ClassVar = {"absent": "C", "temperature": "", "log_factor_of_both": ""}

    def forward(self, rows: Tensor, log_probs: Tensor) -> Tensor:
        """Return log-probabilities ``(n, C)`` for logits ``(n, C)`` and the mixture's log-probabilities ``(n, C)``."""
        is_absent = self.absent > 0
        summed = _log_summed_probs(rows, self.temperature, log_probs)
        rare = (summed + self.absent * self.log_factor_of_both).log_softmax(dim=1)
        common = rare.masked_fill(is_absent, -torch.inf).logsumexp(dim=1, keepdim=True)
        others = log_probs.masked_fill(is_absent, -torch.inf).log_softmax(dim=1)
        return torch.where(is_absent, rare, others + common)

    def check(self, classes: int) -> None:
        """Raise ValueError for wrong shapes, a mask of no class or all classes, or numbers out of range."""
        super().check(classes)
        flags = bool(((self.absent == 0) | (self.absent == 1)).all())
        require_valid(
            flags and 0 < int(self.absent.sum()) < classes,
            "absent must mark at least one class, but not all",
        )
        require_valid(float(self.temperature) > 0, "temperature must be above 0")
        require_valid(float(self.log_factor_of_both) <= 0, "log_factor_of_both must be at most 0")


def _log_summed_probs(rows: Tensor, temperature: Tensor | float, log_probs: Tensor) -> Tensor:
    """Return ``log(p_temperature + p_raw)``, from logits and the log-probabilities ``log p_raw``."""
    scaled = (rows / temperature).log_softmax(dim=1)
    highest = torch.maximum(scaled, log_probs)  # logaddexp has no float64 in ONNX Runtime
    return highest + torch.log1p(torch.exp(-(scaled - log_probs).abs()))


def fit_absent_share(
    logits: Tensor,
    log_probs: Tensor,
    is_present: Tensor,
    weights: Tensor,
    temperature: float,
    max_share: float,
) -> tuple[AbsentShare, float]:
    """Return a map whose absent classes get at most ``max_share`` of the mean probability, and their share.

    Args:
        logits: ``(n, C)`` float64, of samples held out.
        log_probs: Log-probabilities of the mixture for these samples ``(n, C)``.
        is_present: Mask of the classes with a sample ``(C,)``.
        weights: ``(n,)``.
        temperature: Temperature of temperature scaling, above 0.
        max_share: Largest mean probability of all absent classes together, above 0.
    """
    summed = _log_summed_probs(logits, temperature, log_probs)
    rare = summed.masked_fill(is_present, -torch.inf).logsumexp(dim=1)
    common = summed.masked_fill(~is_present, -torch.inf).logsumexp(dim=1)
    odds = rare - common
    total = weights.sum()

    def share(log_factor: float) -> float:
        return float(weights @ (odds + log_factor).sigmoid() / total)

    goal = min(share(0.0), max_share)
    high = 0.0
    low = _MIN_LOG_FACTOR if share(0.0) > goal else 0.0
    for _ in range(_MAX_HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if share(middle) <= goal else (low, middle)
    mask = (~is_present).double()
    return AbsentShare(
        absent=mask, temperature=float64_tensor(temperature), log_factor_of_both=float64_tensor(low)
    ), share(low)
