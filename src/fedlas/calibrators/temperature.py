"""Temperature scaling: one divisor of all logits."""

from __future__ import annotations

import math
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from fedlas._core.check import check_choice, check_count, check_number
from fedlas.calibrators._fit.doubts import at_bound
from fedlas.calibrators._fit.parameters import fitted
from fedlas.calibrators.base import CALIBRATORS, Calibrator
from fedlas.metrics.binning import BinSums, equal_width_edges, mean_gap
from fedlas.metrics.scan import chunks
from fedlas.predictions import Predictions

__all__ = ["ECE_GRID", "MAX_TEMPERATURE", "MIN_TEMPERATURE", "TemperatureScaling"]

MIN_TEMPERATURE, MAX_TEMPERATURE = BOUNDS = (0.01, 100.0)
"""Bounds of the NLL fit; beyond them predictions are practically one-hot or uniform."""

ECE_GRID = tuple(step / 10 for step in range(1, 101))
"""Temperatures that the ECE objective tries."""

Objective = Literal["nll", "ece"]

# Relative step of 1 / temperature at which Newton's method stops. It converges quadratically, so the error is far
# smaller than the step.
_TOLERANCE = 1e-9
_UNCHANGED = 1e-4
_CHUNK_ELEMENTS = 2**18


class SingleTemperature(Calibrator):
    """Base of the calibrators whose one parameter divides all logits; a subclass sets ``_temperature`` in ``_fit``."""

    keeps_argmax = True
    _temperature: float | None = None

    def __repr__(self) -> str:
        return super().__repr__() + ("" if self._temperature is None else f"  # temperature {self._temperature:.4g}")

    @property
    def temperature(self) -> float:
        """The fitted temperature: above 1 if the model was over-confident.

        Raises:
            InputError: Before ``fit``.
        """
        return fitted(f"{self._owner}.temperature", self._temperature)

    def _transform(self, logits: Tensor) -> Tensor:
        return logits / self.temperature

    def _state(self) -> dict[str, Any]:
        return {"temperature": self.temperature}

    def _restore(self, state: dict[str, Any]) -> None:
        self._temperature = check_number(self._owner, "temperature", state["temperature"], low=0.0, low_open=True)


@CALIBRATORS.register(
    "temperature",
    title="Temperature",
    paper="On Calibration of Modern Neural Networks",
    year=2017,
    url="https://arxiv.org/abs/1706.04599",
)
class TemperatureScaling(SingleTemperature):
    """Divides all logits by one positive number, fitted on validation predictions; keeps the predicted class.

    Args:
        objective: ``"nll"``: the exact minimum of the negative log-likelihood, a convex problem in ``1 / temperature``,
            between temperatures 0.01 and 100. ``"ece"``: the temperature of 0.1, 0.2, ..., 10.0 with the lowest ECE,
            the first among equals; noisier, for comparison with published results.
        num_bins: Bins of that ECE, at least 1; the NLL does not use them.

    Raises:
        InputError: For another objective or a ``num_bins`` below 1.

    Note:
        Warns (:class:`CalibrationWarning`) when the fit changes nothing, and when it ends at a bound, e.g. because
        every validation label is predicted and the NLL keeps falling as the temperature goes to 0.

    Example:
        >>> val = Predictions([[3.0, 0.0], [3.0, 0.0], [0.0, 3.0], [3.0, 0.0]], [0, 0, 1, 1])
        >>> scaling = TemperatureScaling().fit(val)
        >>> round(scaling.temperature, 4), round(float(scaling.transform(val).confidence[0]), 4)
        (2.7307, 0.75)

    Source:
        Guo et al. 2017, section 4.2.
    """

    def __init__(self, objective: Objective = "nll", num_bins: int = 15) -> None:
        self.objective = check_choice("TemperatureScaling", "objective", objective, get_args(Objective))
        self.num_bins = check_count("TemperatureScaling", "num_bins", num_bins)

    def _fit(self, val: Predictions) -> str | None:
        if self.objective == "nll":
            temperature, bounds = nll_temperature(val), BOUNDS
        else:
            temperature, bounds = ece_temperature(val, num_bins=self.num_bins), (ECE_GRID[0], ECE_GRID[-1])
        self._temperature = temperature
        if temperature in bounds:
            return at_bound(f"temperature {temperature:g}", objective=self.objective.upper())
        if abs(math.log(temperature)) < _UNCHANGED:
            return (
                f"the fitted temperature is {temperature:.6g}, so predictions stay as they are. Nothing need be done."
            )
        return None


def ece_temperature(val: Predictions, *, num_bins: int = 15) -> float:
    """The temperature of :data:`ECE_GRID` with the lowest ECE on ``val``, the first among equals."""
    sums = {temperature: BinSums(equal_width_edges(num_bins)) for temperature in ECE_GRID}
    for chunk in chunks(val):  # outside, so that the logits come from memory once and not once for each temperature
        for temperature, bins in sums.items():
            confidence = (chunk.logits / temperature).softmax(dim=1).amax(dim=1)
            bins.add(confidence.cpu(), chunk.correct)
    return min(ECE_GRID, key=lambda temperature: float(mean_gap(sums[temperature].table())))


def nll_temperature(val: Predictions) -> float:
    """The temperature in ``[0.01, 100]`` with the lowest NLL on ``val``.

    With ``scale = 1 / temperature`` the mean NLL is convex; its slope ``mean_i (E_p[z_i] - z_i[y_i])``, where ``p`` is
    the softmax of ``scale * z_i``, is increasing. Its root is found by Newton steps that fall back to bisection, in
    float64. 1.0 if the logits of every row are equal: then no temperature matters.
    """
    if bool((val.logits.amax(dim=1) == val.logits.amin(dim=1)).all()):
        return 1.0
    scale = 1.0
    slope, curvature = _slope(val, scale)
    rising = slope > 0
    bound = 1 / MAX_TEMPERATURE if rising else 1 / MIN_TEMPERATURE
    slope_there, _ = _slope(val, bound)
    if (slope_there >= 0) if rising else (slope_there <= 0):
        return MAX_TEMPERATURE if rising else MIN_TEMPERATURE
    low, high = (bound, scale) if rising else (scale, bound)
    last_step = high - low
    while high - low > _TOLERANCE * scale:
        step = slope / curvature if curvature > 0 else math.inf
        # A Newton step that leaves the bracket, or fails to halve the one before, gives way to the geometric middle.
        newton = low < scale - step < high and abs(step) <= 0.5 * last_step
        following = scale - step if newton else math.sqrt(low * high)
        last_step = abs(following - scale)
        scale = following
        if last_step <= _TOLERANCE * scale:
            break
        slope, curvature = _slope(val, scale)
        low, high = (low, scale) if slope > 0 else (scale, high)
    return 1 / scale


@torch.no_grad()
def _slope(val: Predictions, scale: float) -> tuple[float, float]:
    """First and second derivative of the mean NLL with respect to ``scale``, for logits ``scale * z``."""
    slope = curvature = 0.0
    rows = max(1, _CHUNK_ELEMENTS // val.num_classes)
    for logits, target in zip(val.logits.split(rows), val.target.split(rows), strict=True):
        shifted = logits.double()
        shifted = shifted - shifted.amax(dim=1, keepdim=True)
        probs = (shifted * scale).softmax(dim=1)
        mean = (probs * shifted).sum(dim=1, keepdim=True)
        slope += float((mean - shifted.gather(1, target.unsqueeze(1))).sum())
        curvature += float((probs * (shifted - mean).square()).sum())
    return slope / val.num_samples, curvature / val.num_samples
