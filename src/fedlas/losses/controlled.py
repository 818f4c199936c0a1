"""A loss whose strength follows the calibration gap on held-out predictions.

The controller is this library's. Relatives: AdaFocal (bins, focal exponent), CALS (classes, margin penalty), and
cross-regularization (2025), whose regularizers follow the validation gradient.
"""

from __future__ import annotations

from typing import ClassVar, Unpack

import torch
from torch import Tensor

from fedlas._core.check import check_number
from fedlas.losses._base import (
    LOSSES,
    Base,
    BaseOptions,
    Batch,
    LearnsFromValidation,
    LossWrapper,
    PreciseBuffers,
)
from fedlas.predictions import Predictions


@LOSSES.register(
    "controlled",
    paper="fedlas",
    year=2026,
    url="",
    note="this library's own",
    signed=("low",),
    tune={"rate": "0.1:2:log"},
)
class Controlled(PreciseBuffers, LearnsFromValidation, LossWrapper):
    """Wrapper that updates the strength of a loss after each validation by ``rate * (confidence - accuracy)``.

    The strength grows where held-out predictions are over-confident, and shrinks where they are under-confident. Data
    set it instead of the training loss, so it needs no tuning.

    Args:
        num_classes: Number of classes C; None accepts any, if the base does.
        base: A loss with a strength, such as ``ls``, ``mbls`` or ``own-average``: an object, a registry name, or
            ``{"name": ..., option: ...}``. Its own strength is the start.
        rate: How fast the strength follows the gap, at least 0.
        low: Smallest strength; below 0 smoothing turns into its opposite.
        high: Largest strength; None is 1, or the base's strength if that is larger, or its bound if that is smaller.
        **options: Those of every :class:`~fedlas.losses.Loss`; ``num_samples`` and ``num_epochs`` for a base that needs
            them.

    Attributes:
        base: The wrapped loss.
        value: Buffer, the current strength, scalar float32.

    State:
        The buffer changes in :meth:`update_from_validation` only. Under DDP each rank must pass the same predictions,
        as the training loop does. It stays float32 through ``.half()``.

    Raises:
        InputError: If the base has no strength, or an argument is out of range.

    Note:
        Until the first validation the strength is the base's. Report calibration on other data than those that set
        the strength.

    Example:
        >>> criterion = Controlled(base={"name": "ls", "alpha": 0.05})
        >>> logits = torch.tensor([[4.0, 0.0], [4.0, 0.0]])
        >>> criterion.update_from_validation(Predictions(logits, torch.tensor([0, 1])))  # sure, and half of them wrong
        >>> criterion.value
        tensor(0.2910)
    """

    precise: ClassVar[tuple[str, ...]] = ("value",)
    value: Tensor

    def __init__(
        self,
        *,
        num_classes: int | None = None,
        base: Base = "ls",
        rate: float = 0.5,
        low: float = 0.0,
        high: float | None = None,
        **options: Unpack[BaseOptions],
    ) -> None:
        super().__init__(base, num_classes=num_classes, **options)
        strength = self.base_strength_name()
        self.rate = check_number("rate", rate, low=0)
        bound = (
            min(self.base.strength_bound, max(1.0, getattr(self.base, strength)))
            if high is None
            else high
        )
        self.high = check_number("high", bound, high=self.base.strength_bound)
        self.low = check_number("low", low, high=self.high)
        start = min(max(float(getattr(self.base, strength)), self.low), self.high)
        self.register_buffer("value", torch.tensor(start, dtype=torch.float32))

    def per_sample(self, batch: Batch) -> Tensor:
        """Return the loss per position, ``(M,)``."""
        return self.base.with_strength(
            batch, self.value.to(batch.logits.dtype).expand(len(batch.logits))
        )

    def learn_from(self, predictions: Predictions) -> None:
        """Add ``rate`` times the calibration gap (mean confidence minus accuracy) to the strength.

        Args:
            predictions: Predictions on the validation set after an epoch; never on the test set.
        """
        gap = float(
            (
                predictions.tensors().confidence.double() - predictions.tensors().correct.double()
            ).mean()
        )
        self.value.fill_(min(max(float(self.value) + self.rate * gap, self.low), self.high))
