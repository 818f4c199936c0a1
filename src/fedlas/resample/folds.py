"""Cross-validation folds that depend on the samples, not on their order, unit or precision.

Copies of a sample stay together, and so do the samples of a cluster. With an order in time, later rows are left out and
earlier ones are fitted on, never the reverse. :mod:`fedlas.calibrators._fit.folds` makes those of predictions.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from fedlas._core.check import Argument, InputError
from fedlas.resample.clusters import factorize, is_clustered, merge_overlapping_groups

if TYPE_CHECKING:
    from torch import Tensor

_FREQUENT = 5
"""Rows that occur this often are discrete scores rather than duplicates, unless the labels show otherwise."""
_SURE = 3.0
"""Evidence in nats from which equal rows are duplicates, and the limit of what one row contributes."""
_CROWDED = 20
"""Rows this many times as frequent as the median row are a saturated score, not duplicates."""
_DIGITS = 12
"""Decimals to which shares of the weight are compared."""
_ROUNDING = 1e-12
_GOLDEN = (5**0.5 - 1) / 2
_CHUNK_ELEMENTS = 2**18
"""Elements of a chunk of logits."""

Temperature = Callable[["Tensor", "Tensor"], float]
"""Returns a temperature for logits ``(N, C)`` and labels ``(N,)``, used to judge whether equal rows are duplicates."""


@dataclass(frozen=True, eq=False)
class Folds:
    """Assignment of rows to cross-validation folds.

    Attributes:
        number: Fold of each row ``(N,)``, from 0 on; -1: it is never left out.
        groups: Sample or cluster of each row ``(N,)``, where folds are in order of time and so may tear them apart;
            else None.
    """

    number: Tensor
    groups: Tensor | None = None

    @property
    def count(self) -> int:
        """Number of folds that can be held out; 0 if no rows would be left to fit on."""
        last = int(self.number.max())
        return last + 1 if last > 0 or self.in_time else 0

    @property
    def in_time(self) -> bool:
        """Whether folds are in chronological order."""
        return self.groups is not None

    @property
    def held_out_mask(self) -> Tensor:
        """Mask of the rows that are held out in some fold ``(N,)``."""
        return self.number >= 0

    def test(self, fold: int) -> Tensor:
        """Return the mask of the rows held out in a fold ``(N,)``."""
        return self.number == fold

    def train(self, fold: int) -> Tensor:
        """Return the mask of the training rows of a fold ``(N,)``: all others, or earlier ones of other groups."""
        import torch

        if self.groups is None:
            return self.number != fold
        inside = self.groups[self.number == fold].unique()
        return (self.number < fold) & ~torch.isin(self.groups, inside)

    def rows(self, index: Tensor) -> Folds:
        """Return the folds of a subset of rows."""
        groups = None if self.groups is None else self.groups[index]
        return replace(self, number=self.number[index], groups=groups)


def chronological_folds(
    time: Tensor, count: int, groups: Tensor, weights: Tensor | None = None
) -> Folds:
    """Return chronological folds of about equal weight; rows before the first fold are never held out.

    Args:
        time: ``(N,)``, of which only the order counts; there are two at least.
        count: Most stretches that are left out.
        groups: Sample or cluster of each row ``(N,)``: of what is left out in a stretch no earlier row is fitted on.
        weights: ``(N,)``; a weight of 2 counts as a repeated sample.

    Raises:
        InputError: If nothing would be left to fit on, since all clusters last from the first rows to the last.

    Example:
        >>> import torch
        >>> folds = chronological_folds(torch.tensor([4, 1, 2, 2, 3, 4]), 2, torch.arange(6))
        >>> folds.number.tolist(), folds.train(1).tolist()
        ([1, -1, 0, 0, 0, 1], [False, True, True, True, True, False])
    """
    import torch

    ordered, order = time.sort()
    # Ratios alone matter: equal weights of any size cut as rows do.
    weight = torch.ones(len(time), dtype=torch.float64)
    if weights is not None:
        weight = (weights / weights.max()).double()[order]
    after = weight.cumsum(0)
    ends = torch.arange(1, count + 1, dtype=torch.float64) * after[-1] / (count + 1)
    # Cumulative weights are rounded: an end within rounding of a cut counts as at the cut.
    cuts = ordered[torch.searchsorted(after, ends + _ROUNDING * after[-1], right=True)]
    # Rows of the earliest time are always training rows.
    cuts = cuts.clamp(min=int(time[time > ordered[0]].min())).unique()
    folds = Folds(torch.searchsorted(cuts, time, right=True) - 1, groups)
    # A fold is not held out if all earlier rows belong to its own clusters: nothing would be left to fit on.
    blocked = [fold for fold in range(folds.count) if not bool(folds.train(fold).any())]
    first = blocked[-1] + 1 if blocked else 0
    if first == folds.count:
        raise InputError(
            (
                "in order of time, some ",
                Argument("clusters"),
                " must end before others begin",
            ),
            "only clusters that span the first to the last rows",
            ("Leave ", Argument("time"), " out, or use shorter clusters, such as visits."),
        )
    return replace(folds, number=(folds.number - first).clamp(min=-1))


def canonical_order(logits: Tensor, target: Tensor, features: Tensor | None = None) -> Tensor:
    """Return a sample order that does not depend on the stored order: by class, pseudo-random within it.

    Args:
        logits: ``(N, C)``.
        target: ``(N,)``.
        features: ``(N, D)``, which order samples of equal logits.

    Returns:
        ``(N,)`` int64: indices of the samples in that order. That of equal samples does not matter.
    """
    import torch

    number = np.arange(len(target))
    return torch.from_numpy(_shuffle_within_class(logits, target.cpu().numpy(), number, features))


def systematic_sample(rows: Tensor, count: int) -> Tensor:
    """Return a systematic sample of at most ``count`` rows: one from each of equally long stretches.

    Rows at equal distances would all be in one fold where folds are dealt in turn. So the place within a stretch moves
    by the golden ratio, which no period matches.
    """
    import torch

    if len(rows) <= count:
        return rows
    number = torch.arange(count + 1, device="cpu")
    start = number * len(rows) // max(1, count)
    place = (number[:-1].double() * _GOLDEN) % 1
    return rows[start[:-1] + (place * start.diff()).long()]


def original_sample_ids(
    logits: Tensor, target: Tensor, temperature: Temperature, features: Tensor | None = None
) -> NDArray[np.int64]:
    """Return a sample id per row ``(N,)``; duplicate rows share an id.

    Equal rows are copies of one sample, or scores of few values, such as votes. Copies have one label, where
    independent samples of a score would have several. Where one value occurs far more often than most, such as a
    confidence of 1, its rows are independent.

    Example:
        >>> import torch
        >>> rows = torch.tensor([[2.0, 0.0], [1.0, 0.0], [2.0, -0.0]])
        >>> original_sample_ids(rows, torch.tensor([0, 1, 0]), lambda logits, target: 1.0).tolist()
        [0, 1, 0]
    """
    number = factorize_rows(logits)
    if features is not None:
        number = factorize(number * len(number) + factorize_rows(features))
    size = np.bincount(number)
    crowded = (size > _CROWDED * np.median(size))[number]
    if crowded.any():
        number = factorize(np.where(crowded, len(number) + np.arange(len(number)), number))
        size = np.bincount(number)
    if size.max() == 1:
        return number
    evidence = _duplicate_evidence(logits, target.cpu(), number, temperature)
    copies = evidence > (_SURE if size.max() >= _FREQUENT else 0)
    return number if copies else np.arange(len(number))


def _duplicate_evidence(
    logits: Tensor, target: Tensor, sample_ids: NDArray[np.int64], temperature: Temperature
) -> float:
    """Return the log-likelihood ratio, in nats, of equal rows being duplicates rather than independent samples."""
    import torch

    _, first, size = np.unique(sample_ids, return_index=True, return_counts=True)
    labels = target.numpy()
    several = np.zeros(len(first), dtype=bool)
    several[sample_ids[labels != labels[first[sample_ids]]]] = True
    rows = torch.from_numpy(first)
    scores = logits.cpu()[rows].double() / temperature(logits.cpu(), target)
    log_probs = scores.log_softmax(dim=1).gather(1, target[rows].unsqueeze(1)).squeeze(1)
    alike = np.minimum(-(size - 1) * log_probs.numpy(), _SURE)
    return float(np.where(several, -_SURE, alike).sum())


def factorize_rows(rows: Tensor) -> NDArray[np.int64]:
    """Return integer codes ``(N,)``: equal rows share a code; codes follow the order of first occurrence.

    Example:
        >>> import torch
        >>> factorize_rows(torch.tensor([[2.0, 0.0], [1.0, 0.0], [2.0, -0.0]])).tolist()
        [0, 1, 0]
    """
    return factorize(_row_checksums(rows))


def stratified_folds(
    logits: Tensor,
    target: Tensor,
    count: int,
    temperature: Temperature,
    weights: Tensor | None = None,
    features: Tensor | None = None,
    clusters: NDArray[np.int64] | None = None,
) -> Tensor:
    """Return a stratified fold index per row ``(N,)``; duplicates, and rows of a cluster, share a fold.

    A copy of a held-out sample, or another sample of its cluster, would make it a training sample. A sample whose
    copies are in several clusters joins these. Where there are neither, sizes differ by at most one, overall and within
    each class; else as little as they allow, the largest groups being dealt first. There are fewer folds, none empty,
    if there are fewer groups than ``count``. A single cluster says nothing about others: its samples are dealt.

    Args:
        logits: ``(N, C)``; another precision, or a number added to all, gives the same folds.
        target: ``(N,)``.
        count: Number of folds, at least 1.
        temperature: Shows whether equal rows are copies.
        weights: ``(N,)``; a weight of 2 counts as a repeated sample.
        features: ``(N, D)``, by which samples of equal logits differ.
        clusters: ``(N,)``, which folds hold whole.
    """
    import torch

    labels = target.cpu().numpy()
    number = original_sample_ids(logits, target, temperature, features)
    if is_clustered(clusters):
        number = merge_overlapping_groups(number, clusters)
    order = _shuffle_within_class(logits, labels, number, features)
    place = np.empty(len(order), dtype=np.int64)
    place[order] = np.arange(len(order))
    weight = np.ones(len(number)) if weights is None else weights.numpy()
    return torch.from_numpy(_deal_groups(place[number], labels, weight, count))


def _shuffle_within_class(
    logits: Tensor,
    labels: NDArray[np.int64],
    sample_ids: NDArray[np.int64],
    features: Tensor | None,
) -> NDArray[np.int64]:
    """Return a canonical order of the distinct samples: by class, and a fixed permutation within each class."""
    # It applies to samples ordered by a score that rounding hardly changes. A checksum would be another one after any.
    # The number of a class, and so its column, does not matter where scores of its rows tell them apart.
    column = [*_project_logits(logits), *_invariant_scores(logits, labels)]
    if features is not None:
        column.insert(0, _project_logits(features)[0])
    rank = _class_ranks(labels, sample_ids, column[-1])[labels]
    label = np.full(sample_ids.max() + 1, labels.max(), dtype=np.int64)
    np.minimum.at(label, sample_ids, rank)
    scores = np.full((len(column), len(label)), np.inf)
    for score, rows in zip(scores, column, strict=True):
        np.minimum.at(score, sample_ids, rows)
    order = np.lexsort((*scores, label))
    for block in np.split(order, np.bincount(label).cumsum()[:-1]):
        block[:] = block[np.random.RandomState(len(block)).permutation(len(block))]
    return order


def _class_ranks(
    labels: NDArray[np.int64], sample_ids: NDArray[np.int64], score: NDArray[np.float64]
) -> NDArray[np.int64]:
    """Return the rank of each class ``(C,)`` by sample count, ties by lowest score."""
    classes = labels.max() + 1
    size = np.bincount(np.unique(sample_ids * classes + labels) % classes)
    lowest = np.full(len(size), np.inf)
    np.minimum.at(lowest, labels, score)
    rank = np.empty(len(size), dtype=np.int64)
    rank[np.lexsort((lowest, size))] = np.arange(len(size))
    return rank


def _invariant_scores(logits: Tensor, labels: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return three row scores ``(3, N)`` that do not depend on class order: mean magnitude, maximum, at label."""
    import torch

    target = torch.from_numpy(labels).unsqueeze(1)
    parts = []
    for centered, chosen in zip(
        _iter_centered_logits(logits), _split_rows(target, logits.shape[1]), strict=True
    ):
        at_label = centered.gather(1, chosen).squeeze(1)
        parts.append(torch.stack([centered.abs().mean(dim=1), centered.amax(dim=1), at_label]))
    scores = torch.cat(parts, dim=1).numpy()
    # Rows whose classes are permuted differ by rounding alone: then the columns decide.
    unit = float(np.abs(scores).max()) or 1.0
    return np.asarray((scores / unit).round(_DIGITS - 2))


