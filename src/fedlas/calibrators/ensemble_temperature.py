"""Ensemble temperature scaling: a mixture of scaled, raw and uniform predictions."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fedlas._core.check import check_number
from fedlas.calibrators._fit.doubts import at_bound
from fedlas.calibrators._fit.golden_section import golden_section
from fedlas.calibrators._fit.parameters import read_numbers
from fedlas.calibrators._fit.rowwise import double_rows
from fedlas.calibrators._fit.source import weights_of
from fedlas.calibrators._fit.temperature_search import nll_temperature, temperature_range
from fedlas.calibrators.base import CALIBRATORS, MappedCalibrator
from fedlas.predictions import Predictions

__all__ = ["MAX_UNIFORM", "EnsembleTemperatureScaling", "Mixture"]

MAX_UNIFORM = 0.99
"""Largest weight of the uniform part; with a weight of 1 every class would be as likely as any other."""

_GRID = 25
_TOLERANCE = 1e-6
_WEIGHT_TOLERANCE = 1e-11
_MOST_STEPS = 200


class Mixture(nn.Module):
    """``w1 softmax(z / temperature) + w2 softmax(z) + w3 / C``.

    Attributes:
        temperature: Above 0.
        weights: ``(w1, w2, w3)``, at least 0 and summing to 1.
    """

    def __init__(self, temperature: float, weights: tuple[float, float, float]) -> None:
        super().__init__()
        self.temperature, self.weights = temperature, weights

    def forward(self, rows: Tensor) -> Tensor:
        """Its log-probabilities for logits ``(n, C)``."""
        parts = (
            (rows / self.temperature).log_softmax(dim=1),
            rows.log_softmax(dim=1),
            torch.full_like(rows, -math.log(rows.shape[1])),
        )
        # Mixing in log space lets no class underflow; a part of weight 0 has no logarithm and is left out.
        used = [part + math.log(weight) for part, weight in zip(parts, self.weights, strict=True) if weight > 0]
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

    Temperature ``T`` and weights ``w`` on the simplex minimize the negative log-likelihood on validation predictions.
    Every part keeps the order of the classes, and so does their mixture.

    Note:
        ``T`` and ``w`` are optimized together, as in the paper: for each ``T`` the best ``w`` is a convex problem, and
        over ``T`` the grid point with the lowest minimum is refined by golden section. The grid contains the
        temperature of temperature scaling, so on validation data this is never worse. It reaches from the temperature
        at which the model expects two mistakes among the validation samples (see :class:`TemperatureScaling`) to 100
        times the spread of the logits. The paper's alternative loss, the squared error, is not implemented.

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

    @property
    def mixture(self) -> Mixture:
        """The fitted mixture.

        Raises:
            InputError: Before ``fit``.
        """
        return self._fitted("mixture")

    def _fitted_map(self, val: Predictions) -> tuple[Mixture, list[str | None]]:
        mixture, doubt = best_mixture(val)
        scaled, raw, uniform = mixture.weights
        ends = []
        if uniform > MAX_UNIFORM:
            kept = (scaled, raw) if scaled + raw > 0 else (1.0, 0.0)
            share = (1 - MAX_UNIFORM) / sum(kept)
            mixture = Mixture(mixture.temperature, (kept[0] * share, kept[1] * share, MAX_UNIFORM))
            ends.append(f"weight {MAX_UNIFORM:g} of the uniform part")
        return mixture, [doubt, at_bound(*ends)]

    def _state(self) -> dict[str, Any]:
        return {"temperature": self.mixture.temperature, "weights": list(self.mixture.weights)}

    def _restore(self, state: dict[str, Any]) -> None:
        temperature = check_number(self._owner, "temperature", state["temperature"], low=0.0, low_open=True)
        weights = read_numbers(state, "weights", 3)
        if bool((weights < 0).any()) or abs(float(weights.sum()) - 1) > 1e-9 or float(weights[2]) > MAX_UNIFORM:
            raise ValueError(f"weights must be at least 0 and sum to 1, the last at most {MAX_UNIFORM:g}")
        scaled, raw, uniform = weights.tolist()
        self._map = Mixture(temperature, (scaled, raw, uniform))


def best_mixture(val: Predictions) -> tuple[Mixture, str | None]:
    """The mixture with the lowest negative log-likelihood on ``val``, and what to warn about in its temperature."""
    raw = _label_probs(val, 1.0)
    uniform = torch.full_like(raw, 1 / val.num_classes)

    def solve(log_temperature: float) -> tuple[float, Tensor]:
        scaled = _label_probs(val, math.exp(log_temperature))
        return mixture_weights(torch.stack([scaled, raw, uniform], dim=1), weights_of(val))

    # On a logarithmic scale, since temperatures of 0.1 and 10 are equally far from none.
    known = nll_temperature(val)
    surest, highest = temperature_range(val)
    low, high = math.log(min(surest, known.value)), math.log(highest)
    # The minimum over weights need not be convex in the temperature: golden section only refines the best grid point.
    grid = [low + (high - low) * step / (_GRID - 1) for step in range(_GRID)]
    start = math.log(known.value)
    best = min([start, *grid], key=lambda point: solve(point)[0])
    spacing = (high - low) / (_GRID - 1)
    ends = max(low, best - spacing), min(high, best + spacing)
    refined = golden_section(lambda point: solve(point)[0], *ends, _TOLERANCE)
    best = min((best, refined), key=lambda point: solve(point)[0])
    scaled, unscaled, even = solve(best)[1].tolist()
    mixture = Mixture(known.value if best == start else math.exp(best), (scaled, unscaled, even))
    if scaled == 0 or low == high:
        return mixture, None
    if best == start and known.doubt is not None:
        return mixture, known.doubt
    return mixture, at_bound(*([f"temperature {mixture.temperature:g}"] if best in (low, high) else []))


def mixture_weights(parts: Tensor, counts: Tensor | None = None) -> tuple[float, Tensor]:
    """Weights on the simplex with the lowest ``-mean_i log sum_j w_j parts_ij``, and that value.

    Without the constraint that weights sum to 1, but with ``sum_j w_j`` added, the minimum is the same: the slope along
    ``w`` vanishes there exactly if they sum to 1. Each Newton step is therefore a quadratic problem with ``w >= 0``
    only, which is solved exactly by trying every set of weights that are 0.

    Args:
        parts: Probability of each sample's label under each part ``(N, J)``, float64, positive in one part at least;
            few parts.
        counts: Weight of each sample ``(N,)``; None: 1.
    """
    probs = parts.numpy()  # several times faster than torch for so few weights
    weights = np.full(probs.shape[1], 1 / probs.shape[1])
    share = np.full(len(probs), 1 / len(probs)) if counts is None else (counts / counts.sum()).numpy()

    def value(at: NDArray[np.float64]) -> float:
        with np.errstate(divide="ignore"):  # a weight of 0 may leave a sample without any probability
            return float(at.sum() - share @ np.log(probs @ at)) - 1

    current = value(weights)
    for _ in range(_MOST_STEPS):
        ratio = probs / (probs @ weights)[:, None]
        slope = 1 - share @ ratio
        # At the minimum no used weight has a slope, and none that is 0 would lower the value by growing (KKT).
        if np.where(weights > 0, np.abs(slope), -slope).max() <= _WEIGHT_TOLERANCE:
            break
        step = _nonnegative_step((ratio.T * share) @ ratio, slope, weights)
        size = 1.0
        while value(weights + size * step) > current and size > 1e-12:
            size /= 2
        following = (weights + size * step).clip(min=0)
        # A step that does not lower the value has reached the rounding of float64.
        if value(following) >= current:
            break
        weights, current = following, value(following)
    weights = weights / weights.sum()
    return value(weights), torch.from_numpy(weights)


def _nonnegative_step(
    hessian: NDArray[np.float64], slope: NDArray[np.float64], weights: NDArray[np.float64]
) -> NDArray[np.float64]:
    """The step to the minimum of the quadratic model over weights that are at least 0."""
    count = len(weights)
    # Two equal parts make the Hessian singular. The addition damps the step and does not move the minimum.
    hessian = hessian + 1e-9 * hessian.diagonal().max() * np.eye(count)
    wanted = hessian @ weights - slope
    best, best_step = 0.0, np.zeros(count)
    for used in itertools.product((True, False), repeat=count):
        kept = np.flatnonzero(used)
        target = np.zeros(count)
        target[kept] = np.linalg.solve(hessian[np.ix_(kept, kept)], wanted[kept])
        if (target >= 0).all():
            step = target - weights
            change = float(slope @ step + 0.5 * step @ hessian @ step)
            if change < best:
                best, best_step = change, step
    return best_step


def _label_probs(val: Predictions, temperature: float) -> Tensor:
    """Probability of the label ``(N,)`` after division by ``temperature``, float64."""
    target = val.target.cpu()
    parts = [
        (rows / temperature).log_softmax(dim=1).gather(1, target[part].unsqueeze(1))
        for part, rows in double_rows(val.logits)
    ]
    return torch.cat(parts).squeeze(1).exp()
