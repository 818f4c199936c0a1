"""Tables in NumPy archives (``.npz``)."""

from __future__ import annotations

import math
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fedlas._core.arrays import ArrayArchive, require_memory
from fedlas._core.check import InputError
from fedlas.predictions.saved import open_archive
from fedlas.predictions.tables.formats import format as formats
from fedlas.predictions.tables.formats.format import Format, Pieces, Writer, iter_chunks, split_rows

if TYPE_CHECKING:
    from fedlas.predictions.tables.cells import TableChunk


class Archive(Format):
    """Arrays ``(N, C)``, or ``(N,)`` for single columns, of an ``.npz``, read in chunks.

    An array that lies in memory column by column (``fortran_order``) is read as a whole: its rows are not contiguous.
    """

    needs_names = False

    def __init__(self, path: Path) -> None:
        self.path = path
        self.label = path.name
        self.notes: list[str] = []
        with open_archive(path) as archive:
            self.names = archive.names

    @property
    def layout(self) -> Any:
        """Properties that all files of one table must share; the order of arrays does not matter."""
        return Archive, {*self.names}

    def chunks(self, numbers: Sequence[str], others: Sequence[str]) -> Iterator[TableChunk]:
        """Yield the columns ``numbers`` (as floats) and ``others`` of all rows in chunks."""
        with open_archive(self.path) as archive:
            pieces = {name: self._open_pieces(archive, name) for name in dict.fromkeys([*numbers])}
            rest = {name: self._open_pieces(archive, name) for name in others}
            for name, (shape, _) in rest.items():
                if len(shape) > 1:
                    raise InputError(
                        f"array {name!r} must have shape (N,)",
                        f"{shape} in {self.label}",
                        "Save one value per sample.",
                    )
            yield from iter_chunks(pieces, rest, self.label)

    def _open_pieces(self, archive: ArrayArchive, name: str) -> Pieces:
        """Return the shape of an array, and an iterator that reads its rows in chunks."""
        array = archive.open(name)
        row = math.prod(array.shape[1:]) * array.dtype.itemsize
        if not array.shape or not row:
            raise InputError(
                f"array {name!r} must hold at least one number per row",
                f"{array.dtype} {array.shape} in {self.label}",
                "Save one row per sample.",
            )
        require_memory(min(formats.ROWS, array.shape[0]) * row, f"a chunk of array {name!r}")
        if array.by_column:
            return split_rows(archive[name])

        # np.load reads arrays as a whole: 50,000 rows of 1,000 float32 would take 254 MiB instead of 94.
        def read() -> Iterator[NDArray[Any]]:
            for start in range(0, array.shape[0], formats.ROWS):
                shape = (min(formats.ROWS, array.shape[0] - start), *array.shape[1:])
                content = array.file.read(shape[0] * row)
                if len(content) < shape[0] * row:
                    raise EOFError("an array is truncated")
                yield np.frombuffer(content, array.dtype).reshape(shape)

        return array.shape, read()


class ArchiveWriter(Writer):
    """Writer of ``.npz``: concatenates the arrays of all archives and adds the output arrays."""

    def __init__(
        self, file: IO[bytes], source: Format, scores: Sequence[str], prefix: str, suffix: str
    ) -> None:
        super().__init__(file, source, scores, prefix, suffix)
        self._arrays: list[list[NDArray[Any]]] = [[] for _ in scores]
        self._rows = dict.fromkeys(source.files, 0)

    def write(self, source: object, rows: object, arrays: Sequence[NDArray[Any]]) -> None:  # noqa: ARG002
        """Keep the output arrays of some rows for :meth:`close`."""
        self._rows[source] += len(arrays[0])
        for parts, values in zip(self._arrays, arrays, strict=True):
            parts.append(values)

    def close(self) -> None:
        """Write the archive, compressed if the first input is.

        Raises:
            InputError: If arrays that hold no rows differ between the archives.
        """
        for each in self.source.files:
            with open_archive(each.path) as arrays:
                arrays.check_all()
        with zipfile.ZipFile(self.source.files[0].path) as first:
            form = max(member.compress_type for member in first.infolist())
        with zipfile.ZipFile(self.file, "w", form) as archive:
            for name in self.source.names:
                self._write_array(archive, name, self._join_arrays(name))
            for name, parts in zip(self.names, self._arrays, strict=True):
                self._write_array(archive, name, np.concatenate(parts))

    @staticmethod
    def _write_array(archive: zipfile.ZipFile, name: str, array: NDArray[Any]) -> None:
        with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
            np.lib.format.write_array(member, array, allow_pickle=False)

    def _join_arrays(self, name: str) -> NDArray[Any]:
        """Return an array concatenated over all archives, or unchanged if it is the same in all."""
        parts: list[NDArray[Any]] = []
        for table in self._rows:
            with open_archive(table.path) as arrays:
                parts.append(arrays[name])
        if len(parts) == 1:
            return parts[0]
        if all(
            part.shape[:1] == (rows,) for part, rows in zip(parts, self._rows.values(), strict=True)
        ):
            return np.concatenate(parts)
        if any(not np.array_equal(part, parts[0]) for part in parts):
            raise InputError(
                f"array {name!r} must have one row per sample, or be equal in all files",
                f"different arrays in {self.source.label}",
                "Leave it out, or process the files one by one.",
            )
        return parts[0]
