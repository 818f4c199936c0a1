"""Weights of samples in metrics, and the refusal of metrics that know of none.

Sums over samples become weighted sums, and ``N`` becomes the sum of the weights. Where a formula asks how *many*
samples there are (ranks, coverages one by one), the weights are scaled so that they average 1: the sample of weight
``w`` then counts as ``w`` samples.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedlas._core.check import InputError


def has_weights(predictions: Any) -> bool:
    """Return whether the samples of ``predictions`` have weights."""
    return getattr(predictions, "weights", None) is not None


def averaging_one(predictions: Any) -> Tensor | None:
    """Return the weights ``(N,)`` scaled so that those above 0 average 1; None if there are none."""
    weights: Tensor | None = getattr(predictions, "weights", None)
    return None if weights is None else weights * (torch.count_nonzero(weights) / weights.sum())


def nonzero(count: NDArray[np.float64], *, least: float = 0.0) -> NDArray[np.float64]:
    """Return ``count`` with 1 in place of values up to ``least``, so that empty bins can be divided by it."""
    return np.where(count > least, count, 1.0)


def refuse_weights(owner: str, statistic: Any) -> None:
    """Refuse a published variant, which knows of no weights, for a ``statistic`` that has some.

    Raises:
        InputError: If its ``weights`` are not None.
    """
    if statistic.weights is not None:
        fix = 'Choose variant="exact", or take the weights off: dataclasses.replace(predictions, weights=None).'
        raise InputError(owner, 'predictions must have no weights with variant="reference"', "weights", fix)


def check_takes_weights(owner: str, predictions: Any, *, takes_weights: bool) -> None:
    """Refuse weighted predictions for a metric that would ignore the weights.

    Raises:
        InputError: If ``predictions`` have weights and the metric does not take them.
    """
    if has_weights(predictions) and not takes_weights:
        raise InputError(
            owner,
            "predictions must have no weights, which are not used here",
            f"weights of {len(predictions.weights)} samples",
            "Take the weights off, dataclasses.replace(predictions, weights=None), or choose another metric.",
        )
