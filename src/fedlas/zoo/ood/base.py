"""The contract of an OOD score, a function that is higher for samples less like the training data; and the registry."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from torch import Tensor

from fedlas._core.registry import Entry, Registry

__all__ = ["OOD_SCORES", "Score", "options_of"]

Score = Callable[..., Tensor]
"""``score(needed..., *, option=default) -> (N,)``, higher = more OOD."""

OOD_SCORES: Registry[Score] = Registry("OOD score")
"""Scores by name. Metadata: ``title`` (its name in tables), ``paper`` (its title), ``year``, ``url``; ``packages``, the
optional ones that it needs. Parameters in :data:`INPUTS` are the inputs of a score; the others are options with a
default."""

INPUTS = {
    "logits": "logits",
    "features": "features",
    "val": "validation predictions",
    "train": "features of training images",
    "head": "classifier head",
    "model": "model",
    "inputs": "images",
    "std": "",  # comes with the images
}
"""Possible inputs of a score, and their names in tables: ``logits (N, C)`` and ``features (N, D)`` of the samples to
score; ``val``, :class:`~fedlas.Predictions` on held-out in-distribution samples; ``train``, predictions with features
on training samples; ``head``, the linear head; ``model``, ``inputs (N, channels, H, W)`` and the ``std`` of each
channel by which they were divided."""


def needs_of(entry: Entry[Score]) -> frozenset[str]:
    """Return the inputs of the score, out of :data:`INPUTS`.

    Example:
        >>> import fedlas.zoo.ood
        >>> sorted(needs_of(OOD_SCORES["kl-matching"]))
        ['logits', 'val']
    """
    return frozenset(inspect.signature(entry.value).parameters) & INPUTS.keys()


def options_of(entry: Entry[Score]) -> dict[str, Any]:
    """Return the options of the score with their defaults.

    Example:
        >>> import fedlas.zoo.ood
        >>> options_of(OOD_SCORES["gen"])
        {'gamma': 0.1, 'top': 100}
    """
    return OOD_SCORES.check_options(entry.name, offered=INPUTS)


def follows_temperature(entry: Entry[Score]) -> bool:
    """Return whether the score depends on the saved logits, and so on a temperature."""
    return "logits" in needs_of(entry)
