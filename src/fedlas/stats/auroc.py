"""The area under the ROC curve, counted exactly."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def pairs_in_order(low: Floats, high: Floats) -> Floats:
    """Return pairs of which the sample of ``low`` has the smaller score, and half of those with equal ones ``(R,)``.

    Args:
        low: Samples at each distinct score, ascending, of ``R`` replicates ``(R, G)``.
        high: The other kind of samples ``(R, G)``.
    """
    return np.asarray((high * (low.cumsum(axis=1) - 0.5 * low)).sum(axis=1))


def auroc(negative: Floats, positive: Floats) -> Floats:
    """Return the probability that a positive sample scores above a negative one, ties by half ``(R,)``; 0.5 is chance.

    Args:
        negative: Samples at each distinct score, ascending, of ``R`` replicates ``(R, G)``.
        positive: The positive ones ``(R, G)``.

    Returns:
        NaN for a replicate that lacks one of the two kinds. Whole counts give the nearest float to the exact value.

    Example:
        >>> auroc(np.array([[1.0, 1.0, 0.0]]), np.array([[0.0, 1.0, 1.0]])).tolist()
        [0.875]

    Source:
        Mann and Whitney, "On a test of whether one of two random variables is stochastically larger than the other",
        Annals of Mathematical Statistics 18 (1947).
    """
    with np.errstate(invalid="ignore"):
        return pairs_in_order(negative, positive) / (negative.sum(axis=1) * positive.sum(axis=1))
