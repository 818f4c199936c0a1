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
    """
    if is_lazy(frame):
        rows = with_columns(collected(frame), columns)
        return rows.lazy() if hasattr(frame, "lazy") else rows
    plain = {name: values if values.ndim == 1 else list(values) for name, values in columns.items()}
    if hasattr(frame, "append_column"):
        for name, values in plain.items():
            column = require("pyarrow", extra="tables").array(values)
            frame = frame.append_column(name, column)
        return frame
    if isinstance(frame, Mapping):
        return {**frame, **columns}
    if hasattr(frame, "with_columns"):
        series = type(frame[frame.columns[0]])
        return frame.with_columns([series(name, values) for name, values in columns.items()])
    if hasattr(frame, "assign"):
        return frame.assign(**plain)
    raise InputError(
        "the frame must be one of pandas, polars or Arrow", describe(frame), "Convert it."
    )
