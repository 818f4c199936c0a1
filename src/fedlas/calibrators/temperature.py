"""Temperature scaling: one divisor of all logits, from clean inputs or from drifting ones."""

from __future__ import annotations

import sys
from typing import Literal, get_args

from torch import Tensor, nn

from fedlas._core.check import check_choice, check_count
from fedlas.calibrators._fit.doubts import at_bound, with_doubts
from fedlas.calibrators._fit.state import must, scalar
from fedlas.calibrators._fit.temperature_search import (
    nearby_temperature,
    nll_temperature,
)
from fedlas.calibrators.base import CALIBRATORS, Calibrator
from fedlas.metrics.ece import BinSums, mean_gap
from fedlas.metrics.scan import chunks
from fedlas.predictions import Predictions

__all__ = ["ECE_GRID", "DriftTemperature", "TemperatureScaling"]

ECE_GRID = tuple(step / 10 for step in range(1, 101))
"""Temperatures that the ECE objective tries."""

Objective = Literal["nll", "ece"]


class Divided(nn.Module):
    """``z / temperature``.

    Attributes:
        temperature: The divisor ``()``.
        is_held: Whether few mistakes or a bound hold it, and so that of a part of the samples.
    """

    temperature: Tensor

    def __init__(self, temperature: Tensor, is_held: bool = False) -> None:
        super().__init__()
        self.register_buffer("temperature", temperature)
        self.is_held = is_held

    @classmethod
    def at(cls, temperature: float, doubt: str | None = None) -> Divided:
        """Return the map of a temperature, with what to warn about."""
        return with_doubts(cls(scalar(temperature), doubt is not None), doubt)

    def forward(self, rows: Tensor) -> Tensor:
        """Return calibrated logits of logits ``(n, C)``."""
        return rows / self.temperature

    def check(self, _: int) -> None:
        """Refuse a temperature that no search returns: smaller numbers have no inverse."""
        fits = self.temperature.ndim == 0 and float(self.temperature) >= sys.float_info.min
        must(fits, "temperature must be a number above 0")


