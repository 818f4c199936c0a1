"""Tables of metrics, whose cells have intervals, noise floors and p-values."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from fedlas._core.extras import require
from fedlas.predictions import Predictions, TopLabel
from fedlas.present.table import (
    ARROWS,
    Cell,
    Column,
    Table,
    metric_column,
)
from fedlas.stats import ALPHA, SpiegelhalterTest
from fedlas.stats.estimates import CONFIDENCE_LEVEL, Estimate
from fedlas.stats.noise_floor import format_p, format_p_digits, is_significant

if TYPE_CHECKING:
    from fedlas.predictions.any_predictions import AnyPredictions

Measured = Mapping[str, Mapping[str, float]]
"""Metrics by stage, then by registry name."""
Estimates = Mapping[str, Mapping[str, Estimate]]
"""Their intervals and noise floors."""
ZTests = Mapping[str, SpiegelhalterTest]
"""Spiegelhalter's test by stage."""
CALIBRATOR_METRICS = ("accuracy", "nll", "ece", "adaptive_ece", "brier", "true_ece")
"""Metrics of the table that compares calibrators, where they were measured."""
MAIN_METRICS = ("accuracy", "nll", "brier", "ece", "top_label_ece", "true_ece", "macro_nll", "macro_brier",
        "macro_auroc", "macro_ece", "worst_label_ece", "micro_nll", "micro_ece")  # fmt: skip
"""Metrics of the table that is shown by default; the details have all."""
WITHIN_NOISE_NOTE = "~ within noise: the test does not reject calibration."
_Z_COLUMN = Column(
    "Spiegelhalter's z",
    arrow=ARROWS[None],
    about="Standard normal if the confidences are calibrated.",
    places=2,
)


@dataclass(frozen=True)
class NoiseText:
    """Interval, noise floor and p-value as text, with the digits of the column; empty where missing.

    Attributes:
        interval: ``"[1.37, 2.31]"``; of several runs from the lowest to the highest end.
        floor: Mean noise floor.
        p_value: ``"p = 0.31"``; ``"p ≤ 0.001"`` where no replicate was as bad as the value, so that more of them could
            make it smaller; of several runs ``"p ≤ 0.001 to 0.61"``, the smallest and the largest.
        calibrated: Whether the calibration test rejects for no run: of ``n`` p-values the smallest is above
            ``0.05 / n`` (Bonferroni, which holds for runs that depend on each other, as those on one test set do).
        floor_value: The floor as a number, in the unit of the metric.
        replicates: Replicates of the test; the fewest of several runs. 0 where there is none.
    """

    interval: str = ""
    floor: str = ""
    p_value: str = ""
    calibrated: bool = False
    floor_value: float | None = None
    replicates: int = 0

    @property
    def lines(self) -> tuple[str, ...]:
        """Interval, floor (such as ``"~ floor 0.48"``) and p-value, without empty ones."""
        floor = f"{'~ ' * self.calibrated}floor {self.floor}" if self.floor else ""
        return tuple(filter(None, (self.interval, floor, self.p_value)))

    @property
    def text(self) -> str:
        """All lines, joined by commas."""
        return ", ".join(self.lines)

    @property
    def short_p(self) -> str:
        """P-value without ``p`` and ``=``, for a column of p-values."""
        return self.p_value.removeprefix("p ").removeprefix("= ")


def left_out_text(count: int) -> str:
    """Return a count of samples without log-odds, as ``"1 sample with a probability of exactly 0 or 1"``."""
    return f"{count:,} sample{'s' * (count != 1)} with a probability of exactly 0 or 1"


def slopes_left_out_note(estimates: Iterable[Estimate | None]) -> tuple[str, ...]:
    """Return a note on the samples that the slopes of groups or labels leave out, if there are any."""
    count = sum(each.left_out or 0 for each in estimates if each is not None)
    return (f"Slopes leave out {left_out_text(count)}.",) if count else ()


