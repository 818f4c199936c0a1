"""Output to the terminal: lines, tables and progress. No other module of the package writes to it.

Text is shown literally: markup is not interpreted and control characters are escaped, so a name from a file cannot
control the terminal. In a distributed run only the main process prints.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence, Sized
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Self, TypeVar

from fedlas._core.collective import is_main_process
from fedlas._core.extras import require
from fedlas._core.output import Stream
from fedlas._core.text import printable

T = TypeVar("T")
Cell = str | Sequence[str | tuple[str, str]]
"""Cell of a table: one line of text, or parts of text, each with an optional style. Only parts may hold line breaks."""

_QUIET = 10.0
"""Seconds between two lines when the output is not a terminal."""


def console(*, stderr: bool = False) -> Any:
    """A ``rich.console.Console`` on standard output or error; only this module prints to it."""
    stream: Any = sys.stderr if stderr else sys.stdout
    file = stream if isinstance(stream, Stream) else Stream(stream)
    # Rich shows tables in a notebook by itself, past the file, so that no text could be made of them.
    options: dict[str, Any] = {"force_jupyter": False, "quiet": not is_main_process()}
    return require("rich.console", extra="bench").Console(file=file, stderr=stderr, **options)


def say(*lines: str, style: str | None = None, wrap: bool = False, stderr: bool = False, on: Any = None) -> None:
    """Print lines.

    Args:
        *lines: One line each; a line break within one is escaped.
        style: Style of all lines, such as ``"dim"``.
        wrap: Break long lines at words to the width of the terminal.
        stderr: Print to standard error.
        on: A ``rich.console.Console``; None makes one.
    """
    screen = console(stderr=stderr) if on is None else on
    for line in lines:
        screen.print(_text(line), style=style, soft_wrap=not wrap)


def show(renderable: Any) -> None:
    """Print a table."""
    console().print(renderable)


def table(
    heads: Sequence[str],
    rows: Iterable[Sequence[Cell]],
    *,
    title: str = "",
    caption: Iterable[str] = (),
    right: Collection[int] = (),
    whole: Collection[int] = (),
    line_after: Collection[int] = (),
    box: str | None = "SIMPLE_HEAD",
    **look: Any,
) -> Any:
    """A ``rich`` table, its title above and its caption below.

    Args:
        heads: Column heads.
        rows: Cells of each row.
        title: Title above the table.
        caption: Lines below the table.
        right: Numbers of right-aligned columns.
        whole: Numbers of columns whose cells are never wrapped.
        line_after: Numbers of rows with a line below.
        box: Name of a box in ``rich.box``; None draws no lines.
        **look: Further options of ``rich.table.Table``.
    """
    style = None if box is None else getattr(require("rich.box", extra="bench"), box)
    grid = require("rich.table", extra="bench").Table(box=style, **look)
    for number, head in enumerate(heads):
        grid.add_column(
            _text(head),
            justify="right" if number in right else "left",
            no_wrap=number in whole,
            overflow="ellipsis" if number in whole else "fold",
        )
    for number, row in enumerate(rows):
        grid.add_row(*map(_text, row), end_section=number in line_after)
    # Title and caption as wide as the terminal: a narrow table would wrap them to its own width.
    above, below = [_text(title, "bold")] if title else [], [_text(line, "dim") for line in caption]
    return require("rich.console", extra="bench").Group(*above, grid, *below)


def _text(cell: Cell, style: str = "") -> Any:
    """``rich.text.Text``, which holds no markup."""
    text = require("rich.text", extra="bench").Text
    if isinstance(cell, str):
        return text(printable(cell), style=style)
    parts = [(part, "") if isinstance(part, str) else part for part in cell]
    lines = [("\n".join(map(printable, part.split("\n"))), its_style) for part, its_style in parts]
    return text.assemble(*lines, style=style)


class Bar:
    """Progress bar with the remaining time, on one line of the terminal. A context manager.

    Args:
        label: Text in front of the bar.
        total: Number of steps; None if it is not known yet.
        done: Steps that are done already.
        on: A ``rich.console.Console``; None makes one on standard error.
        quiet: Show nothing.

    Attributes:
        console: Where the bar is shown.
        live: Whether it is shown: only on a terminal, and only by the main process.
    """

    def __init__(self, label: str, *, total: int | None, done: int = 0, on: Any = None, quiet: bool = False) -> None:
        rich = require("rich.progress", extra="bench")
        self.console = console(stderr=True) if on is None else on
        self.live = bool(self.console.is_terminal) and not quiet and is_main_process()
        self.progress = rich.Progress(
            rich.TextColumn("{task.description}", style="bold", markup=False),
            rich.BarColumn(bar_width=24),
            rich.TextColumn("{task.fields[text]}", markup=False),
            rich.TimeRemainingColumn(elapsed_when_finished=True, compact=True),
            console=self.console,
            transient=True,
            disable=not self.live,
        )
        self._task = self.progress.add_task(printable(label), total=total, completed=done, text="")

    def __enter__(self) -> Self:
        self.progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.progress.stop()

    def update(
        self,
        *,
        done: float | None = None,
        total: float | None = None,
        label: str | None = None,
        text: str | None = None,
    ) -> None:
        """Change the steps done, the number of steps, the label or the text behind the bar; None keeps a value."""
        fields = {} if text is None else {"text": printable(text)}
        description = None if label is None else printable(label)
        self.progress.update(self._task, completed=done, total=total, description=description, **fields)

    def advance(self, steps: float = 1) -> None:
        """Count further steps as done."""
        self.progress.advance(self._task, steps)


def track(items: Iterable[T], label: str, *, total: int | None = None, on: Any = None) -> Iterator[T]:
    """Yield the items while a :class:`Bar` shows how many are left.

    Args:
        items: Any iterable.
        label: Text in front of the bar.
        total: Their number; None uses ``len(items)`` if there is one.
        on: A ``rich.console.Console``; None makes one on standard error.
    """
    # A generator has no length: its bar shows no remaining time.
    if total is None and isinstance(items, Sized):
        total = len(items)
    with Bar(label, total=total, on=on) as bar:
        for item in items:
            yield item
            bar.advance()


@contextmanager
def status(on: Any = None) -> Iterator[Callable[[str], None]]:
    """Give a function that shows a line of text: in place on a terminal, elsewhere at most every ten seconds.

    Args:
        on: A ``rich.console.Console``; None makes one on standard error.
    """
    screen = console(stderr=True) if on is None else on
    shown = time.monotonic()

    def line(text: str) -> None:
        nonlocal shown
        if time.monotonic() - shown > _QUIET:
            say(text, on=screen)
            shown = time.monotonic()

    # In a file or a log, lines that replace each other would pile up.
    if not screen.is_terminal:
        yield line
        return
    with screen.status("") as spinner:
        yield lambda text: spinner.update(_text(text))
