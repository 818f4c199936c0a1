"""Private temporary folders that are removed at the end."""

from __future__ import annotations

import os
import re
import signal
import stat
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from platform import node
from tempfile import gettempdir, mkdtemp
from typing import Any

from fedlas._core.check import InputError
from fedlas._core.files import lock_file, parse_json, remove, write_json

_PREFIX = "fedlas-table-"
_NAME = re.compile(_PREFIX + "[a-z0-9_]{8}")
"""Names of temporary folders, as :func:`tempfile.mkdtemp` makes them."""
_MARKER = ".fedlas-temporary.json"
"""File in each temporary folder that says which process made it; a folder without it is never removed as stale."""
_FORMAT = "fedlas.temporary/1"
_MAX_MARKER = 4096


@contextmanager
def private_folder() -> Iterator[Path]:
    """Yield a private temporary folder that is removed at the end, also after an error, SIGTERM or SIGHUP.

    It holds a file that says who made it. A process that is killed leaves its folder, which
    :func:`remove_stale_folders` removes.

    Raises:
        InputError: If there is no place for temporary files, or it is full.
    """
    place = Path(gettempdir())
    with _exit_on_signals():
        folder = Path(mkdtemp(prefix=_PREFIX, dir=place))
        handle = os.open(folder, os.O_RDONLY) if hasattr(os, "O_DIRECTORY") else None
        try:
            if handle is not None:
                lock_file(handle, wait=True)
            # Only now, since a folder with a marker and without a lock looks like one of a killed process.
            _write_marker(folder)
            yield folder
        finally:
            with suppress(InputError):
                remove(folder, inside=place)
            if handle is not None:
                os.close(handle)


def _write_marker(folder: Path) -> None:
    pid = os.getpid()
    marker = _marker_content(pid, _process_start(pid), folder.stat().st_ino)
    write_json(folder / _MARKER, marker).chmod(0o600)


def _marker_content(pid: int, start: str, folder: int) -> dict[str, Any]:
    """Return what a marker says: process, host, and the inode of its folder, so that a copy counts nowhere else."""
    return {"format": _FORMAT, "host": node(), "pid": pid, "start": start, "folder": folder}


def _process_start(pid: int) -> str:
    """Return when a process started, in clock ticks since boot; empty text where the system does not say."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except (OSError, ValueError, IndexError):
        return ""


def remove_stale_folders() -> None:
    """Remove the temporary folders that this user's ended processes left on this host.

    A folder is one of these if its name has the full pattern, the folder and its marker belong to the user alone, the
    marker names this folder and host and a process that has ended, and no process holds the lock. All else stays: in
    doubt a leftover is left.
    """
    place = Path(gettempdir())
    if not hasattr(os, "O_DIRECTORY"):
        return
    with suppress(OSError):
        for name in os.listdir(place):  # noqa: PTH208 - names are all that is needed
            if _NAME.fullmatch(name):
                _remove_if_stale(place / name)


def _remove_if_stale(folder: Path) -> None:
    with suppress(OSError, ValueError, InputError):
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        try:
            if _is_of_ended_process(handle) and lock_file(handle):
                remove(folder, inside=folder.parent)
        finally:
            os.close(handle)


def _is_of_ended_process(folder: int) -> bool:
    """Return whether the marker in an open folder says that a process of this user and host made it, which has ended.

    Raises:
        OSError: If the folder has no marker, or it cannot be read.
        ValueError: If the marker is not JSON.
    """
    about = os.fstat(folder)
    if about.st_uid != os.geteuid() or about.st_mode & 0o077:
        return False
    # A pipe would not return, and a link leads to a marker of another folder.
    marker = os.open(_MARKER, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=folder)
    with open(marker, "rb") as file:  # noqa: PTH123 - a number
        status = os.fstat(marker)
        if not (stat.S_ISREG(status.st_mode) and status.st_uid == about.st_uid) or (
            status.st_nlink != 1
        ):
            return False
        content = parse_json(file.read(_MAX_MARKER))
    pid = content.get("pid") if isinstance(content, dict) else None
    start = content.get("start") if isinstance(content, dict) else None
    if type(pid) is not int or not 0 < pid < 2**31 or not isinstance(start, str):
        return False
    return content == _marker_content(pid, start, about.st_ino) and not _is_running(pid, start)


def _is_running(pid: int, start: str) -> bool:
    """Return whether the process is running: one with its number is another if it started at another time."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass  # of another user, so that only its start can tell
    return not start or _process_start(pid) in ("", start)


@contextmanager
def _exit_on_signals() -> Iterator[None]:
    """Raise SystemExit on SIGTERM and SIGHUP within the context, so that cleanup code runs."""

    def leave(number: int, _: object) -> None:
        raise SystemExit(128 + number)

    is_main = threading.current_thread() is threading.main_thread()
    numbers = [
        number
        for number in (getattr(signal, name, None) for name in ("SIGTERM", "SIGHUP"))
        if is_main and number is not None and signal.getsignal(number) is signal.SIG_DFL
    ]
    for number in numbers:
        signal.signal(number, leave)
    try:
        yield
    finally:
        for number in numbers:
            signal.signal(number, signal.SIG_DFL)
