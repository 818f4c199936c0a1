"""What an OOD score is: a function of what a model says of samples, higher for what is less like its training data."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from torch import Tensor

from fedlas._core.registry import Entry, Registry

Score = Callable[..., Tensor]
"""``score(needed..., *, option=default) -> (N,)``, higher = more OOD."""

OOD_SCORES: Registry[Score] = Registry("OOD score")
"""Scores by name. Metadata: ``title`` (its name in tables), ``paper`` (its title), ``year``, ``url``; ``packages``, the
optional ones that it needs. What a score needs are those of its parameters that are in :data:`GIVEN`; the others are
options with a default."""

GIVEN = {
    "logits": "logits",
    "features": "features",
    "val": "validation predictions",
    "train": "features of training images",
    "head": "classifier head",
    "model": "model",
    "inputs": "images",
    "std": "",  # comes with the images
}
"""Parameters that a score is given, and what they are called in a table: ``logits (N, C)`` and ``features (N, D)`` of
the samples to score; ``val``, :class:`~fedlas.Predictions` on held-out in-distribution samples; ``train``, predictions
with features on training samples; ``head``, the linear head; ``model``, ``inputs (N, channels, H, W)`` and the ``std``
of each channel that they were divided by."""


def needs_of(entry: Entry[Score]) -> frozenset[str]:
    """What the score must be given, out of :data:`GIVEN`.

    Example:
        >>> import fedlas.ood
        >>> sorted(needs_of(OOD_SCORES["kl-matching"]))
        ['logits', 'val']
    """
    return frozenset(inspect.signature(entry.value).parameters) & GIVEN.keys()


def options_of(entry: Entry[Score]) -> dict[str, Any]:
    """Options of the score with their defaults."""
    parameters = inspect.signature(entry.value).parameters
    return {name: about.default for name, about in parameters.items() if name not in GIVEN}


def follows_temperature(entry: Entry[Score]) -> bool:
    """Whether the score is computed of saved logits, and so again with a temperature; ViM and ODIN make their own."""
    return "logits" in needs_of(entry)
