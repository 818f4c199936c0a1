"""What is wrong with a file that cannot be read: the usual accidents, recognised by how the file begins."""

from __future__ import annotations

from pathlib import Path

from fedlas._core.check import InputError

_BEGINNINGS = (
    (
        b"version https://git-lfs",
        "it is a pointer of Git LFS, not the file itself",
        "Run 'git lfs pull' in its repository.",
    ),
    (b"<!DOCTYPE", "it is a web page", "The download got an error page: fetch it again."),
    (b"<html", "it is a web page", "The download got an error page: fetch it again."),
)


def damage(path: Path) -> tuple[str, str]:
    """What is wrong and what to do, as far as the beginning of the file tells.

    Args:
        path: A file that exists but could not be read as what it should be.

    Returns:
        A clause and a sentence; two empty strings if nothing is recognised.
    """
    try:
        with path.open("rb") as file:
            head = file.read(64)
    except OSError:
        return "", ""
    if not head:
        return "it is empty", "The download or the extraction was cut off: do it again."
    for beginning, what, fix in _BEGINNINGS:
        if head.lower().startswith(beginning.lower()):
            return what, fix
    return "", ""


def unreadable(owner: str, expected: str, path: Path, error: Exception, fix: str) -> InputError:
    """The error for a file that could not be read, in terms of its accident where that is a known one.

    Args:
        owner: Data set that asks.
        expected: What the file should have been.
        path: The file.
        error: What reading it raised.
        fix: What to do if the accident is not a known one.
    """
    what, known_fix = damage(path)
    return InputError(owner, expected, f"{path} ({what or f'{type(error).__name__}: {error}'})", known_fix or fix)


def read_lines(owner: str, path: Path) -> list[str]:
    """The lines of a small text file that belongs to a data set, without empty ones.

    Raises:
        InputError: If it cannot be read, is empty, or is a pointer or a web page in its place.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        fix = "The data set is not whole: extract its archive again."
        raise unreadable(owner, f"{path.name} must be a readable text file", path, error, fix) from error
    what, fix = damage(path)
    if what:
        raise InputError(owner, f"{path.name} must be the text file of the data set", f"{path} ({what})", fix)
    return [line.strip() for line in text.splitlines() if line.strip()]


def read_table(owner: str, path: Path, columns: int, *, separator: str | None = None) -> list[list[str]]:
    """The lines of a text file as cells; what follows the last column's separator stays in the last cell.

    Args:
        owner: Data set that asks.
        path: The file.
        columns: How many cells each line must have.
        separator: What parts the cells; None is white space.

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
                "The file is cut off or another one: extract the archive again.",
            )
    return rows
