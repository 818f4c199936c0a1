"""Checkpoints: atomic writing, safe loading, comparison with a configuration, and restoring a training."""

from __future__ import annotations

import math
import reprlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LRScheduler

from fedlas._core.arrays import load_tensors
from fedlas._core.check import InputError, describe, one_line_error
from fedlas._core.files import write_atomically
from fedlas._core.streams import restore_rng_state
from fedlas.lab.train.average import WeightAveraging
from fedlas.lab.train.job import TrainingJob

CHECKPOINT = "checkpoint.pt"
"""File name of the checkpoint in a run folder."""
FORMAT = 1


def save_checkpoint(path: Path, state: Mapping[str, Any], config: Mapping[str, Any]) -> None:
    """Write a checkpoint atomically.

    Args:
        path: File to write. An older checkpoint survives until the new one is complete.
        state: Tensors and plain values only, which is all that :func:`load_checkpoint` accepts.
        config: Resolved configuration of the run, which is compared when the checkpoint is loaded.

    Raises:
        InputError: If the folder is not writable.
    """
    write_atomically(
        path, lambda file: torch.save({"format": FORMAT, "config": dict(config), **state}, file)
    )


def load_checkpoint(path: Path, config: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Read a checkpoint onto the CPU, and check its format and configuration.

    Args:
        path: File written by :func:`save_checkpoint`.
        config: Configuration that the checkpoint must have been written under; None skips the comparison.

    Raises:
        InputError: If the file is missing, truncated, of another format or not a checkpoint, if an entry is missing
            or of another type, or if the configurations differ; the message names every difference.

    Note:
        Nothing in the file is executed: only tensors and plain values are read.
    """
    try:
        state = load_tensors(path)
    except FileNotFoundError as error:
        raise InputError("the checkpoint must exist", path, "Check the path.") from error
    except (OSError, ValueError) as error:
        raise InputError(
            "the file must be a complete checkpoint of tensors and plain values",
            f"{path} ({error})",
            "Remove the file to start the run again; nothing else was changed.",
        ) from error
    # The format is checked first, because the fields below are those of this format.
    if (
        not isinstance(state, dict)
        or _is_different(state.get("format"), FORMAT)
        or not isinstance(state.get("config"), dict)
    ):
        raise InputError(
            f"the checkpoint must be of format {FORMAT}", path, "Use the release that wrote it."
        )
    # A checkpoint of other settings would resume without an error and give a run that no configuration describes.
    if config is not None and (changes := config_differences(state["config"], config)):
        raise InputError(
            "the checkpoint must come from the same configuration",
            f"{path}, which differs in {'; '.join(changes)}",
            "Use the old settings to resume, or another --out to start over.",
        )
    # A file that is edited or of a wrong type must fail here, before any state is changed.
    if wrong := _describe_defect(state):
        raise InputError(
            "the checkpoint must be complete and valid",
            f"{path}, where {wrong}",
            "Use the release that wrote it, or train again with another --out.",
        )
    return state


_CHECKPOINT_KEYS: dict[str, Any] = {
    "epoch": int, "objective": dict, "optimizer": dict, "schedule": dict, "hooks": list, "rng": list, "best": dict,
}  # fmt: skip
_BEST_KEYS: dict[str, Any] = {"epoch": int, "value": (int, float), "objective": dict}


def _describe_defect(state: Mapping[str, Any]) -> str:
    """Return the first missing or invalid entry of a checkpoint as text, or an empty string."""
    for prefix, parts in (("", _CHECKPOINT_KEYS), ("best.", _BEST_KEYS)):
        section = state["best"] if prefix else state
        for name, kind in parts.items():
            if name not in section:
                return f"{prefix}{name} is missing"
            if not isinstance(section[name], kind) or isinstance(section[name], bool):
                return f"{prefix}{name} is {describe(section[name])}"
    for prefix, weights in (
        ("objective", state["objective"]),
        ("best.objective", state["best"]["objective"]),
    ):
        for name, value in weights.items():
            if not isinstance(name, str) or not isinstance(value, Tensor):
                return f"{prefix}: {describe(name)} is {describe(value)}"
    if not 1 <= state["best"]["epoch"] <= state["epoch"]:
        return f"best.epoch is {describe(state['best']['epoch'])}, and epoch {describe(state['epoch'])}"
    return "" if state["rng"] else "rng is empty"


def config_differences(
    old: Mapping[str, Any],
    new: Mapping[str, Any],
    prefix: str = "",
    *,
    words: tuple[str, str] = ("before", "now"),
) -> list[str]:
    """Return the differences of two nested configurations, such as ``"optimizer.lr: 0.1 before, 0.2 now"``.

    Example:
        >>> config_differences({"a": {"b": 1}, "c": 2}, {"a": {"b": 3}})
        ['a.b: 1 before, 3 now', 'c: 2 before, absent now']
    """
    changes: list[str] = []
    for key in dict.fromkeys([*old, *new]):
        before = old.get(key)
        now = new.get(key)
        if isinstance(before, Mapping) and isinstance(now, Mapping):
            changes += config_differences(before, now, f"{prefix}{key}.", words=words)
        elif _is_different(before, now) or (key in old) != (key in new):
            was, now_is = (
                _short_repr(side[key]) if key in side else "absent" for side in (old, new)
            )
            changes.append(f"{prefix}{key}: {was} {words[0]}, {now_is} {words[1]}")
    return changes


def _is_different(before: object, now: object) -> bool:
    try:
        return bool(before != now)
    except (RuntimeError, TypeError, ValueError):  # a tensor in the place of a plain value
        return True


def _short_repr(value: object) -> str:
    """Return ``repr(value)``, shortened if the value is long or deeply nested."""
    return repr(value) if isinstance(value, bool | float | str | None) else _SHORT_REPR.repr(value)


_SHORT_REPR = reprlib.Repr()
_SHORT_REPR.maxlist = _SHORT_REPR.maxdict = _SHORT_REPR.maxtuple = 10
_SHORT_REPR.maxlevel = 3
_SHORT_REPR.maxstring = _SHORT_REPR.maxother = 200


_OPTIMIZER_STATE_KEYS = {"SGD": {"momentum_buffer"}, "AdamW": {"step", "exp_avg", "exp_avg_sq"}}
"""Entries of an optimizer's state for each parameter."""


def restore_module(module: nn.Module, state: Mapping[str, Any], path: Path) -> None:
    """Load a state dict from the checkpoint ``path`` into a module.

    Raises:
        InputError: If keys, shapes or types differ from the module's; nothing changes then.
    """
    if wrong := describe_mismatch(module.state_dict(), state, "weights"):
        raise _unusable_checkpoint(path, wrong)
    module.load_state_dict(state)


def restore_training(
    saved: Mapping[str, Any],
    job: TrainingJob,
    optimizer: torch.optim.Optimizer,
    schedule: LRScheduler,
    weights: WeightAveraging,
) -> None:
    """Restore objective, optimizer, schedule, average, hooks and random generators from a checkpoint.

    Args:
        saved: From :func:`~fedlas.lab.train.checkpoint.load_checkpoint`.
        job: Training job whose objective and hooks are restored.
        optimizer: Over the objective's parameters.
        schedule: Schedule of that optimizer, just built.
        weights: The weight averaging.

    Raises:
        InputError: If any part does not fit; the objective is unchanged then.
    """
    # Compare everything that can be compared first: a refused checkpoint leaves the weights unchanged.
    path = job.folder / CHECKPOINT
    like = job.objective.state_dict()
    hooks = job.hooks
    wrong = describe_mismatch(like, saved["objective"], "weights") or describe_mismatch(
        like, saved["best"]["objective"], "best weights"
    )
    if not wrong and saved["epoch"] > job.config.epochs:
        wrong = f"epoch {saved['epoch']} of {job.config.epochs}"
    if not wrong and len(saved["hooks"]) != len(hooks):
        wrong = f"it has {len(saved['hooks'])} hook states for {len(hooks)} hooks"
    if wrong:
        raise _unusable_checkpoint(path, wrong)
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
        restore_rng_state(saved["rng"][int(job.accelerator.process_index) % len(saved["rng"])])
    except Exception as error:  # what is loaded may be anything, and so may what its loader raises
        reason = f"lacks {error}" if isinstance(error, KeyError) else one_line_error(error, 300)
        if part == "hook":
            raise _unusable_checkpoint(path, f"the state of a hook {reason}") from error
        raise _unusable_checkpoint(path, f"{part}: {reason}") from error
    # The weights come last and cannot fail: they were compared above.
    job.objective.load_state_dict(saved["objective"])


def describe_mismatch(like: Any, value: Any, name: str) -> str:
    """Return how ``value`` differs from ``like`` in type, keys, length or shape, or an empty string.

    Numbers may be any finite number; what is None in ``like`` may also be a number.

    Example:
        >>> describe_mismatch({"lr": 0.1, "params": [0, 1]}, {"lr": "fast", "params": [0, 1]}, "group")
        "group.lr is str 'fast'"
    """
    if isinstance(like, Tensor):
        fits = (
            isinstance(value, Tensor)
            and value.layout == like.layout
            and value.device.type != "meta"
        )
        if fits and value.shape == like.shape and value.dtype == like.dtype:
            return ""
        return f"{name} is {describe(value)}, not {describe(like)}"
    # A container fits if each of its members does; the first that does not is named with its path.
    if isinstance(like, Mapping):
        if not isinstance(value, Mapping):
            return f"{name} is {describe(value)}"
        for verb, keys in (
            ("lacks", like.keys() - value.keys()),
            ("has", value.keys() - like.keys()),
        ):
            if keys:
                more = f" and {len(keys) - 5} more" if len(keys) > 5 else ""
                return f"{name} {verb} {', '.join(sorted(map(str, keys))[:5])}{more}"
        return next(
            filter(
                None, (describe_mismatch(like[key], value[key], f"{name}.{key}") for key in like)
            ),
            "",
        )
    if isinstance(like, list | tuple):
        if not isinstance(value, list | tuple) or len(value) != len(like):
            return f"{name} is {describe(value)}"
        pairs = enumerate(zip(like, value, strict=True))
        return next(
            filter(
                None, (describe_mismatch(one, other, f"{name}[{at}]") for at, (one, other) in pairs)
            ),
            "",
        )
    # In Python True is a number, so truth values are compared by their type.
    if isinstance(like, bool | str):
        fits = type(value) is type(like)
    else:
        number = (
            isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < math.inf
        )
        fits = number or (like is None and value is None)
    return "" if fits else f"{name} is {describe(value)}"


def _restore_optimizer(optimizer: torch.optim.Optimizer, state: Any) -> None:
    like = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict(state)
    # Compared afterward: torch adds the options that earlier releases did not have.
    wrong = describe_mismatch(like, optimizer.state_dict()["param_groups"], "groups")
    names = _OPTIMIZER_STATE_KEYS[type(optimizer).__name__]
    for parameter, buffers in optimizer.state.items():
        if (
            not isinstance(parameter, Tensor)
            or not isinstance(buffers, dict)
            or not buffers.keys() <= names
        ):
            wrong = wrong or f"it keeps {describe(buffers)} of a parameter"
            break
        if len(names) > 1 and buffers and buffers.keys() != names:  # AdamW keeps none or all
            wrong = wrong or f"it lacks {', '.join(sorted(names - buffers.keys()))}"
        for name, value in buffers.items():
            shaped = torch.zeros(()) if name == "step" else parameter.detach()
            if value is not None or name != "momentum_buffer":
                wrong = wrong or describe_mismatch(shaped, value, name)
    if wrong:
        raise ValueError(wrong)


def _restore_schedule(schedule: LRScheduler, state: Any, epoch: int) -> None:
    like = schedule.state_dict()
    schedule.load_state_dict(state)
    now = schedule.state_dict()
    wrong = describe_mismatch(like, {name: now[name] for name in like}, "schedule")
    if wrong or state.get("last_epoch") != epoch:
        raise ValueError(
            wrong or f"it is at epoch {describe(state.get('last_epoch'))}, not {epoch}"
        )


def _unusable_checkpoint(path: Path, reason: str) -> InputError:
    return InputError(
        "the checkpoint must hold the state of this model and loss",
        f"{path}: {reason}",
        "Use the release that wrote it, or train again with another --out.",
    )
