"""Vector scaling: a factor and an offset for each class."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from fedlas.calibrators.affine import AffineCalibrator, AffineMap, read_map
from fedlas.calibrators.base import CALIBRATORS
from fedlas.calibrators.softmax_regression import fit_softmax_regression
from fedlas.predictions import Predictions


@CALIBRATORS.register(
    "vector",
    title="Vector",
    paper="On Calibration of Modern Neural Networks",
    year=2017,
    url="https://arxiv.org/abs/1706.04599",
)
class VectorScaling(AffineCalibrator):
    """Multiplies the logits of each class by a number of its own and adds another: ``diag(w) z + b``.

    ``w (C,)`` and ``b (C,)`` minimise the negative log-likelihood on validation predictions, a convex problem, by
    Newton's method in float64.

    Note:
        Not invariant to adding one number to all logits of a row, because ``w`` differs between classes: fit and
        transform must see logits as they came out of the same model. The predicted class can change.

        The paper fits without a penalty, and so without a minimum where a class has no sample or the labels can be
        separated. Here a hold with the weight of one observation keeps the parameters finite, near those of temperature
        scaling; see :class:`~fedlas.calibrators.softmax_regression.SoftmaxRegression`.

        Warns (:class:`CalibrationWarning`) when only that hold keeps the parameters finite, when the fit changes
        nothing, and when it did not converge. Memory: one float64 array of the size of the logits.

    Example:
        >>> val = Predictions([[2.0, 0.0], [2.0, 0.0], [2.0, 0.0], [0.0, 2.0], [0.0, 2.0]], [0, 0, 1, 1, 0])
        >>> scaled = VectorScaling().fit(val).transform(val)
        >>> [round(float(p), 2) for p in scaled.probs[:, 0]]  # what happened: 2 of 3, and 1 of 2
        [0.67, 0.67, 0.67, 0.5, 0.5]

    Source:
        Guo et al. 2017, section 4.2 ("matrix and vector scaling").
    """

    def __repr__(self) -> str:
        return "VectorScaling()"

    def _inputs(self, logits: Tensor) -> Tensor:
        return logits

    def _fitted_map(self, inputs: Tensor, val: Predictions, scale: float) -> tuple[AffineMap, str | None]:
        return fit_softmax_regression(inputs, val.target, diagonal=True, scale=scale), None

    def _options(self) -> dict[str, Any]:
        return {}

    def _restore(self, state: dict[str, Any]) -> None:
        self._map = read_map(state, self.num_classes)
