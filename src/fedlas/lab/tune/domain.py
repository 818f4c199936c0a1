"""Domains of tuned parameters, and their text form: ``low:high[:log][:int]`` or ``a,b,c``."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from fedlas._core.check import InputError
from fedlas.lab.recipes.text import parse_yaml

__all__ = ["Choices", "Domain", "Range", "parse_domain"]

_FORM = "Write low:high, low:high:log, low:high:int, or values such as 0.5,1,2."
_DIGITS = 4


@dataclass(frozen=True)
class Range:
    """All numbers from ``low`` to ``high``, both included.

    Attributes:
        low: Lowest number.
        high: Highest number.
        log: Whether equal factors, not equal differences, are equally likely.
        whole: Whether only whole numbers are included.
    """

    low: float
    high: float
    log: bool = False
    whole: bool = False

    @property
    def text(self) -> str:
        """The text form."""
        number = "{:d}" if self.whole else "{:.12g}"
        ends = ":".join(number.format(int(end) if self.whole else end) for end in (self.low, self.high))
        return ends + (":log" if self.log else "") + (":int" if self.whole else "")

    @property
    def size(self) -> float:
        """Number of values; infinity for a range of real numbers."""
        return self.high - self.low + 1 if self.whole else math.inf

    @property
    def probes(self) -> tuple[Any, ...]:
        """Values that a loss must accept if it accepts the whole range: the ends, and a fraction between them."""
        if self.whole:
            return int(self.low), int(self.high)
        return self.low, (self.low + self.high) / 2 + (self.high - self.low) / 31, self.high

    def contains(self, value: Any) -> bool:
        """Whether a value is in the domain."""
        if not isinstance(value, int | float) or isinstance(value, bool):
            return False
        return self.low <= value <= self.high and (not self.whole or value == int(value))

    def tidy(self, value: Any) -> Any:
        """The nearest value with four significant digits that is in the range, so that a person can write it down."""
        if self.whole:
            return int(value)
        return min(max(float(f"{value:.{_DIGITS}g}"), self.low), self.high)


@dataclass(frozen=True)
class Choices:
    """A few values.

    Attributes:
        values: The values; a single one fixes the parameter.
    """

    values: tuple[Any, ...]

    @property
    def text(self) -> str:
        """The text form."""
        return ",".join(str(value).lower() if isinstance(value, bool) else str(value) for value in self.values)

    @property
    def size(self) -> float:
        """Number of values."""
        return len(self.values)

    @property
    def probes(self) -> tuple[Any, ...]:
        """Values that a loss must accept: all."""
        return self.values

    def contains(self, value: Any) -> bool:
        """Whether a value is in the domain."""
        return any(value == other and isinstance(value, bool) == isinstance(other, bool) for other in self.values)

    def tidy(self, value: Any) -> Any:
        """The value itself."""
        return value


Domain = Range | Choices


def parse_domain(text: str, where: str) -> Domain:
    """A domain from its text.

    Args:
        text: ``0.01:0.3``, ``0.01:0.3:log``, ``1:4:int`` or ``0.5,1,2,4``.
        where: Origin of the text, for errors.

    Raises:
        InputError: For another form, ends that are not finite numbers or in the wrong order, a logarithmic range that
            is not above 0, or a value twice.

    Example:
        >>> parse_domain("0.01:0.3:log", "alpha"), parse_domain("1,2,4", "beta")
        (Range(low=0.01, high=0.3, log=True, whole=False), Choices(values=(1, 2, 4)))
    """
    if ":" not in text:
        return _choices(text, where)
    low, high, *flags = text.split(":")
    if not set(flags) <= {"log", "int"} or len(set(flags)) != len(flags):
        raise InputError("--space", "a range may end in :log and :int", repr(where), _FORM)
    ends: list[Any] = [parse_yaml(end, where) if end.strip() else None for end in (low, high)]
    if not all(isinstance(end, int | float) and not isinstance(end, bool) and math.isfinite(end) for end in ends):
        raise InputError("--space", "a range must have two finite numbers as its ends", repr(where), _FORM)
    log, whole = "log" in flags, "int" in flags
    if not ends[0] < ends[1]:
        expected = "the lower end of a range must be below the upper one"
        raise InputError("--space", expected, repr(where), "Swap them, or write one value to fix the parameter.")
    if log and ends[0] <= 0:
        raise InputError("--space", "a :log range must lie above 0", repr(where), "Raise its lower end.")
    if whole and any(end != int(end) for end in ends):
        raise InputError("--space", "an :int range must end in whole numbers", repr(where), "Leave :int out.")
    return Range(float(ends[0]), float(ends[1]), log, whole)


def _choices(text: str, where: str) -> Choices:
    values: Sequence[Any] = [parse_yaml(part, where) if part.strip() else None for part in text.split(",")]
    for value in values:
        if not isinstance(value, int | float | str) or (isinstance(value, float) and not math.isfinite(value)):
            raise InputError("--space", "values must be finite numbers, text, true or false", repr(where), _FORM)
    if any(values[i] == values[j] for i in range(len(values)) for j in range(i)):
        raise InputError("--space", "values must differ from each other", repr(where), "Name each once.")
    return Choices(tuple(values))
