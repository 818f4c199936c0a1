"""Random number generators: independent streams derived from the seed of a run."""

from __future__ import annotations

import hashlib
import random
from enum import IntEnum
from typing import Any

import numpy as np


class Purpose(IntEnum):
    """Purpose of a random stream, part of its key. Do not renumber: the results of published seeds depend on it."""

    SPLIT_TRAIN = 0
    SPLIT_TEST = 1
    EPOCH = 2
    SYNTHETIC = 3
    FIXED_TEST = 4
    LABEL_NOISE = 5
    LONG_TAIL = 6
    CORRUPTION = 7
    CROSS_FIT = 8


def seeded_generator(*key: int) -> np.random.RandomState:
    """Return a random generator seeded by ``key``, a sequence of integers >= 0 that usually begins with a purpose.

    Its numbers are a function of the key alone, the same on every machine, device and library version.

    Note:
        ``RandomState`` rather than ``Generator``: numpy froze its output (NEP 19), so a published seed keeps its
        meaning.
    """
    return np.random.RandomState(
        np.random.MT19937(np.random.SeedSequence([int(part) for part in key]))
    )


def derive_seed(seed: int, purpose: str) -> int:
    """Return an independent seed for one purpose, derived from the seed of a run.

    Args:
        seed: Seed of the run.
        purpose: Use of the numbers, e.g. ``"model"``.

    Returns:
        An integer in ``[0, 2**32)``, the same on every machine.

    Example:
        >>> derive_seed(0, "model") == derive_seed(0, "model"), derive_seed(0, "model") == derive_seed(0, "criterion")
        (True, False)
    """
    return int.from_bytes(hashlib.sha256(f"{seed}/{purpose}".encode()).digest()[:4], "little")


def seed_everything(seed: int) -> None:
    """Seed Python's, numpy's and torch's global generators (all devices)."""
    import torch

    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def rng_state() -> dict[str, Any]:
    """Return the state of Python's, numpy's and torch's global generators, loadable with ``weights_only``."""
    import torch

    version, numbers, gauss = random.getstate()
    kind, keys, position, has_gauss, cached = np.random.get_state(legacy=True)
    return {
        "python": [version, list(numbers), gauss],
        "numpy": [
            kind,
            torch.from_numpy(np.array(keys).astype(np.int64)),
            position,
            has_gauss,
            cached,
        ],
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }


def restore_rng_state(state: dict[str, Any]) -> None:
    """Restore the global generators to a state that :func:`rng_state` returned.

    Raises:
        Exception: Any kind, if it is something else.
    """
    import torch

    version, numbers, gauss = state["python"]
    random.setstate((version, tuple(numbers), gauss))
    kind, keys, position, has_gauss, cached = state["numpy"]
    if not 0 <= position <= len(keys):  # NumPy does not look, and would read behind them
        raise ValueError(
            f"position {position} is outside of a generator state of {len(keys)} numbers"
        )
    np.random.set_state((kind, keys.numpy().astype(np.uint32), position, has_gauss, cached))
    torch.set_rng_state(state["torch"])
    if state["cuda"] and torch.cuda.is_available():
        torch.cuda.set_rng_state_all(state["cuda"])
