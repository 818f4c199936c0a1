"""Errors for unreadable files; common kinds of damage are recognized by the first bytes."""

from __future__ import annotations

from pathlib import Path

from fedlas._core.check import InputError

_LFS = "it is a pointer of Git LFS, not the file itself", "Run 'git lfs pull' in its repository."
_PAGE = "it is a web page", "The download got an error page: fetch it again."
_BEGINNINGS = {b"version https://git-lfs": _LFS, b"<!doctype": _PAGE, b"<html": _PAGE}


def damage(path: Path) -> tuple[str, str]:
    """What is wrong with a file and what to do, if its first bytes show it.

    Args:
        path: A file that exists but could not be read.

    Returns:
        A clause and a sentence; two empty strings if nothing is recognized.
    """
    try:
        if path.exists() and not path.is_file():
            return "it is no file", "Remove it."
        with path.open("rb") as file:
            head = file.read(64)
    except OSError:
        return "", ""
    if not head:
        return "it is empty", "The download or the extraction was cut off: do it again."
    return next((found for start, found in _BEGINNINGS.items() if head.lower().startswith(start)), ("", ""))


def unreadable(owner: str, expected: str, path: Path, error: Exception, fix: str) -> InputError:
    """The error for a file that could not be read, with the kind of damage if it is recognized.

    Args:
        owner: Data set, named in the error.
        expected: What the file should be.
        path: The file.
        error: What reading it raised.
        fix: What to do if the damage is not recognized.
    """
    what, known_fix = damage(path)
    reason = str(error).replace(f" {str(path)!r}", "")  # Pillow and the system name the file again
    return InputError(owner, expected, f"{path} ({what or f'{type(error).__name__}: {reason}'})", known_fix or fix)


def read_lines(owner: str, path: Path) -> list[str]:
    """The lines of a small text file of a data set, without empty ones.

    Raises:
        InputError: If the file cannot be read, is empty, or is a Git LFS pointer or a web page.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        fix = "The data set is incomplete: extract its archive again."
        raise unreadable(owner, f"{path.name} must be a readable text file", path, error, fix) from error
    what, fix = damage(path)
    if what:
        raise InputError(owner, f"{path.name} must be the text file of the data set", f"{path} ({what})", fix)
    return [line.strip() for line in text.splitlines() if line.strip()]


def read_table(owner: str, path: Path, columns: int, *, separator: str | None = None) -> list[list[str]]:
    """The lines of a text file as cells; further separators stay in the last cell.

    Args:
        owner: Data set, named in errors.
        path: The file.
        columns: Number of cells in each line.
        separator: Separator of the cells; None is white space.

    Raises:
        InputError: As :func:`read_lines`, or if a line has fewer cells (as the last one of a cut file has).
    """
    rows = [line.split(separator, columns - 1) for line in read_lines(owner, path)]
    for number, row in enumerate(rows, start=1):
        if len(row) != columns:
            raise InputError(
                owner,
                f"each line of {path.name} must have {columns} columns",
                f"{len(row)} in line {number} of {path}: {' '.join(row)[:80]!r}",
                "The file is cut off or a different one: extract the archive again.",
            )
    return rows
