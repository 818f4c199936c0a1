"""``Batch``, the validated and flattened input of every loss, its construction from call arguments, and reductions.

Ignored positions stay in the batch, with a mask: selecting them would make shapes depend on data, which stalls an
accelerator and breaks ``torch.compile(fullgraph=True)``. On a CPU, where a look at the targets is free, the mask is
None if nothing is ignored, and then costs nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeGuard

import torch
import torch.nn.functional as F
from torch import Tensor

from fedlas._core.check import InputError, check_logits, describe, is_dense
from fedlas._core.errors import public_call_name
from fedlas.losses._base.refusals import (
    ONE_OUTPUT,
    check_masked_logits,
    check_soft_target,
    mask_ignored_targets,
    mask_zero_weight_batch,
)
from fedlas.predictions.arguments import label_matrix_fix

Reduction = Literal["mean", "sum", "none"]

MIN_LOG_PROB = -1e30
"""Stands for ``log p = -inf`` of a masked class where a soft target multiplies it: 0 times it is 0 and not NaN."""

_INTEGER_DTYPES = frozenset({torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64})

EXTRAS = {
    "features": ("the classifier head's input, (N, D)", "Pass the input of the classifier head."),
    "index": (
        "positions in the training set, (N,)",
        "Pass each sample's position in the data set.",
    ),
    "mixed": (
        "logits of mixed samples, (N, K, C)",
        "Stack the logits of K mixed versions: torch.stack(views, dim=1).",
    ),
    "mixed_share": (
        "the main class's share of each, (N, K)",
        "Pass the shares that mix(inputs, target) returns.",
    ),
    "head_weight": (
        "the classifier head's weight, (C, D)",
        "Pass the weight of the linear layer behind the logits.",
    ),
}
"""The tensors that only some losses need: a description, and how to pass one."""


@dataclass(slots=True, eq=False)  # frozen costs a microsecond for each attribute
class Batch:
    """Validated logits and targets of a batch, flattened to ``M`` independent positions.

    Attributes:
        logits: ``(M, C)``, float32 or float64. ``M = N`` for plain classification, ``N * d1 * ...`` for dense inputs.
        target: ``(M,)`` int64 in ``[0, C)`` (0 where ignored), or soft ``(M, C)`` in the dtype of ``logits``.
        valid: ``(M,)`` bool, False at ignored positions; None if every position counts.
        weight: Class weights ``(C,)``, or None.
        shape: Shape of the unflattened target: ``(N,)`` or ``(N, d1, ...)``.
        per_image: Whether a dense input has one feature vector per image instead of one per position.
        features: ``(M, D)``, or ``(N, D)`` if a dense input has one feature vector per image; None if not passed.
        index: ``(N,)`` int64 position of each sample in the training set; None if not passed.
        mixed: ``(M, K, C)`` logits of K mixed versions of each sample, in the dtype of ``logits``; None if not passed.
        mixed_share: ``(M, K)`` share of the main class in each mixed version, like ``logits``; None if not passed.
        head_weight: ``(C, D)`` weight of the classifier head; None if not passed.

    Example:
        >>> batch = Batch(torch.zeros(2, 4), torch.tensor([0, 3]), valid=None, weight=None, shape=(2,))
        >>> batch.cross_entropy(), batch.is_plain
        (tensor([1.3863, 1.3863]), True)
    """

    logits: Tensor
    target: Tensor
    valid: Tensor | None
    weight: Tensor | None
    shape: tuple[int, ...]
    per_image: bool = False
    features: Tensor | None = None
    index: Tensor | None = None
    mixed: Tensor | None = None
    mixed_share: Tensor | None = None
    head_weight: Tensor | None = None

    @property
    def is_soft(self) -> bool:
        """Whether targets are class probabilities ``(M, C)`` instead of class indices ``(M,)``."""
        return self.target.ndim == 2

    @property
    def is_plain(self) -> bool:
        """Whether targets are class indices, no position is ignored, and no class weights are set."""
        return self.valid is None and self.weight is None and self.target.ndim == 1

    def require(self, name: str) -> Tensor:
        """Return the optional tensor ``name``, such as ``features``; raise TypeError if the caller did not pass one.

        Raises:
            TypeError: If the tensor was not passed.
        """
        value: Tensor | None = getattr(self, name)
        if value is None:
            raise missing_tensor_error(name)
        return value

    def cross_entropy(self, log_probs: Tensor | None = None) -> Tensor:
        """Return the class-weighted cross-entropy per position, ``(M,)``: ``-log p_y``, or ``-sum_k t_k log p_k``.

        Args:
            log_probs: ``log p (M, C)``, if the loss has computed it.
        """
        return cross_entropy(self.logits, self.target, self.weight, log_probs)

    def apply_class_weights(self, values: Tensor) -> Tensor:
        """Return ``values (M,)`` times the class weight of each target (for soft targets the expected weight)."""
        if self.weight is None:
            return values
        return values * (self.target @ self.weight if self.is_soft else self.weight[self.target])

    def target_cost(self, cost: Callable[[Tensor], Tensor]) -> Tensor:
        """Return the class-weighted ``cost(-log p_y)`` per position, ``(M,)``; its expectation over soft targets.

        Args:
            cost: Elementwise function of ``-log p``, ``(M,)`` for hard targets. For soft ones it gets ``(M, C)`` of
                all classes, which costs far more.
        """
        if not self.is_soft:
            return self.apply_class_weights(
                cost(F.cross_entropy(self.logits, self.target, reduction="none"))
            )
        costs = cost(-F.log_softmax(self.logits, dim=1).clamp(min=MIN_LOG_PROB))
        return (self.target * (costs if self.weight is None else costs * self.weight)).sum(dim=1)

    def nll_and_confidence(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return class-weighted cross-entropy, top-label confidence and correctness of each position, all ``(M,)``."""
        log_probs = F.log_softmax(self.logits, dim=1)
        top = log_probs.detach().argmax(dim=1, keepdim=True)
        confidence = log_probs.gather(1, top).squeeze(1).exp()
        return self.cross_entropy(log_probs), confidence, top.squeeze(1) == self.favored_class()

    def favored_class(self) -> Tensor:
        """Return the target class of each position ``(M,)``; for soft targets the arg-max."""
        return self.target.argmax(dim=1) if self.is_soft else self.target

    def target_probs(self) -> Tensor:
        """Return targets as probabilities ``(M, C)`` in the dtype of the logits; class indices become one-hot rows."""
        return (
            self.target
            if self.is_soft
            else F.one_hot(self.target, self.logits.shape[1]).to(self.logits.dtype)
        )

    def valid_samples(self, num_samples: int) -> Tensor | None:
        """Return a mask ``(rows,)`` of the samples with a valid position, or None if all positions are valid."""
        return None if self.valid is None else self.valid.reshape(num_samples, -1).any(dim=1)

    def mean_per_sample(self, values: Tensor, num_samples: int) -> Tensor:
        """Return the mean of ``values (M, ...)`` over the valid positions of each sample, ``(rows, ...)``."""
        if len(values) == num_samples:
            return values
        values = values.reshape(num_samples, -1, *values.shape[1:])
        if self.valid is None:
            return values.mean(dim=1)
        inside = self.valid.reshape(*values.shape[:2], *(1 for _ in values.shape[2:]))
        return torch.where(inside, values, 0.0).sum(dim=1) / inside.sum(dim=1).clamp(min=1)

    def repeat_per_position(self, values: Tensor) -> Tensor:
        """Return ``values (rows, ...)`` per sample, repeated for each position of the sample, ``(M, ...)``."""
        repeats = len(self.logits) // len(values)
        return values if repeats == 1 else values.repeat_interleave(repeats, dim=0)

    def features_and_head_weight(self) -> tuple[Tensor, Tensor]:
        """Return features per position ``(M, D)`` and the head's weight ``(C, D)``, in the dtype of the logits.

        Features of ignored positions are set to 0: their content, even NaN, does not reach the gradient of the weight.
        """
        features = self.repeat_per_position(self.require("features").to(self.logits.dtype))
        if self.valid is not None:
            features = torch.where(self.valid[:, None], features, 0.0)
        return features, self.require("head_weight")

    def check_num_classes(self, num_classes: int | None) -> None:
        """Raise InputError unless the logits have ``num_classes`` columns; None accepts any number."""
        if num_classes is not None and self.logits.shape[1] != num_classes:
            raise InputError(
                f"logits must have {num_classes} classes (num_classes of the loss)",
                f"shape {tuple(self.logits.shape)}",
                "Build the loss with the number of classes of the model.",
            )

    def mean_divisor(self) -> Tensor | int:
        """Return the divisor of the mean, as in ``F.cross_entropy``; above 0, so that an empty mean is 0, not NaN."""
        if self.weight is not None and not self.is_soft:
            each = self.weight[self.target]
            total = each.sum() if self.valid is None else (each * self.valid).sum()
            return total.clamp(min=torch.finfo(total.dtype).tiny)
        return self.logits.shape[0] if self.valid is None else self.valid.sum().clamp(min=1)