def top_label_ece(values: Mapping[str, Any]) -> str:
    """Return the name of the predicted class's ECE: ``"top_label_ece"`` for two classes, else ``"ece"``."""
    return "top_label_ece" if "top_label_ece" in values else "ece"


def metric_noise(estimates: Mapping[str, Estimate], about: Column) -> NoiseText:
    """Return the noise text of a column's metric from ``estimates``; empty if it has no estimate."""
    estimate = estimates.get(about.metric)
    return noise_text([estimate] if estimate else [], about.format)


def noise_text(estimates: Sequence[Estimate], format_number: Callable[[float], str]) -> NoiseText:
    """Return interval, floor and p-value of a metric as text, pooled over runs if there are several.

    Args:
        estimates: One for each run; none gives empty text.
        format_number: How the column prints a number.
    """
    if not estimates:
        return NoiseText()
    interval = f"[{format_number(min(n.low for n in estimates))}, {format_number(max(n.high for n in estimates))}]"
    tested = [
        (n.p, n.floor, n.least_p) for n in estimates if n.p is not None and n.floor is not None
    ]
    if len(tested) < len(estimates):
        return NoiseText(interval)
    lowest, _, least = min(tested)
    low = format_p_digits(lowest)
    high = format_p_digits(max(tested)[0])
    smallest = format_p(lowest, least)
    floor = sum(n for _, n, _ in tested) / len(tested)
    return NoiseText(
        interval,
        format_number(floor),
        smallest if low == high else f"{smallest.replace('p = ', 'p ')} to {high}",
        calibrated=not any_seed_rejects([p for p, _, _ in tested]),
        floor_value=floor,
        replicates=min(n.replicates for n in estimates),
    )


def any_seed_rejects(p_values: Sequence[float]) -> bool:
    """Return whether the calibration test rejects for at least one run, at level 0.05 over all runs (Bonferroni).

    Example:
        >>> any_seed_rejects([0.001, 0.61, 0.3]), any_seed_rejects([0.03, 0.61, 0.3]), any_seed_rejects([0.03])
        (True, False, True)
    """
    return is_significant(len(p_values) * min(p_values), ALPHA)


NOISE_LEGEND = (
    "[low, high]: {level} % bootstrap interval over the test samples{over}. It says how far another test set could "
    "move the number; only seeds show how far another training would."
)
FLOOR_LEGEND = (
    "floor: the mean of the number for a perfectly calibrated model with the same confidences; the interval allows for "
    "a bias between none and that, if the number has one. p: of the test that the model is calibrated{p}. p ≤ means "
    "that none of the {replicates} replicates was as bad as the number, so that p is known only to be no "
    "larger{fewer}. ~: {rule}: this test does not reject calibration with this number of samples. That is absence of "
    "evidence, not evidence of calibration; {interval} reaches down to 0, and which of two such numbers is smaller "
    "says little."
)
_SINGLE_RUN_TEXTS = {"p": "", "rule": f"p > {ALPHA:g}", "interval": "the interval"}
_SEVERAL_RUNS_TEXTS = {
    "p": ", the smallest and the largest of all seeds",
    "rule": f"the smallest p times the number of seeds is above {ALPHA:g} (Bonferroni)",
    "interval": f"the interval of each seed with p > {ALPHA:g}",
}


