"""Bias-corrected temperature scaling (BCTS): one factor for all logits, and an offset per class."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from fedlas._core.check import check_number
from fedlas.calibrators._fit.softmax_regression import DiagonalMap, fit_bias_corrected_temperature
from fedlas.calibrators.affine import (
    AffineCalibrator,
    AffineFit,
    Start,
    select_subset,
    subset_starts,
)
from fedlas.calibrators.base import CALIBRATORS

if TYPE_CHECKING:
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
    """Bias-corrected temperature scaling (BCTS): divides all logits by T and adds an offset per class, ``z / T + b``.

    ``T`` and ``b (C,)`` minimize the negative log-likelihood on validation predictions, a convex problem, by Newton's
    method in float64. With it the mean probability of each class is its share of the labels: what predictions of rare
    classes need, at ``C + 1`` parameters.

    Args:
        prior: The ridge penalty of the offsets is this number over ``N``, above 0; None: ``C / N``, as in structured
            scaling.

    Raises:
        InputError: For a prior that is not above 0.

    Note:
        The penalty keeps a class without samples finite; the paper has none. The predicted class can change. Warns
        (:class:`CalibrationWarning`) as :class:`VectorScaling`.

    Example:
        >>> from fedlas import Predictions
        >>> val = Predictions(60 * [[1.0, 0.0]] + 60 * [[0.0, 1.0]], (50 * [0] + 10 * [1]) + (30 * [0] + 30 * [1]))
        >>> calibrated = BiasCorrectedTemperature().fit(val).transform(val)
        >>> [round(float(p), 2) for p in calibrated.probs[[0, 60], 0]]  # the observed shares: 5 of 6, and 1 of 2
        [0.82, 0.49]

    Source:
        Alexandari, Kundaje and Shrikumar 2020 (ICML), section 3.
    """

    map_type = DiagonalMap
    enough = (100, 0)

    def __init__(self, prior: float | None = None) -> None:
        self.prior = None if prior is None else check_number("prior", prior, low=0, low_open=True)

    def fit_subsets(self, val: Predictions, subset_weights: Tensor, start: Any) -> list[nn.Module]:
        """Return one map per weighted subset of the samples; the fits start from the map of all samples."""
        return [
            fit_bias_corrected_temperature(
                *select_subset(val, weights),
                scale=near.scale,
                width=near.width,
                prior=self.prior or float(val.num_classes),
                warm_start=start,
            )
            for weights, near in zip(
                subset_weights, subset_starts(val, subset_weights), strict=True
            )
        ]

    def _fit_regression(self, inputs: Tensor, val: Predictions, start: Start) -> AffineFit:
        fit = fit_bias_corrected_temperature(
            inputs,
            val.tensors().target,
            val.tensors().weights,
            scale=start.scale,
            width=start.width,
            prior=self.prior or float(val.num_classes),
        )
        return AffineFit(fit, start.warning)
