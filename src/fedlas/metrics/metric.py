"""The registry of metrics, including measures of an event, and the record of each."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Concatenate, Literal, ParamSpec, cast, get_args

from fedlas._core.check import InputError
from fedlas._core.registry import Entry, Registry
from fedlas.metrics import HOMES
from fedlas.metrics.sums import UNBOUNDED, Quantity, Range, RowMean, Statistic, Sums
from fedlas.predictions.top_label import TopLabel, needs_all_classes_error
from fedlas.predictions.two_arrays import ArrayFunction, accept_arrays

if TYPE_CHECKING:
    from fedlas._core.types import FloatArray
    from fedlas.predictions.any_predictions import AnyPredictions

P = ParamSpec("P")
Variant = Literal["exact", "reference"]
"""The definition, or the published code where that differs."""
VARIANTS: tuple[Variant, ...] = get_args(Variant)
ALIASES = {"o_e": "observed_to_expected"}
"""Other names of metrics."""
Subject = Literal["prediction", "event"]
EVENT = "event_"
"""Before the name of an event's measure that has another record where all classes are the subject."""


LABEL_PREFIXES = {"macro_": "macro", "micro_": "micro", "worst_label_": "worst label's"}
"""Before the name of a metric of several labels: the mean over labels, of all labels in one, and of the worst."""


@dataclass(frozen=True)
class Metric(Entry[Callable[..., float]]):
    """One registered metric: its function, how it is computed and how it is shown.

    It is the mean of a ``quantity`` of each row, or a ``formula`` of the table of a ``statistic``; both share the pass
    of ``evaluate``, and the statistic with the other metrics that have the same. A metric with neither is called.

    Attributes:
        name: Registry name, lower-case.
        value: The function, ``Predictions -> float``.
        summary: First line of its docstring.
        subject: ``"event"`` if it is about the event of two classes, and of other predictions says nothing.
        title: Column head in tables; the name where none is passed.
        order: Place among the columns of tables; metrics of others come last.
        default: Whether ``evaluate`` computes it.
        default_of_two: The same for two classes; None: as for more.
        fewest_classes: With fewer classes it says nothing: ``evaluate``, tables and cards leave it out.
        of_event: Name of the metric by which two classes have it, where it is about the event.
        higher_is_better: None if it has a sign and 0 is best.
        percent: Whether reports multiply it by 100.
        places: Decimals of a fraction in tables; two fewer in percent.
        ideal: What a calibrated model has, where that is neither most nor least.
        detail: Whether reports show it in their second table.
        ranked: False if one gets better in it by getting worse in another, as O-ECE falls when all confidences do:
            reports keep its arrow and its noise floor, and mark no best.
        paper: Where it comes from.
        needs: Optional arrays of ``Predictions`` without which it is skipped.
        statistic: What it is computed from.
        formula: From the statistic's table to the metric. Where the arrays of a table have a leading axis of
            replicates, as those of the bootstrap have, it gives one value for each.
        takes_replicates: Whether the formula is right for replicates that are drawn by groups of rows, too, which saves
            most of the time with many rows; other metrics get replicates of rows.
        error: From the table of the statistic's ``streaming`` to how far the formula of it can be from the metric.
        quantity: From a chunk of ``n`` rows to ``(n,)``, of which the metric is the mean.
        between: Least and largest value; unset, a fraction's are 0 (-1 with a sign) and 1.
        top_label: Whether it takes a :class:`~fedlas.TopLabel` too; a statistic knows by itself.
        weighted: Whether a metric that is called heeds ``predictions.weights``; others refuse them.
        several_labels: Whether it raises InputError where all samples have one label.
        zero_if_calibrated: Whether it is never negative, and goes to 0 with growing ``N`` if the model is calibrated.
        squares: Whether it is a sum of squared gaps, of which a part is chance whatever the truth.
        unbiased: Whether its mean over test sets is what it estimates, though that of its bootstrap replicates is not,
            so that their bias must not be taken off the value.
        influence: From predictions to how much each sample moves the metric ``(N,)``, or None: intervals and paired
            tests come from its sums in place of replicates.
        estimate: From predictions, with ``confidence_level``, ``replicates`` and ``seed`` if it takes them, to the
            :class:`~fedlas.stats.Estimate`, where an event's measure has an interval and tests of its own.
        replicated: From a block of replicates of rows to the metric of each ``(R,)``, where it is no formula of a
            statistic.
        has_interval: Whether its value can be set against chance: gates and comparisons ask for that.

    Example:
        >>> import fedlas.metrics
        >>> METRICS["ece"].title, METRICS["ece"].zero_if_calibrated, METRICS["accuracy"].higher_is_better
        ('ECE', True, True)
    """

    subject: Subject = "prediction"
    title: str = ""
    order: float = math.inf
    default: bool = True
    default_of_two: bool | None = None
    fewest_classes: int = 0
    of_event: str = ""
    higher_is_better: bool | None = False
    percent: bool = True
    places: int = 4
    ideal: float | None = None
    detail: bool = False
    ranked: bool = True
    paper: str = ""
    needs: frozenset[str] = frozenset()
    statistic: type[Statistic] | None = None
    formula: Callable[[Any], float | FloatArray] | None = None
    takes_replicates: bool = False
    error: Callable[[Any], float] | None = None
    quantity: Quantity | None = None
    between: Range = UNBOUNDED
    top_label: bool = False
    weighted: bool = False
    several_labels: bool = False
    zero_if_calibrated: bool = False
    squares: bool = False
    unbiased: bool = False
    influence: Callable[[Any], FloatArray | None] | None = None
    estimate: Callable[..., Any] | None = None
    replicated: Callable[[Any], FloatArray] | None = None
    has_interval: bool = True


