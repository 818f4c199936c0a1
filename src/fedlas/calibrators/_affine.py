"""Base of vector, matrix and Dirichlet calibration: an affine map of logits or log-probabilities."""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import Any

from torch import Tensor

from fedlas.calibrators._fit.affine_map import AffineMap
from fedlas.calibrators._fit.doubts import unconverged, when
from fedlas.calibrators._fit.parameters import read_numbers
from fedlas.calibrators._fit.rowwise import double_rows
from fedlas.calibrators.base import MappedCalibrator
from fedlas.calibrators.temperature import BOUNDS, nll_temperature
from fedlas.predictions import Predictions


class AffineCalibrator(MappedCalibrator[AffineMap]):
    """An affine map in front of the softmax; the fit starts from temperature scaling.

    A subclass writes ``_inputs``, ``_regression`` and ``_restore``.
    """

    keeps_argmax = False

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
    def _regression(self, inputs: Tensor, val: Predictions, scale: float) -> tuple[AffineMap, str | None]:
        """The map fitted on ``inputs`` and the labels of ``val``, and what to warn about.

        ``scale`` times the inputs are the predictions after temperature scaling.
        """

    def _fitted_map(self, val: Predictions) -> tuple[AffineMap, list[str | None]]:
        affine, doubt = self._regression(self._inputs(val.logits.cpu()), val, temperature_scale(val))
        return affine, [unconverged(affine.converged), doubt, self._separated(val, affine)]

    def _separated(self, val: Predictions, affine: AffineMap) -> str | None:
        """A doubt if every label is predicted before or after the fit: the likelihood then rises without end."""
        wrong_after = any(
            bool((affine(self._inputs(rows)).argmax(dim=1) != val.target[part].cpu()).any())
            for part, rows in double_rows(val.logits)
        )
        return when(
            val.num_classes > 1 and (bool(val.correct.all()) or not wrong_after),
            "every validation label can be predicted, so the likelihood has no maximum and only a weak penalty bounds "
            "the parameters. Check that the validation set is large enough and not training data.",
        )

    def _calibrate(self, rows: Tensor) -> Tensor:
        return super()._calibrate(self._inputs(rows))

    def _state(self) -> dict[str, Any]:
        return {"weight": self.weight.tolist(), "bias": self.bias.tolist()}


def temperature_scale(val: Predictions) -> float:
    """``1 / temperature`` of temperature scaling, for logits of any size.

    The temperature is fitted to logits divided by their spread, the root mean square of a logit's distance from its
    row's mean, so that the bounds of the fit are relative to it. At a bound the spread alone is used.
    """
    square = sum(
        float((rows - rows.mean(dim=1, keepdim=True)).square().mean(dim=1).sum()) for _, rows in double_rows(val.logits)
    )
    spread = math.sqrt(square / val.num_samples)
    if spread == 0:
        return 1.0
    temperature = nll_temperature(Predictions(val.logits.cpu().double() / spread, val.target))
    return 1 / spread / (1.0 if temperature in BOUNDS else temperature)


def read_map(state: dict[str, Any], *shape: int | None) -> AffineMap:
    """The map in a calibrator's file, ``weight`` of that shape; raises as ``read_numbers`` does."""
    return AffineMap(read_numbers(state, "weight", *shape), read_numbers(state, "bias", shape[0]))
