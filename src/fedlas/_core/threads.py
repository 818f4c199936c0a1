"""Attributes that every thread has for itself."""

from __future__ import annotations

import threading
from typing import Any


class OfThread(threading.local):
    """Base of objects whose attributes belong to the thread that sets them.

    A subclass gives each attribute the value that a thread begins with, as a class attribute. ``copy.deepcopy`` and
    pickling make a new object, which no thread has set anything of.

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
