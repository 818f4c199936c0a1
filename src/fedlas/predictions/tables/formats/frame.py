"""Data frames, and mappings from names to columns, as tables."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedlas._core.check import InputError, check_dense, describe, is_tensor
from fedlas._core.extras import require
from fedlas._core.kinds import is_lazy_frame
from fedlas.predictions.tables.cells import TableChunk, to_floating
from fedlas.predictions.tables.columns import to_dotted_path
from fedlas.predictions.tables.formats.format import Format, iter_chunks, split_rows
from fedlas.predictions.tables.formats.json_lines import value_at_path


class Frame(Format):
    """Data frame of pandas or polars, Arrow table, DuckDB relation, or mapping from names to columns."""

    label = "the frame"

    def __init__(self, frame: Any) -> None:
        frame = collect_lazy(frame)
        if hasattr(frame, "append_column"):  # of Arrow
            frame = {name: frame[name] for name in frame.column_names}
        columns = frame.keys() if isinstance(frame, Mapping) else getattr(frame, "columns", None)
        if columns is None or isinstance(frame, str) or is_tensor(frame):
            raise InputError(
                "the table must have columns",
                describe(frame),
                "Pass a data frame of pandas or polars, or a mapping from names to columns.",
            )
        self.names = [str(name) for name in columns]
        self._columns = {str(name): _to_column(str(name), frame[name]) for name in columns}
        self.notes: list[str] = []

    def expand_paths(self, names: Sequence[str], mixed: Collection[str] = ()) -> None:  # noqa: ARG002 (any may be)
        """Expand nested fields, given by their paths, from columns of dicts, lists and JSON text."""
        for name in names:
            path = to_dotted_path(name)
            starts = (path[:place] for place, letter in enumerate(path) if letter == ".")
            start = next((start for start in starts if start in self._columns), None)
            if name in self._columns or start is None:
                continue
            self._columns[name] = [
                value_at_path({start: value}, name) for value in self._to_list(start)
            ]
            self.names = [*self.names, name]

    def has_numeric_type(self, name: str) -> bool:
        """Return whether the column type is numeric."""
        dtype = getattr(self._columns[name], "dtype", None)
        return isinstance(dtype, np.dtype) and dtype.kind in "fiu"

    def chunks(self, numbers: Sequence[str], others: Sequence[str]) -> Iterator[TableChunk]:
        """Yield the columns ``numbers`` (as floats) and ``others`` of all rows in chunks."""
        for name in (*numbers, *others):
            column = self._columns[name]
            if (
                isinstance(column, str | bytes)
                or not hasattr(column, "__len__")
                or getattr(column, "ndim", 1) == 0
            ):
                raise InputError(
                    f"column {name!r} must hold one value per row",
                    f"{describe(column)} in {self.label}",
                    "Pass a list or an array.",
                )
        values = {name: np.fromiter(self._to_list(name), dtype=object) for name in others}
        yield from iter_chunks(
            {name: split_rows(self._to_numbers(name)) for name in numbers},
            {name: split_rows(column) for name, column in values.items()},
            self.label,
        )

    def _to_numbers(self, name: str) -> NDArray[Any]:
        """Return a column as floats ``(N,)``, or ``(N, C)`` of lists."""
        column = self._columns[name]
        if is_tensor(column):
            check_dense(name, column)
            column = column.detach().cpu()
            # bfloat16
            column = (
                column.float() if column.is_floating_point() and column.itemsize < 4 else column
            )
        # types of pandas' own
        if hasattr(column, "notna") and not isinstance(column.dtype, np.dtype):
            column = self._to_list(name)
        try:
            array = np.asarray(column)
            if array.dtype == object:
                width = next((len(value) for value in array if hasattr(value, "__len__")), None)
                missing: Any = np.nan if width is None else [np.nan] * width
                array = np.array([missing if value is None else value for value in array.tolist()])
            return to_floating(name, array, self.label)
        except (TypeError, ValueError) as error:  # text, or lists of several lengths
            if isinstance(error, InputError):
                raise
            raise InputError(
                f"column {name!r} must hold numbers",
                describe(column),
                "Name numeric score columns, or one column of lists of equal length.",
            ) from error

    def _to_list(self, name: str) -> list[Any]:
        """Return a column as a list of Python objects, None for missing values."""
        column = self._columns[name]
        if hasattr(column, "notna"):
            column = column.astype(object).where(column.notna(), None)
        return list(column.tolist() if hasattr(column, "tolist") else column)


def _to_column(name: str, values: object) -> Any:
    """Return a column that NumPy can read: tensors are detached and moved to the CPU."""
    if not is_tensor(values):
        return values
    check_dense(f"column {name!r}", values)
    return values.detach().cpu()


def collect_lazy(frame: object) -> Any:
    """Return a lazy frame as a polars ``DataFrame`` or Arrow table; any other frame is returned unchanged.

    Raises:
        MissingExtraError: For a lazy one without narwhals.
    """
    if not is_lazy_frame(frame):
        return frame
    return require("narwhals", extra="tables").from_native(frame).collect().to_native()
