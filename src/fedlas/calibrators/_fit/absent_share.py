"""Probability of classes without a validation sample, bounded by a few samples."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from fedlas.calibrators._fit.state import Numbers, doubles, must

_LOWEST = -30.0
"""Smallest log factor, at which absent classes have practically no probability."""
_HALVINGS = 60


class AbsentShare(Numbers):
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
        both = _of_both(rows, self.temperature, log_probs)
        rare = (both + self.absent * self.log_factor_of_both).log_softmax(dim=1)
        common = rare.masked_fill(is_absent, -torch.inf).logsumexp(dim=1, keepdim=True)
        others = log_probs.masked_fill(is_absent, -torch.inf).log_softmax(dim=1)
        return torch.where(is_absent, rare, others + common)

    def check(self, classes: int) -> None:
        """Raise ValueError for wrong shapes, a mask of no class or all classes, or numbers out of range."""
        super().check(classes)
        flags = bool(((self.absent == 0) | (self.absent == 1)).all())
        must(
            flags and 0 < int(self.absent.sum()) < classes,
            "absent must mark at least one class, but not all",
        )
        must(float(self.temperature) > 0, "temperature must be above 0")
        must(float(self.log_factor_of_both) <= 0, "log_factor_of_both must be at most 0")


def _of_both(rows: Tensor, temperature: Tensor | float, log_probs: Tensor) -> Tensor:
    """Return ``log(p_temperature + p_raw)``, from logits and the log-probabilities ``log p_raw``."""
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
    """Fit the map so that absent classes get at most ``most`` of the mean probability; return the map and the share.

    Args:
        logits: ``(n, C)`` float64, of samples held out.
        log_probs: Log-probabilities of the mixture for these samples ``(n, C)``.
        present: Mask of the classes with a sample ``(C,)``.
        weights: ``(n,)``.
        temperature: Temperature of temperature scaling, above 0.
        most: Largest mean probability of all absent classes together, above 0.
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
