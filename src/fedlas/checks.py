"""Argument checks for your own losses, metrics and data sets: each returns the value or raises an ``InputError``.

Every check takes the name of the argument and its value. The message names your class or function and the argument,
and says what was expected, what came and what to do.

**Which numbers are accepted.** Logits and features are dense (neither sparse nor nested), on a device that holds
values (not ``meta``), finite, and between -2**100 and 2**100 (1.3e30). ``check_finite`` refuses everything else, and
:class:`~fedlas.Predictions` calls it. Larger numbers come from a model that has diverged; up to there, differences and
sums are numbers of float32 too. In a training step nothing reads values, which would stall an accelerator: losses
check shapes and kinds, and on a CPU also targets and masked classes; NaN or infinite logits give a loss of NaN.
"""

from fedlas._core.check import (
    check_choice,
    check_count,
    check_dense,
    check_finite,
    check_logits,
    check_number,
    suggestion,
)

__all__ = [
    "check_choice",
    "check_count",
    "check_dense",
    "check_finite",
    "check_logits",
    "check_number",
    "suggestion",
]
