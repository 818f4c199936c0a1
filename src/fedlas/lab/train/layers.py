"""Fine-tuning: frozen layers, and learning rate factors by layer."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from itertools import groupby
from typing import Any

from torch import nn

from fedlas._core.check import InputError, suggestion

_BLOCK = re.compile(r"(?:\d*[^.\d][^.]*\.)+?\d+(?:\.\d+)*(?=\.)")
"""Prefix of the name of a parameter in a numbered block, up to the first sequence of numbers: ``stages.0.1``."""


def freeze(model: nn.Module, names: Collection[str]) -> None:
    """Freeze layers: their parameters need no gradient from now on.

    Args:
        model: The model.
        names: Dotted names of modules or parameters; each stands for all that is in it.

    Raises:
        InputError: If the model has no layer of a name (the message has the nearest), or no parameter is left to
            train; nothing changes then.

    Example:
        >>> model = nn.Sequential(nn.Linear(4, 8), nn.Linear(8, 3))
        >>> freeze(model, ["0"])
        >>> [name for name, parameter in model.named_parameters() if parameter.requires_grad]
        ['1.weight', '1.bias']
    """
    parameters = dict(model.named_parameters())
    check_layers(model, names, "model.freeze")
    frozen_names = {name for name in parameters if enclosing_layer(name, names) is not None}
    if len(frozen_names) == len(parameters):
        raise InputError(
            "model.freeze must leave at least one parameter trainable",
            ", ".join(names),
            "Leave the head out.",
        )
    for name in frozen_names:
        parameters[name].requires_grad_(False)


def check_layers(model: nn.Module, names: Iterable[str], option: str) -> None:
    """Raise InputError if a name is neither a module nor a parameter of the model.

    Raises:
        InputError: For an unknown name; the message has the nearest name.
    """
    layers = [
        name
        for named in (model.named_modules(), model.named_parameters())
        for name, _ in named
        if name
    ]
    for name in names:
        if name not in layers:
            raise InputError(
                f"{option} must name layers of the model", repr(name), suggestion(str(name), layers)
            )


def enclosing_layer(name: str, layers: Iterable[str]) -> str | None:
    """Return the longest name in ``layers`` that contains a parameter, or None.

    Example:
        >>> enclosing_layer("stages.1.0.conv1.weight", ["stages", "stages.1", "stages.10"])
        'stages.1'
    """
    return max(
        (layer for layer in layers if f"{name}.".startswith(f"{layer}.")), key=len, default=None
    )


def layer_lr_factors(
    model: nn.Module, *, decay: float | None = None, rates: Mapping[str, float] | None = None
) -> dict[str, float]:
    """Return the learning rate factor of each trainable parameter, by name.

    Args:
        model: The model; its modules must be registered from the input to the output.
        decay: Factor between the rates of a layer and its predecessor. A layer is a numbered block such as
            ``stages.0.1`` or ``blocks.3``, or the modules before, between or after such blocks. So the last layer holds
            the head and the norm before it, and has factor 1.
        rates: Factor by dotted name of a module or parameter, which overrides ``decay``; the longest name counts.

    Raises:
        InputError: If the model has no layer of a name in ``rates``.

    Source:
        Layer-wise decay: Clark, Luong, Le, Manning 2020 (ELECTRA, https://arxiv.org/abs/2003.10555); a share by layer:
        Howard and Ruder 2018 (ULMFiT, https://arxiv.org/abs/1801.06146).

    Example:
        >>> model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
        >>> layer_lr_factors(model, decay=0.5, rates={"2.bias": 2.0})
        {'0.weight': 0.5, '0.bias': 0.5, '2.weight': 1.0, '2.bias': 2.0}
    """
    rates = rates or {}
    check_layers(model, rates, "optimizer.layer_rates")
    names = [name for name, _ in model.named_parameters()]
    layers = [list(run) for _, run in groupby(names, _block_name)]
    shares = {
        name: 1.0 if decay is None else decay ** (len(layers) - 1 - depth)
        for depth, layer in enumerate(layers)
        for name in layer
    }
    for name in names:
        if (layer_name := enclosing_layer(name, rates)) is not None:
            shares[name] = rates[layer_name]
    return {name: shares[name] for name, p in model.named_parameters() if p.requires_grad}


def _block_name(name: str) -> str:
    """Return the numbered block that contains a parameter, or an empty string."""
    numbered = re.match(r"\d+(?=\.)", name) or _BLOCK.match(name)
    return numbered.group() if numbered else ""


def split_param_group(
    group: Mapping[str, Any], model: nn.Module, factors: Mapping[str, float], lr: float
) -> list[dict[str, Any]]:
    """Split the parameter group of a model into one group per learning rate factor, largest first.

    Args:
        group: From :func:`fedlas.param_groups`.
        model: Its model.
        factors: From :func:`layer_lr_factors`.
        lr: Learning rate at factor 1.
    """
    parameters = dict(model.named_parameters())
    return [
        {
            **group,
            "name": f"model x {share:g}",
            "params": [parameters[name] for name in factors if factors[name] == share],
            "lr": lr * share,
        }
        for share in sorted(set(factors.values()), reverse=True)
    ]


class FineTuning:
    """Trainable parameters by epoch: the head alone during linear probing, then all that are not frozen.

    Args:
        model: The model, whose trained parameters are those that need a gradient now.
        frozen: Names of layers that stay in ``eval()`` in every epoch.
        head: The classifier, which alone trains in the first epochs; None if ``probe_epochs`` is 0.
        probe_epochs: Number of epochs of linear probing.

    Source:
        Linear probing, then fine-tuning: Kumar, Raghunathan, Jones, Ma, Liang 2022, https://arxiv.org/abs/2202.10054
    """

    def __init__(
        self, model: nn.Module, frozen: Collection[str], head: nn.Module | None, probe_epochs: int
    ) -> None:
        self.model = model
        modules = dict(model.named_modules())
        self.frozen = [modules[name] for name in frozen if name in modules]
        self.probe_epochs = probe_epochs
        of_head = set() if head is None else set(map(id, head.parameters()))
        self.body = [p for p in model.parameters() if p.requires_grad and id(p) not in of_head]
        self.before_head = [m for m in modules.values() if head not in [*m.modules()]]

    def select_trainable(self, epoch: int) -> bool:
        """Select the parameters that train in an epoch, counted from 1; return whether the selection changed."""
        trains = epoch > self.probe_epochs
        changed = any(parameter.requires_grad != trains for parameter in self.body)
        for parameter in self.body:
            parameter.requires_grad_(trains)
        return changed

    def freeze_layers(self, epoch: int) -> None:
        """Put the layers that are frozen in an epoch into ``eval()``."""
        for layer in self.before_head if epoch <= self.probe_epochs else self.frozen:
            layer.eval()
