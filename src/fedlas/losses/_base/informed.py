"""Losses whose target mixes the label with a second one, which depends on the sample or on its class."""

from __future__ import annotations

from abc import abstractmethod
from typing import Unpack

import torch
import torch.nn.functional as F
from torch import Tensor

from fedlas._core.check import InputError, check_number
from fedlas.losses._base.batch import Batch
from fedlas.losses._base.loss import LossOptions
from fedlas.losses._base.memory import PredictionMemory
from fedlas.losses._base.smoothed import smoothed_nll
from fedlas.losses._base.strength import LossWithStrength


class Informed(LossWithStrength):
    """``CE((1 - alpha) t + alpha q, p)`` with a second target ``q`` for each sample; label smoothing has 1/C there.

    Args:
        alpha: Weight of the second target, in [0, 1].
        gamma: Above 0, each sample's loss is multiplied by the distance between this target and p to that power.
        **options: Those of every loss. Class weights apply to both parts class by class.
    """

    strength_bound = 1.0

    def __init__(self, *, alpha: float, gamma: float = 0.0, **options: Unpack[LossOptions]) -> None:
        super().__init__(**options)
        self.alpha = check_number(type(self).__name__, "alpha", alpha, low=0, high=1)
        self.gamma = check_number(type(self).__name__, "gamma", gamma, low=0)

    @abstractmethod
    def second_target(self, batch: Batch) -> tuple[Tensor, Tensor | None]:
        """``q (M, C)`` without a gradient, and for which positions there is one ``(M,)`` bool; None is for all."""

    def with_strength(self, batch: Batch, strength: Tensor | float) -> Tensor:
        """Loss of each position ``(M,)`` with another alpha, a float or ``(M,)``."""
        q, there = self.second_target(batch)
        label = batch.cross_entropy()
        if there is not None:  # without a second target the label is the only one
            strength = torch.where(there, strength, 0.0)
        mixed = label + strength * (smoothed_nll(batch.logits, q, 0.0, batch.weight) - label)
        if not self.gamma:
            return mixed
        onehot = batch.target if batch.soft else F.one_hot(batch.target, q.shape[1]).to(q.dtype)
        share = torch.as_tensor(strength, dtype=q.dtype, device=q.device).detach().reshape(-1, 1)
        return target_distance(batch.logits, torch.lerp(onehot, q, share)) ** self.gamma * mixed


def target_distance(logits: Tensor, target: Tensor, *, norm: float = 2.0) -> Tensor:
    """``||t - p||_norm`` of each row ``(M,)``, without a gradient.

    Args:
        logits: ``(M, C)``.
        target: Class indices ``(M,)``, or soft targets ``(M, C)``.
        norm: Order, at least 1.
    """
    with torch.no_grad():
        probs = F.softmax(logits, dim=1)
        gap = probs - (target if target.ndim == 2 else F.one_hot(target, probs.shape[1]))
        distance: Tensor = torch.linalg.vector_norm(gap, norm, dim=1)
        return distance


class Remembering(Informed):
    """An informed loss whose ``q`` comes from a memory of the model's own predictions.

    Args:
        num_classes: Number of classes C.
        num_samples: Size of the training set that ``index`` points into.
        alpha: As in :class:`Informed`.
        gamma: As there.
        **options: As there.
    """

    needs = frozenset({"index"})

    def __init__(
        self, *, num_classes: int, num_samples: int, alpha: float, gamma: float = 0.0, **options: Unpack[LossOptions]
    ) -> None:
        super().__init__(alpha=alpha, gamma=gamma, **options)
        self.memory = PredictionMemory(type(self).__name__, num_classes=num_classes, num_samples=num_samples)

    @abstractmethod
    def updated(self, rows: Tensor, visits: Tensor, probs: Tensor, batch: Batch) -> Tensor:
        """The rows ``(M, C)`` to remember, from those of before, how often they were recorded, and the prediction."""

    def second_target(self, batch: Batch) -> tuple[Tensor, Tensor | None]:
        """Recall, and in training record this visit afterward."""
        rows, visits = recalled(self, self.memory, batch)
        if self.training and torch.is_grad_enabled():
            new = self.updated(rows, visits, F.softmax(batch.logits.detach(), dim=1), batch)
            self.memory.record(batch.need(type(self).__name__, "index"), new, batch.valid)
        return rows, visits > 0


def recalled(loss: Informed, memory: PredictionMemory, batch: Batch) -> tuple[Tensor, Tensor]:
    """Rows ``(N, C)`` of a batch and how often each was recorded.

    Raises:
        InputError: For another number of classes, dense logits, or on CPU an index outside the training set.
    """
    name = type(loss).__name__
    batch.check_classes(name, memory.num_classes)
    index = batch.need(name, "index")
    if len(index) != len(batch.logits):
        raise InputError(
            name,
            "it remembers one prediction a sample, so logits must be (N, C)",
            f"{len(batch.logits)} positions of {len(index)} samples",
            "Use a loss without a memory, such as ls, for dense outputs.",
        )
    return memory.recall(index, batch.logits.dtype)
