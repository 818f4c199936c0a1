"""Several processes on one run: the main one touches the disk and speaks, the others follow it."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, TypeVar

import torch

from fedlas._core.check import InputError
from fedlas._core.extras import require

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
            "launcher",
            "each process must hold the whole model",
            "accelerate launch --use_fsdp",
            "Write --multi_gpu in its place; if memory is short, set train.accumulate and train.precision=bf16.",
        )
    return require("accelerate", extra="bench").Accelerator(mixed_precision="no", cpu=not has_accelerator())


def has_accelerator() -> bool:
    """Return whether there is a GPU, or another device that is not the processor."""
    if hasattr(torch, "accelerator"):  # since torch 2.6
        return bool(torch.accelerator.is_available())
    return torch.cuda.is_available() or torch.backends.mps.is_available()


def on_main(accelerator: Any, action: Callable[[], T]) -> T:
    """Do something on the main process only, and give its result to all.

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


def gather_object(accelerator: Any, value: Any) -> list[Any]:
    """Return ``value`` of every process, in the order of ranks, on every process."""
    if accelerator.num_processes == 1:
        return [value]
    gathered: list[Any] = require("accelerate.utils", extra="bench").gather_object([value])
    return gathered
