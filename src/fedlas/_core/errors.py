"""Errors and warnings of the package, importable without torch.

An error message names the public function that was called, then the expected condition, the value, and the remedy.
"""

from __future__ import annotations

import difflib
import shlex
import sys
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from types import FrameType
from typing import NamedTuple, TypeAlias, TypeGuard

from fedlas._core.text import printable, truncate


class Argument(NamedTuple):
    """An argument in a message, shown as ``drop_missing=True`` in Python and ``--drop-missing`` on the command line.

    Attributes:
        name: As the function spells it.
        value: What to pass; None for the argument alone, ``target=`` and ``--target``.
    """

    name: str
    value: object = None

    def to_python(self) -> str:
        """Return the argument as Python source, such as ``drop_missing=True``."""
        return f"{self.name}=" if self.value is None else f"{self.name}={self.value!r}"

    def to_option(self, options: Mapping[str, str]) -> str:
        """Return the argument as a command-line option as spelled in ``options``, or as Python source if not there."""
        if self.name not in options:
            return self.to_python()
        value = "" if self.value in (None, True) else f" {shlex.quote(str(self.value))}"
        return f"{options[self.name]}{value}"


Text: TypeAlias = str | Argument | tuple[str | Argument, ...]
"""A sentence or a part of one: words, and the arguments between them."""


class InputError(ValueError):
    """An argument, option or file from the user cannot be used. The command line prints it without a traceback.

    A sentence is words, or a tuple of words and of each :class:`Argument` that it names. ``str()`` writes them as
    Python does, the command line as its options.

    Args:
        expected: The condition that was violated, e.g. ``"alpha must be in [0, 1]"``; with ``argument`` without the
            name, ``"must be in [0, 1]"``.
        got: The value instead; its ``str()`` is shown.
        fix: The remedy, as a full sentence. In a list of remedies, those with an argument that the call does not take
            are left out, and "or" joins the others.
        argument: Name of the argument that is wrong; the message begins with it.
        fixes: Other remedies by where they are read, ``"python"`` or ``"command"``.

    Attributes:
        parts: ``(expected, got, fix)`` as they are shown.
        argument: Name of the argument that is wrong; None if the message names none.
        owner: The public function, method or class that was called, e.g. ``"TemperatureScaling.fit"``; None if none
            was.

    Note:
        The message is one line; control characters in it are escaped, and parts of over 2,000 characters are cut.

    Example:
        >>> print(InputError("alpha must be in [0, 1]", -1, "Pass a fraction such as 0.05."))
        alpha must be in [0, 1]; got -1. Pass a fraction such as 0.05.
        >>> error = InputError("must be a column", "no 'y'", "Did you mean 'label'?", argument="target")
        >>> print(error)
        target must be a column; got no 'y'. Did you mean 'label'?
        >>> error.write_for_command("calibrate", {"target": "--target"})
        >>> print(error)
        fedlas calibrate: --target must be a column; got no 'y'. Did you mean 'label'?
    """

    def __init__(
        self,
        expected: Text,
        got: object,
        fix: Text | Sequence[Text],
        *,
        argument: str | None = None,
        fixes: Mapping[str, Text | Sequence[Text]] | None = None,
    ) -> None:
        self.argument = argument
        self.owner = public_call_name()
        named: Text = (str(got) or repr(got)) if not _has_arguments(got) else got
        self._sentences = (expected, named, fix)
        self._fixes = dict(fixes or {})
        self._absent_arguments: frozenset[str] = frozenset()
        self._options: Mapping[str, str] | None = None
        super().__init__(*self._sentences)

    @property
    def parts(self) -> tuple[str, str, str]:
        """``(expected, got, fix)`` as they are shown."""
        expected, got, fix = self._sentences
        where = "python" if self._options is None else "command"
        subject = ""
        if self.argument is not None:
            subject = f"{(self._options or {}).get(self.argument, self.argument)} "
        return (
            truncate(subject + self._format(expected)),
            truncate(self._format(got)),
            self._format_fix(self._fixes.get(where, fix)),
        )

    def write_for_command(self, subcommand: str, options: Mapping[str, str]) -> None:
        """Name a subcommand and its options in the message, in place of the function and its arguments."""
        self.owner = f"fedlas {subcommand}"
        self._options = options

    def without(self, *arguments: str) -> None:
        """Drop remedies that mention any of these arguments."""
        self._absent_arguments = self._absent_arguments | set(arguments)

    def _format(self, text: Text) -> str:
        return format_text(text, self._options)

    def _format_fix(self, fix: Text | Sequence[Text]) -> str:
        """Return the remedy, or all applicable remedies joined by "or", as one sentence."""
        if isinstance(fix, str | tuple):
            return self._format(fix)
        remedies = [self._format(text) for text in fix if self._is_applicable(text)]
        between = "; " if len(remedies) > 2 else ", "
        sentence = (
            f"{between.join([*remedies[:-1], ''])}or {remedies[-1]}."
            if remedies[1:]
            else f"{remedies[0]}."
        )
        return sentence[:1].upper() + sentence[1:]

    def _is_applicable(self, text: Text) -> bool:
        sentence = (text,) if isinstance(text, Argument) else text
        names = {piece.name for piece in sentence if isinstance(piece, Argument)}
        there = self._options is None or names <= self._options.keys()
        return there and not names & self._absent_arguments

    def __str__(self) -> str:
        owner = f"{self.owner}: " if self.owner else ""
        return printable(owner + "{}; got {}. {}".format(*self.parts))


def _has_arguments(value: object) -> TypeGuard[Text]:
    """Return whether a value is a message with :class:`Argument` parts, rather than a user's tuple."""
    return isinstance(value, Argument) or (
        isinstance(value, tuple) and any(isinstance(word, Argument) for word in value)
    )


