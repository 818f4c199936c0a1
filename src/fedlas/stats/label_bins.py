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
from fedlas.stats.cell_sums import count_draws
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
    units = int(unit.max()) + 1
    max_blocks = max(_FEWEST_BLOCKS, min(_MAX_BLOCKS, _BLOCK_SUMS // (labels * num_bins)))
    num_blocks = min(max_blocks, units)
    # Many units are put together at random: sums of blocks vary as sums of units do.
    block = (seeded_generator(DrawPurpose.BLOCKS, seed).permutation(units) % num_blocks)[unit]
    random = seeded_generator(DrawPurpose.BOOTSTRAP, seed)
    times = count_draws(random.randint(0, num_blocks, size=(replicates, num_blocks)))
    noise = seeded_generator(DrawPurpose.NOISE_FLOOR, seed)
    signs = 2.0 * noise.randint(0, 2, size=(replicates, num_blocks)) - 1.0
    parts: list[tuple[FloatArray, FloatArray, FloatArray]] = []
    pooled = [np.zeros((size, num_bins + 1)) for size in (1, replicates, replicates)]
    for part in _label_slices(labels, num_bins):
        cells = _LabelBins(
            probs[:, part], positives[:, part], weights[:, part], block, num_blocks, num_bins
        )
        null = cells.draw_gaps(noise, replicates) if clusters is None else signs @ cells.gaps
        totals = cells.totals
        sums = (
            (cells.gaps.sum(axis=0)[None], totals.sum(axis=0)[None]),
            (times @ cells.gaps, times @ totals),
            (null, np.broadcast_to(totals.sum(axis=0), (replicates, len(totals.T)))),
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


class _LabelBins:
    """Sums over cells of blocks of samples; the cell index is ``label * num_bins + bin``.

    Attributes:
        gaps: Sum of what happened less its probability ``(blocks, cells)``.
        totals: Sum of the weights of each label ``(blocks, L)``.
    """

    def __init__(
        self,
        probs: Tensor,
        positives: NDArray[np.bool_],
        weights: FloatArray,
        block: IntArray,
        num_blocks: int,
        num_bins: int,
    ) -> None:
        labels = positives.shape[1]
        size = labels * num_bins
        cell = (equal_width_index(probs, num_bins).numpy() + np.arange(labels) * num_bins).ravel()
        exact = probs.double().numpy()
        place = (block[:, None] * size).repeat(labels, axis=1).ravel() + cell
        gaps = (weights * (positives - exact)).ravel()
        self.gaps = np.bincount(place, gaps, num_blocks * size).reshape(num_blocks, size)
        owner = (block[:, None] * labels + np.arange(labels)).ravel()
        self.totals = np.bincount(owner, weights.ravel(), num_blocks * labels).reshape(
            num_blocks, labels
        )
        flat = weights.ravel()
        self._weight, self._squares, self._probs = (
            np.bincount(cell, each, size) for each in (flat, flat**2, flat * exact.ravel())
        )

    def draw_gaps(self, random: np.random.RandomState, replicates: int) -> FloatArray:
        """Draw gaps ``(R, cells)`` of independent events that have each cell's mean probability."""
        filled = np.flatnonzero(self._weight > 0)
        weight = self._weight[filled]
        # Unequal weights are worth fewer samples (Kish).
        trials = np.maximum(np.rint(effective_count(weight, self._squares[filled])), 1.0)
        share = np.clip(self._probs[filled] / weight, 0.0, 1.0)
        gaps = np.zeros((replicates, len(self._weight)))
        events = random.binomial(trials.astype(np.int64), share, size=(replicates, len(filled)))
        gaps[:, filled] = (events / trials - share) * weight
        return gaps
