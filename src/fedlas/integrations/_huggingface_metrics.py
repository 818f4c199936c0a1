"""Hugging Face: calibration metrics for ``compute_metrics``, for a whole evaluation or batch by batch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fedlas.integrations.positions import valid_positions
from fedlas.metrics import StreamingMetrics


class CalibrationMetrics:
    """Accuracy, NLL, ECE and so on of an evaluation, for the Trainer's ``compute_metrics``.

    Args:
        metrics: Registry names; None for those that :func:`~fedlas.evaluate` computes from logits and target.
        num_bins: Number of bins, at least 1.
        ignore_index: Label that is left out.

    Raises:
        InputError: For a metric that is unknown or cannot be computed from sums; when called, for logits or labels of
            other shapes, or without valid labels.

    State:
        With ``TrainingArguments(batch_eval_metrics=True)`` it is called batch by batch and keeps integer sums of
        ``O(num_bins)`` size, so an evaluation of any length fits in memory. The result clears the sums.

    Example:
        >>> from types import SimpleNamespace
        >>> batch = SimpleNamespace(predictions=np.array([[2.0, 0.0], [0.0, 1.0]]), label_ids=np.array([0, 0]))
        >>> CalibrationMetrics(["accuracy"])(batch)
        {'accuracy': 0.5}
    """

    def __init__(self, metrics: Sequence[str] | None = None, *, num_bins: int = 15, ignore_index: int = -100) -> None:
        self.metrics = None if metrics is None else list(metrics)
        self.num_bins = num_bins
        self.ignore_index = ignore_index
        StreamingMetrics(2, metrics=self.metrics, num_bins=num_bins)  # wrong options raise here, before training
        self._streaming: StreamingMetrics | None = None

    def __call__(self, prediction: Any, compute_result: bool = True) -> dict[str, float]:
        """Add ``prediction.predictions`` and ``.label_ids``; return the metrics if ``compute_result``, else ``{}``."""
        logits, labels = rows_of(prediction.predictions, prediction.label_ids, self.ignore_index)
        if self._streaming is None:
            self._streaming = StreamingMetrics(logits.shape[1], metrics=self.metrics, num_bins=self.num_bins)
        if len(logits):
            self._streaming.update(logits, labels)
        if not compute_result:
            return {}
        metrics, self._streaming = self._streaming.compute(), None
        return metrics


def rows_of(predictions: Any, labels: Any, ignore_index: int) -> tuple[Tensor, Tensor]:
    """Valid rows of logits ``(N, C)`` or ``(N, L, C)``; hidden states after the logits are ignored."""
    logits = predictions[0] if isinstance(predictions, tuple | list) else predictions
    logits, labels = (
        part if isinstance(part, Tensor) else torch.from_numpy(np.array(part)) for part in (logits, labels)
    )
    if logits.ndim == 3:
        logits = logits.movedim(-1, 1)
    return valid_positions(logits, labels, ignore_index=ignore_index)
