"""Metrics of more samples than memory holds: sums that grow with the bins, not with the samples, and add up exactly."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

from fedlas._core.check import InputError, check_count, describe, suggestion
from fedlas.metrics.accumulator import Accumulator
from fedlas.metrics.base import METRICS, AnyOnePass, Approximation, MetricEntry
from fedlas.metrics.scan import Sums, scan
from fedlas.metrics.weighted import check_takes_weights
from fedlas.predictions import Predictions

_OWNER = "StreamingMetrics"


class StreamingMetrics(Accumulator):
    """Metrics of samples that come batch by batch, in memory that does not depend on how many come.

    Everything is kept as integer sums. So batches, shards and ranks add up exactly: whatever way the same rows are
    split, and in whatever order they come, :meth:`compute` gives the same numbers to the last bit. They equal those of
    :func:`~fedlas.evaluate` to the last bit for every metric but those that need all confidences at once (adaptive ECE,
    KS, AURC, and ACE, which is not among the default ones); these are computed from a fixed grid of 18,434 cells of
    confidence, ACE from one of every class's probability. :meth:`error_bounds` says how far they can be off.

    Args:
        num_classes: ``C``.
        metrics: Registry names; None for those that :func:`~fedlas.evaluate` computes from logits and target.
        num_bins: Number of bins of the metrics that have any, at least 1.
        weighted: Whether every sample comes with a weight. The sums of weights are plain float64 sums: they add up over
            batches and shards as well, but for rounding.

    Raises:
        InputError: For options out of range, or a metric that is unknown or cannot be computed from sums, or knows of
            no weights and shall have some.

    State:
        ``state_dict()`` holds int64 tensors, with weights float64 ones too: with the default metrics and 15 bins, 1 MiB
        and 500 bytes a class; ACE has 35 MiB at most up to 511 classes, and 70 kB a class beyond.

    Note:
        The same rows must come in the same precision from the same device: a GPU's softmax differs in the last bit.
        Batches of any size are read in chunks, as ``evaluate`` does.

    Example:
        >>> first, second = (StreamingMetrics(2, metrics=["accuracy", "ece"]) for _ in range(2))
        >>> first.update(torch.tensor([[2.0, 0.0]]), torch.tensor([0]))
        >>> second.update(torch.tensor([[0.0, 1.0]]), torch.tensor([0]))
        >>> first.merge(second)
        >>> first.num_samples, first.compute()["accuracy"]
        (2, 0.5)
    """

    def __init__(
        self, num_classes: int, *, metrics: Iterable[str] | None = None, num_bins: int = 15, weighted: bool = False
    ) -> None:
        super().__init__(weighted=weighted)
        self.num_classes = check_count(_OWNER, "num_classes", num_classes)
        self.num_bins = check_count(_OWNER, "num_bins", num_bins)
        try:
            names = None if metrics is None else list(metrics)
        except TypeError as error:
            raise InputError(_OWNER, "metrics must be names", describe(metrics), "Pass a list of names.") from error
        entries = _default_entries() if names is None else [METRICS[name] for name in names]
        self._needs_label_probs = any("label_probs" in entry.metadata.get("needs", ()) for entry in entries)
        self._entries = {entry.name: entry for entry in entries}
        self._passes: dict[str, AnyOnePass] = {}
        self._statistics: dict[Callable[[Predictions, int], Any], Sums] = {}
        empty = template(self.num_classes, weighted=weighted)
        for entry in entries:
            one_pass = _streaming_pass(entry, empty)
            self._passes[entry.name] = one_pass
            if one_pass.statistic not in self._statistics:
                statistic = one_pass.statistic(empty, self.num_bins)
                check_takes_weights(entry.name, empty, takes_weights=getattr(statistic, "takes_weights", False))
                self._statistics[one_pass.statistic] = statistic
                self._tensors |= {f"{entry.name}.{part}": tensor for part, tensor in statistic.tensors().items()}

    @property
    def metrics(self) -> tuple[str, ...]:
        """Registry names of the metrics."""
        return tuple(self._passes)

    def update(
        self, logits: Tensor, target: Tensor, *, label_probs: Tensor | None = None, weights: Tensor | None = None
    ) -> None:
        """Take in a batch.

        Args:
            logits: ``(N, C)``, finite, on any device.
            target: Labels ``(N,)``.
            label_probs: Label distributions ``(N, C)``, for metrics that need them.
            weights: Of the samples ``(N,)``, if and only if it was made with ``weighted=True``; on the same scale in
                all batches.

        Raises:
            InputError: As :class:`~fedlas.Predictions`, for another number of classes, or without ``label_probs`` that
                a metric needs, or if weights are missing or surplus. After any error, an interrupt too, the state is
                what it was before.
        """
        self._check_weights(weights)
        batch = Predictions(logits, target, label_probs=label_probs, weights=weights)
        if batch.num_classes != self.num_classes:
            raise InputError(
                _OWNER,
                f"logits must be (N, {self.num_classes})",
                describe(batch.logits),
                "Make one for each number of classes.",
            )
        if self._needs_label_probs and label_probs is None:
            raise InputError(
                _OWNER, "update needs label_probs", "none", "Pass them with every batch, or leave that metric out."
            )
        with self._taking(batch.num_samples):
            scan(batch, self._statistics.values())

    def compute(self) -> dict[str, float]:
        """Every metric of all samples so far, by registry name.

        Raises:
            InputError: If there are none.
        """
        self._check_samples()
        return {name: float(each.value(self._statistics[each.statistic])) for name, each in self._passes.items()}

    def error_bounds(self) -> dict[str, float]:
        """How far each of :meth:`compute`'s numbers can at most be from the metric's own function; mostly 0.

        Raises:
            InputError: If there are no samples.
        """
        self._check_samples()
        bounds = dict.fromkeys(self._passes, 0.0)
        for name, one_pass in self._passes.items():
            approximation: Approximation[Any] | None = self._entries[name].metadata.get("streaming")
            if approximation is not None and approximation.one_pass is one_pass:
                bounds[name] = approximation.error(self._statistics[one_pass.statistic])
        return bounds

    @property
    def _options(self) -> dict[str, Any]:
        options = {"num_classes": self.num_classes, "metrics": self.metrics, "num_bins": self.num_bins}
        return options | ({"weighted": True} if self.weighted else {})

    def _empty(self) -> StreamingMetrics:
        return StreamingMetrics(**self._options)


def _default_entries() -> list[MetricEntry]:
    """Those of ``evaluate``; one that somebody registered without sums is left out, as it cannot be had here."""
    known = [e for e in METRICS.entries() if e.metadata.get("default", True) and not e.metadata.get("needs")]
    return [entry for entry in known if _found_pass(entry, template(1))]


def _streaming_pass(entry: MetricEntry, empty: Predictions) -> AnyOnePass:
    found = _found_pass(entry, empty)
    if found is None:
        able = [each.name for each in METRICS.entries() if _found_pass(each, empty)]
        raise InputError(_OWNER, "metrics must be such as sums are enough for", repr(entry.name), suggestion("", able))
    return found


def _found_pass(entry: MetricEntry, empty: Predictions) -> AnyOnePass | None:
    """The metric's own if its statistic is made of sums, else the one it names for streaming, if any."""
    own: AnyOnePass | None = entry.metadata.get("one_pass")
    if own is not None and isinstance(own.statistic(empty, 1), Sums):
        return own
    approximation: Approximation[Any] | None = entry.metadata.get("streaming")
    return None if approximation is None else approximation.one_pass


def template(num_classes: int, *, weighted: bool = False) -> Predictions:
    """Predictions from which statistics learn the number of classes, whether there are weights, and nothing else."""
    probs = torch.full((1, num_classes), 1 / num_classes, device="cpu")
    target = torch.zeros(1, dtype=torch.int64, device="cpu")
    weights = torch.ones(1, device="cpu") if weighted else None
    return Predictions(torch.zeros_like(probs), target, label_probs=probs, weights=weights)
