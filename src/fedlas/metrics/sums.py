"""Sums over cells of numbers in [0, 1], exact or weighted: chunks, shards and ranks add up bit for bit.

A float64 sum rounds after every addition, so another order gives another last digit. Whole numbers do not round: each
term is rounded once, to a multiple of ``2**-UNIT_BITS`` (2e-10), and what is added are these multiples.

With weights of samples, sums become weighted sums, added in float64, whose last digits depend on the order; ``N``
becomes the sum of the weights. Where a formula asks how *many* samples there are (ranks, coverages one by one), the
weights are scaled so that they average 1: the sample of weight ``w`` then counts as ``w`` samples.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedlas._core.check import LARGEST, InputError

UNIT_BITS = 32
"""An int64 has room for ``2**31`` terms of such units."""
# So many terms of 2**32 units are added by float64 without rounding.
_TERMS = 2**20
# Up to so many cells, adding all of a new set of sums is faster than finding those that change.
_FEW = 2**10


class CellSums:
    """Sums over cells: exact whole numbers, or float64 if samples have weights.

    Args:
        size: Number of cells.
        weighted: Whether terms are multiplied by weights.
        bits: Bits behind the binary point that a term keeps; 0 for counts.

    Attributes:
        values: ``(size,)`` on the CPU, int64 in units of ``2**-bits``, or float64. Adding those of two objects adds
            their sums.
    """

    def __init__(self, size: int, weighted: bool, *, bits: int = UNIT_BITS) -> None:
        self.values = torch.zeros(
            size, dtype=torch.float64 if weighted else torch.int64, device="cpu"
        )
        self._array: NDArray[Any] = self.values.numpy()  # the same memory
        self._weighted = weighted
        self._scale = 2.0**bits

    def add(self, cell: Tensor, terms: Tensor | None = None, weights: Tensor | None = None) -> None:
        """Add ``terms (n,)`` in ``[0, 1]``, None for ones, times ``weights (n,)``, to the cells ``cell (n,)``."""
        whole = len(cell) <= _TERMS
        for start in range(0, len(cell), _TERMS):
            rows = slice(start, start + _TERMS)
            # NumPy, because most calls have few terms and its functions start in a third of the time.
            part = cell if whole else cell[rows]
            values, weight = (
                None if each is None else (each if whole else each[rows]).numpy()
                for each in (terms, weights)
            )
            if self._weighted and weight is not None:
                values = weight if values is None else values * weight
            elif values is not None:
                # a power of 2: exact in single precision too
                values = np.rint(values * self._scale)
            if len(self._array) <= _FEW:
                sums = np.bincount(part.numpy(), values, len(self._array))
                # the sums are whole where it is
                np.add(self._array, sums, out=self._array, casting="unsafe")
            else:
                added = torch.ones_like(part) if values is None else torch.from_numpy(values)
                self.values.index_add_(0, part, added.to(self.values.dtype))

    def floats(self) -> Tensor:
        """Return the sums ``(size,)`` as float64."""
        return self.values if self._weighted else self.values.double() / self._scale

    def counts(self, samples: int, *, each: int = 1) -> bool:
        """Return whether it can count every one of ``samples``, ``each`` times; of weights, whether they are any."""
        possible = in_range(self.values, 0, LARGEST if self._weighted else samples)
        return possible and (self._weighted or int(self.values.sum()) == each * samples)

    def is_part_of(self, count: CellSums) -> bool:
        """Return whether it can be of terms in ``[0, 1]``, one for each sample that ``count`` counts."""
        # probabilities are rounded
        return in_range(self.floats(), 0, count.floats() * (1 + 1e-6) + 1e-6)


def in_range(values: Tensor, low: float, high: float | Tensor) -> bool:
    """Return whether all of ``values`` are from ``low`` to ``high``; NaN is not."""
    return bool(((values >= low) & (values <= high)).all())


def has_weights(predictions: Any) -> bool:
    """Return whether the samples of ``predictions`` have weights."""
    return getattr(predictions, "weights", None) is not None


def averaging_one(predictions: Any) -> Tensor | None:
    """Return the weights ``(N,)`` scaled so that those above 0 average 1; None if there are none."""
    weights: Tensor | None = getattr(predictions, "weights", None)
    return None if weights is None else weights * (torch.count_nonzero(weights) / weights.sum())


def nonzero(count: NDArray[np.float64], *, least: float = 0.0) -> NDArray[np.float64]:
    """Return ``count`` with 1 in place of values up to ``least``, so that empty bins can be divided by it."""
    return np.where(count > least, count, 1.0)


def refuse_weights(statistic: Any) -> None:
    """Refuse a published variant, which knows of no weights, for a ``statistic`` that has some.

    Raises:
        InputError: If its ``weights`` are not None.
    """
    if statistic.weights is not None:
        fix = 'Choose variant="exact", or take the weights off: dataclasses.replace(predictions, weights=None).'
        raise InputError(
            'predictions must have no weights with variant="reference"', "weights", fix
        )


def check_takes_weights(predictions: Any, *, takes_weights: bool) -> None:
    """Refuse weighted predictions for a metric that would ignore the weights.

    Raises:
        InputError: If ``predictions`` have weights and the metric does not take them.
    """
    if has_weights(predictions) and not takes_weights:
        raise InputError(
            "predictions must have no weights, which are not used here",
            f"weights of {len(predictions.weights)} samples",
            "Take the weights off, dataclasses.replace(predictions, weights=None), or choose another metric.",
        )
