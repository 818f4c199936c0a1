"""The linear layer between features and logits: checked if it is given, else recovered from both."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from fedlas._core.check import InputError, check_finite, describe
from fedlas.calibrators._fit.rowwise import double_rows

# Largest distance of a row of logits from the head's, as a share of the spread of the rows. bfloat16 in the head causes
# up to 0.02; a head that is not linear causes far more.
_TOLERANCE = 0.05
# Rounding of float32 logits with a large offset, as a share of the largest.
_ROUNDING = 1e-6
# Features that vary by less than this share of the widest direction vary by the rounding of float32.
_NO_SPREAD = 1e-6


@dataclass(frozen=True, eq=False)
class LinearHead:
    """``z = W h + b`` up to one number a row, which cancels in the softmax: columns of ``W`` and ``b`` sum to 0.

    Attributes:
        weight: ``W (C, D)``, float64.
        bias: ``b (C,)``, float64.
        scale: Root mean square distance of the logits from their mean, plus rounding: the unit of misfits.
        undetermined: Number of directions in which the features do not vary, so that the weight there is unknown.
    """

    weight: Tensor
    bias: Tensor
    scale: float
    undetermined: int = 0

    def check(self, owner: str, features: Tensor, logits: Tensor, fix: str) -> None:
        """Refuse logits that the head does not make from the features.

        Raises:
            InputError: If a row is off by more than 0.05 of the spread of the logits, or the head is not finite.
        """
        if not bool(self.weight.isfinite().all() and self.bias.isfinite().all()):
            raise InputError(
                owner,
                "logits and features must be of sizes whose ratio float64 holds",
                f"logits up to {float(logits.abs().max()):.3g}, features up to {float(features.abs().max()):.3g}",
                "Check that the model has not diverged.",
            )
        misfit, unit = 0.0, max(self.scale, sys.float_info.min)
        for part, rows in double_rows(features):
            made = rows @ self.weight.T + self.bias
            misfit = max(misfit, float(((_centered(logits[part]) - made) / unit).norm(dim=1).max()))
        if not misfit <= _TOLERANCE:
            raise InputError(
                owner,
                "logits must be a linear function of features, the same in validation and test",
                f"a row that is off by {misfit:.2g} times the spread of the logits",
                fix,
            )


@torch.no_grad()
def recover_head(features: Tensor, logits: Tensor) -> LinearHead:
    """The head by least squares; exact if the features determine it, else the best fit of least norm.

    Args:
        features: ``(N, D)``.
        logits: ``(N, C)``.

    Note:
        From the ``D x D`` moments of the standardized features, in float64: ``N D^2 + D^3`` operations, and no copy of
        the features. Directions whose spread is rounding are left out rather than divided by it.
    """
    samples = len(features)
    # Squares of features and logits near the ends of float64's range would overflow: both are divided by a unit.
    unit, logit_unit = _unit(features), _unit(logits)
    mean = sum((rows.sum(dim=0) for _, rows in _in_units(features, unit)), torch.zeros(())) / samples
    logit_mean = _mean(logits) / logit_unit
    moments = torch.zeros(len(mean), len(mean), dtype=torch.float64)
    mixed = torch.zeros(len(mean), logits.shape[1], dtype=torch.float64)
    for part, rows in _in_units(features, unit):
        rows = rows - mean
        moments += rows.T @ rows
        mixed += rows.T @ (_centered(logits[part]) / logit_unit - logit_mean)

    # A pseudo-inverse in standardized coordinates, where one threshold serves features of any scale.
    deviation = moments.diagonal().clamp(min=0).sqrt()
    varies = deviation > _NO_SPREAD * samples**0.5 * mean.abs()
    inverse = torch.where(varies, 1 / deviation.where(varies, 1.0), 0.0).unsqueeze(1)
    values, vectors = torch.linalg.eigh(inverse * moments * inverse.T)
    spread = values > _NO_SPREAD**2 * values.amax()
    divided = torch.where(spread, 1 / values.where(spread, 1.0), 0.0).unsqueeze(1)
    weight = (inverse * (vectors @ (divided * (vectors.T @ (inverse * mixed))))).T
    undetermined = int(varies.sum()) - int(spread.sum())
    bias = (logit_mean - weight @ mean) * logit_unit
    return LinearHead(weight * (logit_unit / unit), bias, _scale(logits), max(undetermined, 0))


def given_head(
    owner: str, head: nn.Module | tuple[Tensor, Tensor | None], features: Tensor, logits: Tensor
) -> LinearHead:
    """The head that a user passed.

    Raises:
        InputError: If it is neither a linear layer nor a pair of weight and bias, does not fit the shapes of
            ``features`` and ``logits``, or is not finite.
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


def _centered(logits: Tensor) -> Tensor:
    rows = logits.detach().cpu().double()
    return rows - rows.mean(dim=1, keepdim=True)


def _unit(values: Tensor) -> float:
    """The power of 2 next to the largest absolute value, so that division by it rounds nothing; 1 for zeros."""
    return math.ldexp(1.0, min(math.frexp(float(values.abs().max()))[1], 1023))


def _in_units(values: Tensor, unit: float) -> Iterator[tuple[slice, Tensor]]:
    return ((part, rows / unit) for part, rows in double_rows(values))


def _mean(logits: Tensor) -> Tensor:
    total = sum((_centered(rows).sum(dim=0) for _, rows in double_rows(logits)), torch.zeros(()))
    return total / len(logits)


def _scale(logits: Tensor) -> float:
    mean, unit = _mean(logits), _unit(logits)
    total = sum(float(((_centered(rows) - mean) / unit).square().sum()) for _, rows in double_rows(logits))
    return float((total / len(logits)) ** 0.5) * unit + _ROUNDING / _TOLERANCE * float(logits.abs().max())
