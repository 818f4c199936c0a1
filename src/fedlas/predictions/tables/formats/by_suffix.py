"""Readers and writers of table files, selected by the suffix of the file name."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from fedlas._core.check import InputError
from fedlas._core.files import is_file, to_path
from fedlas.predictions.tables.files import FORMATS, TableFile, format_suffix

if TYPE_CHECKING:
    from fedlas.predictions.tables.formats.format import Format, Writer


def open_format(file: str | Path | TableFile, separator: str | None = None) -> Format:
    """Return the reader of a file.

    Args:
        file: The file.
        separator: Separator of a CSV file; None notices it.

    Raises:
        InputError: If there is no such file, its name ends otherwise, or it cannot be read.
        MissingExtraError: For all but ``.npz`` without pyarrow.
    """
    if not isinstance(file, TableFile):
        file = TableFile(to_path(file))
    path = file.path
    if not is_file(path):
        raise InputError("the file must exist", path, "Check the path.")
    form = _import_format_class(format_suffix(path))
    options = {"separator": separator, "partition": file.partition}
    source: Format = form(path, **{name: options[name] for name in form.options})
    source.label = file.label or source.label
    return source


def _import_format_class(suffix: str, name_end: str = "") -> Any:
    """Import and return the reader class of a format, or its writer class if ``name_end`` is ``Writer``."""
    module, _, name = FORMATS[suffix].partition(".")
    return getattr(
        import_module(f"fedlas.predictions.tables.formats.{module}"), f"{name}{name_end}"
    )


def open_writer(
    source: Format, file: IO[bytes], scores: Sequence[str], prefix: str, suffix: str
) -> Writer:
    """Return the writer of the rows of a table with an additional column next to each score.

    Args:
        source: What is read.
        file: Where the rows go.
        scores: Columns of scores.
        prefix: Begins the names of what is written next to them.
        suffix: Format of the file, as the end of a name.

    Raises:
        InputError: If arrays become another format, or other rows arrays.
    """
    is_archive = [isinstance(source.files[0], _import_format_class(".npz")), suffix == ".npz"]
    if is_archive[0] != is_archive[1]:
        raise InputError(
            "must be an .npz if, and only if, the input is",
            f"{suffix} for input {source.files[0].label}",
            "Write an .npz file." if is_archive[0] else "Write a .parquet file.",
            argument="out",
        )
    for each in source.files:
        each.keeps_all = True
    write = source.files[0].writer or _import_format_class(suffix, "Writer")
    writer: Writer = write(file, source, scores, prefix, suffix)
    return writer
