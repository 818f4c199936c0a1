"""Modified data sets: corruptions, label noise, long tails and held-out classes. None needs a download."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fedlas._core.lazy import lazy_getattr

# Importing a module registers its corruptions.
from fedlas.lab.data.shift import corruptions  # noqa: F401
from fedlas.lab.data.shift.base import CORRUPTIONS, SEVERITIES, Corruption

if TYPE_CHECKING:
    from fedlas.lab.data.shift.variants import (
        LabelNoise,
        OpenSet,
        add_label_noise,
        corrupt_part,
        make_long_tailed,
        make_open_set,
    )

__all__ = [
    "CORRUPTIONS",
    "SEVERITIES",
    "Corruption",
    "LabelNoise",
    "OpenSet",
    "add_label_noise",
    "corrupt_part",
    "make_long_tailed",
    "make_open_set",
]

if not TYPE_CHECKING:  # parts of data sets know corruptions, and variants know parts
    __getattr__ = lazy_getattr(
        __name__,
        {
            "variants": "LabelNoise OpenSet corrupt_part make_long_tailed make_open_set add_label_noise"
        },
    )
