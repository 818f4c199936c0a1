"""``torchmetrics.Metric`` classes around the streaming metrics of :mod:`fedlas.metrics`."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Sequence
from functools import partial
from typing import Any, Self

import torch
from torch import Tensor

from fedlas._core.extras import require
from fedlas.metrics import METRICS, StreamingClasses, StreamingGroups, StreamingMetrics
from fedlas.metrics.accumulator import Accumulator

require("torchmetrics", extra="torchmetrics")

from torchmetrics import Metric  # noqa: E402 (after require, whose error names the extra)

__all__ = ["CalibrationByClass", "CalibrationByGroup", "CalibrationMetric", "CalibrationMetrics"]


class _AccumulatorMetric(Metric):
    """Base class of metrics whose state is the sums of an accumulator; torchmetrics adds the sums over ranks."""

    is_differentiable = False
    full_state_update = False

    def __init__(self, empty: Callable[[], Accumulator], options: dict[str, Any]) -> None:
        super().__init__(**options)
        self._empty = empty
        state = empty().state_dict()
        # torchmetrics makes each state an attribute, so names have no dots.
        self._keys = {name.replace(".", "_of_"): name for name in state}
        for key, name in self._keys.items():
            self.add_state(key, state[name], dist_reduce_fx="sum")

    def forward(self, *batch: Any, **extra: Any) -> Any:
        """Add a batch and return the metric of that batch alone; after an error the state is unchanged."""
        before = dict(self.__dict__)
        try:
            return super().forward(*batch, **extra)
        except BaseException:
            # torchmetrics replaces the state by an empty one while it computes the metric of the batch.
            self.__dict__.clear()
            self.__dict__.update(before)
            raise

    def set_dtype(self, dst_type: str | torch.dtype) -> Metric:  # noqa: ARG002 (torchmetrics' name)
        """Keep the float64 state: this method does nothing."""
        return self

    def _apply(self, fn: Callable[[Tensor], Tensor], *args: Any, **options: Any) -> Self:
        """Move the state to the model's device, or to the CPU if the device has no float64; keep the dtype."""

        def move(state: Tensor) -> Tensor:
            device = fn(torch.empty(0, device=state.device)).device
            return state.to("cpu" if device.type == "mps" else device)

        super()._apply(move, *args, **options)
        return self

    def _add_batch(self, *batch: Any, **extra: Any) -> None:
        """Add a batch to the state; the arguments are those of the accumulator's ``update``."""
        batch_sums: Any = self._empty()
        batch_sums.update(*batch, **extra)
        state = batch_sums.state_dict()
        # All sums are computed before any is set, so an error changes nothing.
        sums = {key: getattr(self, key) for key in self._keys}
        sums = {key: old + state[self._keys[key]].to(old.device) for key, old in sums.items()}
        for key, new in sums.items():
            setattr(self, key, new)

    def _compute_result(self) -> Any:
        """Return the result that an accumulator computes from the state."""
        whole: Any = self._empty()
        whole.load_state_dict({name: getattr(self, key).cpu() for key, name in self._keys.items()})
        return whole.compute()


class CalibrationMetrics(_AccumulatorMetric):
    """Several calibration metrics in one pass, as a dict; see :class:`~fedlas.metrics.StreamingMetrics`.

    Args:
        num_classes: ``C``.
        metrics: Registry names; None for those that :func:`~fedlas.evaluate` computes from logits and target.
        num_bins: Number of bins of the metrics that have any, at least 1.
        **options: Options of ``torchmetrics.Metric``.

    Raises:
        InputError: For options out of range, or a metric that is unknown or cannot be computed from sums.
        MissingExtraError: On import, if torchmetrics is not installed.

    State:
        float64 sums, which torchmetrics adds over ranks: the result equals that of one process with all samples,
        within 1e-12. ``reset()`` clears them.

    Note:
        ``update`` takes logits, not probabilities; it never guesses from the values which of the two it has. Sums are
        computed on the CPU and added to the state on its device.

    Example:
        >>> metric = CalibrationMetrics(2, metrics=["accuracy", "ece"])
        >>> metric.update(torch.tensor([[2.0, 0.0], [0.0, 1.0]]), torch.tensor([0, 0]))
        >>> metric.compute()["accuracy"]
        tensor(0.5000, dtype=torch.float64)
    """

    def __init__(
        self,
        num_classes: int,
        *,
        metrics: Sequence[str] | None = None,
        num_bins: int = 15,
        **options: Any,
    ) -> None:
        super().__init__(
            partial(StreamingMetrics, num_classes, metrics=metrics, num_bins=num_bins), options
        )
        self.num_classes = num_classes
        self.num_bins = num_bins
        self.metrics = metrics

    def update(self, logits: Tensor, target: Tensor) -> None:
        """Add a batch.

        Args:
            logits: ``(N, C)``, finite.
            target: Labels ``(N,)``.

        Raises:
            InputError: As :class:`~fedlas.Predictions`, or for another number of classes.
        """
        self._add_batch(logits, target)

    def compute(self) -> dict[str, Tensor]:
        """Return every metric over all samples so far, as float64 scalars by registry name.

        Raises:
            InputError: If there are none.
        """
        return {
            name: torch.tensor(value, dtype=torch.float64)
            for name, value in self._compute_result().items()
        }


