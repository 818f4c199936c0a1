"""Published size of a data set."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Expected:
    """Published counts of a data set: its metadata ``expected``, for ``fedlas data check``.

    Attributes:
        train: Number of images outside the test part.
        test: Number of images of the test part.
        classes: Number of classes.
        per_class: Fewest and most training images of a class; None if unknown.
    """

    train: int
    test: int
    classes: int
    per_class: tuple[int, int] | None = None
