"""Checkpoints: written whole or not at all, loaded without running code, refused by another configuration."""

from __future__ import annotations

import pickle
import struct
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from fedlas._core.check import InputError
from fedlas._core.files import write_atomically

CHECKPOINT = "checkpoint.pt"
"""Its name in the folder of a run."""
FORMAT = 1

# What torch.load raises for bytes that are no checkpoint: its unpickler walks whatever the bytes spell.
_UNREADABLE = (
    RuntimeError, EOFError, pickle.UnpicklingError, OSError, LookupError, ValueError, TypeError, AttributeError,
    AssertionError, ArithmeticError, MemoryError, zipfile.BadZipFile, struct.error,
)  # fmt: skip


def save_checkpoint(path: Path, state: Mapping[str, Any], config: Mapping[str, Any]) -> None:
    """Write a checkpoint atomically.

    Args:
        path: File to write; a checkpoint already there survives until the new one is complete.
        state: Tensors and plain values only, since that is all :func:`load_checkpoint` accepts.
        config: Resolved configuration of the run, which a later load is compared with.

    Raises:
        InputError: If the folder cannot be written to.
    """
    write_atomically(path, lambda file: torch.save({"format": FORMAT, "config": dict(config), **state}, file))


def load_checkpoint(path: Path, config: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Read a checkpoint onto the CPU.

    Args:
        path: File written by :func:`save_checkpoint`.
        config: Configuration that must be the one the checkpoint was written under; None skips the comparison.

    Raises:
        InputError: If the file is missing, truncated, of another format or not a checkpoint, or if the configurations
            differ; the message names every difference.

    Note:
        Nothing in the file is executed: tensors and plain values are all that is read.
    """
    owner = "checkpoint"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what torch remarks on a foreign file is no news beside the error below
            state = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise InputError(owner, "the file must exist", path, "Check the path.") from error
    except _UNREADABLE as error:
        reason = str(error).split("\n")[0][:120]
        raise InputError(
            owner,
            "the file must be a whole checkpoint of plain tensors",
            f"{path} ({type(error).__name__}: {reason})",
            "Remove the file to start the run again; nothing else was changed.",
        ) from error
    if not isinstance(state, dict) or state.get("format") != FORMAT or not isinstance(state.get("config"), dict):
        raise InputError(owner, f"the file must be of format {FORMAT}", path, "Use the release that wrote it.")
    if config is not None:
        found = differences(state["config"], config)
        if found:
            raise InputError(
                owner,
                "it must come from the same configuration",
                f"{path}, which differs in {'; '.join(found)}",
                "Use the old settings to resume, or another --out to start afresh.",
            )
    return state


def differences(
    old: Mapping[str, Any], new: Mapping[str, Any], prefix: str = "", *, words: tuple[str, str] = ("before", "now")
) -> list[str]:
    """Where two nested configurations differ, as ``"optimizer.lr: 0.1 before, 0.2 now"``.

    Example:
        >>> differences({"a": {"b": 1}, "c": 2}, {"a": {"b": 3}, "c": 2})
        ['a.b: 1 before, 3 now']
    """
    found: list[str] = []
    for key in [*old, *(key for key in new if key not in old)]:
        before, now = old.get(key, _ABSENT), new.get(key, _ABSENT)
        if isinstance(before, Mapping) and isinstance(now, Mapping):
            found += differences(before, now, f"{prefix}{key}.", words=words)
        elif before != now:
            found.append(f"{prefix}{key}: {before!r} {words[0]}, {now!r} {words[1]}")
    return found


class _Absent:
    def __repr__(self) -> str:
        return "absent"


_ABSENT = _Absent()
