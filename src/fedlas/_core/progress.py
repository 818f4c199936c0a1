"""Progress bars and status lines; in a log file, one line every ten seconds."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sized
from contextlib import ExitStack, contextmanager, suppress
from io import StringIO
from typing import Any, Self, TypeVar

from fedlas._core.extras import MissingExtraError
from fedlas._core.terminal import (
    Console,
    SafeStream,
    console,
    is_main_process,
    print_lines,
    rich_module,
    to_rich_text,
)
from fedlas._core.text import printable

T = TypeVar("T")
_LOG_INTERVAL = 10.0
"""Seconds between two lines when the output is not a terminal."""


class ProgressBar:
    """Context manager that shows a progress bar with the remaining time on one line of the terminal.

    Args:
        label: Text in front of the bar.
        total: Number of steps; None if it is not known yet.
        done: Steps that are done already.
        on: A ``rich.console.Console``; None makes one on standard error.
        quiet: Show nothing.
        after: Show nothing in the first seconds, which short work does not take.

    Attributes:
        console: Where the bar is shown.
        live: Whether it is shown: only on a terminal, and only by the main process.
    """

    def __init__(
        self,
        label: str,
        *,
        total: int | None,
        done: int = 0,
        on: Console | None = None,
        quiet: bool = False,
        delay: float = 0.0,
    ) -> None:
        rich = rich_module("progress")
        self.console = console(stderr=True) if on is None else on
        self.live = bool(self.console.is_terminal) and not quiet and is_main_process()
        self.progress = rich.Progress(
            rich.TextColumn("{task.description}", style="bold", markup=False),
            rich.BarColumn(bar_width=24),
            rich.TextColumn("{task.fields[text]}", markup=False),
            rich.TimeRemainingColumn(elapsed_when_finished=True, compact=True)
            if total is not None
            else rich.TimeElapsedColumn(),
            console=self.console,
            transient=True,
            disable=not self.live,
        )
        self._task = self.progress.add_task(printable(label), total=total, completed=done, text="")
        (task,) = self.progress.tasks
        table = self.progress.get_renderables

        def late_table() -> Iterable[Any]:
            return table() if (task.elapsed or 0.0) >= delay else ()

        self.progress.get_renderables = late_table

    def __enter__(self) -> Self:
        self.progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.progress.stop()

    def update(
        self, *, done: float | None = None, total: float | None = None, **texts: str
    ) -> None:
        """Set the steps done, the total, the ``label`` before the bar or the ``text`` after it."""
        fields = {
            {"label": "description"}.get(name, name): printable(text)
            for name, text in texts.items()
        }
        self.progress.update(self._task, completed=done, total=total, **fields)

    def advance(self, steps: float = 1) -> None:
        """Advance the bar by a number of steps."""
        self.progress.advance(self._task, steps)


def track(items: Iterable[T], label: str, *, on: Console | None = None) -> Iterator[T]:
    """Yield the items and show their progress in a :class:`ProgressBar`.

    Args:
        items: Any iterable; the bar shows the remaining time if it has a length.
        label: Text in front of the bar.
        on: A ``rich.console.Console``; None makes one on standard error.
    """
    with ProgressBar(label, total=len(items) if isinstance(items, Sized) else None, on=on) as bar:
        for item in items:
            yield item
            bar.advance()


@contextmanager
def show_progress(
    label: str, total: int, *, on: Console | None = None
) -> Iterator[Callable[[str, float], None]]:
    """Yield a function ``advance(name, show_progress)`` that updates a progress bar, or a log line every ten seconds.

    It moves a bar on a terminal, and elsewhere writes a line every ten seconds. A notebook shows that line while the
    cell runs, and saves none.

    Args:
        label: Text in front of the bar or in the line.
        total: Steps in all, which can be taken in parts; nothing is shown of 0.
        on: A ``rich.console.Console``; None takes standard error.
    """
    stream: Any = sys.stderr if on is None else on.file
    with ExitStack() as stack:
        bar = None
        write = _open_notebook_line(stack) if on is None else None
        if write is None and (stream.isatty() if on is None else on.is_terminal):
            with suppress(MissingExtraError):  # without rich there are lines
                bar = stack.enter_context(ProgressBar(label, total=total, on=on, quiet=not total))
        write = write or (lambda text: SafeStream(stream).write(f"{text}\n"))
        done = 0.0
        shown = time.monotonic()

        def advance(name: str, number: float) -> None:
            nonlocal done, shown
            done += number
            if bar is not None:
                bar.advance(number)
                bar.update(text=name)
            elif time.monotonic() - shown > _LOG_INTERVAL and is_main_process():
                shown = time.monotonic()
                write(printable(f"{label}: {done / max(total, 1):.0%}, {name}"))

        yield advance


@contextmanager
def transient_console() -> Iterator[Any]:
    """Yield a console whose last line a notebook shows until the cell ends, or None outside of a notebook."""
    with ExitStack() as stack:
        write = _open_notebook_line(stack)
        yield None if write is None else console(text=_LastLine(write))


class _LastLine(StringIO):
    """Text stream that passes each line to a function, which shows it in place of the previous one."""

    def __init__(self, show: Callable[[str], Any]) -> None:
        super().__init__()
        self._show = show

    def write(self, text: str) -> int:
        if text.strip():
            self._show(text.rstrip("\n"))
        return len(text)


def _open_notebook_line(stack: ExitStack) -> Callable[[str], Any] | None:
    """Return a function that shows a line below a notebook's cell until ``stack`` closes; None elsewhere."""
    ipython = sys.modules.get("IPython")
    if ipython is None or not hasattr(ipython.get_ipython(), "kernel"):
        return None
    handle = ipython.display.display({"text/plain": ""}, raw=True, display_id=True)

    def show(text: str) -> None:
        handle.update({"text/plain": text}, raw=True)

    stack.callback(show, "")
    return show


@contextmanager
def show_status(on: Console | None = None) -> Iterator[Callable[[str], None]]:
    """Yield a function that shows a status line: in place on a terminal, elsewhere at most every ten seconds.

    Args:
        on: A ``rich.console.Console``; None makes one on standard error.
    """
    screen = console(stderr=True) if on is None else on
    shown = time.monotonic()

    def line(text: str) -> None:
        nonlocal shown
        if time.monotonic() - shown > _LOG_INTERVAL:
            print_lines(text, on=screen)
            shown = time.monotonic()

    # In a file or a log, lines that replace each other would pile up.
    if screen.is_terminal:
        with screen.status("") as spinner:
            yield lambda text: spinner.update(to_rich_text(text))
    else:
        yield line
