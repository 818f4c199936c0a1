"""Adaptive calibration error (ACE, Nixon et al.): equal-mass bins of every class's probability."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

import numpy as np

from fedlas._core import ops
from fedlas.metrics.grids import ClassGrid
from fedlas.metrics.metric import METRICS
from fedlas.metrics.ranking import CellRuns, Runs, SampleRuns, equal_mass_error
from fedlas.metrics.sums import Statistic, normalized_weights

if TYPE_CHECKING:
    from fedlas._core.types import FloatArray
    from fedlas.metrics.scan import Chunk
    from fedlas.predictions import Predictions

# Probabilities held at a time: 32 MiB of float64.
_ELEMENTS = 2**22


def _iter_class_probs(predictions: Predictions) -> Iterator[FloatArray]:
    """Yield the float64 softmax of one class after another ``(N,)``, with a block of classes in memory at a time."""
    logits = predictions.logits
    highest = ops.row_max(logits).astype(np.float64)
    total = ops.log_partition(logits, highest, np.float64)
    for part in ops.iter_blocks(predictions.num_classes, predictions.num_samples, _ELEMENTS):
        block = logits.T[part] - highest
        block -= total
        yield from np.exp(block, out=block)


class SortedClassProbs(Statistic):
    """Statistic: the predictions themselves, whose probabilities are sorted class by class."""

    takes_weights = True
    streaming = ClassGrid

    def __init__(self, predictions: Predictions, num_bins: int) -> None:
        self.num_bins = num_bins
        self._predictions = predictions

    def update(self, chunk: Chunk) -> None:
        """Do nothing: sorting needs all rows at once."""

    def table(self) -> Iterator[SampleRuns]:
        """Yield the samples by ascending probability, class by class."""
        target = self._predictions.target
        weights = normalized_weights(self._predictions)
        for label, probs in enumerate(_iter_class_probs(self._predictions)):
            yield SampleRuns(probs, target == label, weights, self.num_bins)


def mean_equal_mass_error(classes: Iterable[Runs]) -> FloatArray:
    """Return ``1 / C * sum_c sum_b |gap_cb| / N`` over equal-mass bins of every class ``(...,)``."""
    return np.mean([equal_mass_error(runs) for runs in classes], axis=0)


def _grid_error_bound(classes: Iterable[CellRuns]) -> float:
    return float(np.mean([runs.equal_mass_error_bound() for runs in classes]))


@METRICS.register(
    "ace",
    order=170,
    title="ACE",
    default=False,
    zero_if_calibrated=True,
    paper="Nixon et al. 2019, Measuring calibration in deep learning",
    statistic=SortedClassProbs,
    formula=mean_equal_mass_error,
    error=_grid_error_bound,
)
def ace(predictions: Predictions, *, num_bins: int = 15) -> float:
    """Classwise ECE with bins of equal mass, ``1 / C * sum_c sum_b n_cb / N * |mean_{i in cb} (1[y_i = c] - p_ic)|``.

    The samples are sorted by their probability of class ``c`` and cut at ranks into ``num_bins`` bins, for every class
    anew; all probabilities count, not only the highest of each sample. :func:`adaptive_ece` is another
    thing: it has such bins for the confidence alone.

    Args:
        predictions: Logits ``(N, C)`` and target ``(N,)``.
        num_bins: Number of bins of each class, at least 1; may exceed ``N``.

    Returns:
        A fraction in ``[0, 1]``; of the order of ``1 / C``, so compare it between models, not between data sets.

    Raises:
        InputError: If ``num_bins`` is below 1.

    Note:
        The paper averages over classes and bins alike, ``1 / (C * B)``. That is this formula when all bins hold
        ``N / B`` samples; equal probabilities are kept in one bin here, so where there are many, such as those that
        underflow to 0, bins differ and each counts by its samples. ``C`` sorts of ``N`` numbers, so slow for many
        classes, and not computed by ``evaluate``. :class:`~fedlas.metrics.StreamingMetrics` has it from a grid of
        cells for each class, with a bound on what that costs.

    Example:
        >>> from fedlas import Predictions
        >>> ace(Predictions([[0.0, 0.0], [0.0, 0.0]], [1, 1]))
        0.5

    Source:
        Nixon et al. 2019 (CVPR workshops), equation for ACE; https://arxiv.org/abs/1904.01685
    """
    return float(
        mean_equal_mass_error(SortedClassProbs.from_predictions(predictions, num_bins).table())
    )
