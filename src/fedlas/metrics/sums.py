"""Sums over cells of numbers in [0, 1], and exact totals of any numbers: chunks, shards and ranks add up bit for bit.

A float64 sum rounds after every addition, so another order gives another last digit. Whole numbers do not round: each
term is rounded once, to a multiple of ``2**-UNIT_BITS`` (2e-10), and what is added are these multiples. Terms with
weights are added in float64: the last digits of their sums depend on the order.
"""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedlas._core.check import check_finite

UNIT_BITS = 32
"""An int64 has room for ``2**31`` terms of such units."""
TOTAL_BITS = 52
"""Bits behind the binary point of an exact total."""
LIMBS, LIMB_BITS = 42, 26
"""An exact total is kept as so many digits of so many bits, enough for all of float64."""
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
        self.values = torch.zeros(size, dtype=torch.float64 if weighted else torch.int64, device="cpu")
        self._array: NDArray[Any] = self.values.numpy()  # the same memory
        self._weighted, self._scale = weighted, 2.0**bits

    def add(self, cell: Tensor, terms: Tensor | None = None, weights: Tensor | None = None) -> None:
        """Add ``terms (n,)`` in ``[0, 1]``, None for ones, times ``weights (n,)``, to the cells ``cell (n,)``."""
        whole = len(cell) <= _TERMS
        for start in range(0, len(cell), _TERMS):
            rows = slice(start, start + _TERMS)
            # NumPy, because most calls have few terms and its functions start in a third of the time.
            part = cell if whole else cell[rows]
            values, weight = (
                None if each is None else (each if whole else each[rows]).numpy() for each in (terms, weights)
            )
            if self._weighted and weight is not None:
                values = weight if values is None else values * weight
            elif values is not None:
                values = np.rint(values * self._scale)  # a power of 2: exact in single precision too
            if len(self._array) <= _FEW:
                sums = np.bincount(part.numpy(), values, len(self._array))
                np.add(self._array, sums, out=self._array, casting="unsafe")  # the sums are whole where it is
            else:
                added = torch.ones_like(part) if values is None else torch.from_numpy(values)
                self.values.index_add_(0, part, added.to(self.values.dtype))

    def floats(self) -> Tensor:
        """Return the sums ``(size,)`` as float64."""
        return self.values if self._weighted else self.values.double() / self._scale


def exact_total(terms: NDArray[np.float64]) -> int:
    """Return the sum of ``terms (n,)``, each rounded to a multiple of ``2**-52``, in these units.

    Raises:
        InputError: If a term is infinite or NaN.
    """
    largest = float(np.abs(terms).max(initial=0.0))
    if largest < 2.0**10:
        units = np.rint(terms * 2.0**TOTAL_BITS).astype(np.int64)
        # Two halves, because int64 has no room for the sum of whole ones.
        return (int((units >> LIMB_BITS).sum()) << LIMB_BITS) + int((units & (2**LIMB_BITS - 1)).sum())
    if largest < 2.0**36:
        whole = np.trunc(terms)
        return (int(whole.astype(np.int64).sum()) << TOTAL_BITS) + exact_total(terms - whole)
    if not math.isfinite(largest):
        check_finite("metrics", "the values of a mean", torch.from_numpy(terms))
    return sum(round(Fraction(term) * 2**TOTAL_BITS) for term in terms.tolist())


def add_total(limbs: Tensor, total: int) -> None:
    """Add an exact total to its digits ``limbs (LIMBS,)`` int64, which hold it in ``sum_k limbs[k] * 2**(26 k)``."""
    for k in range(LIMBS - 1):
        limbs[k] += total & (2**LIMB_BITS - 1)
        total >>= LIMB_BITS
        if not total:
            return
    limbs[-1] += total


def total_of(limbs: Tensor) -> int:
    """Return the total that ``limbs`` hold."""
    return sum(digit << (LIMB_BITS * k) for k, digit in enumerate(limbs.tolist()))
