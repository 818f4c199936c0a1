"""Effective sample size of weighted samples."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedlas._core.check import InputError, as_float_array, describe

__all__ = ["effective_sample_size"]  # of fedlas.stats


def effective_sample_size(weights: object) -> float:
    """Return Kish's effective sample size, ``(sum w)**2 / sum w**2``.

    Args:
        weights: ``(N,)``, at least 0, not all 0; a tensor or an array.

    Returns:
        A number in ``[1, N]``; ``N`` if all weights are equal.

    Raises:
        InputError: If they are no such weights.

    Example:
        >>> effective_sample_size([1.0, 1.0, 1.0, 1.0]), effective_sample_size([2.0, 0.0, 0.0, 0.0])
        (4.0, 1.0)

    Source:
        Kish, "Survey Sampling" (1965), section 11.2; for importance weights Kong, "A note on importance sampling using
        standardized weights" (1992).
    """
    values = as_float_array(weights)
    if (
        values.ndim != 1
        or not len(values)
        or not (values >= 0).all()
        or not 0 < values.max() < np.inf
    ):
        raise InputError(
            "weights must have shape (N,), be at least 0, and not all be 0",
            describe(weights),
            "Pass one weight per sample.",
        )
    values = values / values.max()  # squares of large and small weights stay numbers
    return float(values.sum() ** 2 / (values**2).sum())


def effective_sample_size_by_group(
    weights: NDArray[Any], group: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Return the effective sample size of each group ``(G,)``; 1 for a group without weight.

    Example:
        >>> effective_sample_size_by_group(np.array([1.0, 1.0, 2.0, 0.0]), np.array([0, 0, 1, 1])).tolist()
        [2.0, 1.0]
    """
    squares = np.bincount(group, weights**2)
    sums = np.bincount(group, weights)
    return np.divide(sums**2, squares, out=np.ones_like(squares), where=squares > 0)