class CalibrationMetric(CalibrationMetrics):
    """A single calibration metric by its registry name, for monitoring or a ``MetricCollection``.

    For several metrics, one :class:`CalibrationMetrics` is cheaper, since it reads each batch once.

    Args:
        name: Registry name; ``fedlas list metrics`` prints them.
        num_classes: ``C``.
        num_bins: Number of bins, for metrics that have any, at least 1.
        **options: Options of ``torchmetrics.Metric``.

    Raises:
        InputError: For options out of range, or a metric that is unknown or cannot be computed from sums.

    Example:
        >>> metric = CalibrationMetric("ece", num_classes=2)
        >>> metric(torch.zeros(4, 2), torch.tensor([0, 0, 0, 1]))
        tensor(0.2500, dtype=torch.float64)
        >>> metric.higher_is_better
        False
    """

    def __init__(self, name: str, *, num_classes: int, num_bins: int = 15, **options: Any) -> None:
        super().__init__(num_classes, metrics=[name], num_bins=num_bins, **options)
        self.name = METRICS[name].name

    @property
    def higher_is_better(self) -> bool | None:  # type: ignore[override]  # an attribute there; here it depends on the name
        """Whether a higher value is better; None for a signed metric, where 0 is best."""
        return METRICS[self.name].higher_is_better

    def compute(self) -> Tensor:  # type: ignore[override]  # a number, so that it can be monitored
        """Return the metric over all samples so far, as a float64 scalar.

        Raises:
            InputError: If there are none.
        """
        return super().compute()[self.name]


class CalibrationByClass(_AccumulatorMetric):
    """Calibration metrics of each class; see :class:`~fedlas.metrics.StreamingClasses`.

    Args:
        num_classes: ``C``.
        num_bins: Number of bins of equal width over ``[0, 1]``, at least 1.
        **options: Options of ``torchmetrics.Metric``.

    Raises:
        InputError: For options out of range.

    State:
        As :class:`CalibrationMetrics`.

    Example:
        >>> metric = CalibrationByClass(2)
        >>> metric.update(torch.zeros(2, 2), torch.tensor([1, 1]))
        >>> metric.compute()["gap"]
        tensor([ 0.5000, -0.5000], dtype=torch.float64)
    """

    def __init__(self, num_classes: int, *, num_bins: int = 15, **options: Any) -> None:
        super().__init__(partial(StreamingClasses, num_classes, num_bins=num_bins), options)
        self.num_classes = num_classes
        self.num_bins = num_bins

    def update(self, logits: Tensor, target: Tensor) -> None:
        """Add a batch: ``logits (N, C)``, finite, and labels ``target (N,)``.

        Raises:
            InputError: As :class:`~fedlas.Predictions`, or for another number of classes.
        """
        self._add_batch(logits, target)

    def compute(self) -> dict[str, Tensor]:
        """Return ``ece``, ``gap``, ``mean_probability`` and ``frequency`` of every class ``(C,)``, float64.

        Raises:
            InputError: If there are no samples.
        """
        return _stack_columns(
            list(self._compute_result().values()), ("ece", "gap", "mean_probability", "frequency")
        )


class CalibrationByGroup(_AccumulatorMetric):
    """Accuracy and calibration metrics of each group; see :class:`~fedlas.metrics.StreamingGroups`.

    Args:
        groups: All possible groups, each once.
        num_bins: Number of bins of equal width over ``[0, 1]``, at least 1.
        **options: Options of ``torchmetrics.Metric``.

    Raises:
        InputError: For options out of range.

    State:
        As :class:`CalibrationMetrics`.

    Example:
        >>> metric = CalibrationByGroup(["easy", "hard"])
        >>> metric.update(torch.zeros(2, 2), torch.tensor([1, 1]), groups=["hard", "hard"])
        >>> metric.compute()["gap"]
        tensor([   nan, 0.5000], dtype=torch.float64)
    """

    def __init__(self, groups: Sequence[Hashable], *, num_bins: int = 15, **options: Any) -> None:
        super().__init__(partial(StreamingGroups, groups, num_bins=num_bins), options)
        self.groups = list(groups)
        self.num_bins = num_bins

    def update(self, logits: Tensor, target: Tensor, groups: Tensor | Sequence[Hashable]) -> None:
        """Add a batch: ``logits (N, C)``, finite, labels ``target (N,)`` and the group of each sample ``(N,)``.

        Raises:
            InputError: As :class:`~fedlas.Predictions`, or for an unknown group.
        """
        self._add_batch(logits, target, groups=groups)

    def compute(self) -> dict[str, Tensor]:
        """Return sample count, accuracy, confidence, gap and ECE (total, over- and under-confident) of each group.

        Returns:
            ``(G,)`` float64 each, in the order of the groups; NaN for a group without samples.

        Raises:
            InputError: If there are no samples.
        """
        by_group = self._compute_result()
        names = ("num_samples", "accuracy", "confidence", "gap", "ece", "o_ece", "u_ece")
        return _stack_columns([by_group.get(group) for group in self.groups], names)


def _stack_columns(rows: Sequence[Any], names: Sequence[str]) -> dict[str, Tensor]:
    """Return a tensor per name with that attribute of every row, NaN for a row that is None."""
    values = {
        name: [math.nan if row is None else getattr(row, name) for row in rows] for name in names
    }
    return {name: torch.tensor(column, dtype=torch.float64) for name, column in values.items()}
