"""Training of several seeds at once: every weight has a first axis for the seed, so that no seed sees another."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from data import Split
from torch import Tensor, nn

WIDTH, EPOCHS = 96, 40
CHECKPOINTS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 40)
"""Epochs after which the network is kept, to choose from."""
RATE, DECAY = 3e-3, 0.01
"""Learning rate and weight decay of AdamW; the rate falls to 0 along half a cosine."""
EMA_STEPS = 0.05
"""Horizon of the average of weights, as a share of all steps."""


class Net(nn.Module):
    """Two hidden layers for each of S seeds.

    Args:
        sizes: Units of input, hidden layers and output.
        seeds: S.
        generator: For the first weights.
    """

    def __init__(self, sizes: Sequence[int], seeds: int, generator: torch.Generator) -> None:
        super().__init__()
        self.weights, self.biases = nn.ParameterList(), nn.ParameterList()
        for width, height in pairwise(sizes):
            for parts, shape in (
                (self.weights, (seeds, width, height)),
                (self.biases, (seeds, 1, height)),
            ):
                parts.append((2 * torch.rand(shape, generator=generator) - 1) * width**-0.5)

    def forward(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Logits ``(S, n, C)`` and the last layer's inputs ``(S, n, D)``."""
        features = inputs
        for weight, bias in zip(self.weights[:-1], self.biases[:-1], strict=True):
            features = torch.baddbmm(bias, features, weight).relu()
        return torch.baddbmm(self.biases[-1], features, self.weights[-1]), features


@dataclass(frozen=True)
class Step:
    """What a method's loss gets: logits ``(S, b, C)``, target ``(S, b)``, features and the samples' index."""

    logits: Tensor
    target: Tensor
    features: Tensor
    index: Tensor


class Method:
    """A loss for all seeds: the sum over seeds of the mean over a seed's samples, and what follows an epoch."""

    def __init__(self, criterion: nn.Module) -> None:
        self.criterion = criterion

    def loss(self, step: Step) -> Tensor:
        """A criterion without state takes the samples of all seeds together."""
        return len(step.logits) * self.criterion(step.logits.flatten(0, 1), step.target.flatten())

    def after_epoch(self, val_logits: Tensor, val_target: Tensor) -> None:
        """Called with validation logits ``(S, n, C)`` if ``follows``."""

    follows = False

    def parameters(self) -> list[nn.Parameter]:
        """Those that are trained with the network's."""
        return list(self.criterion.parameters())


@dataclass(frozen=True)
class Outputs:
    """Logits of validation and test samples at each checkpoint: ``(K, S, n, C)``, and the last layer's inputs."""

    val: Tensor
    test: Tensor
    val_features: Tensor
    test_features: Tensor


def train(
    split: Split,
    method: Method,
    *,
    first_seed: int = 0,
    stream: int = 0,
    decay: float = DECAY,
    epochs: int = EPOCHS,
    average: bool = False,
) -> tuple[Outputs, Outputs | None]:
    """Train all seeds; outputs of the network, and with ``average`` those of the moving average of its weights.

    Args:
        split: The data.
        method: The loss.
        first_seed: With ``stream`` it determines first weights and the order of samples.
        stream: Several give independent networks on the same data.
        decay: Weight decay.
        epochs: Passes through the training samples.
        average: Also average weights.
    """
    seeds, count, columns = split.train.inputs.shape
    generator = torch.Generator().manual_seed(1000 * first_seed + stream)
    net = Net([columns, WIDTH, WIDTH, split.num_classes], seeds, generator)
    batch = max(32, min(128, count // 12))
    steps = epochs * (count // batch)
    groups = [
        {"params": list(net.parameters()), "weight_decay": decay},
        {"params": method.parameters(), "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(
        [group for group in groups if group["params"]], lr=RATE, fused=True
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: 0.5 * (1 + math.cos(math.pi * step / steps))
    )
    slow = [parameter.detach().clone() for parameter in net.parameters()]
    rows = torch.arange(seeds)[:, None]
    kept: list[Outputs] = []
    averaged: list[Outputs] = []
    for epoch in range(1, epochs + 1):
        # One pass; samples beyond the last whole batch wait for the next one.
        order = torch.rand(seeds, count, generator=generator).argsort(dim=1)
        for start in range(0, count - batch + 1, batch):
            index = order[:, start : start + batch]
            logits, features = net(split.train.inputs[rows, index])
            target = split.train.target[rows, index]
            loss = method.loss(Step(logits, target, features, index))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            if average:
                torch._foreach_lerp_(
                    slow, [p.detach() for p in net.parameters()], 1 / (EMA_STEPS * steps)
                )

        # Validation, which some losses learn from; a checkpoint.
        if method.follows:
            with torch.no_grad():
                method.after_epoch(net(split.val.inputs)[0], split.val.target)
        if epoch in CHECKPOINTS or epoch == epochs:
            kept.append(_outputs(net, split))
            if average:
                fast = [parameter.detach().clone() for parameter in net.parameters()]
                _load(net, slow)
                averaged.append(_outputs(net, split))
                _load(net, fast)
    return _stacked(kept), _stacked(averaged) if average else None


@torch.no_grad()
def _outputs(net: Net, split: Split) -> Outputs:
    val, val_features = net(split.val.inputs)
    test, test_features = net(split.test.inputs)
    return Outputs(val, test, val_features, test_features)


def _stacked(kept: list[Outputs]) -> Outputs:
    names = ("val", "test", "val_features", "test_features")
    return Outputs(*(torch.stack([getattr(part, name) for part in kept]) for name in names))


@torch.no_grad()
def _load(net: nn.Module, values: list[Tensor]) -> None:
    for parameter, value in zip(net.parameters(), values, strict=True):
        parameter.copy_(value)


class EachSeed(Method):
    """A criterion for each seed, for losses with a state."""

    def __init__(self, make: Callable[[], nn.Module], seeds: int) -> None:
        self.criteria = [make() for _ in range(seeds)]

    def loss(self, step: Step) -> Tensor:
        """Each seed's samples go to its criterion, with what it needs."""
        losses = []
        for seed, criterion in enumerate(self.criteria):
            everything = {"features": step.features[seed], "index": step.index[seed]}
            needs = {name: everything[name] for name in criterion.needs}
            losses.append(criterion(step.logits[seed], step.target[seed], **needs))
        return torch.stack(losses).sum()

    def parameters(self) -> list[nn.Parameter]:
        """The parameters of all gates."""
        return [parameter for criterion in self.criteria for parameter in criterion.parameters()]
