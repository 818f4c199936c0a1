"""Clusters of dependent samples, such as the visits of a patient or the pixels of an image."""

from __future__ import annotations

from typing import Any, TypeGuard

import numpy as np
from numpy.typing import NDArray

from fedlas._core.check import InputError, as_float_array


def is_clustered(clusters: NDArray[Any] | None) -> TypeGuard[NDArray[Any]]:
    """Return whether samples are clustered: more than one cluster, and at least one with several samples."""
    return clusters is not None and 1 < len(np.unique(clusters)) < len(clusters)


def require_independent(predictions: object, promise: str = "the bound") -> None:
    """Raise InputError if predictions have clusters; ``promise`` names what requires independent samples.

    Raises:
        InputError: If the predictions have clusters.
    """
    clusters = getattr(predictions, "clusters", None)
    if clusters is not None and len(np.unique(clusters)) < len(clusters):
        raise InputError(
            f"samples must be independent for {promise} to hold",
            f"{len(clusters):,} samples in {len(np.unique(clusters)):,} clusters",
            "Keep one sample per cluster, by fedlas.predictions.one_per_cluster(predictions) or, for a table, by "
            f"one_per_cluster=True. Dropping the clusters instead would make {promise} invalid.",
            fixes={
                "command": "Keep one row per cluster by --one-per-cluster. Dropping --clusters instead would make "
                f"{promise} invalid."
            },
        )


def merge_overlapping_groups(
    first: NDArray[np.int64], second: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Return group codes ``(N,)`` that merge two groupings: rows equal in either one share a group.

    Example:
        >>> merge_overlapping_groups(np.array([0, 1, 1, 2]), np.array([5, 5, 6, 7])).tolist()
        [0, 0, 0, 1]
    """
    group = factorize(first)
    size = group.max() + 1
    if size == len(group):
        return factorize(second)
    other = factorize(second)
    while True:
        lowest = np.full(other.max() + 1, size)
        np.minimum.at(lowest, other, group)
        wider = lowest[other]
        lowest = np.full(size, size)
        np.minimum.at(lowest, group, wider)
        wider = lowest[group]
        if (wider == group).all():
            return factorize(group)
        group = wider


def clustered_sum_variance(
    squares: NDArray[Any] | float, count: NDArray[np.int64] | int
) -> NDArray[np.float64]:
    """Return the variance of a sum over ``K`` clusters from the sum of squared cluster totals (mean 0).

    Args:
        squares: A number, or an array of such sums.
        count: Number of clusters ``K``: the sum is multiplied by ``K / (K - 1)``, as for a variance; NaN for one.

    Example:
        >>> float(clustered_sum_variance(6.0, 3)), float(clustered_sum_variance(6.0, 1))
        (9.0, nan)
    """
    return np.asarray(squares * count / np.where(np.asarray(count) > 1, count - 1, np.nan))


def mean_and_standard_error(
    gain: object, weights: object, clusters: Any = None
) -> tuple[float, float]:
    """Return the weighted mean of a gain ``(N,)`` and its standard error, which is cluster-robust.

    Args:
        gain: ``(N,)``, an array or a tensor.
        weights: ``(N,)``, which count samples.
        clusters: ``(N,)``, or None for independent samples.
    """
    gains, counts = as_float_array(gain), as_float_array(weights)
    total = float(counts.sum())
    mean = float(counts @ gains) / total
    codes = None if clusters is None else as_float_array(clusters)
    if not is_clustered(codes):
        return mean, float(counts @ (gains - mean) ** 2 / total / total) ** 0.5
    number = np.unique(codes, return_inverse=True)[1]
    sums = np.bincount(number, counts * (gains - mean))
    return mean, float(clustered_sum_variance(float(sums @ sums), len(sums))) ** 0.5 / total


def factorize(values: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return integer codes ``(N,)``: equal values share a code; codes follow the order of first occurrence."""
    _, first, number = np.unique(values, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[number]
