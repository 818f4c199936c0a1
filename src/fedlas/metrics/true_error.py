"""Calibration error against known or estimated label distributions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fedlas._core.check import InputError
from fedlas.metrics.equal_width import BinSums, mean_gap
from fedlas.metrics.metric import METRICS

if TYPE_CHECKING:
    from torch import Tensor

    from fedlas.metrics.scan import Chunk
    from fedlas.predictions import Predictions


def require_label_probs(source: Any) -> Any:
    """Return the label distributions ``(n, C)`` of a chunk or of predictions, or raise InputError without them."""
    if source.label_probs is not None:
        return source.label_probs
    raise InputError(
        "predictions must have label_probs",
        "none",
        "Pass each sample's label distribution, such as annotators' votes, or choose a metric of single labels.",
    )


class TrueAccuracyBins(BinSums):
    """Statistic: sums over equal-width bins, with the probability of being right as the outcome."""

    def __init__(self, predictions: Predictions, num_bins: int) -> None:
        require_label_probs(predictions)
        super().__init__(num_bins)

    def update(self, chunk: Chunk) -> None:
        """Add the rows of ``chunk``."""
        self.add(chunk.confidence, expected_accuracy(chunk).cpu(), chunk.weights)


def expected_accuracy(chunk: Chunk) -> Tensor:
    """Return the label probability of the predicted class ``(n,)``."""
    label_probs: Tensor = require_label_probs(chunk)
    return label_probs.gather(1, chunk.predicted.unsqueeze(1)).squeeze(1)


@METRICS.register(
    "true_ece",
    order=140,
    title="True ECE",
    zero_if_calibrated=True,
    paper="Roelofs et al. 2022, Mitigating bias in calibration error estimation",
    needs=frozenset({"label_probs"}),
    statistic=TrueAccuracyBins,
    formula=mean_gap,
    takes_replicates=True,
)
def true_ece(predictions: Predictions, *, num_bins: int = 15) -> float:
    """ECE without label noise, for data with known label distributions or annotators' votes.

    ``sum_b n_b / N * |mean_{i in b} label_probs[i, predicted_i] - mean_{i in b} confidence_i|``: the known probability
    that the predicted class is right stands where :func:`ece` has the 0 or 1 of one drawn label.
    Bins and confidences are the same. So it is the ECE of these inputs if each had infinitely many labels, and zero for
    calibrated predictions, which ECE is not.

    With the votes of people on each input it is the calibration against people: whether a prediction of confidence 0.8
    is of a class that 8 of 10 people would name. A model that is calibrated against the majority's labels is too
    confident by it where people disagree.

    Args:
        predictions: Logits ``(N, C)`` with ``label_probs (N, C)``; the drawn labels are not used.
        num_bins: Number of bins of equal width, at least 1.

    Returns:
        A fraction in ``[0, 1]``.

    Raises:
        InputError: If there are no ``label_probs``, or if ``num_bins`` is below 1.

    Note:
        Still a binned error: gaps of opposite sign within one bin cancel. It is not ``mean_i |P_i - confidence_i|``,
        which also punishes giving one confidence to inputs of different difficulty; a calibrated model may do that.

    Example:
        >>> from fedlas import Predictions
        >>> p = Predictions([[0.0, 0.0], [0.0, 0.0]], [1, 1], label_probs=[[0.5, 0.5], [0.25, 0.75]])
        >>> true_ece(p)
        0.125
    """
    return float(mean_gap(TrueAccuracyBins.from_predictions(predictions, num_bins).table()))
