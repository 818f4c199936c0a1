"""Errors and warnings that users can catch by name, without torch: the command line starts with them.

An error message names its owner, then the expected condition, the value, and the remedy.
"""

from __future__ import annotations

import difflib
import sys
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from types import FrameType

from fedlas._core.text import printable, shortened


class InputError(ValueError):
    """An argument, option or file from the user cannot be used. The command line prints it without a traceback.

    Args:
        owner: The function or command that raises it, e.g. ``"FedLAS"`` or ``"fedlas train"``.
        expected: The condition that was violated, e.g. ``"alpha must be in [0, 1]"``.
        got: The value instead; its ``str()`` is shown.
        fix: The remedy, as a full sentence.

    Note:
        The message is one line; control characters in it are escaped, and parts of over 2,000 characters are cut.

    Example:
        >>> print(InputError("FedLAS", "alpha must be in [0, 1]", -1, "Pass a fraction such as 0.05."))
        FedLAS: alpha must be in [0, 1]; got -1. Pass a fraction such as 0.05.
    """

    def __init__(self, owner: str, expected: str, got: object, fix: str) -> None:
        self.parts = (owner, shortened(expected), shortened(str(got) or repr(got)), fix)
        super().__init__(printable("{}: {}; got {}. {}".format(*self.parts)))

    def __reduce__(self) -> tuple[type[InputError], tuple[str, str, str, str]]:
        return (type(self), self.parts)


class NonFiniteError(InputError):
    """Values that must be finite contain NaN or infinities."""


class CalibrationWarning(UserWarning):
    """A result looks unusual, such as a calibrator's parameters or logits that look like probabilities; it says why."""


_texts: ContextVar[list[str] | None] = ContextVar("texts", default=None)


@contextmanager
def collected_warnings() -> Iterator[list[str]]:
    """Give a list that takes the texts of :func:`warn_user` in place of warnings, in this thread alone."""
    # warnings.catch_warnings changes the whole process: of two threads that overlap, it leaves one's list for good.
    texts: list[str] = []
    before = _texts.set(texts)
    try:
        yield texts
    finally:
        _texts.reset(before)


def warn_user(message: str, category: type[Warning] = CalibrationWarning) -> None:
    """Warn at the line of the user's code that led here: the innermost frame outside of this package and of torch."""
    if (texts := _texts.get()) is not None:
        texts.append(message)
        return
    frame, level = sys._getframe(1), 2
    while frame.f_back is not None and _is_internal(frame):
        frame, level = frame.f_back, level + 1
    warnings.warn(message, category, stacklevel=level)


def _is_internal(frame: FrameType) -> bool:
    """Return whether a frame runs code of this package or of torch, or code that dataclasses generated."""
    module: str = frame.f_globals.get("__name__", "")
    return f"{module}.".startswith(("fedlas.", "torch.")) or frame.f_code.co_filename == "<string>"


def suggestion(name: str, names: Iterable[str]) -> str:
    """Return a sentence with the choice closest to a misspelled one; without a close one, with the first 30 choices."""
    choices = list(names)
    # 0.5 is low enough for a misspelled name of three or four letters.
    near = difflib.get_close_matches(name, choices, n=1, cutoff=0.5)
    if near:
        return f"Did you mean {near[0]!r}?"
    more = f" and {len(choices) - 30} more" if len(choices) > 30 else ""
    return f"Choose one of: {', '.join(choices[:30]) or '(none)'}{more}."
