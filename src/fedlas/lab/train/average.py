"""Averages of the weights during training; once averaging starts, the average is validated and kept.

Source:
    Polyak, Juditsky: Acceleration of Stochastic Approximation by Averaging, SIAM J. Control and Optimization 30 (1992).
    https://doi.org/10.1137/0330046
    Izmailov, Podoprikhin, Garipov, Vetrov, Wilson: Averaging Weights Leads to Wider Optima and Better Generalization,
    UAI 2018, section 3. https://arxiv.org/abs/1803.05407
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from fedlas._core.ranks import Accelerator
from fedlas.lab.train.config import AverageName, TrainConfig


class WeightAveraging:
    """Base class of weight averaging; without a subclass, the trained weights are used directly.

    Args:
        model: The model that is trained.
        config: ``average``, ``average_decay`` and ``average_start`` are used.

    Attributes:
        first: First epoch, counted from 1, at whose end :attr:`model` may be chosen as the best.
    """

    def __init__(self, model: nn.Module, config: TrainConfig) -> None:
        self.source = model
        self.first = 1 if config.average == "none" else config.first_averaged_epoch

    @property
    def model(self) -> nn.Module:
        """Model to validate and keep."""
        return self.source

    def step(self, epoch: int) -> None:
        """Update the average after an optimizer step."""

    def end_epoch(self, epoch: int, batches: Iterable[Any], accelerator: Accelerator) -> None:
        """Update the average after the last step of an epoch."""

    def state_dict(self) -> dict[str, Tensor]:
        """Return the state for a checkpoint."""
        return {}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Restore the state from :meth:`state_dict`."""


class _Average(WeightAveraging):
    """Average in a second model; before averaging starts, the trained weights are used."""

    def __init__(self, model: nn.Module, config: TrainConfig, averaged: AveragedModel) -> None:
        super().__init__(model, config)
        self.averaged = averaged.requires_grad_(False).eval()

    @property
    def model(self) -> nn.Module:
        """The averaged model once averaging has started, and the trained model before."""
        return self.averaged.module if int(self.averaged.n_averaged) else self.source

    def state_dict(self) -> dict[str, Tensor]:
        """Return the average and the number of averaged weights."""
        return self.averaged.state_dict()

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Restore the state from :meth:`state_dict`."""
        self.averaged.load_state_dict(state)


class ExponentialAverage(_Average):
    """Exponential moving average, updated after every step: ``average <- d_t average + (1 - d_t) weights``.

    ``d_t = min(decay, (1 + t) / (10 + t))`` at the ``t``-th step of averaging, so that the average forgets its start
    soon, even in a short run. Running statistics of batch norms are averaged like weights; counters are copied.
    """

    def __init__(self, model: nn.Module, config: TrainConfig) -> None:
        super().__init__(
            model, config, AveragedModel(model, multi_avg_fn=self._update_average, use_buffers=True)
        )
        self.decay = config.average_decay

    def step(self, epoch: int) -> None:
        """Update the average with the current weights."""
        if epoch >= self.first:
            self.averaged.update_parameters(self.source)

    def _update_average(self, averages: Any, weights: Any, _: Any) -> None:
        if averages[0].is_floating_point():
            # kept on the CPU: reading an accelerator would stall it
            steps = int(self.averaged.n_averaged)
            decay = min(self.decay, (1 + steps) / (10 + steps))
            get_ema_multi_avg_fn(decay)(averages, weights, steps)
        else:
            for average, weight in zip(averages, weights, strict=True):
                average.copy_(weight)


class StochasticWeightAverage(_Average):
    """Stochastic weight averaging (SWA): mean of the weights at the ends of epochs."""

    def __init__(self, model: nn.Module, config: TrainConfig) -> None:
        super().__init__(model, config, AveragedModel(model))

    def end_epoch(self, epoch: int, batches: Iterable[Any], accelerator: Accelerator) -> None:
        """Add the weights at the end of an epoch to the average, and update its batch-norm statistics."""
        if epoch >= self.first:
            self.averaged.update_parameters(self.source)
            update_batch_norm_stats(self.averaged.module, batches, accelerator)


AVERAGES: dict[AverageName, type[WeightAveraging]] = {
    "none": WeightAveraging,
    "ema": ExponentialAverage,
    "swa": StochasticWeightAverage,
}
"""Class for each value of ``train.average``."""


@torch.no_grad()
def update_batch_norm_stats(
    model: nn.Module, batches: Iterable[Any], accelerator: Accelerator
) -> None:
    """Set the running statistics of batch norms to their means over ``batches``, and switch to ``eval()``.

    Args:
        model: Any model; a model without batch norms is not run.
        batches: Yields ``(inputs, ...)``, on the model's device.
        accelerator: ``accelerate.Accelerator``; statistics are averaged over its processes.

    State:
        The model runs in ``train()``, without autocast. Batch norms that stay in ``eval()`` then, because the model
        keeps them frozen, do not change.

    Note:
        ``torch.optim.swa_utils.update_bn`` would leave frozen batch norms without statistics.
    """
    model.train()
    norms = [layer for layer in model.modules() if isinstance(layer, _BatchNorm) and layer.training]
    norms = [layer for layer in norms if layer.track_running_stats]
    if norms:
        momenta = [layer.momentum for layer in norms]
        for layer in norms:
            layer.reset_running_stats()
            layer.momentum = None  # a plain mean over batches
        for inputs, *_ in batches:
            model(inputs)
        for layer, momentum in zip(norms, momenta, strict=True):
            layer.momentum = momentum
            if accelerator.num_processes > 1:
                for statistic in (
                    torch.as_tensor(layer.running_mean),
                    torch.as_tensor(layer.running_var),
                ):
                    statistic.copy_(accelerator.reduce(statistic, reduction="mean"))
    model.eval()
