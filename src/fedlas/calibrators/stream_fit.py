"""Fits in constant memory: the batches are read once a pass."""

from __future__ import annotations

import warnings
from abc import abstractmethod
from collections.abc import Iterable
from typing import Any, Self

from fedlas._core.check import CalibrationWarning
from fedlas.calibrators._fit.source import Stream
from fedlas.calibrators.base import Calibrator

__all__ = ["StreamFit"]


class StreamFit(Calibrator):
    """A calibrator that can be fitted on more samples than memory holds, such as the pixels of images."""

    def fit_stream(self, batches: Iterable[Any]) -> Self:
        """Fit on batches that are read several times, in memory that does not grow with them; return ``self``.

        The result is that of :meth:`fit` on all samples together, within 1e-6.

        Args:
            batches: Can be iterated about ten to twenty times, with the same samples each time: a list, or an object
                whose ``__iter__`` runs a model over a ``DataLoader``. Each is :class:`~fedlas.Predictions`, or logits
                and target of shapes ``(n, C)`` and ``(n,)``, or ``(n, C, d1, ...)`` and ``(n, d1, ...)``.

        Raises:
            InputError: If there are no samples, they cannot be iterated twice or are others then, or as
                :class:`~fedlas.Predictions`.

        Example:
            >>> import torch
            >>> from fedlas import Predictions
            >>> from fedlas.calibrators import TemperatureScaling
            >>> first = torch.tensor([[3.0, 0.0], [3.0, 0.0]]), torch.tensor([0, 0])
            >>> batches = [first, (torch.tensor([[0.0, 3.0], [3.0, 0.0]]), torch.tensor([1, 1]))]
            >>> round(TemperatureScaling().fit_stream(batches).temperature, 4)
            2.7307
        """
        stream = Stream(f"{self._owner}.fit_stream", batches)
        doubt = self._fit_stream(stream)
        self.num_classes, self.num_features = stream.num_classes, None
        if doubt is not None:
            warnings.warn(f"{self._owner}: {doubt}", CalibrationWarning, stacklevel=2)
        return self

    @abstractmethod
    def _fit_stream(self, stream: Stream) -> str | None:
        """As :meth:`_fit`."""
