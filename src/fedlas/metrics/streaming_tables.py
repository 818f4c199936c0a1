"""The tables by class and by group of more samples than memory holds."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from hashlib import sha256
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fedlas._core.check import InputError, check_count, describe
from fedlas.metrics.accumulator import Accumulator
from fedlas.metrics.classwise import ClasswiseSums
from fedlas.metrics.groups import ClassCalibration, GroupCalibration, GroupSums, RowsInGroups, class_table
from fedlas.metrics.scan import scan
from fedlas.metrics.streaming import template
from fedlas.predictions import Predictions


class StreamingClasses(Accumulator):
    """:func:`~fedlas.metrics.calibration_by_class` of samples that come batch by batch; the same to the last bit.

    Args:
        num_classes: ``C``.
        num_bins: Number of bins of equal width over ``[0, 1]``, at least 1.
        weighted: Whether every sample comes with a weight, see :class:`~fedlas.metrics.StreamingMetrics`.

    Raises:
        InputError: For options out of range.

    State:
        ``O(C B)`` int64 sums; batches, shards and ranks add up exactly, see :class:`~fedlas.metrics.StreamingMetrics`.

    Example:
        >>> streaming = StreamingClasses(2)
        >>> streaming.update(torch.zeros(2, 2), torch.tensor([1, 1]))
        >>> streaming.compute()[1].ece
        0.5
    """

    def __init__(self, num_classes: int, *, num_bins: int = 15, weighted: bool = False) -> None:
        super().__init__(weighted=weighted)
        self.num_classes = check_count(self._owner, "num_classes", num_classes)
        self.num_bins = check_count(self._owner, "num_bins", num_bins)
        self._sums = ClasswiseSums(template(num_classes, weighted=weighted), num_bins)
        self._tensors |= self._sums.tensors()

    def update(self, logits: Tensor, target: Tensor, *, weights: Tensor | None = None) -> None:
        """Take in a batch.

        Args:
            logits: ``(N, C)``, finite, on any device.
            target: Labels ``(N,)``.
            weights: Of the samples ``(N,)``, if and only if it was made with ``weighted=True``.

        Raises:
            InputError: As :class:`~fedlas.Predictions`, for another number of classes, or if weights are missing or
                surplus. After any error the state is what it was before.
        """
        self._check_weights(weights)
        batch = Predictions(logits, target, weights=weights)
        if batch.num_classes != self.num_classes:
            fix = "Make one for each number of classes."
            raise InputError(self._owner, f"logits must be (N, {self.num_classes})", describe(batch.logits), fix)
        with self._taking(batch.num_samples):
            scan(batch, [self._sums])

    def compute(self) -> dict[int, ClassCalibration]:
        """One entry for each of the ``C`` classes, in their order.

        Raises:
            InputError: If there are no samples.
        """
        self._check_samples()
        return class_table(self._sums)

    @property
    def _options(self) -> dict[str, Any]:
        options = {"num_classes": self.num_classes, "num_bins": self.num_bins}
        return options | ({"weighted": True} if self.weighted else {})

    def _empty(self) -> StreamingClasses:
        return StreamingClasses(**self._options)


class StreamingGroups(Accumulator):
    """:func:`~fedlas.metrics.calibration_by_group` of samples that come batch by batch; the same to the last bit.

    Args:
        groups: Every group there can be, hashable, such as ``["site A", "site B"]`` or ``range(10)``; all processes
            must name the same ones in the same order.
        num_bins: Number of bins of equal width over ``[0, 1]``, at least 1; the same for all groups.
        weighted: Whether every sample comes with a weight, see :class:`~fedlas.metrics.StreamingMetrics`.

    Raises:
        InputError: If there is no group, one is there twice, or ``num_bins`` is below 1.

    State:
        ``O(G B)`` int64 sums; batches, shards and ranks add up exactly, see :class:`~fedlas.metrics.StreamingMetrics`.
        Their names hold a digest of the groups' ``repr`` and the bins, so that a state of others is not taken for one
        of these.

    Example:
        >>> streaming = StreamingGroups(["easy", "hard"])
        >>> streaming.update(torch.tensor([[0.0, 0.0], [9.0, 0.0]]), torch.tensor([1, 0]), groups=["hard", "easy"])
        >>> streaming.compute()["hard"].gap
        0.5
    """

    def __init__(self, groups: Sequence[Hashable], *, num_bins: int = 15, weighted: bool = False) -> None:
        super().__init__(weighted=weighted)
        self.groups = _listed(self._owner, groups)
        self.num_bins = check_count(self._owner, "num_bins", num_bins)
        self._number: dict[Hashable, int] = {}
        with self._hashing():
            self._number.update((name, number) for number, name in enumerate(self.groups))
        if not self.groups or len(self._number) < len(self.groups):
            got = f"{len(self.groups)} of which {len(self._number)} differ"
            raise InputError(self._owner, "groups must be at least one name, each once", got, "Name each group once.")
        self._sums = GroupSums(len(self.groups), num_bins, weighted)
        mark = sha256(repr((self.groups, num_bins)).encode()).hexdigest()[:12]
        self._tensors |= {f"{name}.{mark}": tensor for name, tensor in self._sums.tensors().items()}

    def update(
        self,
        logits: Tensor,
        target: Tensor,
        *,
        groups: Tensor | np.ndarray[Any, Any] | Sequence[Hashable],
        weights: Tensor | None = None,
    ) -> None:
        """Take in a batch.

        Args:
            logits: ``(N, C)``, finite, on any device.
            target: Labels ``(N,)``.
            groups: The group of each sample ``(N,)``, each one of those it was made with.
            weights: Of the samples ``(N,)``, if and only if it was made with ``weighted=True``.

        Raises:
            InputError: As :class:`~fedlas.Predictions`, or if a group is unknown, there is not one for each sample, or
                weights are missing or surplus. After any error the state is what it was before.
        """
        self._check_weights(weights)
        batch = Predictions(logits, target, weights=weights)
        number = self._numbers(groups, batch.num_samples)
        with self._taking(batch.num_samples):
            scan(batch, [RowsInGroups(number, self._sums)])

    def compute(self) -> dict[Any, GroupCalibration]:
        """One entry for each group that has samples, in the order in which they were named.

        Raises:
            InputError: If there are no samples.
        """
        self._check_samples()
        return self._sums.table(self.groups)

    def _numbers(self, groups: Any, samples: int) -> Tensor:
        given = _listed(self._owner, groups)
        if len(given) != samples or getattr(groups, "ndim", 1) != 1:
            fix = "Pass the group of every sample, in the order of the logits."
            raise InputError(self._owner, f"groups must be ({samples},), one for each sample", describe(groups), fix)
        with self._hashing():
            numbers = [self._number.get(name, -1) for name in given]
        if -1 in numbers:
            known = f"groups must be out of {', '.join(map(repr, self.groups[:10]))}"
            more = f" and {len(self.groups) - 10} more" if len(self.groups) > 10 else ""
            got = repr(given[numbers.index(-1)])
            raise InputError(self._owner, known + more, got, "Name every group there can be at first.")
        return torch.tensor(numbers, dtype=torch.int64, device="cpu")

    @contextmanager
    def _hashing(self) -> Iterator[None]:
        try:
            yield
        except TypeError as error:
            fix = "Pass strings, numbers or tuples."
            raise InputError(self._owner, "every group must be hashable", str(error), fix) from error

    @property
    def _options(self) -> dict[str, Any]:
        options = {"groups": self.groups, "num_bins": self.num_bins}
        return options | ({"weighted": True} if self.weighted else {})

    def _empty(self) -> StreamingGroups:
        return StreamingGroups(**self._options)


def _listed(owner: str, groups: Any) -> list[Any]:
    """As Python's own objects, which compare and hash as the names do."""
    found = groups.tolist() if isinstance(groups, Tensor | np.ndarray) else groups
    if isinstance(found, Iterable):
        return list(found)
    raise InputError(owner, "groups must be a list", describe(groups), "Pass one name for each group or sample.")
