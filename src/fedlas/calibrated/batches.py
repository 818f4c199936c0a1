"""Runs a model over batches of any form and gives its logits row by row: one row a sample, or a position of one."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from fedlas._core.check import InputError, check_logits, describe
from fedlas.objective import Objective, logits_of

TARGETS = ("labels", "label", "target", "targets")
"""Keys of the labels in a batch that is a mapping."""


def bare(model: nn.Module) -> nn.Module:
    """The classifier in an :class:`~fedlas.Objective`, else the model itself."""
    return model.model if isinstance(model, Objective) else model


def logits_in(owner: str, output: Any) -> Tensor:
    """The logits in what a model returned: a tensor, something with ``.logits``, or a mapping with them.

    Raises:
        InputError: If there are none.
    """
    if isinstance(output, Mapping) and "logits" not in output:
        output = output.get("out", output)  # the segmentation models of torchvision
    return logits_of(owner, output["logits"] if isinstance(output, Mapping) and "logits" in output else output)


def call(model: nn.Module, inputs: Any) -> Any:
    """The model on the inputs of a batch.

    A mapping is passed as keyword arguments if the model takes those, a tuple or list as positional ones; all else,
    such as a mapping that the model takes as its one argument, is passed unchanged.
    """
    if isinstance(inputs, Mapping):
        named = {str(name): value for name, value in inputs.items()}
        try:
            inspect.signature(model.forward).bind(**named)
        except TypeError:
            return model(inputs)
        return model(**named)
    return model(*inputs) if isinstance(inputs, tuple | list) else model(inputs)


def to_device(inputs: Any, device: torch.device | str) -> Any:
    """The inputs of a batch with their tensors on the device."""
    if isinstance(inputs, Tensor):
        return inputs.to(device)
    if isinstance(inputs, Mapping):
        return {name: to_device(value, device) for name, value in inputs.items()}
    if isinstance(inputs, tuple | list):
        return tuple(to_device(value, device) for value in inputs)
    return inputs


def device_of(model: nn.Module) -> torch.device:
    """Where the model's parameters are."""
    return next((parameter.device for parameter in model.parameters()), torch.device("cpu"))


def split_batch(owner: str, batch: Any) -> tuple[Any, Tensor]:
    """Inputs and labels of a batch.

    Args:
        owner: Named in errors.
        batch: ``(inputs, target, ...)``, or a mapping with the labels under one of :data:`TARGETS`.

    Raises:
        InputError: If it has no labels.
    """
    if isinstance(batch, Mapping):
        found = [name for name in TARGETS if name in batch]
        if len(found) == 1 and isinstance(batch[found[0]], Tensor):
            return {name: value for name, value in batch.items() if name not in found}, batch[found[0]]
        got = f"a mapping with {', '.join(map(str, batch))}"
    elif isinstance(batch, tuple | list) and len(batch) > 1 and isinstance(batch[1], Tensor):
        return batch[0], batch[1]
    else:
        got = f"a {type(batch).__name__} of {len(batch)}" if isinstance(batch, tuple | list) else describe(batch)
    raise InputError(
        owner,
        f"each batch must be (inputs, target), or a mapping with one of {', '.join(TARGETS)}",
        got,
        "Wrap the loader in a generator that yields such batches.",
    )


def rows(owner: str, logits: Tensor, target: Tensor, *others: Tensor, ignore_index: int | None) -> list[Tensor]:
    """Logits ``(M, C)``, target ``(M,)`` and others ``(M, D)``: a row for each position whose label counts.

    Args:
        owner: Named in errors.
        logits: ``(N, C)`` or ``(N, C, d1, ...)``.
        target: ``(N,)`` or ``(N, d1, ...)``.
        *others: Of the same positions, ``(N, D)`` or ``(N, D, d1, ...)``.
        ignore_index: Label that does not count; None: all count.

    Raises:
        InputError: For other shapes.
    """
    logits = check_logits(owner, logits)
    shape = (logits.shape[0], *logits.shape[2:])
    if tuple(target.shape) != shape:
        last = tuple(target.shape) == tuple(logits.shape[:-1])
        raise InputError(
            owner,
            f"target must be class indices {shape} for logits {tuple(logits.shape)}",
            describe(target),
            "Wrap the model in a module that puts the classes second: logits.movedim(-1, 1)." if last
            else "Pass one label for each sample, or for each position.",
        )  # fmt: skip
    labels = target.reshape(-1)
    parts = [part.movedim(1, -1).reshape(-1, part.shape[1]) for part in (logits, *others)]
    if ignore_index is not None and bool((labels == ignore_index).any()):
        counts = labels != ignore_index
        labels, parts = labels[counts], [part[counts.to(part.device)] for part in parts]
    return [parts[0], labels, *parts[1:]]


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """``model.eval()`` inside; each submodule's mode is restored, also after an error."""
    modes = [(module, module.training) for module in model.modules()]
    try:
        model.eval()
        yield
    finally:
        for module, mode in modes:
            module.training = mode


class Outputs:
    """A model's rows of logits on every batch of a loader, anew each time it is iterated.

    Args:
        owner: Named in errors.
        model: The classifier.
        loader: Yields batches, see :func:`split_batch`.
        device: Device of the inputs; None is that of the model's parameters.
        tap: Reads the features of a run, if they are needed.
        ignore_index: Label of positions that do not count.

    Attributes:
        dense: Whether the last batch had more than one position a sample.
    """

    dense = False

    def __init__(
        self,
        owner: str,
        model: nn.Module,
        loader: Iterable[Any],
        *,
        device: str | torch.device | None,
        ignore_index: int | None,
        tap: Any = None,
    ) -> None:
        self._owner, self._model, self._loader, self._tap = owner, model, loader, tap
        self._device = device_of(model) if device is None else device
        self._ignored = ignore_index

    def __iter__(self) -> Iterator[list[Tensor]]:
        """Logits ``(M, C)``, target ``(M,)`` and, with a tap, features ``(M, D)``, on the CPU; at least float32."""
        seen = 0
        with evaluating(self._model):
            for batch in self._loader:
                inputs, target = split_batch(self._owner, batch)
                with torch.no_grad():
                    if self._tap is not None:
                        self._tap.start()
                    logits = logits_in(self._owner, call(self._model, to_device(inputs, self._device)))
                    self.dense = logits.ndim > 2
                    others = [] if self._tap is None else [self._tap.stop()]
                    found = rows(self._owner, logits, target, *others, ignore_index=self._ignored)
                seen += len(found[1])
                if len(found[1]):
                    yield [part.cpu() if part.dtype in _WIDE else part.float().cpu() for part in found]
        if not seen:
            fix = "Check the data set; a generator is empty when it is iterated again, so pass a list or a DataLoader."
            raise InputError(self._owner, "the loader must yield at least one labeled sample", "none", fix)


_WIDE = (torch.float32, torch.float64, torch.int64)
