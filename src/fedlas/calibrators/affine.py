"""What vector, matrix and Dirichlet calibration have in common: an affine map of logits or log-probabilities."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fedlas.calibrators.base import Calibrator
from fedlas.calibrators.doubts import absent_classes, joined, unchanged, unconverged
from fedlas.calibrators.parameters import fitted, read_numbers
from fedlas.calibrators.rowwise import double_rows, map_rows
from fedlas.calibrators.temperature import MAX_TEMPERATURE, MIN_TEMPERATURE, nll_temperature
from fedlas.predictions import Predictions


@dataclass(frozen=True, eq=False)
class AffineMap:
    """``x -> W x + b`` in float64.

    Attributes:
        weight: ``W (C, C)``, or its diagonal ``(C,)`` if it has nothing else.
        bias: ``b (C,)``.
        converged: Whether the gradient vanished where the fit ended.
    """

    weight: Tensor
    bias: Tensor
    converged: bool = True

    def __call__(self, inputs: Tensor) -> Tensor:
        """The map of each row of ``inputs (n, C)``."""
        return apply_weight(self.weight, inputs) + self.bias

    def negative_log_likelihood(self, inputs: Tensor, target: Tensor) -> float:
        """Sum of ``-log softmax(W x + b)[y]`` over the rows."""
        total = 0.0
        for part, rows in double_rows(inputs):
            total += float(torch.nn.functional.cross_entropy(self(rows), target[part].cpu(), reduction="sum"))
        return total


def apply_weight(weight: Tensor, rows: Tensor) -> Tensor:
    """``W x`` for rows ``x``; ``W`` is a matrix or the diagonal of one."""
    return rows * weight if weight.ndim == 1 else rows @ weight.T


class AffineCalibrator(Calibrator):
    """An affine map in front of the softmax, fitted with temperature scaling as its start.

    A subclass writes ``_inputs``, ``_fitted_map`` and ``_options``.
    """

    keeps_argmax = False
    _map: AffineMap | None = None

    @property
    def weight(self) -> Tensor:
        """``W (C, C)``, or its diagonal ``(C,)``; float64.

        Raises:
            InputError: Before ``fit``.
        """
        return fitted(f"{self._owner}.weight", self._map).weight

    @property
    def bias(self) -> Tensor:
        """``b (C,)``, float64.

        Raises:
            InputError: Before ``fit``.
        """
        return fitted(f"{self._owner}.bias", self._map).bias

    @abstractmethod
    def _inputs(self, logits: Tensor) -> Tensor:
        """What the map is applied to, from logits ``(n, C)``."""

    @abstractmethod
    def _fitted_map(self, inputs: Tensor, val: Predictions, scale: float) -> tuple[AffineMap, str | None]:
        """The map fitted on ``inputs`` and the labels of ``val``, and what to warn of.

        ``scale`` times the inputs are the predictions after temperature scaling.
        """

    def _fit(self, val: Predictions) -> str | None:
        self._map, doubt = self._fitted_map(self._inputs(val.logits.cpu()), val, temperature_scale(val))
        return joined(
            unconverged(self._map.converged),
            doubt,
            _separated(val, self._calibrate),
            absent_classes(val),
            unchanged(val, self._calibrate),
        )

    def _transform(self, logits: Tensor) -> Tensor:
        return map_rows(logits, self._calibrate)

    def _calibrate(self, rows: Tensor) -> Tensor:
        return fitted(self._owner, self._map)(self._inputs(rows))

    def _state(self) -> dict[str, Any]:
        return {"weight": self.weight.tolist(), "bias": self.bias.tolist()}


def temperature_scale(val: Predictions) -> float:
    """``1 / temperature`` of temperature scaling, whatever the size of the logits.

    The temperature is fitted to logits divided by their spread, the root mean square of a logit's distance from its
    row's mean, so that the bounds of the fit are relative to it. Where it ends at one, the spread stands for it.
    """
    square = sum(
        float((rows - rows.mean(dim=1, keepdim=True)).square().mean(dim=1).sum()) for _, rows in double_rows(val.logits)
    )
    spread = math.sqrt(square / val.num_samples)
    if spread == 0:
        return 1.0
    temperature = nll_temperature(Predictions(val.logits.cpu().double() / spread, val.target))
    return 1 / spread / (1.0 if temperature in (MIN_TEMPERATURE, MAX_TEMPERATURE) else temperature)


def read_map(state: dict[str, Any], *shape: int | None) -> AffineMap:
    """The map that a calibrator's file holds, ``weight`` of that shape; errors as of ``read_numbers``."""
    return AffineMap(read_numbers(state, "weight", *shape), read_numbers(state, "bias", shape[0]))


def _separated(val: Predictions, calibrate: Callable[[Tensor], Tensor]) -> str | None:
    """A doubt if every label is predicted, before the fit or after it: then larger parameters are ever better."""
    if val.num_classes == 1:
        return None
    wrong_after = any(
        bool((calibrate(rows).argmax(dim=1) != val.target[part].cpu()).any()) for part, rows in double_rows(val.logits)
    )
    if wrong_after and not bool(val.correct.all()):
        return None
    return (
        "every validation label can be predicted, so the likelihood has no maximum and only a weak penalty bounds the "
        "parameters. Check that the validation set is large enough and not training data."
    )
