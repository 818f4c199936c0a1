"""A fitted calibrator as a module behind a model, which exports, compiles and moves with the model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from fedlas._core.check import InputError, describe, is_dense
from fedlas.predictions.tensors import binary_logits

__all__ = ["CalibrationLayer"]


class CalibrationLayer(nn.Module):
    """Module that maps logits to calibrated logits; made by :meth:`~fedlas.calibrators.Calibrator.module`.

    Args:
        row_map: The fitted map of rows ``(n, C)``, or of rows and features ``(n, D)``.
        num_classes: ``C``.
        num_features: ``D`` if the map takes features, else None.
        least_log: Log-probabilities are raised to this before the map; None: logits go in as they are.

    State:
        The fitted numbers are buffers that ``state_dict`` leaves out: the calibrator's own file holds them. They move
        with the model and keep their precision, float32 or (where the map has steps, which rounding could cross)
        float64: ``half()`` of the model does not round them.

    Note:
        Gradients flow through it. Dense logits ``(N, C, d1, ...)`` are calibrated position by position.

    Example:
        >>> from fedlas import Predictions
        >>> from fedlas.calibrators import TemperatureScaling
        >>> val = Predictions([[3.0, 0.0], [3.0, 0.0], [0.0, 3.0], [3.0, 0.0]], [0, 0, 1, 1])
        >>> layer = TemperatureScaling().fit(val).module()
        >>> layer(torch.tensor([[3.0, 0.0]])).softmax(1)
        tensor([[0.7500, 0.2500]])
    """

    def __init__(
        self,
        row_map: nn.Module,
        *,
        num_classes: int,
        num_features: int | None = None,
        least_log: float | None = None,
    ) -> None:
        super().__init__()
        self.map = row_map
        self.num_classes = num_classes
        self.num_features = num_features
        self.least_log = least_log
        for part in row_map.modules():
            for name, buffer in list(part.named_buffers(recurse=False, remove_duplicate=False)):
                part.register_buffer(name, buffer, persistent=False)
        self.precision = torch.float64 if getattr(row_map, "has_steps", False) else torch.float32
        self.map.to(self.precision)

    def forward(self, logits: Tensor, features: Tensor | None = None) -> Tensor:
        """Return calibrated logits, of the shape and dtype of ``logits``.

        Args:
            logits: ``(N, C)`` or ``(N, C, d1, ...)``.
            features: Input of the classifier head at the same positions, ``(N, D)`` or ``(N, D, d1, ...)``, if the
                calibrator needs it.

        Raises:
            InputError: For another number of classes or features.
        """
        rows = _move_columns_last("logits", logits, self.num_classes)
        parts = [rows.reshape(-1, self.num_classes)]
        if self.least_log is not None:
            # Before they are widened, as in transform, so that what lies on an edge stays there.
            parts = [parts[0].log_softmax(dim=1).clamp(min=self.least_log)]
        if self.num_features is not None:
            columns = _move_columns_last("features", features, self.num_features)
            parts.append(columns.reshape(-1, self.num_features))
        calibrated: Tensor = self.map(*(part.to(self.precision) for part in parts))
        return calibrated.to(logits.dtype).reshape(rows.shape).movedim(-1, 1)

    def extra_repr(self) -> str:
        """Return the number of classes and features for ``repr``."""
        features = "" if self.num_features is None else f", num_features={self.num_features}"
        return f"num_classes={self.num_classes}{features}"

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> CalibrationLayer:
        # half() of the model must not round thresholds and factors, of which half precision has three digits.
        def keep(buffer: Tensor) -> Tensor:
            moved = fn(buffer)
            return moved if moved.dtype == buffer.dtype else buffer.to(moved.device)

        return super()._apply(keep, recurse)


def _move_columns_last(name: str, value: Any, columns: int) -> Tensor:
    """Return the tensor with its class or feature dimension last; raise InputError for another size."""
    # A tracer has symbols for sizes, and warns when they are compared.
    tracing = torch.jit.is_tracing()  # type: ignore[attr-defined]  # torch does not export it
    floating = is_dense(value) and value.is_floating_point()
    if not floating or value.ndim < 2 or not (tracing or value.shape[1] == columns):
        raise InputError(
            f"{name} must have shape (N, {columns}) or (N, {columns}, d1, ...) as in the fit",
            describe(value),
            "Put the classes second, logits.movedim(-1, 1), and fit the calibrator on predictions of the same model.",
        )
    return value.movedim(1, -1)


class LabelwiseLayers(nn.Module):
    """Module that calibrates logits ``(N, L)`` with one calibration layer per label."""

    def __init__(self, layers: list[nn.Module]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)

    def forward(self, logits: Tensor, features: Tensor | None = None) -> Tensor:
        """Return calibrated logits ``(N, L)``; their sigmoids are the probabilities.

        Args:
            logits: ``(N, L)``.
            features: ``(N, D)``, if a layer uses them.

        Raises:
            InputError: For another number of labels.
        """
        columns = logits.unbind(dim=1)
        if len(columns) != len(self.layers):
            expected = f"logits must have shape (N, {len(self.layers)}), one column per label"
            raise InputError(
                expected, describe(logits), "Pass logits of the model that was calibrated."
            )
        pairs = [
            layer(binary_logits(column), None if layer.num_features is None else features)
            for layer, column in zip(self.layers, columns, strict=True)
        ]
        return torch.stack([pair[:, 1] - pair[:, 0] for pair in pairs], dim=1)
