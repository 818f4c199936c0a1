"""Attributes with a separate value in each thread."""

from __future__ import annotations

import threading
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
