"""Sums of samples that have weights, and the refusal of metrics that know of none.

Sums of samples that all count once are exact (:mod:`fedlas.metrics.exact`). Weighted sums are plain float64 sums: their
last digits depend on the order of the samples and on how they are split.

Sums over samples become weighted sums, and ``N`` becomes the sum of the weights. Where a formula asks how *many*
samples there are (ranks, coverages one by one), the weights are scaled so that they average 1: the sample of weight
``w`` then counts as ``w`` samples.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedlas._core.check import InputError
from fedlas.metrics.exact import FRACTION_DIGITS, ExactSum
from fedlas.metrics.ranking import runs_below_cuts


class WeightedSum:
    """Sums in float64, with the interface of :class:`~fedlas.metrics.exact.ExactSum`.

    Args:
        size: How many sums.

    Attributes:
        digits: The sums ``(size,)`` float64 on the CPU, under the name that exact sums have for theirs.
    """

    def __init__(self, size: int) -> None:
        self.digits = torch.zeros(size, dtype=torch.float64, device="cpu")

    def add(self, terms: Tensor, index: Tensor | None = None) -> None:
        """Add ``terms (n,)``, each times its weight already, to the sums that ``index (n,)`` names, or to the first."""
        if index is None:
            self.digits[0] += terms.double().sum()
        else:
            self.digits.index_add_(0, index, terms.double())

    def floats(self) -> Tensor:
        """The sums ``(size,)`` float64."""
        return self.digits


def has_weights(predictions: Any) -> bool:
    """Whether the samples of ``predictions`` have weights."""
    return getattr(predictions, "weights", None) is not None


def sums_for(size: int, weighted: bool, *, digits: int = FRACTION_DIGITS) -> ExactSum | WeightedSum:
    """``size`` sums of terms: exact ones, or of weighted terms in float64."""
    return WeightedSum(size) if weighted else ExactSum(size, digits=digits)


def counts_for(size: int, weighted: bool) -> Tensor:
    """``size`` numbers of samples, all 0: int64, or the float64 that sums of weights need."""
    return torch.zeros(size, dtype=torch.float64 if weighted else torch.int64, device="cpu")


def once(index: Tensor, weights: Tensor | None) -> Tensor:
    """What each sample adds to a number of samples ``(n,)``: 1, or its weight."""
    return torch.ones_like(index) if weights is None else weights


def times(terms: Tensor, weights: Tensor | None) -> Tensor:
    """``terms (n,)``, each times its weight if there are weights."""
    return terms if weights is None else terms.double() * weights


def averaging_one(predictions: Any) -> Tensor | None:
    """The weights ``(N,)`` scaled so that those above 0 average 1; None if there are none."""
    weights: Tensor | None = getattr(predictions, "weights", None)
    return None if weights is None else weights * (torch.count_nonzero(weights) / weights.sum())


def filled(count: NDArray[np.float64], *, least: float = 0.0) -> NDArray[np.float64]:
    """``count``, with 1 in place of what is up to ``least``: a number to divide by where nothing is divided."""
    return np.where(count > least, count, 1.0)


def weighted_mass_edges(confidence: Tensor, weights: Tensor, num_bins: int) -> Tensor:
    """Edges between bins of as equal sums of weights as ties allow, as ``binning.equal_mass_edges`` has them of counts.

    Args:
        confidence: ``(N,)``, in any order.
        weights: ``(N,)``, averaging 1 over those above 0.
        num_bins: ``B``.
    """
    counted = weights > 0
    values, place = confidence[counted].unique(return_inverse=True)
    upto = torch.zeros(len(values), dtype=torch.float64, device="cpu").index_add_(0, place, weights[counted]).cumsum(0)
    cut = torch.from_numpy(runs_below_cuts(upto.numpy()[None], int(counted.sum()), num_bins)[0])
    edges = torch.zeros(num_bins + 1, dtype=torch.float64, device="cpu")
    edges[1 : 1 + len(cut)] = torch.where(cut > 0, values[(cut - 1).clamp(min=0)], 0).double()
    edges[1 + len(cut) :] = 1.0
    return edges


def refuse_weights(owner: str, statistic: Any) -> None:
    """Refuse a published convention, which knows of no weights, for a ``statistic`` that has some.

    Raises:
        InputError: If its ``weights`` are not None.
    """
    if statistic.weights is not None:
        fix = 'Choose convention="exact", or take the weights off: dataclasses.replace(predictions, weights=None).'
        raise InputError(owner, 'predictions must have no weights with convention="reference"', "weights", fix)


def check_takes_weights(owner: str, predictions: Any, *, takes_weights: bool) -> None:
    """Refuse weighted predictions for a metric that would ignore the weights.

    Raises:
        InputError: If ``predictions`` have weights and the metric does not take them.
    """
    if has_weights(predictions) and not takes_weights:
        raise InputError(
            owner,
            "predictions must have no weights, which are not used here",
            f"weights of {len(predictions.weights)} samples",
            "Take the weights off, dataclasses.replace(predictions, weights=None), or choose another metric.",
        )
