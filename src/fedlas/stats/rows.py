"""What all replicates of one set of predictions share, computed once: quantities of each row, and probabilities."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import cached_property
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedlas.metrics.binning import width_bin
from fedlas.metrics.ranking import starts_of_ties
from fedlas.metrics.scan import Chunk, scan
from fedlas.metrics.true_error import label_probs_of
from fedlas.metrics.weighted import averaging_one
from fedlas.predictions import Predictions, TopLabel
from fedlas.predictions.predictions import AnyPredictions, check_predictions

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
Quantity = Callable[[Chunk], Tensor]
T = TypeVar("T")
KEPT = 2**23
"""Probabilities up to which what is computed of each is kept from one block of replicates to the next."""
CACHED = 2**18
"""Elements of what is computed in parts: 2 MiB of float64."""


class _Column:
    """Statistic: a quantity of all ``num_samples`` rows, unchanged."""

    def __init__(self, quantity: Quantity, num_samples: int) -> None:
        self._quantity, self._num_samples, self._filled = quantity, num_samples, 0

    def update(self, chunk: Chunk) -> None:
        """Take in the rows of ``chunk``; copied, because a chunk's buffers are used again."""
        found = self._quantity(chunk)
        if not self._filled:
            self._all = torch.empty((self._num_samples, *found.shape[1:]), dtype=found.dtype)
        self._all[self._filled : self._filled + len(found)] = found
        self._filled += len(found)

    def array(self) -> NDArray[Any]:
        return self._all.numpy()


