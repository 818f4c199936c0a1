"""Stratified choice: every class keeps its share."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fedlas._core.check import InputError

IntArray = NDArray[np.int64]


def allocate(counts: IntArray, size: int, *, low: IntArray, high: IntArray) -> IntArray:
    """Divide ``size`` among classes in proportion to ``counts``, within bounds.

    Args:
        counts: Samples available in each class, ``(C,)``.
        size: How many to choose, between ``low.sum()`` and ``high.sum()``.
        low: Least for each class, ``(C,)``.
        high: Most for each class, ``(C,)``, at least ``low``.

    Returns:
        How many of each class, ``(C,)``, summing to ``size``: the exact shares rounded by largest remainder (the lower
        class number among equals). Bounds are kept by changing the classes whose share this distorts least.

    Example:
        >>> allocate(np.array([50, 30, 20]), 7, low=np.zeros(3, int), high=np.array([50, 30, 20])).tolist()
        [4, 2, 1]
    """
    total = int(counts.sum())
    exact = counts * size  # in units of 1/total, so that no rounding depends on floating point
    chosen = np.clip(exact // total, low, high)
    # Largest remainder: add or remove one sample in the classes where this distorts the share least, and repeat.
    while (missing := size - int(chosen.sum())) != 0:
        step = 1 if missing > 0 else -1
        movable = chosen < high if step > 0 else chosen > low
        distortion = np.where(movable, step * (chosen * total - exact), np.iinfo(np.int64).max)
        chosen[np.argsort(distortion, kind="stable")[: min(abs(missing), int(movable.sum()))]] += step
    return chosen.astype(np.int64)


def shuffled_classes(target: IntArray, num_classes: int, random: np.random.RandomState) -> list[IntArray]:
    """The positions of each class in ``target (N,)``, each class in random order."""
    order = np.argsort(target, kind="stable")
    groups = np.split(order, np.cumsum(np.bincount(target, minlength=num_classes))[:-1])
    return [random.permutation(group) for group in groups]


def choose(groups: list[IntArray], amounts: IntArray, *, skip: IntArray | None = None) -> IntArray:
    """``amounts[c]`` positions of each class, after the first ``skip[c]``; sorted, ``(amounts.sum(),)`` int64."""
    starts = np.zeros(len(groups), dtype=np.int64) if skip is None else skip
    parts = [group[start : start + amount] for group, start, amount in zip(groups, starts, amounts, strict=True)]
    return np.sort(np.concatenate(parts)).astype(np.int64)


def hold_out(
    owner: str, target: IntArray, size: int, classes: tuple[str, ...], random: np.random.RandomState
) -> tuple[IntArray, IntArray]:
    """Divide positions into a part to keep and a stratified part of about ``size``, both with every class.

    Returns:
        ``(kept, held_out)``, sorted positions.

    Raises:
        InputError: If a class has fewer than two samples, or ``size`` leaves no room for every class in both parts.
    """
    counts = np.bincount(target, minlength=len(classes))
    if int(counts.min()) < 2:
        scarce = int(counts.argmin())
        raise InputError(
            owner,
            "each class needs at least two images, one to train and one to test on",
            f"{counts[scarce]} of {classes[scarce]!r}",
            "Add images of this class, or provide the test part yourself.",
        )
    size = min(max(size, len(classes)), len(target) - len(classes))
    ones = np.ones_like(counts)
    amounts = allocate(counts, size, low=ones, high=counts - 1)
    groups = shuffled_classes(target, len(classes), random)
    return choose(groups, counts - amounts, skip=amounts), choose(groups, amounts)
