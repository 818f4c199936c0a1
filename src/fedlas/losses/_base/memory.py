"""The model's predictions for each training sample at earlier visits."""

from __future__ import annotations

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from fedlas._core.check import InputError, check_count
from fedlas._core.collective import gather_across_ranks
from fedlas.losses._base.batch import can_look
from fedlas.losses._base.precise import PreciseBuffers


def check_index(owner: str, index: Tensor, num_samples: int) -> None:
    """Refuse positions ``(N,)`` outside the training set; on an accelerator nothing is read.

    Raises:
        InputError: If one is outside ``[0, num_samples)``.
    """
    if can_look(index):
        low, high = (int(bound) for bound in index.aminmax())
        if low < 0 or high >= num_samples:
            raise InputError(
                owner,
                f"index must be in [0, {num_samples}), the positions in the training set",
                f"values from {low} to {high}",
                "Build the loss with num_samples = the size of the training set. A data set whose samples have no "
                "fixed position, such as a stream, cannot be used.",
            )


class PredictionMemory(PreciseBuffers):
    """One row of class probabilities for each training sample, shared by all ranks.

    Args:
        owner: Name of the loss, for errors.
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

    def __init__(self, owner: str, *, num_classes: int, num_samples: int) -> None:
        super().__init__()
        self.owner = owner
        self.num_samples = check_count(owner, "num_samples", num_samples)
        self.num_classes = check_count(owner, "num_classes", num_classes)
        self.register_buffer("rows", torch.zeros(self.num_samples, self.num_classes, dtype=torch.float16))
        self.register_buffer("visits", torch.zeros(self.num_samples, dtype=torch.int32))

    def recall(self, index: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Rows ``(M, C)``, which sum to 1, and visits ``(M,)`` of the samples at ``index``; rows of new ones are 0.

        Raises:
            InputError: On CPU, if an index is outside ``[0, N)``.
        """
        check_index(self.owner, index, self.num_samples)
        # Compiled code may read a small memory again in backward, after record() has changed it. Of all ways to gather
        # rows, the compiler never repeats this one.
        rows = F.embedding(index.to(self.rows.device), self.rows).to(dtype)
        # Half precision rounds: a row that no longer sums to 1 would scale its sample's loss.
        return rows / rows.sum(dim=1, keepdim=True).clamp(min=1e-6), self.visits[index]

    @torch.no_grad()
    def record(self, index: Tensor, rows: Tensor, valid: Tensor | None) -> None:
        """Replace the rows of the samples at ``index`` by ``rows (M, C)``; only where ``valid (M,)``."""
        # Ignored samples write back what is there: selecting the others would make shapes depend on data.
        visits = self.visits[index] + (1 if valid is None else valid.to(self.visits.dtype))
        rows = rows.to(self.rows.dtype)
        if valid is not None:
            rows = torch.where(valid[:, None], rows, self.rows[index])
        index, rows, visits = (gather_across_ranks(part) for part in (index, rows, visits))
        self.rows[index] = rows
        self.visits[index] = visits
