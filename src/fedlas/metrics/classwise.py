"""Classwise calibration error: are all the probabilities right, and not only the highest one?"""

from __future__ import annotations

import torch
from torch import Tensor

from fedlas._core.check import check_choice
from fedlas.metrics.base import METRICS, Estimator
from fedlas.metrics.binning import bin_index, equal_width_edges
from fedlas.metrics.scan import Chunk
from fedlas.predictions import Predictions


class ClasswiseGaps:
    """Statistic: for each class and bin, the sum of ``p - 1[y = class]`` over the samples whose ``p`` is in the bin.

    A row of probabilities adds up to 1, so fewer than ``num_bins`` of its entries are beyond the first bin. Only those
    are sorted into bins; the first bin is what they leave of the column's sum.
    """

    def __init__(self, predictions: Predictions, num_bins: int) -> None:
        self.edges = equal_width_edges(num_bins)
        self.gaps = torch.zeros(predictions.num_classes, num_bins, dtype=torch.float64, device="cpu")
        self.num_samples = predictions.num_samples
        self.num_label_classes = int(predictions.target.max()) + 1
        self.underflowed = torch.zeros(predictions.num_classes, dtype=torch.float64, device="cpu")

    def update(self, chunk: Chunk) -> None:
        """Take in the rows of ``chunk``."""
        self.gaps[:, 0] += chunk.probs.sum(dim=0).cpu().double()
        if self.gaps.shape[1] > 1:
            beyond = (chunk.probs > self.edges[1].to(chunk.probs.dtype)).nonzero(as_tuple=True)
            probs, classes = chunk.probs[beyond].cpu(), beyond[1].cpu()
            self._add(classes, bin_index(probs, self.edges), probs.double())
            self._add(classes, torch.zeros_like(classes), -probs.double())
        ones = torch.ones(len(chunk.target), dtype=torch.float64, device="cpu")
        self._add(chunk.target, bin_index(chunk.target_probs, self.edges), -ones)
        self.underflowed += torch.bincount(chunk.target[chunk.target_probs == 0], minlength=len(self.underflowed))

    def _add(self, classes: Tensor, bins: Tensor, values: Tensor) -> None:
        self.gaps.view(-1).index_add_(0, classes * self.gaps.shape[1] + bins, values)


def _mean_over_classes(statistic: ClasswiseGaps) -> float:
    return float(statistic.gaps.abs().sum(dim=1).mean() / statistic.num_samples)


def _mean_over_label_classes(statistic: ClasswiseGaps) -> float:
    gaps = statistic.gaps.clone()
    gaps[:, 0] += statistic.underflowed
    return float(gaps[: statistic.num_label_classes].abs().sum(dim=1).mean() / statistic.num_samples)


_CLASSWISE = {
    "exact": Estimator("classwise_calibration_error", ClasswiseGaps, _mean_over_classes),
    "reference": Estimator("classwise_calibration_error", ClasswiseGaps, _mean_over_label_classes),
}


@METRICS.register(
    "classwise_ece",
    title="Classwise ECE",
    higher_is_better=False,
    percent=True,
    paper="Kull et al. 2019, Beyond temperature scaling: obtaining well-calibrated multiclass probabilities",
    estimator=_CLASSWISE["exact"],
)
def classwise_calibration_error(predictions: Predictions, *, num_bins: int = 15, convention: str = "exact") -> float:
    """ECE of each class's probability against "is it the label?", averaged over the classes.

    ``1 / C * sum_c sum_b n_cb / N * |mean_{i in cb} (1[y_i = c] - p_ic)|``, where bin ``cb`` holds the samples whose
    ``p_ic`` is in bin ``b``.

    Args:
        predictions: Logits ``(N, C)`` and target ``(N,)``.
        num_bins: Number of bins of equal width over ``[0, 1]``, at least 1. Bin ``(a, b]``; 0 belongs to the first.
        convention: ``"exact"``: the mean over all ``C`` columns of the logits. ``"reference"``: the published code,
            which averages over ``max(target) + 1`` classes and leaves out probabilities that are exactly 0.

    Returns:
        A fraction in ``[0, 1]``; of the order of ``1 / C``, so compare it between models, not between data sets.

    Raises:
        InputError: If ``num_bins`` is below 1, or for another convention.

    Example:
        >>> classwise_calibration_error(Predictions([[0.0, 0.0], [0.0, 0.0]], [1, 1]))
        0.5

    Source:
        Kull et al. 2019, section 2, where it is called classwise-ECE.
    """
    return _CLASSWISE[check_choice("classwise_calibration_error", "convention", convention, _CLASSWISE)](
        predictions, num_bins=num_bins
    )
