"""Ablations of FedLAS: the gate, the indicator or the spread of strengths is replaced by a baseline.

Source: "FedLAS: Feature-Modulated Bidirectional Label Smoothing for Neural Network Calibration" (arXiv 2606.28654);
the ablations are this library's.
"""

from __future__ import annotations

from functools import partial
from typing import Literal, Unpack, get_args

import torch
from torch import Tensor

from fedlas._core.check import check_choice
from fedlas._core.ranks import sum_across_ranks_differentiably
from fedlas.losses._base import LOSSES
from fedlas.losses.bcg import BidirectionalCalibrationGate
from fedlas.losses.fedlas import FedLAS
from fedlas.losses.modulated import PAPER_METADATA, IndicatorOptions

Direction = Literal["trained", "frozen", "plus", "minus", "zero", "against"]
Score = Literal["norm", "constant", "noise"]
Spread = Literal["own", "mean"]
# direction_of replaces the 0 of "against"
_FIXED_DIRECTIONS = {"plus": 1.0, "minus": -1.0, "zero": 0.0, "against": 0.0}


@LOSSES.register(
    "fedlas-ablation",
    **PAPER_METADATA,
    note="this library's own, to test claims about FedLAS",
    tune={"alpha": "0.005:0.3:log", "beta": "0.25:16:log", "momentum": "0.001:1:log"},
)
class FedLASAblation(FedLAS):
    """Ablation of FedLAS, ``alpha_i = 2 alpha sigmoid(beta psi_i Z_i)``: replaces ``psi``, ``Z`` or the spread.

    Args:
        num_classes: Number of classes C.
        direction: ``"trained"`` (the gate), ``"frozen"`` (the gate as initialized), ``"plus"`` (psi = 1: larger norms
            are smoothed more), ``"minus"`` (-1), ``"zero"`` (0: plain label smoothing), ``"against"`` (-sign(Z): never
            more than alpha, the direction to which gradient descent drives the gate).
        score: ``"norm"`` (the indicator), ``"constant"`` (Z = 1), ``"noise"`` (a standard normal number that depends on
            the bits of the features but not on their meaning).
        spread: ``"own"``, or ``"mean"``: every sample has the mean strength of its batch, in training over all ranks.
        alpha: Strength at the mean feature norm, in [0, 0.5].
        beta: Sensitivity to the score, at least 0.
        momentum: NCI's weight of the new batch, in (0, 1].
        norm_p: Order of the feature norm, at least 1.
        variant: ``"paper"`` or ``"reference"``, the start values of published code; see :class:`Modulated`.
        gate_top: Number of largest logits that the gate reads, for many classes; None: all (:class:`TopLogitsGate`).
        **options: Those of every :class:`~fedlas.losses.Loss`.

    Raises:
        InputError: If an argument is out of range or unknown.

    Example:
        >>> import torch
        >>> FedLASAblation(num_classes=3, direction="zero", alpha=0.1).smoothing(torch.randn(2, 3), torch.rand(2, 4))
        tensor([0.1000, 0.1000])
    """

    def __init__(
        self,
        *,
        num_classes: int,
        direction: Direction = "trained",
        score: Score = "norm",
        spread: Spread = "own",
        alpha: float = 0.05,
        beta: float = 4.0,
        **options: Unpack[IndicatorOptions],
    ) -> None:
        check_choice("direction", direction, get_args(Direction))
        check_choice("score", score, get_args(Score))
        scores = {"norm": None, "constant": partial(_constant_scores, 1.0), "noise": _noise_scores}
        gate = (
            partial(_constant_scores, _FIXED_DIRECTIONS[direction])
            if direction in _FIXED_DIRECTIONS
            else None
        )
        super().__init__(
            num_classes=num_classes, alpha=alpha, beta=beta, nci=scores[score], gate=gate, **options
        )
        self.direction = direction
        self.score = score
        self.spread: Spread = check_choice("spread", spread, get_args(Spread))
        if direction == "frozen" and isinstance(self.gate, BidirectionalCalibrationGate):
            self.gate.requires_grad_(False)

    def sample_strengths(self, scores: Tensor, psi: Tensor, valid: Tensor | None) -> Tensor:
        """Return the strength per sample ``alpha_i (N,)`` of the ablation; the batch mean for ``spread="mean"``."""
        alpha = super().sample_strengths(scores, psi, valid)
        if self.spread == "own":
            return alpha
        if valid is None:
            valid = torch.ones_like(alpha, dtype=torch.bool)
        sums = torch.stack((torch.where(valid, alpha, 0.0).sum(), valid.sum().to(alpha.dtype)))
        # Outside training a single rank may call this, and would wait forever.
        if self.training and torch.is_grad_enabled():
            sums = sum_across_ranks_differentiably(sums)
        total, count = sums.unbind()
        return (total / count.clamp(min=1)).expand_as(alpha)

    @property
    def gate_decides(self) -> bool:  # type: ignore[override]  # here it depends on an argument
        """Whether the gate determines the direction; False for ``direction="against"``, which uses the score alone."""
        return self.direction != "against"

    def sample_directions(self, scores: Tensor, psi: Tensor) -> Tensor:
        """Return the direction per sample, ``(N,)``: ``psi``, or ``-sign(score)`` for ``"against"``."""
        return psi if self.gate_decides else -scores.sign()


def _constant_scores(value: float, features: Tensor, *, valid: Tensor | None = None) -> Tensor:  # noqa: ARG001 (as an indicator)
    """Return ``value`` for each row, ``(N,)`` float32."""
    return torch.full((features.shape[0],), value, dtype=torch.float32, device=features.device)


def _noise_scores(features: Tensor, *, valid: Tensor | None = None) -> Tensor:  # noqa: ARG001 (as an indicator)
    """Return a standard normal number per row, computed from the bits of the row: deterministic, in any row order."""
    # Multiplicative hashing of the bits (int64 wraps around), then a uniform number from 24 of them.
    bits = features.detach().float().contiguous().view(torch.int32).sum(dim=1, dtype=torch.int64)
    mixed = bits * 0x1E3779B97F4A7C15
    mixed = (mixed ^ (mixed >> 32)) * 0x27D4EB2F165667C5
    uniform = ((mixed >> 16) & 0xFFFFFF).float() / 2**24
    return torch.special.ndtri(uniform.clamp(1e-6, 1 - 1e-6))
