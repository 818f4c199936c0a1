"""Adaptive calibration error of all classes: bins of equal mass for every class's probability."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from fedlas._core.check import check_count
from fedlas.metrics.base import METRICS, Approximation, Estimator
from fedlas.metrics.class_grid import ClassGrid
from fedlas.metrics.ranking import ranking
from fedlas.metrics.scan import PROB_BITS, check_predictions
from fedlas.predictions import Predictions

# Probabilities held at a time: 32 MiB of float64.
_ELEMENTS = 2**22


def _columns(predictions: Predictions) -> Iterator[Tensor]:
    """What :func:`class_probs` says of one class after another ``(N,)``, a block of classes in memory at a time."""
    logits = predictions.logits
    rows = max(1, _ELEMENTS // predictions.num_classes)
    highest = logits.amax(dim=1, keepdim=True).cpu().double()
    parts = zip(logits.split(rows), highest.split(rows), strict=True)
    total = torch.cat([(part.cpu().double() - top).logsumexp(dim=1, keepdim=True) for part, top in parts])
    for block in logits.split(max(1, _ELEMENTS // predictions.num_samples), dim=1):
        yield from (block.cpu().double() - highest - total).exp_().unbind(dim=1)


def _on_grid(grid: ClassGrid) -> float:
    gaps = [float(each.equal_mass_gaps(grid.num_bins).abs().sum()) / each.num_samples for each in grid.rankings()]
    return sum(gaps) / len(gaps)


def _grid_error(grid: ClassGrid) -> float:
    """That of the cuts, and of the rounding of every probability."""
    errors = [each.equal_mass_error(grid.num_bins) / each.num_samples for each in grid.rankings()]
    return sum(errors) / len(errors) + 2.0**-PROB_BITS


_STREAMING = Approximation(Estimator("classwise_adaptive_calibration_error", ClassGrid, _on_grid), _grid_error)


@METRICS.register(
    "ace",
    title="ACE",
    higher_is_better=False,
    percent=True,
    default=False,
    paper="Nixon et al. 2019, Measuring calibration in deep learning",
    streaming=_STREAMING,
)
def classwise_adaptive_calibration_error(predictions: Predictions, *, num_bins: int = 15) -> float:
    """Classwise ECE with bins of equal mass, ``1 / C * sum_c sum_b n_cb / N * |mean_{i in cb} (1[y_i = c] - p_ic)|``.

    The samples are sorted by their probability of class ``c`` and cut at ranks into ``num_bins`` bins, for every class
    anew; all probabilities count, not only the highest of each sample. :func:`adaptive_calibration_error` is another
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
        >>> classwise_adaptive_calibration_error(Predictions([[0.0, 0.0], [0.0, 0.0]], [1, 1]))
        0.5

    Source:
        Nixon et al. 2019 (CVPR workshops), equation for ACE; https://arxiv.org/abs/1904.01685
    """
    check_predictions("classwise_adaptive_calibration_error", predictions)
    check_count("classwise_adaptive_calibration_error", "num_bins", num_bins)
    target = predictions.target.cpu()
    gaps = [
        float(ranking(probs, target == label).equal_mass_gaps(num_bins).abs().sum())
        for label, probs in enumerate(_columns(predictions))
    ]
    return sum(gaps) / (predictions.num_samples * predictions.num_classes)
