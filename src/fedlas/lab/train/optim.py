"""The optimizer and the learning-rate schedule, from their configurations."""

from __future__ import annotations

import math

import torch
from torch.optim.lr_scheduler import LambdaLR

from fedlas.lab.train.config import OptimizerConfig, ScheduleConfig
from fedlas.objective import Objective, param_groups

__all__ = ["build_optimizer", "build_schedule"]


_RISE = 0.25
"""Share of a run in which the rate of ``one-cycle`` rises."""


def build_optimizer(objective: Objective, config: OptimizerConfig) -> torch.optim.Optimizer:
    """SGD or AdamW over the model's and the criterion's parameter groups (see :func:`fedlas.param_groups`)."""
    groups = param_groups(
        objective,
        weight_decay=config.weight_decay,
        lr=config.criterion_lr,
        decay_criterion=config.decay_criterion,
    )
    if config.name == "sgd":
        return torch.optim.SGD(groups, lr=config.lr, momentum=config.momentum, nesterov=config.nesterov)
    return torch.optim.AdamW(groups, lr=config.lr)


def build_schedule(optimizer: torch.optim.Optimizer, config: ScheduleConfig, *, epochs: int) -> LambdaLR:
    """A schedule to step once per epoch.

    Raises:
        InputError: If a milestone is not before the last epoch.
    """
    milestones = config.milestone_epochs(epochs)

    def factor(epoch: int) -> float:
        warm = min(1.0, (epoch + 1) / (config.warmup_epochs + 1))
        if config.name == "constant":
            return warm
        if config.name == "cosine":
            return warm * 0.5 * (1 + math.cos(math.pi * epoch / epochs))
        if config.name == "one-cycle":
            middle = (epoch + 0.5) / epochs  # the rate changes between epochs only
            return warm * min(middle / _RISE, (1 - middle) / (1 - _RISE))
        if config.name == "swa":
            start, end = milestones
            fallen = (epoch - start) / (end - start) if start < epoch < end else float(epoch >= end)
            return warm * (1 - fallen * (1 - config.factor))
        return warm * config.factor ** sum(epoch >= milestone for milestone in milestones)

    return LambdaLR(optimizer, factor)
