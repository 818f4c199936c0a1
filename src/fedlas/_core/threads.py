"""Thread-local objects, context managers shared by threads, and a single thread for BLAS and torch."""

from __future__ import annotations

import functools
import math
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")


@contextmanager
def single_thread_if_small(num_elements: int) -> Iterator[None]:
    """Limit BLAS and torch to a single thread within the context if there are at most 2**22 ``num_elements``.

    Threads wait for one another after each operation. Where another process has a core, that takes ten times as long
    as the work, which one thread does as fast as two on arrays of this size.

    Args:
        num_elements: Numbers that an operation works on, such as ``N C`` logits.
    """
    if num_elements > _MAX_ELEMENTS:
        yield
        return
    with _single_blas_thread, _single_torch_thread():
        yield


@contextmanager
def _single_torch_thread() -> Iterator[None]:
    """Limit torch to a single thread within the context, if it is loaded."""
    torch = sys.modules.get("torch")
    threads = 1 if torch is None else torch.get_num_threads()
    if torch is None or threads == 1:
        yield
        return
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


@contextmanager
def _limited_blas() -> Iterator[None]:
    # SciPy brings a BLAS of its own, which is loaded with its first part that uses it.
    has_scipy = "scipy.linalg" in sys.modules or "scipy.special" in sys.modules
    with _blas_libraries(has_scipy).limit(limits=1, user_api="blas"):
        yield


@functools.lru_cache(maxsize=2)
def _blas_libraries(_has_scipy: bool) -> Any:
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController()


def run_single_threaded(function: Callable[P, R]) -> Callable[P, R]:
    """Decorate a function so that it runs in :func:`single_thread_if_small` if its arguments are small."""

    @functools.wraps(function)
    def run(*args: P.args, **options: P.kwargs) -> R:
        sizes = [0]
        for value in (*args, *options.values()):
            if hasattr(value, "num_samples"):
                sizes.append(value.num_samples * getattr(value, "num_classes", 2))
            else:
                shape = getattr(value, "shape", ())
                # a nested tensor has lengths that are no numbers
                has_sizes = isinstance(shape, tuple) and not getattr(value, "is_nested", False)
                sizes.append(math.prod(shape) if has_sizes else 0)
        with single_thread_if_small(max(sizes)):
            return function(*args, **options)

    return run


_MAX_ELEMENTS = 2**22
"""Most elements for one thread; fits and replicates work on blocks of 2**18 of them."""


class ThreadLocal(threading.local):
    """Base class of objects whose attributes have a separate value in each thread.

    A subclass gives each attribute its initial value as a class attribute. ``copy.deepcopy`` and pickling make a new
    object with the initial values.

    Example:
        >>> class Seen(ThreadLocal):
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


class SharedContext:
    """Context manager around a process-wide change that threads share: the first enters it, the last restores it.

    Args:
        change: Makes the context manager that changes the process and restores it.

    Example:
        >>> ignore_warnings = SharedContext(lambda: warnings.catch_warnings(action="ignore"))
        >>> with ignore_warnings:
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


ignore_warnings = SharedContext(lambda: warnings.catch_warnings(action="ignore"))
"""Hides the warnings of other packages, which a user of this one cannot act on."""

_single_blas_thread = SharedContext(_limited_blas)
"""Limits the threads of NumPy's and SciPy's BLAS, which belong to the process."""
