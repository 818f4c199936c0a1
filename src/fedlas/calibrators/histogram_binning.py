"""Histogram binning of the probability of each class against the rest."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal, get_args

import numpy as np
import torch
from torch import Tensor, nn

from fedlas._core.check import check_choice, check_count
from fedlas.calibrators._fit.buffers import BufferModule, float64_tensor, ones
from fedlas.calibrators._fit.fit_warnings import accuracy_drop_warning, attach_warnings, warning_if
from fedlas.calibrators._fit.one_vs_rest import (
    class_prob_columns,
    count_edges_below,
    log_with_floor,
    pad_edges,
)
from fedlas.calibrators._fit.rowwise import probability_floor
from fedlas.calibrators._fit.state import require_valid
from fedlas.calibrators.base import CALIBRATORS, Calibrator
from fedlas.metrics.equal_width import equal_width_edges
from fedlas.metrics.ranking import equal_mass_indices
from fedlas.predictions.tensors import softmax

if TYPE_CHECKING:
    from fedlas.predictions import Predictions

__all__ = ["ClassBins", "HistogramBinning"]

_TIES_ADVICE = (
    "with many classes the highest bin of a class also holds samples of other classes. Use isotonic regression or "
    "temperature scaling."
)
Scheme = Literal["equal-mass", "equal-width"]


class ClassBins(BufferModule):
    """Bins of the probability of each class, and the share of the class in each bin; float64.

    Attributes:
        edges: Inner edges ``(C, B - 1)``, ascending: bin ``b`` is ``(edges[b - 1], edges[b]]``.
        share: Share of the bin's samples that belong to the class ``(C, B)``.
        floor: Least probability that is returned ``()``.
    """

    shapes: ClassVar = {"edges": "CE", "share": "CB", "floor": ""}
    has_steps = True

    def __init__(self, **numbers: Tensor) -> None:
        super().__init__(**numbers)
        require_valid(self.edges.ndim == 2, "edges must have shape (C, B - 1)")
        self.register_buffer("_padded", pad_edges(self.edges.T), persistent=False)

    def forward(self, rows: Tensor) -> Tensor:
        """Return calibrated logits for logits ``(n, C)``."""
        index = count_edges_below(self._padded, softmax(rows))
        return log_with_floor(self.share.T.gather(0, index), self.floor)

    def check(self, classes: int) -> None:
        """Raise ValueError for wrong shapes, edges that do not ascend, or shares outside 0 to 1."""
        super().check(classes)
        require_valid(self.edges.shape[1] == self.share.shape[1] - 1, "each bin must have a share")
        require_valid((self.edges.diff(dim=1) >= 0).all(), "edges must ascend")
        within = bool(((self.share >= 0) & (self.share <= 1)).all())
        require_valid(
            within and 0 < self.floor <= 1, "shares must be in [0, 1], and floor in (0, 1]"
        )


@CALIBRATORS.register(
    "histogram-binning",
    paper="Obtaining calibrated probability estimates from decision trees and naive Bayesian classifiers",
    year=2001,
    url="https://dl.acm.org/doi/10.5555/645530.655658",
)
class HistogramBinning(Calibrator):
    """Histogram binning: the probability of a class becomes the class share in its bin; rows are then normalized.

    For each class ``k`` the validation samples are cut into bins by ``p_k``, and the calibrated ``p_k`` is the share of
    the bin's samples that belong to ``k``.

    Args:
        num_bins: Bins of each class, at least 1.
        scheme: ``"equal-mass"``: as many samples in each, as in the paper; ``"equal-width"``: of equal width on
            ``[0, 1]``.

    Raises:
        InputError: For a ``num_bins`` below 1 or another scheme.

    Note:
        A share of 0 becomes ``1 / (C (N + 1))`` with ``N`` validation samples, less than any other share, so that
        logits are finite.

        Edges lie midway between the neighboring samples. Equal probabilities stay in one bin, so there can be fewer
        bins than ``num_bins``. The value of an empty bin of equal width is its middle.

        The predicted class changes often: classes that share a value tie, and the first of them is predicted. With
        bins of equal mass it changes more the more classes there are, since a class has fewer samples than its highest
        bin holds: with 15 bins, of 100 classes a quarter of the predictions stay. Warns (:class:`CalibrationWarning`)
        when the accuracy on the validation samples falls by more than a standard error, when there are fewer samples
        than bins, when a class has no sample, and when the fit changes nothing. Memory: four
        arrays of the size of the logits in float64.

    Example:
        >>> from fedlas import Predictions
        >>> val = Predictions([[3.0, 0.0], [3.0, 0.0], [3.0, 0.0], [0.0, 3.0], [0.0, 3.0]], [0, 0, 1, 1, 0])
        >>> binned = HistogramBinning(num_bins=2).fit(val).transform(val)
        >>> [round(float(p), 2) for p in binned.probs[:, 0]]  # the observed shares: 2 of 3, and 1 of 2
        [0.67, 0.67, 0.67, 0.5, 0.5]

    Source:
        Zadrozny and Elkan 2001 (binning of naive Bayesian scores); one against the rest and division by the sum:
        Zadrozny and Elkan 2002, "Transforming classifier scores into accurate multiclass probability estimates",
        section 4.
    """

    map_type = ClassBins
    enough = (100, 250)
    takes_weights = False

    def __init__(self, num_bins: int = 15, scheme: Scheme = "equal-mass") -> None:
        self.num_bins = check_count("num_bins", num_bins)
        self.scheme = check_choice("scheme", scheme, get_args(Scheme))

    def fit_map(self, val: Predictions, start: nn.Module | None = None) -> ClassBins:
        """Fit the bins to ``val``."""
        target = val.tensors().target
        columns = class_prob_columns(val.tensors().logits)
        equal_width = torch.from_numpy(equal_width_edges(self.num_bins)[1:-1]).repeat(
            val.num_classes, 1
        )
        edges = equal_width if self.scheme == "equal-width" else self._equal_mass_edges(columns)
        bounds = torch.nn.functional.pad(edges, (1, 1))
        bounds[:, -1] = 1.0
        index = torch.searchsorted(edges, columns)
        cell = index + self.num_bins * torch.arange(val.num_classes, device="cpu").unsqueeze(1)
        count, hits = (
            each.flatten()
            .bincount(minlength=val.num_classes * self.num_bins)
            .view(-1, self.num_bins)
            for each in (cell, cell.gather(0, target.unsqueeze(0)))
        )
        share = torch.where(count > 0, hits / count.double(), (bounds[:, 1:] + bounds[:, :-1]) / 2)
        least = float64_tensor(probability_floor(val.num_samples, val.num_classes))
        bins = ClassBins(edges=edges, share=share, floor=least)
        text = f"{val.num_samples} samples cannot fill {self.num_bins} bins. Use fewer bins, or temperature scaling."
        calibrated = log_with_floor(share.gather(1, index).T, least)
        too_few = warning_if(val.num_samples < self.num_bins, text)
        return attach_warnings(bins, too_few, accuracy_drop_warning(val, calibrated, _TIES_ADVICE))

    def _equal_mass_edges(self, columns: Tensor) -> Tensor:
        """Return inner edges ``(C, B - 1)`` of equal-mass bins for columns ``(C, N)``, midway between samples."""
        # torch takes several times as long
        ordered = torch.from_numpy(np.sort(columns.numpy(), axis=1))
        below = ones(len(ordered), self.num_bins - 1)
        for edges, probs in zip(below, ordered.numpy(), strict=True):
            places = equal_mass_indices(probs, None, self.num_bins)
            edges[: len(places)] = torch.from_numpy(np.where(places > 0, probs[places - 1], 0.0))
        above = ordered.gather(
            1, torch.searchsorted(ordered, below, right=True).clamp(max=ordered.shape[1] - 1)
        )
        return torch.where(above > below, (below + above) / 2, below)
