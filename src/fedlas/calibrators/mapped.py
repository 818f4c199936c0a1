"""Calibrators whose fitted state is one module."""

from __future__ import annotations

import copy
from abc import abstractmethod
from typing import Any, ClassVar, Generic, Self, TypeVar

import torch
from torch import Tensor, nn

from fedlas.calibrators._fit.doubts import absent_classes, joined, unchanged
from fedlas.calibrators._fit.parameters import fitted, read_array
from fedlas.calibrators._fit.rowwise import map_rows
from fedlas.calibrators.base import Calibrator
from fedlas.predictions import Predictions

__all__ = ["MappedCalibrator"]

M = TypeVar("M", bound=nn.Module)


class MappedCalibrator(Calibrator, Generic[M]):
    """A calibrator whose fitted state is one module of rows of logits, ``(n, C)`` to ``(n, C)``, in float64.

    A subclass writes ``fit_map`` and names the class of the map, ``map_type``, whose buffers are the state. ``fit_map``
    heeds the weights of ``val``, or the subclass sets ``takes_weights`` to False.

    Attributes:
        map_type: Class attribute: a module whose constructor takes its buffers by name. A file holds the buffers.
    """

    map_type: ClassVar[type[nn.Module] | None] = None
    takes_weights = True
    _map: M | None = None
    _per_class: ClassVar[bool] = True
    """Whether it has parameters for each class, so that a class without samples deserves a warning."""

    @abstractmethod
    def fit_map(self, val: Predictions, start: nn.Module | None = None) -> M:
        """Return the map fitted on labeled predictions; the calibrator itself stays as it was.

        Args:
            val: With labels, and with weights that :meth:`fit` would take.
            start: The map of more samples, of which ``val`` are a part; a fit may start there and end at fewer digits.

        Returns:
            A module of float64 logits ``(n, C)`` that returns calibrated ones. Texts in its attribute ``doubts`` become
            warnings of :meth:`fit`.
        """

    def with_map(self, row_map: nn.Module, num_classes: int) -> Self:
        """Return a fitted copy of the calibrator, whose :meth:`fit_map` returned this map for ``num_classes``."""
        fitted_copy: Any = copy.copy(self)
        fitted_copy._map = row_map
        fitted_copy.num_classes = num_classes
        return fitted_copy

    @property
    def map(self) -> M:
        """The fitted module, from float64 logits ``(n, C)`` to calibrated ones; its attributes are what was fitted.

        Raises:
            InputError: Before ``fit``.
        """
        return self._fitted()

    def _fitted(self) -> M:
        return fitted(self._map)

    def _fit(self, val: Predictions) -> str | None:
        self._map = self.fit_map(val)
        features = None if self._features_used(val) is None else val.features
        absent = absent_classes(val) if self._per_class else None
        return joined(
            *getattr(self._map, "doubts", ()), absent, unchanged(val, self._map, features)
        )

    def _transform_predictions(self, test: Predictions) -> Tensor:
        features = None if self.num_features is None else test.features
        return map_rows(test.logits, self._fitted(), features)

    def _row_map(self) -> nn.Module:
        return copy.deepcopy(self._fitted())

    def _state(self) -> dict[str, Any]:
        return {name: buffer.tolist() for name, buffer in self._fitted().named_buffers()}

    def _restore(self, state: dict[str, Any]) -> None:
        if self.map_type is None:
            raise ValueError(f"{self._owner} must name its map_type")
        row_map: Any = self.map_type(**{name: read_array(state, name) for name in state})
        classes = self.num_classes or 1
        columns = [classes] if self.num_features is None else [classes, self.num_features]
        probe = [torch.zeros(2, each, dtype=torch.float64, device="cpu") for each in columns]
        try:
            fits = row_map(*probe).shape == probe[0].shape
        except RuntimeError as error:
            raise ValueError(str(error)) from error
        if not fits:
            raise ValueError("the buffers must make a map of the classes")
        self._map = row_map
