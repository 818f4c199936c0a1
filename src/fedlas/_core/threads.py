"""Attributes with a separate value in each thread, and changes of the process that threads share."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any


class OfThread(threading.local):
    """Base of objects whose attributes have a separate value in each thread.

    A subclass gives each attribute its initial value as a class attribute. ``copy.deepcopy`` and pickling make a new
    object with the initial values.

    Example:
        >>> class Seen(OfThread):
        ...     number = 0
        >>> seen = Seen()
        >>> other = threading.Thread(target=setattr, args=(seen, "number", 2))
        >>> other.start()
        >>> other.join()
        >>> seen.number
        0
    """

    def __reduce__(self) -> tuple[type[Any], tuple[()]]:
        return type(self), ()


class Shared:
    """A change of the whole process for a while: the first thread makes it, and the last one takes it back.

    Args:
        change: Makes the context manager that changes the process and restores it.

    Example:
        >>> no_warnings = Shared(lambda: warnings.catch_warnings(action="ignore"))
        >>> with no_warnings:
        ...     warnings.warn("not shown")
    """

    def __init__(self, change: Callable[[], AbstractContextManager[object]]) -> None:
        self._change, self._lock, self._users = change, threading.Lock(), 0
        self._active: AbstractContextManager[object] = change()

    def __enter__(self) -> None:
        with self._lock:
            if self._users == 0:
                self._active = self._change()
                self._active.__enter__()
            self._users += 1

    def __exit__(self, *error: object) -> None:
        with self._lock:
            self._users -= 1
            if self._users == 0:
                self._active.__exit__(None, None, None)


no_warnings = Shared(lambda: warnings.catch_warnings(action="ignore"))
"""Hides the warnings of other packages, which a user of this one cannot act on."""
