"""Pre-trained weights from a file on disk, with another head where the number of classes differs."""

from __future__ import annotations

import hashlib
import pickle
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fedlas._core.check import InputError
from fedlas._core.extras import require
from fedlas.features import find_head

_INSIDE = ("state_dict_ema", "state_dict", "model_state_dict", "model")
"""Where training scripts put the weights in a larger file, in the order in which they are looked for."""
_PREFIXES = ("module.", "_orig_mod.", "model.", "backbone.")
"""What wrappers put in front of every key."""
_HEADS = ("fc", "classifier", "head", "head.fc", "heads.head", "last_linear", "linear")
"""What other libraries call the head, so that a file of theirs fits a model of ours."""


def load_weights(model: nn.Module, path: str | Path) -> tuple[str, ...]:
    """Put pre-trained weights into a model, all of them; only the head may be new.

    Args:
        model: Changed in place.
        path: ``.safetensors``, or a file of ``torch.save`` that holds tensors only: a state dict, or a mapping with one
            under ``state_dict``, ``model`` or the like. It is read with ``weights_only=True``, so no code in it runs.

    Returns:
        What is worth knowing, in sentences: that the head was replaced, say, because the file has other classes.

    Raises:
        InputError: If there is no such file or it holds no weights, or if anything but the head is missing, left over
            or of another shape; the keys are listed and the model is unchanged.

    Note:
        A model of timm gets position embeddings of another image size interpolated, as timm does it.
    """
    weights = _unwrapped(read_weights(path), model)
    clean = getattr(sys.modules[type(model).__module__], "checkpoint_filter_fn", None)  # timm's own
    if clean is not None:
        weights = clean(dict(weights), model)
    own, notes = model.state_dict(), []
    name = next(name for name, module in model.named_modules() if module is find_head(model))
    weights = _with_head(weights, own, name)
    key = f"{name}.weight"
    given = weights.get(key)
    new_head = given is not None and given.shape[1:] == own[key].shape[1:] and len(given) != len(own[key])
    if new_head:
        weights = {k: v for k, v in weights.items() if k not in (key, f"{name}.bias")}
        notes.append(
            f"{Path(path).name}: the head {name!r} of {len(given)} classes was left out; "  # type: ignore[arg-type]
            f"the one of {len(own[key])} classes starts untrained"
        )
    expected = {k for k in own if not (new_head and k in (key, f"{name}.bias"))}
    _refuse_misfits(path, model, weights, own, expected)
    model.load_state_dict(own | {k: v for k, v in weights.items() if k in own})
    return tuple(notes)


def read_weights(path: str | Path) -> dict[str, Tensor]:
    """The tensors in a file of weights, on the CPU, under the names that they have there.

    Args:
        path: As for :func:`load_weights`.

    Raises:
        InputError: If there is no such file, or it holds no tensors or more than tensors.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError("model.weights", "the file must exist", path, "Download it first, and check the path.")
    content: Any
    try:
        if path.suffix == ".safetensors":
            content = require("safetensors.torch", extra="timm").load_file(str(path))
        else:
            content = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, ValueError, EOFError, OSError, pickle.UnpicklingError, KeyError) as error:
        raise _unreadable(path, error) from error
    except Exception as error:
        if type(error).__module__.startswith("safetensors"):  # its only exception has no public base
            raise _unreadable(path, error) from error
        raise
    for place in _INSIDE:
        if isinstance(content, Mapping) and isinstance(content.get(place), Mapping):
            content = content[place]
    tensors = isinstance(content, Mapping) and {str(k): v for k, v in content.items() if isinstance(v, Tensor)}
    if not tensors:
        raise InputError(
            "model.weights",
            "the file must hold a state dict",
            f"{path} with {type(content).__name__}",
            "Save model.state_dict().",
        )
    return tensors


def weights_digest(path: str | Path) -> str:
    """SHA-256 of the file, which says whether two runs started from the same weights.

    Raises:
        InputError: If there is no such file.
    """
    if not Path(path).is_file():
        raise InputError("model.weights", "the file must exist", path, "Download it first, and check the path.")
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _unreadable(path: Path, error: Exception) -> InputError:
    reason = " ".join(str(error).split())[:160] or type(error).__name__
    return InputError(
        "model.weights",
        "it must be a safetensors file, or one of torch.save with nothing but tensors",
        f"{path} ({reason})",
        "Load it where you trust it, and save model.state_dict().",
    )


def _unwrapped(weights: dict[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """Without what wrappers put in front of every key, unless the model's own keys begin like that."""
    own = model.state_dict()
    again = True
    while again:
        again = False
        for prefix in _PREFIXES:
            if all(key.startswith(prefix) for key in weights) and not any(key.startswith(prefix) for key in own):
                weights = {key.removeprefix(prefix): value for key, value in weights.items()}
                again = True
    return weights


def _with_head(weights: dict[str, Tensor], own: Mapping[str, Tensor], name: str) -> dict[str, Tensor]:
    """With the head under the model's name for it, if the file has it under one that the model has not."""
    if f"{name}.weight" in weights:
        return weights
    other = next((h for h in _HEADS if f"{h}.weight" in weights and f"{h}.weight" not in own), None)
    if other is None:
        return weights
    ours = {f"{other}.{part}": f"{name}.{part}" for part in ("weight", "bias")}
    return {ours.get(key, key): value for key, value in weights.items()}


def _refuse_misfits(
    path: str | Path,
    model: nn.Module,
    weights: Mapping[str, Tensor],
    own: Mapping[str, Tensor],
    expected: set[str],
) -> None:
    counters = {key for key in expected if key.endswith("num_batches_tracked")}  # absent in files of old
    problems = {
        "missing": sorted(expected - counters - weights.keys()),
        "unknown": sorted(weights.keys() - own.keys()),
        "of another shape": [
            f"{key} {tuple(weights[key].shape)} for {tuple(own[key].shape)}"
            for key in sorted(expected & weights.keys())
            if weights[key].shape != own[key].shape
        ],
    }
    found = "; ".join(f"{len(keys)} {kind}: {_few(keys)}" for kind, keys in problems.items() if keys)
    if found:
        raise InputError(
            "model.weights",
            f"the file must hold the weights of this {type(model).__name__}",
            f"{path} with {found}",
            "Choose the model (and its options, and in_channels) that the file was saved from.",
        )


def _few(keys: Sequence[str]) -> str:
    return ", ".join(keys[:5]) + (f" and {len(keys) - 5} more" if len(keys) > 5 else "")
