"""Feature clipping: large features are clipped before the classifier head."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from fedlas._core.check import InputError, check_finite, describe
from fedlas._core.kinds import check_argument_types
from fedlas.calibrators._fit.buffers import BufferModule, float64_tensor, zeros
from fedlas.calibrators._fit.fit_warnings import (
    accuracy_drop_warning,
    attach_warnings,
    bound_warning,
    warning_if,
)
from fedlas.calibrators._fit.minimize import golden_section
from fedlas.calibrators._fit.rowwise import iter_float64_rows
from fedlas.calibrators._fit.state import require_valid
from fedlas.calibrators._fit.temperature_search import BestTemperature, nll_temperature
from fedlas.calibrators.base import CALIBRATORS, Calibrator
from fedlas.predictions import Predictions

__all__ = ["FeatureClipping"]

# Size of the search grid: this many quantiles of the features, and as many even steps.
_GRID = 32
# Error of the threshold as a share of the largest feature. The NLL is flat at its minimum: a smaller error would follow
# rounding.
_TOLERANCE = 1e-7
_LABEL_ADVICE = (
    "Check that features and labels match, and that the validation set is not training data."
)
_ACCURACY_ADVICE = (
    "clipping lowers the confidence at the cost of correct predictions. Use temperature scaling, or a larger "
    "threshold inside the model."
)


# Largest distance of a row of logits from the head's, as a share of the spread of the rows. bfloat16 in the head causes
# up to 0.02; a head that is not linear causes far more.
_MAX_MISFIT = 0.05
# Rounding of float32 logits with a large offset, as a share of the largest.
_ROUNDING = 1e-6
# Features that vary by less than this share of the widest direction vary by the rounding of float32.
_MIN_SPREAD = 1e-6


@dataclass(frozen=True, eq=False)
class LinearHead:
    """Linear head ``z = W h + b``, centered over classes: a constant per row cancels in the softmax.

    Attributes:
        weight: ``W (C, D)``, float64.
        bias: ``b (C,)``, float64.
        scale: Root mean square distance of the logits from their mean, plus rounding: the unit of the misfit.
        num_undetermined: Count of feature directions without variation, in which the weight is unknown.
    """

    weight: Tensor
    bias: Tensor
    scale: float
    num_undetermined: int = 0

    def check(self, features: Tensor, logits: Tensor, fix: str) -> None:
        """Raise InputError if the logits are not the output of the head for the features.

        Raises:
            InputError: If a row is off by more than 0.05 of the spread of the logits.
        """
        misfit = 0.0
        unit = max(self.scale, sys.float_info.min)
        for part, rows in iter_float64_rows(features):
            expected = rows @ self.weight.T + self.bias
            misfit = max(
                misfit, float(((_center_rows(logits[part]) - expected) / unit).norm(dim=1).max())
            )
        if not misfit <= _MAX_MISFIT:
            raise InputError(
                "logits must be the output of one linear head on the features, in validation and test",
                f"a row that differs by {misfit:.2g} times the spread of the logits",
                fix,
            )


class Clipped(BufferModule):
    """Map of feature clipping: logits recomputed from clipped features, divided by the temperature.

    Attributes:
        weight: Weight of the head ``(C, D)``.
        bias: Bias of the head ``(C,)``.
        scale: Unit of misfits of the head ``()``.
        threshold: ``c ()``.
        temperature: ``()``.
    """

    shapes: ClassVar = {
        "weight": "CD",
        "bias": "C",
        "scale": "",
        "threshold": "",
        "temperature": "",
    }

    def forward(self, rows: Tensor, features: Tensor) -> Tensor:
        """Return calibrated logits for logits ``(n, C)`` and features ``(n, D)``."""
        removed = features - features.clamp(-self.threshold, self.threshold)
        return (rows - removed @ self.weight.T) / self.temperature

    def check(self, classes: int) -> None:
        """Raise ValueError for wrong shapes, or a negative scale, threshold or temperature."""
        super().check(classes)
        fits = self.scale >= 0 and self.threshold >= 0 and self.temperature > 0
        require_valid(fits, "scale and threshold must be at least 0, and temperature above 0")


@CALIBRATORS.register(
    "feature-clipping",
    paper="Feature Clipping for Uncertainty Calibration",
    year=2025,
    url="https://arxiv.org/abs/2410.19796",
)
class FeatureClipping(Calibrator):
    """Clips features to ``[-c, c]`` and recomputes the logits with the classifier head: ``W clip(h, -c, c) + b``.

    Over-confident errors have larger features than confident correct predictions, so clipping reduces their confidence
    more. ``c`` minimizes the negative log-likelihood on validation predictions.

    Args:
        head: The layer that made the logits: an ``nn.Linear``, or ``(weight (C, D), bias (C,) or None)``. None: it is
            recovered from features and logits by least squares.
        temperature: Whether to divide the new logits by a temperature that is fitted together with ``c``. The
            validation NLL is then at most that of temperature scaling.

    Raises:
        InputError: For a head that is not linear or does not fit the predictions.

    Note:
        Fit and transform check each row: the head must make the logits from the features up to 0.05 of the spread of
        the logits. Otherwise the head is not linear, or there are too few validation samples to recover it from (about
        as many as features are needed); then pass ``head``. Only the change by clipping is added to the given logits,
        so a sample without large features keeps them to the last bit. A :meth:`module` does not check.

        ``c`` is searched in float64 on 64 values between 0 and the largest feature, then by golden section between the
        neighbors of the best. The NLL is not convex in ``c``: another minimum narrower than the grid can be missed.
        The published code takes the lowest ECE of a grid by default. With ``temperature`` both are fitted at once,
        which gives at most the NLL of fitting one after the other.

        The predicted class can change. Warns (:class:`CalibrationWarning`) when the accuracy on the validation samples
        falls by more than a standard error, when ``c`` is 0 or as large as the largest feature, when validation samples
        do not determine the head, when few mistakes hold the temperature, and when the fit changes nothing. About 100
        products of the features with the head; the head, ``C (D + 1)`` numbers, is saved with the calibrator.

    Example:
        >>> head = nn.Linear(3, 2, bias=False)
        >>> _ = head.weight.data.copy_(torch.tensor([[1.0, 1.0, 0.0], [0.0, 0.0, 1.0]]))
        >>> features = torch.tensor([[9.0, 0, 0], [9, 0, 0], [9, 0, 0], [1, 1, 0], [0, 0, 1], [0, 1, 3]])
        >>> val = Predictions(head(features), torch.tensor([0, 0, 1, 0, 1, 1]), features=features)
        >>> clipping = FeatureClipping(head).fit(val)
        >>> round(clipping.threshold, 2), [round(float(p), 2) for p in clipping.transform(val).confidence]
        (1.39, [0.8, 0.8, 0.8, 0.88, 0.73, 0.6])

    Source:
        Tao, Dong and Xu 2025 (AAAI 39).
    """

    map_type = Clipped
    needs = frozenset({"features"})
    takes_weights = False
    per_class = False

    @check_argument_types
    def __init__(
        self,
        head: nn.Module | tuple[Tensor, Tensor | None] | None = None,
        *,
        temperature: bool = False,
    ) -> None:
        self.head = head
        self.with_temperature = temperature

    @property
    def threshold(self) -> float:
        """The fitted threshold ``c``: features are clipped to ``[-c, c]``.

        Raises:
            InputError: Before ``fit``.
        """
        return float(self.map.threshold)

    @property
    def temperature(self) -> float:
        """The fitted temperature; 1 unless ``temperature=True``.

        Raises:
            InputError: Before ``fit``.
        """
        return float(self.map.temperature)

    def fit_map(self, val: Predictions, start: nn.Module | None = None) -> Clipped:
        """Fit the threshold (and temperature) to ``val``."""
        features = cast(Tensor, val.tensors().features)
        if self.head is None:
            head = recover_head(features, val.tensors().logits)
            fix = "A nonlinear head cannot be recovered: clip inside the model, or use another calibrator."
        else:
            head = parse_head(self.head, features, val.tensors().logits)
            fix = "Pass the layer whose input is the features and whose output is the logits."
        head.check(features, val.tensors().logits, fix)

        # The threshold on a grid, then between the neighbors of its best point.
        target = val.tensors().target

        def clip(threshold: float) -> tuple[Tensor, BestTemperature]:
            logits = clipped_logits(head.weight, features, val.tensors().logits, threshold)
            best = (
                nll_temperature(Predictions(logits, target))
                if self.with_temperature
                else BestTemperature(1.0)
            )
            return logits / best.value, best

        grid = clipping_grid(features)
        threshold = minimize_on_grid(lambda c: float(cross_entropy(clip(c)[0], target)), grid)
        logits, best = clip(threshold)
        row_map = Clipped(
            # Contiguous, so that products round alike before and after saving.
            weight=head.weight.clone(memory_format=torch.contiguous_format),
            bias=head.bias,
            scale=float64_tensor(head.scale),
            threshold=float64_tensor(threshold),
            temperature=float64_tensor(best.value),
        )
        return attach_warnings(
            row_map,
            warning_if(
                head.num_undetermined,
                f"{head.num_undetermined} of {features.shape[1]} feature directions do not vary among "
                f"{val.num_samples} validation samples, so the head's weights are unknown there. Pass head, or use a "
                "larger validation set.",
            ),
            _threshold_warning(threshold, grid),
            best.warning,
            accuracy_drop_warning(val, logits, _ACCURACY_ADVICE),
        )

    def _check_inputs(self, test: Predictions) -> Predictions:
        test = super()._check_inputs(test)
        head = LinearHead(self.map.weight, self.map.bias, float(self.map.scale))
        head.check(
            cast(Tensor, test.tensors().features),
            test.tensors().logits,
            "Pass predictions of the model that was fitted on. If they are, there were too few validation samples to "
            "recover the head: pass it, FeatureClipping(head=fedlas.find_head(model)).",
        )
        return test

    def _arguments(self) -> dict[str, Any]:
        return {"temperature": self.with_temperature}  # the head is in the map


@torch.no_grad()
def clipped_logits(weight: Tensor, features: Tensor, logits: Tensor, threshold: float) -> Tensor:
    """Return the logits after the features are clipped: ``z - W (h - clip(h, -c, c))``, float64 on the CPU.

    Args:
        weight: ``W (C, D)``, float64.
        features: ``h (N, D)``.
        logits: ``z (N, C)``.
        threshold: ``c``, at least 0.
    """
    result = logits.detach().cpu().double().clone()
    for part, rows in iter_float64_rows(features):
        # Only what clipping removes goes through the head, so rows without clipped features keep their logits exactly.
        result[part] -= (rows - rows.clamp(-threshold, threshold)) @ weight.T
    return result


def clipping_grid(features: Tensor) -> list[float]:
    """Return candidate thresholds, ascending: 0, quantiles of the nonzero magnitudes, and even steps to the largest."""
    size = features.detach().cpu().double().abs().flatten()
    size = size[size > 0].sort().values
    if not len(size):
        return [0.0]
    # Quantiles put thresholds where features are many; even steps cover the sparse range of the largest.
    indices = torch.linspace(0, len(size) - 1, _GRID, dtype=torch.float64, device="cpu").long()
    steps = torch.linspace(0, 1, _GRID + 1, dtype=torch.float64, device="cpu") * size[-1]
    return torch.cat([size[indices], steps]).unique().tolist()


def minimize_on_grid(function: Callable[[float], float], grid: list[float]) -> float:
    """Return the minimizer of ``function``: best point of the ascending grid, refined by golden section search."""
    values = {point: function(point) for point in grid}
    best = grid.index(min(values, key=values.__getitem__))
    bracket = grid[max(best - 1, 0)], grid[min(best + 1, len(grid) - 1)]
    # Its result is not used: on a function with several minima an earlier point may be lower, and all are remembered.
    golden_section(
        lambda point: values.setdefault(point, function(point)), *bracket, _TOLERANCE * grid[-1]
    )
    return min(values, key=values.__getitem__)


def _threshold_warning(threshold: float, grid: list[float]) -> str | None:
    """Return a warning if the threshold is 0 or as large as the largest feature, or None."""
    if threshold <= _TOLERANCE * grid[-1]:
        return bound_warning("threshold 0, where features have no effect", advice=_LABEL_ADVICE)
    if threshold >= (1 - _TOLERANCE) * grid[-1]:
        return bound_warning(
            f"the largest feature {threshold:g}, where nothing is clipped", advice=""
        )
    return None


@torch.no_grad()
def recover_head(features: Tensor, logits: Tensor) -> LinearHead:
    """Recover the head by least squares, with the minimum-norm solution if the features do not determine it.

    Args:
        features: ``(N, D)``.
        logits: ``(N, C)``.

    Note:
        From the ``D x D`` moments of the standardized features, in float64: ``N D^2 + D^3`` operations, and no copy of
        the features. Directions whose spread is rounding are left out rather than divided by it.
    """
    samples = len(features)
    logit_mean = _centered_mean(logits)
    mean = (
        sum(
            (rows.sum(dim=0) for _, rows in iter_float64_rows(features)),
            torch.zeros((), device="cpu"),
        )
        / samples
    )
    moments = zeros(len(mean), len(mean))
    cross_moments = zeros(len(mean), logits.shape[1])
    for part, rows in iter_float64_rows(features):
        rows = rows - mean
        moments += rows.T @ rows
        cross_moments += rows.T @ (_center_rows(logits[part]) - logit_mean)

    # A pseudo-inverse in standardized coordinates, where one threshold serves features of any scale.
    deviation = moments.diagonal().clamp(min=0).sqrt()
    varies = deviation > _MIN_SPREAD * samples**0.5 * mean.abs()
    inverse = torch.where(varies, 1 / deviation.where(varies, 1.0), 0.0).unsqueeze(1)
    values, vectors = torch.linalg.eigh(inverse * moments * inverse.T)
    spread = values > _MIN_SPREAD**2 * values.amax()
    inverse_values = torch.where(spread, 1 / values.where(spread, 1.0), 0.0).unsqueeze(1)
    weight = (inverse * (vectors @ (inverse_values * (vectors.T @ (inverse * cross_moments))))).T
    undetermined = int(varies.sum()) - int(spread.sum())
    return LinearHead(
        weight, logit_mean - weight @ mean, _logit_scale(logits), max(undetermined, 0)
    )


def parse_head(
    head: nn.Module | tuple[Tensor, Tensor | None], features: Tensor, logits: Tensor
) -> LinearHead:
    """Return the head given as a linear layer or a (weight, bias) pair.

    Raises:
        InputError: If it is neither a linear layer nor a pair of weight and bias, does not fit the shapes of
            ``features`` and ``logits``, or is not finite.
    """
    weight, bias = head if isinstance(head, tuple) and len(head) == 2 else _linear_parameters(head)
    shape = (logits.shape[1], features.shape[1])
    fits = isinstance(weight, Tensor) and weight.shape == shape
    if (
        weight is None
        or not fits
        or not (bias is None or (isinstance(bias, Tensor) and bias.shape == shape[:1]))
    ):
        raise InputError(
            f"head must be a linear layer with a weight of shape {shape}, or a (weight, bias) tuple",
            describe(head if weight is None else weight),
            "Pass the layer that outputs the logits, e.g. head=fedlas.find_head(model).",
        )
    weight = weight.detach().cpu().double()
    bias = zeros(shape[0]) if bias is None else bias.detach().cpu().double()
    for name, value in (("the head's weight", weight), ("the head's bias", bias)):
        check_finite(name, value)
    return LinearHead(weight - weight.mean(dim=0), bias - bias.mean(), _logit_scale(logits))


def _linear_parameters(head: object) -> tuple[Tensor | None, Tensor | None]:
    """Return weight and bias of a linear layer, or ``(None, None)``."""
    return (head.weight, head.bias) if isinstance(head, nn.Linear) else (None, None)


def _center_rows(logits: Tensor) -> Tensor:
    """Return float64 rows of logits with their row means subtracted."""
    rows = logits.detach().cpu().double()
    return rows - rows.mean(dim=1, keepdim=True)


def _centered_mean(logits: Tensor) -> Tensor:
    """Return the mean of the centered rows ``(C,)``."""
    total = sum(
        (_center_rows(rows).sum(dim=0) for _, rows in iter_float64_rows(logits)),
        torch.zeros((), device="cpu"),
    )
    return total / len(logits)


def _logit_scale(logits: Tensor) -> float:
    """Return the root mean square distance of the centered rows from their mean, plus a rounding allowance."""
    mean = _centered_mean(logits)
    total = sum(
        float((_center_rows(rows) - mean).square().sum()) for _, rows in iter_float64_rows(logits)
    )
    return float((total / len(logits)) ** 0.5) + _ROUNDING / _MAX_MISFIT * float(logits.abs().max())
