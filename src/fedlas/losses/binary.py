"""Binary classification with one logit: ``OneLogit`` applies a two-class loss to a model with a single output.

Source: "FedLAS" (arXiv 2606.28654) does not treat this case; ``docs/tasks.md`` describes this library's reading.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar, cast

import torch
from torch import Tensor, nn

from fedlas._core.check import InputError, describe, is_dense
from fedlas.losses._base import can_read_values
from fedlas.predictions import Predictions


def to_two_logits(logit: Tensor) -> Tensor:
    """Return two-class logits ``(-z / 2, z / 2)`` with softmax ``(1 - sigmoid(z), sigmoid(z))`` for a logit ``z``.

    Args:
        logit: ``(N,)`` or ``(N, 1)``, or dense ``(N, 1, d1, ...)``; any floating dtype.

    Returns:
        ``(N, 2)`` or ``(N, 2, d1, ...)``: for losses, ``Predictions`` and metrics.

    Raises:
        InputError: For other shapes, and on CPU for infinite logits.

    Note:
        ``(0, z)`` has the same softmax. The symmetric form treats the classes alike in losses that use more than the
        softmax: a gate sees both logits change, and neither is constant.

    Example:
        >>> to_two_logits(torch.tensor([2.0, -4.0]))
        tensor([[-1.,  1.],
                [ 2., -2.]])
    """
    single = is_dense(logit) and logit.is_floating_point() and logit.ndim >= 1
    if not single or (logit.ndim > 1 and logit.shape[1] != 1):
        raise InputError(
            "logits must be a floating tensor (N,), (N, 1) or (N, 1, d1, ...)",
            describe(logit),
            "Pass one logit per sample, before any sigmoid.",
        )
    if logit.dtype not in (torch.float16, torch.bfloat16, torch.float32, torch.float64):
        logit = logit.float()  # smaller floats have no arithmetic
    if can_read_values(logit) and bool(logit.detach().isinf().any()):
        raise InputError(
            "logits must be finite",
            f"{int(logit.isinf().sum())} infinite values of {logit.numel()}",
            "Clamp them, e.g. logits.clamp(-100, 100).",
        )
    half = (logit[:, None] if logit.ndim == 1 else logit) / 2
    return torch.cat((-half, half), dim=1)


class OneLogit(nn.Module):
    """Wrapper that applies a two-class criterion to a single logit, called like ``nn.BCEWithLogitsLoss``.

    It is ``criterion((-z / 2, z / 2), y)``. With cross-entropy this is exactly the binary cross-entropy of
    ``sigmoid(z)``, with label smoothing that of ``y (1 - alpha) + alpha / 2``; with FedLAS the gate sees both logits.

    Args:
        criterion: A loss of this library for two classes. Class weights ``(2,)`` are those of negative and positive;
            ``pos_weight=p`` of ``nn.BCEWithLogitsLoss`` is ``weight=[1, p]``, except for the mean, which divides by the
            weights as ``F.cross_entropy`` does.

    Attributes:
        criterion: The criterion.

    Raises:
        InputError: If it was built for another number of classes; when called, for wrong shapes, and as the criterion.

    Example:
        >>> from fedlas.losses import LabelSmoothing
        >>> OneLogit(LabelSmoothing(alpha=0.0))(torch.tensor([2.0, -1.0]), torch.tensor([1.0, 0.0]))
        tensor(0.2201)
    """

    num_classes: ClassVar[int] = 1
    """Outputs of the head, by which :func:`~fedlas.find_head` identifies it."""

    def __init__(self, criterion: nn.Module) -> None:
        super().__init__()
        if not isinstance(criterion, nn.Module) or getattr(criterion, "num_classes", 2) not in (
            2,
            None,
        ):
            raise InputError(
                "criterion must be a loss for two classes",
                describe(criterion),
                "Build it with two classes, e.g. OneLogit(FedLAS(num_classes=2)).",
            )
        if "head_weight" in getattr(criterion, "needs", ()):
            raise InputError(
                "criterion must not need head_weight",
                criterion,
                "Use a model with two logits for this loss.",
            )
        self.criterion = criterion
        self.needs: frozenset[str] = frozenset(getattr(criterion, "needs", ()))

    def forward(self, logits: Tensor, target: Tensor, **extra: Any) -> Tensor:
        """Return the loss of a batch of single logits.

        Args:
            logits: One a sample, ``(N,)``, ``(N, 1)`` or dense ``(N, 1, d1, ...)``.
            target: 0 or 1, shaped like ``logits`` or without its second axis: integers, which may be the criterion's
                ``ignore_index``, or floats in [0, 1], the probability of class 1.
            **extra: The criterion's needs, as it takes them.

        Raises:
            InputError: For other shapes, and as the criterion.
        """
        pair = to_two_logits(logits)
        shape = (pair.shape[0], *pair.shape[2:])
        if not is_dense(target) or target.shape not in (shape, (shape[0], 1, *shape[1:])):
            raise InputError(
                f"target must have shape {shape} for logits {tuple(logits.shape)}",
                describe(target),
                "Pass 0 or 1 per sample, or the probability of class 1.",
            )
        target = target.reshape(shape)
        if target.is_floating_point():
            # A float may be a soft label, so it becomes the probabilities of both classes.
            target = torch.stack((1 - target, target), dim=1).to(pair.dtype)
        elif target.dtype == torch.bool:
            target = target.long()
        loss: Tensor = self.criterion(pair, target, **extra)
        return loss

    @property
    def update_from_validation(self) -> Callable[[Predictions], None]:
        """The ``update_from_validation`` method of the criterion, for two-logit predictions; missing if it has none."""
        return cast("Any", self.criterion).update_from_validation
