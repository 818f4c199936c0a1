"""Checks of the values of targets, of logits of -inf, and of class weights of 0."""

from __future__ import annotations

import torch
from torch import Tensor

from fedlas._core.check import InputError, NonFiniteError

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
