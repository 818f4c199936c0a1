"""Losses that are built on another loss, whichever it is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Unpack

from fedlas._core.check import InputError, check_count, describe
from fedlas.losses.base import LOSSES, Loss, LossOptions
from fedlas.predictions import Predictions

Base = Loss | str | Mapping[str, Any]
"""A loss, its registry name, or a mapping with its ``name`` and options."""


def as_loss(owner: str, base: Base, *, num_classes: int | None = None, num_samples: int | None = None) -> Loss:
    """The loss that ``base`` stands for.

    Args:
        owner: Who complains.
        base: A loss, a registry name such as ``"focal"``, or ``{"name": "focal", "gamma": 2}``.
        num_classes: Offered to a loss that is built here.
        num_samples: Offered to a loss that is built here.

    Raises:
        InputError: If it is none of these, or a loss that itself mixes samples or has a reduction, an ``ignore_index``
            or class weights of its own, which are for the outer loss to have.
    """
    if isinstance(base, str):
        base = {"name": base}
    if isinstance(base, Mapping) and isinstance(base.get("name"), str):
        options = {key: value for key, value in base.items() if key != "name"}
        base = LOSSES.build(base["name"], options, num_classes=num_classes, num_samples=num_samples)
    if not isinstance(base, Loss):
        raise InputError(
            owner,
            "base must be a loss, its name, or a mapping with its name",
            describe(base),
            "Write e.g. base='focal', or base={'name': 'focal', 'gamma': 2}.",
        )
    if base.reduction != "mean" or base.weight is not None or base.ignore_index != -100 or hasattr(base, "mix"):
        raise InputError(
            owner,
            "base must leave reduction, ignore_index, weight and mixing to the loss around it",
            base,
            f"Pass them to {owner}.",
        )
    return base


class OnBase(Loss):
    """A loss around another one: needs what it needs, and passes validation on to it.

    Args:
        base: The loss around which this one is built; see :func:`as_loss`.
        num_classes: Number of classes C; None takes any, if the base does.
        num_samples: Size of the training set, for a base that needs it.
        **options: Those of every :class:`~fedlas.losses.Loss`.

    Attributes:
        base: The loss.
    """

    def __init__(
        self,
        base: Base,
        *,
        num_classes: int | None = None,
        num_samples: int | None = None,
        **options: Unpack[LossOptions],
    ) -> None:
        super().__init__(**options)
        owner = type(self).__name__
        self.num_classes = None if num_classes is None else check_count(owner, "num_classes", num_classes)
        self.base: Loss = as_loss(owner, base, num_classes=num_classes, num_samples=num_samples)
        self.needs = type(self).needs | self.base.needs  # type: ignore[misc]  # what one needs depends on the base

    def update_from_validation(self, predictions: Predictions) -> None:
        """Pass validation predictions on to the base, if it learns from them."""
        update = getattr(self.base, "update_from_validation", None)
        if update is not None:
            update(predictions)
