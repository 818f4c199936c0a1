"""The objective of tuning: a metric of the validation part."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fedlas._core.check import InputError
from fedlas.lab.train import check_metric
from fedlas.metrics import METRICS

__all__ = ["Goal", "goal_named"]


@dataclass(frozen=True)
class Goal:
    """The objective. Made by :func:`goal_named`.

    Attributes:
        metric: Registry name of the metric.
    """

    metric: str

    @property
    def about(self) -> Mapping[str, Any]:
        """Metadata of the metric in the registry."""
        return METRICS[self.metric].metadata

    @property
    def maximize(self) -> bool:
        """Whether higher is better."""
        return bool(self.about["higher_is_better"])

    @property
    def title(self) -> str:
        """The metric's name in tables, with its unit."""
        size = "|{}|" if self.about["higher_is_better"] is None else "{}"
        return size.format(self.about["title"]) + (" %" if self.about["percent"] else "")

    @property
    def direction(self) -> str:
        """Which values are better, as text."""
        return "higher is better" if self.maximize else "lower is better"

    def of(self, scores: Mapping[str, float]) -> float:
        """The objective of one run: the metric, or its absolute value for a metric with a sign, which is best at 0."""
        value = float(scores[self.metric])
        return abs(value) if self.about["higher_is_better"] is None else value

    def mean(self, values: Sequence[float]) -> float:
        """The objective of a trial, from the objectives of its seeds."""
        return math.fsum(values) / len(values)

    def show(self, value: float | None, *, sign: bool = False) -> str:
        """A value as in tables: in percent if the metric is."""
        if value is None:
            return "—"
        places, scale = (2, 100.0) if self.about["percent"] else (4, 1.0)
        return format(scale * value, f"{'+' if sign else ''}.{places}f")


def goal_named(metric: str) -> Goal:
    """The objective of that name.

    Raises:
        InputError: If the metric is not registered, or not computed from logits and target alone.
    """
    try:
        return Goal(check_metric(metric))
    except InputError as error:
        _, expected, got, fix = error.parts
        raise InputError("--objective", expected, got, fix) from None
