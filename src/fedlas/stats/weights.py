"""Weights of samples: how many samples they are worth."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedlas._core.check import InputError, check_dense, check_finite, describe


def effective_samples(weights: Any) -> float:
    """``(sum w)**2 / sum w**2``: how many equally weighted samples would give a mean as sure as these weights do.

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
    found = numbers("effective_samples", "weights", weights)
    if found.ndim != 1 or not len(found) or found.min() < 0 or found.max() == 0:
        fix = "Pass one weight for each sample."
        raise InputError("effective_samples", "weights must be (N,), at least 0, not all 0", describe(weights), fix)
    found = found / found.max()  # squares of large and small weights stay numbers
    return float(found.sum() ** 2 / (found**2).sum())


def numbers(owner: str, name: str, given: Any) -> NDArray[np.float64]:
    """A tensor or array as finite float64 on the CPU.

    Raises:
        InputError: If it is none, or not finite.
    """
    if isinstance(given, Tensor):
        check_dense(owner, name, given)
        given = given.detach().cpu()
        given = given if given.is_complex() else given.double().numpy()
    try:
        found = np.asarray(given)
        if found.dtype.kind not in "fiub":
            raise TypeError(str(found.dtype))
        found = found.astype(np.float64)
    except (TypeError, ValueError) as error:  # text, objects, rows of different lengths
        raise InputError(owner, f"{name} must be real numbers", describe(given), "Pass an array of numbers.") from error
    check_finite(owner, name, torch.from_numpy(found))
    return found
