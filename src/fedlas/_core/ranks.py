"""Helpers for distributed runs: collectives over ranks, and work on the main process."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from fedlas._core.check import InputError
from fedlas._core.extras import require

if TYPE_CHECKING:
    from accelerate import Accelerator as Accelerator
else:
    Accelerator = Any

T = TypeVar("T")


def new_accelerator() -> Any:
    """Return an ``accelerate.Accelerator`` over all processes that ``torchrun`` or ``accelerate launch`` started.

    Note:
        Without a device accelerate must be told that the processor is meant: it would take each of the processes for a
        run of its own. Precision is the training loop's affair.

    Raises:
        InputError: Under ``accelerate launch --use_fsdp``: models are not divided among processes.
    """
    if os.environ.get("ACCELERATE_USE_FSDP", "").lower() in ("1", "true", "yes"):
        raise InputError(
            "fully sharded training is not supported: each process must hold the whole model",
            "accelerate launch --use_fsdp",
            "Use --multi_gpu instead; to save memory, set train.accumulate and train.precision=bf16.",
        )
    return require("accelerate", extra="bench").Accelerator(
        mixed_precision="no", cpu=not has_accelerator()
    )


def has_accelerator() -> bool:
    """Return whether a GPU or another accelerator device is available."""
    if hasattr(torch, "accelerator"):  # since torch 2.6
        return bool(torch.accelerator.is_available())
    return torch.cuda.is_available() or torch.backends.mps.is_available()


def run_on_main(accelerator: Accelerator, action: Callable[[], T]) -> T:
    """Run ``action`` on the main process and return its result on every process.

    Args:
        accelerator: ``accelerate.Accelerator``.
        action: Called without arguments; what it returns must be picklable when there are several processes.

    Raises:
        InputError: On every process, if ``action`` raised it on the main one: none is left waiting for the others.

    Note:
        A collective: every process must call it.
    """
    outcome: list[Any] = [None, None]
    if accelerator.is_main_process:
        try:
            outcome[0] = action()
        except InputError as error:
            outcome[1] = error
    if accelerator.num_processes > 1:
        require("accelerate.utils", extra="bench").broadcast_object_list(outcome)
    result, failure = outcome
    if failure is not None:
        raise failure
    value: T = result
    return value


def gather_object(accelerator: Accelerator, value: Any) -> list[Any]:
    """Return a list of the ``value`` of each process, in the order of ranks, on every process."""
    if accelerator.num_processes == 1:
        return [value]
    gathered: list[Any] = require("accelerate.utils", extra="bench").gather_object([value])
    return gathered


def world_size() -> int:
    """Return the size of the default process group, or 1 without one."""
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


def sum_across_ranks_differentiably(value: Tensor) -> Tensor:
    """Return the sum of ``value`` over all ranks, with a gradient that is summed over all ranks as well.

    Note:
        The backward pass is a collective too.
    """
    total: Tensor = value if world_size() == 1 else _DifferentiableSum.apply(value)
    return total


class _DifferentiableSum(torch.autograd.Function):
    @staticmethod
    def forward(_context: object, value: Tensor) -> Tensor:
        return sum_across_ranks(value)

    @staticmethod
    def backward(_context: object, gradient: Tensor) -> Tensor:
        return sum_across_ranks(gradient)


def gather_across_ranks(value: Tensor) -> Tensor:
    """Return the tensors of all ranks concatenated along the first axis (``value`` itself without a process group).

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
