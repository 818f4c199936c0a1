"""Array that grows as rows are read in chunks."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedlas._core.check import InputError


class GrowingArray:
    """Array that grows in place, with an eighth of extra memory."""

    def __init__(self) -> None:
        self._array: NDArray[Any] = np.empty(0)
        self._size = 0

    def append(self, rows: NDArray[Any]) -> None:
        """Append rows of equal shape and dtype."""
        size = self._size + len(rows)
        if not self._size:
            self._array = np.empty(rows.shape, dtype=rows.dtype)
        elif rows.shape[1:] != self._array.shape[1:]:
            raise InputError(
                "every row must have as many numbers as the first",
                f"shape {rows.shape[1:]} after {self._array.shape[1:]}",
                "Check the file.",
            )
        if size > len(self._array):
            self._array.resize((max(size, self._size * 9 // 8), *rows.shape[1:]), refcheck=False)
        self._array[self._size : size] = rows
        self._size = size

    def array(self) -> NDArray[Any]:
        """Return all rows; no rows can be appended after that."""
        self._array.resize((self._size, *self._array.shape[1:]), refcheck=False)
        return self._array
