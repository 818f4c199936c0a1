"""Base of Platt and beta calibration: a logistic regression for each class against the rest."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import logsigmoid

from fedlas.calibrators._fit.parameters import read_numbers
from fedlas.calibrators.base import MappedCalibrator

Features = Callable[[Tensor], Tensor]
"""From float64 logits ``(n, C)`` to the features of each class ``(n, C, F)``."""


class Sigmoids(nn.Module):
    """``log sigmoid(sum_f a_kf x_ikf + c_k)`` for each class ``k``.

    Attributes:
        features: ``x``; a function of a module, so that the map can be pickled.
        numbers: ``a`` and ``c`` as ``(C, F + 1)``, float64.
    """

    numbers: Tensor

    def __init__(self, features: Features, numbers: Tensor) -> None:
        super().__init__()
        self.features = features
        self.register_buffer("numbers", numbers, persistent=False)

    def forward(self, rows: Tensor) -> Tensor:
        """Calibrated logits of logits ``(n, C)``; their softmax divides the sigmoids by their sum."""
        factors, offset = self.numbers[:, :-1], self.numbers[:, -1]
        return logsigmoid((self.features(rows) * factors).sum(dim=2) + offset)


class OneVsRestCalibrator(MappedCalibrator[Sigmoids]):
    """One logistic regression for each class; a subclass names the parameters and fits them."""

    keeps_argmax = False
    _names: ClassVar[tuple[str, ...]]

    @staticmethod
    @abstractmethod
    def _features(rows: Tensor) -> Tensor:
        """See :data:`Features`."""

    def _parameter(self, name: str) -> Tensor:
        """One of the parameters for each class ``(C,)``."""
        return self._fitted(name).numbers[:, self._names.index(name)]

    def _state(self) -> dict[str, Any]:
        return {name: self._parameter(name).tolist() for name in self._names}

    def _restore(self, state: dict[str, Any]) -> None:
        parameters = torch.stack([read_numbers(state, name, self.num_classes) for name in self._names], dim=1)
        self._map = Sigmoids(self._features, parameters)
