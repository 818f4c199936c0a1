"""Standard output and error that cannot end the work: the disk may be full, the reader gone, the encoding narrow."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

__all__ = ["LostOutputError", "Stream", "standard_streams"]


class LostOutputError(Exception):
    """Nothing more can be shown, and there is nothing else to do."""


class Stream:
    """A text stream that takes everything: it escapes other encodings' characters, and drops all after an error.

    Args:
        stream: Standard output or error; None if that is closed.
        keep_going: Drop what cannot be written, since the work has other results; else raise :class:`LostOutputError`.

    Attributes:
        error: The first error of the system; None if there was none.
    """

    def __init__(self, stream: Any, *, keep_going: bool = True) -> None:
        self._stream, self._keep_going = stream, keep_going
        with suppress(AttributeError, OSError, ValueError):  # closed, or of a notebook, which takes any character
            stream.reconfigure(errors="backslashreplace")
        self.error: OSError | None = None

    def write(self, text: str) -> int:
        """Write ``text``."""
        if self._stream is not None:
            try:
                self._stream.write(text)
            except OSError as error:
                self._give_up(error)
        return len(text)

    def flush(self) -> None:
        """Write what is buffered."""
        if self._stream is not None:
            try:
                self._stream.flush()
            except OSError as error:
                self._give_up(error)

    def _give_up(self, error: OSError) -> None:
        self.error = self.error or error
        # Python writes what is buffered when it ends, and would fail again: it goes nowhere, as all that follows.
        with suppress(OSError, ValueError, AttributeError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self._stream.fileno())
            os.close(nowhere)
        if not self._keep_going:
            raise LostOutputError from error

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextmanager
def standard_streams(*, keep_going: bool) -> Iterator[Stream]:
    """Standard output and error as :class:`Stream`; gives the output.

    Args:
        keep_going: Of the output. What cannot be written to standard error is always dropped.
    """
    # A file that is opened while one of these numbers is free gets it, and then what is printed.
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    before = sys.stdout, sys.stderr
    output = Stream(sys.stdout, keep_going=keep_going)
    streams: Any = output, Stream(sys.stderr)
    sys.stdout, sys.stderr = streams
    try:
        yield output
    finally:
        sys.stdout, sys.stderr = before
