"""Output to the terminal: lines, tables and progress. No other module of the package writes to it.

Text is shown literally: markup is not interpreted and control characters are escaped, so a name from a file cannot
control the terminal. In a distributed run only the main process prints. A full disk, a closed pipe or a narrow encoding
does not end the work.
"""

from __future__ import annotations

import os
import shutil
import sys
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence, Sized
from contextlib import ExitStack, contextmanager, suppress
from functools import cache
from io import StringIO
from typing import IO, Any, Self, TypeVar

from fedlas._core.errors import InputError
from fedlas._core.extras import MissingExtraError, require
from fedlas._core.text import printable

T = TypeVar("T")
Cell = str | Sequence[str | tuple[str, str]]
"""Cell of a table: one line of text, or parts of text, each with an optional style. Only parts may hold line breaks."""

_QUIET = 10.0
"""Seconds between two lines when the output is not a terminal."""


def is_main_process() -> bool:
    """Return whether this process prints and reports: ``accelerate launch`` and ``torchrun`` set its ``RANK``."""
    return os.environ.get("RANK", "0") == "0"


class LostOutputError(Exception):
    """Nothing more can be shown, and there is nothing else to do."""


class Stream:
    """A text stream that takes everything: it escapes other encodings' characters, and drops all after an error.

    Args:
        stream: Standard output or error; None if that is closed.
        keep_going: Drop what cannot be written, since the work has other results; else raise :class:`LostOutputError`.
        of_workflow: A runner of GitHub Actions reads it: what it would take for its commands is escaped.

    Attributes:
        error: The first error of the system; None if there was none.
    """

    def __init__(self, stream: Any, *, keep_going: bool = True, of_workflow: bool = False) -> None:
        self._stream = stream
        self._keep_going = keep_going
        self._of_workflow = of_workflow
        self._begins_line = True
        # closed, or of a notebook, which takes any character
        with suppress(AttributeError, OSError, ValueError):
            stream.reconfigure(errors="backslashreplace")
        self.error: OSError | None = None
        # rich asks for these again and again
        self.encoding = getattr(stream, "encoding", None)
        self.isatty = getattr(stream, "isatty", bool)
        self.rich_proxied_file = self

    def write(self, text: str) -> int:
        """Write ``text``."""
        self._try("write", self._without_commands(text) if self._of_workflow else text)
        return len(text)

    @property
    def is_closed(self) -> bool:
        """Whether nothing that is written goes anywhere."""
        return self._stream is None

    def command(self, line: str) -> None:
        """Write a line that a runner is meant to take for a command."""
        self._try("write", f"{line}\n")

    def _without_commands(self, text: str) -> str:
        """Escape ``::`` at the start of a line, and ``##[`` anywhere, as JSON does: the runner reads neither then."""
        lines = text.split("\n")
        for number, line in enumerate(lines):
            begins = number > 0 or self._begins_line
            if begins and line.lstrip().startswith("::"):
                line = line.replace("::", r"\u003a:", 1)
            lines[number] = line.replace("##[", r"#\u0023[")
        self._begins_line = lines[-1] == ""
        return "\n".join(lines)

    def flush(self) -> None:
        """Write the buffered text."""
        self._try("flush")

    def _try(self, method: str, *arguments: str) -> None:
        try:
            if self._stream is not None:
                getattr(self._stream, method)(*arguments)
        except OSError as error:
            self.error = self.error or error
            drop_output(self._stream)
            if not self._keep_going:
                raise LostOutputError from error

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextmanager
def standard_streams(*, keep_going: bool, of_workflow: bool = False) -> Iterator[Stream]:
    """Replace standard output and error by a :class:`Stream` each, and give that of the output.

    Args:
        keep_going: As for :class:`Stream`, for the output; text that standard error cannot take is always dropped.
        of_workflow: As for :class:`Stream`, for both.
    """
    # A file that is opened while one of the numbers 0 to 2 is free would get that number, and the printed text.
    while (number := os.open(os.devnull, os.O_RDWR)) < 3:
        pass
    os.close(number)
    before = sys.stdout, sys.stderr
    output = Stream(sys.stdout, keep_going=keep_going, of_workflow=of_workflow)
    streams: Any = output, Stream(sys.stderr, of_workflow=of_workflow)
    sys.stdout, sys.stderr = streams
    try:
        yield output
    finally:
        sys.stdout, sys.stderr = before


