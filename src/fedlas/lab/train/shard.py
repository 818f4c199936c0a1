"""One objective over several processes, each holding a part of weights, gradients and optimizer state (FSDP2).

Source:
    Zhao et al.: PyTorch FSDP: Experiences on Scaling Fully Sharded Data Parallel, VLDB 2023.
    https://arxiv.org/abs/2304.11277
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
import torch.distributed as dist
import torch.distributed.fsdp as fsdp
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from fedlas._core.check import InputError
from fedlas._core.ranks import launched_sharded
from fedlas.lab.train.config import TrainConfig
from fedlas.lab.train.engine import Engine
from fedlas.objective import Objective


class ShardedEngine(Engine):
    """The model's parameters are divided among the processes and gathered block by block where they are needed.

    The criterion, small, stays whole on every process: what looks at gate and indicator between steps needs no
    collective. Its gradients are averaged, its buffers are those of the first process, as under DDP.

    Args:
        objective: Its model is sharded in place, moved to the accelerator's device first.
        config: As :class:`~fedlas.lab.train.engine.Engine`.
        accelerator: ``accelerate.Accelerator`` over at least two processes.

    Raises:
        InputError: For what would not be the same run as without sharding: batch norms (their statistics would be each
            process's own), averaged weights, a penalty on the weights, ``compile``; or a PyTorch before 2.6.

    Note:
        Checkpoints hold whole tensors: a run may go on under another number of processes, sharded or not. The blocks
        are the members of the model's outermost lists of alike modules (:func:`blocks_of`).
    """

    def __init__(self, objective: Objective, config: TrainConfig, accelerator: Any) -> None:
        _check(objective, config)
        super().__init__(objective, config, accelerator)
        from torch.distributed.device_mesh import init_device_mesh

        objective.to(accelerator.device)
        mesh = init_device_mesh(accelerator.device.type, (self.processes,))
        for block in blocks_of(objective.model):
            fsdp.fully_shard(block, mesh=mesh)
        fsdp.fully_shard(objective.model, mesh=mesh)
        self._own = list(objective.criterion.parameters())

    def start(self, optimizer: torch.optim.Optimizer) -> None:
        """Get ready to train with an optimizer over the objective's parameters."""
        self.wrapped, self.optimizer = self.objective, optimizer

    def collecting(self, last: bool) -> AbstractContextManager[Any]:  # noqa: ARG002 - the same for every part
        """A context for a part. Gradients are exchanged in each: whole ones are what there is no memory for."""
        return nullcontext()

    def backward(self, loss: Tensor, share: Any) -> None:
        """Add the gradient of a part's loss, weighed by its share."""
        (loss * share).backward()

    def step(self, clip_norm: float | None) -> None:
        """Make the optimizer's step with what has been collected."""
        for parameter in self._own:
            if parameter.grad is not None:
                dist.all_reduce(parameter.grad)
                parameter.grad /= self.processes
        for buffer in self.objective.criterion.buffers():
            dist.broadcast(buffer, 0)
        if clip_norm is not None:
            _clip([p.grad for p in self.objective.parameters() if p.grad is not None], clip_norm)
        self.optimizer.step()
        self.optimizer.zero_grad()

    def plain(self, state: Mapping[str, Any]) -> dict[str, Any]:
        """The state with whole tensors, on the CPU."""
        return {key: _whole(value) for key, value in state.items()}

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Put whole tensors into the objective."""
        own = self.objective.state_dict()
        self.objective.load_state_dict({key: _part(value, own.get(key)) for key, value in state.items()})

    def load_optimizer(self, optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
        """Put whole tensors into the optimizer."""
        parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        divided = {
            number: {key: _part(value, parameters[number]) for key, value in values.items()}
            for number, values in state["state"].items()
        }
        optimizer.load_state_dict({**state, "state": divided})


def blocks_of(model: nn.Module) -> list[nn.Module]:
    """The blocks of a model: members of its outermost lists that hold two or more modules of the same, composed class.

    Example:
        >>> block = lambda: nn.Sequential(nn.Linear(2, 2), nn.ReLU())
        >>> len(blocks_of(nn.Sequential(nn.Linear(2, 2), nn.Sequential(block(), block(), block()))))
        3
    """
    return list(_blocks(model))


def _blocks(module: nn.Module) -> Iterator[nn.Module]:
    children = list(module.children())
    composed = [child for child in children if len(list(child.modules())) > 1 and len(list(child.parameters()))]
    listed = isinstance(module, nn.Sequential | nn.ModuleList)
    if listed and len(composed) > 1 and len({type(child) for child in composed}) == 1:
        yield from composed
        return
    for child in children:
        yield from _blocks(child)


def _check(objective: Objective, config: TrainConfig) -> None:
    norms = [name for name, layer in objective.model.named_modules() if _keeps_statistics(layer)]
    reasons = {
        f"the model has batch norms, such as {norms[0] if norms else ''}": bool(norms),
        f"train.average is {config.average}": config.average != "none",
        "train.compile is true": config.compile,
        "the objective has a penalty on the weights": objective.penalty is not None,
        f"PyTorch is {torch.__version__}, which has no fully_shard": not hasattr(fsdp, "fully_shard"),
    }
    found = [reason for reason, holds in reasons.items() if holds]
    if found:
        raise InputError(
            "train.shard",
            "it works without batch norms, averaged weights, compilation and penalties, in PyTorch 2.6 or newer",
            "; ".join(found),
            "Leave train.shard (or the launcher's --use_fsdp) out: every process then holds the whole model.",
        )


def _keeps_statistics(layer: nn.Module) -> bool:
    return isinstance(layer, _BatchNorm) and layer.track_running_stats


def _whole(value: Any) -> Any:
    """Whole tensors on the CPU in place of parts, in nested dictionaries."""
    if isinstance(value, dict):
        return {key: _whole(item) for key, item in value.items()}
    if not isinstance(value, Tensor):
        return value
    full = value.full_tensor() if hasattr(value, "full_tensor") else value
    return full.detach().to("cpu", copy=True)


def _part(value: Any, like: Any) -> Any:
    """This process's part of a whole tensor, if ``like`` is divided and of the same shape; else the value itself."""
    if not isinstance(value, Tensor) or not hasattr(like, "full_tensor") or value.shape != like.shape:
        return value
    from torch.distributed.tensor import distribute_tensor

    return distribute_tensor(value.to(like.device), like.device_mesh, like.placements)


def _clip(gradients: list[Tensor], largest: float) -> None:
    """Scale gradients, divided or whole, so that the L2 norm of all is at most ``largest``."""
    squares = 0.0
    for gradient in gradients:
        norm: Any = torch.linalg.vector_norm(gradient)
        squares += float(norm.full_tensor() if hasattr(norm, "full_tensor") else norm) ** 2
    factor = largest / (math.sqrt(squares) + 1e-6)
    if factor < 1 or math.isnan(factor):
        for gradient in gradients:
            gradient.mul_(factor)


def engine_of(objective: Objective, config: TrainConfig, accelerator: Any) -> Engine:
    """The engine that configuration and launcher ask for.

    Raises:
        InputError: If the objective cannot be run so.
    """
    shard = config.shard or launched_sharded()
    return (ShardedEngine if shard and accelerator.num_processes > 1 else Engine)(objective, config, accelerator)
