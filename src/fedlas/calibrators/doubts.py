"""What a fitted calibrator should warn of, worded once."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from fedlas.calibrators.rowwise import double_rows
from fedlas.predictions import Predictions

# Probabilities that change by less than this show the same in every report.
_UNCHANGED = 1e-4
_STAYS = "no validation probability changes by 1e-4 or more, so predictions stay as they are. Nothing need be done."


def joined(*doubts: str | None) -> str | None:
    """All doubts as one text, None if there are none.

    Example:
        >>> joined("one thing. Do this.", None, "another thing.")
        'one thing. Do this. Another thing.'
    """
    given = [doubt for doubt in doubts if doubt is not None]
    return " ".join([*given[:1], *(doubt[0].upper() + doubt[1:] for doubt in given[1:])]) or None


def unchanged(val: Predictions, calibrate: Callable[[Tensor], Tensor]) -> str | None:
    """A doubt if no probability of ``val`` changes by 1e-4 or more.

    Args:
        val: What was fitted on.
        calibrate: From logits ``(n, C)`` to logits.
    """
    for _, rows in double_rows(val.logits):
        if bool(((calibrate(rows).softmax(dim=1) - rows.softmax(dim=1)).abs() >= _UNCHANGED).any()):
            return None
    return _STAYS


def unchanged_logits(val: Predictions, calibrated: Tensor) -> str | None:
    """The same doubt, for calibrators that look at more than logits; ``calibrated (N, C)`` are those of ``val``."""
    for part, rows in double_rows(val.logits):
        after = calibrated[part].cpu().double().softmax(dim=1)
        if bool(((after - rows.softmax(dim=1)).abs() >= _UNCHANGED).any()):
            return None
    return _STAYS


def unconverged(converged: bool) -> str | None:
    """A doubt if a search ended before the gradient vanished."""
    return None if converged else "the fit stopped before the gradient vanished. Check the logits for extreme values."


def absent_classes(val: Predictions) -> str | None:
    """A doubt if a class has no validation sample, for calibrators with parameters of each class."""
    counts = torch.bincount(val.target.cpu(), minlength=val.num_classes)
    absent = (counts == 0).nonzero().squeeze(1).tolist()
    if not absent:
        return None
    return (
        f"{some(absent)} of {val.num_classes} without a validation sample: nothing is known of "
        f"{'its probability' if len(absent) == 1 else 'their probabilities'}. Use a larger validation set, or "
        "temperature scaling."
    )


def some(classes: list[int]) -> str:
    """Classes by number, the first ones if they are many.

    Example:
        >>> some([3]), some(list(range(12)))
        ('class 3', '12 classes (0, 1, 2, 3, 4, ...)')
    """
    if len(classes) == 1:
        return f"class {classes[0]}"
    return f"{len(classes)} classes ({', '.join(map(str, classes[:5]))}{', ...' if len(classes) > 5 else ''})"
