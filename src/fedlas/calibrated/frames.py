"""Frames with more columns."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from numpy.typing import NDArray

from fedlas._core.check import InputError, describe
from fedlas._core.extras import require
from fedlas.predictions.tables.frame import collected, is_lazy


def with_columns(frame: Any, columns: Mapping[str, NDArray[Any]]) -> Any:
    """Return a frame of the same kind with more columns ``(n,)`` or ``(n, C)``; an Arrow table for a relation.

    Raises:
        InputError: For another kind of frame.
        MissingExtraError: For all but mappings without narwhals.
    """
    if isinstance(frame, Mapping):
        return {**frame, **columns}
    if hasattr(frame, "to_struct_array") and not hasattr(frame, "combine_chunks"):
        # A record batch, which narwhals does not take.
        arrow = require("pyarrow", extra="tables")
        table = with_columns(arrow.Table.from_batches([frame]), columns)
        return arrow.RecordBatch.from_struct_array(table.to_struct_array().combine_chunks())
    narwhals = require("narwhals", extra="tables")
    try:
        rows = narwhals.from_native(collected(frame), eager_only=True)
    except TypeError as error:
        raise InputError(
            "the frame must be one of pandas, polars or Arrow", describe(frame), "Convert it."
        ) from error
    series = [
        narwhals.new_series(
            name, values if values.ndim == 1 else list(values), backend=rows.implementation
        )
        for name, values in columns.items()
    ]
    after = rows.with_columns(*series).to_native()
    return after.lazy() if is_lazy(frame) and hasattr(frame, "lazy") else after
