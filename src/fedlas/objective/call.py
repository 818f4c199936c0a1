"""Calling a model on batches of any loader: splitting batches, binding arguments, extracting logits."""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from fedlas._core.check import InputError, describe
from fedlas.predictions.arguments import label_matrix_fix


@contextmanager
def eval_mode(model: nn.Module) -> Iterator[None]:
    """Context manager: set the model to ``eval()``; the mode of each submodule is restored on exit."""
    modes = [(module, module.training) for module in model.modules()]
    try:
        model.eval()
        yield
    finally:
        for module, mode in modes:
            module.training = mode


def unwrap_model(model: nn.Module) -> nn.Module:
    """Return the module inside ``DistributedDataParallel``, ``DataParallel`` or ``torch.compile``, or the model itself.

    Example:
        >>> unwrap_model(nn.DataParallel(nn.Linear(4, 3)))
        Linear(in_features=4, out_features=3, bias=True)
    """
    while True:
        # of torch.compile, whose class takes a second to import
        inner = getattr(model, "_orig_mod", None)
        if isinstance(model, nn.DataParallel | nn.parallel.DistributedDataParallel):
            inner = model.module
        if not isinstance(inner, nn.Module):
            return model
        model = inner


@dataclass(frozen=True)
class ForwardArguments:
    """Signature of a model's ``forward``.

    Attributes:
        required: Names of positional arguments without a default.
        optional: Names of arguments with a default or that are keyword-only.
        max_positional: Most positional arguments; None: no limit.
        takes_any_keyword: Whether any keyword is accepted.
    """

    required: tuple[str, ...]
    optional: frozenset[str]
    max_positional: int | None
    takes_any_keyword: bool

    @classmethod
    def from_model(cls, model: nn.Module) -> ForwardArguments:
        """Return the signature of a model's ``forward``; of the inner module if the model is wrapped."""
        inner = unwrap_model(model)
        inner = getattr(inner, "called_as", inner)  # an ensemble is called as its first member
        try:
            parameters = inspect.signature(inner.forward).parameters.values()
        except (
            TypeError,
            ValueError,
        ):  # compiled by TorchScript, for example: it may take any argument
            return cls((), frozenset(), None, True)
        kinds = inspect.Parameter
        positional = [
            p for p in parameters if p.kind in (kinds.POSITIONAL_ONLY, kinds.POSITIONAL_OR_KEYWORD)
        ]
        required = tuple(p.name for p in positional if p.default is kinds.empty)
        named = {
            p.name
            for p in parameters
            if p.kind in (kinds.POSITIONAL_OR_KEYWORD, kinds.KEYWORD_ONLY)
        }
        any_number, any_name = (
            any(p.kind is kind for p in parameters)
            for kind in (kinds.VAR_POSITIONAL, kinds.VAR_KEYWORD)
        )
        return cls(
            required,
            frozenset(named - set(required)),
            None if any_number else len(positional),
            any_name,
        )

    def call(self, model: nn.Module, inputs: object, keywords: Mapping[str, Any]) -> Any:
        """Call the model on the inputs of a batch and return its output; see :meth:`bind`."""
        positional, named = self.bind(model, inputs, keywords)
        return model(*positional, **named)

    def bind(
        self, model: nn.Module, inputs: Any, keywords: Mapping[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Return positional and keyword arguments of ``forward`` for the inputs of a batch.

        Args:
            model: The model, wrapped or not.
            inputs: One input; a plain tuple or list of several, in the order of ``forward``; or a mapping from names to
                inputs. A model with one argument gets the whole tuple, or the value of a mapping with one entry.
            keywords: Further keywords.

        Raises:
            InputError: If the inputs do not match ``forward``.
        """
        merged = dict(keywords)
        missing = [name for name in self.required if name not in keywords]
        if isinstance(inputs, Mapping):
            named = dict(inputs)
            if set(missing) <= set(named) and (
                self.takes_any_keyword or set(named) <= {*missing, *self.optional}
            ):
                return (), named | merged
            if self.max_positional != 1 and (len(named) != 1 or len(missing) > 1):
                raise self._mismatch_error(model, f"inputs {', '.join(map(str, named))}")
            return (next(iter(named.values())) if len(named) == 1 else inputs,), merged
        count = len(inputs) if type(inputs) in (tuple, list) else 1
        if (
            count > 1
            and len(missing) <= count
            and (self.max_positional is None or count <= self.max_positional)
        ):
            return tuple(inputs), merged
        if len(missing) > 1:
            raise self._mismatch_error(model, "one input" if count == 1 else f"{count} inputs")
        return (inputs,), merged

    def _mismatch_error(self, model: nn.Module, got: str) -> InputError:
        """Return the error for inputs that do not match ``forward``."""
        names = ", ".join((*self.required, *(f"{name}=" for name in sorted(self.optional))))
        return InputError(
            f"a batch must match the arguments of {type(unwrap_model(model)).__name__}.forward ({names})",
            got,
            "Pass several inputs as one tuple, ((a, b), target), or by name, {'a': a, 'b': b, 'label': target}.",
        )


def extract_logits(output: object) -> Tensor:
    """Return the logits of a model output: a tensor, ``.logits``, or the entry ``"logits"`` or ``"out"``.

    From a pair of tensors of one shape, such as an exported model's logits and probabilities, the first.

    Raises:
        InputError: If the output has no logits.
    """
    logits = output if isinstance(output, Tensor) else getattr(output, "logits", None)
    if logits is None and isinstance(output, Mapping):
        # "out": the segmentation models of torchvision
        logits = output.get("logits", output.get("out"))
    elif (
        isinstance(output, tuple)
        and len(output) == 2
        and all(isinstance(part, Tensor) for part in output)
    ):
        logits = output[0] if output[0].shape == output[1].shape else None
    if isinstance(logits, Tensor):
        return logits
    raise InputError(
        "the model must return logits, or an object with .logits",
        type(output).__name__,
        "Wrap the model in a module that returns the logits.",
    )


def class_logits(output: object) -> Tensor:
    """Return class logits ``(N, C, ...)`` of a model output; a single logit becomes two classes.

    A model with one output, ``(N,)`` or ``(N, 1, ...)`` as for ``nn.BCEWithLogitsLoss``, gets a first class with logit
    0, so that the softmax over both is the sigmoid of the output.

    Raises:
        InputError: If the output has no logits.

    Example:
        >>> import torch
        >>> class_logits(torch.tensor([[2.0], [-1.0]])).tolist()
        [[0.0, 2.0], [0.0, -1.0]]
    """
    logits = extract_logits(output)
    logits = logits.unsqueeze(1) if logits.ndim == 1 else logits
    return (
        torch.cat([torch.zeros_like(logits), logits], dim=1)
        if logits.ndim > 1 and logits.shape[1] == 1
        else logits
    )


LABELS = ("labels", "label", "target")
"""Keys of the labels in a batch that is a mapping."""


Key = int | str
"""Position or key of a field in a batch."""


def read_batch(batch: object) -> tuple[Any, Any]:
    """Return inputs and labels of a batch; labels are None if the batch has none.

    Args:
        batch: A tensor: the inputs alone. A mapping: the entry ``labels``, ``label`` or ``target`` holds the labels,
            the other entries are inputs. A tuple or list: inputs, then labels if there is a second element; further
            elements are ignored.

    Raises:
        InputError: If the batch is something else.

    Example:
        >>> read_batch((torch.zeros(2, 4), torch.tensor([0, 1]), torch.arange(2)))[1]
        tensor([0, 1])
        >>> inputs, labels = read_batch({"pixel_values": torch.zeros(2, 4), "labels": torch.tensor([0, 1])})
        >>> list(inputs), labels
        (['pixel_values'], tensor([0, 1]))
    """
    inputs, labels, _ = split_batch(batch, None, {})
    return inputs, labels


def split_batch(
    batch: object, label_key: Key | None, other_keys: Mapping[str, Key]
) -> tuple[Any, Any, dict[str, Any]]:
    """Return inputs, labels and further fields of a batch.

    Args:
        batch: As for :func:`read_batch`.
        label_key: Key or position of the labels; all other entries are then inputs. None: as in :func:`read_batch`.
        other_keys: Keys or positions of further fields, by name; these are not inputs.

    Raises:
        InputError: If the batch is not a batch or lacks one of the fields.
    """
    if isinstance(batch, Mapping):
        return _split_mapping(batch, label_key, other_keys)
    if isinstance(batch, tuple | list) and batch:
        return _split_sequence(batch, label_key, other_keys)
    if isinstance(batch, Tensor) and label_key is None and not other_keys:
        return batch, None, {}
    required = [*([] if label_key is None else [label_key]), *other_keys.values()]
    raise InputError(
        f"a batch must hold the elements {', '.join(map(repr, required))}"
        if required
        else "a batch must be a tensor of inputs, (inputs, target) or a mapping",
        describe(batch),
        "Write a collate_fn that returns one of these.",
    )


def _split_mapping(
    batch: Mapping[str, Any], label_key: Key | None, other_keys: Mapping[str, Key]
) -> tuple[Any, Any, dict[str, Any]]:
    """Return inputs, labels and further fields of a batch that is a mapping."""
    keys: list[Any] = [key for key in LABELS if key in batch] if label_key is None else [label_key]
    missing = [key for key in (*keys, *other_keys.values()) if key not in batch]
    if len(keys) > 1 or missing:
        raise InputError(
            (
                f"a batch must hold {missing[0]!r}"
                if missing
                else "a batch must have its labels under one key only"
            ),
            f"a mapping with {', '.join(map(repr, batch))}",
            "Pass the key of the labels, e.g. label='labels'.",
        )
    inputs = {
        key: value
        for key, value in batch.items()
        if key not in keys and key not in other_keys.values()
    }
    return (
        inputs,
        batch[keys[0]] if keys else None,
        {name: batch[str(key)] for name, key in other_keys.items()},
    )


def _split_sequence(
    batch: Any, label_key: Key | None, other_keys: Mapping[str, Key]
) -> tuple[Any, Any, dict[str, Any]]:
    """Return inputs, labels and further fields of a batch that is a tuple or list."""
    keys = other_keys if label_key is None else {"label": label_key, **other_keys}
    for name, key in keys.items():
        if not isinstance(key, int) or not -len(batch) <= key < len(batch):
            noun = "labels" if name == "label" else name
            raise InputError(
                f"{name} must be the position of the {noun} in a batch",
                repr(key),
                f"Pass a position from 0 to {len(batch) - 1}.",
            )
    positions = {name: int(key) % len(batch) for name, key in keys.items()}
    parts = {name: batch[place] for name, place in positions.items() if name != "label"}
    if label_key is None:
        return batch[0], batch[1] if len(batch) > 1 else None, parts
    inputs = [part for place, part in enumerate(batch) if place not in positions.values()]
    return inputs[0] if len(inputs) == 1 else inputs, batch[positions["label"]], parts


def move_to_device(value: Any, device: str | torch.device) -> Any:
    """Return the value with all tensors moved to ``device``, also inside mappings, tuples and lists."""
    if callable(getattr(value, "to", None)):  # a tensor, a BatchEncoding or a PackedSequence
        return value.to(device)
    if isinstance(value, Mapping):
        return {key: move_to_device(entry, device) for key, entry in value.items()}
    if type(value) in (tuple, list):
        return type(value)(move_to_device(entry, device) for entry in value)
    return value


def iter_tensors(value: object) -> Iterator[Tensor]:
    """Yield all tensors in a value, also inside mappings, tuples and lists."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping | tuple | list):
        for entry in value.values() if isinstance(value, Mapping) else value:
            yield from iter_tensors(entry)


def to_class_labels(labels: object, logits: Tensor) -> Tensor:
    """Return class labels as int64 ``(N,)`` or ``(N, d1, ...)`` on the CPU.

    With two classes, 0.0 and 1.0 as ``nn.BCEWithLogitsLoss`` takes them become integers.

    Raises:
        InputError: If they are not one whole number for each row or position of the logits ``(N, C, ...)``.
    """
    shape = (logits.shape[0], *logits.shape[2:])
    if isinstance(labels, Tensor):
        labels = to_integer_labels(labels, shape)
    if not isinstance(labels, Tensor):
        try:
            labels = torch.as_tensor(labels)
        except (TypeError, ValueError, RuntimeError):
            labels = [labels]
    integer_dtypes = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)
    if isinstance(labels, Tensor) and labels.shape == shape and labels.dtype in integer_dtypes:
        return labels.cpu().long()
    shown = labels[0] if isinstance(labels, list) else labels
    raise InputError(
        f"the labels of a batch must be integers of shape {shape}",
        describe(shown),
        _label_advice(shown, logits),
    )


def _label_advice(labels: object, logits: Tensor) -> str:
    """Return advice for labels that do not match the logits."""
    if isinstance(labels, Tensor) and labels.shape == logits.shape:
        return label_matrix_fix(labels)
    if isinstance(labels, Tensor) and logits.ndim > 2 and labels.shape == logits.shape[:-1]:
        return "Wrap the model in a module that puts the classes second: logits.movedim(-1, 1)."
    return (
        "Labels are the second element of a batch, or its entry 'labels'. Pass several inputs as ((a, b), target), "
        "inputs without labels as (inputs,), or the position of the labels, e.g. label=2."
    )


def to_label_tensor(labels: object) -> Tensor | None:
    """Return the labels as a tensor, or None if that is not possible."""
    try:
        return None if labels is None else torch.as_tensor(labels)
    except (TypeError, ValueError, RuntimeError):
        return None


def to_integer_labels(labels: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Return float labels 0.0 and 1.0 as integers of ``shape``; other labels are returned unchanged."""
    fits = labels.is_floating_point() and labels.numel() == math.prod(shape)
    return (
        labels.reshape(shape).long()
        if fits and bool(((labels == 0) | (labels == 1)).all())
        else labels
    )
