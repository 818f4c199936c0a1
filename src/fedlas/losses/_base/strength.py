"""Losses whose strength can be set for each sample: the bases that FedLAS can modulate."""

from __future__ import annotations

from abc import abstractmethod

from torch import Tensor

from fedlas.losses._base.batch import Batch
from fedlas.losses._base.loss import Loss


class LossWithStrength(Loss):
    """A loss with one option that sets its strength, named by ``strength``; a subclass writes ``with_strength``."""

    strength = "alpha"

    def per_sample(self, batch: Batch) -> Tensor:
        """Loss of each position ``(M,)``."""
        return self.with_strength(batch, getattr(self, self.strength))

    @abstractmethod
    def with_strength(self, batch: Batch, strength: Tensor | float) -> Tensor:
        """Loss of each position ``(M,)`` with another strength, a float or one for each position ``(M,)``."""


class Penalized(LossWithStrength):
    """A classification loss plus ``alpha`` times a penalty; a subclass writes ``parts``.

    The penalty of a position is weighted like its cross-entropy.
    """

    @abstractmethod
    def parts(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """The weighted classification loss ``(M,)``, and the unweighted penalty ``(M,)`` or scalar."""

    def with_strength(self, batch: Batch, strength: Tensor | float) -> Tensor:
        """Loss of each position ``(M,)`` with another alpha, a float or one for each position ``(M,)``."""
        values, penalty = self.parts(batch)
        return values + strength * batch.weighted(penalty)
