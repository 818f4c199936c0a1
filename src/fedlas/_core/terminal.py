"""Output to the terminal: lines and tables. Beside :mod:`fedlas._core.progress` no other module writes to it.

Text is shown literally: markup is not interpreted and control characters are escaped, so a name from a file cannot
control the terminal. In a distributed run only the main process prints. A full disk, a closed pipe or a narrow encoding
does not end the work.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from importlib import import_module
from io import StringIO
from typing import IO, TYPE_CHECKING, Any

from fedlas._core.errors import InputError
from fedlas._core.text import printable

if TYPE_CHECKING:
    from rich.console import Console as Console
else:
    Console = Any

Cell = str | Sequence[str | tuple[str, str]]
"""Cell of a table: one line of text, or parts of text, each with an optional style. Only parts may hold line breaks."""


def is_main_process() -> bool:
    """Return whether this process prints and reports: ``accelerate launch`` and ``torchrun`` set its ``RANK``."""
    return os.environ.get("RANK", "0") == "0"


class LostOutputError(Exception):
    """Standard output cannot be written any more, and the command has no other result."""


class SafeStream:
    """Text stream that never fails: unencodable characters are escaped, and output after a write error is dropped.

    Args:
        stream: Standard output or error; None if that is closed.
        keep_going: Drop what cannot be written, since the work has other results; else raise :class:`LostOutputError`.
        of_workflow: A runner of GitHub Actions reads it: what it would take for its commands is escaped.

    Attributes:
        error: The first error of the system; None if there was none.
    """

    def __init__(self, stream: Any, *, keep_going: bool = True, in_workflow: bool = False) -> None:
        self._stream = stream
        self._keep_going = keep_going
        self._in_workflow = in_workflow
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
        self._call_stream("write", self._escape_commands(text) if self._in_workflow else text)
        return len(text)

    @property
    def is_closed(self) -> bool:
        """Whether the stream is closed, so that all output is dropped."""
        return self._stream is None

    def write_command(self, line: str) -> None:
        """Write a workflow command line unescaped, for the GitHub Actions runner."""
        self._call_stream("write", f"{line}\n")

    def _escape_commands(self, text: str) -> str:
        """Return text with workflow commands escaped: ``::`` at line starts, and ``##[`` anywhere."""
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
        self._call_stream("flush")

    def _call_stream(self, method: str, *arguments: str) -> None:
        try:
            if self._stream is not None:
                getattr(self._stream, method)(*arguments)
        except OSError as error:
            self.error = self.error or error
            discard_output(self._stream)
            if not self._keep_going:
                raise LostOutputError from error

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextmanager
def replace_standard_streams(
    *, keep_going: bool, in_workflow: bool = False
) -> Iterator[SafeStream]:
    """Replace standard output and error by :class:`SafeStream` objects, and yield the one for standard output.

    Args:
        keep_going: As for :class:`SafeStream`, for the output; text that standard error cannot take is always dropped.
        in_workflow: As for :class:`SafeStream`, for both.
    """
    # A file that is opened while one of the numbers 0 to 2 is free would get that number, and the printed text.
    while (number := os.open(os.devnull, os.O_RDWR)) < 3:
        pass
    os.close(number)
    before = sys.stdout, sys.stderr
    output = SafeStream(sys.stdout, keep_going=keep_going, in_workflow=in_workflow)
    streams: Any = output, SafeStream(sys.stderr, in_workflow=in_workflow)
    sys.stdout, sys.stderr = streams
    try:
        yield output
    finally:
        sys.stdout, sys.stderr = before


def standard_input() -> IO[bytes]:
    """Return standard input as a binary stream.

    Raises:
        InputError: If it is closed.
    """
    if sys.stdin is None:
        raise InputError(
            "standard input must be open", "a closed stream", "Name a file instead of -."
        )
    return sys.stdin.buffer


def copy_to_output(file: IO[bytes]) -> None:
    """Copy an open binary file to standard output.

    Raises:
        InputError: If it is closed.
        LostOutputError: If its reader has ended, such as ``head``.
    """
    stream: Any = sys.stdout
    if stream is None or (isinstance(stream, SafeStream) and stream.is_closed):
        raise InputError(
            "standard output must be open", "a closed stream", "Name a file with --out."
        )
    try:
        shutil.copyfileobj(file, stream.buffer, 1 << 20)
        stream.buffer.flush()
    except BrokenPipeError as error:
        discard_output(stream)
        raise LostOutputError from error


