"""Checks of targets, logits of -inf, zero class weights, and values returned by custom losses."""

from __future__ import annotations

import torch
from torch import Tensor

from fedlas._core.check import InputError, NonFiniteError, describe

ONE_OUTPUT = "For a model with one output, wrap a two-class loss: fedlas.losses.OneLogit(loss)."


def mask_ignored_targets(
    target: Tensor, num_classes: int, ignore_index: int, can_read: bool
) -> tuple[Tensor, Tensor | None]:
    """Return class indices, 0 at ignored positions, and the mask of valid positions, or None if all are valid."""
    if target.ndim > 1:
        target = target.reshape(-1)
    if target.dtype != torch.int64:
        target = target.long()
    if can_read:
        smallest, largest = target.aminmax()
        low = int(smallest)
        high = int(largest)
        if low >= 0 and high < num_classes and not low <= ignore_index <= high:
            # The usual case: no mask is needed, which saves more than the two comparisons cost.
            return target, None
    valid = target != ignore_index
    if can_read and not bool(valid.any()):
        raise InputError(
            "target must have at least one position that is not ignored",
            f"{target.numel()} targets, all equal to ignore_index {ignore_index}",
            "Skip such batches: the mean loss is undefined.",
        )
    masked = torch.where(valid, target, 0)
    if can_read and not 0 <= int(masked.min()) <= int(masked.max()) < num_classes:
        counted = target[valid]
        outside = counted[(counted < 0) | (counted >= num_classes)]
        raise InputError(
            f"target must be in [0, {num_classes}) or ignore_index {ignore_index}",
            f"values from {int(counted.min())} to {int(counted.max())}",
            ONE_OUTPUT
            if num_classes == 1
            else "Pass ignore_index=255 to ignore unlabeled positions."
            if bool((outside == 255).all())
            else "Check that labels are class indices and that the model has as many outputs as there are classes.",
        )
    return masked, valid


def check_soft_target(target: Tensor, can_read: bool) -> Tensor:
    """Return soft targets ``(M, C)`` after checking, where values may be read, that they are in [0, 1]."""
    if can_read:
        low, high = (float(bound) for bound in target.detach().aminmax())
        if not -1e-3 <= low <= high <= 1 + 1e-3:  # written so that NaN fails
            raise InputError(
                "soft targets must be in [0, 1]",
                f"values from {low:g} to {high:g}",
                "Pass one row of class probabilities per sample, e.g. scores.softmax(1).",
            )
    return target


def check_masked_logits(
    logits: Tensor, target: Tensor, valid: Tensor | None, allow_masked: bool
) -> None:
    """Raise NonFiniteError for logits of -inf where the loss is undefined; see :attr:`Loss.masked_classes`."""
    masked = logits == float("-inf")
    if valid is not None:
        masked &= valid[:, None]
    if not bool(masked.any()):
        return
    first = tuple(int(i) for i in masked.nonzero()[0])
    got = f"{int(masked.sum())} logits of -inf, the first at position {first[0]}, class {first[1]}"
    if not allow_masked:
        raise NonFiniteError(
            "logits must be finite: this loss is infinite or undefined for masked classes (logits of -inf)",
            got,
            "Remove masked classes from the logits, or use a loss that supports them, such as ce, focal or brier.",
        )
    hit = (
        (masked & (target > 0)).any(1)
        if target.ndim == 2
        else masked.gather(1, target[:, None]).squeeze(1)
    )
    if bool(hit.any()):
        raise NonFiniteError(
            "the target class must have a finite logit",
            got,
            "Mask only classes other than the target: the loss of a masked target is infinite.",
        )


def mask_zero_weight_batch(
    target: Tensor, valid: Tensor | None, weight: Tensor, can_read: bool
) -> Tensor | None:
    """Return the mask of valid positions, all False if every valid position has a class weight of 0."""
    # Otherwise such a batch has a mean of 0 / 0, and after one step all parameters are NaN.
    each = target @ weight if target.ndim == 2 else weight[target]
    has_weight = (each if valid is None else torch.where(valid, each, 0.0)).amax() > 0
    if can_read and bool(has_weight):
        return valid
    return has_weight.expand(len(target)) if valid is None else valid & has_weight


def check_position_losses(values: object, rows: int, owner: str) -> Tensor:
    """Return the result of ``per_sample`` if it is floating with shape ``(rows,)``, else raise InputError."""
    if isinstance(values, Tensor) and values.shape == (rows,) and values.is_floating_point():
        return values
    shape = tuple(values.shape) if isinstance(values, Tensor) else None
    if shape == ():
        fix = "Return unreduced values, without .mean() or .sum(); reduction= is applied later."
    elif shape == (rows, 1):
        fix = "Return values.squeeze(1)."
    elif shape is not None and shape[:1] == (rows,):
        fix = "Sum over the classes: return values.sum(dim=1)."
    else:
        fix = "Return one value per row of batch.logits."
    raise InputError(
        f"{owner}.per_sample must return one loss per position, a floating tensor ({rows},)",
        describe(values),
        fix,
    )


def check_depends_on_logits(value: Tensor, logits: Tensor, owner: str) -> None:
    """Raise InputError if no gradient path leads from the loss to the logits, so that nothing would be trained."""
    origin = logits.grad_fn
    waiting = [value.grad_fn]
    visited = set()
    while waiting:
        node = waiting.pop()
        if node is None or node in visited:
            continue
        if node is origin or getattr(node, "variable", None) is logits:
            return
        visited.add(node)
        waiting += [following for following, _ in node.next_functions]
    raise InputError(
        f"the loss of {owner} must have a gradient with respect to the logits",
        "a value detached from the logits",
        "Compute it from batch.logits, without detach(), item() or numpy().",
    )
