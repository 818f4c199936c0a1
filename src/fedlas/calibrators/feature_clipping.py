"""Feature clipping: features that are larger than a threshold are cut to it before the head sees them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor, nn

from fedlas._core.check import InputError, check_number, describe
from fedlas.calibrators.base import CALIBRATORS, Calibrator
from fedlas.calibrators.doubts import joined, unchanged_logits
from fedlas.calibrators.linear_head import LinearHead, given_head, recover_head
from fedlas.calibrators.parameters import fitted, read_numbers
from fedlas.calibrators.rowwise import double_rows
from fedlas.calibrators.temperature import MAX_TEMPERATURE, MIN_TEMPERATURE, nll_temperature
from fedlas.predictions import Predictions

# The threshold is looked for on this many quantiles of the features and as many even steps, then between the neighbours
# of the best one.
_GRID = 32
# Error of the threshold as a share of the largest feature. The NLL is flat at its minimum: finer would follow rounding.
_TOLERANCE = 1e-7
_SHRINK = (5**0.5 - 1) / 2


@CALIBRATORS.register(
    "feature-clipping",
    title="Feature clipping",
    paper="Feature Clipping for Uncertainty Calibration",
    year=2025,
    url="https://arxiv.org/abs/2410.19796",
)
class FeatureClipping(Calibrator):
    """Clips features to ``[-c, c]`` and lets the classifier head make logits of them again: ``W clip(h, -c, c) + b``.

    Over-confident mistakes come with larger features than confident hits, so a cut takes more confidence from them.
    ``c`` minimises the negative log-likelihood on validation predictions.

    Args:
        head: The layer that made the logits: an ``nn.Linear``, or ``(weight (C, D), bias (C,) or None)``. None: it is
            recovered from features and logits by least squares.
        temperature: Divide the new logits by a temperature too, which is fitted together with ``c``. The result is at
            least as likely on validation as temperature scaling.

    Raises:
        InputError: For a head that is no linear layer or does not fit the predictions.

    Note:
        Fit and transform check that the head makes the logits from the features, row by row, and refuse predictions
        where a row is off by 0.05 of the spread of the logits: then the head is not linear, or validation samples are
        too few to recover it from (about as many as features are needed). Pass ``head`` then. Added to the logits as
        they came is only what clipping changes, so a sample without large features keeps them to the last bit.

        ``c`` is searched in float64 on 64 values between 0 and the largest feature, then by golden section between the
        neighbours of the best. The NLL is not convex in ``c``: another minimum narrower than the grid can be missed.
        The published code takes the lowest ECE of a grid by default. With ``temperature`` both are fitted at once,
        which is at least as likely as one after the other.

        The predicted class can change. Warns (:class:`CalibrationWarning`) when ``c`` is 0 or as large as the largest
        feature, when validation samples do not determine the head, and when the fit changes nothing. About 100
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

    keeps_argmax = False
    needs = frozenset({"features"})

    def __init__(
        self, head: nn.Module | tuple[Tensor, Tensor | None] | None = None, *, temperature: bool = False
    ) -> None:
        if not isinstance(temperature, bool):
            raise InputError(
                "FeatureClipping", "temperature must be True or False", describe(temperature), "Pass a bool."
            )
        self.head = head
        self.with_temperature = temperature
        self._head: LinearHead | None = None
        self._threshold, self._temperature = 0.0, 1.0

    def __repr__(self) -> str:
        return f"FeatureClipping(temperature={self.with_temperature})"

    @property
    def threshold(self) -> float:
        """``c``: the largest absolute value that a feature keeps.

        Raises:
            InputError: Before ``fit``.
        """
        fitted("FeatureClipping.threshold", self._head)
        return self._threshold

    @property
    def temperature(self) -> float:
        """What the new logits are divided by; 1 unless asked for.

        Raises:
            InputError: Before ``fit``.
        """
        fitted("FeatureClipping.temperature", self._head)
        return self._temperature

    def _fit(self, val: Predictions) -> str | None:
        owner, features = "FeatureClipping.fit", cast(Tensor, val.features)
        if self.head is None:
            head = recover_head(features, val.logits)
            fix = (
                "If the head is not linear there is no recovering it: clip inside the model, or use another calibrator."
            )
        else:
            head = given_head(owner, self.head, features, val.logits)
            fix = "Pass the layer whose input the features are and whose output the logits."
        head.check(owner, features, val.logits, fix)

        target = val.target.cpu()

        def measured(threshold: float) -> tuple[float, float, Tensor]:
            logits = clipped_logits(head.weight, features, val.logits, threshold)
            temperature = nll_temperature(Predictions(logits, target)) if self.with_temperature else 1.0
            logits /= temperature
            return float(torch.nn.functional.cross_entropy(logits, target)), temperature, logits

        grid = threshold_grid(features)
        threshold = lowest(lambda value: measured(value)[0], grid)
        _, temperature, logits = measured(threshold)
        self._head, self._threshold, self._temperature = head, threshold, temperature
        return joined(
            f"{head.undetermined} of {features.shape[1]} directions of the features do not vary among "
            f"{val.num_samples} validation samples, and the head's weights there are unknown. Pass head, or use a "
            "larger validation set."
            if head.undetermined
            else None,
            _at_bound(threshold, grid, temperature),
            unchanged_logits(val, logits),
        )

    def _transform_predictions(self, test: Predictions) -> Tensor:
        owner, features = "FeatureClipping.transform", cast(Tensor, test.features)
        head = fitted(owner, self._head)
        head.check(
            owner,
            features,
            test.logits,
            "Transform predictions of the model it was fitted on. If these are, validation samples were too few to "
            "recover the head: pass it, FeatureClipping(head=fedlas.find_head(model)).",
        )
        clipped = clipped_logits(head.weight, features, test.logits, self._threshold) / self._temperature
        return clipped.to(test.logits)

    def _options(self) -> dict[str, Any]:
        return {"temperature": self.with_temperature}

    def _state(self) -> dict[str, Any]:
        head = fitted("FeatureClipping.save", self._head)
        numbers = {"threshold": self._threshold, "temperature": self._temperature, "scale": head.scale}
        return {**numbers, "weight": head.weight.tolist(), "bias": head.bias.tolist()}

    def _restore(self, state: dict[str, Any]) -> None:
        weight = read_numbers(state, "weight", self.num_classes, self.num_features)
        bias = read_numbers(state, "bias", self.num_classes)
        numbers = [check_number("FeatureClipping", name, state[name], low=0) for name in ("threshold", "scale")]
        self._temperature = check_number("FeatureClipping", "temperature", state["temperature"], low=0, low_open=True)
        self._threshold, self._head = numbers[0], LinearHead(weight, bias, numbers[1])


