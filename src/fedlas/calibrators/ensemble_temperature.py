"""Ensemble temperature scaling: a mixture of scaled, raw and uniform predictions."""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from torch import Tensor, nn

from fedlas.calibrators._fit.doubts import at_bound, with_doubts
from fedlas.calibrators._fit.mixture import mixture_weights
from fedlas.calibrators._fit.rowwise import double_rows, weights_of
from fedlas.calibrators._fit.state import Numbers, must, scalar
from fedlas.calibrators._fit.temperature_search import nll_temperature
from fedlas.calibrators.base import CALIBRATORS, Calibrator
from fedlas.predictions import Predictions

__all__ = ["MAX_UNIFORM", "EnsembleTemperatureScaling", "Mixture"]

MAX_UNIFORM = 0.99
"""Largest weight of the uniform part; with a weight of 1 every class would be as likely as any other."""

_SMALLEST = 1e-6
"""Parts of a smaller weight are left out."""


class Mixture(Numbers):
    """``w1 softmax(z / temperature) + w2 softmax(z) + w3 / C``.

    Attributes:
        temperature: Above 0 ``()``.
        weights: ``(w1, w2, w3)``, at least 0 and summing to 1.
    """

    shapes: ClassVar = {"temperature": "", "weights": "3"}
    temperature: Tensor
    weights: Tensor

    def forward(self, rows: Tensor) -> Tensor:
        """Return its log-probabilities for logits ``(n, C)``."""
        parts = (
            (rows / self.temperature).log_softmax(dim=1),
            rows.log_softmax(dim=1),
            torch.full_like(rows, -math.log(rows.shape[1])),
        )
        # Mixing in log space lets no class underflow.
        return (torch.stack(parts) + self.weights.log().view(3, 1, 1)).logsumexp(dim=0)

    def check(self, classes: int) -> None:
        """Refuse numbers that are no temperature and no weights too."""
        super().check(classes)
        must(self.temperature > 0, "temperature must be above 0")
        positive = len(self.weights) == 3 and bool((self.weights >= 0).all())
        fits = positive and abs(float(self.weights.sum()) - 1) <= 1e-9
        must(
            fits and float(self.weights[2]) <= MAX_UNIFORM,
            f"weights must be at least 0 and sum to 1, the last at most {MAX_UNIFORM:g}",
        )


@CALIBRATORS.register(
    "ensemble-temperature",
    title="Ensemble temperature",
    paper="Mix-n-Match: Ensemble and Compositional Methods for Uncertainty Calibration in Deep Learning",
    year=2020,
    url="https://arxiv.org/abs/2003.07329",
)
class EnsembleTemperatureScaling(Calibrator):
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

    map_type = Mixture
    keeps_argmax = True
    per_class = False

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
        weights = weights / weights.sum()
        doubt = None
        if float(weights[2]) > MAX_UNIFORM:
            if not float(weights[:2].sum()):
                weights[0] = 1.0
            weights[:2] *= (1 - MAX_UNIFORM) / weights[:2].sum()
            weights[2] = MAX_UNIFORM
            doubt = at_bound(f"weight {MAX_UNIFORM:g} of the uniform part")
        return with_doubts(
            Mixture(temperature=scalar(best.value), weights=weights), best.doubt, doubt
        )
