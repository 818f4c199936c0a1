"""Statistics gathered from chunks: weighted float64 sums that add up over chunks, batches, shards and ranks.

Every sample has a weight, 1 where none are passed, and ``N`` is the sum of the weights. A float64 sum rounds after
every addition, so another order changes the last digits: sums agree within 1e-12. Where a formula asks how *many*
samples there are (ranks, coverages one by one), weights are scaled so that they average 1: the sample of weight ``w``
then counts as ``w`` samples.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedlas._core.abstract import Abstract
from fedlas._core.check import LARGEST, InputError, check_count, check_finite
from fedlas.metrics.scan import Chunk, scan
from fedlas.predictions.any_predictions import (
    AnyPredictions,
    require_predictions,
    require_top_label,
)

Quantity = Callable[[Chunk], Tensor]
"""From a chunk of ``n`` rows to ``(n,)``, bool or float."""
Range = tuple[float, float]
UNBOUNDED: Range = (-math.inf, math.inf)
ROUNDING = 4.0
"""Probabilities that differ by so many times the precision of their type are taken as equal: 5e-7 in single, 9e-16 in
double precision. A softmax adds its terms in the order of the classes, so that equal ones differ in their last bits."""
_ROUNDING = 1e-6
"""Relative excess of a stored sum over what samples can give, since probabilities are rounded."""


class Statistic(Abstract):
    """A statistic that is updated chunk by chunk, and the table that metric formulas take.

    Args:
        predictions: Those to come, or others of as many classes.
        num_bins: ``B``; statistics without bins ignore it.

    Attributes:
        takes_weights: Whether it heeds the weights of a chunk. Metrics of any other refuse predictions with weights.
        top_label: Whether it asks chunks for ``confidence``, ``correct`` and ``weights`` alone.
        streaming: The :class:`Sums` that replace a statistic that keeps all samples; their table is nearly the same.

    Example:
        >>> from fedlas.predictions import Predictions
        >>> class Longest(Statistic):
        ...     most = 0.0
        ...     def update(self, chunk):
        ...         self.most = max(self.most, float(chunk.confidence.max()))
        ...     def table(self):
        ...         return self.most
        >>> Longest.from_predictions(Predictions(torch.tensor([[0.0, 0.0], [0.0, 30.0]]), torch.tensor([0, 1]))).table()
        1.0
    """

    takes_weights: ClassVar[bool] = False
    top_label: ClassVar[bool] = False
    streaming: ClassVar[type[Sums] | None] = None

    def __init__(self, predictions: object, num_bins: int) -> None:  # noqa: ARG002
        self.num_bins = num_bins

    @abstractmethod
    def update(self, chunk: Chunk) -> None:
        """Add the rows of ``chunk``."""

    @abstractmethod
    def table(self) -> Any:
        """Return the input of metric formulas."""

    @classmethod
    def from_predictions(cls, predictions: AnyPredictions, num_bins: int = 15) -> Self:
        """Return the statistic of ``predictions``, computed in one pass.

        Raises:
            InputError: If ``predictions`` are no :class:`Predictions`, nor a :class:`~fedlas.TopLabel` where that is
                enough, have weights of which the statistic does not know, or ``num_bins`` is not a count.
        """
        predictions = (require_top_label if cls.top_label else require_predictions)(predictions)
        statistic = cls(predictions, check_count("num_bins", num_bins))
        check_weights_supported(predictions, takes_weights=cls.takes_weights)
        scan(predictions, [statistic])
        return statistic


class Sums(Statistic):
    """A statistic made only of float64 sums over weighted samples, so that shards can be added.

    Example:
        >>> from fedlas.predictions import Predictions
        >>> class Right(Sums):
        ...     def __init__(self, predictions, num_bins):
        ...         self.total = torch.zeros(1, dtype=torch.float64)
        ...     def update(self, chunk):
        ...         self.total += (chunk.weights * chunk.correct).sum()
        ...     def tensors(self):
        ...         return {"total": self.total}
        ...     def table(self):
        ...         return float(self.total)
        >>> Right.from_predictions(Predictions(torch.zeros(3, 2), torch.tensor([0, 0, 1]))).table()
        2.0
    """

    takes_weights = True

    @abstractmethod
    def tensors(self) -> dict[str, Tensor]:
        """Return all sums by name: float64 tensors on the CPU, not copied.

        Adding to each the tensor of the same name of another statistic, gathered from other rows, gives the statistic
        of all the rows.
        """

    def is_consistent(self, samples: float, *, weighted: bool) -> bool:  # noqa: ARG002
        """Return whether the sums are consistent with this number of samples."""
        return True


class CellSums:
    """Sums over cells; the first row sums the weights."""

    def __init__(self, size: int, *names: str) -> None:
        self.values = torch.zeros(1 + len(names), size, dtype=torch.float64, device="cpu")

    def add(self, cell: Tensor, *terms: Tensor) -> None:
        """Add weights ``(n,)`` and further terms ``(n,)``, weighted where needed, to the cells ``cell (n,)``."""
        self.values.index_add_(1, cell, torch.stack(terms))

    def arrays(self) -> NDArray[np.float64]:
        """Return the sums as an array that shares memory."""
        array: NDArray[np.float64] = self.values.numpy()
        return array

    def is_consistent(self, samples: float, *, weighted: bool, terms_per_sample: int = 1) -> bool:
        """Return whether the sums are consistent with the number of samples, at ``terms_per_sample`` per sample."""
        count = self.values[0]
        if weighted:
            return is_in_range(self.values, 0.0, LARGEST)
        parts = is_in_range(self.values, -_ROUNDING, count * (1 + _ROUNDING) + _ROUNDING)
        return (
            parts
            and is_in_range(count, 0.0, samples)
            and float(count.sum()) == terms_per_sample * samples
        )


class RowMean(Sums):
    """Statistic: the weighted mean of a per-sample quantity."""

    def __init__(self, quantity: Quantity, between: Range = UNBOUNDED) -> None:
        self.quantity = quantity
        self._between = between
        self._sums = torch.zeros(2, dtype=torch.float64, device="cpu")

    def update(self, chunk: Chunk) -> None:
        """Add the rows of ``chunk``."""
        values = self.quantity(chunk).cpu().double()
        added = torch.stack([values @ chunk.weights, chunk.weights.sum()])
        if not bool(added.isfinite().all()):
            check_finite("the values of a mean", values)
        self._sums += added

    def tensors(self) -> dict[str, Tensor]:
        """Return the weighted sum of the quantity and the total weight ``(2,)``."""
        return {"sum": self._sums}

    def is_consistent(self, samples: float, *, weighted: bool) -> bool:
        """Return whether the sums are consistent with this number of samples."""
        total, count = self._sums.tolist()
        counted = 0 <= count <= LARGEST if weighted else count == samples
        low, high = (count * bound if count else 0.0 for bound in self._between)
        slack = _ROUNDING * count
        return counted and low - slack <= total <= high + slack and abs(total) < math.inf

    def table(self) -> float:
        """Return the mean so far, within the range of the quantity, which weighted sums may miss by a rounding."""
        total, count = self._sums.tolist()
        return float(np.clip(total / count, *self._between))


def mean_of_quantity(
    quantity: Quantity,
    predictions: AnyPredictions,
    *,
    between: Range = UNBOUNDED,
    top_label: bool = False,
) -> float:
    """Return the mean of a per-sample quantity; ``top_label`` also accepts a :class:`~fedlas.TopLabel`."""
    rows = RowMean(quantity, between)
    scan((require_top_label if top_label else require_predictions)(predictions), [rows])
    return rows.table()


def is_in_range(values: Tensor, low: float, high: float | Tensor) -> bool:
    """Return whether all ``values`` are between ``low`` and ``high``, and none is NaN."""
    return bool(((values >= low) & (values <= high)).all())


def normalized_weights(predictions: object) -> NDArray[np.float64] | None:
    """Return the weights ``(N,)`` scaled so that positive ones average 1, or None without weights."""
    weights = getattr(predictions, "weights", None)
    return None if weights is None else weights * (np.count_nonzero(weights) / weights.sum())


def nonzero(count: NDArray[np.float64], *, least: float = 0.0) -> NDArray[np.float64]:
    """Return ``count`` with values up to ``least`` replaced by 1, for safe division."""
    return np.where(count > least, count, 1.0)


def effective_count(sums: NDArray[Any], squares: NDArray[Any]) -> NDArray[np.float64]:
    """Return the effective sample size ``(sum w)**2 / sum w**2`` of each bin."""
    return np.asarray(sums**2 / nonzero(squares))


def check_no_weights(predictions: object) -> None:
    """Raise InputError if ``predictions`` have weights, which published variants do not support."""
    if getattr(predictions, "weights", None) is not None:
        raise InputError(
            'predictions must have no weights with variant="reference"',
            "weights",
            'Choose variant="exact", or drop the weights: dataclasses.replace(predictions, weights=None).',
        )


def check_weights_supported(predictions: object, *, takes_weights: bool) -> None:
    """Raise InputError if ``predictions`` have weights that a metric would ignore."""
    weights = getattr(predictions, "weights", None)
    if weights is not None and not takes_weights:
        raise InputError(
            "predictions must have no weights: they are not supported here",
            f"weights of {len(weights)} samples",
            "Drop the weights, dataclasses.replace(predictions, weights=None), or choose another metric.",
            fixes={"command": "Leave --weights out."},
        )
