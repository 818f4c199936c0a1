"""Checks and flattens the arguments of a loss.

Ignored positions stay in the batch, with a mask: selecting them would make shapes depend on data, which stalls an
accelerator and breaks ``torch.compile(fullgraph=True)``. On a CPU, where a look at the targets is free, the mask is
None if nothing is ignored, and then costs nothing.
"""

from __future__ import annotations

from typing import Any, TypeGuard

import torch
from torch import Tensor

from fedlas._core.check import InputError, NonFiniteError, check_logits, describe, is_dense
from fedlas.losses._base.batch import Batch, can_look

_ONE_OUTPUT = "For a model with one output wrap a loss of two classes: fedlas.losses.OneLogit(loss)."


def prepare(
    owner: str,
    logits: Any,
    target: Any,
    features: Any = None,
    index: Any = None,
    *,
    mixed: Any = None,
    mixed_share: Any = None,
    head_weight: Any = None,
    ignore_index: int = -100,
    weight: Tensor | None = None,
    averaged: bool = True,
    masked_classes: bool = False,
) -> Batch:
    """Check and flatten the arguments of a loss; see :meth:`Loss.forward` for their shapes.

    Args:
        owner: Name of the loss, for errors.
        logits: As there, and so are those that follow.
        target: As there.
        features: As there.
        index: As there.
        mixed: As there.
        mixed_share: As there.
        head_weight: As there.
        ignore_index: Target value of positions that are left out.
        weight: Class weights ``(C,)``.
        averaged: Whether a mean will be taken: then nothing counts in a batch whose class weights are all 0.
        masked_classes: Whether logits of -inf are accepted; see :attr:`Loss.masked_classes`.

    Raises:
        InputError: As :meth:`Loss.forward`.
    """
    # Logits and class weights.
    logits = check_logits(owner, logits)
    classes, shape = logits.shape[1], (logits.shape[0], *logits.shape[2:])
    if 0 in shape:
        raise InputError(
            owner, "a batch must hold at least one position", f"logits {tuple(logits.shape)}", "Skip empty batches."
        )
    flat = _rows(logits)
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
        _check_device(owner, "weight", weight, logits)
        weight = weight.to(flat.dtype)

    # Targets: class indices, or probabilities shaped like the logits.
    valid: Tensor | None = None
    look = can_look(flat)
    if is_dense(target) and target.shape == shape and not _is_real(target):
        _check_device(owner, "target", target, logits)
        target, valid = _hard_target(owner, target, classes, ignore_index, look)
    elif _floating(target) and target.shape == logits.shape:
        _check_device(owner, "target", target, logits)
        target = _soft_target(owner, _rows(target), look).to(flat.dtype)
    else:
        raise InputError(
            owner,
            f"target must be integers {shape} or probabilities {tuple(logits.shape)} for logits {tuple(logits.shape)}",
            describe(target),
            _ONE_OUTPUT
            if classes == 1
            else "Put the classes second: logits.movedim(-1, 1)."
            if isinstance(target, Tensor) and target.shape == logits.shape[:-1]
            else "Pass class indices, or one row of class probabilities a sample.",
        )
    if look and float(flat.detach().amin()) == float("-inf"):
        _check_masked(owner, flat.detach(), target, valid, masked_classes)
    if weight is not None and averaged:
        valid = _unless_weightless(target, valid, weight)

    # The tensors that only some losses need.
    if features is not None:
        features = _checked_features(owner, features, logits)
    return Batch(
        logits=flat,
        target=target,
        valid=valid,
        weight=weight,
        features=None if features is None else _rows(features),
        index=None if index is None else _checked_index(owner, index, logits),
        shape=shape,
        per_image=logits.ndim > 2 and features is not None and features.ndim == 2,
        mixed=None if mixed is None else _flat_mixed(owner, mixed, logits).to(flat.dtype),
        mixed_share=None if mixed_share is None else _flat_share(owner, mixed_share, mixed, logits).to(flat.dtype),
        head_weight=None if head_weight is None else _checked_head(owner, head_weight, logits, features).to(flat.dtype),
    )


