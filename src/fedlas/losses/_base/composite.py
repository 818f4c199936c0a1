"""Losses that are built around any other loss."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Unpack, cast

from fedlas._core.check import InputError, check_count, describe
from fedlas._core.errors import public_name
from fedlas.losses._base.loss import LOSSES, Loss, LossOptions
from fedlas.predictions import Predictions

Base = Loss | str | Mapping[str, Any]
"""A loss, its registry name, or a mapping with its ``name`` and options."""


def as_loss(base: Base, **sizes: int | None) -> Loss:
    """Build the loss that ``base`` names, or return ``base`` itself if it is a loss."""
    if isinstance(base, str):
        base = {"name": base}
    if isinstance(base, Mapping) and isinstance(base.get("name"), str):
        options = {key: value for key, value in base.items() if key != "name"}
        offered = {key: value for key, value in sizes.items() if key not in options}
        base = LOSSES.build(base["name"], options, **offered)
    if not isinstance(base, Loss):
        raise InputError(
            "base must be a loss, its name, or a mapping with its name",
            describe(base),
            "Write e.g. base='focal', or base={'name': 'focal', 'gamma': 2}.",
        )
    if (
        base.reduction != "mean"
        or base.weight is not None
        or base.ignore_index != -100
        or hasattr(base, "mix")
    ):
        raise InputError(
            "base must leave reduction, ignore_index, weight and mixing to the loss around it",
            base,
            f"Pass them to {public_name()}.",
        )
    return base


class BaseOptions(LossOptions, total=False):
    """Sizes that a base may need, and the options of every loss; see :class:`OnBase`."""

    num_samples: int | None
    num_epochs: int | None


class OnBase(Loss):
    """A loss around another one: it has the needs of its base, and passes validation predictions on to it.

    Args:
        base: The loss around which this one is built; see :func:`as_loss`.
        num_classes: Number of classes C; None accepts any, if the base does.
        num_samples: Size of the training set, for a base that needs it.
        num_epochs: Length of the training, for a base that needs it.
        **options: Those of every :class:`~fedlas.losses.Loss`.

    Attributes:
        base: The inner loss.

    Example:
        >>> import torch
        >>> class Doubled(OnBase):
        ...     def per_sample(self, batch):
        ...         return 2 * self.base.per_sample(batch)
        >>> Doubled("brier")(torch.zeros(1, 2), torch.tensor([0]))
        tensor(1.)
    """

    def __init__(
        self,
        base: Base,
        *,
        num_classes: int | None = None,
        num_samples: int | None = None,
        num_epochs: int | None = None,
        **options: Unpack[LossOptions],
    ) -> None:
        super().__init__(**options)
        self.num_classes = None if num_classes is None else check_count("num_classes", num_classes)
        self.num_samples = None if num_samples is None else check_count("num_samples", num_samples)
        num_epochs = None if num_epochs is None else check_count("num_epochs", num_epochs)
        self.base: Loss = as_loss(
            base, num_classes=num_classes, num_samples=num_samples, num_epochs=num_epochs
        )
        self.num_classes = self.num_classes or getattr(self.base, "num_classes", None)
        self.needs = type(self).needs | self.base.needs  # type: ignore[misc]  # the needs depend on the base
        self.masked_classes = type(self).masked_classes and self.base.masked_classes  # type: ignore[misc]

    def strength_of_base(self) -> str:
        """Return the name of the option that sets the base's strength.

        Raises:
            InputError: If the base has none.
        """
        if self.base.strength is None:
            able = [entry.name for entry in LOSSES.entries() if entry.value.strength is not None]
            fix = f"Choose one of: {', '.join(able)}."
            raise InputError("base must have a strength", self.base, fix)
        return self.base.strength

    @property
    def update_from_validation(self) -> Callable[[Predictions], None]:
        """The base's method; where the base does not learn from validation there is none."""
        return cast("Any", self.base).update_from_validation
