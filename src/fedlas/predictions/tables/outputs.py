"""Checks of all files that a call writes, against the files that it reads and against each other."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from glob import glob, has_magic
from pathlib import Path

from fedlas._core.check import InputError
from fedlas._core.files import is_same_file
from fedlas._core.outputs import (
    STANDARD_STREAM,
    FileKind,
    check_output_path,
    check_suffix,
    is_of_kind,
    overwrite_error,
)
from fedlas._core.temporary import private_folder
from fedlas.predictions.tables.files import (
    READS,
    WRITES,
    Name,
    TableFile,
    fetch_remote_copy,
    resolve_store_path,
    store_address,
    to_local_path,
)


@dataclass(frozen=True)
class Output:
    """A file to be written.

    Attributes:
        option: The option that names it, for messages.
        place: The file, or its address in a store; None where none is written.
        kind: What is written, which alone it may replace.
    """

    option: str
    place: str | Path | None
    kind: FileKind


def check_outputs(outputs: Iterable[Output], read: Sequence[Name | None]) -> None:
    """Raise InputError unless each output can be written, replaces only its kind, and is not read or written twice.

    Args:
        outputs: What is written.
        read: What is read: files, folders, patterns and addresses; None for those that are not there.

    Raises:
        InputError: If one cannot be written, or would replace something else.

    Example:
        >>> from fedlas._core.outputs import new_file_kind
        >>> page = Output("--page", "a.html", new_file_kind())
        >>> check_outputs([page, Output("--out", "./a.html", new_file_kind())], ["b.csv"])
        Traceback (most recent call last):
        fedlas._core.errors.InputError: --out must be another file than --page; got ./a.html. Name it elsewhere.
    """
    earlier: list[Output] = []
    for output in outputs:
        if output.place is None:
            continue
        if str(output.place) != STANDARD_STREAM:
            check_suffix(output.option, Path(output.place), output.kind)
        # Files that are read come first: that error says more than one about the kind.
        check_not_read(output.option, output.place, read)
        for other in earlier:
            check_not_read(output.option, output.place, [other.place], other.option)
        earlier.append(output)
    for output in earlier:
        address = store_address(output.place)
        here = output.place if address is None else to_local_path(address)
        if here is not None:
            check_output_path(output.option, here, output.kind)
        elif address is not None:
            _check_remote(output.option, address, output.kind)


def check_report_files(folder: Path, page: str, kind: FileKind, others: Sequence[str]) -> None:
    """Check the files of a report in a folder: other files are only replaced next to a report page."""
    beside = replace(kind, matches=lambda _: is_of_kind(folder / page, kind), suffixes=())
    places = [Output(f"the file {page}", folder / page, kind)]
    places += [Output(f"the file {name}", folder / name, beside) for name in others]
    check_outputs(places, ())


def check_not_read(
    option: str, out: str | Path | None, names: Sequence[Name | None], other_option: str = ""
) -> None:
    """Raise InputError if an output is among the files that are read, or would be the next time.

    Args:
        option: The option that names what is written, for the message.
        out: A file or an address; None or ``-`` where no file is written.
        names: What is read: files, folders, patterns and addresses; None for those that are not there.
        other_option: The option that names what else is written, instead of what is read.

    Raises:
        InputError: If it is one of the files, lies in one of the folders, or matches one of the patterns, by whatever
            name.

    Example:
        >>> check_not_read("--out", "b.csv", ["a.csv", "*.csv"])
        Traceback (most recent call last):
        fedlas._core.errors.InputError: --out must not match what is read; got b.csv, as *.csv does. Name it elsewhere.
    """
    if out is None or str(out) == STANDARD_STREAM:
        return
    store, path = resolve_store_path(out, WRITES)
    elsewhere = "Name it elsewhere."
    for name in names:
        if name is None or str(name) == STANDARD_STREAM:
            continue
        other, root = resolve_store_path(name.path if isinstance(name, TableFile) else name, READS)
        if store != other:
            continue
        files = glob(root) if store is None and has_magic(root) else [root]  # noqa: PTH207
        if path == root or (store is None and any(is_same_file(path, file) for file in files)):
            expected = f"{option} must be another file" + (
                f" than {other_option}" if other_option else ""
            )
            raise InputError(
                expected, out, elsewhere if other_option else "Writing it would replace the input."
            )
        if has_magic(root) and _matches_pattern(path, root):
            raise InputError(
                f"{option} must not match what is read", f"{out}, as {name} does", elsewhere
            )
        if path.startswith(f"{root.rstrip('/')}/") and path.lower().endswith(".parquet"):
            raise InputError(
                f"{option} must lie outside the folder that is read", f"{out} in {name}", elsewhere
            )


def _matches_pattern(path: str, pattern: str) -> bool:
    """Return whether a path matches a pattern folder by folder; ``**`` matches any number of folders."""
    if "**" in pattern:
        return fnmatchcase(path, pattern)
    folders = path.split("/"), pattern.split("/")
    same = len(folders[0]) == len(folders[1])
    return same and all(map(fnmatchcase, *folders))


def _check_remote(option: str, address: str, kind: FileKind) -> None:
    """Raise InputError if the file at a remote address must not be replaced."""
    with private_folder() as folder:
        copy = fetch_remote_copy(address, folder)
        if copy is None or is_of_kind(copy, kind):
            return
    raise overwrite_error(option, address, kind)
