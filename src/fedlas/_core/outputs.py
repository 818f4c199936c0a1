"""Checks of output files: which existing file may be replaced."""

from __future__ import annotations

import mmap
import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from fedlas._core.check import InputError
from fedlas._core.files import (
    check_writable,
    not_writable_error,
    read_json,
    require_no_device,
    to_path,
)

STANDARD_STREAM = "-"
"""In place of a file: standard input or output."""


@dataclass(frozen=True)
class FileKind:
    """A kind of output file: its name in messages, its suffixes, and a test that recognizes an existing one.

    Attributes:
        noun: Name of one, with its article, as in a message; empty for what replaces no file at all.
        matches: Return whether an existing file is one; it only reads. Its errors mean that the file is none.
        suffixes: Ends of the name, in lower case; any if there are none.
    """

    noun: str
    matches: Callable[[Path], bool]
    suffixes: tuple[str, ...] = ()

    @property
    def with_any_suffix(self) -> FileKind:
        """A copy of this kind that accepts any suffix."""
        return replace(self, suffixes=())


def new_file_kind(*suffixes: str) -> FileKind:
    """Return a kind of file that never replaces an existing file."""
    return FileKind("", lambda _: False, suffixes)


def json_kind(noun: str, form: str) -> FileKind:
    """Return the kind of JSON files with a ``format`` field such as ``"fedlas.card/1"``, in any version."""
    return FileKind(noun, lambda path: has_json_format(path, form), (".json",))


def marked_kind(noun: str, mark: bytes, suffixes: tuple[str, ...] = ()) -> FileKind:
    """Return the kind of files that contain the bytes ``mark``."""

    def is_marked(path: Path) -> bool:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as text:
            return text.find(mark) >= 0

    return FileKind(noun, is_marked, suffixes)


def has_json_format(path: Path, form: str) -> bool:
    """Return whether a file is JSON whose ``format`` field matches ``form``, in any version."""
    try:
        return str(read_json(path)["format"]).startswith(form.partition("/")[0] + "/")
    except (OSError, ValueError, KeyError, TypeError):
        return False


def is_of_kind(path: Path, kind: FileKind) -> bool:
    """Return whether an existing file is of ``kind`` or empty, and may therefore be replaced."""
    with suppress(OSError, ValueError, KeyError, TypeError):
        return path.stat().st_size == 0 or kind.matches(path)
    return False


def check_suffix(option: str, path: Path, kind: FileKind) -> None:
    """Raise InputError if the suffix of ``path`` is not one of ``kind``."""
    if kind.suffixes and path.suffix.lower() not in kind.suffixes:
        *most, last = kind.suffixes
        ends = f"{', '.join(most)} or {last}" if most else last
        name = f"{path.stem or 'name'}{kind.suffixes[0]}"
        raise InputError(f"{option} must end in {ends}", path, f"Name it {name}.")


def overwrite_error(option: str, place: object, kind: FileKind) -> InputError:
    """Return the InputError for an output path where a file of another kind exists."""
    expected = f"must be new, or {kind.noun} to be replaced" if kind.noun else "must be a new file"
    fix = "Choose another name, or move that file away."
    return InputError(f"{option} {expected}", f"{place}, which exists", fix)


def check_output_path(option: str, output: str | Path, kind: FileKind) -> Path:
    """Return an output path, or raise InputError if it cannot be written or would replace a file of another kind.

    Args:
        option: The option or argument that names the file, for messages.
        output: The file.
        kind: What is written.

    Returns:
        The path.

    Raises:
        InputError: If the name is ``-`` or ends otherwise than the kind, a link, folder, device or file of another
            kind is there, or no file can be written there.

    Example:
        >>> from tempfile import mkdtemp
        >>> path = Path(mkdtemp(), "cal.json")
        >>> _ = path.write_text("{'mine': 1}")
        >>> check_output_path("--out", path, json_kind("a calibration", "fedlas.table/1"))
        Traceback (most recent call last):
        fedlas._core.errors.InputError: --out must be new, or a calibration to be replaced; got ... Choose another ...
    """
    path = to_path(output)
    if str(path) == STANDARD_STREAM:
        fix = "Name one, or leave the option out."
        raise InputError(f"{option} must name a file", "-, standard output", fix)
    check_suffix(option, path, kind)
    try:
        require_no_device(path)
        if os.path.islink(path):  # noqa: PTH114 - Path.is_symlink may raise
            fix = "Name the file that is meant, or remove the link."
            raise InputError(
                f"{option} must not be a link",
                f"{path}, to {path.readlink()}",
                fix,
            )
        if path.is_dir():
            fix = "Name a file in it."
            raise InputError(f"{option} must be a file, not a folder", path, fix)
        if path.exists() and not is_of_kind(path, kind):
            raise overwrite_error(option, path, kind)
        folder = next(each for each in path.absolute().parents if os.path.lexists(each))
    except OSError as error:
        raise not_writable_error(path, error, option) from error
    check_writable(folder, option)
    return path
