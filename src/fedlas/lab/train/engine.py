"""How an objective runs on the processes of a run: copies of it, batches cut to what fits, gradients averaged."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from fedlas._core.check import InputError, describe
from fedlas.lab.train.config import TrainConfig
from fedlas.objective import Objective


class Engine:
    """Every process holds the whole objective; gradients are averaged over processes (DDP, or nothing for one).

    Args:
        objective: What is trained; moved to channels-last if the configuration says so.
        config: ``accumulate``, ``channels_last``, ``compile`` and ``precision`` matter here.
        accelerator: ``accelerate.Accelerator``.

    Attributes:
        wrapped: What is called in training, once :meth:`start` was.
        optimizer: What is stepped, once :meth:`start` was.

    Note:
        A batch is cut into ``accumulate`` parts that run one after the other, and the loss of each is weighed by its
        share of the step's samples over all processes. So for a criterion that averages over samples the step's
        gradient is that of the whole batch in one piece, up to rounding, however the samples are divided. It is only
        approximately that where a mean divides by something else than the number of samples (class weights, or ignored
        targets, that the parts hold unequal shares of).
    """

    wrapped: nn.Module
    optimizer: Any

    def __init__(self, objective: Objective, config: TrainConfig, accelerator: Any) -> None:
        self.objective, self.config, self.accelerator = objective, config, accelerator
        self.processes = int(accelerator.num_processes)
        if config.channels_last:
            objective.model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # not in torch's stubs

    def start(self, optimizer: torch.optim.Optimizer) -> None:
        """Get ready to train with an optimizer over the objective's parameters.

        State:
            With ``compile`` what was compiled in this process before is forgotten: every run brings modules of its own,
            and after a few of them torch would give up compiling and run the rest uncompiled.
        """
        self.wrapped, self.optimizer = self.accelerator.prepare(self.objective, optimizer)
        if self.config.compile:
            torch._dynamo.reset()
            self.wrapped = torch.compile(self.wrapped)  # type: ignore[assignment]  # a module in, a module out

    def parts(self, inputs: Any, target: Tensor, index: Any) -> Iterator[tuple[Any, Tensor, Any, Any]]:
        """Cut a batch of this process into parts ``(inputs, target, index, share)``, the same number on every process.

        Args:
            inputs: ``(B, ...)``; anything if the batch is not cut.
            target: ``(B, ...)``.
            index: ``(B,)``, or None.

        Raises:
            InputError: If inputs that are no tensor are to be cut.

        Note:
            ``share`` is None where nothing is cut and no other process works along. A batch with fewer samples a
            process than ``accumulate`` makes fewer parts. A collective.
        """
        pieces, fewest = self.config.accumulate, len(target)
        total: Any = len(target)
        if self.processes > 1:
            each = self.accelerator.gather(torch.tensor([len(target)], device=target.device))
            total = each.sum()
            if pieces > 1:  # looked at only if there is something to cut, since looking stalls an accelerator
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
        if pieces == 1:
            yield inputs, target, index, None if self.processes == 1 else len(target) * self.processes / total
            return
        indices = [None] * pieces if index is None else index.tensor_split(pieces)
        for part in zip(inputs.tensor_split(pieces), target.tensor_split(pieces), indices, strict=True):
            yield *part, len(part[1]) * self.processes / total

    def collecting(self, last: bool) -> AbstractContextManager[Any]:
        """A context for forward and backward pass of a part: gradients are exchanged in the step's last one only."""
        if last or self.processes == 1:
            return nullcontext()
        return self.accelerator.no_sync(self.wrapped)

    def backward(self, loss: Tensor, share: Any) -> None:
        """Add the gradient of a part's loss, weighed by its share."""
        self.accelerator.backward(loss if share is None else loss * share)

    def step(self, clip_norm: float | None) -> None:
        """Make the optimizer's step with what has been collected."""
        if clip_norm is not None:
            self.accelerator.clip_grad_norm_(self.wrapped.parameters(), clip_norm)
        self.optimizer.step()
        self.optimizer.zero_grad()
