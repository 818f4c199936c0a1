"""The linear layer that made logits from features: checked where it is given, recovered from both where it is not."""

from __future__ import annotations

import sys
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from fedlas._core.check import InputError, check_finite, describe
from fedlas.calibrators.rowwise import double_rows

# How far a row of logits may lie from the head's, as a share of how far rows lie from their mean. bfloat16 in the head
# leaves up to 0.02; a head that is not linear leaves far more.
_TOLERANCE = 0.05
# Rounding of float32 logits with a large offset, as a share of the largest.
_ROUNDING = 1e-6
# Directions in which features vary by less than this share of the widest one are taken for the rounding of float32.
_NO_SPREAD = 1e-6


@dataclass(frozen=True, eq=False)
class LinearHead:
    """``z = W h + b`` up to one number a row, which the softmax does not see: columns of ``W`` and ``b`` sum to 0.

    Attributes:
        weight: ``W (C, D)``, float64.
        bias: ``b (C,)``, float64.
        scale: Root mean square distance of the logits from their mean (and what rounding adds): the unit of misfits.
        undetermined: In how many directions features vary together with others only, so that no logits tell the weight.
    """

    weight: Tensor
    bias: Tensor
    scale: float
    undetermined: int = 0

    def check(self, owner: str, features: Tensor, logits: Tensor, fix: str) -> None:
        """Refuse logits that are not what the head makes of the features.

        Raises:
            InputError: If a row is off by more than 0.05 of the spread of the logits.
        """
        worst = 0.0
        for part, rows in double_rows(features):
            made = rows @ self.weight.T + self.bias
            worst = max(worst, float((_centred(logits[part]) - made).norm(dim=1).max()))
        misfit = worst / max(self.scale, sys.float_info.min)
        if misfit > _TOLERANCE:
            raise InputError(
                owner,
                "logits must be a linear function of features, the same in validation and test",
                f"a row that is off by {misfit:.2g} times the spread of the logits",
                fix,
            )


@torch.no_grad()
def recover_head(features: Tensor, logits: Tensor) -> LinearHead:
    """The head by least squares; exact where the features determine it, else the smallest one that fits best.

    Args:
        features: ``(N, D)``.
        logits: ``(N, C)``.

    Note:
        From the ``D x D`` moments of the standardised features, in float64: ``N D^2 + D^3`` operations, and no copy of
        the features. What rounding leaves of a direction without spread is not divided by.
    """
    samples = len(features)
    mean = sum((rows.sum(dim=0) for _, rows in double_rows(features)), torch.zeros(())) / samples
    logit_mean = _mean(logits)
    moments = torch.zeros(len(mean), len(mean), dtype=torch.float64)
    mixed = torch.zeros(len(mean), logits.shape[1], dtype=torch.float64)
    for part, rows in double_rows(features):
        rows = rows - mean
        moments += rows.T @ rows
        mixed += rows.T @ (_centred(logits[part]) - logit_mean)
    deviation = moments.diagonal().clamp(min=0).sqrt()
    varies = deviation > _NO_SPREAD * samples**0.5 * mean.abs()
    inverse = torch.where(varies, 1 / deviation.where(varies, 1.0), 0.0).unsqueeze(1)
    values, vectors = torch.linalg.eigh(inverse * moments * inverse.T)
    spread = values > _NO_SPREAD**2 * values.amax()
    divided = torch.where(spread, 1 / values.where(spread, 1.0), 0.0).unsqueeze(1)
    weight = (inverse * (vectors @ (divided * (vectors.T @ (inverse * mixed))))).T
    undetermined = int(varies.sum()) - int(spread.sum())
    return LinearHead(weight, logit_mean - weight @ mean, _scale(logits), max(undetermined, 0))


def given_head(
    owner: str, head: nn.Module | tuple[Tensor, Tensor | None], features: Tensor, logits: Tensor
) -> LinearHead:
    """The head that a user passed.

    Raises:
        InputError: If it is no linear layer or pair of weight and bias, or has another shape than ``features`` and
            ``logits`` ask for, or is not finite.
    """
    weight, bias = head if isinstance(head, tuple) and len(head) == 2 else _parameters(head)
    shape = (logits.shape[1], features.shape[1])
    fits = isinstance(weight, Tensor) and weight.shape == shape
    if weight is None or not fits or not (bias is None or (isinstance(bias, Tensor) and bias.shape == shape[:1])):
        raise InputError(
            owner,
            f"head must be a linear layer with weight {shape}, or its (weight, bias)",
            describe(head if weight is None else weight),
            "Pass the layer that makes the logits, e.g. head=fedlas.find_head(model).",
        )
    weight = weight.detach().cpu().double()
    bias = torch.zeros(shape[0], dtype=torch.float64) if bias is None else bias.detach().cpu().double()
    for name, value in (("the head's weight", weight), ("the head's bias", bias)):
        check_finite(owner, name, value)
    return LinearHead(weight - weight.mean(dim=0), bias - bias.mean(), _scale(logits))


def _parameters(head: object) -> tuple[Tensor | None, Tensor | None]:
    return (head.weight, head.bias) if isinstance(head, nn.Linear) else (None, None)


def _centred(logits: Tensor) -> Tensor:
    rows = logits.detach().cpu().double()
    return rows - rows.mean(dim=1, keepdim=True)


def _mean(logits: Tensor) -> Tensor:
    total = sum((_centred(rows).sum(dim=0) for _, rows in double_rows(logits)), torch.zeros(()))
    return total / len(logits)


def _scale(logits: Tensor) -> float:
    mean = _mean(logits)
    total = sum(float((_centred(rows) - mean).square().sum()) for _, rows in double_rows(logits))
    return float((total / len(logits)) ** 0.5) + _ROUNDING / _TOLERANCE * float(logits.abs().max())