def cross_entropy(
    logits: Tensor, target: Tensor, weight: Tensor | None = None, log_probs: Tensor | None = None
) -> Tensor:
    """Return the class-weighted cross-entropy per row, ``(N,)``, of validated logits and hard or soft targets."""
    if log_probs is None and target.ndim == 1:
        return F.cross_entropy(logits, target, weight, reduction="none")
    log_probs = F.log_softmax(logits, dim=1) if log_probs is None else log_probs
    if target.ndim == 1:
        return F.nll_loss(log_probs, target, weight, reduction="none")
    terms = log_probs.clamp(min=MIN_LOG_PROB) * target
    return -(terms.sum(dim=1) if weight is None else terms @ weight)


def reduce(values: Tensor, batch: Batch, reduction: Reduction) -> Tensor:
    """Return the mean or sum of losses ``(M,)`` over valid positions, or all losses ``(N, d1, ...)`` for ``"none"``.

    Example:
        >>> batch = Batch(torch.zeros(2, 4), torch.tensor([0, 3]), torch.tensor([True, False]), None, shape=(2,))
        >>> reduce(torch.tensor([1.5, 9.0]), batch, "mean")  # the ignored position does not count
        tensor(1.5000)
    """
    if batch.valid is not None:
        values = torch.where(batch.valid, values, values.new_zeros(()))
    if reduction == "none":
        return values.reshape(batch.shape)
    if reduction == "sum":
        return values.sum()
    if batch.valid is None and (batch.weight is None or batch.is_soft):
        return values.mean()
    return values.sum() / batch.mean_divisor()


