"""Errors and warnings that users can catch by name, without torch: the command line starts with them.

An error message names the public function that was called, then the expected condition, the value, and the remedy.
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
        expected: The condition that was violated, e.g. ``"alpha must be in [0, 1]"``.
        got: The value instead; its ``str()`` is shown.
        fix: The remedy, as a full sentence.

    Attributes:
        parts: ``(expected, got, fix)`` as they are shown.
        owner: The public function, method or class that ran, e.g. ``"TemperatureScaling.fit"``; None if none did.

    Note:
        The message is one line; control characters in it are escaped, and parts of over 2,000 characters are cut.

    Example:
        >>> print(InputError("alpha must be in [0, 1]", -1, "Pass a fraction such as 0.05."))
        alpha must be in [0, 1]; got -1. Pass a fraction such as 0.05.
    """

    def __init__(self, expected: str, got: object, fix: str) -> None:
        self.parts = (shortened(expected), shortened(str(got) or repr(got)), fix)
        self.owner = public_name()
        super().__init__(*self.parts)

    def __str__(self) -> str:
        owner = f"{self.owner}: " if self.owner else ""
        return printable(owner + "{}; got {}. {}".format(*self.parts))


class NonFiniteError(InputError):
    """Values that must be finite contain NaN or infinities.

    Example:
        >>> print(NonFiniteError("logits must be finite", "1 NaN of 20", "Find the step where the model diverged."))
        logits must be finite; got 1 NaN of 20. Find the step where the model diverged.
    """


class CalibrationWarning(UserWarning):
    """A result looks unusual, such as a calibrator's parameters or logits that look like probabilities; it says why.

    Example:
        >>> import warnings
        >>> with warnings.catch_warnings():
        ...     warnings.simplefilter("error", CalibrationWarning)  # stop where a result looks unusual
    """


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
    frame = sys._getframe(1)
    level = 2
    while frame.f_back is not None and _is_internal(frame):
        frame = frame.f_back
        level = level + 1
    warnings.warn(message, category, stacklevel=level)


def _is_internal(frame: FrameType) -> bool:
    """Return whether a frame runs code of this package or of torch, or code that dataclasses generated."""
    module: str = frame.f_globals.get("__name__", "")
    return f"{module}.".startswith(("fedlas.", "torch.")) or frame.f_code.co_filename == "<string>"


_CARRIED = {
    "Batch",
    "Columns",
    "PredictionTable",
    "Reader",
    "Statistic",
    "Sums",
    "TableReader",
    "open_table",
}
"""Public names that other public calls work with: an error names what was called in their place."""


def public_name() -> str | None:
    """Return the innermost public function, class or method that runs, e.g. ``"TemperatureScaling.fit"``.

    Where methods of one object call each other, it is the first that was called.
    """
    name, owner = None, None
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        here, value = _public_call(frame)
        if here is not None:
            if name is not None and value is not owner:
                break
            name = here
            owner = value
            if value is None:
                break
        frame = frame.f_back
    return name


def _public_call(frame: FrameType) -> tuple[str | None, object]:
    """Return what a frame runs, if it is public, and its ``self``."""
    code = frame.f_code
    first = code.co_varnames[0] if code.co_argcount else ""
    if first not in ("self", "cls"):
        name = code.co_qualname.partition(".")[0]
        is_public = name in frame.f_globals and _is_public(
            frame.f_globals.get("__name__", ""), name
        )
        return name if is_public else None, None
    variables = frame.f_locals
    value = variables.get(first)
    if sys.version_info < (3, 13):
        variables.clear()  # a copy, which would keep the frame's files and errors alive
    kind = value if isinstance(value, type) else type(value)
    of_class = code.co_name.endswith("__") or code.co_name == "forward"
    hidden = kind.__name__.startswith("_") or (code.co_name.startswith("_") and not of_class)
    if hidden or not any(_is_public(base.__module__, base.__name__) for base in kind.__mro__):
        return None, None
    return kind.__name__ if of_class else f"{kind.__name__}.{code.co_name}", value


def _is_public(module: str, name: str) -> bool:
    """Return whether a name of a module is in the ``__all__`` of one of its packages, or is passed on by ``fedlas``."""
    rooms = module.split(".")
    if (
        not module.startswith("fedlas.")
        or rooms[1] in ("_core", "cli", "lab")  # the laboratory is called by recipes and commands
        or name in _CARRIED
    ):
        return False
    home: str = getattr(sys.modules.get("fedlas"), "_HOMES", {}).get(name, "")
    if home and f"{module}.".startswith(f"fedlas.{home}."):
        return True
    packages = [".".join(rooms[:length]) for length in range(2, len(rooms) + 1)]
    public = [package for package in packages if "._" not in package]
    return any(name in getattr(sys.modules.get(package), "__all__", ()) for package in public)


def suggestion(name: str, names: Iterable[str]) -> str:
    """Return a sentence with the choice closest to a misspelled one; without a close one, with the first 30 choices.

    Example:
        >>> suggestion("temprature", ["temperature", "isotonic"])
        "Did you mean 'temperature'?"
    """
    choices = list(names)
    # 0.5 is low enough for a misspelled name of three or four letters.
    near = difflib.get_close_matches(name, choices, n=1, cutoff=0.5)
    if near:
        return f"Did you mean {near[0]!r}?"
    more = f" and {len(choices) - 30} more" if len(choices) > 30 else ""
    return f"Choose one of: {', '.join(choices[:30]) or '(none)'}{more}."
