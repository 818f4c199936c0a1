"""Random numbers that are a pure function of a key, the same on every machine, device and library version."""

from __future__ import annotations

from enum import IntEnum

import numpy as np


class Purpose(IntEnum):
    """What a stream is for: two uses of one seed never see the same numbers. Do not renumber: runs depend on it."""

    SPLIT_TRAIN = 0
    SPLIT_TEST = 1
    EPOCH = 2
    SYNTHETIC = 3
    FIXED_TEST = 4
    LABEL_NOISE = 5
    LONG_TAIL = 6
    CORRUPTION = 7


def stream(purpose: Purpose, *key: int) -> np.random.RandomState:
    """A generator for ``purpose`` and ``key`` (whole numbers >= 0), untouched by and not touching any global one.

    Note:
        ``RandomState`` rather than ``Generator``: numpy froze its output (NEP 19), so a published seed keeps its
        meaning.
    """
    return np.random.RandomState(np.random.MT19937(np.random.SeedSequence((int(purpose), *key))))