@torch.no_grad()
def clipped_logits(weight: Tensor, features: Tensor, logits: Tensor, threshold: float) -> Tensor:
    """Logits after the features are clipped: ``z - W (h - clip(h, -c, c))``, float64 on the CPU.

    Args:
        weight: ``W (C, D)``, float64.
        features: ``h (N, D)``.
        logits: ``z (N, C)``.
        threshold: ``c``, at least 0.
    """
    result = logits.detach().cpu().double().clone()
    for part, rows in double_rows(features):
        result[part] -= (rows - rows.clamp(-threshold, threshold)) @ weight.T
    return result


def threshold_grid(features: Tensor) -> list[float]:
    """Thresholds to try, ascending: 0, quantiles of the features that are not 0, even steps to the largest."""
    size = features.detach().cpu().double().abs().flatten()
    size = size[size > 0].sort().values
    if not len(size):
        return [0.0]
    at = torch.linspace(0, len(size) - 1, _GRID, dtype=torch.float64).long()
    steps = torch.linspace(0, 1, _GRID + 1, dtype=torch.float64) * size[-1]
    return torch.cat([size[at], steps]).unique().tolist()


def lowest(function: Callable[[float], float], grid: list[float]) -> float:
    """Where ``function`` is lowest: on the ascending grid, then by golden section next to the best value."""
    values = [function(point) for point in grid]
    best = min(range(len(grid)), key=values.__getitem__)
    low, high = grid[max(best - 1, 0)], grid[min(best + 1, len(grid) - 1)]
    tried = {grid[best]: values[best]}
    inner, outer = high - _SHRINK * (high - low), low + _SHRINK * (high - low)
    while high - low > _TOLERANCE * grid[-1]:
        for point in (inner, outer):
            if point not in tried:
                tried[point] = function(point)
        if tried[inner] <= tried[outer]:
            high, outer = outer, inner
            inner = high - _SHRINK * (high - low)
        else:
            low, inner = inner, outer
            outer = low + _SHRINK * (high - low)
    return min(tried, key=tried.__getitem__)


def _at_bound(threshold: float, grid: list[float], temperature: float) -> str | None:
    check = "Check that features and labels belong together, and that the validation set is not training data."
    if threshold <= _TOLERANCE * grid[-1]:
        return f"the NLL is lowest at a bound of the search, threshold 0, where features say nothing. {check}"
    if threshold >= (1 - _TOLERANCE) * grid[-1]:
        return (
            f"the NLL is lowest at a bound of the search, the largest feature {threshold:g}, where nothing is clipped."
        )
    if temperature in (MIN_TEMPERATURE, MAX_TEMPERATURE):
        return f"the NLL is lowest at a bound of the search, temperature {temperature:g}. {check}"
    return None
