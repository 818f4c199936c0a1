"""Private temporary folders that are removed at the end."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import gettempdir, mkdtemp

from fedlas._core.check import InputError
from fedlas._core.files import lock_file, remove

_PREFIX = "fedlas-table-"
"""Beginning of the names of temporary folders, which only :func:`private_folder` makes."""


@contextmanager
def private_folder() -> Iterator[Path]:
    """Yield a private temporary folder that is removed at the end, also after an error, SIGTERM or SIGHUP.

    A process that is killed leaves its folder, which :func:`remove_stale_folders` removes.
    """
    place = Path(gettempdir())
    with _exit_on_signals():
        while True:
            folder = Path(mkdtemp(prefix=_PREFIX, dir=place))
            handle = os.open(folder, os.O_RDONLY) if hasattr(os, "O_DIRECTORY") else None
            # Another process may have taken it for a stale one before it was locked.
            if handle is None:
                break
            lock_file(handle, wait=True)
            if os.path.lexists(folder):
                break
            os.close(handle)
        try:
            yield folder
        finally:
            with suppress(InputError):
                remove(folder, inside=place)
            if handle is not None:
                os.close(handle)


def remove_stale_folders() -> None:
    """Remove this user's temporary folders that no running process has locked."""
    place = Path(gettempdir())
    if not hasattr(os, "O_DIRECTORY"):
        return
    with suppress(OSError):
        for name in os.listdir(place):  # noqa: PTH208 - names are all that is needed
            if name.startswith(_PREFIX):
                _remove_if_stale(place / name)


def _remove_if_stale(folder: Path) -> None:
    with suppress(OSError, InputError):
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        try:
            if os.fstat(handle).st_uid == os.geteuid() and lock_file(handle):
                remove(folder, inside=folder.parent)
        finally:
            os.close(handle)


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
