"""ECE of several labels per sample (mean, worst and pooled), with bootstrap and null replicates."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from fedlas._core.streams import seeded_generator
from fedlas.metrics.equal_width import equal_width_index
from fedlas.metrics.sums import effective_count
from fedlas.stats.cell_sums import DenseCellSums, OutcomeCells, count_draws
from fedlas.stats.draws import DrawPurpose

if TYPE_CHECKING:
    from torch import Tensor

    from fedlas._core.types import FloatArray, IntArray

_MAX_BLOCKS = 2**10
_FEWEST_BLOCKS = 2**8
_BLOCK_SUMS = 2**23
_CELLS = 2**10
"""Cells whose replicates are held at once."""


@dataclass(frozen=True)
class LabelErrors:
    """ECE of several labels with replicates; the last axis is the label, except in ``pooled``.

    Attributes:
        values: As observed ``(L,)``.
        samples: Of samples, or clusters, that were drawn with replacement ``(R, L)``; no rows without replicates.
        floors: Of a calibrated model with the same probabilities ``(R, L)``.
        pooled: The ECE of all labels in one, as observed ``(1,)``, drawn ``(R,)``, and of a calibrated model ``(R,)``.
    """

    values: FloatArray
    samples: FloatArray
    floors: FloatArray
    pooled: tuple[FloatArray, FloatArray, FloatArray]


def compute_label_errors(
    probs: Tensor,
    positives: NDArray[np.bool_],
    weights: FloatArray,
    clusters: IntArray | None,
    *,
    num_bins: int,
    replicates: int,
    seed: int,
) -> LabelErrors:
    """Return the ECE of each label over equal-width bins, with bootstrap and null replicates.

    Args:
        probs: Probability of each label ``(N, L)``.
        positives: Whether it was there ``(N, L)``.
        weights: How much each label of each sample counts ``(N, L)``; 0 where it is unknown.
        clusters: Number of each sample's cluster ``(N,)``, from 0 on; None if samples are independent.
        num_bins: ``B``.
        replicates: ``R``.
        seed: The same seed draws the same samples, so that two models are drawn in pairs.
    """
    samples, labels = positives.shape
    unit = np.arange(samples) if clusters is None else clusters
    num_units = int(unit.max()) + 1
    max_blocks = max(_FEWEST_BLOCKS, min(_MAX_BLOCKS, _BLOCK_SUMS // (labels * num_bins)))
    num_blocks = min(max_blocks, num_units)
    # Many units are put together at random: sums of blocks vary as sums of units do.
    block = (seeded_generator(DrawPurpose.BLOCKS, seed).permutation(num_units) % num_blocks)[unit]
    random = seeded_generator(DrawPurpose.BOOTSTRAP, seed)
    times = count_draws(random.randint(0, num_blocks, size=(replicates, num_blocks)))
    noise = seeded_generator(DrawPurpose.NOISE_FLOOR, seed)
    flips = noise.randint(0, 2, size=(replicates, num_blocks))
    signs = np.where(flips > 0, 1.0, -1.0)
    parts: list[tuple[FloatArray, FloatArray, FloatArray]] = []
    pooled = [np.zeros((size, num_bins + 1)) for size in (1, replicates, replicates)]
    for part in _label_slices(labels, num_bins):
        units = block.repeat(positives[:, part].shape[1])
        cells = _make_cells(probs[:, part], positives[:, part], weights[:, part], units, num_bins)
        by_block = DenseCellSums(units, cells.cell // num_bins, cells.num_cells // num_bins)
        totals = by_block.sum_by_unit(cells.weights)
        total = totals.sum(axis=0)[None]
        null = _draw_gaps(cells, noise, replicates) if clusters is None else cells.sum_gaps(signs)
        sums = (
            ((cells.expected - cells.positives)[None], total),
            (cells.sum_gaps(times), by_block.sums(times, totals)),
            (null, np.broadcast_to(total, (replicates, total.shape[1]))),
        )
        errors = []
        for gaps, total, whole in zip(*zip(*sums, strict=True), pooled, strict=True):
            by_label = gaps.reshape(len(gaps), total.shape[1], num_bins)
            errors.append(np.abs(by_label).sum(axis=2) / np.where(total > 0, total, 1.0))
            whole[:, :-1] += by_label.sum(axis=1)
            whole[:, -1] += total.sum(axis=1)
        parts.append((errors[0], errors[1], errors[2]))
    values, *others = (np.concatenate(each, axis=1) for each in zip(*parts, strict=True))
    whole = [np.abs(each[:, :-1]).sum(axis=1) / each[:, -1] for each in pooled]
    return LabelErrors(values[0], others[0], others[1], (whole[0], whole[1], whole[2]))


def _label_slices(labels: int, num_bins: int) -> Iterator[slice]:
    step = max(1, _CELLS // num_bins)
    return (slice(start, start + step) for start in range(0, labels, step))


def _make_cells(
    probs: Tensor,
    positives: NDArray[np.bool_],
    weights: FloatArray,
    units: IntArray,
    num_bins: int,
) -> OutcomeCells:
    """Return the cells of labels ``(N, L)``, at ``label * num_bins + bin``; ``units (N L,)`` are blocks of samples."""
    labels = positives.shape[1]
    cell = equal_width_index(probs, num_bins).numpy() + np.arange(labels) * num_bins
    return OutcomeCells(
        cell.ravel(),
        labels * num_bins,
        probs.double().numpy().ravel(),
        positives.ravel().astype(np.float64),
        weights.ravel(),
        units,
        fill_all=True,
    )


def _draw_gaps(cells: OutcomeCells, random: np.random.RandomState, replicates: int) -> FloatArray:
    """Draw gaps ``(R, cells)`` of independent events that have each cell's mean probability."""
    filled = np.flatnonzero(cells.count > 0)
    weight = cells.count[filled]
    # Unequal weights are worth fewer samples (Kish).
    trials = np.maximum(np.rint(effective_count(weight, cells.squares[filled])), 1.0)
    share = np.clip(cells.expected[filled] / weight, 0.0, 1.0)
    gaps = np.zeros((replicates, cells.num_cells))
    events = random.binomial(trials.astype(np.int64), share, size=(replicates, len(filled)))
    gaps[:, filled] = (share - events / trials) * weight
    return gaps
