"""Tables: a format a file, each with its reader; ``FORMATS`` holds them by the ends of names."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from fedlas._core.check import InputError
from fedlas._core.files import checked_path, is_file
from fedlas.predictions.tables.delimited import Delimited, DelimitedWriter
from fedlas.predictions.tables.files import TableFile
from fedlas.predictions.tables.json_lines import JsonLines, JsonLinesWriter
from fedlas.predictions.tables.npz import Archive, ArchiveWriter
from fedlas.predictions.tables.packed import suffix_of
from fedlas.predictions.tables.parquet import Parquet, ParquetWriter
from fedlas.predictions.tables.table import Joined, Table, Writer


@dataclass(frozen=True)
class Format:
    """How a table in a file is read and written.

    Attributes:
        read: Makes the table of a path, and of a separator in formats that have one.
        write: Writes its rows again with more columns.
        options: What the table is made of in addition: a separator of cells, or columns by the names of folders.
    """

    read: Callable[..., Table]
    write: type[Writer]
    options: tuple[str, ...] = ()


_DELIMITED = Format(Delimited, DelimitedWriter, ("separator",))
_JSON = Format(JsonLines, JsonLinesWriter)
FORMATS: dict[str, Format] = {
    ".csv": _DELIMITED,
    ".tsv": _DELIMITED,
    ".jsonl": _JSON,
    ".ndjson": _JSON,
    ".parquet": Format(Parquet, ParquetWriter, ("partition",)),
    ".npz": Format(Archive, ArchiveWriter),
}
"""Format of a file, by the end of its name."""
_SHEET = "Save it as CSV (File, Save As), or read it with pandas and pass the frame to Predictions.from_frame."
_PICKLE = "Save the arrays with numpy.savez; pickles can run code."
_OTHERS = dict.fromkeys((".xlsx", ".xls", ".ods"), _SHEET) | dict.fromkeys(
    (".pkl", ".pt", ".pth"), _PICKLE
)
_OTHERS |= {".json": "Write one object a line, and name it .jsonl."}
_OTHERS |= dict.fromkeys((".zip", ".bz2", ".xz"), "Unpack it.")
_OTHERS |= dict.fromkeys((".gz", ".zst"), "Name it .csv.gz or .jsonl.gz, if it holds such text.")


def source_of(file: str | Path | TableFile, separator: str | None = None) -> Table:
    """Return the table in a file.

    Args:
        file: The file.
        separator: Separator of a CSV file; None notices it.

    Raises:
        InputError: If there is no such file, its name ends otherwise, or it cannot be read.
        MissingExtraError: For all but ``.npz`` without pyarrow.
    """
    if not isinstance(file, TableFile):
        file = TableFile(checked_path(file))
    path = file.path
    if not is_file(path):
        raise InputError("the file must exist", path, "Check the path.")
    suffix = suffix_of(path)
    if suffix not in FORMATS:
        raise InputError(
            f"the name must end in {', '.join(FORMATS)}",
            path.name,
            _OTHERS.get(suffix, "Rename or convert the file."),
        )
    entry = FORMATS[suffix]
    options = {"separator": separator, "partition": file.partition}
    table = entry.read(path, **{name: options[name] for name in entry.options})
    table.label = file.label or table.label
    return table


def writer_of(
    table: Joined, file: IO[bytes], scores: Sequence[str], prefix: str, suffix: str
) -> Writer:
    """Return a writer of the rows of a table, with a column next to each score.

    Args:
        table: The table that is read.
        file: Where the rows go.
        scores: Columns of scores.
        prefix: Begins the names of what is written next to them.
        suffix: Format of the file, as the end of a name.

    Raises:
        InputError: If arrays become another format, or other rows arrays.
    """
    is_archive = [isinstance(table.tables[0], Archive), suffix == ".npz"]
    if is_archive[0] != is_archive[1]:
        raise InputError(
            "must be an .npz if, and only if, the file that is read is one",
            f"{suffix} for {table.tables[0].label}",
            "Name a file that ends in .npz." if is_archive[0] else "Write .parquet.",
            argument="out",
        )
    for source in table.tables:
        source.keeps_all = True
    return FORMATS[suffix].write(file, table, scores, prefix, suffix)
