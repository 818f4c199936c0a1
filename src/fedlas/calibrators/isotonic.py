"""Isotonic regression of each class against the rest."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fedlas.calibrators._fit.buffers import BufferModule, float64_tensor
from fedlas.calibrators._fit.fit_warnings import attach_warnings, format_classes, warning_if
from fedlas.calibrators._fit.one_vs_rest import (
    class_prob_columns,
    count_edges_below,
    log_with_floor,
    pad_columns,
    pad_edges,
)
from fedlas.calibrators._fit.rowwise import probability_floor, sample_weights
from fedlas.calibrators._fit.state import require_valid
from fedlas.calibrators.base import CALIBRATORS, Calibrator
from fedlas.predictions.tensors import softmax

if TYPE_CHECKING:
    from fedlas.predictions import Predictions

__all__ = ["Curves", "IsotonicCalibration"]


class Curves(BufferModule):
    """Nondecreasing piecewise linear maps of the class probabilities.

    Attributes:
        size: Number of points of each class ``(C,)``.
        at: Probabilities of the points, class by class, ascending within a class ``(sum of size,)``.
        value: Values of the maps at these points.
        floor: Least probability that is returned ``()``.
    """

    shapes: ClassVar = {"size": "C", "at": "P", "value": "P", "floor": ""}
    has_steps = True

    def __init__(self, **numbers: Tensor) -> None:
        super().__init__(**numbers)
        fits = (self.size > 0).all() and self.size.sum() == len(self.at) == len(self.value)
        require_valid(
            fits,
            "each class must have at least one point, and size must sum to the number of points",
        )
        # Columns of one length: a point below all probabilities first, and the last one over and over.
        at = pad_columns(self.at, self.size, torch.inf)
        heights = pad_columns(self.value, self.size)
        at = torch.cat([torch.full_like(at[:1], -1.0), at, torch.full_like(at[:1], torch.inf)])
        heights = torch.cat([heights[:1], heights, heights[-1:]])
        # Points that are infinitely far, or the same, have no slope between them.
        slopes = (heights.diff(dim=0) / at.diff(dim=0)).nan_to_num(posinf=0.0)
        derived = {"_starts": at[:-1], "_heights": heights[:-1], "_slopes": slopes}
        for name, column in {**derived, "_bends": pad_edges(at[1:])}.items():
            self.register_buffer(name, column, persistent=False)

    def forward(self, rows: Tensor) -> Tensor:
        """Return calibrated logits for logits ``(n, C)``."""
        probs = softmax(rows)
        index = count_edges_below(self._bends, probs)
        at, value, slope = (
            column.gather(0, index) for column in (self._starts, self._heights, self._slopes)
        )
        return log_with_floor(value + slope * (probs - at), self.floor)

    def check(self, classes: int) -> None:
        """Raise ValueError for wrong shapes, or curves that fall or leave the range 0 to 1."""
        super().check(classes)
        first = self.size.cumsum(0)[:-1]
        inside = torch.ones(len(self.at) - 1, dtype=torch.bool, device="cpu")
        inside[first - 1] = False
        rises = all(bool((each.diff()[inside] >= 0).all()) for each in (self.at, self.value))
        within = bool(((self.value >= 0) & (self.value <= 1)).all())
        require_valid(rises and within, "each curve must be nondecreasing, with values in [0, 1]")
        require_valid(0 < self.floor <= 1, "floor must be in (0, 1]")


@CALIBRATORS.register(
    "isotonic",
    paper="Transforming classifier scores into accurate multiclass probability estimates",
    year=2002,
    url="https://dl.acm.org/doi/10.1145/775047.775151",
)
class IsotonicCalibration(Calibrator):
    """Isotonic regression of each class against the rest; rows are then divided by their sum.

    For each class ``k`` it minimizes ``sum_i (f_k(p_ik) - 1[y_i = k])^2`` over all maps that do not fall.
    Between the samples ``f_k`` is linear, outside them constant.

    Note:
        A value of 0 becomes ``1 / (C (N + 1))`` with ``N`` validation samples, less than any estimated value, so that
        logits are finite.

        The predicted class can change: each class has its own map, and those have flat parts. Warns
        (:class:`CalibrationWarning`) when the map of a class is constant, when a class has no sample, and when the fit
        changes nothing.
        Memory: one float64 array of the size of the logits.

    Example:
        >>> from fedlas import Predictions
        >>> val = Predictions([[3.0, 0.0], [2.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, 2.0]], [0, 1, 0, 1, 1])
        >>> isotonic = IsotonicCalibration().fit(val).transform(val)
        >>> [round(float(p), 2) for p in isotonic.probs[:, 0]]
        [0.92, 0.5, 0.5, 0.08, 0.08]

    Source:
        Zadrozny and Elkan 2002, sections 3 (isotonic regression) and 4 (one against the rest, division by the sum).
    """

    map_type = Curves
    enough = (100, 250)

    def fit_map(self, val: Predictions, start: nn.Module | None = None) -> Curves:
        """Fit the isotonic curves to ``val``."""
        target = val.target
        weights = sample_weights(val).numpy()
        points = [
            fit_isotonic_curve(probs, target == label, weights)
            for label, probs in enumerate(class_prob_columns(val.tensors().logits).numpy())
        ]
        present = set(target.tolist())
        flat = [
            label
            for label, (_, value) in enumerate(points)
            if label in present and np.ptp(value) == 0
        ]
        text = (
            f"the fitted map of {format_classes(flat)} is constant: the class is not more frequent where its "
            "probability is higher. Check that logits and labels match."
        )
        floor = probability_floor(float(weights.sum()), val.num_classes)
        curves = Curves(
            size=torch.tensor([len(at) for at, _ in points], device="cpu"),
            at=torch.from_numpy(np.concatenate([at for at, _ in points])),
            value=torch.from_numpy(np.concatenate([value for _, value in points])),
            floor=float64_tensor(floor),
        )
        return attach_warnings(curves, warning_if(flat and val.num_classes > 1, text))


def fit_isotonic_curve(
    scores: NDArray[np.float64], is_event: NDArray[np.bool_], weights: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the isotonic regression of an event on scores, as the points at both ends of each step.

    Args:
        scores: ``(N,)``.
        is_event: ``(N,)``.
        weights: ``(N,)``.

    Example:
        >>> at, value = fit_isotonic_curve(np.array([0.1, 0.2, 0.3, 0.4]), np.array([0, 1, 0, 1]) == 1, np.ones(4))
        >>> at.tolist(), value.tolist()
        ([0.1, 0.2, 0.3, 0.4], [0.0, 0.5, 0.5, 1.0])
    """
    from scipy.optimize import isotonic_regression

    values, group = np.unique(scores, return_inverse=True)
    size = np.bincount(group, weights)
    hits = np.bincount(group, weights * is_event)
    steps = isotonic_regression(hits / size, weights=size)
    first, last = steps.blocks[:-1], steps.blocks[1:] - 1
    corners = np.unique(np.concatenate([first, last]))
    return values[corners], steps.x[corners]
