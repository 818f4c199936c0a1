"""The batches of any loader: which part of one is the input of a model, and which the labels."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from fedlas._core.check import InputError, describe

LABELS = ("labels", "label", "target")
"""Keys under which a mapping may hold the labels."""


def read_batch(owner: str, batch: Any, label: int | str | None = None) -> tuple[Any, Any]:
    """Return inputs and labels of a batch; labels are None if it holds none.

    Args:
        owner: The calling function, for errors.
        batch: A tensor, the inputs alone. Or a mapping: the entry ``labels``, ``label`` or ``target`` holds the labels,
            the others are the inputs. Or a tuple or list: of one, the inputs alone; else the first holds the inputs,
            the second the labels, and whatever follows is ignored.
        label: Key or position of the labels, where the rule does not find them. All other entries are then inputs.

    Raises:
        InputError: If the batch is something else, or does not hold the labels where ``label`` says.

    Example:
        >>> read_batch("predict", (torch.zeros(2, 4), torch.tensor([0, 1]), torch.arange(2)))[1]
        tensor([0, 1])
        >>> inputs, labels = read_batch("predict", {"pixel_values": torch.zeros(2, 4), "labels": torch.tensor([0, 1])})
        >>> list(inputs), labels
        (['pixel_values'], tensor([0, 1]))
    """
    if isinstance(batch, Mapping):
        return _of_mapping(owner, batch, label)
    if isinstance(batch, tuple | list) and batch:
        return _of_sequence(owner, batch, label)
    if isinstance(batch, Tensor) and label is None:
        return batch, None
    raise InputError(
        owner,
        "a batch must be inputs, (inputs, target) or a mapping" if label is None else f"a batch must hold {label!r}",
        describe(batch),
        "Write a collate_fn that returns one of these.",
    )


def _of_mapping(owner: str, batch: Mapping[str, Any], label: int | str | None) -> tuple[Any, Any]:
    keys = [key for key in LABELS if key in batch] if label is None else [label]
    if len(keys) > 1 or (label is not None and label not in batch):
        expected = "a batch must hold labels under one key" if label is None else f"a batch must hold {label!r}"
        got = f"a mapping with {', '.join(map(repr, batch))}"
        raise InputError(owner, expected, got, "Name the key of the labels, e.g. label='labels'.")
    inputs = {key: value for key, value in batch.items() if key not in keys}
    return inputs, batch[keys[0]] if keys else None  # type: ignore[index]  # the keys are strings here


def _of_sequence(owner: str, batch: Any, label: int | str | None) -> tuple[Any, Any]:
    if label is None:
        return batch[0], batch[1] if len(batch) > 1 else None
    if not isinstance(label, int) or not -len(batch) <= label < len(batch):
        fix = f"Name a position from 0 to {len(batch) - 1}."
        raise InputError(owner, "label must be the position of the labels in a batch", repr(label), fix)
    place = label % len(batch)
    inputs = [*batch[:place], *batch[place + 1 :]]
    return inputs[0] if len(inputs) == 1 else inputs, batch[place]


def moved(value: Any, device: str | torch.device) -> Any:
    """Return the same value with all its tensors on ``device``, also those in mappings, tuples and lists."""
    if callable(getattr(value, "to", None)):  # a tensor, a BatchEncoding or a PackedSequence
        return value.to(device)
    if isinstance(value, Mapping):
        return {key: moved(entry, device) for key, entry in value.items()}
    if type(value) in (tuple, list):
        return type(value)(moved(entry, device) for entry in value)
    return value


def tensors_in(value: Any) -> Iterator[Tensor]:
    """Yield all tensors in a value, inside of mappings, tuples and lists too."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping | tuple | list):
        for entry in value.values() if isinstance(value, Mapping) else value:
            yield from tensors_in(entry)


def checked_labels(owner: str, labels: Any, samples: int) -> Tensor:
    """Return labels ``(N,)`` on the CPU; 0.0 and 1.0, as ``nn.BCEWithLogitsLoss`` takes them, become integers.

    Raises:
        InputError: If they are not ``samples`` whole numbers.
    """
    if isinstance(labels, Tensor):
        labels = as_integers(labels, (samples,))
    if not isinstance(labels, Tensor):
        try:
            labels = torch.as_tensor(labels)
        except (TypeError, ValueError, RuntimeError):
            labels = [labels]
    kinds = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)
    if isinstance(labels, Tensor) and labels.shape == (samples,) and labels.dtype in kinds:
        return labels.cpu()
    raise InputError(
        owner,
        f"the labels of a batch of {samples} must be integers ({samples},)",
        describe(labels[0] if isinstance(labels, list) else labels),
        "The second element of a batch, or the entry 'labels', holds them: pass several inputs as ((a, b), target), "
        "inputs without labels as (inputs,), or say where labels are, e.g. label=2.",
    )


def as_integers(labels: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Return float labels 0.0 and 1.0, with an axis of one class perhaps, as integers of ``shape``; others as given."""
    fits = labels.is_floating_point() and labels.numel() == math.prod(shape)
    return labels.reshape(shape).long() if fits and bool(((labels == 0) | (labels == 1)).all()) else labels
