"""Domains of tuned parameters, and their text form: ``low:high[:log][:int]`` or ``a,b,c``."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from fedlas._core.check import InputError
from fedlas._core.extras import require
from fedlas.lab.recipes.text import parse_yaml
from fedlas.losses import LOSSES

__all__ = ["Domain", "parse_domain", "tuned_rows"]

_FORM = "Write low:high, low:high:log, low:high:int, or values such as 0.5,1,2."


@dataclass(frozen=True)
class Domain:
    """Values that a parameter may have: a few, or all numbers from the first to the last.

    Attributes:
        values: The values, or the two ends of a range.
        is_range: Whether numbers between the two values belong to the domain.
        log: Whether equal factors, not equal differences, of a range are equally likely.
        whole: Whether a range has whole numbers only.
    """

    values: tuple[Any, ...]
    is_range: bool = False
    log: bool = False
    whole: bool = False

    @property
    def size(self) -> float:
        """Number of values; infinity for a range of real numbers."""
        if not self.is_range:
            return len(self.values)
        return self.values[1] - self.values[0] + 1 if self.whole else math.inf

    def __iter__(self) -> Iterator[Any]:
        """Every value of a finite domain."""
        return iter(range(self.values[0], self.values[1] + 1) if self.is_range else self.values)

    @property
    def probes(self) -> tuple[Any, ...]:
        """Values that a loss must accept if it accepts the whole domain: all, or the ends and a fraction between."""
        if not self.is_range or self.whole:
            return self.values
        low, high = self.values
        return low, (low + high) / 2 + (high - low) / 31, high

    def contains(self, value: Any) -> bool:
        """Whether a value is in the domain."""
        if not self.is_range:
            return any(value == other and isinstance(value, bool) == isinstance(other, bool) for other in self.values)
        if not isinstance(value, int | float) or isinstance(value, bool):
            return False
        return bool(self.values[0] <= value <= self.values[1]) and (not self.whole or value == int(value))

    def distribution(self) -> Any:
        """The domain as an optuna distribution."""
        distributions = require("optuna.distributions", extra="tune")
        if not self.is_range:
            return distributions.CategoricalDistribution(list(self.values))
        kind = distributions.IntDistribution if self.whole else distributions.FloatDistribution
        return kind(*self.values, log=self.log)

    def __str__(self) -> str:
        if not self.is_range:
            return ", ".join(str(value).lower() if isinstance(value, bool) else str(value) for value in self.values)
        kinds = [name for name, on in (("logarithmic", self.log), ("whole numbers", self.whole)) if on]
        return f"{self.values[0]:g} to {self.values[1]:g}" + (f" ({', '.join(kinds)})" if kinds else "")


def parse_domain(text: str, where: str) -> Domain:
    """Parse a domain.

    Args:
        text: ``0.01:0.3``, ``0.01:0.3:log``, ``1:4:int`` or ``0.5,1,2,4``.
        where: Origin of the text, for errors.

    Raises:
        InputError: For another form, ends that are not finite numbers or in the wrong order, a logarithmic range that
            is not above 0, or a value twice.

    Example:
        >>> print(parse_domain("0.01:0.3:log", "alpha"), "and", parse_domain("1,2,4", "beta"))
        0.01 to 0.3 (logarithmic) and 1, 2, 4
    """
    if ":" not in text:
        values = [parse_yaml(part, where) if part.strip() else None for part in text.split(",")]
        plain = [v for v in values if isinstance(v, int | float | str) and (isinstance(v, str) or math.isfinite(v))]
        if len(plain) < len(values):
            raise InputError("--space", "values must be finite numbers, text, true or false", repr(where), _FORM)
        if any(values[i] == values[j] for i in range(len(values)) for j in range(i)):
            raise InputError("--space", "values must differ from each other", repr(where), "Name each once.")
        return Domain(tuple(values))
    low, high, *flags = text.split(":")
    if not set(flags) <= {"log", "int"} or len(set(flags)) != len(flags):
        raise InputError("--space", "a range may end in :log and :int", repr(where), _FORM)
    ends: list[Any] = [parse_yaml(end, where) if end.strip() else None for end in (low, high)]
    if not all(isinstance(end, int | float) and not isinstance(end, bool) and math.isfinite(end) for end in ends):
        raise InputError("--space", "a range must have two finite numbers as its ends", repr(where), _FORM)
    if not ends[0] < ends[1]:
        expected = "the lower end of a range must be below the upper one"
        raise InputError("--space", expected, repr(where), "Swap them, or write one value to fix the parameter.")
    log, whole = "log" in flags, "int" in flags
    if log and ends[0] <= 0:
        raise InputError("--space", "a :log range must lie above 0", repr(where), "Raise its lower end.")
    if whole and any(end != int(end) for end in ends):
        raise InputError("--space", "an :int range must end in whole numbers", repr(where), "Leave :int out.")
    return Domain(tuple(map(int if whole else float, ends)), is_range=True, log=log, whole=whole)


def tuned_rows() -> list[dict[str, str]]:
    """Return the rows of ``fedlas list tuning``: the ranges that each loss declares at its registration."""
    rows = []
    for entry in LOSSES.entries():
        ranges = [f"{name} {parse_domain(text, name)}" for name, text in entry.metadata.get("tune", {}).items()]
        rows.append({"name": entry.name, "what it is": "; ".join(ranges) or "nothing to tune"})
    return rows
