"""Tables of a bench: one row per method, detailed metrics, the runs, and the CSV file."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache
from importlib.resources import files
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import quote

from fedlas.lab.report.cells import method_cell, method_noise, result_table, run_cell
from fedlas.lab.report.verdict import table_notes
from fedlas.lab.results.result import Result
from fedlas.lab.results.stages import AUTO
from fedlas.lab.runs.bench_folder import RESULTS_COLUMNS
from fedlas.lab.runs.folder import PACK_FILE
from fedlas.lab.runs.summary import STAGES, FinishedRun, Summary
from fedlas.present.table import DASH, Cell, Column, Table, make_table, metric_column
from fedlas.stats.estimates import is_calibration_error

PAGE = "report.html"
"""Name of a run's page in its folder."""
_PUBLISHED_METRICS = ("accuracy", "ece", "adaptive_ece")
_DETAILED_METRICS = ("accuracy", "nll", "ece", "adaptive_ece", "classwise_ece")


def results_table(summary: Summary) -> Table:
    """Return one row per finished run and stage (``before`` or ``after`` temperature), fractions in full precision.

    After each metric come ``_low`` and ``_high``, the ends of its interval, and after a calibration error ``_floor``
    and ``_p``, its noise floor and the p-value of the calibration test.
    """
    about = ("temperature", "best_epoch", "epochs", "seconds", "parameters")
    rows = []
    for run in summary.runs:
        for stage, word in STAGES.items():
            if not (values := run.measured[stage]):
                continue
            row: dict[str, Any] = dict.fromkeys(RESULTS_COLUMNS)
            row |= {"run": run.name, "stage": word}
            row |= {name: getattr(run, name) for name in ("recipe", "loss", "seed", *about)}
            for metric in summary.metrics:
                row[metric] = values.get(metric)
                ends = ("low", "high", "floor", "p")[: 4 if is_calibration_error(metric) else 2]
                estimate = run.estimates.get(metric, stage) if run.estimates else None
                row |= {f"{metric}_{end}": getattr(estimate, end, None) for end in ends}
            rows.append(row)
    return make_table(list(rows[0]), [list(row.values()) for row in rows])


def short_bench_table(result: Result, *, places: int = 3, aurc: bool = False) -> Table:
    """Return one row per method: accuracy, NLL and ECE with noise floor as trained, NLL and ECE after calibration.

    Args:
        result: Result of a bench.
        places: Decimal places.
        aurc: Whether to show AURC, for which a terminal has no room.
    """
    accuracy, nll, ece = (metric_column(name, places=places) for name in ("accuracy", "nll", "ece"))
    ranking = metric_column("aurc", places=places + 1)
    after = result.after
    word = "auto" if after == AUTO else "after T"
    keys = [
        (accuracy, "test", ""),
        (nll, "test", " raw"),
        *[(ranking, "test", "")] * aurc,
        (nll, after, f" {word}"),
        (replace(ece, unit="% (floor)"), "test", " raw"),
        (ece, after, f" {word}"),
    ]
    # Methods that include a calibrator have one stage.
    has_after = any(run.measured.get(after) for run in result.summary.runs)
    shown = [
        (replace(about, title=about.title + when * has_after), stage)
        for about, stage, when in keys
        if any(result.values(m, about.metric, stage) for m in result.methods)
    ]
    rows = [
        (Cell(method), *(short_cell(result, method, about, stage) for about, stage in shown))
        for method in result.methods
    ]
    table = Table((Column("method", words=True), *(head for head, _ in shown)), tuple(rows))
    # If all methods have the same number of seeds, the line below the table says so.
    if len({len(seeds) for seeds in result.seeds.values()}) == 1:
        return table
    counts = tuple((*row, Cell(str(len(result.seeds[row[0].value])))) for row in rows)
    return Table((*table.columns, Column("seeds")), counts)


def short_cell(result: Result, method: str, metric_column: Column, stage: str = "test") -> Cell:
    """Return mean, deviation and mark of a method; ``~`` if a calibration error is within noise."""
    cell = method_cell(result, method, metric_column, stage)
    noise = method_noise(result, method, metric_column, stage)
    if noise.floor and stage == "test":
        return replace(cell, extra=f"({'~' * noise.calibrated}{noise.floor})")
    return replace(cell, mark="calibrated") if noise.floor and noise.calibrated else cell


def detailed_bench_table(result: Result) -> Table:
    """Return main metrics as trained and ECE after calibration, with intervals, noise floors and tests."""
    metrics = [name for name in _DETAILED_METRICS if name in result.summary.metrics]
    before = result_table(result, "test", metrics, places=3)
    after = result_table(result, result.after, ["ece"] if "ece" in result.summary.metrics else [])
    if len(set(map(len, result.seeds.values()))) == 1:  # which a note says
        before = before.where([0, *range(2, len(before.columns))])
    word = "auto" if result.after == AUTO else "after T"
    columns = (*before.columns, *(replace(c, title=f"{c.title} {word}") for c in after.columns[2:]))
    rows = tuple((*row, *more[2:]) for row, more in zip(before.rows, after.rows, strict=True))
    return Table(columns, rows, f"{result.summary.recipe}: test set", tuple(table_notes(result)))


