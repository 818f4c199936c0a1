"""Base class and construction of losses that wrap another loss."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Unpack, cast

from fedlas._core.check import InputError, check_count, describe
from fedlas._core.errors import public_call_name
from fedlas.losses._base.loss import LOSSES, Loss, LossOptions
from fedlas.predictions import Predictions

Base = Loss | str | Mapping[str, Any]
"""A loss, its registry name, or a mapping with its ``name`` and options."""


def as_loss(base: Base, **sizes: int | None) -> Loss:
    """Return ``base`` if it is a loss, else build it from its registry name or from a mapping with name and options."""
    if isinstance(base, str):
        base = {"name": base}
    if isinstance(base, Mapping) and isinstance(base.get("name"), str):
        options = {key: value for key, value in base.items() if key != "name"}
        offered = {key: value for key, value in sizes.items() if key not in options}
        base = LOSSES.build(base["name"], options, **offered)
    if not isinstance(base, Loss):
        raise InputError(
            "base must be a loss, a registry name, or a mapping with a 'name'",
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
            "base must have default reduction, ignore_index and weight, and no mix method",
            base,
            f"Pass them to {public_call_name()}.",
        )
    return base


class BaseOptions(LossOptions, total=False):
    """Keyword options of a wrapper loss: those of :class:`LossOptions`, ``num_samples`` and ``num_epochs``."""

    num_samples: int | None
    num_epochs: int | None


class LossWrapper(Loss):
    """Base class of losses that wrap another loss; needs and validation updates are those of the wrapped loss.

    Args:
        base: The wrapped loss, its registry name, or a mapping; see :func:`as_loss`.
        num_classes: Number of classes C; None accepts any, if the base does.
        num_samples: Size of the training set, for a base that needs it.
        num_epochs: Length of the training, for a base that needs it.
        **options: Those of every :class:`~fedlas.losses.Loss`.

    Attributes:
        base: The inner loss.

    Example:
        >>> import torch
        >>> class Doubled(LossWrapper):
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

    def base_strength_name(self) -> str:
        """Return the name of the strength option of the base, such as ``"alpha"``.

        Raises:
            InputError: If the base has no strength option.
        """
        if self.base.strength is None:
            able = [entry.name for entry in LOSSES.entries() if entry.value.strength is not None]
            fix = f"Choose one of: {', '.join(able)}."
            raise InputError("base must be a loss with a strength option", self.base, fix)
        return self.base.strength

    @property
    def update_from_validation(self) -> Callable[[Predictions], None]:
        """The ``update_from_validation`` method of the base; missing if the base does not learn from validation."""
        return cast("Any", self.base).update_from_validation
