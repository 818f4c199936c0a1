"""Structured matrix and vector scaling: affine maps with penalties that need no tuning."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Literal, get_args

import torch
from torch import Tensor, nn

from fedlas._core.check import check_choice
from fedlas.calibrators._fit.buffers import float64_tensor, ones
from fedlas.calibrators._fit.fit_warnings import attach_warnings, convergence_warning, warning_if
from fedlas.calibrators._fit.rowwise import sample_weights, total_nll, weight_blocks
from fedlas.calibrators._fit.softmax_regression import AffineMap
from fedlas.calibrators._fit.state import require_valid
from fedlas.calibrators.base import CALIBRATORS, Calibrator
from fedlas.predictions.tensors import log_softmax

if TYPE_CHECKING:
    from fedlas.predictions import Predictions

__all__ = ["StructuredMap", "StructuredScaling"]

Form = Literal["matrix", "vector"]

_MIN_MATRIX_SAMPLES = 50
"""Fewest validation samples per class for the matrix. On the 20 published vision cells of CalArena (2605.30188) its NLL
is below that of the vector in 17 of the 19 cells with 50 or more, and above it in the one with 14."""
_MAX_MATRIX_CLASSES = 200
"""Most classes for the matrix: with more, fitting ``C^2`` parameters takes minutes."""

# Floor of log-probabilities: the log of the smallest normal float32, as in the published package.
MIN_LOG_PROB = math.log(torch.finfo(torch.float32).tiny)


class StructuredMap(AffineMap):
    """Temperature scaling, smoothing with uniform probability, and an affine map of the log-probabilities.

    Attributes:
        temperature: Above 0 ``()``.
        num_samples: ``N`` of the validation set ``()``; the uniform part has the weight ``1 / (N + 1)``.
        is_held: Whether few mistakes or a bound limit the temperature; subsets then keep the temperature too.
    """

    temperature: Tensor
    num_samples: Tensor

    def __init__(
        self,
        weight: Tensor,
        bias: Tensor,
        temperature: Tensor,
        num_samples: Tensor,
        is_held: bool = False,
    ) -> None:
        super().__init__(weight, bias)
        self.register_buffer("temperature", temperature)
        self.register_buffer("num_samples", num_samples)
        self.is_held = is_held

    def inputs(self, log_probs: Tensor) -> Tensor:
        """Return the inputs of the affine map for log-probabilities ``(n, C)``, floored at ``MIN_LOG_PROB``."""
        tempered = log_softmax(log_probs / self.temperature)
        uniform = 1 / (self.num_samples + 1)
        return torch.log((1 - uniform) * tempered.exp() + uniform / log_probs.shape[1])

    def forward(self, rows: Tensor) -> Tensor:
        """Return calibrated logits for logits ``(n, C)``."""
        return super().forward(self.inputs(log_softmax(rows).clamp(min=MIN_LOG_PROB)))

    def check(self, classes: int) -> None:
        """Raise ValueError for wrong shapes, or a temperature or sample count that is not above 0."""
        super().check(classes)
        for name in ("temperature", "num_samples"):
            number = getattr(self, name)
            require_valid(number.ndim == 0 and float(number) > 0, f"{name} must be above 0")


@CALIBRATORS.register(
    "structured",
    paper="Structured Matrix Scaling for Multi-Class Calibration",
    year=2025,
    url="https://arxiv.org/abs/2511.03685",
)
class StructuredScaling(Calibrator):
    """Structured matrix or vector scaling: a penalized affine map of temperature-scaled log-probabilities.

    ``softmax(W x + b)`` with ``x = log((1 - u) softmax(z / T) + u / C)``, ``u = 1 / (N + 1)``. ``T`` comes first, from
    temperature scaling; then ``W`` and ``b`` minimize ``NLL + C/N sum_k (W_kk - 1)^2 + C (C - 1)/N sum_{j != k} W_jk^2
    + C/N sum_k b_k^2``, a convex problem, by Newton's method. These penalties are fixed in advance, without a search.

    Args:
        form: ``"matrix"`` (structured matrix scaling, SMS) or ``"vector"`` (structured vector scaling, SVS: ``W`` is
            diagonal). None: the matrix for at least 50 validation samples a class and at most 200 classes, else the
            vector.

    Raises:
        InputError: For another form.

    Note:
        ``N`` is the sum of the weights if samples have any. Log-probabilities below -87.3 are raised to that. A prior
        with the weight of one hundredth of an observation is added to the penalties.

        The predicted class can change. Warns (:class:`CalibrationWarning`) when few mistakes hold ``T``, when the
        negative log-likelihood on validation data is not below what it was, when a class has no sample, and when the
        fit changes nothing.

    Example:
        >>> StructuredScaling(form="vector")  # .fit(val).transform(test), like any other
        StructuredScaling(form='vector')

    Source:
        Berta, Holzmüller, Jordan and Bach 2025.
    """

    map_type = StructuredMap

    def __init__(self, form: Form | None = None) -> None:
        self.form = None if form is None else check_choice("form", form, get_args(Form))

    def fit_map(self, val: Predictions, start: nn.Module | None = None) -> StructuredMap:
        """Fit temperature and affine map to ``val``."""
        from fedlas.calibrators._fit.temperature_search import nll_temperature

        best = nll_temperature(val)
        weights = sample_weights(val).unsqueeze(0)
        form = self.form or choose_form(float(weights.sum()), val.num_classes)
        (row_map,) = self._fit_regressions(
            val, weights, float64_tensor(best.value).unsqueeze(0), form
        )
        row_map.is_held = best.warning is not None
        is_worse = val.num_classes > 1 and total_nll(val, row_map) >= total_nll(
            val, lambda rows: rows
        )
        advice = "Choose temperature scaling, or use a larger validation set."
        return attach_warnings(
            row_map,
            best.warning,
            convergence_warning(row_map.converged),
            warning_if(is_worse, f"the validation NLL is not lower than before the fit. {advice}"),
        )

    def fit_subsets(self, val: Predictions, subset_weights: Tensor, start: Any) -> list[nn.Module]:
        """Return one map per weighted subset; all are fitted at once, from the map of all samples."""
        from fedlas.calibrators._fit.temperature_search import subset_temperatures

        form: Form = "matrix" if start.weight.ndim == 2 else "vector"
        return [
            each
            for block in weight_blocks(subset_weights, val.tensors().logits)
            for each in self._fit_regressions(
                val, block, subset_temperatures(val, block, start), form, start
            )
        ]

    def _fit_regressions(
        self,
        val: Predictions,
        subset_weights: Tensor,
        temperatures: Tensor,
        form: Form,
        warm_start: AffineMap | None = None,
    ) -> list[StructuredMap]:
        """Return one map per weighted subset of ``val``; weights are ``(F, N)``."""
        from fedlas.calibrators._fit.softmax_regression import Penalties, SoftmaxRegression

        classes = val.num_classes
        totals = subset_weights.sum(dim=1)
        identity = ones(classes)
        weight = identity if form == "vector" else identity.diag()
        maps = [
            StructuredMap(weight, 0 * identity, temperature.clone(), total)
            for temperature, total in zip(temperatures, totals.round(), strict=True)
        ]
        if classes == 1:
            return maps
        log_probs = log_softmax(val.tensors().logits.double()).clamp(min=MIN_LOG_PROB)
        off_diagonal = (classes * (classes - 1)) ** 2 / totals
        regression = SoftmaxRegression(
            torch.stack([each.inputs(log_probs) for each in maps]),
            val.tensors().target,
            subset_weights,
            Penalties(off_diagonal, classes * classes / totals),
            diagonal=form == "vector",
            scale=1.0,
            diagonal_penalty=classes / totals,
        )
        affine = regression.solve(warm_start, tolerance=1e-8 if warm_start is None else 1e-3)
        for number, each in enumerate(maps):
            each.weight = affine.weight[number]
            each.bias = affine.bias[number]
            each.converged = affine.converged
        return maps


def choose_form(samples: float, classes: int) -> Form:
    """Return "matrix" or "vector", by the numbers of validation samples and classes.

    Example:
        >>> choose_form(5000, 10), choose_form(2897, 200), choose_form(50_000, 1000)
        ('matrix', 'vector', 'vector')
    """
    return (
        "matrix"
        if classes <= _MAX_MATRIX_CLASSES and samples >= _MIN_MATRIX_SAMPLES * classes
        else "vector"
    )
