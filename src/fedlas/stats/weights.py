"""Weights of samples: how many samples they are worth."""

from __future__ import annotations

from typing import Any

import numpy as np


def effective_samples(weights: Any) -> float:
    """``(sum w)**2 / sum w**2``: how many equally weighted samples would give a mean as sure as these weights do.

    Args:
        weights: ``(N,)``, at least 0; a tensor or an array.

    Returns:
        A number in ``[1, N]``; ``N`` if all weights are equal.

    Example:
        >>> effective_samples([1.0, 1.0, 1.0, 1.0]), effective_samples([1.0, 0.0, 0.0, 3.0])
        (4.0, 1.6)

    Source:
        Kish, "Survey Sampling" (1965), section 11.2; for importance weights Kong, "A note on importance sampling using
        standardized weights" (1992).
    """
    found = np.asarray(weights, dtype=np.float64)
    found = found / found.max()  # squares of large and small weights stay numbers
    return float(found.sum() ** 2 / (found**2).sum())
