"""Cross-validation folds that depend on the samples and not on their order, and keep equal samples together."""

from __future__ import annotations

import zlib

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


def canonical_order(logits: Tensor, target: Tensor) -> Tensor:
    """Return an order of the samples that ignores the stored one: by class, practically random within it.

    Sorted by label, then by a checksum of the row of logits. Rows with the same checksum are nearly always equal, and
    the order of equal samples does not matter.

    Args:
        logits: ``(N, C)``.
        target: ``(N,)``.

    Returns:
        ``(N,)`` int64: indices of the samples in that order.
    """
    return _order(_checksums(logits), target)


def equal_rows(rows: Tensor) -> Tensor:
    """Return the number of the distinct row that each row equals ``(N,)`` int64, counted in order of first occurrence.

    Two different rows have the same checksum, and so the same number, once in four billion pairs. They are kept
    together then, which does no harm.

    Example:
        >>> equal_rows(torch.tensor([[2.0, 0.0], [1.0, 0.0], [2.0, -0.0]])).tolist()
        [0, 1, 0]
    """
    return torch.from_numpy(_numbered(_checksums(rows)))


def stratified_folds(logits: Tensor, target: Tensor, count: int, weights: Tensor | None = None) -> Tensor:
    """Return the fold ``(N,)`` of each sample, from 0 on, at most ``count``; equal rows of logits share one.

    A copy of a held-out sample would make it a training sample. Where no rows are equal, sizes differ by at most one,
    overall and within each class; else as little as the equal rows allow, the largest groups being dealt first. There
    are fewer folds, none empty, if there are fewer distinct rows than ``count``.

    Args:
        logits: ``(N, C)``.
        target: ``(N,)``.
        count: Number of folds, at least 1.
        weights: ``(N,)``; a weight of 2 counts as a repeated sample.
    """
    sums = _checksums(logits)
    order = _order(sums, target)
    group = _numbered(sums[order.numpy()])
    folds = torch.empty(len(target), dtype=torch.int64, device="cpu")
    weight = np.ones(len(group)) if weights is None else weights[order].numpy()
    folds[order] = _dealt(group, target.cpu()[order].numpy(), weight, count)
    return folds


def _dealt(group: NDArray[np.int64], label: NDArray[np.int64], weight: NDArray[np.float64], count: int) -> Tensor:
    """Return the fold of each sample: a group goes where its labels are rarest, among equals to the smallest fold."""
    sizes = np.bincount(group, weight)
    if len(sizes) == len(group) and (weight == 1).all():
        return torch.arange(len(group), device="cpu") % count
    members = np.split(np.argsort(group, kind="stable"), np.bincount(group).cumsum()[:-1])
    filled = np.zeros((count, label.max() + 1))
    total = np.zeros(count)
    folds = np.empty(len(group), dtype=np.int64)
    for number in np.argsort(-sizes, kind="stable"):
        inside = members[number]
        least = filled[:, label[inside]].sum(axis=1)
        fold = np.lexsort((total, least))[0]
        folds[inside] = fold
        np.add.at(filled[fold], label[inside], weight[inside])
        total[fold] += sizes[number]
    return torch.from_numpy(folds)


def _order(sums: NDArray[np.int64], target: Tensor) -> Tensor:
    return torch.from_numpy(np.lexsort((sums, target.cpu().numpy())))


def _numbered(sums: NDArray[np.int64]) -> NDArray[np.int64]:
    _, first, number = np.unique(sums, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[number]


def _checksums(rows: Tensor) -> NDArray[np.int64]:
    """Return a checksum of each row ``(N,)``; equal for equal numbers of any precision."""
    numbers = np.ascontiguousarray(rows.detach().cpu().double().numpy() + 0.0)  # + 0.0 turns -0.0 into 0.0
    return np.fromiter((zlib.crc32(row.tobytes()) for row in numbers), dtype=np.int64, count=len(numbers))