def runs_table(summary: Summary) -> Table:
    """Return one row per run, with links to its page and its files."""
    shown = [("accuracy", "test"), ("nll", "test"), ("ece", "test"), ("ece", "test_calibrated")]
    columns = [replace(metric_column(metric), title=metric_column(metric).title + " after T" * (stage != "test"))
               for metric, stage in shown]  # fmt: skip
    headers: list[str | Column] = [
        "Run",
        "Method",
        "Seed",
        *columns,
        "Temperature",
        "Best epoch",
        "Seconds",
        "Files",
    ]
    rows = []
    for run in summary.runs:
        cells = [run_cell(run, metric_column(metric), stage) for metric, stage in shown]
        epoch = _format_number(run.best_epoch, ".0f") + (
            "" if run.epochs is None else f" / {run.epochs:.0f}"
        )
        about = [_format_number(run.temperature, ".3f"), epoch, _format_number(run.seconds, ".0f")]
        rows.append(
            [_run_link(run), run.loss, run.seed, *cells, *about, Cell(links=_file_links(run))]
        )
    return make_table(headers, rows, title="Runs", left_aligned=(0, 1, len(headers) - 1))


def environment_table(environment: Mapping[str, Sequence[str]]) -> Table:
    """Return software and hardware of the runs; several values if the runs or their starts differ."""
    several = " (differs between runs or their starts)"
    rows = [
        [key, "; ".join(values) + several * (len(values) > 1)]
        for key, values in environment.items()
    ]
    return make_table(["key", "value"], rows, title="Environment", left_aligned=(0, 1))


def relative_link(*parts: str) -> str:
    """Return a relative URL; its leading ``./`` keeps a name from acting as a URL scheme."""
    return "./" + quote("/".join(parts))


def _run_link(run: FinishedRun) -> Cell:
    """Return a cell with the name of a run and a link to its page or folder."""
    if run.folder.is_packed:
        return Cell(run.name, link=relative_link(PACK_FILE))
    return Cell(
        run.name,
        link=relative_link(run.name, PAGE)
        if (run.path / PAGE).is_file()
        else f"{relative_link(run.name)}/",
    )


def _file_links(run: FinishedRun) -> tuple[tuple[str, str], ...]:
    """Return the label and link of each file of a run."""
    if run.folder.is_packed:
        return (("all", relative_link(PACK_FILE)), ("log", relative_link(PACK_FILE)))
    page = [("page", relative_link(run.name, PAGE))] if (run.path / PAGE).is_file() else []
    return (
        *page,
        *((PurePosixPath(name).stem, relative_link(run.name, name)) for name in run.folder.files),
    )


def _format_number(value: float | None, spec: str) -> str:
    return DASH if value is None else format(value, spec)


@cache
def read_published_numbers() -> tuple[dict[str, str], ...]:
    """Return published results by row: source, protocol, data, model, method, metrics in percent, note."""
    text = (files("fedlas.lab.report") / "published_numbers.csv").read_text(encoding="utf-8")
    return tuple(csv.DictReader(text.splitlines()))


def _normalize_name(name: object) -> str:
    """Return a data or model name in lower case without hyphens, so that registry and papers agree."""
    return str(name).lower().replace("-", "")


def published_numbers_table(summary: Summary) -> Table | None:
    """Return published results before temperature scaling, of the same model if available; None if there are none.

    Published results are of one seed, or of an unknown number of seeds, so they cannot be tested against.
    """
    configs = [run.folder.config for run in summary.runs if not run.folder.is_derived]
    config = next(filter(None, configs), None)
    if config is None or "model" not in config:
        return None
    data, model = (_normalize_name(config[section]["name"]) for section in ("data", "model"))
    rows = [
        row
        for row in read_published_numbers()
        if _normalize_name(row["data"]) == data and row["method"] in summary.methods
    ]
    rows = [row for row in rows if _normalize_name(row["model"]) == model] or rows
    if not rows:
        return None
    keys = ("method", "source", "protocol", "model", *_PUBLISHED_METRICS, "note")
    cells = [
        [row[key] or DASH * (key in _PUBLISHED_METRICS) for key in keys]
        for row in sorted(rows, key=lambda row: summary.methods.index(row["method"]))
    ]
    headers = [
        f"{key.replace('_', ' ').replace('ece', 'ECE')}{' %' * (key in _PUBLISHED_METRICS)}"
        for key in keys
    ]
    return make_table(
        headers,
        cells,
        title=f"Published numbers on {rows[0]['data']}, test set",
        left_aligned=(0, 1, 2, 3, 7),
    )
