"""Registration of event measures among the metrics."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, Concatenate, ParamSpec, Protocol

import numpy as np

from fedlas._core.types import FloatArray
from fedlas.binary.positive import Positive, positive_class
from fedlas.metrics.metric import EVENT, METRICS, Metric
from fedlas.predictions import Predictions
from fedlas.predictions.two_arrays import ArrayFunction, accept_arrays
from fedlas.stats.estimates import CONFIDENCE_LEVEL, Estimate

P = ParamSpec("P")
Function = Callable[Concatenate[Predictions, P], Estimate]
Terms = Callable[[Positive], FloatArray]
"""From samples to how much each moves a measure ``(N,)``, before its weight; the mean is 0."""
_ARGUMENTS = {
    "event": "The positive class, by name or index; None: the event of two classes.",
    "confidence_level": "Level of the interval, in ``(0, 1)``.",
    "replicates": "Replicates of interval, noise floor and test, at least 39 for level 0.95; 0 computes none.",
    "seed": "The same seed draws the same replicates.",
}
_REFUSED = "For predictions of other than two classes without ``event``, or where the measure is not defined."
_COMMON = {"subject": "event", "default": False, "weighted": True}
REPLICATES_OF_ONE = 199
"""Replicates of one measure of distance."""
_ORDER_OFFSET = 1000
"""Metrics of all classes come before those of an event."""


class PointMeasure(Protocol):
    """Measure of an event without an interval."""

    __name__: str

    def __call__(
        self, predictions: object, target: object = None, *, event: int | str | None = None
    ) -> Estimate:
        """Return the measure of predictions, or of scores and labels."""


class IntervalMeasure(Protocol):
    """Measure of an event with an interval."""

    __name__: str

    def __call__(
        self,
        predictions: object,
        target: object = None,
        *,
        event: int | str | None = None,
        confidence_level: float = CONFIDENCE_LEVEL,
    ) -> Estimate:
        """Return the measure of predictions, or of scores and labels."""


class ReplicatedMeasure(Protocol):
    """Measure of an event with an interval, a noise floor and a test from replicates."""

    __name__: str

    def __call__(
        self,
        predictions: object,
        target: object = None,
        *,
        event: int | str | None = None,
        confidence_level: float = CONFIDENCE_LEVEL,
        replicates: int = REPLICATES_OF_ONE,
        seed: int = 0,
    ) -> Estimate:
        """Return the measure of predictions, or of scores and labels."""


def register_named_measure(
    name: str, text: str, function: Function[P], *record: Any, **fields: Any
) -> ArrayFunction[P, Estimate]:
    """Register a function as an event measure under ``name``, with a docstring completed by its arguments.

    Args:
        name: The name of the measure.
        text: Its docstring: a summary, and what it returns, with an example.
        function: From predictions and options to the estimate; gets name and docstring.
        *record: As in :func:`register_event_measure`.
        **fields: As in :func:`register_event_measure`.
    """
    summary, _, rest = text.strip().partition("\n")
    returns, _, example = inspect.cleandoc(rest).partition("Example:\n")
    options = list(inspect.signature(function).parameters)[1:]
    described = "".join(f"    {option}: {_ARGUMENTS[option]}\n" for option in options)
    function.__doc__ = (
        f"{summary}\n\nArgs:\n    predictions: Logits ``(N, C)`` and target ``(N,)``.\n{described}\n{returns}"
        f"Raises:\n    InputError: {_REFUSED}\n\nExample:\n{example}\n"
    )
    function.__name__ = function.__qualname__ = name
    return register_event_measure(*record, **fields)(function)


def register_event_measure(
    title: str, order: float, *, terms: Terms | None = None, **fields: Any
) -> Callable[[Function[P]], ArrayFunction[P, Estimate]]:
    """Return a decorator that registers a function as an event measure and lets it accept two arrays.

    Args:
        title: As in :class:`~fedlas.metrics.Metric`, and so are the other fields.
        order: Place in the table of an event, from 0 on.
        terms: How much each sample moves the measure ``(N,)``, before its weight.
        **fields: Others of the record.
    """

    def decorate(function: Function[P]) -> ArrayFunction[P, Estimate]:
        measure = accept_arrays(function)
        takes_replicates = "replicates" in inspect.signature(function).parameters
        plain: dict[str, int] = {"replicates": 0} if takes_replicates else {}

        def value(predictions: Predictions) -> float:
            estimate: Callable[..., Estimate] = function
            return float(estimate(predictions, **plain).value)

        value.__doc__ = function.__doc__
        influence = (
            None if terms is None else lambda predictions: _sample_influence(predictions, terms)
        )
        METRICS.add(
            function.__name__,
            value,
            **{
                **_COMMON,
                "title": title,
                "order": _ORDER_OFFSET + order,
                "percent": False,
                "places": 3,
                "higher_is_better": None,
                "estimate": function,
                "influence": influence,
                "several_labels": True,
                "paper": "folklore",
                **fields,
            },
        )
        return measure

    return decorate


def register_class_measure(
    base: Metric, title: str, order: float, summary: str, **fields: Any
) -> Callable[[Function[P]], ArrayFunction[P, Estimate]]:
    """Return a decorator for an event measure that is computed as the metric ``base`` of several classes.

    Args:
        base: The record of other classes.
        title: As in :func:`register_event_measure`.
        order: As in :func:`register_event_measure`.
        summary: Summary of the record.
        **fields: As in :func:`register_event_measure`.
    """

    def value(predictions: Predictions) -> float:
        return float(base.value(predictions))

    def decorate(function: Function[P]) -> ArrayFunction[P, Estimate]:
        computed = ("statistic", "formula", "error", "quantity", "takes_replicates", "influence")
        same = (*computed, "several_labels", "zero_if_calibrated", "paper", "higher_is_better")
        METRICS.add(
            EVENT + function.__name__,
            value,
            **{
                **_COMMON,
                "title": title,
                "order": _ORDER_OFFSET + order,
                "between": (0.0, 1.0),
                **{field: getattr(base, field) for field in same},
                **fields,
            },
        )
        return accept_arrays(function)

    value.__doc__ = summary
    return decorate


def _sample_influence(predictions: Predictions, terms: Terms) -> FloatArray:
    """Return the influence of each sample on a measure ``(N,)``."""
    data = positive_class(predictions, None)
    return np.asarray(terms(data) * data.counts / data.num_samples)
