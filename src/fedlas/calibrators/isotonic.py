"""Isotonic regression, one class against the rest."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fedlas.calibrators._fit.doubts import some, when, with_doubts
from fedlas.calibrators._fit.one_vs_rest import (
    class_columns,
    edges_below,
    floored_log,
    padded_edges,
    smallest_probability,
)
from fedlas.calibrators._fit.parameters import read_numbers
from fedlas.calibrators._fit.rowwise import weights_of
from fedlas.calibrators.base import CALIBRATORS
from fedlas.calibrators.mapped import MappedCalibrator
from fedlas.predictions import Predictions
from fedlas.predictions.probabilities import softmax

__all__ = ["Curves", "IsotonicCalibration"]


class Curves(nn.Module):
    """A rising piecewise linear map of the probability of each class.

    Attributes:
        points: For each class the probabilities where its map bends ``(P_k,)``, ascending, and its values there.
        floor: Least probability that is returned.
    """

    has_steps = True
    _bends: Tensor
    _at: Tensor
    _value: Tensor
    _slope: Tensor

    def __init__(
        self, points: list[tuple[NDArray[np.float64], NDArray[np.float64]]], floor: float
    ) -> None:
        super().__init__()
        self.points = points
        self.floor = floor
        # Columns of one length: a point below all probabilities first, then the last one over and over.
        most = max(len(at) for at, _ in points) + 2
        at = np.empty((most, len(points)))
        value = np.empty((most, len(points)))
        for label, (bends, values) in enumerate(points):
            at[:, label] = np.concatenate([[-1.0], bends, np.full(most - len(bends) - 1, np.inf)])
            value[:, label] = np.concatenate(
                [values[:1], values, np.full(most - len(values) - 1, values[-1])]
            )
        # between points that are infinitely far, or the same
        with np.errstate(invalid="ignore", divide="ignore"):
            slope = np.diff(value, axis=0) / np.diff(at, axis=0)
        for name, column in (
            ("_at", at[:-1]),
            ("_value", value[:-1]),
            ("_slope", np.nan_to_num(slope, posinf=0.0)),
        ):
            self.register_buffer(name, torch.from_numpy(column), persistent=False)
        self.register_buffer("_bends", padded_edges(torch.from_numpy(at[1:])), persistent=False)

    def forward(self, rows: Tensor) -> Tensor:
        """Return calibrated logits of logits ``(n, C)``."""
        probs = softmax(rows)
        index = edges_below(self._bends, probs)
        at, value, slope = (
            column.gather(0, index) for column in (self._at, self._value, self._slope)
        )
        return floored_log(value + slope * (probs - at), self.floor)


@CALIBRATORS.register(
    "isotonic",
    title="Isotonic",
    paper="Transforming classifier scores into accurate multiclass probability estimates",
    year=2002,
    url="https://dl.acm.org/doi/10.1145/775047.775151",
)
class IsotonicCalibration(MappedCalibrator[Curves]):
    """The rising map of each class's probability with the least mean squared error; rows are then divided by their sum.

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
        >>> val = Predictions([[3.0, 0.0], [2.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, 2.0]], [0, 1, 0, 1, 1])
        >>> isotonic = IsotonicCalibration().fit(val).transform(val)
        >>> [round(float(p), 2) for p in isotonic.probs[:, 0]]
        [0.92, 0.5, 0.5, 0.08, 0.08]

    Source:
        Zadrozny and Elkan 2002, sections 3 (isotonic regression) and 4 (one against the rest, division by the sum).
    """

    _fewest_of_a_class = 250

    def fit_map(self, val: Predictions, start: nn.Module | None = None) -> Curves:
        """Return the curves of ``val``."""
        target = val.target.cpu().numpy()
        weights = weights_of(val).numpy()
        points = [
            rising_curve(probs, target == label, weights)
            for label, probs in enumerate(class_columns(val.logits).numpy())
        ]
        present = set(target.tolist())
        flat = [
            label
            for label, (_, value) in enumerate(points)
            if label in present and np.ptp(value) == 0
        ]
        doubt = (
            f"the map of {some(flat)} is constant: a higher probability does not mean that the class is more frequent. "
            "Check that logits and labels belong together."
        )
        floor = smallest_probability(float(weights.sum()), val.num_classes)
        return with_doubts(Curves(points, floor), when(flat and val.num_classes > 1, doubt))

    def _state(self) -> dict[str, Any]:
        points = [{"at": at.tolist(), "value": value.tolist()} for at, value in self.map.points]
        return {"points": points, "floor": self.map.floor}

    def _restore(self, state: dict[str, Any]) -> None:
        points = []
        for curve in state["points"]:
            at = read_numbers(curve, "at", None).numpy()
            value = read_numbers(curve, "value", len(at)).numpy()
            if (
                len(at) == 0
                or (np.diff(at) < 0).any()
                or (np.diff(value) < 0).any()
                or value[0] < 0
                or value[-1] > 1
            ):
                raise ValueError("each curve must rise, from 0 at the least to 1 at the most")
            points.append((at, value))
        floor = float(read_numbers(state, "floor"))
        if len(points) != self.num_classes or not 0 < floor <= 1:
            raise ValueError(
                f"there must be {self.num_classes} curves, and a floor that is a probability"
            )
        self._map = Curves(points, floor)


def rising_curve(
    at: NDArray[np.float64], event: NDArray[np.bool_], weights: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the rising step curve with the lowest squared error, as the points at both ends of each step.

    Args:
        at: ``(N,)``.
        event: ``(N,)``.
        weights: ``(N,)``.

    Example:
        >>> at, value = rising_curve(np.array([0.1, 0.2, 0.3, 0.4]), np.array([0, 1, 0, 1]) == 1, np.ones(4))
        >>> at.tolist(), value.tolist()
        ([0.1, 0.2, 0.3, 0.4], [0.0, 0.5, 0.5, 1.0])
    """
    place, group = np.unique(at, return_inverse=True)
    size = np.bincount(group, weights)
    hits = np.bincount(group, weights * event)
    first = np.arange(len(place))
    # Neighbors that fall belong to one step. All of them are pooled at once, until no step falls.
    while len(size) > 1:
        share = hits / size
        keep = np.concatenate([[True], share[1:] > share[:-1]])
        if keep.all():
            break
        start = np.flatnonzero(keep)
        size = np.add.reduceat(size, start)
        hits = np.add.reduceat(hits, start)
        first = first[start]
    last = np.append(first[1:], len(place)) - 1
    both = np.unique(np.concatenate([first, last]))
    return place[both], (hits / size)[np.searchsorted(first, both, side="right") - 1]