def standard_input() -> IO[bytes]:
    """Return the bytes of standard input.

    Raises:
        InputError: If it is closed.
    """
    if sys.stdin is None:
        raise InputError(
            "standard input must be open", "a closed one", "Name a file in place of -."
        )
    return sys.stdin.buffer


def copy_to_output(file: IO[bytes]) -> None:
    """Write a file to standard output.

    Raises:
        InputError: If it is closed.
        LostOutputError: If its reader has ended, such as ``head``.
    """
    stream: Any = sys.stdout
    if stream is None or (isinstance(stream, Stream) and stream.is_closed):
        raise InputError("standard output must be open", "a closed one", "Name a file by --out.")
    try:
        shutil.copyfileobj(file, stream.buffer, 1 << 20)
        stream.buffer.flush()
    except BrokenPipeError as error:
        drop_output(stream)
        raise LostOutputError from error


def drop_output(stream: Any) -> None:
    """Send what a stream still holds nowhere: Python writes it when it ends, and would fail again."""
    with suppress(OSError, ValueError, AttributeError), open(os.devnull, "wb") as nowhere:  # noqa: PTH123
        os.dup2(nowhere.fileno(), stream.fileno())


@cache
def _rich(module: str) -> Any:
    return require(f"rich.{module}", extra="bench")


def console(*, stderr: bool = False, text: StringIO | None = None) -> Any:
    """Return a ``rich.console.Console`` on standard output, error or ``text``; only this module prints to it."""
    stream: Any = sys.stderr if stderr else sys.stdout
    file: Any = (
        text if text is not None else stream if isinstance(stream, Stream) else Stream(stream)
    )
    # Rich shows tables in a notebook by itself, past the file, so that no text could be made of them.
    options: dict[str, Any] = {
        "force_jupyter": False,
        "quiet": text is None and not is_main_process(),
    }
    return _rich("console").Console(file=file, stderr=stderr, **options)


def say(
    *lines: str, style: str | None = None, wrap: bool = False, stderr: bool = False, on: Any = None
) -> None:
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


def say_commands(*lines: str, stderr: bool = False) -> None:
    """Print lines that a runner of GitHub Actions takes for commands; their values are escaped already."""
    stream: Any = sys.stderr if stderr else sys.stdout
    for line in lines:
        (stream if isinstance(stream, Stream) else Stream(stream)).command(line)


def show(renderable: Any, *, on: Any = None) -> None:
    """Print a table, by default on a new ``rich.console.Console``."""
    (console() if on is None else on).print(renderable)


def table(
    heads: Sequence[str],
    rows: Iterable[Sequence[Cell]],
    *,
    title: str = "",
    caption: Iterable[str] = (),
    right: Collection[int] = (),
    whole: Collection[int] = (),
    box: str | None = "SIMPLE_HEAD",
    **look: Any,
) -> Any:
    """Return a ``rich`` table, its title above and its caption below.

    Args:
        heads: Column heads.
        rows: Cells of each row.
        title: Title above the table.
        caption: Lines below the table.
        right: Numbers of right-aligned columns.
        whole: Numbers of columns whose cells are never wrapped.
        box: Name of a box in ``rich.box``; None draws no lines.
        **look: Further options of ``rich.table.Table``.
    """
    style = None if box is None else getattr(_rich("box"), box)
    grid = _rich("table").Table(box=style, **look)
    for number, head in enumerate(heads):
        grid.add_column(
            _text(head),
            justify="right" if number in right else "left",
            no_wrap=number in whole,
            overflow="ellipsis" if number in whole else "fold",
        )
    for row in rows:
        grid.add_row(*map(_text, row))
    # Title and caption as wide as the terminal: a narrow table would wrap them to its own width.
    above = [_text(title, "bold")] if title else []
    below = [_text(line, "dim") for line in caption]
    return _rich("console").Group(*above, grid, *below)