def value_range(metric: Metric) -> Range:
    """Return the smallest and largest possible value of a metric.

    Example:
        >>> import fedlas.metrics
        >>> value_range(METRICS["ece"]), value_range(METRICS["brier"])
        ((0.0, 1.0), (0, 2))
    """
    if metric.between != UNBOUNDED or not metric.percent:
        return metric.between
    return (-1.0 if metric.higher_is_better is None else 0.0), 1.0


def resolve_metric(name: str, predictions: AnyPredictions) -> Metric:
    """Return the record of a metric for these predictions; with two classes ``"ece"`` is about the event.

    Raises:
        InputError: For an unknown metric, or an event's measure of predictions without the event of two classes.

    Example:
        >>> import fedlas.metrics
        >>> from fedlas import Predictions
        >>> resolve_metric("ece", Predictions([[0.0, 1.0]], [1])).statistic.__name__
        'ClasswiseSums'
    """
    entry = METRICS[name]
    if entry.subject == "event" and isinstance(predictions, TopLabel):
        raise needs_all_classes_error(f"{entry.name!r}")
    if entry.subject == "event" and num_classes_or_zero(predictions) != 2:
        raise InputError(
            f"{entry.name!r} requires predictions with two classes",
            f"{num_classes_or_zero(predictions)} classes",
            "Choose another metric, or call fedlas.binary.measures(predictions, event=k).",
        )
    if not entry.of_event or num_classes_or_zero(predictions) != 2:
        return entry
    event = METRICS[entry.of_event]
    return replace(entry, statistic=event.statistic, formula=event.formula, error=event.error)


def find_measure(name: str, *, event: bool) -> Metric | None:
    """Return the record of a metric, its event variant if ``event``, or None if it is not registered.

    A metric of several labels is that of an event behind a word of :data:`LABEL_PREFIXES`.

    Example:
        >>> import fedlas.metrics
        >>> find_measure("brier", event=False).between, find_measure("macro_ece", event=False).title
        ((0, 2), 'macro ECE')
    """
    for prefix, words in LABEL_PREFIXES.items():
        if name.startswith(prefix):
            of_one = find_measure(name.removeprefix(prefix), event=True)
            return of_one and replace(of_one, name=name, title=f"{words} {of_one.title}")
    return (METRICS.get(EVENT + name) if event else None) or METRICS.get(name)


def event_measures() -> dict[str, Metric]:
    """Return the measures of an event in display order, by name without prefix.

    Example:
        >>> list(event_measures())[:3], "ece" in event_measures()
        (['observed', 'expected', 'observed_to_expected'], True)
    """
    return {
        each.name.removeprefix(EVENT): each for each in METRICS.entries() if each.subject == "event"
    }


def num_classes_or_zero(predictions: AnyPredictions) -> int:
    """Return the number of classes, or 0 for a top label."""
    return 0 if isinstance(predictions, TopLabel) else predictions.num_classes