def noise_legend(
    texts: Iterable[NoiseText], *, over_seeds: bool = False, level: float = CONFIDENCE_LEVEL
) -> list[str]:
    """Return sentences that explain intervals, floors and p-values.

    Args:
        texts: Texts of the cells; without any there is nothing to explain.
        over_seeds: Whether a number is the mean of several runs.
        level: Level of the intervals.
    """
    shown = [text for text in texts if text.interval]
    if not shown:
        return []
    over = ", from the lowest to the highest end of all seeds" if over_seeds else ""
    legend = [NOISE_LEGEND.format(over=over, level=f"{100 * level:g}")]
    if counts := [text.replicates for text in shown if text.floor]:
        most = max(counts)
        fewer_counts = [f"some have {few}" for few in sorted({*counts} - {most})]
        exceptions = (
            f"; {' and '.join(fewer_counts)}, because each takes long" if fewer_counts else ""
        )
        legend.append(
            FLOOR_LEGEND.format(
                **(_SEVERAL_RUNS_TEXTS if over_seeds else _SINGLE_RUN_TEXTS),
                replicates=f"{most:,}",
                fewer=exceptions,
            )
        )
    return legend


def estimates_legend(estimates: Estimates) -> tuple[str, ...]:
    """Return the sentences of :func:`noise_legend` for ``estimates``."""
    texts = [
        metric_noise(by_name, metric_column(name))
        for by_name in estimates.values()
        for name in by_name
    ]
    levels = [each.confidence_level for by_name in estimates.values() for each in by_name.values()]
    return tuple(noise_legend(texts, level=levels[0] if levels else CONFIDENCE_LEVEL))


def metric_cell(about: Column, value: float | None, noise: NoiseText) -> Cell:
    """Return a cell with a metric's value, interval, noise floor and p-value."""
    return Cell(
        about.format(value),
        mark="calibrated" if noise.calibrated else "",
        details=noise.lines,
        number=value,
    )


def metrics_table(
    measured: Measured, *, title: str, estimates: Estimates | None = None, z: ZTests | None = None
) -> Table:
    """Return a table with a row per metric and a column per stage.

    Args:
        measured: Metrics by stage, then by registry name.
        title: Above the table.
        estimates: Intervals and noise floors of some of them.
        z: Spiegelhalter's test by stage, for a last row.
    """
    estimates = estimates or {}
    rows = []
    for about in (
        metric_column(name)
        for name in dict.fromkeys(name for values in measured.values() for name in values)
    ):
        noise = [metric_noise(estimates.get(stage, {}), about) for stage in measured]
        values = [each.get(about.metric) for each in measured.values()]
        rows.append(
            (
                Cell(about.head, tip=about.about),
                *map(metric_cell, [about] * len(noise), values, noise),
            )
        )
    if z:
        rows.append(
            (
                Cell(_Z_COLUMN.head, tip=_Z_COLUMN.about),
                *(_z_cell(z.get(stage)) for stage in measured),
            )
        )
    return Table(
        (Column("metric", words=True), *map(Column, measured)),
        tuple(rows),
        title,
        estimates_legend(estimates),
    )


def _z_cell(test: SpiegelhalterTest | None) -> Cell:
    return Cell() if test is None else metric_cell(_Z_COLUMN, test.z, _z_noise(test))


def _z_noise(test: SpiegelhalterTest) -> NoiseText:
    return NoiseText(
        p_value=format_p(test.p_value, None), calibrated=not is_significant(test.p_value, ALPHA)
    )


def short_table(
    measured: Measured,
    *,
    title: str,
    estimates: Estimates | None = None,
) -> Table:
    """Return a table of the main metrics with intervals; a single stage also gets columns for floor and p-value.

    Args:
        measured: As in :func:`metrics_table`, and so are the others.
        title: Above the table.
        estimates: Intervals and noise floors.
    """
    main = {
        stage: {name: values[name] for name in values if name in MAIN_METRICS}
        for stage, values in measured.items()
    }
    table = metrics_table(main, title=title, estimates=estimates)
    if not any((estimates or {}).values()):
        return Table(table.columns, table.rows, title)
    if len(measured) > 1:
        return _add_interval_columns(table, main, estimates or {})
    # A single stage leaves room for interval, floor and p-value in columns of their own.
    ((stage, names),) = main.items()
    noise = [metric_noise((estimates or {}).get(stage, {}), metric_column(name)) for name in names]
    rows = [
        (*row, *map(Cell, (each.interval, each.floor, each.short_p)))
        for row, each in zip(table.rows, noise, strict=True)
    ]
    return Table(
        (*table.columns, *map(Column, (interval_header(estimates or {}), "floor", "p"))),
        tuple(rows),
        title,
    )


