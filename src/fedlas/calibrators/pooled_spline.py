"""Spline calibration per class against the rest, with curves drawn from a common, estimated distribution."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import logsigmoid

from fedlas.calibrators._fit.buffers import BufferModule, float64_tensor
from fedlas.calibrators._fit.one_vs_rest import class_rest_log_probs
from fedlas.calibrators._fit.pooled_splines import (
    IDENTITY_CURVE,
    PooledFit,
    curve_basis,
    curve_knots,
    fit_pooled_splines,
    stable_softplus,
)
from fedlas.calibrators._fit.rowwise import iter_float64_rows, sample_weights
from fedlas.calibrators._fit.state import require_valid
from fedlas.calibrators.base import CALIBRATORS, Calibrator

if TYPE_CHECKING:
    from fedlas.predictions import Predictions

__all__ = ["PooledSplineCalibration", "PooledSplines"]

_ROUNDS = 8
_SUBSET_ROUNDS = 3
"""EM rounds, starting from the identity and from the fit of all samples."""


class PooledSplines(BufferModule):
    """Smooth one-vs-rest curves of class probabilities as ``log sigmoid``, with the distribution they are drawn from.

    Attributes:
        knots: Log-odds at which all curves bend ``(K,)``, float64.
        width: Log-odds over which they bend ``()``, float64.
        numbers: ``a``, ``b``, ``c`` and a factor for each bend ``(C, 3 + K)``, float64: see
            :class:`PooledSplineCalibration`.
        mean: Mean of the distribution ``(3 + K,)``.
        covariance: Covariance of the distribution ``(3 + K, 3 + K)``.
    """

    shapes: ClassVar = {"knots": "K", "width": "", "numbers": "CP", "mean": "P", "covariance": "PP"}

    def forward(self, rows: Tensor) -> Tensor:
        """Return calibrated logits for logits ``(n, C)``; their softmax divides the sigmoids by their sum."""
        log_p, rest = class_rest_log_probs(rows)
        odds = log_p - rest
        a, b, c, *bends = self.numbers.unbind(dim=1)
        total = log_p * a - rest * b + c
        for knot, bend in zip(self.knots.unbind(), bends, strict=True):
            total = total + self.width * stable_softplus((odds - knot) / self.width) * bend
        return logsigmoid(total)

    def check(self, classes: int) -> None:
        """Raise ValueError for wrong shapes, or a width that is not above 0."""
        super().check(classes)
        require_valid(
            self.numbers.shape[1] == len(self.knots) + 3,
            "numbers must have three columns more than there are knots",
        )
        require_valid(self.width > 0, "width must be above 0")


@CALIBRATORS.register(
    "pooled-spline",
    paper="Bayes Estimates for the Linear Model",
    year=1972,
    url="https://doi.org/10.1111/j.2517-6161.1972.tb00885.x",
)
class PooledSplineCalibration(Calibrator):
    """Smooth curve per class against the rest, partially pooled: drawn from a common, estimated distribution.

    The log-odds of class ``k`` become ``a_k ln p_k - b_k ln(1 - p_k) + c_k + sum_j d_kj w softplus((s_k - t_j) / w)``,
    where ``s_k`` are the log-odds of ``p_k`` and the three knots ``t_j`` are quantiles of those of the labels; rows are
    then divided by their sum. The six numbers of a class come from one normal distribution. Its mean and covariance are
    estimated from all classes by expectation and maximization, and each class gets the mode of its posterior: one with
    many samples keeps its own curve, one with few has nearly the common one.

    From 20 classes on it is a member of ``auto``.

    Note:
        A class without a sample has the common curve, as far as samples of others do not pull it down. Eight rounds, in
        each of which Newton's method fits all classes at once; the posterior is approximated by a normal one. The
        predicted class can change, and a curve may fall in places.

        Warns (:class:`CalibrationWarning`) when a class has no sample, and when the fit changes nothing.

    Example:
        >>> from fedlas import Predictions
        >>> random = torch.Generator().manual_seed(0)
        >>> logits = torch.randn(400, 30, generator=random, dtype=torch.float64)
        >>> target = torch.multinomial((2 * logits).softmax(1), 1, generator=random).squeeze(1)
        >>> val = Predictions(6 * logits, target)  # three times too sure
        >>> a, b = PooledSplineCalibration().fit(val).map.mean[:2].tolist()
        >>> 0 < a < 0.6
        True

    Source:
        Lindley and Smith 1972 (exchangeable regressions); the terms: Kull, Silva Filho and Flach 2017, and bends.
    """

    map_type = PooledSplines

    def fit_map(self, val: Predictions, start: nn.Module | None = None) -> PooledSplines:
        """Fit the curves to ``val``."""
        log_p, rest, labels = _class_log_probs(val)
        weights = sample_weights(val)
        is_label = labels > 0
        odds = (log_p - rest)[is_label]
        knots, width = curve_knots(odds, weights.expand_as(labels)[is_label])
        basis = curve_basis(log_p, rest, knots, width)
        fit = fit_pooled_splines(
            basis, labels, weights.unsqueeze(0), float64_tensor(IDENTITY_CURVE), most_rounds=_ROUNDS
        )
        return _build_map(fit, knots, width)

    def fit_subsets(self, val: Predictions, subset_weights: Tensor, start: Any) -> list[nn.Module]:
        """Return one map per weighted subset, with the knots and the start of the map of all samples."""
        log_p, rest, labels = _class_log_probs(val)
        basis = curve_basis(log_p, rest, start.knots, start.width)
        first_fit = PooledFit(start.numbers, start.mean, start.covariance)
        return [
            _build_map(
                fit_pooled_splines(
                    basis,
                    labels,
                    part.unsqueeze(0),
                    float64_tensor(IDENTITY_CURVE),
                    start=first_fit,
                    most_rounds=_SUBSET_ROUNDS,
                ),
                start.knots,
                start.width,
            )
            for part in subset_weights
        ]


def _class_log_probs(val: Predictions) -> tuple[Tensor, Tensor, Tensor]:
    """Return ``log p``, ``log(1 - p)`` and the one-hot labels of all samples, each ``(C, N)``."""
    parts = [class_rest_log_probs(rows) for _, rows in iter_float64_rows(val.tensors().logits)]
    log_p, rest = (torch.cat(each).T.contiguous() for each in zip(*parts, strict=True))
    classes = torch.arange(val.num_classes, device="cpu").unsqueeze(1)
    return log_p, rest, (val.tensors().target == classes).double()


def _build_map(fit: PooledFit, knots: Tensor, width: Tensor) -> PooledSplines:
    return PooledSplines(
        knots=knots, width=width, numbers=fit.curves, mean=fit.mean, covariance=fit.covariance
    )
