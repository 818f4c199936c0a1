"""Losses whose target mixes the label with a second one, and the memory of earlier predictions behind some of them."""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar, Unpack

import torch
import torch.nn.functional as F
from torch import Tensor

from fedlas._core.check import InputError, check_count, check_number
from fedlas._core.ranks import gather_across_ranks
from fedlas.losses._base.batch import Batch, can_look, cross_entropy
from fedlas.losses._base.loss import LossOptions, LossWithStrength, PreciseBuffers


class Informed(LossWithStrength):
    """``CE((1 - alpha) t + alpha q, p)`` with a second target ``q`` for each sample; label smoothing has 1/C there."""

    strength_bound = 1.0

    def __init__(self, *, alpha: float, gamma: float = 0.0, **options: Unpack[LossOptions]) -> None:
        super().__init__(**options)
        self.alpha = check_number("alpha", alpha, low=0, high=1)
        self.gamma = check_number("gamma", gamma, low=0)

    @abstractmethod
    def second_target(self, batch: Batch) -> tuple[Tensor, Tensor | None]:
        """Return ``q (M, C)`` without gradient, and which positions have one ``(M,)`` bool; None if all have."""

    def targets(self, q: Tensor, label: Tensor, strength: Tensor) -> Tensor:
        """Mix labels ``(M, C)``, one-hot or soft, with second targets, by ``strength (M, 1)``: ``(M, C)``."""
        return torch.lerp(label, q, strength)

    def with_strength(self, batch: Batch, strength: Tensor | float) -> Tensor:
        """Return the loss of each position ``(M,)`` with another alpha, a float or ``(M,)``."""
        q, present = self.second_target(batch)
        label = batch.probabilities()
        share = torch.as_tensor(strength, dtype=q.dtype, device=q.device).expand(len(q))[:, None]
        target = self.targets(q, label, share)
        if present is not None:  # without a second target the label is the only one
            target = torch.where(present[:, None], target, label)
        values = cross_entropy(batch.logits, target, batch.weight)
        return (
            target_distance(batch.logits, target) ** self.gamma * values if self.gamma else values
        )


def target_distance(logits: Tensor, target: Tensor, *, norm: float = 2.0) -> Tensor:
    """Return ``||t - p||_norm`` of each row ``(M,)``, without a gradient.

    Args:
        logits: ``(M, C)``.
        target: Class indices ``(M,)``, or soft targets ``(M, C)``.
        norm: Order, at least 1.
    """
    with torch.no_grad():
        probs = F.softmax(logits, dim=1)
        gap = probs - (target if target.ndim == 2 else F.one_hot(target, probs.shape[1]))
        return torch.linalg.vector_norm(gap, norm, dim=1)


class Remembering(Informed):
    """An informed loss whose ``q`` is a row of class probabilities for each training sample, in a memory."""

    needs = frozenset({"index"})

    def __init__(
        self,
        *,
        num_classes: int,
        num_samples: int,
        alpha: float = 0.3,
        gamma: float = 0.0,
        **options: Unpack[LossOptions],
    ) -> None:
        super().__init__(alpha=alpha, gamma=gamma, **options)
        self.memory = PredictionMemory(num_classes=num_classes, num_samples=num_samples)

    def updated(self, rows: Tensor, visits: Tensor, probs: Tensor, batch: Batch) -> Tensor | None:  # noqa: ARG002 (for subclasses)
        """Return the rows ``(M, C)`` to remember, from earlier rows, their number of visits, and the prediction.

        None leaves the memory unchanged.
        """
        return None

    def second_target(self, batch: Batch) -> tuple[Tensor, Tensor | None]:
        """Recall the rows; in training also record this visit."""
        rows, visits = self.memory.recall(batch)
        if self.training and torch.is_grad_enabled():
            new = self.updated(rows, visits, F.softmax(batch.logits.detach(), dim=1), batch)
            if new is not None:
                self.memory.record(batch.need("index"), new, batch.valid)
        return rows, visits > 0


def check_index(index: Tensor, num_samples: int) -> None:
    """Refuse positions ``(N,)`` outside the training set; on an accelerator nothing is read."""
    if can_look(index):
        low, high = (int(bound) for bound in index.aminmax())
        if low < 0 or high >= num_samples:
            raise InputError(
                f"index must be in [0, {num_samples}), the positions in the training set",
                f"values from {low} to {high}",
                "Build the loss with num_samples = the size of the training set. A data set whose samples have no "
                "fixed position, such as a stream, cannot be used.",
            )


class PredictionMemory(PreciseBuffers):
    """One row of class probabilities for each training sample, shared by all ranks.

    Args:
        num_classes: C.
        num_samples: Size N of the training set.

    Attributes:
        rows: Buffer ``(N, C)`` float16: ``2 N C`` bytes, also in every checkpoint (1 MB for CIFAR-10, 10 for
            CIFAR-100).
        visits: Buffer ``(N,)`` int32, how often each sample was recorded.

    State:
        Changed by :meth:`record` alone, in place. Under DDP every rank records the samples of all ranks.
    """

    precise: ClassVar[tuple[str, ...]] = ("rows", "visits")
    rows: Tensor
    visits: Tensor

    def __init__(self, *, num_classes: int, num_samples: int) -> None:
        super().__init__()
        self.num_samples = check_count("num_samples", num_samples)
        self.num_classes = check_count("num_classes", num_classes)
        self.register_buffer(
            "rows", torch.zeros(self.num_samples, self.num_classes, dtype=torch.float16)
        )
        self.register_buffer("visits", torch.zeros(self.num_samples, dtype=torch.int32))

    def recall(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return rows ``(M, C)``, which sum to 1, and visits ``(M,)`` of a batch's samples; both are 0 of new ones."""
        batch.check_classes(self.num_classes)
        if batch.index is None:  # in evaluation
            return torch.zeros_like(batch.logits), torch.zeros_like(batch.logits[:, 0])
        index = batch.need("index")
        if len(index) != len(batch.logits):
            raise InputError(
                "it remembers one prediction a sample, so logits must be (N, C)",
                f"{len(batch.logits)} positions of {len(index)} samples",
                "Use a loss without a memory, such as ls, for dense outputs.",
            )
        check_index(index, self.num_samples)
        # Compiled code may read a small memory again in backward, after record() has changed it. Of all ways to gather
        # rows, the compiler never repeats this one.
        rows = F.embedding(index.to(self.rows.device), self.rows).to(batch.logits.dtype)
        # Half precision rounds: a row that no longer sums to 1 would scale its sample's loss.
        return rows / rows.sum(dim=1, keepdim=True).clamp(min=1e-6), self.visits[index]

    @torch.no_grad()
    def record(self, index: Tensor, rows: Tensor, valid: Tensor | None) -> None:
        """Replace the rows of the samples at ``index`` by ``rows (M, C)``; only where ``valid (M,)``."""
        # Ignored samples write their old row back: selecting the others would make shapes depend on data.
        visits = self.visits[index] + (1 if valid is None else valid.to(self.visits.dtype))
        rows = rows.to(self.rows.dtype)
        if valid is not None:
            rows = torch.where(valid[:, None], rows, self.rows[index])
        index, rows, visits = (gather_across_ranks(part) for part in (index, rows, visits))
        self.rows[index] = rows
        self.visits[index] = visits
