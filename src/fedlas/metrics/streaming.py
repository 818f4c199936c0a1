"""Streaming metrics: sums in constant memory that can be merged over batches, shards and ranks."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from fedlas._core.check import (
    LARGEST,
    InputError,
    check_count,
    describe,
    suggestion,
)
from fedlas.metrics.accumulator import Accumulator
from fedlas.metrics.classwise import ClasswiseSums
from fedlas.metrics.evaluation import default_metrics, resolve_metrics
from fedlas.metrics.groups import (
    ClassCalibration,
    calibration_from_sums,
)
from fedlas.metrics.metric import METRICS, Metric, make_sums, metric_value
from fedlas.metrics.sums import Sums, check_weights_supported
from fedlas.predictions import Predictions

_MAX_PENDING = 2**18
"""Logits that wait at most: 1 MiB in single precision."""


class StreamingMetrics(Accumulator):
    """Metrics of samples that arrive in batches, in memory independent of their number.

    Everything is kept as float64 sums, so batches, shards and ranks add up in any order, and the numbers equal those of
    :func:`~fedlas.evaluate`, within 1e-12. Only metrics that need all confidences at once (adaptive ECE, KS, AURC and
    ACE) come from a fixed grid, and :meth:`error_bounds` says how far they can be off.

    Args:
        num_classes: ``C``.
        metrics: Registry names; None for those that :func:`~fedlas.evaluate` computes from logits and target.
        num_bins: Number of bins of the metrics that have any, at least 1.
        weighted: Whether every sample comes with a weight.

    Raises:
        InputError: For options out of range, or a metric that is unknown or cannot be computed from sums, or knows of
            no weights and shall have some.

    State:
        ``state_dict()`` holds float64 tensors: with the default metrics and 15 bins, 1 MiB and 500 bytes a class; ACE
        has 35 MiB at most up to 511 classes, and 70 kB a class beyond.

    Note:
        The same rows must come in one precision from one device: a GPU's softmax differs in the last bit. Small batches
        wait and are taken in together, at the latest when a result is asked for.

    Example:
        >>> first, second = (StreamingMetrics(2, metrics=["accuracy", "ece"]) for _ in range(2))
        >>> first.update(torch.tensor([[2.0, 0.0]]), torch.tensor([0]))
        >>> second.update(torch.tensor([[0.0, 1.0]]), torch.tensor([0]))
        >>> first.merge(second)
        >>> first.num_samples, first.compute()["accuracy"]
        (2, 0.5)
    """

    def __init__(
        self,
        num_classes: int,
        *,
        metrics: Iterable[str] | None = None,
        num_bins: int = 15,
        weighted: bool = False,
    ) -> None:
        super().__init__(weighted=weighted)
        self.num_classes = check_count("num_classes", num_classes)
        self.num_bins = check_count("num_bins", num_bins)
        try:
            names = None if metrics is None else list(metrics)
        except TypeError as error:
            raise InputError(
                "metrics must be a list of names", describe(metrics), "Pass a list of names."
            ) from error
        empty = template_predictions(self.num_classes)
        entries = (
            _default_streaming_metrics(empty) if names is None else resolve_metrics(names, empty)
        )
        self._pending: list[tuple[Tensor, Tensor]] = []
        self._rows_pending = 0
        self._needs_label_probs = any("label_probs" in each.needs for each in entries)
        self._entries = {each.name: each for each in entries}
        self._sources: dict[str, Sums] = {}
        by_source: dict[object, Sums] = {}
        for metric in entries:
            statistic = make_sums(metric, empty, self.num_bins)
            if statistic is None:
                able = [each.name for each in METRICS.entries() if make_sums(each, empty, 1)]
                raise InputError(
                    "metrics must be computable from sums",
                    repr(metric.name),
                    suggestion("", able),
                )
            if weighted and not statistic.takes_weights:
                check_weights_supported(template_predictions(1, weighted=True), takes_weights=False)
            source = metric.quantity or type(statistic)
            if source not in by_source:
                by_source[source] = statistic
                self._register_sums(statistic, metric.name + ".{}")
            self._sources[metric.name] = by_source[source]

    @property
    def metrics(self) -> tuple[str, ...]:
        """Registry names of the metrics."""
        return tuple(self._sources)

    def update(
        self,
        logits: Tensor,
        target: Tensor,
        *,
        label_probs: Tensor | None = None,
        weights: Tensor | None = None,
    ) -> None:
        """Add a batch.

        Args:
            logits: ``(N, C)``, finite, on any device.
            target: Labels ``(N,)``.
            label_probs: Label distributions ``(N, C)``, for metrics that need them.
            weights: Weights of the samples ``(N,)``, if and only if it was made with ``weighted=True``; on the same
                scale in all batches.

        Raises:
            InputError: As :class:`~fedlas.Predictions`, for another number of classes, without ``label_probs`` that a
                metric needs, or if weights are missing or surplus. After any error the state is what it was before.
        """
        if weights is None and label_probs is None and self._can_defer(logits, target):
            self._pending.append((logits.detach().clone(), target.clone()))
            self._rows_pending += target.shape[0]
            if self._rows_pending * self.num_classes >= _MAX_PENDING:
                self._flush_pending()
            return
        batch = self._make_batch(logits, target, weights, label_probs=label_probs)
        if self._needs_label_probs and label_probs is None:
            raise InputError(
                "label_probs must be passed for these metrics",
                "none",
                "Pass label_probs with every batch, or leave those metrics out.",
            )
        self._flush_pending()
        self._accumulate(batch, self._parts)

    def _can_defer(self, logits: Any, target: Any) -> bool:
        """Return whether a batch is small, valid and of the same form as the pending batches."""
        # Small batches cost more in calls than in arithmetic.
        if self.weighted or self._needs_label_probs:
            return False
        both = (logits, target)
        if any(type(each) is not Tensor or each.is_nested or each.is_meta for each in both):
            return False
        form = (logits.dtype, logits.device, logits.layout)
        waiting = self._pending[0][0] if self._pending else logits
        if (
            target.ndim != 1
            or logits.shape != (len(target), self.num_classes)
            or not 0 < logits.numel() <= _MAX_PENDING
            or form != (waiting.dtype, waiting.device, torch.strided)
            or not logits.is_floating_point()
            or (target.dtype, target.layout) != (torch.int64, torch.strided)
        ):
            return False
        low, high = target.aminmax()
        largest = float(logits.detach().float().abs().amax())  # NaN is not at most LARGEST
        return largest <= LARGEST and int(low) >= 0 and int(high) < self.num_classes

    def _flush_pending(self) -> None:
        """Add the pending batches to the sums."""
        if pending := self._pending:
            self._pending = []
            try:
                logits, target = (torch.cat(each) for each in zip(*pending, strict=True))
                self._accumulate(Predictions(logits, target), self._parts)
            except BaseException:
                self._pending = pending
                raise
            self._rows_pending = 0

    def reset(self) -> None:
        """Set all sums to zero."""
        self._pending = []
        self._rows_pending = 0
        super().reset()

    @property
    def _tensors(self) -> dict[str, Tensor]:
        self._flush_pending()
        return self._sums

    @property
    def num_samples(self) -> int:
        """Number of samples so far."""
        return int(self._sums["num_samples"]) + self._rows_pending

    def compute(self) -> dict[str, float]:
        """Return every metric over all samples so far, by registry name.

        Raises:
            InputError: If there are none.
        """
        self._require_samples()
        self._flush_pending()
        return {
            name: metric_value(self._entries[name], each) for name, each in self._sources.items()
        }

    def error_bounds(self) -> dict[str, float]:
        """Return an upper bound of each metric's discretization error in :meth:`compute`; 0 for most."""
        self._require_samples()
        self._flush_pending()
        bounds = {}
        for name, each in self._sources.items():
            error = self._entries[name].error
            bounds[name] = 0.0 if error is None else error(each.table())
        return bounds

    @property
    def _arguments(self) -> dict[str, Any]:
        return {"num_classes": self.num_classes, "metrics": self.metrics, "num_bins": self.num_bins}


