"""Files that are either whole or not there: a reader, or a run started again, never meets half of one."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

from fedlas._core.check import InputError


def write_atomically(path: str | Path, write: Callable[[IO[bytes]], Any]) -> Path:
    """Write a file next to ``path`` and move it there once it is complete and on the disk.

    Args:
        path: Where the file goes; missing folders are made.
        write: Called with the open binary file.

    Returns:
        The path.

    Raises:
        InputError: If the folder cannot be written to, the disk is full or a folder has that name. What was at ``path``
            before is still there then.

    Note:
        A process killed while it writes leaves a hidden ``.part`` file beside ``path``: harmless, since nothing reads
        it, and :func:`remove_parts` clears it away.

    Example:
        >>> folder = Path(tempfile.mkdtemp())
        >>> write_atomically(folder / "a.txt", lambda file: file.write(b"whole")).read_text()
        'whole'
    """
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
    except OSError as error:
        raise not_writable(path.parent, error) from error
    try:
        with os.fdopen(handle, "wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        mask = os.umask(0)  # mkstemp makes private files; give this one the permissions any other file would get
        os.umask(mask)
        Path(temporary).chmod(0o666 & ~mask)
        Path(temporary).replace(path)
    except OSError as error:
        Path(temporary).unlink(missing_ok=True)
        raise not_writable(path, error) from error
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    return path


def remove_parts(folder: str | Path) -> None:
    """Remove what killed writers left in ``folder`` and below.

    Note:
        Call it only while nobody else writes there, e.g. under the folder's lock: it cannot tell a killed writer's file
        from a living one's.
    """
    for part in Path(folder).rglob(".*.part"):
        part.unlink(missing_ok=True)


def write_text(path: str | Path, text: str) -> Path:
    """Write UTF-8 text atomically."""
    return write_atomically(path, lambda file: file.write(text.encode()))


def write_json(path: str | Path, value: Any) -> Path:
    """Write ``value`` as indented JSON atomically; NaN and infinities are refused, since JSON has none."""
    return write_text(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


def read_json(path: str | Path) -> Any:
    """The content of a JSON file, UTF-8.

    Raises:
        OSError: If the file cannot be read.
        ValueError: If it is no JSON. NaN and infinities are none: :func:`write_json` writes no such thing, and every
            comparison with NaN is false, so that a check of what was read would miss it.
    """
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"), parse_constant=_refuse)
    except RecursionError as error:
        raise ValueError("it is nested deeper than any JSON that is meant") from error


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no JSON")


def not_writable(path: Path, error: OSError) -> InputError:
    """The error for an output folder, or a file in it, that cannot be written to."""
    return InputError(
        "output folder",
        "it must be a folder that can be written to",
        f"{path} ({error.strerror or error})",
        "Choose another folder (--out on the command line), free some space, or change its permissions.",
    )
