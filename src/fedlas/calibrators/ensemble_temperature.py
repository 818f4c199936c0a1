"""Ensemble temperature scaling: a mixture of scaled, raw and uniform predictions."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedlas._core.check import check_number
from fedlas.calibrators.base import CALIBRATORS, Calibrator
from fedlas.calibrators.doubts import joined, unchanged
from fedlas.calibrators.parameters import fitted, read_numbers
from fedlas.calibrators.rowwise import double_rows, map_rows
from fedlas.calibrators.temperature import MAX_TEMPERATURE, MIN_TEMPERATURE, nll_temperature
from fedlas.predictions import Predictions

MAX_UNIFORM = 0.99
"""Largest weight of the uniform part; with a weight of 1 every class would be as likely as any other."""

_GRID = 25
_TOLERANCE = 1e-6
_WEIGHT_TOLERANCE = 1e-11
_MOST_STEPS = 200
_GOLDEN = (math.sqrt(5) - 1) / 2


@dataclass(frozen=True)
class Mixture:
    """``w1 softmax(z / temperature) + w2 softmax(z) + w3 / C``.

    Attributes:
        temperature: Above 0.
        weights: ``(w1, w2, w3)``, at least 0 and summing to 1.
    """

    temperature: float
    weights: tuple[float, float, float]

    def __call__(self, rows: Tensor) -> Tensor:
        """Its log-probabilities for float64 logits ``(n, C)``."""
        parts = (
            (rows / self.temperature).log_softmax(dim=1),
            rows.log_softmax(dim=1),
            torch.full_like(rows, -math.log(rows.shape[1])),
        )
        used = [part + math.log(weight) for part, weight in zip(parts, self.weights, strict=True) if weight > 0]
        return torch.stack(used).logsumexp(dim=0)


@CALIBRATORS.register(
    "ensemble-temperature",
    title="Ensemble temperature",
    paper="Mix-n-Match: Ensemble and Compositional Methods for Uncertainty Calibration in Deep Learning",
    year=2020,
    url="https://arxiv.org/abs/2003.07329",
)
class EnsembleTemperatureScaling(Calibrator):
    """Mixes scaled, raw and uniform predictions, ``w1 softmax(z / T) + w2 softmax(z) + w3 / C``; keeps the class.

    Temperature ``T`` and weights ``w`` on the simplex minimise the negative log-likelihood on validation predictions.
    Every part leaves the order of the classes as it is, and so does their mixture.

    Note:
        The paper writes the problem in ``T`` and ``w`` together, and so it is solved: for each ``T`` the best ``w`` is
        a convex problem, and over ``T``, from 0.01 to 100, the grid point with the lowest minimum is refined by golden
        section. The temperature of temperature scaling is among those tried, so on validation data this is never worse.
        The paper's squared error as an alternative loss is left out.

        ``w3`` is at most 0.99, since a uniform mixture would forget the class. Warns (:class:`CalibrationWarning`) when
        ``w3`` or ``T`` ends at its bound, and when the fit changes nothing.

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

    def __init__(self) -> None:
        self._mixture: Mixture | None = None

    def __repr__(self) -> str:
        return "EnsembleTemperatureScaling()"

    @property
    def mixture(self) -> Mixture:
        """The fitted mixture.

        Raises:
            InputError: Before ``fit``.
        """
        return fitted("EnsembleTemperatureScaling.mixture", self._mixture)

    def _fit(self, val: Predictions) -> str | None:
        mixture = best_mixture(val)
        scaled, raw, uniform = mixture.weights
        at_bound = []
        if scaled > 0 and mixture.temperature in (MIN_TEMPERATURE, MAX_TEMPERATURE):
            at_bound.append(f"temperature {mixture.temperature:g}")
        if uniform > MAX_UNIFORM:
            kept = (scaled, raw) if scaled + raw > 0 else (1.0, 0.0)
            share = (1 - MAX_UNIFORM) / sum(kept)
            mixture = Mixture(mixture.temperature, (kept[0] * share, kept[1] * share, MAX_UNIFORM))
            at_bound.append(f"weight {MAX_UNIFORM:g} of the uniform part")
        self._mixture = mixture
        return joined(
            f"the NLL is lowest at a bound of the search, {' and '.join(at_bound)}. Check that these are logits, and "
            "that the validation set is large enough and not training data."
            if at_bound
            else None,
            unchanged(val, mixture),
        )

    def _transform(self, logits: Tensor) -> Tensor:
        return map_rows(logits, self.mixture)

    def _options(self) -> dict[str, Any]:
        return {}

    def _state(self) -> dict[str, Any]:
        return {"temperature": self.mixture.temperature, "weights": list(self.mixture.weights)}

    def _restore(self, state: dict[str, Any]) -> None:
        temperature = check_number(self._owner, "temperature", state["temperature"], low=0.0, low_open=True)
        weights = read_numbers(state, "weights", 3)
        if bool((weights < 0).any()) or abs(float(weights.sum()) - 1) > 1e-9 or float(weights[2]) > MAX_UNIFORM:
            raise ValueError(f"weights must be at least 0 and sum to 1, the last at most {MAX_UNIFORM:g}")
        scaled, raw, uniform = weights.tolist()
        self._mixture = Mixture(temperature, (scaled, raw, uniform))


