"""Temperature scaling: one divisor of all logits; also fitted under input drift, or in an ensemble."""

from __future__ import annotations

import math
import sys
from typing import TYPE_CHECKING, ClassVar, Literal, get_args

import torch
from torch import Tensor, nn

from fedlas._core.check import check_choice, check_count
from fedlas.calibrators._fit.buffers import BufferModule, float64_tensor
from fedlas.calibrators._fit.fit_warnings import attach_warnings, bound_warning
from fedlas.calibrators._fit.rowwise import iter_float64_rows, sample_weights
from fedlas.calibrators._fit.state import require_valid
from fedlas.calibrators.base import CALIBRATORS, Calibrator

if TYPE_CHECKING:
    from fedlas.predictions import Predictions

__all__ = [
    "ECE_GRID",
    "MAX_UNIFORM",
    "DriftTemperature",
    "EnsembleTemperatureScaling",
    "Mixture",
    "TemperatureScaling",
]

ECE_GRID = tuple(step / 10 for step in range(1, 101))
"""Temperatures that the ECE objective tries."""

Objective = Literal["nll", "ece"]


class Divided(nn.Module):
    """Map of temperature scaling: ``z / temperature``.

    Attributes:
        temperature: The divisor ``()``.
        is_held: Whether few mistakes or a bound limit the temperature; subsets then keep the temperature too.
    """

    temperature: Tensor

    def __init__(self, temperature: Tensor, is_held: bool = False) -> None:
        super().__init__()
        self.register_buffer("temperature", temperature)
        self.is_held = is_held

    @classmethod
    def from_temperature(cls, temperature: float, warning: str | None = None) -> Divided:
        """Return the map for a temperature, with the warning of its fit or None."""
        return attach_warnings(cls(float64_tensor(temperature), warning is not None), warning)

    def forward(self, rows: Tensor) -> Tensor:
        """Return calibrated logits for logits ``(n, C)``."""
        return rows / self.temperature

    def check(self, _: int) -> None:
        """Raise ValueError unless the temperature is a scalar above 0 whose inverse is finite."""
        fits = self.temperature.ndim == 0 and float(self.temperature) >= sys.float_info.min
        require_valid(fits, "temperature must be a scalar above 0")


class SingleTemperature(Calibrator):
    """Base of calibrators that divide all logits by one fitted temperature."""

    map_type = Divided
    keeps_argmax = True
    per_class = False

    def __repr__(self) -> str:
        return super().__repr__() + (
            "" if self._map is None else f"  # temperature {self.temperature:.4g}"
        )

    def fit_map(self, val: Predictions, start: nn.Module | None = None) -> Divided:
        """Fit the temperature to ``val``."""
        from fedlas.calibrators._fit.temperature_search import nll_temperature

        best = nll_temperature(val)
        return Divided.from_temperature(best.value, best.warning)

    @property
    def temperature(self) -> float:
        """The fitted temperature; above 1 if the model was over-confident.

        Raises:
            InputError: Before ``fit``.
        """
        return float(self.map.temperature)


