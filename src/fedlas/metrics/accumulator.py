"""Base class of streaming metrics: float64 sums that can be merged, summed across ranks and saved."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from typing import Any, Self

import torch
import torch.distributed as dist
from torch import Tensor

from fedlas._core.check import InputError, describe
from fedlas._core.kinds import check_argument_types
from fedlas._core.ranks import sum_across_ranks, world_size
from fedlas.metrics.scan import ChunkConsumer, scan
from fedlas.predictions import Predictions


class Accumulator(ABC):
    """Base class of streaming metrics: float64 sums over samples, in memory independent of their number.

    Args:
        weighted: Whether samples have weights.

    State:
        ``state_dict()`` holds float64 tensors on the CPU. Adding those of two objects adds what they took in, but for
        rounding.
    """

    @check_argument_types
    def __init__(self, *, weighted: bool = False) -> None:
        self.weighted = weighted
        self._parts: list[Any] = []
        self._sums = {"num_samples": torch.zeros(1, dtype=torch.float64, device="cpu")}

    def _register_sums(self, sums: Any, name_format: str = "{}") -> None:
        """Register the tensors of ``sums`` in the state, under names that ``name_format`` makes of their own."""
        self._parts.append(sums)
        self._sums |= {name_format.format(name): tensor for name, tensor in sums.tensors().items()}

    @property
    def _tensors(self) -> dict[str, Tensor]:
        """The accumulated sums by name, not copied."""
        return self._sums

    @property
    def num_samples(self) -> int:
        """Number of samples so far."""
        return int(self._tensors["num_samples"])

    def merge(self, other: Self) -> None:
        """Add the sums of ``other``, which does not change.

        Raises:
            InputError: If it was made with other options.
        """
        if type(other) is not type(self) or self._options != other._options:
            raise InputError(
                f"the other accumulator must have the same class and options: {self._options}",
                other._options if isinstance(other, Accumulator) else describe(other),
                "Construct both with the same options.",
            )
        for name, tensor in self._tensors.items():
            tensor += other._tensors[name]

    def sum_across_ranks(self) -> Self:
        """Return an accumulator with the summed state of all ranks, on every rank.

        Returns:
            A new object; this one keeps its own samples and can go on.

        Note:
            A collective: every rank must call it. One sum of as many numbers as ``state_dict()`` holds.
        """
        total = self._new_empty()
        flat = torch.cat([tensor.flatten() for tensor in self._tensors.values()])
        flat = sum_across_ranks(flat.to(_collective_device())).cpu()
        parts = flat.split([tensor.numel() for tensor in self._tensors.values()])
        for tensor, part in zip(total._tensors.values(), parts, strict=True):
            tensor.copy_(part.view_as(tensor))
        return total

    def state_dict(self) -> dict[str, Tensor]:
        """Return copies of all sums as CPU tensors, which can be added over shards."""
        return {name: tensor.clone() for name, tensor in self._tensors.items()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Replace all sums by a state from :meth:`state_dict`.

        Raises:
            InputError: If it is of other options, or of no samples that there can be; nothing was replaced then.
        """
        anything: Any = state
        if not isinstance(anything, Mapping):
            raise InputError(
                "the state must be a dict of tensors",
                describe(state),
                "Pass what state_dict() returned.",
            )
        loaded, expected = (
            {name: _shape_and_dtype(each) for name, each in part.items()}
            for part in (state, self._tensors)
        )
        if loaded != expected:
            wrong = sorted(
                str(n) for n in loaded.keys() | expected.keys() if loaded.get(n) != expected.get(n)
            )
            raise InputError(
                f"the state must match the options {self._options}",
                f"a state that differs in {', '.join(wrong)}",
                "Load the state into an object with the options of the saved one.",
            )
        before = self.state_dict()
        self._replace(state)
        samples = float(self._sums["num_samples"])
        checks = (part.is_consistent(samples, weighted=self.weighted) for part in self._parts)
        if not (0 <= samples < math.inf and all(checks)):
            self._replace(before)
            raise InputError(
                "the state must be sums over samples",
                "sums that no samples can give",
                "Save the state again: this one is damaged or was edited.",
            )

    def _replace(self, state: Mapping[str, Tensor]) -> None:
        for name, tensor in self._sums.items():
            tensor.copy_(state[name])

    def reset(self) -> None:
        """Set all sums to zero."""
        for tensor in self._tensors.values():
            tensor.zero_()

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self), self._options, self.state_dict())

    @property
    @abstractmethod
    def _arguments(self) -> dict[str, Any]:
        """Constructor arguments except ``weighted``."""

    @property
    def _options(self) -> dict[str, Any]:
        return self._arguments | ({"weighted": True} if self.weighted else {})

    def _new_empty(self) -> Self:
        """Return a new accumulator with the same arguments and no samples."""
        return type(self)(**self._options)

    def _accumulate(self, batch: Predictions, statistics: Iterable[ChunkConsumer]) -> None:
        """Update ``statistics`` with a batch; restore all sums if that fails."""
        before = {name: tensor.clone() for name, tensor in self._sums.items()}
        try:
            scan(batch, statistics)
            self._sums["num_samples"] += batch.num_samples
        except BaseException:
            self._replace(before)
            raise

    def _make_batch(
        self, logits: object, target: object, weights: object, **arrays: Any
    ) -> Predictions:
        """Return the batch as predictions, or raise InputError if weights or classes differ from earlier batches."""
        if (weights is not None) is not self.weighted:
            raise InputError(
                "every batch must have weights" if self.weighted else "no batch must have weights",
                "weights" if weights is not None else "none",
                f"Construct it with weighted={not self.weighted}.",
            )

        batch = Predictions(logits, target, weights=weights, **arrays)
        classes = getattr(self, "num_classes", batch.num_classes)
        if classes != batch.num_classes:
            raise InputError(
                f"logits must be (N, {classes})",
                describe(batch.tensors().logits),
                "Use one object per number of classes.",
            )
        return batch

    def _require_samples(self) -> None:
        if not self.num_samples:
            raise InputError(
                "at least one sample must have been added", "none", "Call update first."
            )


def _rebuild(
    kind: type[Accumulator], options: dict[str, Any], state: dict[str, Tensor]
) -> Accumulator:
    accumulator = kind(**options)
    accumulator.load_state_dict(state)
    return accumulator


def _shape_and_dtype(tensor: object) -> tuple[Any, ...]:
    return (tuple(tensor.shape), tensor.dtype) if isinstance(tensor, Tensor) else (type(tensor),)


def _collective_device() -> torch.device:
    """Return the device for collectives of the default process group: CUDA for NCCL, else CPU."""
    if world_size() > 1 and "gloo" not in dist.get_backend() and "nccl" in dist.get_backend():
        return torch.device("cuda", torch.cuda.current_device())
    return torch.device("cpu")
