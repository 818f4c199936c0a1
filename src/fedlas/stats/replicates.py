"""Replicates of a set of predictions, many at a time: the same rows with other weights, or with other labels.

A bootstrap replicate draws ``N`` rows with replacement; all that matters of it is how often it drew each, its weights.
A replicate of the noise floor keeps the rows and draws their labels anew. In both, a metric of all ``R`` replicates of
a block is a few array operations on ``(R, N)``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cached_property
from typing import Any, TypeVar, cast

import numpy as np
import torch

from fedlas.predictions import TopLabel
from fedlas.predictions.predictions import AnyPredictions
from fedlas.stats.class_cells import ClassCells
from fedlas.stats.redrawn import RedrawnLabels
from fedlas.stats.rows import Floats, Integers, Quantity, Rows, rows_of

T = TypeVar("T")
RELABELLED_LOGITS = 2**22
"""Elements of logits that a metric may ask for at a time when labels are drawn anew."""


class Replicates(ABC):
    """A block of ``R`` replicates of the same rows. Arrays in which all replicates agree may have one row, not ``R``.

    *Ordered* arrays are by ascending confidence, as in :class:`~fedlas.stats.rows.Rows`.
    """

    rows: Rows
    size: int

    @property
    @abstractmethod
    def weights(self) -> Floats:
        """How much each row counts ``(R or 1, N)``, in the order of the rows; adds up to ``N``.

        That is how often it occurs or, if rows have weights, so many times its weight, scaled.
        """

    @property
    @abstractmethod
    def labels(self) -> Integers:
        """Labels ``(R or 1, N)``, in the order of the rows."""

    @property
    @abstractmethod
    def ordered_weights(self) -> Floats:
        """The weights by ascending confidence ``(R or 1, N)``."""

    @property
    @abstractmethod
    def ordered_squares(self) -> Floats | None:
        """Sum of the squared weights of every occurrence of a row ``(R or 1, N)``; None if rows have no weights."""

    @property
    @abstractmethod
    def ordered_correct(self) -> Floats:
        """1 where the predicted class is the label, else 0 ``(R or 1, N)``."""

    @property
    @abstractmethod
    def ordered_known(self) -> Floats:
        """Known probability that the predicted class is right ``(1, N)``."""

    @abstractmethod
    def mean(self, quantity: Quantity) -> Floats:
        """Mean over the rows of a ``quantity`` of each ``(R,)``."""

    @property
    @abstractmethod
    def class_probs(self) -> Floats:
        """Sum of the class's probability in each cell of :class:`ClassCells` ``(R or 1, cells)``."""

    @property
    @abstractmethod
    def class_counts(self) -> Floats:
        """Number of rows in each cell ``(R or 1, cells)``."""

    @property
    @abstractmethod
    def class_labels(self) -> Floats:
        """Number of rows in each cell of which its class is the label ``(R, cells)``."""

    @abstractmethod
    def predictions(self) -> Iterator[AnyPredictions]:
        """The replicates one by one, for metrics of which nothing more is known."""

    def table(self, make: Callable[[Replicates], T]) -> T:
        """``make(self)``, remembered: what several metrics are computed from."""
        if make not in self._tables:
            self._tables[make] = make(self)
        return cast(T, self._tables[make])

    def release(self) -> None:
        """Forget the tables: they refer to the block, which would stay in memory until cycles are collected."""
        self._tables.clear()

    @cached_property
    def _tables(self) -> dict[Any, Any]:
        return {}

    @cached_property
    def ordered_right(self) -> Floats:
        """``weight * correct`` ``(R, N)``."""
        return self.ordered_weights * self.ordered_correct

    @cached_property
    def ordered_gaps(self) -> Floats:
        """``weight * (confidence - correct)`` ``(R, N)``."""
        gaps: Floats = self.rows.ordered_confidence - self.ordered_correct
        # In place where every replicate has its own.
        return np.multiply(self.ordered_weights, gaps, out=gaps if len(gaps) == self.size else None)


