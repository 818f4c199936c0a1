"""Ensemble temperature scaling: a mixture of scaled, raw and uniform predictions."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from fedlas._core.check import check_number
from fedlas.calibrators._fit.doubts import at_bound, with_doubts
from fedlas.calibrators._fit.mixture import mixture_weights
from fedlas.calibrators._fit.parameters import read_numbers
from fedlas.calibrators._fit.rowwise import double_rows, weights_of
from fedlas.calibrators._fit.temperature_search import nll_temperature
from fedlas.calibrators.base import CALIBRATORS
from fedlas.calibrators.mapped import MappedCalibrator
from fedlas.predictions import Predictions

__all__ = ["MAX_UNIFORM", "EnsembleTemperatureScaling", "Mixture"]

MAX_UNIFORM = 0.99
"""Largest weight of the uniform part; with a weight of 1 every class would be as likely as any other."""

_SMALLEST = 1e-6
"""Parts of a smaller weight are left out."""


class Mixture(nn.Module):
    """``w1 softmax(z / temperature) + w2 softmax(z) + w3 / C``.

    Attributes:
        temperature: Above 0.
        weights: ``(w1, w2, w3)``, at least 0 and summing to 1.
    """

    def __init__(self, temperature: float, weights: tuple[float, float, float]) -> None:
        super().__init__()
        self.temperature = temperature
        self.weights = weights

    def forward(self, rows: Tensor) -> Tensor:
        """Return its log-probabilities for logits ``(n, C)``."""
        parts = (
            (rows / self.temperature).log_softmax(dim=1),
            rows.log_softmax(dim=1),
            torch.full_like(rows, -math.log(rows.shape[1])),
        )
        # Mixing in log space lets no class underflow; a part of weight 0 has no logarithm and is left out.
        used = [
            part + math.log(weight)
            for part, weight in zip(parts, self.weights, strict=True)
            if weight > 0
        ]
        return torch.stack(used).logsumexp(dim=0)


@CALIBRATORS.register(
    "ensemble-temperature",
    title="Ensemble temperature",
    paper="Mix-n-Match: Ensemble and Compositional Methods for Uncertainty Calibration in Deep Learning",
    year=2020,
    url="https://arxiv.org/abs/2003.07329",
)
class EnsembleTemperatureScaling(MappedCalibrator[Mixture]):
    """Mixes scaled, raw and uniform predictions, ``w1 softmax(z / T) + w2 softmax(z) + w3 / C``; keeps the arg-max.

    ``T`` is that of temperature scaling; the weights ``w`` on the simplex then minimize the negative log-likelihood on
    validation predictions. Every part keeps the order of the classes, and so does their mixture.

    Note:
        The paper minimizes over ``T`` and ``w`` together. Its published code, like this, fits ``T`` first. The paper's
        alternative loss, the squared error, is not implemented.

        ``w3`` is at most 0.99, since a uniform mixture would lose the class. Warns (:class:`CalibrationWarning`) when
        ``w3`` or ``T`` ends at its bound, when few mistakes hold ``T``, and when the fit changes nothing.

    Example:
        >>> logits = 3 * [[1.0, 0.0]] + 5 * [[3.0, 0.0]] + 10 * [[6.0, 0.0]]
        >>> target = [0, 0, 1] + [0, 0, 0, 0, 1] + 9 * [0] + [1]  # 2 of 3, 4 of 5, 9 of 10 are right
        >>> val = Predictions(logits, target)
        >>> [round(float(p), 2) for p in EnsembleTemperatureScaling().fit(val).transform(val).confidence[[0, 3, 8]]]
        [0.64, 0.81, 0.9]

    Source:
        Zhang, Kailkhura and Han 2020 (ensemble temperature scaling).
    """

    keeps_argmax = True
    _per_class = False

    def fit_map(self, val: Predictions, start: nn.Module | None = None) -> Mixture:
        """Return the mixture of ``val``."""
        best = nll_temperature(val)
        target = val.target.cpu()

        def label_probs(temperature: float) -> Tensor:
            chunks = double_rows(val.logits)
            logs = [
                (rows / temperature).log_softmax(dim=1).gather(1, target[at].unsqueeze(1))
                for at, rows in chunks
            ]
            return torch.cat(logs).exp()

        raw = label_probs(1.0)
        parts = torch.cat(
            [label_probs(best.value), raw, torch.full_like(raw, 1 / val.num_classes)], dim=1
        )
        weights, _ = mixture_weights(parts, weights_of(val))
        weights = torch.where(weights < _SMALLEST, 0.0, weights)
        scaled, as_predicted, uniform = (weights / weights.sum()).tolist()
        if uniform <= MAX_UNIFORM:
            return with_doubts(Mixture(best.value, (scaled, as_predicted, uniform)), best.doubt)
        scaled = scaled if scaled + as_predicted else 1.0
        share = (1 - MAX_UNIFORM) / (scaled + as_predicted)
        doubt = at_bound(f"weight {MAX_UNIFORM:g} of the uniform part")
        return with_doubts(
            Mixture(best.value, (scaled * share, as_predicted * share, MAX_UNIFORM)),
            best.doubt,
            doubt,
        )

    def _state(self) -> dict[str, Any]:
        return {"temperature": self.map.temperature, "weights": list(self.map.weights)}

    def _restore(self, state: dict[str, Any]) -> None:
        temperature = check_number("temperature", state["temperature"], low=0.0, low_open=True)
        weights = read_numbers(state, "weights", 3)
        if (
            bool((weights < 0).any())
            or abs(float(weights.sum()) - 1) > 1e-9
            or float(weights[2]) > MAX_UNIFORM
        ):
            raise ValueError(
                f"weights must be at least 0 and sum to 1, the last at most {MAX_UNIFORM:g}"
            )
        scaled, raw, uniform = weights.tolist()
        self._map = Mixture(temperature, (scaled, raw, uniform))
