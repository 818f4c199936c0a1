"""Weights of samples: what they may be."""

from __future__ import annotations

from torch import Tensor

from fedlas._core.check import LARGEST, InputError, describe


def check_weights(weights: Tensor, num_samples: int, *, owner: str = "Predictions") -> Tensor:
    """``weights (N,)`` as float64 on the CPU; what is below ``1 / LARGEST`` becomes 0.

    Raises:
        InputError: If there is not one for each of ``num_samples``, one is negative, not finite or above
            ``LARGEST``, or all are 0.
    """
    if weights.shape != (num_samples,) or weights.is_complex():
        fix = "Pass one weight for each row of logits."
        raise InputError(owner, f"weights must be ({num_samples},)", describe(weights), fix)
    weights = weights.cpu().double()
    low, high = float(weights.min()), float(weights.max())
    if not (low >= 0 and high <= LARGEST):  # so worded that NaN fails
        got = f"values from {low:.6g} to {high:.6g}"
        fix = "Leave out the samples whose weight is unknown; divide large weights by a constant."
        raise InputError(owner, f"weights must be in [0, {LARGEST:g}]", got, fix)
    # Squares of smaller ones underflow in sums that an effective sample size is made of.
    weights = weights.where(weights >= 1 / LARGEST, 0.0)
    if not bool((weights > 0).any()):
        fix = "Pass weights of which only the ratios matter, such as ones."
        raise InputError(owner, f"a weight must be at least {1 / LARGEST:g}", f"at most {high:g}", fix)
    return weights
