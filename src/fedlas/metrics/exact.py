"""Sums that do not depend on the order of their terms, so that shards, ranks and chunks add up to the whole exactly.

A float64 sum rounds after every addition: another order, another last digit. Integers do not round. Every term is cut
into digits of 26 bits, and each digit is summed as an int64 of its own.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedlas._core.check import check_finite

DIGIT_BITS = 26
POINT_BITS = 52
"""Bits behind the binary point. What a term has beyond them is rounded away, the same wherever the term stands."""
FRACTION_DIGITS = 2
"""Digits for terms in ``[0, 1]``. The upper one holds all before the point: there is room for ``2**37`` terms."""
FLOAT_DIGITS = 42
"""Digits for terms of any size that float64 can have."""
# So many digits below 2**26 a float64 adds without rounding.
_TERMS = 2**26
_LOW = 2**DIGIT_BITS - 1
# Up to so many sums, adding all of a new set of them is faster than finding those that change.
_FEW = 2**10


class ExactSum:
    """Sums of float64 numbers, the same to the last bit in whatever order and in whatever parts the numbers come.

    Args:
        size: How many sums.
        digits: :data:`FRACTION_DIGITS` if all terms are in ``[0, 1]``, else :data:`FLOAT_DIGITS`.

    Attributes:
        digits: ``(digits, size)`` int64 on the CPU. A sum is ``sum_k digits[k] * 2**(26 k - 52)``, so adding the digits
            of two objects adds their sums.
    """

    def __init__(self, size: int, *, digits: int = FRACTION_DIGITS) -> None:
        self.digits = torch.zeros(digits, size, dtype=torch.int64, device="cpu")

    def add(self, terms: Tensor, index: Tensor | None = None) -> None:
        """Add ``terms (n,)`` on the CPU, each to the sum that ``index (n,)`` names; without one, all to the first.

        Raises:
            InputError: If a term is infinite or NaN.
        """
        for start in range(0, len(terms), _TERMS):
            part = slice(start, start + _TERMS)
            self._add_terms(terms[part], None if index is None else index[part])

    def add_fixed(self, numbers: Tensor, index: Tensor, *, bits: int) -> None:
        """Add ``numbers (n,)`` int64 in units of ``2**-bits``, ``26 <= bits <= 52``, each to the sum of ``index``."""
        below = bits - (POINT_BITS - DIGIT_BITS)
        self.digits[1].index_add_(0, index, numbers >> below)
        self.digits[0].index_add_(0, index, (numbers & (2**below - 1)) << (POINT_BITS - bits))

    def totals(self) -> list[int]:
        """The sums themselves, as integers in units of ``2**-52``."""
        columns = self.digits.t().tolist()
        return [sum(digit << (DIGIT_BITS * k) for k, digit in enumerate(digits)) for digits in columns]

    def floats(self) -> Tensor:
        """The sums ``(size,)`` as the nearest float64, whatever digits they were arrived at with."""
        if len(self.digits) > FRACTION_DIGITS:
            return torch.tensor([total / 2**POINT_BITS for total in self.totals()], dtype=torch.float64, device="cpu")
        low, high = self.digits
        high = high + (low >> DIGIT_BITS)
        return high.double() * 2.0 ** (DIGIT_BITS - POINT_BITS) + (low & _LOW).double() * 2.0**-POINT_BITS

    def _add_terms(self, terms: Tensor, index: Tensor | None) -> None:
        # NumPy, because most calls have few terms and its functions start in a third of the time.
        places = None if index is None else index.numpy()
        if not terms.is_floating_point():
            self._add_digits(1, terms.numpy() * 2.0**DIGIT_BITS, places)
            return
        rest = terms.double().numpy()
        for digit in range(self._highest_digit(terms, rest), 0, -1):
            unit = 2.0 ** (DIGIT_BITS * digit - POINT_BITS)
            # Toward zero: what is left then needs no bit that the term did not have.
            whole = np.trunc(rest / unit)
            self._add_digits(digit, whole, places)
            rest = rest - whole * unit
        self._add_digits(0, np.rint(rest * 2.0**POINT_BITS), places)

    def _add_digits(self, digit: int, whole: NDArray[np.float64], places: NDArray[np.int64] | None) -> None:
        sums = self.digits[digit].numpy()
        if places is None:
            sums[0] += int(whole.sum())
        elif len(sums) > _FEW:
            self.digits[digit].index_add_(0, torch.from_numpy(places), torch.from_numpy(whole.astype(np.int64)))
        else:
            sums += np.bincount(places, weights=whole, minlength=len(sums)).astype(np.int64)

    def _highest_digit(self, terms: Tensor, values: NDArray[np.float64]) -> int:
        """The lowest one, but for the last, of which float64 adds as many as there are terms without rounding."""
        if len(self.digits) == FRACTION_DIGITS:
            return 1
        largest = float(np.abs(values).max())
        if not math.isfinite(largest):
            check_finite("ExactSum", "terms", terms)
        bits = math.frexp(largest)[1] + (len(values) - 1).bit_length()
        return max(1, -(-(bits + POINT_BITS - 53) // DIGIT_BITS))
