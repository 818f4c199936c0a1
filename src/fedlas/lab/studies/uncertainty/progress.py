"""Progress of a method that takes long: a bar on a terminal, nothing elsewhere."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sized
from typing import Any, TypeVar

from fedlas._core.extras import require
from fedlas._core.ranks import is_main_process

T = TypeVar("T")


def track(items: Iterable[T], what: str, *, total: int | None = None, console: Any = None) -> Iterator[T]:
    """The same items, while a bar on standard error shows how many are left and for how long.

    Args:
        items: Passed on one by one.
        what: What is done, shown in front of the bar.
        total: Their number; None asks ``len(items)``, if it has one.
        console: A ``rich.console.Console``; None makes one on standard error.
    """
    console = console or require("rich.console", extra="bench").Console(stderr=True)
    if total is None and isinstance(items, Sized):
        total = len(items)
    yield from require("rich.progress", extra="bench").track(
        items,
        what,
        total=total,
        console=console,
        transient=True,
        disable=not console.is_terminal or not is_main_process(),
    )
