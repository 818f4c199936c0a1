"""The share of classes without a validation sample: at most that of a few samples."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from fedlas.calibrators._fit.state import Numbers, doubles, must

_LOWEST = -30.0
"""Least log of the factor, which leaves nothing of any share."""
_HALVINGS = 60


class AbsentShare(Numbers):
    """Probabilities of classes without a validation sample: half from temperature scaling, at lower odds.

    ``p_k = c r_k / (1 - r_A + c r_A)`` for the absent classes A, where ``r`` is the mean of ``softmax(z / T)`` and of
    the probabilities before; the other classes share the rest as before. Where a model gives exactly 0, ``z / T`` says
    nothing of a class, and members fitted without a class say too little of it.

    Attributes:
        absent: 1 for absent classes, else 0 ``(C,)``.
        temperature: ``T ()``.
        log_factor_of_both: ``log c ()``, at most 0.
    """

    shapes: ClassVar = {"absent": "C", "temperature": "", "log_factor_of_both": ""}

    def forward(self, rows: Tensor, log_probs: Tensor) -> Tensor:
        """Return log-probabilities of logits ``(n, C)`` and of the log-probabilities before ``(n, C)``."""
        is_absent = self.absent > 0
        both = _of_both(rows, self.temperature, log_probs)
        rare = (both + self.absent * self.log_factor_of_both).log_softmax(dim=1)
        common = rare.masked_fill(is_absent, -torch.inf).logsumexp(dim=1, keepdim=True)
        others = log_probs.masked_fill(is_absent, -torch.inf).log_softmax(dim=1)
        return torch.where(is_absent, rare, others + common)

    def check(self, classes: int) -> None:
        """Refuse a mask of no class or of all, and numbers that no fit gives."""
        super().check(classes)
        flags = bool(((self.absent == 0) | (self.absent == 1)).all())
        must(flags and 0 < int(self.absent.sum()) < classes, "absent must mark some classes")
        must(float(self.temperature) > 0, "temperature must be above 0")
        must(float(self.log_factor_of_both) <= 0, "log_factor_of_both must be at most 0")


def _of_both(rows: Tensor, temperature: Tensor | float, log_probs: Tensor) -> Tensor:
    """Return twice the mean of the probabilities of temperature scaling and of those before, as logarithms."""
    scaled = (rows / temperature).log_softmax(dim=1)
    highest = torch.maximum(scaled, log_probs)  # logaddexp has no float64 in ONNX Runtime
    return highest + torch.log1p(torch.exp(-(scaled - log_probs).abs()))


def fitted_absent_share(
    logits: Tensor,
    log_probs: Tensor,
    present: Tensor,
    weights: Tensor,
    temperature: float,
    most: float,
) -> tuple[AbsentShare, float]:
    """Return the map that gives absent classes a mean share of at most ``most`` together, and that share.

    Args:
        logits: ``(n, C)`` float64, of samples held out.
        log_probs: What is predicted for them ``(n, C)``.
        present: Which classes have a sample ``(C,)``.
        weights: ``(n,)``.
        temperature: That of temperature scaling, above 0.
        most: Above 0.
    """
    both = _of_both(logits, temperature, log_probs)
    rare = both.masked_fill(present, -torch.inf).logsumexp(dim=1)
    common = both.masked_fill(~present, -torch.inf).logsumexp(dim=1)
    odds = rare - common
    total = weights.sum()

    def share(log_factor: float) -> float:
        return float(weights @ (odds + log_factor).sigmoid() / total)

    limit = min(share(0.0), most)
    high = 0.0
    low = _LOWEST if share(0.0) > limit else 0.0
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if share(middle) <= limit else (low, middle)
    mask = (~present).double()
    return AbsentShare(
        absent=mask, temperature=doubles(temperature), log_factor_of_both=doubles(low)
    ), share(low)