class SingleTemperature(Calibrator):
    """Base of the calibrators whose one parameter divides all logits."""

    map_type = Divided
    keeps_argmax = True
    per_class = False

    def __repr__(self) -> str:
        return super().__repr__() + (
            "" if self._map is None else f"  # temperature {self.temperature:.4g}"
        )

    @property
    def temperature(self) -> float:
        """The fitted temperature: above 1 if the model was over-confident.

        Raises:
            InputError: Before ``fit``.
        """
        return float(self.map.temperature)


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
            for logits of any size. ``"ece"``: the temperature of 0.1, 0.2, ..., 10.0 with the lowest ECE, the first
            among equals; noisier, for comparison with published results.
        num_bins: Bins of that ECE, at least 1; the NLL does not use them.

    Raises:
        InputError: For another objective or a ``num_bins`` below 1.

    Note:
        If every validation label is predicted, the NLL keeps falling as the temperature goes to 0, and a few mistakes
        hardly say more. A temperature below 1 is therefore not lowered further than to where the calibrated model still
        expects two mistakes among the validation samples; if it expects fewer before the fit, the temperature stays 1.
        This touches no fit with more than a few mistakes. Measured with a calibrated model of ten classes and 96 %
        accuracy, whose test NLL is 0.111: mean (worst) test NLL after 100 fits (``benchmarks/calibrators.py``) is

        ========  =============  =============  =============  =============  =============
        samples   20             50             100            300            1,000
        ========  =============  =============  =============  =============  =============
        held      0.115 (0.174)  0.114 (0.136)  0.116 (0.171)  0.113 (0.127)  0.111 (0.115)
        minimum   3.053 (6.485)  1.142 (6.485)  0.185 (6.485)  0.113 (0.127)  0.111 (0.115)
        ========  =============  =============  =============  =============  =============

        The first line is this fit, the second one the minimum of the NLL between temperatures 0.01 and 100.

        The temperature is at most 100 times the spread of the logits (or 100), where predictions are nearly uniform.
        Warns (:class:`CalibrationWarning`) when few mistakes hold the temperature, when it ends at that bound or at an
        end of the ECE's grid, and when the fit changes nothing.

    Example:
        >>> val = Predictions([[3.0, 0.0], [3.0, 0.0], [0.0, 3.0], [3.0, 0.0]], [0, 0, 1, 1])
        >>> scaling = TemperatureScaling().fit(val)
        >>> round(scaling.temperature, 4), round(float(scaling.transform(val).confidence[0]), 4)
        (2.7307, 0.75)

    Source:
        Guo et al. 2017, section 4.2.
    """

    def __init__(self, objective: Objective = "nll", num_bins: int = 15) -> None:
        self.objective = check_choice("objective", objective, get_args(Objective))
        self.num_bins = check_count("num_bins", num_bins)

    def fit_map(self, val: Predictions, start: nn.Module | None = None) -> Divided:
        """Return the map of ``val``."""
        if self.objective == "ece":
            temperature = ece_temperature(val, num_bins=self.num_bins)
            at_end = temperature in (ECE_GRID[0], ECE_GRID[-1])
            ends = [f"temperature {temperature:g}"] if at_end else []
            return Divided.at(temperature, at_bound(*ends, objective="ECE"))
        if isinstance(start, Divided):
            near = start.temperature.item()
            return Divided.at(near if start.is_held else nearby_temperature(val, near))
        best = nll_temperature(val)
        return Divided.at(best.value, best.doubt)


def ece_temperature(val: Predictions, num_bins: int = 15) -> float:
    """Return the temperature of :data:`ECE_GRID` with the lowest ECE, the first among equals."""
    sums = {temperature: BinSums(num_bins) for temperature in ECE_GRID}
    # Chunks outside, so that the logits come from memory once and not once for each temperature.
    for chunk in chunks(val):
        for temperature, bins in sums.items():
            confidence = (chunk.logits / temperature).softmax(dim=1).amax(dim=1)
            bins.add(confidence.cpu(), chunk.correct, chunk.weights)
    return min(ECE_GRID, key=lambda temperature: float(mean_gap(sums[temperature].table())))


@CALIBRATORS.register(
    "drift-temperature",
    title="Drift temperature",
    paper="Post-hoc Uncertainty Calibration for Domain Drift Scenarios",
    year=2021,
    url="https://arxiv.org/abs/2012.10988",
    part="val-drift",
)
class DriftTemperature(SingleTemperature):
    """Divides all logits by one number that suits clean inputs and drifted ones together; keeps the predicted class.

    The number minimizes the negative log-likelihood, as that of :class:`TemperatureScaling` does, on predictions for
    validation inputs under growing noise, from none to an amount that reduces the accuracy to chance. Networks stay
    confident when inputs drift away; a temperature fitted on clean inputs cannot correct that.

    Note:
        Fit it on ``fedlas.objective.drifted_predictions(model, validation_batches)``; the command line,
        ``fedlas evaluate RUN --calibrate drift-temperature``, makes these from the run. Fitted on clean predictions it
        is temperature scaling.

        It is a compromise between clean and drifted inputs: use it where drift is expected. An over-confident
        multi-layer perceptron on the synthetic data set had an ECE of 0.34 over ten levels of drift after temperature
        scaling and 0.09 after this, but 0.36 instead of 0.02 on clean inputs, where it was left under-confident.

        Warns (:class:`CalibrationWarning`) as :class:`TemperatureScaling` does.

    Example:
        >>> import torch
        >>> clean = Predictions([[3.0, 0.0], [3.0, 0.0], [3.0, 0.0], [0.0, 3.0]], [0, 0, 0, 0])
        >>> drifted = Predictions([[3.0, 0.0], [3.0, 0.0], [0.0, 3.0], [0.0, 3.0]], [0, 0, 0, 0])  # as sure as before
        >>> union = Predictions(torch.cat([clean.logits, drifted.logits]), torch.cat([clean.target, drifted.target]))
        >>> calibrated = DriftTemperature().fit(union).transform(clean)
        >>> round(float(calibrated.confidence[0]), 4)  # 5 of 8 are right
        0.625

    Source:
        Tomani et al. 2021 (CVPR), applied to temperature scaling ("TS-P").
    """

    def fit_map(self, val: Predictions, start: nn.Module | None = None) -> Divided:
        """Return the map of ``val``."""
        best = nll_temperature(val)
        return Divided.at(best.value, best.doubt)
