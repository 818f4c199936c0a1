"""Metrics of more samples than memory holds: sums that grow with the bins, not with the samples, and add up exactly."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from fedlas._core.check import InputError, check_count, describe, suggestion
from fedlas._core.collective import sum_across_ranks, world_size
from fedlas._core.registry import Entry
from fedlas.metrics.base import METRICS, AnyEstimator, Approximation
from fedlas.metrics.scan import Sums, scan
from fedlas.predictions import Predictions

MetricEntry = Entry[Callable[..., float]]
_OWNER = "StreamingMetrics"


class StreamingMetrics:
    """Metrics of samples that come batch by batch, in memory that does not depend on how many come.

    Everything is kept as integer sums. So batches, shards and ranks add up exactly: whatever way the same rows are
    split, and in whatever order they come, :meth:`compute` gives the same numbers to the last bit. They equal those of
    :func:`~fedlas.evaluate` to the last bit for every metric but those that need all confidences at once (adaptive ECE,
    KS, AURC); these are computed from a fixed grid of 18,434 cells of confidence, and :meth:`error_bounds` says how far
    they can be off.

    Args:
        num_classes: ``C``.
        metrics: Registry names; None for those that :func:`~fedlas.evaluate` computes from logits and target.
        num_bins: Number of bins of the metrics that have any, at least 1.

    Raises:
        InputError: For options out of range, or a metric that is unknown or cannot be computed from sums.

    State:
        ``state_dict()`` holds int64 tensors alone: with the default metrics and 15 bins, 1 MiB and 500 bytes a class.

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

    def __init__(self, num_classes: int, *, metrics: Iterable[str] | None = None, num_bins: int = 15) -> None:
        self.num_classes = check_count(_OWNER, "num_classes", num_classes)
        self.num_bins = check_count(_OWNER, "num_bins", num_bins)
        entries = _default_entries() if metrics is None else [METRICS[name] for name in metrics]
        self._needs_label_probs = any("label_probs" in entry.metadata.get("needs", ()) for entry in entries)
        self._rows = torch.zeros(1, dtype=torch.int64, device="cpu")
        self._entries = {entry.name: entry for entry in entries}
        self._estimators: dict[str, AnyEstimator] = {}
        self._statistics: dict[Callable[[Predictions, int], Any], Sums] = {}
        self._tensors = {"num_samples": self._rows}
        template = _template(self.num_classes)
        for entry in entries:
            estimator = _streaming_estimator(entry, template)
            self._estimators[entry.name] = estimator
            if estimator.statistic not in self._statistics:
                statistic = estimator.statistic(template, self.num_bins)
                self._statistics[estimator.statistic] = statistic
                self._tensors |= {f"{entry.name}.{part}": tensor for part, tensor in statistic.tensors().items()}

    @property
    def metrics(self) -> tuple[str, ...]:
        """Registry names of the metrics."""
        return tuple(self._estimators)

    @property
    def num_samples(self) -> int:
        """Samples so far."""
        return int(self._rows)

    def update(self, logits: Tensor, target: Tensor, *, label_probs: Tensor | None = None) -> None:
        """Take in a batch.

        Args:
            logits: ``(N, C)``, finite, on any device.
            target: Labels ``(N,)``.
            label_probs: Known label probabilities ``(N, C)``, for metrics that need them.

        Raises:
            InputError: As :class:`~fedlas.Predictions`, for another number of classes, or without ``label_probs`` that
                a metric needs; nothing was taken in then.
        """
        batch = Predictions(logits, target, label_probs=label_probs)
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
        scan(batch, self._statistics.values())
        self._rows += batch.num_samples

    def merge(self, other: StreamingMetrics) -> None:
        """Add what ``other`` has taken in; ``other`` stays as it is.

        Raises:
            InputError: If it was made with other options.
        """
        if not isinstance(other, StreamingMetrics) or self._options != other._options:
            raise InputError(
                _OWNER, f"only the same can be merged: {self._options}", _options_of(other), "Make both alike."
            )
        for name, tensor in self._tensors.items():
            tensor += other._tensors[name]

    def compute(self) -> dict[str, float]:
        """Every metric of all samples so far, by registry name.

        Raises:
            InputError: If there are none.
        """
        self._check_samples()
        return {name: each.value(self._statistics[each.statistic]) for name, each in self._estimators.items()}

    def error_bounds(self) -> dict[str, float]:
        """How far each of :meth:`compute`'s numbers can at most be from the metric's own function; mostly 0.

        Raises:
            InputError: If there are no samples.
        """
        self._check_samples()
        bounds = dict.fromkeys(self._estimators, 0.0)
        for name, estimator in self._estimators.items():
            approximation: Approximation[Any] | None = self._entries[name].metadata.get("streaming")
            if approximation is not None and approximation.estimator is estimator:
                bounds[name] = approximation.error(self._statistics[estimator.statistic])
        return bounds

    def sum_across_ranks(self) -> StreamingMetrics:
        """The same over the samples of all ranks of the default process group, each counted once, on every rank.

        Returns:
            A new object; this one keeps its own samples and can go on.

        Note:
            A collective: every rank must call it. One sum of as many integers as ``state_dict()`` holds.
        """
        flat = torch.cat([tensor.flatten() for tensor in self._tensors.values()])
        flat = sum_across_ranks(flat.to(_device_of_collectives())).cpu()
        parts = flat.split([tensor.numel() for tensor in self._tensors.values()])
        total = StreamingMetrics(self.num_classes, metrics=self.metrics, num_bins=self.num_bins)
        for tensor, part in zip(total._tensors.values(), parts, strict=True):
            tensor.copy_(part.view_as(tensor))
        return total

    def state_dict(self) -> dict[str, Tensor]:
        """Everything taken in, as int64 tensors on the CPU that add up over shards; copies."""
        return {name: tensor.clone() for name, tensor in self._tensors.items()}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Replace everything taken in by what :meth:`state_dict` returned.

        Raises:
            InputError: If it is of other options; nothing was replaced then.
        """
        given = {name: (tuple(tensor.shape), tensor.dtype) for name, tensor in state.items()}
        wanted = {name: (tuple(tensor.shape), tensor.dtype) for name, tensor in self._tensors.items()}
        if given != wanted:
            wrong = sorted(name for name in given.keys() | wanted.keys() if given.get(name) != wanted.get(name))
            raise InputError(
                _OWNER,
                f"the state must be of {self._options}",
                f"one that differs in {', '.join(wrong)}",
                "Load it into one made with the options it was saved with.",
            )
        for name, tensor in self._tensors.items():
            tensor.copy_(state[name])

    def reset(self) -> None:
        """Forget everything taken in."""
        for tensor in self._tensors.values():
            tensor.zero_()

    @property
    def _options(self) -> dict[str, Any]:
        return {"num_classes": self.num_classes, "metrics": self.metrics, "num_bins": self.num_bins}

    def _check_samples(self) -> None:
        if not self.num_samples:
            raise InputError(_OWNER, "there must be samples", "none", "Call update first.")


def _default_entries() -> list[MetricEntry]:
    """Those of ``evaluate``; one that somebody registered without sums is left out, as it cannot be had here."""
    known = [e for e in METRICS.entries() if e.metadata.get("default", True) and not e.metadata.get("needs")]
    return [entry for entry in known if _found_estimator(entry, _template(1))]


def _streaming_estimator(entry: MetricEntry, template: Predictions) -> AnyEstimator:
    found = _found_estimator(entry, template)
    if found is None:
        able = [each.name for each in METRICS.entries() if _found_estimator(each, template)]
        raise InputError(_OWNER, "metrics must be such as sums are enough for", repr(entry.name), suggestion("", able))
    return found


def _found_estimator(entry: MetricEntry, template: Predictions) -> AnyEstimator | None:
    """The metric's own if its statistic is made of sums, else the one it names for streaming, if any."""
    own: AnyEstimator | None = entry.metadata.get("estimator")
    if own is not None and isinstance(own.statistic(template, 1), Sums):
        return own
    approximation: Approximation[Any] | None = entry.metadata.get("streaming")
    return None if approximation is None else approximation.estimator


def _template(num_classes: int) -> Predictions:
    """Predictions from which statistics learn the number of classes, and nothing else."""
    probs = torch.full((1, num_classes), 1 / num_classes, device="cpu")
    return Predictions(torch.zeros_like(probs), torch.zeros(1, dtype=torch.int64, device="cpu"), label_probs=probs)


def _device_of_collectives() -> torch.device:
    """Where the default process group can sum: NCCL knows GPUs only."""
    if world_size() > 1 and "gloo" not in dist.get_backend() and "nccl" in dist.get_backend():
        return torch.device("cuda", torch.cuda.current_device())
    return torch.device("cpu")


def _options_of(other: object) -> object:
    return other._options if isinstance(other, StreamingMetrics) else describe(other)
