"""Dirichlet calibration: an affine map of log-probabilities."""

from __future__ import annotations

from torch import Tensor, nn

from fedlas.calibrators._odir import RegularizedMatrix
from fedlas.calibrators.base import CALIBRATORS

__all__ = ["DirichletCalibration"]


@CALIBRATORS.register(
    "dirichlet",
    title="Dirichlet",
    paper="Beyond Temperature Scaling: Obtaining Well-Calibrated Multiclass Probabilities with Dirichlet Calibration",
    year=2019,
    url="https://arxiv.org/abs/1910.12656",
)
class DirichletCalibration(RegularizedMatrix):
    """An affine map of the log-probabilities, ``W log softmax(z) + b``, with off-diagonal and intercept regularization.

    If the probabilities of each class are Dirichlet distributed, this is the calibrated map; for two classes it is beta
    calibration. ``W`` and ``b`` minimize the objective of :class:`MatrixScaling`, here of ``x = log softmax(z)``.

    Args:
        off_diagonal: Penalty of the weights off the diagonal (the paper's lambda), at least 0. None: chosen.
        intercept: Penalty of the intercepts (the paper's mu), at least 0. None: chosen.
        num_folds: Folds of the cross-validation that chooses, at least 2.

    Raises:
        InputError: For a negative penalty or a ``num_folds`` below 2.

    Note:
        Choice of the penalties, warnings and cost are those of :class:`MatrixScaling`. Log-probabilities come from the
        logits, so none is clipped. The predicted class can change.

    Example:
        >>> from fedlas import Predictions
        >>> val = Predictions([[2.0, 0.0], [2.0, 0.0], [2.0, 0.0], [0.0, 2.0], [0.0, 2.0]], [0, 0, 1, 1, 0])
        >>> shifted = Predictions(val.logits + 7, val.target)
        >>> dirichlet = DirichletCalibration(off_diagonal=1.0, intercept=1.0).fit(val)
        >>> bool((dirichlet.transform(val).probs - dirichlet.transform(shifted).probs).abs().max() < 1e-6)
        True

    Source:
        Kull et al. 2019 (linear parametrization, and ODIR).
    """

    def _inputs(self, logits: Tensor) -> Tensor:
        return logits.double().log_softmax(dim=1)

    def _row_map(self) -> nn.Module:
        return nn.Sequential(nn.LogSoftmax(dim=1), super()._row_map())
