"""Class names that are whole numbers or truth values."""

from __future__ import annotations

import re
from collections.abc import Sequence
from decimal import Decimal

_NUMBER = re.compile(r"[-+]?\d{1,300}(\.\d{0,300})?(e[-+]\d\d)?", re.ASCII | re.IGNORECASE)
_TRUTHS = (("false", "f", "no", "n"), ("true", "t", "yes", "y"))


def parse_whole_number(text: str) -> int | None:
    """Return the whole number that a text states (``3`` for ``3.0``), or None for any other text.

    Exponents count as C writes them, 3.000e+00: 3e0 may be a name, as 1_1 may, which Python reads as 11.
    """
    number = Decimal(text if _NUMBER.fullmatch(text) else "NaN")  # exact, unlike a float
    return int(number) if number.is_finite() and number == number.to_integral_value() else None


def truth_value_classes(names: Sequence[str]) -> dict[str, int]:
    """Return the class index of each lower-case truth value, if the two classes are named by such values."""
    ends = [re.split(r"[^a-z]", name.lower())[-1] for name in names]
    values = [
        next((value for value, group in enumerate(_TRUTHS) if end in group), None) for end in ends
    ]
    if sorted(values, key=str) != [0, 1]:
        return {}
    return {
        word: place
        for place, value in enumerate(values)
        if value is not None
        for word in _TRUTHS[value]
    }