def missing_tensor_error(name: str) -> TypeError:
    """Return a TypeError for a tensor that the loss requires and the caller did not pass."""
    return TypeError(
        f"{public_call_name()}: {name} must be passed ({EXTRAS[name][0]}); got None. "
        f"Call {public_call_name()}(...)(logits, target, {name}={name})"
        f"{'' if name == 'index' else ', or wrap model and loss in fedlas.Objective'}."
    )


def can_read_values(tensor: Tensor) -> bool:
    """Return whether Python may branch on values of ``tensor``: on CPU, and not while compiling or transforming."""
    return not torch.compiler.is_compiling() and tensor.is_cpu and not is_in_functorch_transform()


def is_in_functorch_transform() -> bool:
    """Return whether code runs inside a ``torch.func`` transform, where values cannot be read nor buffers written."""
    return torch._C._are_functorch_transforms_active()


def make_batch(
    logits: object,
    target: object,
    extras: Mapping[str, Any] | None = None,
    *,
    ignore_index: int = -100,
    weight: Tensor | None = None,
    averaged: bool = True,
    allow_masked: bool = False,
    check_masked: bool = True,
    num_classes: int | None = None,
) -> Batch:
    """Validate the arguments of a loss call and return them as a flattened ``Batch``; shapes as in ``Loss.forward``."""
    # ``averaged``: the reduction is a mean; a batch whose class weights are all 0 then contributes nothing.
    # ``masked_classes``: accept logits of -inf. ``check_masked``: look for them with hard targets too, on a CPU.
    # Logits and class weights.
    logits = check_logits(logits)
    rows, classes, *dense = logits.shape
    shape = (rows, *dense)
    if 0 in shape:
        got = f"shape {tuple(logits.shape)}"
        raise InputError(
            "logits must contain at least one sample and one position", got, "Skip empty batches."
        )
    flat = _flatten_positions(logits)
    if flat.dtype not in (torch.float32, torch.float64):
        flat = flat.float()
    if weight is not None:
        if not isinstance(weight, Tensor) or weight.shape != (classes,):
            expected = (
                f"class weights must have shape ({classes},) for logits {tuple(logits.shape)}"
            )
            raise InputError(expected, describe(weight), "Pass one weight per class.")
        _check_device("weight", weight, logits)
        weight = weight.to(flat.dtype)

    # Targets: class indices, or probabilities shaped like the logits.
    valid: Tensor | None = None
    can_read = can_read_values(flat)
    if is_dense(target) and target.shape == shape and target.dtype in _INTEGER_DTYPES:
        _check_device("target", target, logits)
        target, valid = mask_ignored_targets(target, classes, ignore_index, can_read)
    elif _is_floating(target) and target.shape == logits.shape:
        _check_device("target", target, logits)
        target = check_soft_target(_flatten_positions(target), can_read).to(flat.dtype)
    else:
        raise InputError(
            f"target must be class indices {shape} or probabilities {tuple(logits.shape)}, as the logits",
            describe(target),
            _target_fix(target, logits, shape),
        )
    if (
        can_read
        and (check_masked or target.ndim == 2)
        and float(flat.detach().amin()) == float("-inf")
    ):
        check_masked_logits(flat.detach(), target, valid, allow_masked)
    if weight is not None and averaged:
        valid = mask_zero_weight_batch(target, valid, weight, can_read)

    batch = Batch(flat, target, valid, weight, shape)
    batch.check_num_classes(num_classes)
    if extras:
        _add_extras(batch, extras, logits)
    return batch


