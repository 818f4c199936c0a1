"""Vector scaling: a factor and an offset for each class."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from fedlas.calibrators._affine import AffineCalibrator, read_map
from fedlas.calibrators._fit.affine_map import AffineMap
from fedlas.calibrators._fit.softmax_regression import SoftmaxRegression
from fedlas.calibrators.base import CALIBRATORS
from fedlas.predictions import Predictions

__all__ = ["VectorScaling"]


@CALIBRATORS.register(
    "vector",
    title="Vector",
    paper="On Calibration of Modern Neural Networks",
    year=2017,
    url="https://arxiv.org/abs/1706.04599",
)
class VectorScaling(AffineCalibrator):
    """Multiplies the logits of each class by a factor of its own and adds an offset: ``diag(w) z + b``.

    ``w (C,)`` and ``b (C,)`` minimize the negative log-likelihood on validation predictions, a convex problem, by
    Newton's method in float64.

    Note:
        Not invariant to adding one number to all logits of a row, because ``w`` differs between classes: fit and
        transform must see the raw logits of the same model. The predicted class can change.

        The paper fits without a penalty. There is then no minimum where a class has no sample or the labels can be
        separated. Here a penalty with the weight of one observation keeps the parameters finite, near those of
        temperature scaling.

        Warns (:class:`CalibrationWarning`) when only that penalty keeps the parameters finite, when the fit changes
        nothing, and when it did not converge. Memory: one float64 array of the size of the logits.

    Example:
        >>> val = Predictions([[2.0, 0.0], [2.0, 0.0], [2.0, 0.0], [0.0, 2.0], [0.0, 2.0]], [0, 0, 1, 1, 0])
        >>> scaled = VectorScaling().fit(val).transform(val)
        >>> [round(float(p), 2) for p in scaled.probs[:, 0]]  # the observed shares: 2 of 3, and 1 of 2
        [0.67, 0.67, 0.67, 0.5, 0.5]

    Source:
        Guo et al. 2017, section 4.2 ("matrix and vector scaling").
    """

    def _inputs(self, logits: Tensor) -> Tensor:
        return logits

    def _regression(self, inputs: Tensor, val: Predictions, scale: float) -> tuple[AffineMap, str | None]:
        return SoftmaxRegression(inputs, val.target, diagonal=True, scale=scale).solve(), None

    def _restore(self, state: dict[str, Any]) -> None:
        self._map = read_map(state, self.num_classes)