def _text(cell: Cell, style: str = "") -> Any:
    """Return a cell as ``rich.text.Text``, which holds no markup."""
    text = _rich("text").Text
    if isinstance(cell, str):
        return text(printable(cell), style=style)
    parts = [(part, "") if isinstance(part, str) else part for part in cell]
    safe = [(part if part.isprintable() else printable(part, "\n"), look) for part, look in parts]
    return text.assemble(*safe, style=style)


class Bar:
    """Progress bar with the remaining time, on one line of the terminal. A context manager.

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
        on: Any = None,
        quiet: bool = False,
        after: float = 0.0,
    ) -> None:
        rich = _rich("progress")
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
            return table() if (task.elapsed or 0.0) >= after else ()

        self.progress.get_renderables = late_table

    def __enter__(self) -> Self:
        self.progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.progress.stop()

    def update(
        self, *, done: float | None = None, total: float | None = None, **texts: str
    ) -> None:
        """Change the number of steps done, of all steps, the ``label`` before the bar or the ``text`` behind it."""
        fields = {
            {"label": "description"}.get(name, name): printable(text)
            for name, text in texts.items()
        }
        self.progress.update(self._task, completed=done, total=total, **fields)

    def advance(self, steps: float = 1) -> None:
        """Count further steps as done."""
        self.progress.advance(self._task, steps)


def track(items: Iterable[T], label: str, *, on: Any = None) -> Iterator[T]:
    """Yield the items while a :class:`Bar` shows how many remain.

    Args:
        items: Any iterable; the bar shows the remaining time if it has a length.
        label: Text in front of the bar.
        on: A ``rich.console.Console``; None makes one on standard error.
    """
    with Bar(label, total=len(items) if isinstance(items, Sized) else None, on=on) as bar:
        for item in items:
            yield item
            bar.advance()


@contextmanager
def steps(label: str, total: int, *, on: Any = None) -> Iterator[Callable[[str, float], None]]:
    """Give a function ``advance(name, steps)`` that shows how much is done.

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
        write = _notebook_line(stack) if on is None else None
        if write is None and (stream.isatty() if on is None else on.is_terminal):
            with suppress(MissingExtraError):  # without rich there are lines
                bar = stack.enter_context(Bar(label, total=total, on=on, quiet=not total))
        write = write or (lambda text: Stream(stream).write(f"{text}\n"))
        done = 0.0
        shown = time.monotonic()

        def advance(name: str, number: float) -> None:
            nonlocal done, shown
            done += number
            if bar is not None:
                bar.advance(number)
                bar.update(text=name)
            elif time.monotonic() - shown > _QUIET and is_main_process():
                shown = time.monotonic()
                write(printable(f"{label}: {done / max(total, 1):.0%}, {name}"))

        yield advance


@contextmanager
def passing_lines() -> Iterator[Any]:
    """Give a console whose last line a notebook shows while the cell runs, and does not save; None elsewhere."""
    with ExitStack() as stack:
        write = _notebook_line(stack)
        yield None if write is None else console(text=_Line(write))


class _Line(StringIO):
    """Text of which the last line is shown."""

    def __init__(self, show: Callable[[str], Any]) -> None:
        super().__init__()
        self._show = show

    def write(self, text: str) -> int:
        if text.strip():
            self._show(text.rstrip("\n"))
        return len(text)


def _notebook_line(stack: ExitStack) -> Callable[[str], Any] | None:
    """Return a function that shows a line below a notebook's cell until the stack closes; None outside of one."""
    ipython = sys.modules.get("IPython")
    if ipython is None or not hasattr(ipython.get_ipython(), "kernel"):
        return None
    handle = ipython.display.display({"text/plain": ""}, raw=True, display_id=True)

    def show(text: str) -> None:
        handle.update({"text/plain": text}, raw=True)

    stack.callback(show, "")
    return show


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
    if screen.is_terminal:
        with screen.status("") as spinner:
            yield lambda text: spinner.update(_text(text))
    else:
        yield line
