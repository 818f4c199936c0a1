"""What all replicates of one set of predictions share, computed once: quantities of each row, and probabilities."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import cached_property
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedlas._core.check import InputError
from fedlas.metrics.binning import bin_index, equal_width_edges
from fedlas.metrics.scan import Chunk, scan
from fedlas.predictions import Predictions

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
Quantity = Callable[[Chunk], Tensor]
T = TypeVar("T")


class _Column:
    """Statistic: a quantity of all rows, unchanged."""

    def __init__(self, quantity: Quantity) -> None:
        self._quantity = quantity
        self._parts: list[Tensor] = []

    def update(self, chunk: Chunk) -> None:
        """Take in the rows of ``chunk``; copied, because a chunk's buffers are used again."""
        self._parts.append(self._quantity(chunk).cpu().clone())

    def array(self) -> NDArray[Any]:
        return torch.cat(self._parts).numpy()


class Rows:
    """Rows of ``predictions`` for resampling and for drawing labels; everything is computed when first asked for.

    Arrays called *ordered* are sorted by confidence, ascending, so that a bin is a range of columns; all others are in
    the order of ``predictions``.

    Args:
        predictions: Logits ``(N, C)`` and target ``(N,)``.
        num_bins: Bins of the metrics that have any.
    """

    def __init__(self, predictions: Predictions, num_bins: int) -> None:
        self.predictions = predictions
        self.num_bins = num_bins
        self._columns: dict[Quantity, NDArray[Any]] = {}
        self._tables: dict[Callable[[Rows], Any], Any] = {}

    @property
    def num_samples(self) -> int:
        """``N``."""
        return self.predictions.num_samples

    @property
    def num_classes(self) -> int:
        """``C``."""
        return self.predictions.num_classes

    def column(self, quantity: Quantity) -> NDArray[Any]:
        """``quantity`` of each row ``(N, ...)``, in the type it comes in; one pass over the logits, then remembered."""
        self.gather([quantity])
        return self._columns[quantity]

    def gather(self, quantities: Iterable[Quantity]) -> None:
        """Compute the columns of several quantities in one pass."""
        columns = {each: _Column(each) for each in quantities if each not in self._columns}
        if columns:
            scan(self.predictions, columns.values())
            self._columns |= {each: column.array() for each, column in columns.items()}

    @cached_property
    def confidence(self) -> NDArray[Any]:
        """Probability of the predicted class ``(N,)``, in the precision of the logits."""
        return self.column(_confidence)

    @cached_property
    def target(self) -> Integers:
        """Labels ``(N,)``."""
        return self.predictions.target.cpu().numpy()

    @cached_property
    def predicted(self) -> Integers:
        """Predicted classes ``(N,)``."""
        return self.predictions.predicted.cpu().numpy()

    @cached_property
    def probs(self) -> NDArray[Any]:
        """Softmax of the logits ``(N, C)``, in their precision."""
        return self.column(_probs)

    @cached_property
    def squared_probs(self) -> Floats:
        """Sum of the squares of each row's probabilities ``(N,)``."""
        return np.einsum("nc,nc->n", self.probs, self.probs, dtype=np.float64)

    @cached_property
    def logits(self) -> NDArray[Any]:
        """Logits ``(N, C)``."""
        return self.predictions.logits.cpu().numpy()

    @cached_property
    def rank(self) -> Integers:
        """How many classes stand before each class in its row ``(N, C)``; of equal logits the first leads."""
        order = np.argsort(-self.logits, axis=1, kind="stable")
        rank = np.empty_like(order)
        np.put_along_axis(rank, order, np.broadcast_to(np.arange(self.num_classes), order.shape), axis=1)
        return rank

    @cached_property
    def order(self) -> Integers:
        """Rows by ascending confidence ``(N,)``; equal ones stay in their order."""
        return np.argsort(self.confidence, kind="stable")

    @cached_property
    def ordered_confidence(self) -> Floats:
        """Confidences ``(N,)``, ascending."""
        return self.confidence[self.order].astype(np.float64)

    @cached_property
    def width_starts(self) -> Integers:
        """First ordered row of each bin of equal width that is not empty."""
        return starts_of_runs(self.bins_of(self.confidence[self.order]))

    @cached_property
    def tie_starts(self) -> Integers:
        """First ordered row of each run of equal confidences."""
        return starts_of_runs(self.ordered_confidence)

    def bins_of(self, values: NDArray[Any]) -> Integers:
        """Bin of equal width of each value, as :func:`fedlas.metrics.binning.bin_index` has it."""
        return bin_index(torch.from_numpy(values), equal_width_edges(self.num_bins)).numpy()

    @cached_property
    def ordered_correct(self) -> Floats:
        """1 where the predicted class is the label, else 0 ``(N,)``."""
        return (self.predicted == self.target)[self.order].astype(np.float64)

    @cached_property
    def ordered_known(self) -> Floats:
        """Known probability that the predicted class is right ``(N,)``; needs ``label_probs``."""
        return self.column(_known_outcome)[self.order].astype(np.float64)

    def table(self, make: Callable[[Rows], T]) -> T:
        """``make(self)``, remembered: what one metric needs of the rows beyond what is here."""
        if make not in self._tables:
            self._tables[make] = make(self)
        return self._tables[make]

    @cached_property
    def cumulative(self) -> Floats:
        """Cumulative probabilities ``(N, C)``, the predicted class first: it and class 0 have changed places.

        The first column is the confidence itself; the others share what it leaves, so that rounding gives nothing to
        a class that has nothing.
        """
        rest = self.probs.astype(np.float64)
        rest[np.arange(self.num_samples), self.predicted] = rest[:, 0]
        rest[:, 0] = 0.0
        np.cumsum(rest, axis=1, out=rest)
        confidence, total = self.confidence.astype(np.float64), rest[:, -1]
        rest *= np.divide(1.0 - confidence, total, out=np.zeros_like(total), where=total > 0)[:, None]
        rest += confidence[:, None]
        return rest

    def draw(self, uniforms: Floats) -> Integers:
        """Labels ``(R, N)`` drawn from the probabilities: the predicted class where ``uniforms < confidence``.

        Args:
            uniforms: Random numbers ``(R, N)`` in ``[0, 1)``.
        """
        labels = np.broadcast_to(self.predicted, uniforms.shape).copy()
        place, _, drawn = self.draw_others(uniforms)
        labels.ravel()[place] = drawn
        return labels

    def draw_others(self, uniforms: Floats) -> tuple[Integers, Integers, Integers]:
        """Where :meth:`draw` has another label than the predicted class: places ``(E,)`` in the flat array, row, label.

        Args:
            uniforms: Random numbers ``(R, N)`` in ``[0, 1)``.
        """
        place = np.flatnonzero(uniforms >= self.confidence)
        value, row = uniforms.ravel()[place], place % self.num_samples
        cumulative, first = self.cumulative.ravel(), row * self.num_classes
        # Bisection, all rows at a time, for the first column whose cumulative probability is above the value.
        low, high = first + 1, first + (self.num_classes - 1)
        for _ in range(max(0, self.num_classes - 2).bit_length()):
            middle = (low + high) >> 1
            beyond = value >= cumulative[middle]
            np.copyto(low, np.minimum(middle + 1, high), where=beyond)
            np.copyto(high, middle, where=~beyond)
        label = low - first
        # Class 0 stands where the predicted class was.
        return place, row, np.where(label == self.predicted[row], 0, label)


def starts_of_runs(values: NDArray[Any]) -> Integers:
    """Where runs of equal values begin, for :func:`numpy.add.reduceat`."""
    return np.flatnonzero(np.concatenate(([True], values[1:] != values[:-1])))


def _confidence(chunk: Chunk) -> Tensor:
    return chunk.confidence


def _probs(chunk: Chunk) -> Tensor:
    return chunk.probs


def _known_outcome(chunk: Chunk) -> Tensor:
    if chunk.label_probs is None:
        raise InputError(
            "resampling",
            "predictions must carry label_probs",
            "none",
            "They are known for synthetic labels only; choose a metric that does not need them.",
        )
    return chunk.label_probs.gather(1, chunk.predicted.unsqueeze(1)).squeeze(1)
