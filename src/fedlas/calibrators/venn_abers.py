"""Venn-ABERS calibration: two probabilities per event, one of which is calibrated."""

from __future__ import annotations

from typing import ClassVar, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fedlas._core.check import InputError
from fedlas.calibrators._fit.buffers import BufferModule
from fedlas.calibrators._fit.one_vs_rest import (
    class_prob_columns,
    count_edges_below,
    log_with_floor,
    pad_columns,
    pad_edges,
)
from fedlas.calibrators._fit.rowwise import floor_log_probs, sample_weights, to_predictions
from fedlas.calibrators._fit.state import require_valid
from fedlas.calibrators.base import CALIBRATORS, Calibrator
from fedlas.predictions import Predictions, TopLabel
from fedlas.predictions.any_predictions import require_predictions
from fedlas.predictions.tensors import softmax

__all__ = ["VennAbers", "VennCurves"]

_MIN_PROB = 1e-12
Curve = tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]
"""Ascending probabilities of the validation samples ``(K,)``, and ``p0`` and ``p1`` between them ``(K + 1,)``."""


class VennCurves(BufferModule):
    """Step functions ``p0`` and ``p1`` of the probability of each class; float64.

    Attributes:
        size: Number of places of each class where ``p0`` or ``p1`` change ``(C,)``.
        at: The places, class by class, ascending within a class ``(sum of size,)``.
        low: ``p0`` between the places, one value more per class than places.
        high: ``p1`` between the places.
    """

    shapes: ClassVar = {"size": "C", "at": "P", "low": "L", "high": "L"}
    has_steps = True

    def __init__(self, **numbers: Tensor) -> None:
        super().__init__(**numbers)
        steps = self.size + 1
        counts = int(self.size.sum()), int(steps.sum()), int(steps.sum())
        fits = counts == (len(self.at), len(self.low), len(self.high))
        require_valid(
            fits and bool((self.size > 0).all()),
            "each class must have a place, and size must match at, low and high",
        )
        edges = pad_columns(self.at, self.size, torch.inf)
        # A number that equals an edge has the upper p0 and the lower p1.
        shifted_edges = pad_edges(torch.nextafter(edges, torch.zeros_like(edges)))
        derived = {"_edges": pad_edges(edges), "_next": shifted_edges}
        derived |= {
            "_lows": pad_columns(self.low, steps),
            "_highs": pad_columns(self.high, steps),
        }
        for name, column in derived.items():
            self.register_buffer(name, column, persistent=False)

    def probability_bounds(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Return ``p0`` and ``p1`` of each class for logits ``(n, C)``."""
        probs = softmax(rows)
        last = len(self._lows) - 1
        below, at_most = (
            count_edges_below(edges, probs).clamp(max=last) for edges in (self._edges, self._next)
        )
        return self._lows.gather(0, at_most), self._highs.gather(0, below)

    def forward(self, rows: Tensor) -> Tensor:
        """Return calibrated logits for logits ``(n, C)``."""
        low, high = self.probability_bounds(rows)
        return log_with_floor(high / (1 - low + high), _MIN_PROB)

    def check(self, classes: int) -> None:
        """Raise ValueError for wrong shapes, places that do not ascend, or values outside ``0 <= p0 <= p1 <= 1``."""
        super().check(classes)
        ascend = all(bool((each.diff() > 0).all()) for each in self.at.split(self.size.tolist()))
        low, high = self.low, self.high
        within = bool(((low >= 0) & (low <= high) & (high <= 1)).all())
        require_valid(
            ascend and within, "each curve must have ascending places and 0 <= low <= high <= 1"
        )


@CALIBRATORS.register(
    "venn-abers",
    title="Venn-ABERS",
    paper="Large-scale probabilistic predictors with and without guarantees of validity",
    year=2015,
    url="https://arxiv.org/abs/1511.00213",
)
class VennAbers(Calibrator):
    """Venn-ABERS calibration: isotonic regression with the new sample labeled 0 and labeled 1; gives an interval.

    For each class against the rest, ``p0`` and ``p1`` are the values of the isotonic regression of the validation
    samples and the new one, labeled 0 and 1. One of the two is calibrated, whatever the model. ``p1 / (1 - p0 + p1)``
    is the probability; rows are then divided by their sum.

    Note:
        ``p1 - p0`` is wide where validation samples are few. It is no confidence interval of the probability.

        The predicted class can change. Warns (:class:`CalibrationWarning`) when a class has no sample.

    Example:
        >>> val = Predictions([[3.0, 0.0], [2.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, 2.0]], [0, 1, 0, 1, 1])
        >>> VennAbers().fit(val).interval(val)[0].tolist()  # of the second class
        [0.0, 0.5]

    Source:
        Vovk, Petej and Fedorova 2015 (inductive Venn-ABERS predictors, algorithms 1 to 4).
    """

    map_type = VennCurves
    enough = (100, 100)

    def fit_event(self, val: Predictions | TopLabel) -> Self:
        """Fit to one event: the second of two classes, or with more classes "the top label is right".

        Raises:
            InputError: As :meth:`fit`.
        """
        if isinstance(val, Predictions) and val.num_classes > 2:
            val = TopLabel(
                val.tensors().confidence, val.tensors().correct, weights=val.tensors().weights
            )
        return self.fit(val)

    def interval(self, test: Predictions | TopLabel) -> Tensor:
        """Return ``p0`` and ``p1`` of the event, ``(N, 2)`` float64; see :meth:`fit_event` for the event.

        Raises:
            InputError: Before ``fit``; for more than two classes or a top label, unless it was fitted on a top label.
        """
        curves = self.map
        if isinstance(test, Predictions) and self.top_label:
            test = TopLabel(
                test.tensors().confidence, torch.zeros(test.num_samples, dtype=torch.bool)
            )
        predictions = to_predictions(test) if self.top_label else require_predictions(test)
        if predictions.num_classes != 2 or self.num_classes != 2:
            fix = "Fit with fit_event, which uses the top label."
            raise InputError(
                "interval() requires predictions with two classes", predictions.num_classes, fix
            )
        low, high = curves.probability_bounds(
            floor_log_probs(predictions, self.least_log).tensors().logits.double()
        )
        return torch.stack([low[:, 1], high[:, 1]], dim=1)

    def fit_map(self, val: Predictions, start: nn.Module | None = None) -> VennCurves:
        """Fit the step functions to ``val``."""
        target = val.target
        weights = sample_weights(val).numpy()
        columns = class_prob_columns(val.tensors().logits).numpy()
        curves = [
            fit_venn_curve(probs, target == label, weights) for label, probs in enumerate(columns)
        ]
        at, low, high = (
            torch.from_numpy(np.concatenate(part)) for part in zip(*curves, strict=True)
        )
        size = torch.tensor([len(places) for places, _, _ in curves], device="cpu")
        return VennCurves(size=size, at=at, low=low, high=high)


def fit_venn_curve(
    probs: NDArray[np.float64], is_event: NDArray[np.bool_], weights: NDArray[np.float64]
) -> Curve:
    """Return the places where ``p0`` and ``p1`` of one class change, and the values between them."""
    scores, group = np.unique(probs, return_inverse=True)
    size, hits = (
        np.bincount(group, part).astype(np.float64) for part in (weights, weights * is_event)
    )
    upper = np.append(_isotonic_with_event(size, hits), 1.0)
    # The lower one is the upper one of the opposite event, seen from the other side.
    lower = 1 - np.append(_isotonic_with_event(size[::-1], (size - hits)[::-1]), 1.0)[::-1]
    return scores, lower, upper


def _isotonic_with_event(
    size: NDArray[np.float64], hits: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return the isotonic value of an added event of weight 1 before group ``i``, for each group ``(K,)``."""
    # A stack holds the corners of the greatest convex minorant of the cumulative sums, while the added event moves
    # right past one group after the other: all values together take as long as one regression.
    points = [
        (-1.0, -1.0),
        (0.0, 0.0),
        *zip(size.cumsum().tolist(), hits.cumsum().tolist(), strict=True),
    ]
    stack: list[tuple[float, float]] = []
    for point in reversed(points):
        while len(stack) > 1 and not _is_below_line(point, stack[-1], stack[-2]):
            stack.pop()
        stack.append(point)
    values = np.empty(len(size))
    for index in range(len(size)):
        (start, first), (end, second) = stack[-1], stack[-2]
        values[index] = (second - first) / (end - start)
        # Swap the additional event and the group: the corner between them moves.
        (a, b), (c, d), (e, f) = points[index : index + 3]
        new_corner = (a + e - c, b + f - d)
        points[index + 1] = new_corner
        if new_corner[1] >= first + (new_corner[0] - start) * values[index]:
            continue
        stack.pop()
        while len(stack) > 1 and not _is_below_line(new_corner, stack[-1], stack[-2]):
            stack.pop()
        stack.append(new_corner)
    return values


def _is_below_line(
    start: tuple[float, float], middle: tuple[float, float], end: tuple[float, float]
) -> bool:
    """Return whether ``middle`` lies strictly below the line from ``start`` to ``end``."""
    return (middle[1] - start[1]) * (end[0] - start[0]) < (end[1] - start[1]) * (
        middle[0] - start[0]
    )
