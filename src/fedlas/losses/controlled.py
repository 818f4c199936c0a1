"""A loss whose strength follows the calibration gap on held-out predictions.

The controller is this library's. Relatives: AdaFocal (bins, focal exponent), CALS (classes, margin penalty), and
cross-regularization (2025), whose regularizers follow the validation gradient.
"""

from __future__ import annotations

from typing import ClassVar, Literal, Unpack, get_args

import torch
from torch import Tensor

from fedlas._core.check import InputError, check_choice, check_count, check_number
from fedlas.losses._base import (
    LOSSES,
    Base,
    BaseOptions,
    Batch,
    LearnsFromValidation,
    OnBase,
    PreciseBuffers,
    calibration_gaps,
    equal_mass_edges,
)
from fedlas.predictions import Predictions
from fedlas.predictions.predictions import check_predictions

__all__ = ["Controlled"]

CellsBy = Literal["confidence", "norm"]


@LOSSES.register(
    "controlled",
    paper="fedlas",
    year=2026,
    url="",
    note="this library's own",
    signed=("low",),
    tune={"rate": "0.1:2:log"},
)
class Controlled(PreciseBuffers, OnBase, LearnsFromValidation):
    """A loss whose strength is moved after each validation: ``a <- clip(a + rate * mean(confidence - correct))``.

    Where held-out predictions claim too much, the strength grows; where they claim too little, it shrinks. So data set
    it and not the training loss, and it needs no tuning.

    Args:
        num_classes: Number of classes C; None accepts any, if the base does.
        base: A loss with a strength, such as ``ls``, ``mbls`` or ``own-average``: an object, a registry name, or
            ``{"name": ..., option: ...}``. Its own strength is the start.
        rate: How fast the strength follows the gap, at least 0.
        low: Smallest strength; below 0 smoothing turns into its opposite.
        high: Largest strength; None is the base's bound, or 1.
        num_cells: Number of cells of equal mass with a strength each; 1 is one strength for all samples.
        by: What cells are cut by: the ``confidence`` of a sample, or the L1 ``norm`` of its features.
        **options: Those of every :class:`~fedlas.losses.Loss`; ``num_samples`` and ``num_epochs`` for a base that needs
            them.

    Attributes:
        base: The loss.
        strengths: Buffer ``(num_cells,)`` float32.
        edges: Buffer ``(num_cells - 1,)`` float32, upper edges of all cells but the last.

    State:
        Buffers change in :meth:`update_from_validation` only. Under DDP each rank must pass the same predictions, as
        the training loop does. They stay float32 through ``.half()``.

    Raises:
        InputError: If the base has no strength, or an argument is out of range. With cells by norm, if validation
            predictions hold no features.

    Note:
        Until the first validation every cell has the base's strength. Held-out data that set the strength are spent
        for measuring calibration; report on others.

    Example:
        >>> criterion = Controlled(base={"name": "ls", "alpha": 0.05})
        >>> logits = torch.tensor([[4.0, 0.0], [4.0, 0.0]])
        >>> criterion.update_from_validation(Predictions(logits, torch.tensor([0, 1])))  # sure, and half of them wrong
        >>> criterion.strengths
        tensor([0.2910])
    """

    precise: ClassVar[tuple[str, ...]] = ("strengths", "edges")
    strengths: Tensor
    edges: Tensor

    def __init__(
        self,
        *,
        num_classes: int | None = None,
        base: Base = "ls",
        rate: float = 0.5,
        low: float = 0.0,
        high: float | None = None,
        num_cells: int = 1,
        by: CellsBy = "confidence",
        **options: Unpack[BaseOptions],
    ) -> None:
        super().__init__(base, num_classes=num_classes, **options)
        name, strength = type(self).__name__, self.base.strength
        if strength is None:
            able = [entry.name for entry in LOSSES.entries() if entry.value.strength is not None]
            raise InputError(name, "base must have a strength", self.base, f"Choose one of: {', '.join(able)}.")
        self.rate = check_number(name, "rate", rate, low=0)
        bound = min(self.base.strength_bound, 1.0) if high is None else high
        self.high = check_number(name, "high", bound, high=self.base.strength_bound)
        self.low = check_number(name, "low", low, high=self.high)
        self.num_cells = check_count(name, "num_cells", num_cells)
        self.by: CellsBy = check_choice(name, "by", by, get_args(CellsBy))
        if self._by_norm:
            self.needs = self.needs | {"features"}  # type: ignore[misc]  # the needs depend on the options
        start = min(max(float(getattr(self.base, strength)), self.low), self.high)
        self.register_buffer("strengths", torch.full((self.num_cells,), start, dtype=torch.float32))
        self.register_buffer("edges", torch.zeros(self.num_cells - 1, dtype=torch.float32))

    @property
    def learns_from_held_out_features(self) -> bool:
        """Whether :meth:`update_from_validation` needs features in the predictions."""
        return self._by_norm or super().learns_from_held_out_features

    @property
    def _by_norm(self) -> bool:
        return self.by == "norm" and self.num_cells > 1

    def per_sample(self, batch: Batch) -> Tensor:
        """Loss of each position ``(M,)``."""
        batch.check_classes(type(self).__name__, self.num_classes)
        if self.num_cells == 1:
            each = self.strengths.to(batch.logits.dtype).expand(len(batch.logits))
            return self.base.with_strength(batch, each)
        if self._by_norm:
            rank = batch.at_positions(_norm(batch.need(type(self).__name__, "features")))
        else:
            rank = batch.logits.detach().softmax(dim=1).amax(dim=1)
        cell = torch.bucketize(rank.to(self.edges.dtype), self.edges)
        return self.base.with_strength(batch, self.strengths[cell].to(batch.logits.dtype))

    @torch.no_grad()
    def update_from_validation(self, predictions: Predictions) -> None:
        """Move the strength of each cell by its gap, and cut new cells.

        Args:
            predictions: Of the validation set, after an epoch; never of the test set.

        Raises:
            InputError: With cells by norm, if they hold no features. Nothing has changed then.
        """
        predictions = check_predictions(type(self).__name__, predictions)
        confidence, correct = predictions.confidence.cpu().float(), predictions.correct.cpu()
        rank = confidence
        if self._by_norm:
            if predictions.features is None:
                name, fix = type(self).__name__, "Pass predict(..., features=True), or cut cells by confidence."
                raise InputError(name, "cells by norm need the features of the validation samples", "none", fix)
            rank = _norm(predictions.features).cpu().float()
        edges = equal_mass_edges(rank, self.num_cells)
        gap, filled = calibration_gaps(torch.bucketize(rank, edges), confidence, correct, self.num_cells)
        old = self.strengths.cpu().double()
        self.strengths.copy_(torch.where(filled, (old + self.rate * gap).clamp(self.low, self.high), old))
        self.edges.copy_(edges)
        super().update_from_validation(predictions)
        self._note_validation()


def _norm(features: Tensor) -> Tensor:
    """Mean absolute feature of each row ``(N,)``: the L1 norm up to a constant."""
    return features.detach().flatten(1).abs().mean(dim=1)