def discard_output(stream: Any) -> None:
    """Redirect a stream to the null device, so that flushing its buffer at exit does not fail again."""
    with suppress(OSError, ValueError, AttributeError), open(os.devnull, "wb") as nowhere:  # noqa: PTH123 - a device
        os.dup2(nowhere.fileno(), stream.fileno())


@cache
def rich_module(module: str) -> Any:
    """Import and return a submodule of rich."""
    return import_module(f"rich.{module}")


def console(*, stderr: bool = False, text: StringIO | None = None) -> Any:
    """Return a ``rich.console.Console`` that writes to standard output, standard error or ``text``."""
    stream: Any = sys.stderr if stderr else sys.stdout
    file: Any = (
        text
        if text is not None
        else stream
        if isinstance(stream, SafeStream)
        else SafeStream(stream)
    )
    # Rich shows tables in a notebook by itself, past the file, so that no text could be made of them.
    options: dict[str, Any] = {
        "force_jupyter": False,
        "quiet": text is None and not is_main_process(),
    }
    return rich_module("console").Console(file=file, stderr=stderr, **options)


def print_lines(
    *lines: str,
    style: str | None = None,
    wrap: bool = False,
    stderr: bool = False,
    on: Console | None = None,
) -> None:
    """Print lines of plain text.

    Args:
        *lines: One line each; a line break within one is escaped.
        style: Style of all lines, such as ``"dim"``.
        wrap: Break long lines at words to the width of the terminal.
        stderr: Print to standard error.
        on: A ``rich.console.Console``; None makes one.
    """
    screen = console(stderr=stderr) if on is None else on
    for line in lines:
        screen.print(to_rich_text(line), style=style, soft_wrap=not wrap)


def print_workflow_commands(*lines: str, stderr: bool = False) -> None:
    """Print workflow commands for the GitHub Actions runner; their values must be escaped already."""
    stream: Any = sys.stderr if stderr else sys.stdout
    for line in lines:
        (stream if isinstance(stream, SafeStream) else SafeStream(stream)).write_command(line)


def print_renderable(renderable: Any, *, on: Console | None = None) -> None:
    """Print a ``rich`` renderable, by default on a new console."""
    (console() if on is None else on).print(renderable)


def rich_table(
    headers: Sequence[str],
    rows: Iterable[Sequence[Cell]],
    *,
    title: str = "",
    caption: Iterable[str] = (),
    right: Collection[int] = (),
    no_wrap: Collection[int] = (),
    box: str | None = "SIMPLE_HEAD",
    **look: Any,
) -> Any:
    """Return a ``rich`` table with a title above and caption lines below.

    Args:
        headers: Column heads.
        rows: Cells of each row.
        title: Title above the table.
        caption: Lines below the table.
        right: Indices of right-aligned columns.
        no_wrap: Indices of columns whose cells are never wrapped.
        box: Name of a box in ``rich.box``; None draws no lines.
        **look: Further options of ``rich.rich_table.Table``.
    """
    style = None if box is None else getattr(rich_module("box"), box)
    grid = rich_module("table").Table(box=style, **look)
    for number, head in enumerate(headers):
        grid.add_column(
            to_rich_text(head),
            justify="right" if number in right else "left",
            no_wrap=number in no_wrap,
            overflow="ellipsis" if number in no_wrap else "fold",
        )
    for row in rows:
        grid.add_row(*map(to_rich_text, row))
    # Title and caption as wide as the terminal: a narrow table would wrap them to its own width.
    above = [to_rich_text(title, "bold")] if title else []
    below = [to_rich_text(line, "dim") for line in caption]
    return rich_module("console").Group(*above, grid, *below)


def to_rich_text(cell: Cell, style: str = "") -> Any:
    """Return a table cell as ``rich.text.Text``, with markup not interpreted."""
    text = rich_module("text").Text
    if isinstance(cell, str):
        return text(printable(cell), style=style)
    parts = [(part, "") if isinstance(part, str) else part for part in cell]
    safe = [(part if part.isprintable() else printable(part, "\n"), look) for part, look in parts]
    return text.assemble(*safe, style=style)
