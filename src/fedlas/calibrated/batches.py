"""Runs a model over batches of any form and gives its logits row by row: one row a sample, or a position of one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from fedlas._core.check import InputError, check_count, check_logits, describe
from fedlas.objective import Objective
from fedlas.objective.batches import LABELS, as_integers, moved, read_batch
from fedlas.objective.objective import Arguments, class_logits, unwrapped


def bare(model: nn.Module) -> nn.Module:
    """Return the classifier in an :class:`~fedlas.Objective`, wrapped or not; else the model itself."""
    inner = unwrapped(model)
    return unwrapped(inner.model) if isinstance(inner, Objective) else model


def device_of(model: nn.Module) -> torch.device:
    """Return where the model's parameters are."""
    return next((parameter.device for parameter in model.parameters()), torch.device("cpu"))


def run(owner: str, model: nn.Module, inputs: Any, device: torch.device | str) -> Any:
    """Return the output of the model for the inputs of a batch, which are moved to the device."""
    return Arguments.of(model).call(owner, model, moved(inputs, device), {})


def rows(owner: str, logits: Tensor, target: Tensor, *others: Tensor, ignore_index: int | None) -> list[Tensor]:
    """Return logits ``(M, C)``, target ``(M,)`` and others ``(M, D)``: a row for each position whose label counts.

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
    target = as_integers(target, shape) if logits.shape[1] == 2 else target
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


class LoaderOutputs:
    """A model's rows of logits on every batch of a loader, anew each time it is iterated.

    Args:
        owner: Named in errors.
        model: The classifier.
        loader: Yields labeled batches, see :func:`fedlas.objective.batches.read_batch`.
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
        if isinstance(loader, nn.Module | Tensor) or not hasattr(loader, "__iter__") or getattr(loader, "ndim", 1) == 0:
            fix = "Pass a DataLoader, or a list of batches."
            raise InputError(owner, "the loader must yield batches", describe(loader), fix)
        if ignore_index is not None:
            check_count(owner, "ignore_index", ignore_index, low=None)
        try:
            self._device = device_of(model) if device is None else torch.device(device)
        except (RuntimeError, TypeError, ValueError) as error:
            expected, fix = "device must be one that torch has", "Pass 'cpu' or 'cuda'."
            raise InputError(owner, expected, describe(device), fix) from error
        self._owner, self._model, self._loader, self._tap = owner, model, loader, tap
        self._ignored = ignore_index

    def __iter__(self) -> Iterator[list[Tensor]]:
        """Yield logits ``(M, C)``, target ``(M,)`` and, with a tap, features ``(M, D)``, on the CPU."""
        total = 0
        with evaluating(self._model):
            for batch in self._loader:
                inputs, target = read_batch(self._owner, batch)
                if not isinstance(target, Tensor):
                    raise self._unlabeled(target)
                with torch.no_grad():
                    if self._tap is not None:
                        self._tap.start()
                    logits = class_logits(self._owner, run(self._owner, self._model, inputs, self._device))
                    self.dense = logits.ndim > 2
                    others = [] if self._tap is None else [self._tap.stop()]
                    columns = rows(self._owner, logits, target, *others, ignore_index=self._ignored)
                total += len(columns[1])
                if len(columns[1]):
                    yield [part.cpu() if part.dtype in _WIDE else part.float().cpu() for part in columns]
        if not total:
            fix = "Check the data set; a generator is empty when it is iterated again, so pass a list or a DataLoader."
            raise InputError(self._owner, "the loader must yield at least one labeled sample", "none", fix)

    def _unlabeled(self, target: Any) -> InputError:
        keys = ", ".join(LABELS)
        return InputError(
            self._owner,
            f"each batch must be (inputs, target), or a mapping with one of {keys}",
            "one without labels" if target is None else f"labels {describe(target)}",
            "Wrap the loader in a generator that yields such batches.",
        )


_WIDE = (torch.float32, torch.float64, torch.int64)
