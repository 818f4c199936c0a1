"""The checked, flattened batch that every loss works on, and its reduction."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from fedlas._core.check import InputError
from fedlas.losses._base.smoothed import LEAST, smoothed_nll

Reduction = Literal["mean", "sum", "none"]

_SHAPES = {
    "features": "the classifier head's input, (N, D)",
    "index": "positions in the training set, (N,)",
    "mixed": "logits of mixed samples, (N, K, C)",
    "mixed_share": "the main class's share of each, (N, K)",
    "head_weight": "the classifier head's weight, (C, D)",
}


@dataclass(slots=True, eq=False)  # frozen costs a microsecond for each attribute
class Batch:
    """One checked batch, flattened to ``M`` independent positions.

    Attributes:
        logits: ``(M, C)``, float32 or float64. ``M = N`` for plain classification, ``N * d1 * ...`` for dense inputs.
        target: ``(M,)`` int64 in ``[0, C)`` (0 where ignored), or soft ``(M, C)`` in the dtype of ``logits``.
        valid: ``(M,)`` bool, False at ignored positions; None if every position counts.
        weight: Class weights ``(C,)``, or None.
        features: ``(M, D)``, or ``(N, D)`` if a dense input has one feature vector an image; None if not passed.
        index: ``(N,)`` int64 position of each sample in the training set; None if not passed.
        mixed: ``(M, K, C)`` logits of K mixed versions of each sample, in the dtype of ``logits``; None if not passed.
        mixed_share: ``(M, K)`` share of each that is of its main class, in the dtype of ``logits``; None if not passed.
        head_weight: ``(C, D)`` weight of the classifier head; None if not passed.
        shape: Shape of the unflattened target: ``(N,)`` or ``(N, d1, ...)``.
        per_image: Whether a dense input has one feature vector an image rather than one a position.
    """

    logits: Tensor
    target: Tensor
    valid: Tensor | None
    weight: Tensor | None
    features: Tensor | None
    index: Tensor | None
    shape: tuple[int, ...]
    per_image: bool = False
    mixed: Tensor | None = None
    mixed_share: Tensor | None = None
    head_weight: Tensor | None = None

    @property
    def soft(self) -> bool:
        """Whether targets are probabilities ``(M, C)``."""
        return self.target.ndim == 2

    def need(self, owner: str, name: str) -> Tensor:
        """The attribute ``name``, one of the tensors that a loss may declare in ``needs``.

        Raises:
            TypeError: If it was not passed.
        """
        value: Tensor | None = getattr(self, name)
        if value is None:
            raise missing(owner, name)
        return value

    def cross_entropy(self) -> Tensor:
        """``-log p_y`` of each position ``(M,)``, class weights included; soft targets: ``-sum_k t_k log p_k``."""
        return smoothed_nll(self.logits, self.target, 0.0, self.weight)

    def weighted(self, values: Tensor) -> Tensor:
        """``values (M,)`` times the class weight of each position's target (soft targets: the expected weight)."""
        if self.weight is None:
            return values
        return values * (self.target @ self.weight if self.soft else self.weight[self.target])

    def cost_of_target(self, cost: Callable[[Tensor], Tensor]) -> Tensor:
        """``cost(-log p_y)`` of each position ``(M,)``, class weights included; soft targets: ``sum_k t_k cost_k``.

        Args:
            cost: Elementwise; it is given ``-log p``, ``(M,)`` of hard targets or ``(M, C)`` of all classes. A function
                of one number a position costs far less than one of ``(M, C)``.
        """
        if not self.soft:
            return self.weighted(cost(smoothed_nll(self.logits, self.target, 0.0)))
        costs = cost(-F.log_softmax(self.logits, dim=1).clamp(min=LEAST))
        return (self.target * (costs if self.weight is None else costs * self.weight)).sum(dim=1)

    def favored(self) -> Tensor:
        """The class that a target favors ``(M,)``: a hard target itself, the arg-max of a soft one."""
        return self.target.argmax(dim=1) if self.soft else self.target

    def valid_rows(self, rows: int) -> Tensor | None:
        """Which of ``rows`` samples have a valid position ``(rows,)`` bool; None if all positions count."""
        return None if self.valid is None else self.valid.reshape(rows, -1).any(dim=1)

    def mean_of_rows(self, values: Tensor, rows: int) -> Tensor:
        """Mean of ``values (M, ...)`` over the valid positions of each of ``rows`` samples, ``(rows, ...)``."""
        if len(values) == rows:
            return values
        values = values.reshape(rows, -1, *values.shape[1:])
        if self.valid is None:
            return values.mean(dim=1)
        inside = self.valid.reshape(*values.shape[:2], *(1 for _ in values.shape[2:]))
        return torch.where(inside, values, 0.0).sum(dim=1) / inside.sum(dim=1).clamp(min=1)

    def at_positions(self, values: Tensor) -> Tensor:
        """``values (rows, ...)`` of each sample, repeated for each of its positions, ``(M, ...)``."""
        repeats = len(self.logits) // len(values)
        return values if repeats == 1 else values.repeat_interleave(repeats, dim=0)

    def linear_inputs(self, owner: str) -> tuple[Tensor, Tensor]:
        """Features ``(M, D)``, one row a position, and the head's weight ``(C, D)``, both in the dtype of the logits.

        Features of ignored positions are returned as 0, so that their content, even NaN, does not reach the gradient of
        the weight.

        Raises:
            TypeError: If one of both was not passed.
        """
        features = self.at_positions(self.need(owner, "features").to(self.logits.dtype))
        if self.valid is not None:
            features = torch.where(self.valid[:, None], features, 0.0)
        return features, self.need(owner, "head_weight")

    def check_classes(self, owner: str, num_classes: int | None) -> None:
        """Refuse logits with another number of classes than the loss was built for; None accepts any.

        Raises:
            InputError: If the numbers differ.
        """
        if num_classes is not None and self.logits.shape[1] != num_classes:
            raise InputError(
                owner,
                f"logits must have num_classes = {num_classes} columns",
                tuple(self.logits.shape),
                "Build the loss with the number of classes of the model.",
            )

    def normalizer(self) -> Tensor | int:
        """The divisor of a mean, as in ``F.cross_entropy``: the summed weights, or the number of valid positions.

        It is above 0, so that the mean of a batch of which nothing counts is 0 and not NaN.
        """
        if self.weight is not None and not self.soft:
            each = self.weight[self.target]
            total = each.sum() if self.valid is None else (each * self.valid).sum()
            return total.clamp(min=torch.finfo(total.dtype).tiny)
        return self.logits.shape[0] if self.valid is None else self.valid.sum().clamp(min=1)


def reduce(values: Tensor, batch: Batch, reduction: Reduction) -> Tensor:
    """Reduce per-position losses ``(M,)``: masked mean or sum, or ``(N, d1, ...)`` for ``"none"``."""
    if batch.valid is not None:
        values = torch.where(batch.valid, values, values.new_zeros(()))
    if reduction == "none":
        return values.reshape(batch.shape)
    if reduction == "sum":
        return values.sum()
    if batch.valid is None and (batch.weight is None or batch.soft):
        return values.mean()
    return values.sum() / batch.normalizer()


def missing(owner: str, need: str) -> TypeError:
    """The error for a tensor that a loss needs and was not passed."""
    return TypeError(
        f"{owner}: {need} must be passed ({_SHAPES[need]}); got None. "
        f"Call {owner}(...)(logits, target, {need}={need}), or wrap model and loss in fedlas.Objective."
    )


def can_look(tensor: Tensor) -> bool:
    """Whether values of ``tensor`` may be read: on an accelerator, or while compiling, that would stall or fail."""
    return tensor.device.type == "cpu" and not torch.compiler.is_compiling()
