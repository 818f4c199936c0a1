"""Bias-corrected temperature scaling: one divisor of all logits, and an offset for each class."""

from __future__ import annotations

from torch import Tensor

from fedlas.calibrators._affine import AffineCalibrator, Start, read_map
from fedlas.calibrators._fit.affine_map import AffineMap
from fedlas.calibrators._fit.bias_corrected import bias_corrected_temperature
from fedlas.calibrators.base import CALIBRATORS
from fedlas.predictions import Predictions

__all__ = ["BiasCorrectedTemperature"]


@CALIBRATORS.register(
    "bcts",
    title="Bias-corrected temperature",
    paper="Maximum Likelihood with Bias-Corrected Calibration is Hard-To-Beat at Label Shift Adaptation",
    year=2020,
    url="https://arxiv.org/abs/1901.06852",
)
class BiasCorrectedTemperature(AffineCalibrator):
    """Divides all logits by one number and adds an offset for each class (BCTS): ``z / T + b``.

    ``T`` and ``b (C,)`` minimize the negative log-likelihood on validation predictions, a convex problem, by Newton's
    method in float64. With it the mean probability of each class is its share of the labels: what predictions of rare
    classes need, at ``C + 1`` parameters.

    Note:
        A ridge penalty of ``C / N`` on the offsets keeps a class without samples finite, as in structured scaling; the
        paper has none. The predicted class can change. Warns (:class:`CalibrationWarning`) as :class:`VectorScaling`.

    Example:
        >>> val = Predictions(60 * [[1.0, 0.0]] + 60 * [[0.0, 1.0]], (50 * [0] + 10 * [1]) + (30 * [0] + 30 * [1]))
        >>> calibrated = BiasCorrectedTemperature().fit(val).transform(val)
        >>> [round(float(p), 2) for p in calibrated.probs[[0, 60], 0]]  # the observed shares: 5 of 6, and 1 of 2
        [0.82, 0.49]

    Source:
        Alexandari, Kundaje and Shrikumar 2020 (ICML), section 3.
    """

    _diagonal = True

    def _inputs(self, logits: Tensor) -> Tensor:
        return logits

    def _regression(self, inputs: Tensor, val: Predictions, start: Start) -> tuple[AffineMap | None, str | None]:
        fit = bias_corrected_temperature(
            inputs, val.target, val.weights, scale=start.scale, width=start.width, prior=float(val.num_classes)
        )
        return fit, start.doubt

    def _restore(self, state: dict[str, object]) -> None:
        self._map = read_map(state, self.num_classes)