def _rows(tensor: Tensor) -> Tensor:
    """``(N, K, d1, ...)`` as ``(N d1 ..., K)``."""
    return tensor if tensor.ndim == 2 else tensor.movedim(1, -1).reshape(-1, tensor.shape[1])


def _floating(value: Any) -> TypeGuard[Tensor]:
    return is_dense(value) and value.is_floating_point()


def _check_device(owner: str, name: str, value: Tensor, logits: Tensor) -> None:
    if value.device != logits.device:
        raise InputError(
            owner,
            f"{name} must be on {logits.device} like logits",
            value.device,
            f"Move it: {name}.to(logits.device).",
        )


def _is_real(target: Tensor) -> bool:
    return target.is_floating_point() or target.is_complex() or target.dtype == torch.bool


def _soft_target(owner: str, target: Tensor, look: bool) -> Tensor:
    """Soft targets ``(M, C)``; their range is checked, with room for rounding, where values may be read."""
    if look:
        low, high = (float(bound) for bound in target.detach().aminmax())
        if not -1e-3 <= low <= high <= 1 + 1e-3:  # so worded that NaN fails
            raise InputError(
                owner,
                "soft targets must be probabilities in [0, 1]",
                f"values from {low:g} to {high:g}",
                "Pass one row of class probabilities a sample, e.g. scores.softmax(1).",
            )
    return target


def _check_masked(owner: str, logits: Tensor, target: Tensor, valid: Tensor | None, supported: bool) -> None:
    """Refuse logits of -inf where the loss is not defined for them: see :attr:`Loss.masked_classes`.

    Raises:
        NonFiniteError: If the loss does not support them at all, or a target is masked.
    """
    masked = logits == float("-inf")
    if valid is not None:
        masked &= valid[:, None]
    if not bool(masked.any()):
        return
    first = tuple(int(i) for i in masked.nonzero()[0])
    got = f"{int(masked.sum())} logits of -inf, the first at position {first[0]}, class {first[1]}"
    if not supported:
        raise NonFiniteError(
            owner,
            "logits must be above -inf, since its formula is infinite or not defined for masked classes",
            got,
            "Leave masked classes out of the logits, or choose a loss of probabilities, such as ce, focal or brier.",
        )
    hit = (masked & (target > 0)).any(1) if target.ndim == 2 else masked.gather(1, target[:, None]).squeeze(1)
    if bool(hit.any()):
        raise NonFiniteError(
            owner,
            "logits must be above -inf for the class of the target",
            got,
            "Mask other classes only: the loss of a class that cannot be is infinite.",
        )


def _unless_weightless(target: Tensor, valid: Tensor | None, weight: Tensor) -> Tensor | None:
    """The mask of positions that count; none does where all that would have a class weight of 0.

    Otherwise such a batch has a mean of 0 / 0: one step, and the gate and the model are NaN for good.
    """
    each = target @ weight if target.ndim == 2 else weight[target]
    some = (each if valid is None else torch.where(valid, each, 0.0)).amax() > 0
    if can_look(some) and bool(some):
        return valid
    return some.expand(len(target)) if valid is None else valid & some


def _hard_target(
    owner: str, target: Tensor, classes: int, ignore_index: int, look: bool
) -> tuple[Tensor, Tensor | None]:
    """Targets with ignored positions set to 0, and the mask of the others; None if all are known to count."""
    if target.ndim > 1:
        target = target.reshape(-1)
    if target.dtype != torch.int64:
        target = target.long()
    if look:
        smallest, largest = target.aminmax()
        low, high = int(smallest), int(largest)
        if low >= 0 and high < classes and not low <= ignore_index <= high:
            return target, None  # the usual case: no mask from here on, which is worth the two comparisons
    valid = target != ignore_index
    if look and not bool(valid.any()):
        raise InputError(
            owner,
            "a batch must hold at least one position that counts",
            f"{target.numel()} targets that all equal ignore_index {ignore_index}",
            "Skip such batches: their mean is not defined.",
        )
    masked = torch.where(valid, target, 0)
    if look and not 0 <= int(masked.min()) <= int(masked.max()) < classes:
        raise InputError(
            owner,
            f"target must be in [0, {classes}) or ignore_index {ignore_index}",
            f"values from {int(target[valid].min())} to {int(target[valid].max())}",
            _ONE_OUTPUT if classes == 1 else "Check the labels and the number of classes of the model.",
        )
    return masked, valid


