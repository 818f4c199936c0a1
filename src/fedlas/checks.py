"""Argument checks for your own losses, metrics and data sets: each returns the value or raises an ``InputError``.

Every check takes the name of what checks (``owner``), the name of the argument and its value. The message then names
the argument and says what was expected, what came and what to do.
"""

from fedlas._core.check import (
    check_choice,
    check_count,
    check_finite,
    check_logits,
    check_number,
    describe,
    suggestion,
)

__all__ = ["check_choice", "check_count", "check_finite", "check_logits", "check_number", "describe", "suggestion"]
