"""Spline calibration per class against the rest."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import logsigmoid

from fedlas._core.check import check_count
from fedlas.calibrators._fit.buffers import BufferModule, float64_tensor
from fedlas.calibrators._fit.fit_warnings import attach_warnings, convergence_warning
from fedlas.calibrators._fit.one_vs_rest import fit_one_vs_rest, log_odds
from fedlas.calibrators._fit.rowwise import iter_float64_rows, sample_weights, weight_blocks
from fedlas.calibrators._fit.state import require_valid
from fedlas.calibrators.base import CALIBRATORS, Calibrator

if TYPE_CHECKING:
    from fedlas.predictions import Predictions

__all__ = ["PiecewiseLinearMap", "SplineCalibration"]

_SLOPE_RIDGE = 1e-3
_BEND_RIDGE = 1.0
"""Ridges of slope and offset, and of the changes of slope at the knots, in observations."""


class PiecewiseLinearMap(BufferModule):
    """Continuous piecewise linear functions of the log-odds of each class, as ``log sigmoid``.

    Attributes:
        knots: Where the function of each class bends ``(C, K)``, float64.
        numbers: Slope, ``K`` changes of the slope, and offset ``(C, K + 2)``, float64.
    """

    shapes: ClassVar = {"knots": "CK", "numbers": "CN"}

    def features(self, rows: Tensor) -> Tensor:
        """Return log-odds and hinge features ``max(0, s - knot)``, ``(n, C, K + 1)``."""
        odds = log_odds(rows).unsqueeze(2)
        return torch.cat([odds, (odds - self.knots).clamp(min=0)], dim=2)

    def forward(self, rows: Tensor) -> Tensor:
        """Return calibrated logits for logits ``(n, C)``; their softmax divides the sigmoids by their sum."""
        odds = log_odds(rows)
        slope, *bends, offset = self.numbers.unbind(dim=1)
        total = odds * slope + offset
        # Knot by knot: an array of all of them is slower to fill than to sum.
        for knot, bend in zip(self.knots.unbind(dim=1), bends, strict=True):
            total = total + (odds - knot).clamp(min=0) * bend
        return logsigmoid(total)

    def check(self, classes: int) -> None:
        """Raise ValueError for wrong shapes."""
        super().check(classes)
        require_valid(
            self.numbers.shape[1] == self.knots.shape[1] + 2,
            "numbers must have two columns more than knots",
        )


@CALIBRATORS.register(
    "spline",
    paper="Spline-Based Probability Calibration",
    year=2018,
    url="https://arxiv.org/abs/1809.07751",
)
class SplineCalibration(Calibrator):
    """Spline calibration: logistic regression on a linear spline of the log-odds of each class against the rest.

    The calibrated log-odds of class ``k`` are a continuous, piecewise linear function of the given ones; rows are then
    divided by their sum. The knots lie at quantiles of the validation samples.

    Args:
        num_knots: Bends of each curve, at least 1.

    Raises:
        InputError: For a ``num_knots`` below 1.

    Note:
        A ridge penalty with the weight of one observation pulls the bends to 0, and a weaker one the rest to "as
        predicted". The paper has cubic splines and chooses the penalty by cross-validation; linear pieces are cheaper,
        and do not swing beyond the last knot.

        The predicted class can change. Warns (:class:`CalibrationWarning`) when a class has no sample, when the fit
        changes nothing, and when it did not converge.

    Example:
        >>> from fedlas import Predictions
        >>> logits = 40 * [[0.0, 2.0], [2.0, 0.0]]
        >>> val = Predictions(logits, 20 * [1, 0, 1, 0] )
        >>> [round(float(p), 2) for p in SplineCalibration().fit(val).transform(val).confidence[:2]]
        [1.0, 1.0]

    Source:
        Lucena 2018 (logistic regression on a spline basis of the score).
    """

    map_type = PiecewiseLinearMap
    enough = (100, 100)

    def __init__(self, num_knots: int = 6) -> None:
        self.num_knots = check_count("num_knots", num_knots)

    def fit_map(self, val: Predictions, start: nn.Module | None = None) -> PiecewiseLinearMap:
        """Fit the curves to ``val``."""
        weights = sample_weights(val)
        knots = self._fit_knots(val, weights)
        numbers, converged = self._fit_numbers(val, weights, knots)
        return attach_warnings(
            PiecewiseLinearMap(knots=knots, numbers=numbers), convergence_warning(converged)
        )

    def fit_subsets(self, val: Predictions, subset_weights: Tensor, start: Any) -> list[nn.Module]:
        """Return one map per weighted subset, with the knots of the map of all samples."""
        return [
            PiecewiseLinearMap(knots=start.knots, numbers=each)
            for block in weight_blocks(subset_weights, val.tensors().logits)
            for each in self._fit_numbers(val, block, start.knots, start.numbers)[0]
        ]

    def _fit_numbers(
        self, val: Predictions, weights: Tensor, knots: Tensor, start: Tensor | None = None
    ) -> tuple[Tensor, bool]:
        ridge = float64_tensor([_SLOPE_RIDGE, *[_BEND_RIDGE] * self.num_knots, _SLOPE_RIDGE])
        identity = float64_tensor([1.0, *[0.0] * (self.num_knots + 1)])
        shape = PiecewiseLinearMap(knots=knots, numbers=identity.expand(val.num_classes, -1))
        return fit_one_vs_rest(
            val.tensors().logits,
            val.tensors().target,
            shape.features,
            weights,
            ridge=ridge,
            anchor=identity,
            start=start,
        )

    def _fit_knots(self, val: Predictions, weights: Tensor) -> Tensor:
        """Return quantiles of each class's log-odds ``(C, K)``."""
        odds = torch.cat([log_odds(rows) for _, rows in iter_float64_rows(val.tensors().logits)])
        ordered, order = odds.sort(dim=0)
        share = weights[order].cumsum(dim=0)
        at = torch.arange(1, self.num_knots + 1, dtype=torch.float64, device="cpu") / (
            self.num_knots + 1
        )
        index = torch.searchsorted(share.T.contiguous(), (at * share[-1:].T).contiguous()).clamp(
            max=len(odds) - 1
        )
        return ordered.T.gather(1, index)
