"""Vector scaling: a factor and an offset for each class."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from fedlas._core.check import InputError, check_count
from fedlas.calibrators._affine import (
    SEPARATED,
    AffineCalibrator,
    Start,
    far_off,
    read_map,
    temperature_start,
    unit_of,
)
from fedlas.calibrators._fit.affine_map import AffineMap
from fedlas.calibrators._fit.doubts import absent_classes, joined, unconverged, when
from fedlas.calibrators._fit.folds import stratified_folds
from fedlas.calibrators._fit.held_out import FREEDOMS, NO_GAIN, HeldOutLoss
from fedlas.calibrators._fit.softmax_regression import FREEDOM, SoftmaxRegression
from fedlas.calibrators._fit.source import Stream, weights_of
from fedlas.calibrators._fit.streamed_regression import StreamedRegression
from fedlas.calibrators.base import CALIBRATORS
from fedlas.calibrators.stream_fit import StreamFit
from fedlas.predictions import Predictions

__all__ = ["VectorScaling"]


@CALIBRATORS.register(
    "vector",
    title="Vector",
    paper="On Calibration of Modern Neural Networks",
    year=2017,
    url="https://arxiv.org/abs/1706.04599",
)
class VectorScaling(StreamFit, AffineCalibrator):
    """Multiplies the logits of each class by a factor of its own and adds an offset: ``diag(w) z + b``.

    ``w (C,)`` and ``b (C,)`` minimize the negative log-likelihood on validation predictions, a convex problem, by
    Newton's method in float64.

    Args:
        num_folds: Folds of the cross-validation that decides how far the parameters may differ from those of
            temperature scaling, at least 2. None: no cross-validation.

    Raises:
        InputError: For a ``num_folds`` below 2.

    Note:
        Not invariant to adding one number to all logits of a row, because ``w`` differs between classes: fit and
        transform must see the raw logits of the same model. The predicted class can change.

        The paper fits without a penalty, and the parameters of rare classes then follow a few samples. Here a Gaussian
        prior around temperature scaling holds them. Its width, 0.03 to 3 times the factor of temperature scaling, has
        the lowest negative log-likelihood of held-out folds. If the gain over temperature scaling is not above its
        standard error on held-out samples, this is temperature scaling. Samples with equal logits are in one fold.
        Without cross-validation the width is 10, which keeps the parameters finite where a class has no sample or the
        labels can be separated, and hardly matters elsewhere.

        Warns (:class:`CalibrationWarning`) when this is temperature scaling, when a factor is negative or over ten
        times that of temperature scaling, when only the prior keeps the parameters finite, when a class has no sample,
        when the fit changes nothing, and when it did not converge. Memory: one float64 array of the size of the logits;
        :meth:`fit_stream` needs none.

    Example:
        >>> val = Predictions([[2.0, 0.0], [2.0, 0.0], [2.0, 0.0], [0.0, 2.0], [0.0, 2.0]], [0, 0, 1, 1, 0])
        >>> scaled = VectorScaling(num_folds=None).fit(val).transform(val)
        >>> [round(float(p), 2) for p in scaled.probs[:, 0]]  # the observed shares: 2 of 3, and 1 of 2
        [0.67, 0.67, 0.67, 0.5, 0.5]

    Source:
        Guo et al. 2017, section 4.2 ("matrix and vector scaling").
    """

    _diagonal = True

    def __init__(self, num_folds: int | None = 5) -> None:
        self.num_folds = None if num_folds is None else check_count(self._owner, "num_folds", num_folds, low=2)

    def _inputs(self, logits: Tensor) -> Tensor:
        return logits

    def _regression(self, inputs: Tensor, val: Predictions, start: Start) -> tuple[AffineMap | None, str | None]:
        def problem(rows: Tensor, target: Tensor, weights: Tensor, freedom: float) -> SoftmaxRegression:
            return SoftmaxRegression(
                rows, target, weights, diagonal=True, scale=start.scale, freedom=freedom, width=start.width
            )

        target, weights = val.target.cpu(), weights_of(val)
        if self.num_folds is None:
            return problem(inputs, target, weights, FREEDOM).solve(), None
        folds = stratified_folds(inputs, target, self.num_folds, weights)
        if int(folds.max()) == 0:
            return None, "all samples are equal, so nothing can be held out, and this is temperature scaling."
        score = HeldOutLoss(inputs, target, folds=folds, weights=weights, problem=problem)
        freedom = score.first_best(FREEDOMS)
        if not score.beats(start.as_map(inputs), freedom):
            return None, NO_GAIN
        return problem(inputs, target, weights, freedom).solve(), None

    def _fit_stream(self, stream: Stream) -> str | None:
        if self.num_folds is not None:
            raise InputError(
                "VectorScaling.fit_stream",
                "num_folds must be None, because cross-validation needs all samples at once",
                self.num_folds,
                "Fit VectorScaling(num_folds=None): on samples that many the folds would change nothing.",
            )
        unit = unit_of(stream.largest)
        start = temperature_start(stream, unit)
        fit = StreamedRegression(stream, unit, scale=start.scale, width=start.width).solve()
        self._map = AffineMap(fit.weight / unit, fit.bias, fit.converged)
        return joined(
            unconverged(fit.converged),
            far_off(stream.count, fit.weight / start.width),
            when(stream.mistakes == 0 and stream.num_classes > 1, SEPARATED),
            absent_classes(stream.count),
        )

    def _restore(self, state: dict[str, Any]) -> None:
        self._map = read_map(state, self.num_classes)
