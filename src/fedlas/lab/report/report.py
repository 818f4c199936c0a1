"""The report over a bench folder: ``report.html`` to read, ``report.md`` to paste, ``results.csv`` to compute with."""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fedlas._core.files import write_text
from fedlas._core.terminal import Cell as Shown
from fedlas._core.terminal import table
from fedlas.lab.report.html import html_report
from fedlas.lab.report.report_markdown import markdown_report
from fedlas.lab.report.run_page import write_run_pages
from fedlas.lab.report.tables import SYMBOLS, Cell, legend, missing_notes, noise_notes, spread_note, summary_table
from fedlas.lab.report.verdict import calibrated_note, findings
from fedlas.lab.runs.bench_folder import HEAD, RESULTS
from fedlas.lab.runs.collect import collect
from fedlas.lab.runs.intervals import with_estimates
from fedlas.lab.runs.summary import STAGES, Summary
from fedlas.stats.estimates import REPLICATES, is_calibration_error

if TYPE_CHECKING:
    from rich.table import Table

__all__ = ["Report", "collect", "terminal_table", "write_report"]

_TERMINAL = ("accuracy", "nll", "ece", "adaptive_ece", "classwise_ece")
_STYLES = {"best": "bold green", "leading": "green", "same": "green", "worse": "", "untested": "", "": ""}


@dataclass(frozen=True)
class Report:
    """Paths of the three files of a report, the summary they were made from, and why runs have no page of their own."""

    markdown: Path
    html: Path
    csv: Path
    summary: Summary
    notes: tuple[str, ...] = ()


def write_report(
    folder: str | Path,
    *,
    replicates: int = REPLICATES,
    pages: bool = True,
    data: str | None = None,
    console: Any = None,
) -> Report:
    """Read the runs in ``folder`` and write ``report.md``, ``report.html`` and ``results.csv`` beside them.

    Each file is replaced atomically, and all three are made before the first is written. The same runs give the same
    bytes.

    Args:
        folder: A bench folder, see :func:`collect`.
        replicates: Of intervals and noise floors; 0 computes none and shows those that are kept in the run folders.
        pages: Whether each run with predictions gets a page of its own, ``report.html`` in its folder.
        data: Where the runs' data is, for the images of these pages; None searches the usual places.
        console: A ``rich.console.Console`` for progress bars; None makes one on standard error.

    Raises:
        InputError: If nothing in it has finished, it cannot be written to, or there are too few replicates.
    """
    summary = with_estimates(collect(folder), replicates=replicates, console=console)
    notes = write_run_pages(summary, data=data, console=console) if pages else []
    texts = {
        "report.md": markdown_report(summary),
        "report.html": html_report(summary),
        RESULTS: results_csv(summary),
    }
    markdown, html, results = (write_text(summary.folder / name, text) for name, text in texts.items())
    return Report(markdown, html, results, summary, tuple(notes))


def results_csv(summary: Summary) -> str:
    """One row per finished run and stage (``before`` or ``after`` temperature), fractions in full precision.

    After each metric come ``_low`` and ``_high``, the ends of its interval, and after a calibration error ``_floor``
    and ``_p``, its noise floor and the p-value of the calibration test.
    """
    about = (*HEAD, "temperature", "best_epoch", "epochs", "seconds", "parameters")
    columns = [*about, *(name for metric in summary.metrics for name in _csv_columns(metric))]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    for run in summary.runs:
        known = {
            "run": run.name, "recipe": run.recipe, "loss": run.loss, "seed": run.seed, "temperature": run.temperature,
            "best_epoch": run.best_epoch, "epochs": run.epochs, "seconds": run.seconds, "parameters": run.parameters,
        }  # fmt: skip
        for stage, word in STAGES.items():
            if values := run.measured[stage]:
                row: dict[str, Any] = {**known, "stage": word, **values}
                for metric in values:
                    if run.estimates and (found := run.estimates.get(metric, stage)):
                        ends = (found.low, found.high, found.floor, found.p)
                        row |= dict(zip(_csv_columns(metric)[1:], ends, strict=False))
                writer.writerow([row.get(name) for name in columns])  # None becomes an empty field
    return text.getvalue()


def _csv_columns(metric: str) -> list[str]:
    names = [metric, f"{metric}_low", f"{metric}_high"]
    return [*names, f"{metric}_floor", f"{metric}_p"] if is_calibration_error(metric) else names


def terminal_table(summary: Summary) -> Table:
    """The main metrics before temperature scaling, and ECE after it, in at most 100 columns for short method names."""
    metrics = [name for name in _TERMINAL if name in summary.metrics]
    before = summary_table(summary, "test", metrics, places=3)
    after = summary_table(summary, "test_scaled", ["ece"] if "ece" in summary.metrics else [])
    notes = [
        spread_note(summary),
        *(f"{f.question}: {f.method}, {f.verdict}." for f in findings(summary) if f.verdict),
        *filter(None, [calibrated_note(summary)]),
        *(f"{SYMBOLS[mark] + ' ' if SYMBOLS[mark] else ''}{meaning}." for mark, meaning in legend(summary).items()),
        *_terminal_notes(summary),
        *missing_notes(summary),
    ]
    heads = [c.head for c in before.columns] + [f"{c.title} after T {c.unit} {c.arrow}" for c in after.columns]
    sizes_differ = len({row.n for row in before.rows}) > 1
    rows = [
        [
            f"{row.method}, n = {row.n}" if sizes_differ else row.method,
            *map(_terminal_cell, (*row.cells, *scaled.cells)),
        ]
        for row, scaled in zip(before.rows, after.rows, strict=True)
    ]
    made: Table = table(
        ["method", *heads],
        rows,
        title=f"{summary.recipe}: test set",
        caption=notes,
        right=range(1, len(heads) + 1),
        whole=[0],
        padding=(0, 1, 0, 0),
        pad_edge=False,
    )
    return made


def _terminal_cell(cell: Cell) -> Shown:
    """The number; below it, dimmed, the interval, floor and p-value of a calibration error, a line each."""
    style = _STYLES[cell.mark]
    found = [(f"{cell.mean}{f' ±{cell.std}' if cell.std else ''}{cell.symbol or ' '}", style)]
    if cell.noise.floor:
        p_value = cell.noise.p_value.replace(" to ", "-")  # as wide as an interval, or it would wrap
        below = f"\n{cell.noise.interval} \n{cell.noise.sign}{cell.noise.floor} \n{p_value} "
        found.append((below, f"{style} dim".strip()))
    return found


def _terminal_notes(summary: Summary) -> list[str]:
    notes = noise_notes(summary)
    if not any(note.startswith("floor") for note in notes):
        return notes
    return ["Below a calibration error: its interval, its noise floor, and p.", *notes]
