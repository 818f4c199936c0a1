"""Threads: how many there are to compute with, and attributes with a separate value in each."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from fedlas._core.extras import require


def available_cores() -> int:
    """Return how many cores this process may use, by its affinity and the limit of its container."""
    return int(require("joblib", extra="bench").cpu_count())


@contextmanager
def limited_to(threads: int | None) -> Iterator[None]:
    """Compute with ``threads`` threads of PyTorch and of NumPy's linear algebra; None changes nothing."""
    if threads is None:
        yield
        return
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with require("threadpoolctl", extra="bench").threadpool_limits(threads, user_api="blas"):
            yield
    finally:
        torch.set_num_threads(before)


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
