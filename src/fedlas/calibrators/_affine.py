"""Base of vector, matrix and Dirichlet calibration: an affine map of logits or log-probabilities."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from fedlas.calibrators._fit.affine_map import AffineMap
from fedlas.calibrators._fit.doubts import some, unconverged, when
from fedlas.calibrators._fit.parameters import read_numbers
from fedlas.calibrators._fit.rowwise import double_rows
from fedlas.calibrators._fit.source import Source, weights_of
from fedlas.calibrators._fit.temperature_search import nll_temperature
from fedlas.calibrators.base import MappedCalibrator
from fedlas.predictions import Predictions

# Factors that are more times larger than that of temperature scaling are extreme.
_EXTREME = 10.0


SEPARATED = (
    "every validation label can be predicted, so the likelihood has no maximum and only a weak penalty bounds the "
    "parameters. Check that the validation set is large enough and not training data."
)


@dataclass(frozen=True)
class Start:
    """Temperature scaling of the inputs, where the regression starts and what it must beat.

    Attributes:
        scale: The inputs times this number are the predictions after temperature scaling.
        width: The unit of what the regression may change of it: the scale or, if that makes predictions nearly uniform,
            one over the spread of the inputs.
        unit: What the inputs were divided by.
        doubt: What temperature scaling warns about.
    """

    scale: float
    width: float
    unit: float = 1.0
    doubt: str | None = None

    def as_map(self, like: Tensor) -> AffineMap:
        """Temperature scaling as an affine map of the inputs ``(N, C)``, with a diagonal for the weight."""
        factors = torch.full((like.shape[1],), self.scale, dtype=torch.float64, device="cpu")
        return AffineMap(factors, torch.zeros_like(factors))


class AffineCalibrator(MappedCalibrator[AffineMap]):
    """An affine map in front of the softmax; temperature scaling, unless held-out samples show that the map is better.

    A subclass writes ``_inputs``, ``_regression`` and ``_restore``.
    """

    keeps_argmax = False
    _diagonal: ClassVar[bool]
    """Whether the weight is a diagonal."""

    @property
    def weight(self) -> Tensor:
        """``W (C, C)``, or its diagonal ``(C,)``; float64.

        Raises:
            InputError: Before ``fit``.
        """
        return self._fitted("weight").weight

    @property
    def bias(self) -> Tensor:
        """``b (C,)``, float64.

        Raises:
            InputError: Before ``fit``.
        """
        return self._fitted("bias").bias

    @abstractmethod
    def _inputs(self, logits: Tensor) -> Tensor:
        """The input of the map, from logits ``(n, C)``."""

    @abstractmethod
    def _regression(self, inputs: Tensor, val: Predictions, start: Start) -> tuple[AffineMap | None, str | None]:
        """The map of ``inputs`` fitted to the labels of ``val``, and what to warn about.

        No map, and why, if temperature scaling shall stand instead.
        """

    def _fitted_map(self, val: Predictions) -> tuple[AffineMap, list[str | None]]:
        inputs = self._inputs(val.logits.cpu())
        unit = unit_of(float(inputs.abs().max()))
        start = temperature_start(val, unit)
        fit, doubt = self._regression(inputs if unit == 1 else inputs.double() / unit, val, start)
        if fit is None:
            factors = start.as_map(inputs).weight / unit
            weight = factors if self._diagonal else torch.diag(factors)
            return AffineMap(weight, torch.zeros_like(factors)), [doubt, start.doubt]
        affine = AffineMap(fit.weight / unit, fit.bias, fit.converged)
        count = torch.bincount(val.target.cpu(), weights_of(val), minlength=val.num_classes)
        off = far_off(count, fit.weight / start.width)
        return affine, [unconverged(affine.converged), doubt, off, self._separated(val, affine)]

    def _separated(self, val: Predictions, affine: AffineMap) -> str | None:
        """A doubt if every label is predicted before or after the fit: the likelihood then rises without end."""
        wrong_after = any(
            bool((affine(self._inputs(rows)).argmax(dim=1) != val.target[part].cpu()).any())
            for part, rows in double_rows(val.logits)
        )
        return when(val.num_classes > 1 and (bool(val.correct.all()) or not wrong_after), SEPARATED)

    def _calibrate(self, rows: Tensor) -> Tensor:
        return super()._calibrate(self._inputs(rows))

    def _state(self) -> dict[str, Any]:
        return {"weight": self.weight.tolist(), "bias": self.bias.tolist()}


def unit_of(largest: float) -> float:
    """What inputs are divided by, the largest of which is given."""
    # Far from 1, squares of the inputs would overflow. Elsewhere nothing is divided, and so nothing copied.
    return 1.0 if 1e-100 < largest < 1e100 or largest == 0 else largest


def temperature_start(val: Predictions | Source, unit: float = 1.0) -> Start:
    """Temperature scaling of ``val`` as the start of a regression on inputs that were divided by ``unit``."""
    best = nll_temperature(val)
    scale = unit / best.value
    return Start(scale, max(scale, unit / best.spread), unit, best.doubt)


def far_off(count: Tensor, relative: Tensor) -> str | None:
    """A doubt if factors of a class are negative or extreme.

    ``relative`` is the weight divided by that of temperature scaling, ``(C, C)`` or its diagonal ``(C,)``. A class
    without a sample (``count`` has those of each class) says nothing about its factor, and has a warning of its own.
    """
    factors = relative if relative.ndim == 1 else relative.diagonal()
    off = (((factors <= 0) | (factors > _EXTREME)) & (count > 0)).nonzero().squeeze(1).tolist()
    return when(
        off and len(count) > 1,
        f"the factor of a class's own logit is not between 0 and {_EXTREME:g} times that of temperature scaling for "
        f"{some(off)}: below 0, a higher logit means a lower probability. Check that logits and labels belong "
        "together, and use a larger validation set, or temperature scaling.",
    )


def read_map(state: dict[str, Any], *shape: int | None) -> AffineMap:
    """The map in a calibrator's file, ``weight`` of that shape; raises as ``read_numbers`` does."""
    return AffineMap(read_numbers(state, "weight", *shape), read_numbers(state, "bias", shape[0]))
