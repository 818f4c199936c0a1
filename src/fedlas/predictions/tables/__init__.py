"""Tables: a format a file, each with its reader; ``FORMATS`` holds them by the ends of names."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from fedlas._core.check import InputError
from fedlas._core.files import checked_path, is_file
from fedlas.predictions.tables.delimited import Delimited
from fedlas.predictions.tables.json_lines import JsonLines
from fedlas.predictions.tables.npz import Archive
from fedlas.predictions.tables.parquet import Parquet
from fedlas.predictions.tables.table import Table

FORMATS: dict[str, Callable[..., Table]] = {
    ".csv": Delimited,
    ".tsv": Delimited,
    ".jsonl": JsonLines,
    ".ndjson": JsonLines,
    ".parquet": Parquet,
    ".npz": Archive,
}
"""Reader of a file, by the end of its name."""
_SHEET = "Save it as CSV (File, Save As), or read it with pandas and pass the frame to Predictions.from_frame."
_PICKLE = "Save the arrays with numpy.savez; pickles can run code."
_OTHERS = dict.fromkeys((".xlsx", ".xls", ".ods"), _SHEET) | dict.fromkeys(
    (".pkl", ".pt", ".pth"), _PICKLE
)
_OTHERS |= {".json": "Write one object a line, and name it .jsonl."}
_OTHERS |= dict.fromkeys((".gz", ".zip", ".zst", ".bz2", ".xz"), "Unpack it.")


def source_of(path: str | Path, separator: str | None = None) -> Table:
    """Return the table in a file.

    Args:
        path: The file.
        separator: Separator of a CSV file; None notices it.

    Raises:
        InputError: If there is no such file, its name ends otherwise, or it cannot be read.
        MissingExtraError: For all but ``.npz`` without pyarrow.
    """
    path = checked_path(path)
    if not is_file(path):
        raise InputError("the file must exist", path, "Check the path.")
    suffix = path.suffix.lower()
    if suffix not in FORMATS:
        raise InputError(
            f"the name must end in {', '.join(FORMATS)}",
            path.name,
            _OTHERS.get(suffix, "Rename or convert the file."),
        )
    return FORMATS[suffix](path, *([separator] if FORMATS[suffix] is Delimited else []))