def lacks_inputs(metric: Metric, predictions: AnyPredictions) -> bool:
    """Return whether ``predictions`` lack an input of the metric: all classes, an event, or an optional array."""
    if metric.subject == "event" and num_classes_or_zero(predictions) != 2:
        return True
    if isinstance(predictions, TopLabel):
        kind = metric.statistic
        return not (metric.top_label or (kind is not None and kind.top_label))
    return any(getattr(predictions, name) is None for name in metric.needs)


def make_statistic(metric: Metric, predictions: AnyPredictions, num_bins: int) -> Statistic | None:
    """Return an empty statistic for a metric, or None if the metric is a plain function."""
    if metric.quantity is not None:
        return RowMean(metric.quantity, metric.between)
    return None if metric.statistic is None else metric.statistic(predictions, num_bins)


def make_sums(metric: Metric, predictions: AnyPredictions, num_bins: int) -> Sums | None:
    """Return an empty statistic that can be summed over shards, or None if the metric has none."""
    kind = metric.statistic
    if kind is not None and kind.streaming is not None:
        return kind.streaming(predictions, num_bins)
    statistic = make_statistic(metric, predictions, num_bins)
    return statistic if isinstance(statistic, Sums) else None


def metric_value(metric: Metric, statistic: Statistic) -> float:
    """Return the metric's value from a filled statistic."""
    table = statistic.table()
    return float(table if metric.formula is None else metric.formula(table))


def call_metric(metric: Metric, predictions: AnyPredictions, num_bins: int) -> float:
    """Call the metric's function, with ``num_bins`` if it takes it."""
    takes_bins = "num_bins" in inspect.signature(metric.value).parameters
    return float(metric.value(predictions, **({"num_bins": num_bins} if takes_bins else {})))


class MetricRegistry(Registry[Callable[..., float]]):
    """Metrics by name, in display order."""

    def register(  # type: ignore[override]  # the function takes arrays too
        self, name: str, **fields: Any
    ) -> Callable[[Callable[Concatenate[Any, P], float]], ArrayFunction[P, float]]:
        """Return a decorator that registers a metric with fields of :class:`Metric`, and lets it accept two arrays.

        Raises:
            ValueError: If the name is taken or not lower-case.
        """

        def decorate(function: Callable[Concatenate[Any, P], float]) -> ArrayFunction[P, float]:
            value = accept_arrays(function)
            self.add(name, value, **fields)
            return value

        return decorate

    def _make_entry(
        self, name: str, value: Callable[..., float], summary: str, metadata: dict[str, Any]
    ) -> Metric:
        fields: dict[str, Any] = {"title": name, **metadata}
        return Metric(name, value, summary, {"paper": fields.get("paper", "")}, **fields)

    def _import_order(self, entry: Entry[Callable[..., float]]) -> float:
        """Return the display order of a metric; equal ones keep the order of registration."""
        return cast("Metric", entry).order

    def prediction_entries(self) -> list[Metric]:
        """Return the entries that are not about an event, whose measures need not be imported for it."""
        while any(module not in _EVENT_MEASURES for module in self._lazy_modules):
            self._import_next()
        entries: list[Any] = list(self._entries.values())
        return [each for each in entries if each.subject != "event"]

    def get(self, name: object) -> Metric | None:
        """Return the record of a metric by name or alias, or None if there is none."""
        entry: Any = super().get(ALIASES.get(name, name) if isinstance(name, str) else name)
        return cast("Metric | None", entry)

    if TYPE_CHECKING:

        def __getitem__(self, name: str) -> Metric: ...
        def entries(self) -> list[Metric]: ...  # type: ignore[override]  # noqa: D102


_EVENT_MEASURES = [
    f"fedlas.binary.{module}"
    for module in ("event_measures", "event_distances", "discrimination", "measure_table")
]
_WITHOUT_METRICS = {"evaluation", "groups", "metric", "scan", "streaming", "sums"}
"""Modules that register none."""
METRICS = MetricRegistry(
    "metric",
    ignores_case=True,
    lazy_modules=[
        *(f"fedlas.metrics.{module}" for module in HOMES if module not in _WITHOUT_METRICS),
        *_EVENT_MEASURES,
    ],
    homes={
        name: f"fedlas.metrics.{module}"
        for module, names in HOMES.items()
        for name in names.split()
    },
)
"""Functions ``Predictions -> float``, each with its :class:`Metric` record."""
