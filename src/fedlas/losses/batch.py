"""One checked batch as every loss sees it: dense inputs flattened, ignored positions masked, needs checked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fedlas._core.check import InputError, check_logits, describe


@dataclass(frozen=True)
class Batch:
    """One checked batch, flattened so that a loss sees ``M`` independent positions.

    Attributes:
        logits: ``(M, C)``, float32 or float64. ``M = N`` for plain classification, ``N * d1 * ...`` for dense inputs.
        target: ``(M,)`` int64 in ``[0, C)`` (0 where ignored), or soft ``(M, C)`` in the dtype of ``logits``.
        valid: ``(M,)`` bool, False at ignored positions; None when every position counts.
        weight: Class weights ``(C,)``, or None.
        features: ``(M, D)``, or ``(N, D)`` when a dense input has one feature vector an image; None if not passed.
        index: ``(N,)`` int64 position of each sample in the training set; None if not passed.
        mixed: ``(M, K, C)`` logits of K mixed versions of each sample, in the dtype of ``logits``; None if not passed.
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
    head_weight: Tensor | None = None

    @property
    def soft(self) -> bool:
        """Whether targets are probabilities ``(M, C)``."""
        return self.target.ndim == 2

    def weighted(self, values: Tensor) -> Tensor:
        """``values (M,)`` times the class weight of each position's target (soft targets: the expected weight)."""
        if self.weight is None:
            return values
        if self.soft:
            return values * (self.target @ self.weight)
        return values * self.weight[self.target]

    def favoured(self) -> Tensor:
        """The class a target favours ``(M,)``: a hard target itself, the arg-max of a soft one."""
        return self.target.argmax(dim=1) if self.soft else self.target

    def check_classes(self, owner: str, num_classes: int | None) -> None:
        """Refuse logits of another number of classes than a loss was built for; None takes any.

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

    def normaliser(self) -> Tensor | int:
        """What a mean divides by, as in ``F.cross_entropy``: the summed weights, or the number of valid positions."""
        if self.weight is not None and not self.soft:
            each = self.weight[self.target]
            return each.sum() if self.valid is None else (each * self.valid).sum()
        return self.logits.shape[0] if self.valid is None else self.valid.sum()


def prepare(
    owner: str,
    logits: Any,
    target: Any,
    features: Any = None,
    index: Any = None,
    *,
    mixed: Any = None,
    head_weight: Any = None,
    ignore_index: int = -100,
    weight: Tensor | None = None,
) -> Batch:
    """Check and flatten the arguments of a loss; see :meth:`Loss.forward` for what is accepted.

    Raises:
        InputError: As :meth:`Loss.forward`.
    """
    logits = check_logits(owner, logits)
    classes = logits.shape[1]
    shape = (logits.shape[0], *logits.shape[2:])
    if 0 in shape:
        raise InputError(
            owner, "a batch must hold at least one position", f"logits {tuple(logits.shape)}", "Skip empty batches."
        )
    flat = logits if logits.ndim == 2 else logits.movedim(1, -1).reshape(-1, classes)
    if flat.dtype not in (torch.float32, torch.float64):
        flat = flat.float()
    if weight is not None:
        if not isinstance(weight, Tensor) or weight.shape != (classes,):
            raise InputError(
                owner,
                f"weight must be ({classes},) like logits {tuple(logits.shape)}",
                describe(weight),
                "Pass one weight for each class.",
            )
        weight = weight.to(flat.dtype)
    valid: Tensor | None = None
    if isinstance(target, Tensor) and target.is_floating_point() and target.shape == logits.shape:
        target = target if target.ndim == 2 else target.movedim(1, -1).reshape(-1, classes)
        target = target.to(flat.dtype)
    elif isinstance(target, Tensor) and target.shape == shape and not _is_real(target):
        target, valid = _hard_target(owner, target.reshape(-1).to(torch.int64), classes, ignore_index)
    else:
        raise InputError(
            owner,
            f"target must be integers {shape} or probabilities {tuple(logits.shape)} for logits {tuple(logits.shape)}",
            describe(target),
            "Put the classes second: logits.movedim(-1, 1)."
            if isinstance(target, Tensor) and target.shape == logits.shape[:-1]
            else "Pass class indices, or one row of class probabilities a sample.",
        )
    return Batch(
        logits=flat,
        target=target,
        valid=valid,
        weight=weight,
        features=None if features is None else _flat_features(owner, features, logits),
        index=None if index is None else _checked_index(owner, index, shape[0]),
        shape=shape,
        per_image=logits.ndim > 2 and isinstance(features, Tensor) and features.ndim == 2,
        mixed=None if mixed is None else _flat_mixed(owner, mixed, logits).to(flat.dtype),
        head_weight=None if head_weight is None else _checked_head(owner, head_weight, logits, features).to(flat.dtype),
    )


def reduce(values: Tensor, batch: Batch, reduction: str) -> Tensor:
    """Reduce per-position losses ``(M,)``: masked mean or sum, or ``(N, d1, ...)`` for ``"none"``."""
    if batch.valid is not None:
        values = torch.where(batch.valid, values, values.new_zeros(()))
    if reduction == "none":
        return values.reshape(batch.shape)
    if reduction == "sum":
        return values.sum()
    if batch.valid is None and (batch.weight is None or batch.soft):
        return values.mean()
    return values.sum() / batch.normaliser()


def _is_real(target: Tensor) -> bool:
    return target.is_floating_point() or target.is_complex() or target.dtype == torch.bool


def _hard_target(owner: str, target: Tensor, classes: int, ignore_index: int) -> tuple[Tensor, Tensor | None]:
    """Targets with ignored positions set to 0, and the mask of the others (None if it is known that all count)."""
    if target.device.type != "cpu" or torch.compiler.is_compiling():
        valid = target != ignore_index
        return torch.where(valid, target, 0), valid
    low, high = (int(bound) for bound in target.aminmax())
    if low >= 0 and high < classes and not low <= ignore_index <= high:
        return target, None  # the usual case, and worth the two comparisons: no mask from here on
    valid = target != ignore_index
    if not bool(valid.any()):
        raise InputError(
            owner,
            "a batch must hold at least one position that counts",
            f"{target.numel()} targets that all equal ignore_index {ignore_index}",
            "Skip such batches: their mean is not defined.",
        )
    masked = torch.where(valid, target, 0)
    low, high = (int(bound) for bound in masked.aminmax())
    if low < 0 or high >= classes:
        raise InputError(
            owner,
            f"target must be in [0, {classes}) or ignore_index {ignore_index}",
            f"values from {int(target[valid].min())} to {int(target[valid].max())}",
            "Check the labels and the number of classes of the model.",
        )
    return masked, valid


def _flat_features(owner: str, features: Any, logits: Tensor) -> Tensor:
    """Features as ``(M, D)`` or ``(N, D)``."""
    rows, dense = logits.shape[0], logits.shape[2:]
    if isinstance(features, Tensor) and features.is_floating_point() and features.shape[:1] == (rows,):
        if features.ndim == 2:
            return features
        if dense and features.ndim > 2 and features.shape[2:] == dense:
            return features.movedim(1, -1).reshape(-1, features.shape[1])
    shapes = f"(N, D) with N = {rows}" + (f" or (N, D, {', '.join(map(str, dense))})" if dense else "")
    fix = "Pass the input of the classifier head."
    if isinstance(features, Tensor) and features.ndim > 2 and not dense:
        axes = tuple(range(2, features.ndim))
        fix = f"Pool them first, e.g. features.mean({axes if len(axes) > 1 else axes[0]})."
    raise InputError(owner, f"features must be {shapes} like logits {tuple(logits.shape)}", describe(features), fix)


def _flat_mixed(owner: str, mixed: Any, logits: Tensor) -> Tensor:
    """Logits of mixed samples as ``(M, K, C)``."""
    samples, rest = logits.shape[0], tuple(logits.shape[1:])
    if (
        isinstance(mixed, Tensor)
        and mixed.is_floating_point()
        and mixed.ndim == logits.ndim + 1
        and (mixed.shape[0], *mixed.shape[2:]) == (samples, *rest)
        and mixed.shape[1] > 0
    ):
        return mixed if logits.ndim == 2 else mixed.flatten(3).permute(0, 3, 1, 2).flatten(0, 1)
    shape = ", ".join(map(str, (samples, "K", *rest)))
    raise InputError(
        owner,
        f"mixed must be ({shape}) like logits {tuple(logits.shape)}",
        describe(mixed),
        "Stack the logits of K mixed versions of the batch: torch.stack(views, dim=1).",
    )


def _checked_head(owner: str, weight: Any, logits: Tensor, features: Tensor | None) -> Tensor:
    width = "D" if features is None else features.shape[1]
    if (
        isinstance(weight, Tensor)
        and weight.is_floating_point()
        and weight.ndim == 2
        and weight.shape[0] == logits.shape[1]
        and width in ("D", weight.shape[1])
    ):
        return weight
    raise InputError(
        owner,
        f"head_weight must be ({logits.shape[1]}, {width}) for logits {tuple(logits.shape)}",
        describe(weight),
        "Pass the weight of the linear layer that makes the logits.",
    )


def _checked_index(owner: str, index: Any, rows: int) -> Tensor:
    if isinstance(index, Tensor) and index.shape == (rows,) and index.dtype == torch.int64:
        return index
    raise InputError(
        owner, f"index must be ({rows},) int64", describe(index), "Pass each sample's position in the data set."
    )
