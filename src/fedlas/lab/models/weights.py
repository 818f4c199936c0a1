"""Pre-trained weights from a file, with a new head if the number of classes differs."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fedlas._core.arrays import load_tensors
from fedlas._core.check import InputError, one_line_error
from fedlas._core.extras import MissingExtraError, require
from fedlas.features import find_head
from fedlas.lab.models.library_models import load_pretrained

_STATE_DICT_KEYS = ("state_dict_ema", "state_dict", "model_state_dict", "model")
"""Keys under which training scripts store the weights in a checkpoint, in the order of search."""
_PREFIXES = ("module.", "_orig_mod.", "model.", "backbone.")
"""Prefixes that wrappers add to every key."""
_RUN_CHECKPOINT = "checkpoint.pt"
"""Checkpoint in the folder of a run."""
_HEAD_NAMES = ("fc", "classifier", "head", "head.fc", "heads.head", "last_linear", "linear")
"""Names of the head in other libraries."""


def load_weights(model: nn.Module, path: str | Path) -> tuple[str, ...]:
    """Load pre-trained weights into a model, except for a head with another number of classes.

    Args:
        model: The model, changed in place.
        path: ``.safetensors``; a folder with ``model.safetensors`` in it; the folder of a run, whose best epoch is
            taken; or a file of ``torch.save`` that holds tensors only: a state dict, or a mapping with one under a key
            such as ``state_dict`` or ``model``. It is read with ``weights_only=True``, so no code runs.

    Returns:
        Notes, one sentence each, e.g. that the head starts untrained.

    Raises:
        InputError: If there is no such file or it holds no weights, or if anything but the head is missing, unknown or
            of another shape. The message lists the keys, and the model is unchanged.

    Note:
        For a model of timm, position embeddings of another image size are interpolated as timm does it.

    Example:
        >>> from tempfile import mkdtemp
        >>> from fedlas.lab.models import build_model
        >>> path = Path(mkdtemp()) / "resnet8.pt"
        >>> pretrained = build_model("resnet8", num_classes=10, in_channels=3)
        >>> torch.save(pretrained.state_dict(), path)
        >>> model = build_model("resnet8", num_classes=4, in_channels=3)
        >>> load_weights(model, path)
        ("resnet8.pt: the head 'fc' of 10 classes was left out; the one of 4 classes starts untrained",)
    """
    if hasattr(model, "from_pretrained") and Path(path).is_dir():
        return _load_hf_checkpoint(model, _require_weights_file(path).parent)
    # Bring the keys into the model's form.
    weights = _strip_wrapper_prefixes(read_weights(path), model)
    filter_fn = getattr(
        sys.modules[type(model).__module__], "checkpoint_filter_fn", None
    )  # timm's own
    if filter_fn is not None:
        try:
            weights = filter_fn(dict(weights), model)
        except (
            Exception
        ) as error:  # it trusts the keys, and may raise anything for those of another model
            raise _wrong_model_error(
                model, path, f"keys such as {', '.join(list(weights)[:5])} ({error!r})"
            ) from error
    state = model.state_dict()
    notes = []
    expected_keys = set(state)
    name = next(name for name, module in model.named_modules() if module is find_head(model))
    weights = _rename_head(weights, state, name)
    # Leave out a head with another number of classes.
    key = f"{name}.weight"
    head = {key, f"{name}.bias"}
    classes = len(state[key])
    rows = weights.get(key)
    if rows is not None and rows.shape[1:] == state[key].shape[1:] and len(rows) != classes:
        weights = {k: v for k, v in weights.items() if k not in head}
        expected_keys -= head
        note = f"the head {name!r} of {len(rows)} classes was left out; the one of {classes} classes starts untrained"
        notes.append(f"{Path(path).name}: {note}")
    # All else must fit; nothing is changed before it does.
    if mismatches := _describe_mismatches(weights, state, expected_keys):
        raise _wrong_model_error(model, path, mismatches)
    model.load_state_dict(state | {k: v for k, v in weights.items() if k in state})
    return tuple(notes)


def _load_hf_checkpoint(model: nn.Module, folder: Path) -> tuple[str, ...]:
    """Load a transformers checkpoint, except for a head with another number of classes."""
    head = next(name for name, module in model.named_modules() if module is find_head(model))
    try:
        missing, unknown = load_pretrained(model, folder)
    except Exception as error:  # transformers raises many kinds for damaged files
        raise _wrong_model_error(model, folder, one_line_error(error)) from error
    others = missing - {f"{head}.weight", f"{head}.bias"}
    if others or unknown:
        got = f"{len(others)} missing and {len(unknown)} unknown weights"
        raise _wrong_model_error(
            model, folder, f"{got}: {', '.join([*sorted(others), *unknown][:5])}"
        )
    return (f"{folder.name}: the head {head!r} starts untrained",) if missing else ()


def read_weights(path: str | Path) -> dict[str, Tensor]:
    """Return the tensors in a weights file, on the CPU, by their names in the file.

    Args:
        path: As for :func:`load_weights`.

    Raises:
        InputError: If there is no such file, or it holds no tensors or more than tensors.
    """
    path = _require_weights_file(path)
    content: Any
    try:
        if path.suffix == ".safetensors":
            content = require("safetensors.torch", extra="timm").load_file(str(path))
        else:
            content = load_tensors(path)
    except MissingExtraError:
        raise
    except Exception as error:  # safetensors may raise anything for bytes that are no weights
        raise InputError(
            "model.weights must be a safetensors file, or a torch.save file that holds only tensors",
            f"{path} ({one_line_error(error)})",
            "If you trust the file, load it yourself and save model.state_dict().",
        ) from error
    match content:
        case {"best": {"objective": Mapping() as state}}:  # of a run: model and criterion
            prefix = "model."
            content = {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
    # Checkpoints nest: the weights may lie two levels deep, under keys of this list.
    for place in _STATE_DICT_KEYS:
        if isinstance(content, Mapping) and isinstance(content.get(place), Mapping):
            content = content[place]
    tensors = isinstance(content, Mapping) and {
        str(k): v for k, v in content.items() if isinstance(v, Tensor)
    }
    if not tensors:
        raise InputError(
            "the file of model.weights must hold a state dict",
            f"{path} with {type(content).__name__}",
            "Save model.state_dict().",
        )
    return tensors


def weights_digest(path: str | Path) -> str:
    """Return the SHA-256 digest of a weights file, to compare the weights that runs started from.

    Raises:
        InputError: If there is no such file.

    Example:
        >>> from tempfile import mkdtemp
        >>> path = Path(mkdtemp()) / "weights.pt"
        >>> path.write_bytes(b"")
        0
        >>> weights_digest(path)[:8]
        'e3b0c442'
    """
    with _require_weights_file(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _require_weights_file(path: str | Path) -> Path:
    """Return the path of a weights file, or of the weights in a folder; raise InputError if there is none."""
    file = Path(path)
    if file.is_dir():
        file /= _RUN_CHECKPOINT if (file / _RUN_CHECKPOINT).exists() else "model.safetensors"
    if not file.is_file():
        raise InputError(
            "the file of model.weights must exist",
            file,
            "Download it first, or name a file or the folder of a run.",
        )
    return file


def _wrong_model_error(model: nn.Module, path: str | Path, got: str) -> InputError:
    """Return the error for weights that do not belong to the model."""
    return InputError(
        f"the file must hold the weights of this {type(model).__name__}",
        f"{path} with {got}",
        "Choose the model (and its options, and in_channels) that the file was saved from.",
    )


def _strip_wrapper_prefixes(weights: dict[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """Return the weights without wrapper prefixes, unless the model's own keys have them."""
    names = model.state_dict()

    def is_wrapper_prefix(prefix: str) -> bool:
        return all(key.startswith(prefix) for key in weights) and not any(
            key.startswith(prefix) for key in names
        )

    while prefix := next(filter(is_wrapper_prefix, _PREFIXES), None):
        weights = {key.removeprefix(prefix): value for key, value in weights.items()}
    return weights


