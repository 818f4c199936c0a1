"""How large a published data set is, as its authors say."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Expected:
    """Counts of a published data set; metadata ``expected`` of a data set, for ``fedlas data check``.

    Attributes:
        train: Images outside the test part.
        test: Images of the test part.
        classes: Classes.
        per_class: Fewest and most training images of a class; None if it is not published.
    """

    train: int
    test: int
    classes: int
    per_class: tuple[int, int] | None = None
