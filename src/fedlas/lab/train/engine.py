"""Training step: precision and memory layout, optimizer, schedule, processes, gradient accumulation."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR

from fedlas._core.check import InputError, describe
from fedlas._core.ranks import Accelerator
from fedlas.lab.train.config import OptimizerConfig, Precision, ScheduleConfig, TrainConfig
from fedlas.lab.train.layers import layer_lr_factors, split_param_group
from fedlas.lab.train.log import warn_once
from fedlas.objective import Objective, param_groups

_CPU_BF16_CHECKS = {"_is_amx_tile_supported": "AMX", "_is_avx512_bf16_supported": "AVX512-BF16"}


def native_precision(device: torch.device) -> tuple[Precision, str]:
    """Return ``bf16`` where the device multiplies bfloat16 numbers in hardware, else ``fp32``; and the reason.

    Note:
        A GPU has bf16 from compute capability 8 (Ampere) on, or if it runs under ROCm; torch is requested without
        emulation. A processor has it with the instruction sets AMX or AVX512-BF16, as torch reads them from the
        processor itself. Nothing is timed, so the answer does not depend on what else the machine is doing. For any
        other device, Apple's and ARM processors included, it is fp32: bf16 was never measured there.
    """
    if device.type == "cuda":
        with torch.cuda.device(device):
            native = torch.cuda.is_bf16_supported(including_emulation=False)
            name = torch.cuda.get_device_name()
        return (
            ("bf16", f"{name} computes bf16 natively")
            if native
            else ("fp32", f"{name} only emulates bf16")
        )
    if device.type == "cpu":
        # For releases of torch that lack one of these questions it is fp32, which is never slow.
        units = [
            unit
            for question, unit in _CPU_BF16_CHECKS.items()
            if getattr(torch.cpu, question, bool)()
        ]
        if units:
            return "bf16", f"the processor has {' and '.join(units)}"
        return "fp32", f"the processor has neither {' nor '.join(_CPU_BF16_CHECKS.values())}"
    return "fp32", f"bf16 is not measured on {device.type}"


def _default_precision(device: torch.device) -> Precision:
    """Return the precision that ``train.precision=auto`` selects on a device: fp32 on every processor."""
    return native_precision(device)[0] if device.type == "cuda" else "fp32"


def resolve_for_device(config: TrainConfig, device: torch.device) -> TrainConfig:
    """Return the configuration with ``precision=auto`` and ``channels_last=null`` resolved for a device.

    Raises:
        InputError: For bf16 on a device without autocast, which would silently be fp32.
    """
    precision: Precision = (
        _default_precision(device) if config.precision == "auto" else config.precision
    )
    if precision == "bf16" and not torch.amp.is_autocast_available(device.type):
        raise InputError(
            "bf16 requires a device with autocast",
            f"{device.type}, for which this torch has none",
            "Resume the run on a processor or a CUDA GPU, or start another with --precision fp32 and a new --out.",
        )
    layout = (
        device.type in ("cpu", "cuda") if config.channels_last is None else config.channels_last
    )
    return replace(config, precision=precision, channels_last=layout)


def describe_precision(used: Precision, requested: Precision, device: torch.device) -> str:
    """Return the precision of a run with its reason, such as ``bf16 (of the recipe)``; it recommends a faster one."""
    native, why = native_precision(device)
    reason = "of the recipe"
    if requested == "auto" and used != _default_precision(device):
        reason = "auto: as the run began"
    elif requested == "auto":
        reason = "auto: as on every processor" if device.type == "cpu" else f"auto: {why}"
        if used != native:
            reason += f"; {why}: with --precision bf16 a step takes about half the time"
    slow = "" if emulation_warning(used, device) is None else "; emulated here, which is slow"
    return f"{used} ({reason}{slow})"


def emulation_warning(precision: Precision, device: torch.device) -> str | None:
    """Return a warning if bf16 is only emulated on the device, or None."""
    native, why = native_precision(device)
    if precision != "bf16" or native == "bf16":
        return None
    return (
        f"train.precision=bf16 is emulated here and takes about eight times as long as fp32 ({why}). "
        "To be fast, train with --precision fp32 in a new --out."
    )


_ONE_CYCLE_RISE = 0.25
"""Share of a run in which the learning rate of ``one-cycle`` rises."""


def build_optimizer(objective: Objective, config: OptimizerConfig) -> torch.optim.Optimizer:
    """Return SGD or AdamW with the parameter groups of the model and the criterion.

    The groups are from :func:`fedlas.param_groups`. With ``layer_decay`` or ``layer_rates`` the model has one group per
    learning rate factor, the largest first.

    Raises:
        InputError: If ``layer_rates`` names no layer of the model.
    """
    groups = param_groups(
        objective,
        weight_decay=config.weight_decay,
        lr=config.criterion_lr,
        decay_criterion=config.decay_criterion,
    )
    if config.layer_decay is not None or config.layer_rates:
        shares = layer_lr_factors(
            objective.model, decay=config.layer_decay, rates=config.layer_rates
        )
        groups[:1] = split_param_group(groups[0], objective.model, shares, config.lr)
    if config.name == "sgd":
        return torch.optim.SGD(
            groups, lr=config.lr, momentum=config.momentum, nesterov=config.nesterov
        )
    return torch.optim.AdamW(groups, lr=config.lr)


def build_schedule(
    optimizer: torch.optim.Optimizer, config: ScheduleConfig, *, epochs: int, probe_epochs: int = 0
) -> LambdaLR:
    """Return a learning rate schedule to step once per epoch.

    Args:
        optimizer: The optimizer.
        config: The schedule.
        epochs: Epochs of the schedule.
        probe_epochs: Epochs at the full rate before the schedule.

    Raises:
        InputError: If a milestone is not before the last epoch.
    """
    milestones = config.milestone_epochs(epochs)

    def factor(epoch: int) -> float:
        epoch -= probe_epochs
        if epoch < 0:
            return 1.0
        warm = min(1.0, (epoch + 1) / (config.warmup_epochs + 1))
        if config.name == "constant":
            return warm
        if config.name == "cosine":
            return warm * 0.5 * (1 + math.cos(math.pi * epoch / epochs))
        if config.name == "one-cycle":
            middle = (epoch + 0.5) / epochs  # the rate changes between epochs only
            return warm * min(middle / _ONE_CYCLE_RISE, (1 - middle) / (1 - _ONE_CYCLE_RISE))
        if config.name == "swa":
            start, end = milestones
            fallen = (epoch - start) / (end - start) if start < epoch < end else float(epoch >= end)
            return warm * (1 - fallen * (1 - config.factor))
        return warm * config.factor ** sum(epoch >= milestone for milestone in milestones)

    return LambdaLR(optimizer, factor)


class Engine:
    """Training steps with autocast, gradient accumulation and DDP over processes.

    Args:
        objective: Model and criterion; moved to channels-last if the configuration says so.
        config: ``accumulate``, ``channels_last``, ``compile`` and ``precision`` are used; automatic values are
            resolved for the accelerator's device.
        accelerator: ``accelerate.Accelerator``.

    Attributes:
        config: The configuration, with automatic values resolved.
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

    def __init__(self, objective: Objective, config: TrainConfig, accelerator: Accelerator) -> None:
        self.objective = objective
        self.config = resolve_for_device(config, accelerator.device)
        self.accelerator = accelerator
        self.processes = int(accelerator.num_processes)
        precision = self.config.precision
        device = accelerator.device
        emulated = emulation_warning(precision, device)
        if emulated is not None and accelerator.is_main_process:
            warn_once(emulated)
        if self.config.channels_last:
            objective.model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # not in torch's stubs

    def start(self, optimizer: torch.optim.Optimizer) -> None:
        """Prepare the objective and the optimizer for training.

        State:
            With ``compile``, torch forgets what this process compiled before. Every run has its own modules, and after
            a few of them torch would stop compiling and run the others uncompiled.
        """
        # Accelerate's own optimizer and backward pass look for packages at each step, which takes a small model's time.
        self.wrapped = self.accelerator.prepare(self.objective)
        self.optimizer = optimizer
        if self.config.compile:
            torch._dynamo.reset()
            self.wrapped = torch.compile(self.wrapped)  # type: ignore[assignment]  # a module in, a module out

    def autocast(self) -> AbstractContextManager[Any]:
        """Return the autocast context for forward passes, in the configured precision."""
        return torch.autocast(
            self.accelerator.device.type, torch.bfloat16, enabled=self.config.precision == "bf16"
        )

    def parts(
        self, inputs: Any, target: Tensor, index: Any
    ) -> Iterator[tuple[Any, Tensor, Any, Any]]:
        """Split a batch into parts ``(inputs, target, index, share)``, equally many on every process.

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
        num_parts = self.config.accumulate
        min_samples = len(target)
        total: Any = len(target)
        if self.processes > 1:
            each = self.accelerator.gather(torch.tensor([len(target)], device=target.device))
            total = each.sum()
            # read only if there is something to cut, because reading stalls an accelerator
            if num_parts > 1:
                min_samples = int(each.min())
        num_parts = max(1, min(num_parts, min_samples))
        if num_parts > 1 and not isinstance(inputs, Tensor):
            raise InputError(
                "inputs must be a single tensor if train.accumulate is above 1",
                describe(inputs),
                "Set train.accumulate=1.",
            )
        if self.config.channels_last and isinstance(inputs, Tensor) and inputs.ndim == 4:
            inputs = inputs.contiguous(memory_format=torch.channels_last)

        # DDP averages over processes: times their number, the sum of the weighted losses is the mean over all samples.
        if num_parts == 1:
            yield (
                inputs,
                target,
                index,
                None if self.processes == 1 else len(target) * self.processes / total,
            )
            return
        indices = [None] * num_parts if index is None else index.tensor_split(num_parts)
        for part in zip(
            inputs.tensor_split(num_parts), target.tensor_split(num_parts), indices, strict=True
        ):
            yield *part, len(part[1]) * self.processes / total

    def gradient_sync(self, last: bool) -> AbstractContextManager[Any]:
        """Return a context that delays the exchange of gradients until the last part of a step."""
        if last or self.processes == 1:
            return nullcontext()
        return self.accelerator.no_sync(self.wrapped)

    def backward(self, loss: Tensor, share: Any) -> None:
        """Add the gradient of a part's loss, weighted by the part's share of the samples."""
        (loss if share is None else loss * share).backward()

    def step(self, clip_norm: float | None) -> None:
        """Clip the accumulated gradients, and step the optimizer."""
        if clip_norm is not None:
            nn.utils.clip_grad_norm_(self.wrapped.parameters(), clip_norm)
        self.optimizer.step()
        self.optimizer.zero_grad()