def _project_logits(logits: Tensor) -> NDArray[np.float64]:
    """Return two fixed linear projections of the centered logits, ``(2, N)``."""
    import torch

    place = torch.arange(1, logits.shape[1] + 1, dtype=torch.float64, device="cpu")
    factors = [(place * step) % 1 - 0.5 for step in (_GOLDEN**2 / 2, _GOLDEN)]
    parts = [
        torch.stack([(centered * factor).sum(dim=1) for factor in factors])
        for centered in _iter_centered_logits(logits)
    ]
    return torch.cat(parts, dim=1).numpy()


def _split_rows(rows: Tensor, columns: int) -> tuple[Tensor, ...]:
    """Return the rows in chunks whose logits fit into the cache."""
    return rows.split(max(1, _CHUNK_ELEMENTS // max(1, columns)))


def _iter_centered_logits(logits: Tensor) -> Iterator[Tensor]:
    """Yield chunks of logits in float64, centered per row."""
    for chunk in _split_rows(logits, logits.shape[1]):
        rows = chunk.detach().cpu().double()
        yield rows - rows.mean(dim=1, keepdim=True)


def _deal_groups(
    group: NDArray[np.int64], label: NDArray[np.int64], weight: NDArray[np.float64], count: int
) -> NDArray[np.int64]:
    """Return a fold per row: each group goes to the fold with the least of its labels, ties to the smallest."""
    if group.max() + 1 == len(group) and (weight == weight[0]).all():
        return group % count
    # Only ratios of weights matter: sums that rounding alone tells apart are equal.
    weight = weight / weight.sum()
    sizes = np.bincount(group, weight).round(_DIGITS)
    members = np.split(np.argsort(group, kind="stable"), np.bincount(group).cumsum()[:-1])
    filled = np.zeros((count, label.max() + 1))
    total = np.zeros(count)
    folds = np.empty(len(group), dtype=np.int64)
    for number in np.argsort(-sizes, kind="stable"):
        inside = members[number]
        # Shares within the group, so that two copies are one row of weight 2.
        share = weight[inside] / (weight[inside].sum() or 1.0)
        least = (filled[:, label[inside]] @ share).round(_DIGITS)
        fold = np.lexsort((total.round(_DIGITS), least))[0]
        folds[inside] = fold
        np.add.at(filled[fold], label[inside], weight[inside])
        total[fold] += sizes[number]
    return np.unique(folds, return_inverse=True)[1]


def _row_checksums(rows: Tensor) -> NDArray[np.int64]:
    """Return a checksum per row ``(N,)``, independent of the precision."""
    # Two different rows have the same one in four billion pairs. They are kept together then, which does no harm.
    # + 0.0 turns -0.0 into 0.0
    numbers = np.ascontiguousarray(rows.detach().cpu().double().numpy() + 0.0)
    return np.fromiter(
        (zlib.crc32(row.tobytes()) for row in numbers), dtype=np.int64, count=len(numbers)
    )
