"""Base classes of losses that mix the label with a second soft target, and the memory of past predictions."""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar, Unpack

import torch
import torch.nn.functional as F
from torch import Tensor

from fedlas._core.check import InputError, check_count, check_number
from fedlas._core.ranks import gather_across_ranks
from fedlas.losses._base.batch import Batch, can_read_values, cross_entropy
from fedlas.losses._base.loss import LossOptions, LossWithStrength, PreciseBuffers


class SecondTargetLoss(LossWithStrength):
    """Cross-entropy on ``(1 - alpha) t + alpha q`` with a soft target ``q`` per sample; 1/C gives label smoothing."""

    strength_bound = 1.0

    def __init__(self, *, alpha: float, gamma: float = 0.0, **options: Unpack[LossOptions]) -> None:
        super().__init__(**options)
        self.alpha = check_number("alpha", alpha, low=0, high=1)
        self.gamma = check_number("gamma", gamma, low=0)

    @abstractmethod
    def second_target(self, batch: Batch) -> tuple[Tensor, Tensor | None]:
        """Return detached second targets ``q (M, C)`` and a mask ``(M,)`` of positions with one, or None for all."""

    def mix_targets(self, q: Tensor, label: Tensor, strength: Tensor) -> Tensor:
        """Return ``(1 - strength) label + strength q``, ``(M, C)``; labels are one-hot or soft, ``strength (M, 1)``."""
        return torch.lerp(label, q, strength)

    def with_strength(self, batch: Batch, strength: Tensor | float) -> Tensor:
        """Return the loss per position ``(M,)``, with ``strength``, a float or ``(M,)``, in place of alpha."""
        q, present = self.second_target(batch)
        label = batch.target_probs()
        share = torch.as_tensor(strength, dtype=q.dtype, device=q.device).expand(len(q))[:, None]
        target = self.mix_targets(q, label, share)
        if present is not None:  # samples without a second target keep the label
            target = torch.where(present[:, None], target, label)
        values = cross_entropy(batch.logits, target, batch.weight)
        return (
            target_distance(batch.logits, target) ** self.gamma * values if self.gamma else values
        )


def target_distance(logits: Tensor, target: Tensor, *, norm: float = 2.0) -> Tensor:
    """Return the distance ``||t - p||_norm`` between target and prediction per row, ``(M,)``, without gradient.

    Args:
        logits: ``(M, C)``.
        target: Class indices ``(M,)``, or soft targets ``(M, C)``.
        norm: Order, at least 1.
    """
    with torch.no_grad():
        probs = F.softmax(logits, dim=1)
        gap = probs - (target if target.ndim == 2 else F.one_hot(target, probs.shape[1]))
        return torch.linalg.vector_norm(gap, norm, dim=1)


class PredictionMemoryLoss(SecondTargetLoss):
    """Base class of losses whose second target is stored per training sample, as class probabilities in a memory."""

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

    def new_memory_rows(
        self,
        rows: Tensor,  # noqa: ARG002 (arguments are for subclasses)
        visits: Tensor,  # noqa: ARG002
        probs: Tensor,  # noqa: ARG002
        batch: Batch,  # noqa: ARG002
    ) -> Tensor | None:
        """Return the probabilities ``(M, C)`` to store for a batch, or None to leave the memory unchanged.

        Args:
            rows: Stored probabilities ``(M, C)``.
            visits: How often each sample was stored so far, ``(M,)``.
            probs: Current predictions ``(M, C)``.
            batch: The batch.
        """
        return None

    def second_target(self, batch: Batch) -> tuple[Tensor, Tensor | None]:
        """Return stored probabilities ``(M, C)`` and a mask ``(M,)`` of seen samples; in training update the memory."""
        rows, visits = self.memory.recall(batch)
        if self.training and torch.is_grad_enabled():
            new = self.new_memory_rows(rows, visits, F.softmax(batch.logits.detach(), dim=1), batch)
            if new is not None:
                self.memory.record(batch.require("index"), new, batch.valid)
        return rows, visits > 0


def check_index(index: Tensor, num_samples: int) -> None:
    """Raise InputError if an index ``(N,)`` is outside the training set; checked on CPU only."""
    if can_read_values(index):
        low, high = (int(bound) for bound in index.aminmax())
        if low < 0 or high >= num_samples:
            raise InputError(
                f"index must be in [0, {num_samples}), the range of the training set",
                f"values from {low} to {high}",
                "Build the loss with num_samples = the size of the training set. A data set whose samples have no "
                "fixed position, such as a stream, cannot be used.",
            )


class PredictionMemory(PreciseBuffers):
    """Memory of class probabilities, one row per training sample, synchronized across ranks.

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
        """Return stored probabilities ``(M, C)`` and visit counts ``(M,)`` of a batch; 0 for unseen samples."""
        batch.check_num_classes(self.num_classes)
        if batch.index is None:  # in evaluation
            return torch.zeros_like(batch.logits), torch.zeros_like(batch.logits[:, 0])
        index = batch.require("index")
        if len(index) != len(batch.logits):
            raise InputError(
                "logits must be (N, C), because the loss stores one prediction per sample",
                f"{len(batch.logits)} positions for {len(index)} samples",
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
        """Store probabilities ``rows (M, C)`` of the samples at ``index``, except where ``valid (M,)`` is False."""
        # Ignored samples write their old row back: selecting the others would make shapes depend on data.
        visits = self.visits[index] + (1 if valid is None else valid.to(self.visits.dtype))
        rows = rows.to(self.rows.dtype)
        if valid is not None:
            rows = torch.where(valid[:, None], rows, self.rows[index])
        index, rows, visits = (gather_across_ranks(part) for part in (index, rows, visits))
        self.rows[index] = rows
        self.visits[index] = visits