def best_mixture(val: Predictions) -> Mixture:
    """The mixture with the lowest negative log-likelihood on ``val``, temperatures from 0.01 to 100."""
    raw = _label_probs(val, 1.0)
    uniform = torch.full_like(raw, 1 / val.num_classes)

    def solve(log_temperature: float) -> tuple[float, Tensor]:
        scaled = _label_probs(val, math.exp(log_temperature))
        return mixture_weights(torch.stack([scaled, raw, uniform], dim=1))

    low, high = math.log(MIN_TEMPERATURE), math.log(MAX_TEMPERATURE)
    grid = [low + (high - low) * step / (_GRID - 1) for step in range(_GRID)]
    known = math.log(nll_temperature(val))
    best = min([known, *grid], key=lambda point: solve(point)[0])
    spacing = (high - low) / (_GRID - 1)
    refined = _golden_section(lambda point: solve(point)[0], max(low, best - spacing), min(high, best + spacing))
    best = min((best, refined), key=lambda point: solve(point)[0])
    temperature = {low: MIN_TEMPERATURE, high: MAX_TEMPERATURE}.get(best, math.exp(best))
    scaled, unscaled, even = solve(best)[1].tolist()
    return Mixture(temperature, (scaled, unscaled, even))


def mixture_weights(parts: Tensor) -> tuple[float, Tensor]:
    """Weights on the simplex with the lowest ``-mean_i log sum_j w_j parts_ij``, and that value.

    Without the constraint that weights sum to 1, but with ``sum_j w_j`` added, the minimum is the same: the slope along
    ``w`` vanishes there exactly if they sum to 1. So each Newton step is a quadratic problem with ``w >= 0`` only,
    which is solved exactly by trying which weights are 0.

    Args:
        parts: Probability of each sample's label under each part ``(N, J)``, float64, positive in one part at least;
            few parts.
    """
    probs = parts.numpy()  # on a handful of weights NumPy is several times faster than torch
    weights = np.full(probs.shape[1], 1 / probs.shape[1])

    def value(at: NDArray[np.float64]) -> float:
        with np.errstate(divide="ignore"):  # a weight of 0 may leave a sample without any probability
            return float(at.sum() - np.log(probs @ at).mean()) - 1

    current = value(weights)
    for _ in range(_MOST_STEPS):
        ratio = probs / (probs @ weights)[:, None]
        slope = 1 - ratio.mean(axis=0)
        if np.where(weights > 0, np.abs(slope), -slope).max() <= _WEIGHT_TOLERANCE:
            break
        step = _nonnegative_step(ratio.T @ ratio / len(ratio), slope, weights)
        size = 1.0
        while value(weights + size * step) > current and size > 1e-12:
            size /= 2
        following = (weights + size * step).clip(min=0)
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
    # Two parts that are equal make the Hessian singular. The addition damps the step and leaves the minimum alone.
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


def _golden_section(function: Callable[[float], float], low: float, high: float) -> float:
    """Where ``function`` is lowest between ``low`` and ``high``, if it falls and then rises there."""
    left, right = high - _GOLDEN * (high - low), low + _GOLDEN * (high - low)
    at_left, at_right = function(left), function(right)
    while high - low > _TOLERANCE:
        if at_left <= at_right:
            high, right, at_right = right, left, at_left
            left = high - _GOLDEN * (high - low)
            at_left = function(left)
        else:
            low, left, at_left = left, right, at_right
            right = low + _GOLDEN * (high - low)
            at_right = function(right)
    return (low + high) / 2


def _label_probs(val: Predictions, temperature: float) -> Tensor:
    """Probability of the label ``(N,)`` after division by ``temperature``, float64."""
    target = val.target.cpu()
    parts = [
        (rows / temperature).log_softmax(dim=1).gather(1, target[part].unsqueeze(1))
        for part, rows in double_rows(val.logits)
    ]
    return torch.cat(parts).squeeze(1).exp()
