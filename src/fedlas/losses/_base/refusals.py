"""Checks of values that few batches need: soft targets, logits of -inf, class weights of 0."""

from __future__ import annotations

import torch
from torch import Tensor

from fedlas._core.check import InputError, NonFiniteError


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
    """Return the mask of positions that count: none where all of them would have a class weight of 0.

    Otherwise such a batch has a mean of 0 / 0, and after one step all parameters are NaN.
    """
    each = target @ weight if target.ndim == 2 else weight[target]
    some = (each if valid is None else torch.where(valid, each, 0.0)).amax() > 0
    if look and bool(some):
        return valid
    return some.expand(len(target)) if valid is None else valid & some