@CALIBRATORS.register(
    "temperature",
    paper="On Calibration of Modern Neural Networks",
    year=2017,
    url="https://arxiv.org/abs/1706.04599",
)
class TemperatureScaling(SingleTemperature):
    """Temperature scaling: divides all logits by one positive number; the predicted class does not change.

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
        >>> from fedlas import Predictions
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
        """Fit the temperature to ``val``."""
        if self.objective == "ece":
            temperature = ece_temperature(val, num_bins=self.num_bins)
            at_end = temperature in (ECE_GRID[0], ECE_GRID[-1])
            ends = [f"temperature {temperature:g}"] if at_end else []
            return Divided.from_temperature(temperature, bound_warning(*ends, objective="ECE"))
        return super().fit_map(val)

    def fit_subsets(
        self, val: Predictions, subset_weights: Tensor, start: nn.Module
    ) -> list[nn.Module]:
        """Return one map per weighted subset, by two Newton steps from the map of all samples."""
        from fedlas.calibrators._fit.temperature_search import subset_temperatures

        if self.objective == "ece":
            return super().fit_subsets(val, subset_weights, start)
        return [Divided(each) for each in subset_temperatures(val, subset_weights, start)]


def ece_temperature(val: Predictions, num_bins: int = 15) -> float:
    """Return the temperature of :data:`ECE_GRID` with the lowest ECE; the first one if several tie."""
    from fedlas.metrics.equal_width import BinSums, mean_gap
    from fedlas.metrics.scan import iter_chunks

    sums = {temperature: BinSums(num_bins) for temperature in ECE_GRID}
    # Chunks outside, so that the logits come from memory once and not once for each temperature.
    for chunk in iter_chunks(val):
        for temperature, bins in sums.items():
            confidence = (chunk.logits / temperature).softmax(dim=1).amax(dim=1)
            bins.add(confidence.cpu(), chunk.correct, chunk.weights)
    return min(ECE_GRID, key=lambda temperature: float(mean_gap(sums[temperature].table())))


@CALIBRATORS.register(
    "drift-temperature",
    paper="Post-hoc Uncertainty Calibration for Domain Drift Scenarios",
    year=2021,
    url="https://arxiv.org/abs/2012.10988",
    part="val-drift",
)
class DriftTemperature(SingleTemperature):
    """Temperature scaling fitted to clean and drifted inputs together; the predicted class does not change.

    The number minimizes the negative log-likelihood, as that of :class:`TemperatureScaling` does, on predictions for
    validation inputs under growing noise, from none to an amount that reduces the accuracy to chance. Networks stay
    confident when inputs drift away; a temperature fitted on clean inputs cannot correct that.

    Note:
        Fit it on ``fedlas.objective.drifted_predictions(model, validation_batches)``; the command line,
        ``fedlas evaluate RUN --method drift-temperature``, makes these from the run. Fitted on clean predictions it
        is temperature scaling.

        It is a compromise between clean and drifted inputs: use it where drift is expected. An over-confident
        multi-layer perceptron on the synthetic data set had an ECE of 0.34 over ten levels of drift after temperature
        scaling and 0.09 after this, but 0.36 instead of 0.02 on clean inputs, where it was left under-confident.

        Warns (:class:`CalibrationWarning`) as :class:`TemperatureScaling` does.

    Example:
        >>> import numpy as np
        >>> from fedlas import Predictions
        >>> clean = Predictions([[3.0, 0.0], [3.0, 0.0], [3.0, 0.0], [0.0, 3.0]], [0, 0, 0, 0])
        >>> drifted = Predictions([[3.0, 0.0], [3.0, 0.0], [0.0, 3.0], [0.0, 3.0]], [0, 0, 0, 0])  # as sure as before
        >>> union = Predictions(np.concat([clean.logits, drifted.logits]), np.concat([clean.target, drifted.target]))
        >>> calibrated = DriftTemperature().fit(union).transform(clean)
        >>> round(float(calibrated.confidence[0]), 4)  # 5 of 8 are right
        0.625

    Source:
        Tomani et al. 2021 (CVPR), applied to temperature scaling ("TS-P").
    """


MAX_UNIFORM = 0.99
"""Largest weight of the uniform part; with a weight of 1 all classes would be equally likely."""

_MIN_WEIGHT = 1e-6
"""Smallest mixture weight; smaller ones become 0."""


class Mixture(BufferModule):
    """Mixture of scaled, raw and uniform predictions, ``w1 softmax(z / temperature) + w2 softmax(z) + w3 / C``.

    Attributes:
        temperature: Above 0 ``()``.
        weights: ``(w1, w2, w3)``, at least 0 and summing to 1.
    """

    shapes: ClassVar = {"temperature": "", "weights": "3"}

    def forward(self, rows: Tensor) -> Tensor:
        """Return log-probabilities of the mixture for logits ``(n, C)``."""
        parts = (
            (rows / self.temperature).log_softmax(dim=1),
            rows.log_softmax(dim=1),
            torch.full_like(rows, -math.log(rows.shape[1])),
        )
        # Mixing in log space lets no class underflow.
        return (torch.stack(parts) + self.weights.log().view(3, 1, 1)).logsumexp(dim=0)

    def check(self, classes: int) -> None:
        """Raise ValueError for a temperature that is not above 0, or weights that are not on the simplex."""
        super().check(classes)
        require_valid(self.temperature > 0, "temperature must be above 0")
        positive = len(self.weights) == 3 and bool((self.weights >= 0).all())
        fits = positive and abs(float(self.weights.sum()) - 1) <= 1e-9
        require_valid(
            fits and float(self.weights[2]) <= MAX_UNIFORM,
            f"weights must be at least 0 and sum to 1, the last at most {MAX_UNIFORM:g}",
        )


@CALIBRATORS.register(
    "ensemble-temperature",
    paper="Mix-n-Match: Ensemble and Compositional Methods for Uncertainty Calibration in Deep Learning",
    year=2020,
    url="https://arxiv.org/abs/2003.07329",
)
class EnsembleTemperatureScaling(Calibrator):
    """Mixes scaled, raw and uniform predictions, ``w1 softmax(z / T) + w2 softmax(z) + w3 / C``; keeps the argmax.

    ``T`` is that of temperature scaling; the weights ``w`` on the simplex then minimize the negative log-likelihood on
    validation predictions. Every part keeps the order of the classes, and so does their mixture.

    Note:
        The paper minimizes over ``T`` and ``w`` together. Its published code, like this, fits ``T`` first. The paper's
        alternative loss, the squared error, is not implemented.

        ``w3`` is at most 0.99, since a uniform mixture would lose the class. Warns (:class:`CalibrationWarning`) when
        ``w3`` or ``T`` ends at its bound, when few mistakes hold ``T``, and when the fit changes nothing.

    Example:
        >>> from fedlas import Predictions
        >>> logits = 3 * [[1.0, 0.0]] + 5 * [[3.0, 0.0]] + 10 * [[6.0, 0.0]]
        >>> target = [0, 0, 1] + [0, 0, 0, 0, 1] + 9 * [0] + [1]  # 2 of 3, 4 of 5, 9 of 10 are right
        >>> val = Predictions(logits, target)
        >>> [round(float(p), 2) for p in EnsembleTemperatureScaling().fit(val).transform(val).confidence[[0, 3, 8]]]
        [0.64, 0.81, 0.9]

    Source:
        Zhang, Kailkhura and Han 2020 (ensemble temperature scaling).
    """

    map_type = Mixture
    keeps_argmax = True
    per_class = False

    def fit_map(self, val: Predictions, start: nn.Module | None = None) -> Mixture:
        """Fit the temperature and the mixture weights to ``val``."""
        from fedlas.calibrators._fit.minimize import fit_mixture_weights
        from fedlas.calibrators._fit.temperature_search import nll_temperature

        best = nll_temperature(val)
        target = val.tensors().target

        def label_probs(temperature: float) -> Tensor:
            chunks = iter_float64_rows(val.tensors().logits)
            logs = [
                (rows / temperature).log_softmax(dim=1).gather(1, target[at].unsqueeze(1))
                for at, rows in chunks
            ]
            return torch.cat(logs).exp()

        raw = label_probs(1.0)
        parts = torch.cat(
            [label_probs(best.value), raw, torch.full_like(raw, 1 / val.num_classes)], dim=1
        )
        weights, _ = fit_mixture_weights(parts, sample_weights(val))
        weights = torch.where(weights < _MIN_WEIGHT, 0.0, weights)
        weights = weights / weights.sum()
        bound_text = None
        if float(weights[2]) > MAX_UNIFORM:
            if not float(weights[:2].sum()):
                weights[0] = 1.0
            weights[:2] *= (1 - MAX_UNIFORM) / weights[:2].sum()
            weights[2] = MAX_UNIFORM
            bound_text = bound_warning(f"weight {MAX_UNIFORM:g} of the uniform part")
        return attach_warnings(
            Mixture(temperature=float64_tensor(best.value), weights=weights),
            best.warning,
            bound_text,
        )
