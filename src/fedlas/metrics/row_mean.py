"""Accuracy, NLL and Brier score: means of a quantity of each row, whose sum is exact whatever the size of its terms."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedlas._core.check import LARGEST, check_count, check_finite
from fedlas.metrics.scan import METRICS, Chunk, OnePass
from fedlas.metrics.sums import has_weights, in_range
from fedlas.predictions import Predictions, TopLabel
from fedlas.predictions.predictions import AnyPredictions

TOTAL_BITS = 52
"""Bits behind the binary point of an exact total."""
LIMBS = 42
LIMB_BITS = 26
"""An exact total is kept as so many digits of so many bits, enough for all of float64."""


Quantity = Callable[[Chunk], Tensor]
"""From a chunk of ``n`` rows to ``(n,)``, bool or float."""
Range = tuple[float, float]
ANY: Range = (-math.inf, math.inf)


class RowMean:
    """Statistic: the mean over all samples of a quantity of each row; the sum is exact.

    Args:
        quantity: From a chunk to ``(n,)``.
        weighted: Whether samples have weights: it is the weighted mean then, from float64 sums.
        between: Least and largest value of the quantity.

    Attributes:
        quantity: The same; what resamples the rows takes their means of it without another pass.
    """

    takes_weights = True

    def __init__(self, quantity: Quantity, weighted: bool = False, between: Range = ANY) -> None:
        self.quantity = quantity
        self._between = between
        self._weighted = weighted
        kind = torch.float64 if weighted else torch.int64
        self._sum = torch.zeros(1 if weighted else LIMBS, dtype=kind, device="cpu")
        self._count = torch.zeros(1, dtype=kind, device="cpu")

    def update(self, chunk: Chunk) -> None:
        """Take in the rows of ``chunk``."""
        values = self.quantity(chunk).cpu()
        if self._weighted and chunk.weights is not None:
            self._sum += (values.double() * chunk.weights).sum()
            self._count += chunk.weights.sum()
            return
        hits = values.dtype == torch.bool
        add_total(
            self._sum,
            int(values.sum()) << TOTAL_BITS if hits else exact_total(values.double().numpy()),
        )
        self._count += len(values)

    def tensors(self) -> dict[str, Tensor]:
        """Sum and number of rows."""
        return {"sum": self._sum, "count": self._count}

    def possible(self, samples: int) -> bool:
        """Return whether ``samples`` samples can give these sums."""
        count = float(self._count)
        total = float(self._sum) if self._weighted else total_of(self._sum) >> TOTAL_BITS
        counted = 0 <= count <= LARGEST if self._weighted else count == samples
        # A chunk adds one digit to each place; of a negative total, the last one is negative.
        digits = self._weighted or in_range(self._sum[:-1], 0, samples * 2.0**LIMB_BITS)
        low, high = (count * bound if count else 0.0 for bound in self._between)
        slack = 1e-6 * count  # probabilities are rounded
        return counted and digits and low - slack <= total <= high + slack and abs(total) < math.inf

    @property
    def mean(self) -> float:
        """The mean so far."""
        if self._weighted:
            return float(self._sum[0] / self._count[0])
        return total_of(self._sum) / (int(self._count) << TOTAL_BITS)


def row_mean(
    quantity: Quantity, *, top_label: bool = False, between: Range = ANY
) -> OnePass[RowMean]:
    """Return the single pass of a metric that is the mean of a ``quantity (n,)`` of each row.

    Args:
        quantity: From a chunk to ``(n,)``, bool or float.
        top_label: Whether it asks for ``confidence`` and ``correct`` alone.
        between: Least and largest value of the quantity, outside of which a stored sum is refused.
    """
    return OnePass(_EmptyMean(quantity, top_label, between), mean_of_rows)


@dataclass(frozen=True)
class _EmptyMean:
    """Makes the empty statistic."""

    quantity: Quantity
    top_label: bool
    between: Range

    def __call__(self, predictions: AnyPredictions, _num_bins: int) -> RowMean:
        return RowMean(self.quantity, has_weights(predictions), self.between)


def mean_of_rows(rows: RowMean) -> float:
    """Return the value of every :func:`row_mean` pass, by which one is recognized."""
    return rows.mean


def exact_total(terms: NDArray[np.float64]) -> int:
    """Return the sum of ``terms (n,)``, each rounded to a multiple of ``2**-52``, in these units.

    Raises:
        InputError: If a term is infinite or NaN.
    """
    largest = float(np.abs(terms).max(initial=0.0))
    if largest < 2.0**10:
        units = np.rint(terms * 2.0**TOTAL_BITS).astype(np.int64)
        # Two halves, because int64 has no room for the sum of whole ones.
        return (int((units >> LIMB_BITS).sum()) << LIMB_BITS) + int(
            (units & (2**LIMB_BITS - 1)).sum()
        )
    if largest < 2.0**36:
        whole = np.trunc(terms)
        return (int(whole.astype(np.int64).sum()) << TOTAL_BITS) + exact_total(terms - whole)
    if not math.isfinite(largest):
        check_finite("the values of a mean", torch.from_numpy(terms))
    return sum(round(Fraction(term) * 2**TOTAL_BITS) for term in terms.tolist())


def add_total(limbs: Tensor, total: int) -> None:
    """Add an exact total to its digits ``limbs (LIMBS,)`` int64, which hold it in ``sum_k limbs[k] * 2**(26 k)``."""
    for k in range(LIMBS - 1):
        limbs[k] += total & (2**LIMB_BITS - 1)
        total >>= LIMB_BITS
        if not total:
            return
    limbs[-1] += total


def total_of(limbs: Tensor) -> int:
    """Return the total that ``limbs`` hold."""
    return sum(digit << (LIMB_BITS * k) for k, digit in enumerate(limbs.tolist()))


def _hits(k: int) -> OnePass[RowMean]:
    return row_mean(lambda chunk: chunk.rank < k, between=(0, 1))


_TOP1 = row_mean(lambda chunk: chunk.correct, top_label=True, between=(0, 1))


@METRICS.register(
    "accuracy", order=10, title="Accuracy", higher_is_better=True, paper="folklore", one_pass=_TOP1
)
def accuracy(predictions: Predictions | TopLabel) -> float:
    """Share of samples whose predicted class is the label.

    Args:
        predictions: Logits ``(N, C)`` and target ``(N,)``, or a ``TopLabel``. Of equal logits the first is predicted.

    Returns:
        A fraction in ``[0, 1]``.

    Example:
        >>> accuracy(Predictions([[2.0, 0.0], [0.0, 1.0]], [0, 0]))
        0.5
    """
    return _TOP1(predictions)


@METRICS.register(
    "top5",
    order=20,
    title="Top-5 accuracy",
    higher_is_better=True,
    paper="Russakovsky et al. 2015, ImageNet large scale visual recognition challenge",
    one_pass=_hits(5),
)
def top_k_accuracy(predictions: Predictions, *, k: int = 5) -> float:
    """Share of samples whose label has one of the ``k`` highest logits.

    Args:
        predictions: Logits ``(N, C)`` and target ``(N,)``. Of equal logits the first counts as higher.
        k: How many classes may be named. With fewer than ``k`` classes all of them are named, ``k = min(k, C)``, and
            the result is 1.

    Returns:
        A fraction in ``[0, 1]``.

    Raises:
        InputError: If ``k`` is not a whole number of at least 1.

    Example:
        >>> top_k_accuracy(Predictions([[3.0, 2.0, 1.0], [3.0, 2.0, 1.0]], [1, 2]), k=2)
        0.5
    """
    return _hits(check_count("k", k))(predictions)


# NLL and Brier score are proper scores: best in expectation at the true probabilities, so they reward accuracy and
# calibration together.
_NLL = row_mean(lambda chunk: chunk.nll, between=(0, math.inf))
_BRIER = row_mean(lambda chunk: chunk.squared_error, between=(0, 2))


@METRICS.register(
    "nll",
    order=30,
    title="NLL",
    percent=False,
    paper="Good 1952, Rational decisions",
    one_pass=_NLL,
)
def negative_log_likelihood(predictions: Predictions) -> float:
    """Mean negative log-likelihood of the labels, ``mean_i -log p_i[y_i]``.

    Args:
        predictions: Logits ``(N, C)`` and target ``(N,)``.

    Returns:
        Nats per sample, in ``[0, inf)``; ``log C`` for uniform predictions.

    Example:
        >>> round(negative_log_likelihood(Predictions([[0.0, 0.0]], [1])), 4)
        0.6931
    """
    return _NLL(predictions)


@METRICS.register(
    "brier",
    order=40,
    title="Brier",
    percent=False,
    paper="Brier 1950, Verification of forecasts expressed in terms of probability",
    one_pass=_BRIER,
)
def brier_score(predictions: Predictions) -> float:
    """Brier score summed over classes, ``mean_i sum_k (p_ik - 1[k = y_i])**2``.

    Args:
        predictions: Logits ``(N, C)`` and target ``(N,)``.

    Returns:
        A number in ``[0, 2]``.

    Note:
        Brier's own form. Some libraries average over classes (divide by ``C``), and for two classes some count only one
        column (divide by 2).

    Example:
        >>> brier_score(Predictions([[0.0, 0.0]], [1]))
        0.5
    """
    return _BRIER(predictions)
