"""Separate values in each thread, changes of the process that threads share, and work on one thread of torch."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch


@contextmanager
def one_thread(elements: int) -> Iterator[None]:
    """Let torch work on one thread, if there are few ``elements``; the number of threads is then as before.

    Threads wait for one another after each operation. Where another process has a core, that takes ten times as long
    as the work, which one thread does as fast as two on arrays of this size.

    Args:
        elements: Numbers that an operation works on, such as ``N C`` logits.
    """
    threads = torch.get_num_threads()
    if elements > _MOST or threads == 1:
        yield
        return
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


_MOST = 2**22
"""Most elements for one thread; fits and replicates work on blocks of 2**18 of them."""


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
        self._change = change
        self._lock = threading.Lock()
        self._users = 0
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