def _target_fix(target: Any, logits: Tensor, shape: tuple[int, ...]) -> str:
    """Return the remedy for a target whose shape or dtype fits neither class indices nor probabilities."""
    classes = logits.shape[1]
    if classes == 1:
        return ONE_OUTPUT
    target_shape = target.shape if isinstance(target, Tensor) else None
    if target_shape == shape:
        return "If the values are class indices, pass target.long()."
    if target_shape == logits.shape[:-1]:
        return "Move the class axis to position 1: logits.movedim(-1, 1)."
    if target_shape == logits.shape and len(target_shape) == 2:
        return label_matrix_fix(
            target, f"Train on them by fedlas.losses.MultiLabelLoss(num_labels={classes})."
        )
    return "Pass class indices, or one row of class probabilities per sample."


def _add_extras(batch: Batch, extras: Mapping[str, Any], logits: Tensor) -> None:
    """Validate the optional tensors, such as features, and set them on the batch, flattened like the logits."""
    for name, value in extras.items():
        setattr(batch, name, _check_extra(name, value, logits, extras))
    if batch.features is not None:
        batch.per_image = logits.ndim > 2 and batch.features.ndim == 2
        batch.features = _flatten_positions(batch.features)
    if batch.mixed is not None:
        batch.mixed = (
            batch.mixed.flatten(3).permute(0, 3, 1, 2).flatten(0, 1)
            if logits.ndim > 2
            else batch.mixed
        ).to(batch.logits.dtype)
    if batch.mixed_share is not None:
        share = batch.mixed_share
        repeated = (
            share.repeat_interleave(len(batch.logits) // len(logits), dim=0)
            if share.ndim == 2
            else _flatten_positions(share)
        )
        batch.mixed_share = repeated.to(batch.logits.dtype)
    if batch.head_weight is not None:
        batch.head_weight = batch.head_weight.to(batch.logits.dtype)


def _flatten_positions(tensor: Tensor) -> Tensor:
    """Reshape ``(N, C, d1, ...)`` to ``(N * d1 * ..., C)``."""
    return tensor if tensor.ndim == 2 else tensor.movedim(1, -1).reshape(-1, tensor.shape[1])


def _is_floating(value: object) -> TypeGuard[Tensor]:
    return is_dense(value) and value.is_floating_point()


def _check_device(name: str, value: Tensor, logits: Tensor) -> None:
    if value.device != logits.device:
        expected = f"{name} must be on the device of the logits, {logits.device}"
        raise InputError(expected, value.device, f"Move it: {name}.to(logits.device).")


def _check_extra(name: str, value: Any, logits: Tensor, extras: Mapping[str, Any]) -> Tensor:
    """Return an optional tensor after checking shape, dtype and device against the logits."""
    rows, classes, *dense = logits.shape
    num_views = _second_size(extras.get("mixed"), "K")
    num_features = _second_size(extras.get("features"), "D")
    # A letter stands for any length above 0.
    shapes_by_name: dict[str, list[tuple[int | str, ...]]] = {
        "features": [(rows, "D"), (rows, "D", *dense)],
        "index": [(rows,)],
        "mixed": [(rows, "K", classes, *dense)],
        "mixed_share": [(rows, num_views), (rows, num_views, *dense)],
        "head_weight": [(classes, num_features)],
    }
    shapes = shapes_by_name[name]
    is_index = name == "index"
    kind_fits = is_dense(value) and (
        value.dtype == torch.int64 if is_index else value.is_floating_point()
    )
    if not kind_fits or not any(_has_shape(value, shape) for shape in shapes):
        shape_text = " or ".join(
            dict.fromkeys(f"({', '.join(map(str, shape))}{',' * is_index})" for shape in shapes)
        )
        expected = (
            f"{name} must be {shape_text}{' int64' * is_index} for logits {tuple(logits.shape)}"
        )
        fix = EXTRAS[name][1]
        if name == "features" and isinstance(value, Tensor) and value.ndim > 2 and not dense:
            axes = tuple(range(2, value.ndim))
            fix = f"Pool them first, e.g. features.mean({axes if len(axes) > 1 else axes[0]})."
        raise InputError(expected, describe(value), fix)
    # An index on the CPU works for a buffer on any device.
    if not is_index or value.device.type != "cpu":
        _check_device(name, value, logits)
    return value


def _second_size(value: object, default: str) -> int | str:
    return value.shape[1] if isinstance(value, Tensor) and value.ndim > 1 else default


def _has_shape(value: Tensor, shape: tuple[int | str, ...]) -> bool:
    sizes = zip(value.shape, shape, strict=False)
    return value.ndim == len(shape) and all(
        size == wish or (isinstance(wish, str) and size > 0) for size, wish in sizes
    )