class Resampled(Replicates):
    """Rows drawn with replacement.

    Args:
        rows: What was drawn from.
        drawn: How often each row was drawn ``(R, N)``, every row of it adding up to ``N``.
    """

    def __init__(self, rows: Rows, drawn: Floats) -> None:
        self.rows = rows
        self.size = len(drawn)
        self._drawn = drawn

    @cached_property
    def weights(self) -> Floats:
        """How often each row was drawn ``(R, N)``, times its weight."""
        return self._drawn if self._own is None else self._drawn * self._own

    @cached_property
    def _own(self) -> Floats | None:
        """Weights of the rows ``(R, N)``, so scaled that those drawn average 1: each replicate is its own sample."""
        weights = self.rows.weights
        if weights is None:
            return None
        scale: Floats = self.rows.num_samples / np.einsum("rn,n->r", self._drawn, weights)
        return scale[:, None] * weights

    @property
    def labels(self) -> Integers:
        """The rows' own labels ``(1, N)``."""
        return self.rows.target[None]

    @cached_property
    def ordered_weights(self) -> Floats:
        """As ``weights`` ``(R, N)``."""
        return self.weights.take(self.rows.order, axis=1)

    @cached_property
    def ordered_squares(self) -> Floats | None:
        """Of every draw ``(R, N)``."""
        return None if self._own is None else (self.weights * self._own).take(self.rows.order, axis=1)

    @property
    def ordered_correct(self) -> Floats:
        """Of the rows' own labels ``(1, N)``."""
        return self.rows.ordered_correct[None]

    @property
    def ordered_known(self) -> Floats:
        """Of the rows' own label probabilities ``(1, N)``."""
        return self.rows.ordered_known[None]

    def mean(self, quantity: Quantity) -> Floats:
        """Weighted mean ``(R,)``; the quantity is computed once."""
        # einsum rather than a matrix product, whose order of summation depends on the number of threads.
        return np.einsum("rn,n->r", self.weights, self.rows.floats(quantity)) / self.rows.num_samples

    @cached_property
    def class_probs(self) -> Floats:
        """Of the drawn rows ``(R, cells)``."""
        return self.rows.table(ClassCells).probs(self.weights)

    @cached_property
    def class_counts(self) -> Floats:
        """Of the drawn rows ``(R, cells)``."""
        return self.rows.table(ClassCells).counts(self.weights)

    @cached_property
    def class_labels(self) -> Floats:
        """Of the drawn rows ``(R, cells)``."""
        return self.rows.table(ClassCells).labels(self.weights)

    def predictions(self) -> Iterator[AnyPredictions]:
        """Every replicate with its rows copied as often as they were drawn."""
        for drawn in self._drawn:
            index = np.repeat(np.arange(len(drawn)), drawn.astype(np.int64))
            yield rows_of(self.rows.predictions, torch.from_numpy(index))


class Redrawn(Replicates):
    """Labels drawn from the model's own probabilities, so that in these replicates it is perfectly calibrated.

    Args:
        rows: The rows, whose own labels play no part.
        uniforms: Random numbers ``(R, N)`` in ``[0, 1)``: below the confidence, the label is the predicted class.
    """

    def __init__(self, rows: Rows, uniforms: Floats) -> None:
        self.rows = rows
        self.uniforms = uniforms
        self.size = len(uniforms)

    @property
    def weights(self) -> Floats:
        """Every row once ``(1, N)``, times its weight."""
        return self.rows.all_once

    @cached_property
    def ordered_weights(self) -> Floats:
        """Every row once ``(1, N)``, times its weight."""
        weights = self.rows.all_once
        return weights if self.rows.weights is None else weights.take(self.rows.order, axis=1)

    @property
    def ordered_squares(self) -> Floats | None:
        """Of every row once ``(1, N)``."""
        return None if self.rows.weights is None else self.ordered_weights**2

    @cached_property
    def ordered_correct(self) -> Floats:
        """Without drawing the label itself, which costs much more."""
        # Rows.draw compares the same numbers, so both agree on which predictions are right.
        correct = self.uniforms < self.rows.confidence
        return correct.take(self.rows.order, axis=1).astype(np.float64)

    @property
    def ordered_right(self) -> Floats:
        """What is right ``(R, N)``."""
        return self.ordered_correct if self.rows.weights is None else self.ordered_weights * self.ordered_correct

    @property
    def ordered_known(self) -> Floats:
        """The confidence itself ``(1, N)``."""
        return self.rows.ordered_confidence[None]

    @cached_property
    def labels(self) -> Integers:
        """The drawn labels ``(R, N)``."""
        return self.rows.draw(self.uniforms)

    def mean(self, quantity: Quantity) -> Floats:
        """Mean ``(R,)``; the quantity is computed for all drawn labels."""
        samples = self.rows.num_samples
        weights = self.rows.weights
        step = max(1, RELABELLED_LOGITS // (samples * self.rows.num_classes))
        means = np.empty(self.size)
        for start in range(0, self.size, step):
            labels = self.labels[start : start + step]
            values = quantity(RedrawnLabels(self.rows, labels)).cpu().double().numpy()
            values = values.reshape(labels.shape)
            means[start : start + step] = values.mean(axis=1) if weights is None else values @ weights / samples
        return means

    @property
    def class_probs(self) -> Floats:
        """Of every row once ``(1, cells)``."""
        return self.rows.table(_class_probs)

    @property
    def class_counts(self) -> Floats:
        """Of every row once ``(1, cells)``."""
        return self.rows.table(_class_counts)

    @cached_property
    def class_labels(self) -> Floats:
        """Of the drawn labels ``(R, cells)``."""
        return self.rows.table(ClassCells).drawn_labels(*self.rows.draw_others(self.uniforms), self.size)

    def predictions(self) -> Iterator[AnyPredictions]:
        """Every replicate: the same logits with its labels, and the probabilities as the known ones."""
        given = self.rows.predictions
        if isinstance(given, TopLabel):
            yield from (TopLabel(given.confidence, labels == 0, given.weights) for labels in self.labels)
            return
        known = None if given.label_probs is None else given.probs
        for labels in self.labels:
            yield replace(given, target=torch.from_numpy(labels), label_probs=known)


def _class_probs(rows: Rows) -> Floats:
    return rows.table(ClassCells).probs(rows.all_once)


def _class_counts(rows: Rows) -> Floats:
    return rows.table(ClassCells).counts(rows.all_once)
