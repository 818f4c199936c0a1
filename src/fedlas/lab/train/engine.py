"""The engine of a training step: copies of the objective on all processes, parts of batches, averaged gradients."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn

from fedlas._core.check import InputError, describe
from fedlas.lab.train.config import TrainConfig
from fedlas.lab.train.machine import emulation_warning, suited
from fedlas.objective import Objective

__all__ = ["Engine"]


class Engine:
    """Runs the steps of training. Every process holds the whole objective; DDP averages gradients over processes.

    Args:
        objective: Model and criterion; moved to channels-last if the configuration says so.
        config: ``accumulate``, ``channels_last``, ``compile`` and ``precision`` are used; what they leave open is
            decided for the accelerator's device.
        accelerator: ``accelerate.Accelerator``.

    Attributes:
        config: The configuration, decided.
        wrapped: Module to call in training, after :meth:`start`.
        optimizer: Optimizer to step, after :meth:`start`.

    Note:
        A batch is cut into ``accumulate`` parts that run one after the other. The loss of each part is weighted by its
        share of the step's samples over all processes. So for a criterion that averages over samples, the step's
        gradient is that of the whole batch up to rounding, however the samples are divided. It is approximate if the
        mean divides by something other than the number of samples: class weights, or ignored targets, of which the
        parts have unequal shares.
    """

    wrapped: nn.Module
    optimizer: torch.optim.Optimizer

    def __init__(self, objective: Objective, config: TrainConfig, accelerator: Any) -> None:
        self.objective, self.config, self.accelerator = objective, suited(config, accelerator.device), accelerator
        self.processes = int(accelerator.num_processes)
        precision, device = self.config.precision, accelerator.device
        emulated = emulation_warning(precision, device)
        if emulated is not None and accelerator.is_main_process:
            _warn(emulated)
        if self.config.channels_last:
            objective.model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # not in torch's stubs

    def start(self, optimizer: torch.optim.Optimizer) -> None:
        """Prepare training with an optimizer over the objective's parameters.

        State:
            With ``compile``, torch forgets what this process compiled before. Every run has its own modules, and after
            a few of them torch would stop compiling and run the others uncompiled.
        """
        # Accelerate's own optimizer and backward pass look for packages at each step, which takes a small model's time.
        self.wrapped, self.optimizer = self.accelerator.prepare(self.objective), optimizer
        if self.config.compile:
            torch._dynamo.reset()
            self.wrapped = torch.compile(self.wrapped)  # type: ignore[assignment]  # a module in, a module out

    def autocast(self) -> AbstractContextManager[Any]:
        """A context for the forward pass, in the configuration's precision."""
        return torch.autocast(self.accelerator.device.type, torch.bfloat16, enabled=self.config.precision == "bf16")

    def parts(self, inputs: Any, target: Tensor, index: Any) -> Iterator[tuple[Any, Tensor, Any, Any]]:
        """Cut a batch of this process into parts ``(inputs, target, index, share)``, the same number on every process.

        Args:
            inputs: ``(B, ...)``; of any type if the batch is not cut.
            target: ``(B, ...)``.
            index: ``(B,)``, or None.

        Raises:
            InputError: If inputs must be cut and are not a tensor.

        Note:
            A collective. ``share`` is None if nothing is cut and there is one process. A batch with fewer samples per
            process than ``accumulate`` has fewer parts.
        """
        # Every process needs the same number of parts, so the smallest slice of the batch decides it.
        pieces, fewest = self.config.accumulate, len(target)
        total: Any = len(target)
        if self.processes > 1:
            each = self.accelerator.gather(torch.tensor([len(target)], device=target.device))
            total = each.sum()
            if pieces > 1:  # read only if there is something to cut, because reading stalls an accelerator
                fewest = int(each.min())
        pieces = max(1, min(pieces, fewest))
        if pieces > 1 and not isinstance(inputs, Tensor):
            raise InputError(
                "training",
                "inputs must be one tensor to be cut by train.accumulate",
                describe(inputs),
                "Set train.accumulate=1.",
            )
        if self.config.channels_last and isinstance(inputs, Tensor) and inputs.ndim == 4:
            inputs = inputs.contiguous(memory_format=torch.channels_last)

        # DDP averages over processes: times their number, the sum of the weighted losses is the mean over all samples.
        if pieces == 1:
            yield inputs, target, index, None if self.processes == 1 else len(target) * self.processes / total
            return
        indices = [None] * pieces if index is None else index.tensor_split(pieces)
        for part in zip(inputs.tensor_split(pieces), target.tensor_split(pieces), indices, strict=True):
            yield *part, len(part[1]) * self.processes / total

    def collecting(self, last: bool) -> AbstractContextManager[Any]:
        """A context for the forward and backward pass of a part: only the step's last part exchanges gradients."""
        if last or self.processes == 1:
            return nullcontext()
        return self.accelerator.no_sync(self.wrapped)

    def backward(self, loss: Tensor, share: Any) -> None:
        """Add the gradient of a part's loss, weighted by its share."""
        (loss if share is None else loss * share).backward()

    def step(self, clip_norm: float | None) -> None:
        """Step the optimizer with the collected gradients."""
        if clip_norm is not None:
            nn.utils.clip_grad_norm_(self.wrapped.parameters(), clip_norm)
        self.optimizer.step()
        self.optimizer.zero_grad()


@lru_cache(maxsize=16)
def _warn(text: str) -> None:
    """Once, however many runs it concerns."""
    logging.getLogger("fedlas").warning("%s", text)