def format_text(text: Text, options: Mapping[str, str] | None = None) -> str:
    """Return a message as text, with its arguments as command-line ``options`` if given, else as Python source."""
    if isinstance(text, str):
        return text
    sentence = (text,) if isinstance(text, Argument) else text
    return "".join(
        piece
        if isinstance(piece, str)
        else piece.to_python()
        if options is None
        else piece.to_option(options)
        for piece in sentence
    )


class NonFiniteError(InputError):
    """Values that must be finite contain NaN or infinities.

    Example:
        >>> print(NonFiniteError("logits must be finite", "1 NaN of 20", "Find the step where the model diverged."))
        logits must be finite; got 1 NaN of 20. Find the step where the model diverged.
    """


class CalibrationWarning(UserWarning):
    """Warning about an unusual result, such as extreme calibrator parameters or logits that look like probabilities.

    Attributes:
        sentence: The text with the arguments that it names, which the command line writes as options.

    Example:
        >>> import warnings
        >>> with warnings.catch_warnings():
        ...     warnings.simplefilter("error", CalibrationWarning)  # stop where a result looks unusual
    """

    sentence: Text | None = None


_texts: ContextVar[list[str] | None] = ContextVar("texts", default=None)


@contextmanager
def collect_warnings() -> Iterator[list[str]]:
    """Yield a list that collects the texts of :func:`warn_user` in this thread; no warning is issued."""
    # warnings.catch_warnings changes the whole process: of two threads that overlap, it leaves one's list for good.
    texts: list[str] = []
    before = _texts.set(texts)
    try:
        yield texts
    finally:
        _texts.reset(before)


def warn_user(message: Text, category: type[Warning] = CalibrationWarning) -> None:
    """Issue a warning that points at the innermost line of code outside of this package and torch."""
    if (texts := _texts.get()) is not None:
        texts.append(format_text(message))
        return
    frame = sys._getframe(1)
    level = 2
    while frame.f_back is not None and _is_internal(frame):
        frame = frame.f_back
        level = level + 1
    warning = category(format_text(message))
    if isinstance(warning, CalibrationWarning):
        warning.sentence = message
    warnings.warn(warning, stacklevel=level)


def _is_internal(frame: FrameType) -> bool:
    """Return whether a frame runs code of this package or of torch, or code that dataclasses generated."""
    module: str = frame.f_globals.get("__name__", "")
    return f"{module}.".startswith(("fedlas.", "torch.")) or frame.f_code.co_filename == "<string>"


def public_call_name() -> str | None:
    """Return the public function, class or method that the user's code called, e.g. ``"TemperatureScaling.fit"``."""
    name = None
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        public = _frame_public_name(frame)
        if public is None and name is not None and not _is_internal(frame):
            break  # the user's code
        name = public or name
        frame = frame.f_back
    return name


def _frame_public_name(frame: FrameType) -> str | None:
    """Return the name of the public function, class or method that a frame runs, or None if it is private."""
    code = frame.f_code
    first = code.co_varnames[0] if code.co_argcount else ""
    if first not in ("self", "cls"):
        name = code.co_qualname.partition(".")[0]
        is_public = name in frame.f_globals and _is_public(
            frame.f_globals.get("__name__", ""), name
        )
        return name if is_public else None
    variables = frame.f_locals
    value = variables.get(first)
    if sys.version_info < (3, 13):
        variables.clear()  # a copy, which would keep the frame's files and errors alive
    kind = value if isinstance(value, type) else type(value)
    of_class = code.co_name.endswith("__") or code.co_name == "forward"
    if not _is_internal(frame) and not _has_method(kind, code.co_qualname):
        return None  # a function of the user whose first argument is called so
    hidden = kind.__name__.startswith("_") or (code.co_name.startswith("_") and not of_class)
    if hidden or not any(_is_public(base.__module__, base.__name__) for base in kind.__mro__):
        return None
    return kind.__name__ if of_class else f"{kind.__name__}.{code.co_name}"


def _has_method(kind: type, function: str) -> bool:
    """Return whether a class or one of its bases defines the method with a qualified name."""
    return any(base.__qualname__ == function.rpartition(".")[0] for base in kind.__mro__)


def _is_public(module: str, name: str) -> bool:
    """Return whether ``fedlas`` exports a name of a module, or the ``__all__`` of one of its packages lists it."""
    rooms = module.split(".")
    # the laboratory is called by recipes and commands
    if not module.startswith("fedlas.") or rooms[1] in ("_core", "cli", "lab"):
        return False
    home: str = getattr(sys.modules.get("fedlas"), "_HOMES", {}).get(name, "")
    if home and f"{module}.".startswith(f"fedlas.{home}."):
        return True
    packages = [".".join(rooms[:length]) for length in range(2, len(rooms) + 1)]
    public = [package for package in packages if "._" not in package]
    return any(name in getattr(sys.modules.get(package), "__all__", ()) for package in public)


def suggestion(name: str, names: Iterable[str]) -> str:
    """Return a "Did you mean" sentence for a misspelled name, or a list of up to 30 choices if none is close.

    Example:
        >>> suggestion("temprature", ["temperature", "isotonic"])
        "Did you mean 'temperature'?"
    """
    choices = list(names)
    # Two of three letters agree; below that, another name is meant.
    near = difflib.get_close_matches(name, choices, n=1, cutoff=0.66)
    if near:
        return f"Did you mean {near[0]!r}?"
    more = f" and {len(choices) - 30} more" if len(choices) > 30 else ""
    return f"Choose one of: {', '.join(choices[:30]) or '(none)'}{more}."
