"""The contract of a loss, and what all share: checks, dense inputs, ignored positions, weights, reduction."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from fedlas._core.check import InputError, check_choice, check_count, check_logits, describe
from fedlas._core.registry import Registry

LOSSES: Registry[type[Loss]] = Registry("loss")
"""Every training loss by name.

Metadata: ``paper``, ``year``, ``url``; optional ``shift_invariant`` (False: adding a constant to all logits of a row
changes the loss), ``pairwise`` (True: its cost grows with the square of the batch or of the classes).
"""


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

    def normaliser(self) -> Tensor | int:
        """What a mean divides by, as in ``F.cross_entropy``: the summed weights, or the number of valid positions."""
        if self.weight is not None and not self.soft:
            each = self.weight[self.target]
            return each.sum() if self.valid is None else (each * self.valid).sum()
        return self.logits.shape[0] if self.valid is None else self.valid.sum()


class Loss(nn.Module, ABC):
    """Base of every training loss: ``criterion(logits, target, *, features=None, index=None)``.

    A subclass implements :meth:`per_sample` on a checked, flattened :class:`Batch` and names what it wants beyond
    logits and target in ``needs``. Everything else here is shared: half precision is computed in float32 and autocast
    is left, dense inputs are flattened, ignored positions are masked, class weights and reductions follow
    ``F.cross_entropy``.

    Args:
        reduction: ``"mean"``, ``"sum"`` or ``"none"``. The mean divides by the summed weights of the valid positions
            (by the number of positions for soft targets), exactly as ``F.cross_entropy`` does.
        ignore_index: Target value that marks a position to leave out of the loss and out of every statistic.
        weight: Class weights ``(C,)``, non-negative; kept as a buffer.

    Note:
        On CPU, targets out of range and batches without a valid position raise an error. On an accelerator, and inside
        ``torch.compile``, looking would stall the device: there a target out of range trips the device's own assertion,
        and a batch without a valid position has the mean NaN, as with ``F.cross_entropy``.

        Under DDP each rank divides by its own valid positions (or weights), as ``F.cross_entropy`` does. Equal counts
        on all ranks give the mean of the whole batch; unequal ones give the mean of the ranks' means.
    """

    needs: ClassVar[frozenset[str]] = frozenset()
    weight: Tensor | None

    def __init__(
        self, *, reduction: str = "mean", ignore_index: int = -100, weight: Tensor | Sequence[float] | None = None
    ) -> None:
        super().__init__()
        self.reduction = check_choice(type(self).__name__, "reduction", reduction, ("mean", "sum", "none"))
        self.ignore_index = check_count(type(self).__name__, "ignore_index", ignore_index, low=None)
        self.register_buffer("weight", None if weight is None else _class_weights(type(self).__name__, weight))

    @abstractmethod
    def per_sample(self, batch: Batch) -> Tensor:
        """Loss of each position ``(M,)``, class weights included; values at ignored positions are discarded."""

    def forward(
        self, logits: Tensor, target: Tensor, *, features: Tensor | None = None, index: Tensor | None = None
    ) -> Tensor:
        """Loss of a batch.

        Args:
            logits: ``(N, C)`` or dense ``(N, C, d1, ...)``, any floating dtype.
            target: Class indices ``(N,)`` or ``(N, d1, ...)``, or soft targets shaped like ``logits``.
            features: Input of the classifier head, ``(N, D)``; for dense logits also ``(N, D, d1, ...)``.
            index: Position of each sample in the training set, ``(N,)`` int64.

        Returns:
            A scalar, or the shape of a hard target for ``reduction="none"`` (0 where ignored); float32, or float64 for
            float64 logits.

        Raises:
            TypeError: If something in ``needs`` was not passed.
            InputError: For wrong shapes or dtypes, and on CPU for targets out of range or nothing but ignored targets.
                Nothing has changed then.
        """
        with without_autocast(logits.device.type if isinstance(logits, Tensor) else "cpu"):
            return self._forward(logits, target, features, index)

    def _forward(self, logits: Tensor, target: Tensor, features: Tensor | None, index: Tensor | None) -> Tensor:
        name = type(self).__name__
        for need, value in (("features", features), ("index", index)):
            if value is None and need in self.needs:
                raise TypeError(
                    f"{name}: {need} must be passed ({_SHAPES[need]}); got None. "
                    f"Call {name}(...)(logits, target, {need}={need}), or wrap model and loss in fedlas.Objective."
                )
        batch = prepare(name, logits, target, features, index, ignore_index=self.ignore_index, weight=self.weight)
        return reduce(self.per_sample(batch), batch, self.reduction)

    def extra_repr(self) -> str:
        """Settings that differ from the defaults, for ``repr``."""
        parts = [f"reduction={self.reduction!r}"] if self.reduction != "mean" else []
        parts += [f"ignore_index={self.ignore_index}"] if self.ignore_index != -100 else []
        return ", ".join(parts)


_SHAPES = {"features": "the classifier head's input, (N, D)", "index": "positions in the training set, (N,)"}


def without_autocast(device: str) -> AbstractContextManager[Any]:
    """A context in which operations on ``device`` (its type) run in the precision of their inputs."""
    if torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device):
        return torch.autocast(device, enabled=False)
    return nullcontext()


def prepare(
    owner: str,
    logits: Any,
    target: Any,
    features: Any = None,
    index: Any = None,
    *,
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


def _class_weights(owner: str, weight: Any) -> Tensor:
    """A copy of class weights ``(C,)`` in the default dtype."""
    try:
        found = torch.as_tensor(weight, dtype=torch.get_default_dtype()).detach().clone()
    except (TypeError, ValueError, RuntimeError):
        found = None
    if found is None or found.ndim != 1 or bool((found < 0).any()) or not bool(torch.isfinite(found).all()):
        raise InputError(
            owner, "weight must be (C,), finite and non-negative", describe(weight), "Pass one weight for each class."
        )
    return found


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


def _checked_index(owner: str, index: Any, rows: int) -> Tensor:
    if isinstance(index, Tensor) and index.shape == (rows,) and index.dtype == torch.int64:
        return index
    raise InputError(
        owner, f"index must be ({rows},) int64", describe(index), "Pass each sample's position in the data set."
    )