def _checked_features(owner: str, features: Any, logits: Tensor) -> Tensor:
    """Features ``(N, D)``, or ``(N, D, d1, ...)`` for logits ``(N, C, d1, ...)``."""
    rows, dense = logits.shape[0], logits.shape[2:]
    shaped = _floating(features) and features.ndim > 1 and features.shape[0] == rows and features.shape[1] > 0
    if shaped and features.shape[2:] in ((), dense):
        _check_device(owner, "features", features, logits)
        return features
    shapes = f"(N, D) with N = {rows} and D > 0" + (f" or (N, D, {', '.join(map(str, dense))})" if dense else "")
    fix = "Pass the input of the classifier head."
    if isinstance(features, Tensor) and features.ndim > 2 and not dense:
        axes = tuple(range(2, features.ndim))
        fix = f"Pool them first, e.g. features.mean({axes if len(axes) > 1 else axes[0]})."
    raise InputError(owner, f"features must be {shapes} like logits {tuple(logits.shape)}", describe(features), fix)


def _flat_mixed(owner: str, mixed: Any, logits: Tensor) -> Tensor:
    """Logits of mixed samples as ``(M, K, C)``."""
    if _floating(mixed) and mixed.shape[:1] + mixed.shape[2:] == logits.shape and mixed.shape[1] > 0:
        _check_device(owner, "mixed", mixed, logits)
        return mixed if logits.ndim == 2 else mixed.flatten(3).permute(0, 3, 1, 2).flatten(0, 1)
    shape = ", ".join(map(str, (logits.shape[0], "K", *logits.shape[1:])))
    raise InputError(
        owner,
        f"mixed must be ({shape}) like logits {tuple(logits.shape)}",
        describe(mixed),
        "Stack the logits of K mixed versions of the batch: torch.stack(views, dim=1).",
    )


def _flat_share(owner: str, share: Any, mixed: Any, logits: Tensor) -> Tensor:
    """Shares ``(N, K)`` of samples, or ``(N, K, d1, ...)`` of positions, as ``(M, K)``."""
    if isinstance(share, Tensor):
        _check_device(owner, "mixed_share", share, logits)
    views = mixed.shape[1] if isinstance(mixed, Tensor) else "K"
    if _floating(share) and share.ndim > 1 and share.shape[0] == logits.shape[0] and views in ("K", share.shape[1]):
        if share.shape[2:] == logits.shape[2:]:
            return _rows(share)
        if share.ndim == 2:
            return share.repeat_interleave(logits.shape[2:].numel(), dim=0)
    raise InputError(
        owner,
        f"mixed_share must be ({logits.shape[0]}, {views}) for logits {tuple(logits.shape)}",
        describe(share),
        "Pass the shares that mix(inputs, target) returns.",
    )


def _checked_head(owner: str, weight: Any, logits: Tensor, features: Tensor | None) -> Tensor:
    width = "D" if features is None else features.shape[1]
    if (
        _floating(weight)
        and weight.ndim == 2
        and weight.shape[0] == logits.shape[1]
        and width in ("D", weight.shape[1])
    ):
        _check_device(owner, "head_weight", weight, logits)
        return weight
    raise InputError(
        owner,
        f"head_weight must be ({logits.shape[1]}, {width}) for logits {tuple(logits.shape)}",
        describe(weight),
        "Pass the weight of the linear layer that makes the logits.",
    )


def _checked_index(owner: str, index: Any, logits: Tensor) -> Tensor:
    rows = len(logits)
    if is_dense(index) and index.shape == (rows,) and index.dtype == torch.int64:
        if index.device.type != "cpu":  # an index on the CPU finds its place in a buffer on any device
            _check_device(owner, "index", index, logits)
        return index
    raise InputError(
        owner, f"index must be ({rows},) int64", describe(index), "Pass each sample's position in the data set."
    )
