"""Modified data sets: corruptions, label noise, long tails and held-out classes. None needs a download."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fedlas._core.lazy import at_first_use

# Importing a module registers its corruptions.
from fedlas.lab.data.shift import corruptions  # noqa: F401
from fedlas.lab.data.shift.base import CORRUPTIONS, SEVERITIES, Corruption

if TYPE_CHECKING:
    from fedlas.lab.data.shift.variants import (
        LabelNoise,
        OpenSet,
        corrupted,
        long_tailed,
        open_set,
        with_label_noise,
    )

__all__ = [
    "CORRUPTIONS",
    "SEVERITIES",
    "Corruption",
    "LabelNoise",
    "OpenSet",
    "corrupted",
    "long_tailed",
    "open_set",
    "with_label_noise",
]

if not TYPE_CHECKING:  # parts of data sets know corruptions, and variants know parts
    __getattr__ = at_first_use(
        __name__,
        {"variants": "LabelNoise OpenSet corrupted long_tailed open_set with_label_noise"},
    )
