"""Deep ensemble: the mean of the probabilities of networks with different random initialization.

Source:
    Lakshminarayanan, Pritzel, Blundell: Simple and Scalable Predictive Uncertainty Estimation using Deep Ensembles,
    NeurIPS 2017, section 2.4. https://arxiv.org/abs/1612.01474
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from fedlas._core.check import InputError, as_float_array, check_logits, describe
from fedlas.predictions import Predictions

__all__ = ["average", "log_mean_softmax"]

_CHUNK_NUMBERS = 2**22  # of all members together, in float64: 32 MB


def average(*predictions: Predictions, weights: Sequence[float] | None = None) -> Predictions:
    """Return the mean of the probabilities of several classifiers on the same samples, as logits.

    ``z = log sum_m w_m softmax(z_m)``, so ``softmax(z)`` is the mean. Computed as a logsumexp of log-probabilities in
    float64, which is accurate for tiny probabilities.

    Args:
        *predictions: At least one; the same samples in the same order.
        weights: One number >= 0 per classifier, normalized to sum 1; None: equal weights.

    Returns:
        Predictions on the same samples, on the first one's device; the logits are log-probabilities. True label
        probabilities are kept; features are not, as the average has no head.

    Raises:
        InputError: If there are no predictions, samples or classes differ, or weights are invalid.

    Note:
        Equality of the targets is checked; equality of the inputs cannot be.

    Example:
        >>> sure, unsure = Predictions([[100.0, 0.0]], [0]), Predictions([[0.0, 0.0]], [0])
        >>> average(sure, unsure).probs
        array([[0.75, 0.25]])
    """
    first = check_members(predictions)
    shares = _normalize_weights(weights, len(predictions))
    # Members of weight 0 are left out: the logarithm of their weight is infinite.
    weighted_members = [
        (p, share) for p, share in zip(predictions, shares.tolist(), strict=True) if share > 0
    ]
    log_shares = torch.tensor(
        [share for _, share in weighted_members],
        dtype=torch.float64,
        device=first.tensors().logits.device,
    ).log()
    dtype = torch.float32
    for p in predictions:
        dtype = torch.promote_types(dtype, p.tensors().logits.dtype)
    # Some rows at a time, so that the float64 copies of all members stay small.
    rows = max(1, _CHUNK_NUMBERS // (len(weighted_members) * first.num_classes))
    parts = [
        log_mean_softmax(
            torch.stack(
                [
                    p.tensors()
                    .logits[start : start + rows]
                    .to(first.tensors().logits.device, torch.float64)
                    for p, _ in weighted_members
                ]
            ),
            log_weights=log_shares,
        ).to(dtype)
        for start in range(0, first.num_samples, rows)
    ]
    label_probs = next(
        (p.tensors().label_probs for p in predictions if p.label_probs is not None), None
    )
    target = first.tensors().target if first.has_target else None
    return Predictions(
        torch.cat(parts), target, label_probs=label_probs, weights=first.tensors().weights
    )


def log_mean_softmax(logits: Tensor, *, log_weights: Tensor | None = None) -> Tensor:
    """Return the log of the mean softmax over the first axis, ``log sum_s w_s softmax(z_s)``.

    Args:
        logits: ``(S, ..., C)``, of ``S`` members or draws.
        log_weights: Logarithms ``(S,)`` of weights that sum to 1; None: equal weights.

    Returns:
        ``(..., C)``.

    Example:
        >>> log_mean_softmax(torch.tensor([[0.0, 100.0], [0.0, 0.0]])).exp().tolist()
        [0.25, 0.75]
    """
    log_probs = check_logits(logits).log_softmax(dim=-1)
    if log_weights is None:
        return log_probs.logsumexp(dim=0) - math.log(max(1, len(logits)))
    if not isinstance(log_weights, Tensor) or log_weights.shape != logits.shape[:1]:
        expected = f"log_weights must be a tensor ({len(logits)},), one for each member"
        raise InputError(expected, describe(log_weights), "Omit log_weights for equal weights.")
    return (log_probs + log_weights.reshape(-1, *[1] * (logits.ndim - 1))).logsumexp(dim=0)


def check_members(predictions: Sequence[Predictions]) -> Predictions:
    """Return the first of ``predictions``, after checking that all are on the same samples."""
    if not len(predictions) or not all(isinstance(p, Predictions) for p in predictions):
        got = describe(next((p for p in predictions if not isinstance(p, Predictions)), ()))
        raise InputError(
            "at least one Predictions is required", got, "Load it with Predictions.load(path)."
        )
    first = predictions[0]
    for number, other in enumerate(predictions[1:], start=2):
        same = other.logits.shape == first.logits.shape
        if not same or not _have_same_target(other, first):
            raise InputError(
                f"all predictions must be on the same {first.num_samples} samples with {first.num_classes} classes",
                f"{describe(other.tensors().logits)} as number {number}"
                + (", with other targets" if same else ""),
                "Use predictions on one data set, in one order.",
            )
    return first


def _have_same_target(a: Predictions, b: Predictions) -> bool:
    """Return whether both predictions have equal labels, or neither has labels."""
    if not (a.has_target and b.has_target):
        return a.has_target is b.has_target
    return torch.equal(a.tensors().target.to(b.tensors().target.device), b.tensors().target)


def _normalize_weights(weights: Sequence[float] | None, members: int) -> Tensor:
    numbers = np.ones(members) if weights is None else as_float_array(weights)
    if numbers.shape != (members,) or not (numbers >= 0).all() or not 0 < numbers.sum() < math.inf:
        raise InputError(
            f"weights must be {members} numbers >= 0, not all 0",
            describe(weights),
            "Omit weights for equal weights.",
        )
    shares = torch.tensor(numbers, dtype=torch.float64)
    return shares / shares.sum()
