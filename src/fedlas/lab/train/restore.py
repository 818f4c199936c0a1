"""Puts back what a checkpoint holds. Whatever a file claims, training resumes as it was or not at all."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LRScheduler

from fedlas._core.check import InputError, describe
from fedlas._core.streams import restore_rng_state
from fedlas.lab.train.average import Weights
from fedlas.lab.train.hooks import Hook

__all__ = ["misfit", "restore", "restore_module"]

_BUFFERS = {"SGD": {"momentum_buffer"}, "AdamW": {"step", "exp_avg", "exp_avg_sq"}}
"""What an optimizer keeps of each parameter."""


def restore_module(module: nn.Module, state: Mapping[str, Any], path: Path) -> None:
    """Load a state dict from the checkpoint ``path``.

    Raises:
        InputError: If it has other keys, shapes or kinds of values than the module's own; nothing changes then.
    """
    if wrong := misfit(module.state_dict(), state, "weights"):
        raise _unusable(path, wrong)
    module.load_state_dict(state)


def restore(
    saved: Mapping[str, Any],
    path: Path,
    *,
    objective: nn.Module,
    optimizer: torch.optim.Optimizer,
    schedule: LRScheduler,
    weights: Weights,
    hooks: Sequence[Hook],
    epochs: int,
    rank: int = 0,
) -> None:
    """Put everything that trains back to where it was. What the caller made for this run changes before the objective.

    Args:
        saved: From :func:`~fedlas.lab.train.checkpoint.load_checkpoint`.
        path: Its file, for errors.
        objective: Model and criterion.
        optimizer: Over the objective's parameters.
        schedule: Of that optimizer, just built.
        weights: The average.
        hooks: The run's hooks.
        epochs: Length of the run.
        rank: Of this process; each has random generators of its own.

    Raises:
        InputError: If any part does not fit; the objective is unchanged then.
    """
    # Compare everything that can be compared first: a refused checkpoint leaves the weights unchanged.
    own = objective.state_dict()
    wrong = misfit(own, saved["objective"], "weights") or misfit(own, saved["best"]["objective"], "best weights")
    if not wrong and saved["epoch"] > epochs:
        wrong = f"epoch {saved['epoch']} of {epochs}"
    if not wrong and len(saved["hooks"]) != len(hooks):
        wrong = f"it holds the state of {len(saved['hooks'])} hooks, and the run has {len(hooks)}"
    if wrong:
        raise _unusable(path, wrong)
    # The name of the part goes into the error, since the loaders themselves do not say what they read.
    part = "optimizer"
    try:
        _restore_optimizer(optimizer, saved["optimizer"])
        part = "schedule"
        _restore_schedule(schedule, saved["schedule"], saved["epoch"])
        part = "average"
        weights.load_state_dict(saved.get("average", {}))
        part = "hook"
        for hook, state in zip(hooks, saved["hooks"], strict=True):
            hook.load_state_dict(state)
        part = "random generators"
        # A run that resumes with more processes than it began with reuses the states in turn.
        restore_rng_state(saved["rng"][rank % len(saved["rng"])])
    except Exception as error:  # what is loaded may be anything, and so may what its loader raises
        reason = f"lacks {error}" if isinstance(error, KeyError) else " ".join(str(error).split())[:300]
        if part == "hook":
            raise _unusable(path, f"the state of a hook {reason}") from error
        raise _unusable(path, f"{part}: {reason}") from error
    # The weights come last and cannot fail: they were compared above.
    objective.load_state_dict(saved["objective"])


def misfit(known: Any, value: Any, name: str) -> str:
    """How ``value`` differs in kind from ``known``: type, keys, length, shape. Empty text if it does not.

    Numbers may be any finite number; what is None in ``known`` may also be a number.

    Example:
        >>> misfit({"lr": 0.1, "params": [0, 1]}, {"lr": "fast", "params": [0, 1]}, "group")
        "group.lr is str 'fast'"
    """
    if isinstance(known, Tensor):
        fits = isinstance(value, Tensor) and value.layout == known.layout and value.device.type != "meta"
        if fits and value.shape == known.shape and value.dtype == known.dtype:
            return ""
        return f"{name} is {describe(value)}, not {describe(known)}"
    # A container fits if each of its members does; the first that does not is named with its path.
    if isinstance(known, Mapping):
        if not isinstance(value, Mapping):
            return f"{name} is {describe(value)}"
        for word, keys in ("lacks", known.keys() - value.keys()), ("has", value.keys() - known.keys()):
            if keys:
                more = f" and {len(keys) - 5} more" if len(keys) > 5 else ""
                return f"{name} {word} {', '.join(sorted(map(str, keys))[:5])}{more}"
        return next(filter(None, (misfit(known[key], value[key], f"{name}.{key}") for key in known)), "")
    if isinstance(known, list | tuple):
        if not isinstance(value, list | tuple) or len(value) != len(known):
            return f"{name} is {describe(value)}"
        pairs = enumerate(zip(known, value, strict=True))
        return next(filter(None, (misfit(one, other, f"{name}[{at}]") for at, (one, other) in pairs)), "")
    # In Python True is a number, so truth values are compared by their type.
    if isinstance(known, bool | str):
        fits = type(value) is type(known)
    else:
        number = isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < math.inf
        fits = number or (known is None and value is None)
    return "" if fits else f"{name} is {describe(value)}"


def _restore_optimizer(optimizer: torch.optim.Optimizer, state: Any) -> None:
    known = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict(state)
    # Compared afterward: torch adds the options that earlier releases did not have.
    wrong = misfit(known, optimizer.state_dict()["param_groups"], "groups")
    names = _BUFFERS[type(optimizer).__name__]
    for parameter, buffers in optimizer.state.items():
        if not isinstance(parameter, Tensor) or not isinstance(buffers, dict) or not buffers.keys() <= names:
            wrong = wrong or f"it keeps {describe(buffers)} of a parameter"
            break
        if len(names) > 1 and buffers and buffers.keys() != names:  # AdamW keeps none or all
            wrong = wrong or f"it lacks {', '.join(sorted(names - buffers.keys()))}"
        for name, value in buffers.items():
            like = torch.zeros(()) if name == "step" else parameter.detach()
            if value is not None or name != "momentum_buffer":
                wrong = wrong or misfit(like, value, name)
    if wrong:
        raise ValueError(wrong)


def _restore_schedule(schedule: LRScheduler, state: Any, epoch: int) -> None:
    known = schedule.state_dict()
    schedule.load_state_dict(state)
    now = schedule.state_dict()
    wrong = misfit(known, {name: now[name] for name in known}, "schedule")
    if wrong or state.get("last_epoch") != epoch:
        raise ValueError(wrong or f"it is at epoch {describe(state.get('last_epoch'))}, not {epoch}")


def _unusable(path: Path, reason: str) -> InputError:
    return InputError(
        "checkpoint",
        "it must hold the state of this model and loss",
        f"{path}: {reason}",
        "Use the release that wrote it, or train again with another --out.",
    )
