"""The samples of a fit, in memory or read anew in each pass."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from fedlas._core.check import InputError, check_logits, describe
from fedlas.calibrators._fit.rowwise import double_rows
from fedlas.predictions import Predictions


class Source(Protocol):
    """Logits and labels, some rows at a time.

    Attributes:
        in_memory: Whether a pass costs little, and a number a sample may be kept.
        num_samples: ``N``.
        num_classes: ``C``.
        dtype: Of the logits.
        mistakes: Samples whose predicted class is not the label.
        total: Sum of the weights: ``N`` without weights.
    """

    in_memory: bool
    num_samples: int
    num_classes: int
    dtype: torch.dtype
    mistakes: int
    total: float

    def rows(self) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Float64 logits ``(n, C)``, labels and weights ``(n,)`` on the CPU, in order; not to be written to."""


class InMemory:
    """Predictions as a :class:`Source`."""

    in_memory = True

    def __init__(self, val: Predictions) -> None:
        self._val, self._target = val, val.target.cpu()
        self.num_samples, self.num_classes, self.dtype = val.num_samples, val.num_classes, val.logits.dtype
        self.mistakes = val.num_samples - int(val.correct.sum())
        self._weights = weights_of(val)
        self.total = float(self._weights.sum())

    def rows(self) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """See :meth:`Source.rows`."""
        for part, rows in double_rows(self._val.logits):
            yield rows, self._target[part], self._weights[part]


def weights_of(val: Predictions) -> Tensor:
    """Weight of each sample ``(N,)``, float64 on the CPU; ones if there are none."""
    return torch.ones(val.num_samples, dtype=torch.float64, device="cpu") if val.weights is None else val.weights


@dataclass
class _Seen:
    """What one pass counts."""

    count: Tensor
    mistakes: int = 0
    largest: float = 0.0
    dtype: torch.dtype = torch.float32


class Stream:
    """Batches as a :class:`Source`, iterated anew in each pass; memory does not grow with them.

    Args:
        owner: Named in errors.
        batches: Each :class:`~fedlas.Predictions`, or ``(logits, target, ...)`` with logits ``(n, C)`` or ``(n, C, d1,
            ...)``; the same samples each time.

    Attributes:
        count: Samples of each class ``(C,)``.
        largest: Largest absolute logit.

    Raises:
        InputError: If there are none, they cannot be iterated twice, they are of different numbers of classes, or as
            :class:`~fedlas.Predictions`.
    """

    in_memory = False

    def __init__(self, owner: str, batches: Iterable[Any]) -> None:
        if isinstance(batches, Predictions | Iterator) or not isinstance(batches, Iterable):
            raise InputError(
                owner,
                "batches must be a collection that can be iterated several times",
                describe(batches),
                "Pass a list, a DataLoader or an object with __iter__, not a generator.",
            )
        self._owner, self._batches = owner, batches
        self._seen: _Seen | None = None
        for part in self:
            self._seen = seen = self._seen or _Seen(torch.zeros(part.num_classes, dtype=torch.int64))
            seen.count += torch.bincount(part.target.cpu(), minlength=part.num_classes)
            seen.mistakes += part.num_samples - int(part.correct.sum())
            seen.largest = max(seen.largest, float(part.logits.abs().max()))
            seen.dtype = torch.promote_types(seen.dtype, part.logits.dtype)
        if self._seen is None:
            raise InputError(owner, "there must be at least one sample", "none", "Check the data set.")
        self.count, self.largest, self.dtype = self._seen.count, self._seen.largest, self._seen.dtype
        self.num_samples, self.num_classes = int(self.count.sum()), len(self.count)
        self.total = float(self.num_samples)
        self.mistakes = self._seen.mistakes

    def rows(self) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """See :meth:`Source.rows`."""
        samples = 0
        for part in self:
            samples += part.num_samples
            for which, rows in double_rows(part.logits):
                yield rows, part.target[which].cpu(), rows.new_ones(len(rows))
        if samples != self.num_samples:
            raise InputError(
                self._owner,
                "batches must be the same samples each time they are iterated",
                f"{self.num_samples:,} samples, then {samples:,}",
                "Turn drop_last off, and pass no generator.",
            )

    def __iter__(self) -> Iterator[Predictions]:
        """The batches as predictions, a row a position; those without a sample are left out."""
        for batch in self._batches:
            part = batch if isinstance(batch, Predictions) else self._flat(batch)
            if part is None:
                continue
            if self._seen is not None and part.num_classes != len(self._seen.count):
                raise InputError(
                    self._owner,
                    f"all batches must have the {len(self._seen.count)} classes of the first",
                    part.num_classes,
                    "Pass the logits of one model.",
                )
            yield part

    def _flat(self, batch: Any) -> Predictions | None:
        """A batch as predictions, a row a position; None if it has no sample."""
        if not isinstance(batch, tuple | list) or len(batch) < 2:
            fix = "Pass pairs of tensors."
            raise InputError(self._owner, "a batch must be Predictions, or (logits, target)", describe(batch), fix)
        logits, target = check_logits(self._owner, batch[0]), batch[1]
        if logits.ndim > 2 and isinstance(target, Tensor) and target.shape == (len(logits), *logits.shape[2:]):
            logits, target = logits.movedim(1, -1).reshape(-1, logits.shape[1]), target.reshape(-1)
        return Predictions(logits, target) if len(logits) else None
