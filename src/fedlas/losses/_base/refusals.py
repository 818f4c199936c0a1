"""Checks of targets, of logits of -inf, of class weights of 0, and of what the loss of a user returns."""

from __future__ import annotations

import torch
from torch import Tensor

from fedlas._core.check import InputError, NonFiniteError, describe

ONE_OUTPUT = "For a model with one output wrap a loss of two classes: fedlas.losses.OneLogit(loss)."


def hard_target(
    target: Tensor, classes: int, ignore_index: int, look: bool
) -> tuple[Tensor, Tensor | None]:
    """Return targets with ignored positions set to 0, and the mask of the others; None if all are known to count."""
    if target.ndim > 1:
        target = target.reshape(-1)
    if target.dtype != torch.int64:
        target = target.long()
    if look:
        smallest, largest = target.aminmax()
        low = int(smallest)
        high = int(largest)
        if low >= 0 and high < classes and not low <= ignore_index <= high:
            # the usual case: no mask from here on, which is worth the two comparisons
            return target, None
    valid = target != ignore_index
    if look and not bool(valid.any()):
        raise InputError(
            "a batch must hold at least one position that counts",
            f"{target.numel()} targets that all equal ignore_index {ignore_index}",
            "Skip such batches: their mean is not defined.",
        )
    masked = torch.where(valid, target, 0)
    if look and not 0 <= int(masked.min()) <= int(masked.max()) < classes:
        counted = target[valid]
        outside = counted[(counted < 0) | (counted >= classes)]
        raise InputError(
            f"target must be in [0, {classes}) or ignore_index {ignore_index}",
            f"values from {int(counted.min())} to {int(counted.max())}",
            ONE_OUTPUT
            if classes == 1
            else "Pass ignore_index=255 to leave positions without a class out."
            if bool((outside == 255).all())
            else "Check the labels and the number of classes of the model.",
        )
    return masked, valid


def soft_target(target: Tensor, look: bool) -> Tensor:
    """Return soft targets ``(M, C)``; their range is checked, with room for rounding, where values may be read."""
    if look:
        low, high = (float(bound) for bound in target.detach().aminmax())
        if not -1e-3 <= low <= high <= 1 + 1e-3:  # written so that NaN fails
            raise InputError(
                "soft targets must be probabilities in [0, 1]",
                f"values from {low:g} to {high:g}",
                "Pass one row of class probabilities a sample, e.g. scores.softmax(1).",
            )
    return target


def check_masked(logits: Tensor, target: Tensor, valid: Tensor | None, supported: bool) -> None:
    """Refuse logits of -inf where the loss is not defined for them: see :attr:`Loss.masked_classes`."""
    masked = logits == float("-inf")
    if valid is not None:
        masked &= valid[:, None]
    if not bool(masked.any()):
        return
    first = tuple(int(i) for i in masked.nonzero()[0])
    got = f"{int(masked.sum())} logits of -inf, the first at position {first[0]}, class {first[1]}"
    if not supported:
        raise NonFiniteError(
            "logits must be above -inf, since its formula is infinite or not defined for masked classes",
            got,
            "Leave masked classes out of the logits, or choose a loss of probabilities, such as ce, focal or brier.",
        )
    hit = (
        (masked & (target > 0)).any(1)
        if target.ndim == 2
        else masked.gather(1, target[:, None]).squeeze(1)
    )
    if bool(hit.any()):
        raise NonFiniteError(
            "logits must be above -inf for the class of the target",
            got,
            "Mask other classes only: the loss of a class that cannot be is infinite.",
        )


def unless_weightless(
    target: Tensor, valid: Tensor | None, weight: Tensor, look: bool
) -> Tensor | None:
    """Return the mask of positions that count: none where all of them would have a class weight of 0."""
    # Otherwise such a batch has a mean of 0 / 0, and after one step all parameters are NaN.
    each = target @ weight if target.ndim == 2 else weight[target]
    some = (each if valid is None else torch.where(valid, each, 0.0)).amax() > 0
    if look and bool(some):
        return valid
    return some.expand(len(target)) if valid is None else valid & some


def check_positions(values: object, rows: int, owner: str) -> Tensor:
    """Return the loss of each position if it is ``(rows,)`` and floating; anything else would be averaged wrongly."""
    if isinstance(values, Tensor) and values.shape == (rows,) and values.is_floating_point():
        return values
    shape = tuple(values.shape) if isinstance(values, Tensor) else None
    if shape == ():
        fix = "Leave .mean() and .sum() out: reduction= takes them."
    elif shape == (rows, 1):
        fix = "Return values.squeeze(1)."
    elif shape is not None and shape[:1] == (rows,):
        fix = "Sum over the classes: return values.sum(dim=1)."
    else:
        fix = "Return one value a row of batch.logits."
    raise InputError(
        f"per_sample of {owner} must return the loss of each position, ({rows},) floating",
        describe(values),
        fix,
    )


def check_depends_on(value: Tensor, logits: Tensor, owner: str) -> None:
    """Refuse a loss that has no path of gradients to the logits: it would train nothing."""
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
        f"the loss of {owner} must depend on the logits",
        "a value without a gradient with respect to them",
        "Compute it from batch.logits, without detach(), item() or numpy().",
    )