def _default_streaming_metrics(empty: Predictions) -> list[Metric]:
    """Return the default metrics that can be streamed."""
    return [each for each in default_metrics(empty) if not each.needs and make_sums(each, empty, 1)]


def template_predictions(num_classes: int, *, weighted: bool = False) -> Predictions:
    """Return one-sample predictions that tell statistics the number of classes and whether there are weights."""
    probs = torch.full((1, num_classes), 1 / num_classes, device="cpu")
    weights = torch.ones(1, device="cpu") if weighted else None
    return Predictions(torch.zeros_like(probs), label_probs=probs, weights=weights)


class StreamingClasses(Accumulator):
    """Streaming version of :func:`~fedlas.metrics.calibration_by_class`; results agree within 1e-12.

    Args:
        num_classes: ``C``.
        num_bins: Number of bins of equal width over ``[0, 1]``, at least 1.
        weighted: Whether every sample comes with a weight, see :class:`~fedlas.metrics.StreamingMetrics`.

    Raises:
        InputError: For options out of range.

    State:
        ``O(C B)`` float64 sums, which add up as those of :class:`~fedlas.metrics.StreamingMetrics`.

    Example:
        >>> streaming = StreamingClasses(2)
        >>> streaming.update(torch.zeros(2, 2), torch.tensor([1, 1]))
        >>> streaming.compute()[1].ece
        0.5
    """

    def __init__(self, num_classes: int, *, num_bins: int = 15, weighted: bool = False) -> None:
        super().__init__(weighted=weighted)
        self.num_classes = check_count("num_classes", num_classes)
        self.num_bins = check_count("num_bins", num_bins)
        self._statistic = ClasswiseSums(template_predictions(num_classes), num_bins)
        self._register_sums(self._statistic)

    def update(self, logits: Tensor, target: Tensor, *, weights: Tensor | None = None) -> None:
        """Add a batch.

        Args:
            logits: As in :meth:`StreamingMetrics.update`.
            target: As in :meth:`StreamingMetrics.update`.
            weights: As in :meth:`StreamingMetrics.update`.

        Raises:
            InputError: As in :meth:`StreamingMetrics.update`.
        """
        self._accumulate(self._make_batch(logits, target, weights), self._parts)

    def compute(self) -> dict[int, ClassCalibration]:
        """Return the calibration of each of the ``C`` classes, in their order.

        Raises:
            InputError: If there are no samples.
        """
        self._require_samples()
        return calibration_from_sums(self._statistic)

    @property
    def _arguments(self) -> dict[str, Any]:
        return {"num_classes": self.num_classes, "num_bins": self.num_bins}
