"""Checkpoints: written atomically, loaded without running code, and refused under another configuration."""

from __future__ import annotations

import reprlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fedlas._core.arrays import load_tensors
from fedlas._core.check import InputError, describe
from fedlas._core.files import write_atomically

__all__ = ["CHECKPOINT", "differences", "load_checkpoint", "save_checkpoint"]

CHECKPOINT = "checkpoint.pt"
"""Its name in the folder of a run."""
FORMAT = 1


def save_checkpoint(path: Path, state: Mapping[str, Any], config: Mapping[str, Any]) -> None:
    """Write a checkpoint atomically.

    Args:
        path: File to write. An older checkpoint survives until the new one is complete.
        state: Tensors and plain values only, which is all that :func:`load_checkpoint` accepts.
        config: Resolved configuration of the run. A later load compares its own with it.

    Raises:
        InputError: If the folder is not writable.
    """
    write_atomically(path, lambda file: torch.save({"format": FORMAT, "config": dict(config), **state}, file))


def load_checkpoint(path: Path, config: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Read a checkpoint onto the CPU.

    Args:
        path: File written by :func:`save_checkpoint`.
        config: Configuration that the checkpoint must have been written under; None skips the comparison.

    Raises:
        InputError: If the file is missing, truncated, of another format or not a checkpoint, if a part of it is missing
            or of another kind, or if the configurations differ; the message names every difference.

    Note:
        Nothing in the file is executed: only tensors and plain values are read.
    """
    owner = "checkpoint"
    try:
        state = load_tensors(path)
    except FileNotFoundError as error:
        raise InputError(owner, "the file must exist", path, "Check the path.") from error
    except (OSError, ValueError) as error:
        raise InputError(
            owner,
            "the file must be a whole checkpoint of plain tensors",
            f"{path} ({error})",
            "Remove the file to start the run again; nothing else was changed.",
        ) from error
    # The format is checked first, because the fields below are those of this format.
    if not isinstance(state, dict) or _differ(state.get("format"), FORMAT) or not isinstance(state.get("config"), dict):
        raise InputError(owner, f"the file must be of format {FORMAT}", path, "Use the release that wrote it.")
    if config is not None:
        # A checkpoint of other settings would resume without an error and give a run that no configuration describes.
        found = differences(state["config"], config)
        if found:
            raise InputError(
                owner,
                "it must come from the same configuration",
                f"{path}, which differs in {'; '.join(found)}",
                "Use the old settings to resume, or another --out to start afresh.",
            )
    # A file that is edited or of a wrong type must fail here, before any state is changed.
    if wrong := _wrong(state):
        raise InputError(
            owner,
            "it must hold a whole run",
            f"{path}, where {wrong}",
            "Use the release that wrote it, or train again with another --out.",
        )
    return state


_PARTS: dict[str, Any] = {
    "epoch": int, "objective": dict, "optimizer": dict, "schedule": dict, "hooks": list, "rng": list, "best": dict,
}  # fmt: skip
_BEST: dict[str, Any] = {"epoch": int, "value": (int, float), "objective": dict}


def _wrong(state: Mapping[str, Any]) -> str:
    """What the parts of a checkpoint lack, whatever model they are of; empty text if nothing."""
    for place, parts in (("", _PARTS), ("best.", _BEST)):
        holder = state["best"] if place else state
        for name, kind in parts.items():
            if name not in holder:
                return f"{place}{name} is missing"
            if not isinstance(holder[name], kind) or isinstance(holder[name], bool):
                return f"{place}{name} is {describe(holder[name])}"
    for place, weights in (("objective", state["objective"]), ("best.objective", state["best"]["objective"])):
        for name, value in weights.items():
            if not isinstance(name, str) or not isinstance(value, Tensor):
                return f"{place}: {describe(name)} is {describe(value)}"
    if not 1 <= state["best"]["epoch"] <= state["epoch"]:
        return f"best.epoch is {describe(state['best']['epoch'])}, and epoch {describe(state['epoch'])}"
    return "" if state["rng"] else "rng is empty"


def differences(
    old: Mapping[str, Any], new: Mapping[str, Any], prefix: str = "", *, words: tuple[str, str] = ("before", "now")
) -> list[str]:
    """Differences of two nested configurations, as ``"optimizer.lr: 0.1 before, 0.2 now"``.

    Example:
        >>> differences({"a": {"b": 1}, "c": 2}, {"a": {"b": 3}})
        ['a.b: 1 before, 3 now', 'c: 2 before, absent now']
    """
    found: list[str] = []
    for key in dict.fromkeys([*old, *new]):
        before, now = old.get(key), new.get(key)
        if isinstance(before, Mapping) and isinstance(now, Mapping):
            found += differences(before, now, f"{prefix}{key}.", words=words)
        elif _differ(before, now) or (key in old) != (key in new):
            was, now_is = (_shown(side[key]) if key in side else "absent" for side in (old, new))
            found.append(f"{prefix}{key}: {was} {words[0]}, {now_is} {words[1]}")
    return found


def _differ(before: object, now: object) -> bool:
    try:
        return bool(before != now)
    except (RuntimeError, TypeError, ValueError):  # a tensor in the place of a plain value
        return True


def _shown(value: object) -> str:
    """``repr(value)``; shortened where it nests deeply or repeats itself, which a file of a stranger may."""
    return repr(value) if isinstance(value, bool | float | str | None) else _SHORT.repr(value)


_SHORT = reprlib.Repr()
_SHORT.maxlist = _SHORT.maxdict = _SHORT.maxtuple = 10
_SHORT.maxlevel = 3
_SHORT.maxstring = _SHORT.maxother = 200
