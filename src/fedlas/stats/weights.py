"""Weights of samples: how many samples they are worth."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from fedlas._core.check import InputError, check_dense, check_finite, describe


def effective_samples(weights: Any) -> float:
    """Return ``(sum w)**2 / sum w**2``: equally many samples of one weight give a mean as precise.

    Args:
        weights: ``(N,)``, at least 0, not all 0; a tensor or an array.

    Returns:
        A number in ``[1, N]``; ``N`` if all weights are equal.

    Raises:
        InputError: If they are no such weights.

    Example:
        >>> effective_samples([1.0, 1.0, 1.0, 1.0]), effective_samples([2.0, 0.0, 0.0, 0.0])
        (4.0, 1.0)

    Source:
        Kish, "Survey Sampling" (1965), section 11.2; for importance weights Kong, "A note on importance sampling using
        standardized weights" (1992).
    """
    owner, array = "effective_samples", weights
    if isinstance(weights, Tensor):
        check_dense(owner, "weights", weights)
        array = weights.detach().cpu()
        array = array if array.is_complex() else array.double().numpy()
    try:
        values = np.asarray(array)
        if values.dtype.kind not in "fiub":
            raise TypeError(str(values.dtype))
        values = values.astype(np.float64)
    except (TypeError, ValueError) as error:  # text, objects, rows of different lengths
        raise InputError(
            owner, "weights must be real numbers", describe(weights), "Pass an array of numbers."
        ) from error
    check_finite(owner, "weights", torch.from_numpy(values))
    if values.ndim != 1 or not len(values) or values.min() < 0 or values.max() == 0:
        fix = "Pass one weight for each sample."
        raise InputError(owner, "weights must be (N,), at least 0, not all 0", describe(weights), fix)
    values = values / values.max()  # squares of large and small weights stay numbers
    return float(values.sum() ** 2 / (values**2).sum())