def _add_interval_columns(table: Table, main: Measured, estimates: Estimates) -> Table:
    """Return the table with a column of intervals after the column of each stage."""
    names = list(next(iter(main.values())))
    columns = [table.columns[0]]
    for head in stage_headers(main):
        columns += [Column(head), Column(interval_header(estimates))]
    rows = []
    for number, row in enumerate(table.rows):
        cells = [row[0]]
        for stage, cell in zip(main, row[1:], strict=True):
            by_name = estimates.get(stage, {}) if number < len(names) else {}
            interval = (
                metric_noise(by_name, metric_column(names[number])).interval if by_name else ""
            )
            cells += [replace(cell, details=()), Cell(interval)]
        rows.append(tuple(cells))
    return Table(tuple(columns), tuple(rows), table.title)


def interval_header(estimates: Estimates) -> str:
    """Return the header of a column of intervals, such as ``"95 % interval"``."""
    levels = [each.confidence_level for by_name in estimates.values() for each in by_name.values()]
    return f"{100 * (levels[0] if levels else CONFIDENCE_LEVEL):g} % interval"


def stage_headers(stages: Iterable[str]) -> list[str]:
    """Return column headers for stages: ``value`` for one; ``before`` and ``after`` for two."""
    names = list(stages)
    if len(names) == 1:
        return ["value"]
    return ["before", "after"] if len(names) == 2 else ["before", *names[1:]]


def add_mark_note(table: Table) -> Table:
    """Return the table with a note that explains the mark ``~``, if a cell has the mark."""
    marked = any(cell.mark == "calibrated" for row in table.rows for cell in row)
    return replace(table, notes=(*table.notes, WITHIN_NOISE_NOTE)) if marked else table


def describe_size(predictions: AnyPredictions) -> str:
    """Return the numbers of samples and classes as text, e.g. ``"50,000 samples, 10 classes"``."""
    samples = f"{predictions.num_samples:,} samples"
    if isinstance(predictions, TopLabel):
        return f"{samples}, confidences of the predicted class only"
    return f"{samples}, {predictions.num_classes} classes"


def count_classes(predictions: AnyPredictions) -> int:
    """Return the number of classes, or 0 for top-label predictions."""
    return predictions.num_classes if isinstance(predictions, Predictions) else 0


def metrics_to_dict(measured: Measured, estimates: Estimates) -> dict[str, dict[str, Any]]:
    """Return the metrics of each stage as a dict for JSON: the estimate if there is one, else the value."""
    return {
        stage: {
            name: estimates[stage][name].to_dict()
            if name in estimates.get(stage, {})
            else {"value": value}
            for name, value in values.items()
        }
        for stage, values in measured.items()
    }


def metrics_frame(measured: Measured, estimates: Estimates, events: Estimates, z: ZTests) -> Any:
    """Return a pandas DataFrame with a row per stage and metric; the event's measures come first.

    Raises:
        MissingExtraError: If pandas is not installed.
    """
    columns = ["value", "low", "high", "floor", "p"]
    rows: list[tuple[Any, ...]] = [
        (stage, name, *(getattr(each, column) for column in columns))
        for stage, values in events.items()
        for name, each in values.items()
    ]
    for stage, metrics in metrics_to_dict(measured, estimates).items():
        rows += [
            (stage, name, *map(entry.get, columns))
            for name, entry in metrics.items()
            if name not in events.get(stage, {})
        ]
        if stage in z:
            rows.append((stage, "spiegelhalter_z", z[stage][0], None, None, 0.0, z[stage][1]))
    return require("pandas", extra="tables").DataFrame(rows, columns=["stage", "metric", *columns])