class Rows:
    """Rows of ``predictions`` for resampling and for drawing labels; everything is computed when first asked for.

    Arrays called *ordered* are sorted by confidence, ascending, so that a bin is a range of columns; all others are in
    the order of ``predictions``.

    Args:
        predictions: Logits ``(N, C)`` and target ``(N,)``, or a ``TopLabel``: then class 0 is the predicted one of each
            row, and class 1 stands for all others; no weight is 0.
        num_bins: Bins of the metrics that have any.
    """

    def __init__(self, predictions: AnyPredictions, num_bins: int) -> None:
        self.predictions = predictions
        self.num_bins = num_bins
        self._columns: dict[Quantity, NDArray[Any]] = {}
        self._floats: dict[Quantity, Floats] = {}
        self._tables: dict[Callable[[Rows], Any], Any] = {}

    @property
    def num_samples(self) -> int:
        """``N``."""
        return self.predictions.num_samples

    @property
    def num_classes(self) -> int:
        """``C``; 2 of a top label."""
        return 2 if isinstance(self.predictions, TopLabel) else self.predictions.num_classes

    @property
    def of_all_classes(self) -> Predictions:
        """The predictions; an InputError if they are a top label."""
        return check_predictions("metrics", self.predictions)

    def column(self, quantity: Quantity) -> NDArray[Any]:
        """``quantity`` of each row ``(N, ...)``, in the type it comes in; one pass over the logits, then remembered."""
        self.gather([quantity])
        return self._columns[quantity]

    def floats(self, quantity: Quantity) -> Floats:
        """``quantity`` of each row ``(N,)`` in double precision."""
        if quantity not in self._floats:
            self._floats[quantity] = self.column(quantity).astype(np.float64)
        return self._floats[quantity]

    def gather(self, quantities: Iterable[Quantity]) -> None:
        """Compute the columns of several quantities in one pass."""
        columns = {each: _Column(each, self.num_samples) for each in quantities if each not in self._columns}
        if columns:
            scan(self.predictions, columns.values())
            self._columns |= {each: column.array() for each, column in columns.items()}

    @cached_property
    def weights(self) -> Floats | None:
        """Weights ``(N,)`` that average 1; None if every row counts once."""
        weights = averaging_one(self.predictions)
        return None if weights is None else weights.numpy()

    @property
    def all_once(self) -> Floats:
        """How much each row counts if all are there once ``(1, N)``: 1, or its weight."""
        return np.ones((1, self.num_samples)) if self.weights is None else self.weights[None]

    @cached_property
    def confidence(self) -> NDArray[Any]:
        """Probability of the predicted class ``(N,)``, in the precision of the logits."""
        return self.column(confidence_of)

    @cached_property
    def target(self) -> Integers:
        """Labels ``(N,)``."""
        if isinstance(self.predictions, TopLabel):
            return 1 - self.predictions.correct.long().numpy()
        return self.predictions.target.cpu().numpy()

    @cached_property
    def predicted(self) -> Integers:
        """Predicted classes ``(N,)``."""
        if isinstance(self.predictions, TopLabel):
            return np.zeros(self.num_samples, dtype=np.int64)
        return self.predictions.predicted.cpu().numpy()

    @cached_property
    def probs(self) -> NDArray[Any]:
        """Softmax of the logits ``(N, C)``, in their precision."""
        return self.column(probs_of)

    @cached_property
    def squared_probs(self) -> Floats:
        """Sum of the squares of each row's probabilities ``(N,)``."""
        return np.einsum("nc,nc->n", self.probs, self.probs, dtype=np.float64)

    @cached_property
    def logits(self) -> NDArray[Any]:
        """Logits ``(N, C)``."""
        return self.of_all_classes.logits.cpu().numpy()

    @cached_property
    def rank(self) -> Integers:
        """How many classes stand before each class in its row ``(N, C)``; of equal logits the first leads."""
        order = np.argsort(-self.logits, axis=1, kind="stable")
        # Ranks are the inverse of the permutation: scattering is cheaper than a second sort.
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
        return starts_of_ties(self.confidence[self.order])

    def bins_of(self, values: NDArray[Any]) -> Integers:
        """Bin of equal width of each value, see :func:`fedlas.metrics.binning.width_bin`."""
        return width_bin(torch.from_numpy(values), self.num_bins).numpy()

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
    def _cumulative_of_all(self) -> Floats:
        return self._cumulative(slice(None))

    def _cumulative(self, part: slice) -> Floats:
        """Cumulative probabilities ``(n, C)`` of some rows, the predicted class first: it and class 0 change places.

        The first column is the confidence itself; the others share what it leaves, so that rounding gives nothing to
        a class that has nothing.
        """
        rest, predicted = self.probs[part].astype(np.float64), self.predicted[part]
        rest[np.arange(len(rest)), predicted] = rest[:, 0]
        rest[:, 0] = 0.0
        np.cumsum(rest, axis=1, out=rest)
        confidence, total = self.confidence[part].astype(np.float64), rest[:, -1]
        rest *= np.divide(1.0 - confidence, total, out=np.zeros_like(total), where=total > 0)[:, None]
        rest += confidence[:, None]
        return rest

    def _cumulative_parts(self) -> Iterator[tuple[slice, Floats]]:
        """The cumulative probabilities, all rows at once; of many probabilities as much as a processor's cache holds.

        An array of all of many is slower to write and to read than a part of them is to compute again.
        """
        if self.num_samples * self.num_classes <= KEPT:
            yield slice(0, self.num_samples), self._cumulative_of_all
            return
        step = max(1, CACHED // self.num_classes)
        for start in range(0, self.num_samples, step):
            part = slice(start, start + step)
            yield part, self._cumulative(part)

    def draw(self, uniforms: Floats) -> Integers:
        """Labels ``(R, N)`` drawn from the probabilities: the predicted class where ``uniforms < confidence``.

        Args:
            uniforms: Random numbers ``(R, N)`` in ``[0, 1)``.
        """
        if isinstance(self.predictions, TopLabel):
            return (uniforms >= self.confidence).astype(np.int64)
        labels = np.broadcast_to(self.predicted, uniforms.shape).copy()
        place, _, drawn = self.draw_others(uniforms)
        labels.ravel()[place] = drawn
        return labels

    def draw_others(self, uniforms: Floats) -> tuple[Integers, Integers, Integers]:
        """Where :meth:`draw` has another label than the predicted class: places ``(E,)`` in the flat array, row, label.

        Args:
            uniforms: Random numbers ``(R, N)`` in ``[0, 1)``.
        """
        # By row, so that all replicates read a row's probabilities while they are in the cache.
        row, replicate = np.nonzero((uniforms >= self.confidence).T)
        value, label = uniforms[replicate, row], np.empty_like(row)
        for part, cumulative in self._cumulative_parts():
            drawn = slice(*np.searchsorted(row, (part.start, part.stop)))
            label[drawn] = _first_above(value[drawn], cumulative, row[drawn] - part.start)
        # Class 0 stands where the predicted class was.
        return replicate * self.num_samples + row, row, np.where(label == self.predicted[row], 0, label)


def _first_above(value: Floats, cumulative: Floats, row: Integers) -> Integers:
    """The first column but column 0 in which ``cumulative[row]`` is above ``value (E,)``; else the last."""
    classes, flat = cumulative.shape[1], cumulative.ravel()
    first = row * classes
    low, high = first + 1, first + (classes - 1)
    for _ in range(max(0, classes - 2).bit_length()):  # bisection, all values at a time
        middle = (low + high) >> 1
        beyond = value >= flat[middle]
        np.copyto(low, np.minimum(middle + 1, high), where=beyond)
        np.copyto(high, middle, where=~beyond)
    return low - first


def rows_of(predictions: AnyPredictions, index: Tensor) -> AnyPredictions:
    """The rows ``index`` of everything that ``predictions`` hold."""
    if isinstance(predictions, TopLabel):
        weights = None if predictions.weights is None else predictions.weights[index]
        return TopLabel(predictions.confidence[index], predictions.correct[index], weights)
    return predictions.rows(index)


def starts_of_runs(values: NDArray[Any]) -> Integers:
    """Where runs of equal values begin, for :func:`numpy.add.reduceat`."""
    return np.flatnonzero(np.concatenate(([True], values[1:] != values[:-1])))


def confidence_of(chunk: Chunk) -> Tensor:
    """Quantity: the probability of the predicted class ``(n,)``."""
    return chunk.confidence


def probs_of(chunk: Chunk) -> Tensor:
    """Quantity: the probability of each class ``(n, C)``."""
    return chunk.probs


def _known_outcome(chunk: Chunk) -> Tensor:
    return label_probs_of("resampling", chunk).gather(1, chunk.predicted.unsqueeze(1)).squeeze(1)