def _rename_head(
    weights: dict[str, Tensor], state: Mapping[str, Tensor], name: str
) -> dict[str, Tensor]:
    """Return the weights with the head renamed as in the model, if the file names it differently."""
    if f"{name}.weight" in weights:
        return weights
    other = next(
        (h for h in _HEAD_NAMES if f"{h}.weight" in weights and f"{h}.weight" not in state), None
    )
    if other is None:
        return weights
    ours = {f"{other}.{part}": f"{name}.{part}" for part in ("weight", "bias")}
    return {ours.get(key, key): value for key, value in weights.items()}


def _describe_mismatches(
    weights: Mapping[str, Tensor], state: Mapping[str, Tensor], expected: set[str]
) -> str:
    """Return the keys that are missing, unknown, or of another shape or kind, as text; empty if there are none."""

    def is_copyable(value: Tensor) -> bool:
        """Return whether a tensor is dense, real and has values; a tensor on ``meta`` has none."""
        dense = value.layout == torch.strided and value.device.type == "cpu"
        return dense and not (value.is_complex() or value.is_quantized)

    # absent in files of old PyTorch
    counters = {key for key in expected if key.endswith("num_batches_tracked")}
    problems = {
        "missing": sorted(expected - counters - weights.keys()),
        "unknown": sorted(weights.keys() - state.keys()),
        "of another shape": [
            f"{key} {tuple(weights[key].shape)} for {tuple(state[key].shape)}"
            for key in sorted(expected & weights.keys())
            if weights[key].shape != state[key].shape
        ],
        "of another kind": [
            f"{key} ({value.dtype}, {value.layout}, {value.device})"
            for key, value in weights.items()
            if key in expected and not is_copyable(value)
        ],
    }

    def truncate_keys(keys: list[str]) -> str:
        """Return the first five keys as text, with the number of further keys."""
        return ", ".join(keys[:5]) + (f" and {len(keys) - 5} more" if len(keys) > 5 else "")

    return "; ".join(
        f"{len(keys)} {kind}: {truncate_keys(keys)}" for kind, keys in problems.items() if keys
    )
