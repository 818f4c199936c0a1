"""Counts of in-distribution and OOD samples at each distinct score, for all samples or bootstrap replicates."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from fedlas._core.check import InputError, describe
from fedlas._core.types import FloatArray

# Counts in one block of replicates: 1 MiB of float64, so that several blocks fit a processor's cache.
_BLOCK = 2**17


@dataclass(frozen=True, eq=False)
class ScoreCounts:
    """Sample counts at each distinct score, ascending, for ``R`` replicates.

    Attributes:
        inside: In-distribution samples ``(R, G)``.
        outside: OOD samples ``(R, G)``.
        correct: Correctly classified in-distribution samples ``(R, G)``; None if unknown.
    """

    inside: FloatArray
    outside: FloatArray
    correct: FloatArray | None = None

    @cached_property
    def low(self) -> tuple[FloatArray, FloatArray]:
        """Counts of in-distribution and OOD samples at or below each score, each ``(R, G)``."""
        return self.inside.cumsum(axis=1), self.outside.cumsum(axis=1)

    @cached_property
    def high(self) -> tuple[FloatArray, FloatArray]:
        """Counts of in-distribution and OOD samples at or above each score, each ``(R, G)``."""
        inside, outside = self.low
        # Counts are whole numbers, so these differences are exact and no second cumulative sum is needed.
        return inside[:, -1:] - inside + self.inside, outside[:, -1:] - outside + self.outside


class ScoreCounter:
    """Counter of the samples at each distinct score.

    Args:
        id_score: ``(N,)``, finite.
        ood_score: ``(M,)``, finite.
        id_correct: ``(N,)`` bool, or None.

    Raises:
        InputError: If an argument has another shape or type, or is not finite.
    """

    def __init__(
        self, id_score: ArrayLike, ood_score: ArrayLike, id_correct: ArrayLike | None = None
    ) -> None:
        inside = _check_scores("id_score", id_score)
        outside = _check_scores("ood_score", ood_score)
        self._correct = (
            None if id_correct is None else _to_array("id_correct must be bool", id_correct)
        )
        if self._correct is not None and (
            self._correct.shape != inside.shape or self._correct.dtype != np.bool_
        ):
            expected = f"id_correct must be ({len(inside)},) bool"
            raise InputError(
                expected, describe(self._correct), "Pass one value per in-distribution sample."
            )
        values, place = np.unique(np.concatenate((inside, outside)), return_inverse=True)
        self._groups = len(values)
        self._inside = place[: len(inside)]
        self._outside = place[len(inside) :]

    @property
    def pairs(self) -> int:
        """Maximum number of disjoint pairs of an in-distribution and an OOD sample."""
        return min(len(self._inside), len(self._outside))

    def all_samples(self) -> ScoreCounts:
        """Return the counts of the original samples, as a single replicate."""
        correct = (
            None if self._correct is None else self._count_groups(self._inside[self._correct][None])
        )
        return ScoreCounts(
            self._count_groups(self._inside[None]), self._count_groups(self._outside[None]), correct
        )

    def replicates(self, count: int, seed: int) -> Iterator[ScoreCounts]:
        """Yield the counts of bootstrap replicates in blocks; draws do not depend on the block size."""
        rows = max(1, _BLOCK // self._groups)
        # Each side has its own generator, so its draws depend neither on the other side nor on the size of a block.
        sides = [np.random.Generator(np.random.PCG64([seed, side])) for side in range(2)]
        for start in range(0, count, rows):
            size = min(rows, count - start)
            rows_inside, rows_outside = (
                random.integers(0, len(places), size=(size, len(places)), dtype=np.int64)
                for random, places in zip(sides, (self._inside, self._outside), strict=True)
            )
            correct = (
                None
                if self._correct is None
                else self._count_groups(
                    self._inside[rows_inside], weights=self._correct[rows_inside]
                )
            )
            yield ScoreCounts(
                self._count_groups(self._inside[rows_inside]),
                self._count_groups(self._outside[rows_outside]),
                correct,
            )

    def _count_groups(
        self, places: NDArray[np.int64], weights: NDArray[np.bool_] | None = None
    ) -> FloatArray:
        """Return the count of each group in each row of ``places (R, N)``, as ``(R, G)``."""
        rows = len(places)
        flat = (places + self._groups * np.arange(rows)[:, None]).ravel()
        counted = np.bincount(
            flat, None if weights is None else weights.ravel(), minlength=rows * self._groups
        )
        return counted.reshape(rows, self._groups).astype(np.float64)


def _to_array(expected: str, array: ArrayLike | Tensor) -> NDArray[Any]:
    """Return the values as an array; tensors move to the CPU, and bfloat16, which NumPy lacks, becomes float32."""
    try:
        if isinstance(array, Tensor):
            array = array.detach().cpu()
            array = array.float() if array.dtype == torch.bfloat16 else array
        return np.asarray(array)
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError(expected, describe(array), "Pass one value per sample.") from error


def _check_scores(name: str, score: ArrayLike | Tensor) -> FloatArray:
    array = _to_array(f"{name} must be numbers", score)
    try:
        values = array.astype(np.float64) if array.dtype.kind != "c" else None
    except (TypeError, ValueError):
        values = None
    if values is None:
        raise InputError(f"{name} must be numbers", describe(score), "Pass one score per sample.")
    shaped = values.ndim == 1 and len(values) > 0
    if not shaped or not np.isfinite(values).all():
        got = "NaN or infinite scores" if shaped else describe(values)
        raise InputError(
            f"{name} must be finite and of shape (N,), not empty",
            got,
            "Pass one finite score per sample.",
        )
    return values
