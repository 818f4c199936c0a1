"""Cross-validation folds that depend on the samples, not on their order, unit or precision; copies stay together."""

from __future__ import annotations

import zlib

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedlas.calibrators._fit.rowwise import double_rows
from fedlas.stats.weights import effective_samples

_FREQUENT = 5
"""Rows that occur this often are scores of few values, if most of them have samples of several classes."""
_GOLDEN = (5**0.5 - 1) / 2


def canonical_order(logits: Tensor, target: Tensor) -> Tensor:
    """Return an order of the samples that ignores the stored one: by class, practically random within it.

    Args:
        logits: ``(N, C)``.
        target: ``(N,)``.

    Returns:
        ``(N,)`` int64: indices of the samples in that order. That of equal samples does not matter.
    """
    number = np.arange(len(target))
    return torch.from_numpy(_shuffled(logits, target.cpu().numpy(), number))


def sample_numbers(logits: Tensor, target: Tensor) -> NDArray[np.int64]:
    """Return the number of the sample that each row is a copy of ``(N,)``, counted in order of first occurrence.

    Equal rows are copies of one sample, unless their labels show that the scores have few values: where the rows that
    occur five times or more mostly have several labels, each of them is a sample of its own.

    Example:
        >>> rows = torch.tensor([[2.0, 0.0], [1.0, 0.0], [2.0, -0.0]])
        >>> sample_numbers(rows, torch.tensor([0, 1, 0])).tolist()
        [0, 1, 0]
    """
    number = equal_rows(logits)
    _, first = np.unique(number, return_index=True)
    frequent = np.bincount(number)[number] >= _FREQUENT
    labels = target.cpu().numpy()
    several = np.zeros(len(first), dtype=bool)
    several[number[labels != labels[first[number]]]] = True
    if 2 * (frequent & several[number]).sum() < frequent.sum() or not frequent.any():
        return number
    return _numbered(np.where(frequent, len(first) + np.arange(len(number)), number))


def equal_rows(rows: Tensor) -> NDArray[np.int64]:
    """Return the number of the distinct row that each row equals ``(N,)``, counted in order of first occurrence.

    Example:
        >>> equal_rows(torch.tensor([[2.0, 0.0], [1.0, 0.0], [2.0, -0.0]])).tolist()
        [0, 1, 0]
    """
    return _numbered(_checksums(rows))


def _numbered(values: NDArray[np.int64]) -> NDArray[np.int64]:
    _, first, number = np.unique(values, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[number]


def worth(number: NDArray[np.int64], weights: Tensor) -> float:
    """Return how many samples of one weight the rows are worth.

    Args:
        number: The sample of each row, of :func:`sample_numbers`.
        weights: ``(N,)``.
    """
    return effective_samples(np.bincount(number, weights.numpy()))


def stratified_folds(logits: Tensor, target: Tensor, count: int, weights: Tensor | None = None) -> Tensor:
    """Return the fold ``(N,)`` of each row, from 0 on, at most ``count``; copies of a sample share one.

    A copy of a held-out sample would make it a training sample. Where there are no copies, sizes differ by at most one,
    overall and within each class; else as little as the copies allow, the largest groups being dealt first. There are
    fewer folds, none empty, if there are fewer samples than ``count``.

    Args:
        logits: ``(N, C)``; another precision, or a number added to all, gives the same folds.
        target: ``(N,)``.
        count: Number of folds, at least 1.
        weights: ``(N,)``; a weight of 2 counts as a repeated sample.
    """
    labels = target.cpu().numpy()
    number = sample_numbers(logits, target)
    order = _shuffled(logits, labels, number)
    place = np.empty(len(order), dtype=np.int64)
    place[order] = np.arange(len(order))
    weight = np.ones(len(number)) if weights is None else weights.numpy()
    return torch.from_numpy(_dealt(place[number], labels, weight, count))


def _shuffled(logits: Tensor, labels: NDArray[np.int64], number: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return an order of the samples that rows are copies of: by class, and a fixed permutation within it.

    The permutation applies to samples ordered by a score that rounding hardly changes. A checksum of the numbers
    would be another one after any rounding.
    """
    label = np.full(number.max() + 1, labels.max(), dtype=np.int64)
    np.minimum.at(label, number, labels)
    scores = np.empty((2, len(label)))
    scores[:, number] = _scores(logits)
    order = np.lexsort((scores[1], scores[0], label))
    for block in np.split(order, np.bincount(label).cumsum()[:-1]):
        block[:] = block[np.random.RandomState(len(block)).permutation(len(block))]
    return order


def _scores(logits: Tensor) -> NDArray[np.float64]:
    """Return two numbers of each row ``(2, N)``: sums of the centered logits, each times a factor."""
    place = torch.arange(1, logits.shape[1] + 1, dtype=torch.float64, device="cpu")
    factors = [(place * step) % 1 - 0.5 for step in (_GOLDEN, _GOLDEN**2 / 2)]
    parts = []
    for _, rows in double_rows(logits):
        centered = rows - rows.mean(dim=1, keepdim=True)
        parts.append(torch.stack([(centered * factor).sum(dim=1) for factor in factors]))
    return torch.cat(parts, dim=1).numpy()


def _dealt(
    group: NDArray[np.int64], label: NDArray[np.int64], weight: NDArray[np.float64], count: int
) -> NDArray[np.int64]:
    """Return the fold of each row: a group goes where its labels are rarest, among equals to the smallest fold."""
    sizes = np.bincount(group, weight)
    if len(sizes) == len(group) and (weight == 1).all():
        return group % count
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
    return folds


def _checksums(rows: Tensor) -> NDArray[np.int64]:
    """Return a checksum of each row ``(N,)``; equal for equal numbers of any precision.

    Two different rows have the same one in four billion pairs. They are kept together then, which does no harm.
    """
    numbers = np.ascontiguousarray(rows.detach().cpu().double().numpy() + 0.0)  # + 0.0 turns -0.0 into 0.0
    return np.fromiter((zlib.crc32(row.tobytes()) for row in numbers), dtype=np.int64, count=len(numbers))
