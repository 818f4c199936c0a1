"""Sums and rows of all processes of a distributed run."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


def world_size() -> int:
    """Return the number of ranks in the default process group; 1 without one."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def sum_across_ranks(value: Tensor) -> Tensor:
    """Return the sum of ``value`` over all ranks of the default process group (``value`` itself without one).

    Args:
        value: Any shape, the same on every rank. Not differentiated: pass statistics, not activations.

    Note:
        This is a collective: every rank must call it equally often, or the others wait forever.
    """
    if world_size() == 1:
        return value
    total = value.detach().clone()
    dist.all_reduce(total)
    return total


def add_up_across_ranks(value: Tensor) -> Tensor:
    """As :func:`sum_across_ranks`, with a gradient: that of each rank's value is summed over the losses of all ranks.

    Note:
        The backward pass is a collective too.
    """
    total: Tensor = value if world_size() == 1 else _AddUp.apply(value)
    return total


class _AddUp(torch.autograd.Function):
    @staticmethod
    def forward(_context: Any, value: Tensor) -> Tensor:
        return sum_across_ranks(value)

    @staticmethod
    def backward(_context: Any, gradient: Tensor) -> Tensor:
        return sum_across_ranks(gradient)


def gather_across_ranks(value: Tensor) -> Tensor:
    """Return the rows of all ranks, in the order of the ranks (``value`` itself without a process group).

    Args:
        value: ``(N, ...)``; ``N`` may differ between ranks, the other sizes may not. Not differentiated.

    Note:
        A collective: every rank must call it equally often.
    """
    if world_size() == 1:
        return value
    value = value.detach().contiguous()
    sizes = [torch.zeros(1, dtype=torch.int64, device=value.device) for _ in range(world_size())]
    dist.all_gather(sizes, torch.tensor([len(value)], device=value.device))
    # Collectives take equal shapes, so short parts are padded and cut again.
    longest = max(int(size) for size in sizes)
    padded = torch.zeros((longest, *value.shape[1:]), dtype=value.dtype, device=value.device)
    padded[: len(value)] = value
    parts = [torch.empty_like(padded) for _ in sizes]
    dist.all_gather(parts, padded)
    return torch.cat([part[: int(size)] for part, size in zip(parts, sizes, strict=True)])
