"""NumPy archives (``.npz``) from strangers: sizes are checked before memory is taken; no object is unpickled."""

from __future__ import annotations

import math
import warnings
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from fedlas._core.check import InputError
from fedlas._core.memory import check_fits

__all__ = ["ArrayFile", "Arrays", "open_arrays"]

_FREE = 2**26
"""Bytes up to which an array may be compressed to anything: labels in order shrink to almost nothing."""
_MOST_RATIO = 100
"""Most that a larger array may be compressed. Scores hardly shrink at all; a zip bomb shrinks a thousandfold."""


@dataclass(frozen=True)
class ArrayFile:
    """An array in an archive, open behind its header.

    Attributes:
        file: The values, uncompressed.
        shape: Its shape, which fits the size of the file.
        dtype: Its dtype; never objects.
        by_column: Whether values lie column by column (``fortran_order``).
    """

    file: IO[bytes]
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    by_column: bool


class Arrays:
    """The arrays in an open archive, by name."""

    def __init__(self, archive: zipfile.ZipFile) -> None:
        self._archive = archive
        self.names = [name.removesuffix(".npy") for name in archive.namelist()]

    def __contains__(self, name: str) -> bool:
        return name in self.names

    def __getitem__(self, name: str) -> NDArray[Any]:
        """A whole array.

        Raises:
            ValueError: As :meth:`open`; or if it does not fit into memory.
        """
        array = self.open(name)
        check_fits(math.prod(array.shape) * array.dtype.itemsize, f"array {name!r}")
        with self._archive.open(self._info(name)) as file:
            values: NDArray[Any] = np.lib.format.read_array(file, allow_pickle=False)
        return values

    def open(self, name: str) -> ArrayFile:
        """An array to be read a part at a time.

        Raises:
            KeyError: If there is none of that name.
            ValueError: If it holds objects, is compressed a hundredfold, or its header claims more
                than the file holds.
        """
        info = self._info(name)
        if info.file_size > max(_FREE, _MOST_RATIO * info.compress_size):
            ratio = f"{info.file_size:,} bytes in {info.compress_size:,}"
            raise ValueError(f"array {name!r} is compressed more than {_MOST_RATIO} times, {ratio}: save it with savez")
        file = self._archive.open(info)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of headers that Python 2 wrote
            version = np.lib.format.read_magic(file)
            if version > (2, 0):  # only for names of fields
                raise ValueError(f"array {name!r} has fields")
            header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            shape, by_column, dtype = header(file)
        if dtype.hasobject or dtype.names or not dtype.itemsize:
            raise ValueError(f"array {name!r} is of {dtype}, not of plain numbers or text")
        # The header is only a claim: the size must be there before memory of that size is taken.
        claimed, size = math.prod(shape) * dtype.itemsize, info.file_size - file.tell()
        if min(shape, default=1) < 0 or claimed > size:
            raise ValueError(f"the header of array {name!r} claims shape {shape}, {claimed:,} bytes; it has {size:,}")
        return ArrayFile(file, shape, dtype, by_column)

    def _info(self, name: str) -> zipfile.ZipInfo:
        members = self._archive.NameToInfo
        return members[f"{name}.npy" if f"{name}.npy" in members else name]


@contextmanager
def open_arrays(path: Path) -> Iterator[Arrays]:
    """Open an ``.npz``.

    Raises:
        OSError: If the file cannot be opened.
        ValueError: If it is no archive, or an array in it is damaged; also for what is read in the ``with`` block. Its
            message says what is wrong.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            yield Arrays(archive)
    except (InputError, OSError):
        raise
    except Exception as error:  # zip, its decompressors and NumPy's headers raise anything for damaged bytes
        raise ValueError(str(error) if type(error) is ValueError else f"{type(error).__name__}: {error}") from error
