"""Samples of a torch ``Dataset``, read when they are needed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from fedlas._core.check import InputError, describe


def shown(inputs: Tensor) -> Tensor:
    """Return numbers as uint8, from the least to the largest; uint8 unchanged."""
    if inputs.dtype == torch.uint8:
        return inputs
    spread = (inputs - inputs.min()) / (inputs.max() - inputs.min()).clamp(min=1e-12)
    return (255 * spread).round().to(torch.uint8)


@dataclass(frozen=True, eq=False)
class Items:
    """Samples of a torch ``Dataset`` whose items are ``(input, label)``.

    Args:
        dataset: Map-style ``Dataset``; its inputs are tensors of one shape.
        rows: Positions in the data set, ``(N,)`` int64.
        target: Class of each sample, ``(N,)`` int64, on the device of the batches.
        shape: Shape of an input.
    """

    dataset: Any
    rows: Tensor
    target: Tensor
    shape: tuple[int, ...]

    @classmethod
    def of(cls, dataset: Any, name: str) -> Items:
        """Return all samples of a data set, whose labels are read from ``targets`` if it has them, else one by one.

        Raises:
            InputError: If it is empty or has no length, or an item is not a tensor with a class index.
        """
        expected = f"{name} must be a pair of arrays, or a Dataset of (tensor, class index)"
        fix = "Convert inputs with a transform, and number the classes from 0."
        if not hasattr(dataset, "__getitem__") or not hasattr(dataset, "__len__"):
            raise InputError(expected, type(dataset).__name__, fix)
        count = len(dataset)
        first, *_ = dataset[0] if count else (None,)
        if not isinstance(first, Tensor):
            raise InputError(expected, f"{count} items, the first of {describe(first)}", fix)
        labels = getattr(dataset, "targets", None)
        if labels is None or len(labels) != count:
            labels = [dataset[row][1] for row in range(count)]
        try:
            target = torch.as_tensor(labels)
        except (TypeError, ValueError, RuntimeError) as error:
            raise InputError(expected, f"labels that are no numbers ({error})", fix) from error
        if target.shape != (count,) or target.is_floating_point() or target.is_complex():
            raise InputError(expected, f"labels of {describe(target)}", fix)
        return cls(dataset, torch.arange(count), target.long(), tuple(first.shape))

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def label_probs(self) -> None:
        """None: true probabilities are unknown; :class:`~fedlas.lab.data.Images` may have them."""
        return None

    def reader(self, **_: bool) -> Callable[[int], Tensor]:
        """Return the function that reads the input at a position; the data set itself augments it, or does not."""
        return lambda row: self.dataset[int(self.rows[row])][0]

    def image(self, row: int) -> Tensor:
        """Return one input for display, uint8 from its least number to its largest."""
        return shown(self.reader()(row))

    def take(self, indices: Tensor) -> Items:
        """Return the samples at ``indices`` (int64), in that order."""
        return replace(
            self, rows=self.rows[indices.cpu()], target=self.target[indices.to(self.target.device)]
        )

    def to(self, device: torch.device | str) -> Items:
        """Return the same part with labels, and so batches, on ``device``."""
        return replace(self, target=self.target.to(device))

    def with_target(self, target: Tensor) -> Items:
        """Return the same samples with other labels ``(N,)`` int64."""
        return replace(self, target=target)
