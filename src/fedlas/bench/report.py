"""The report over a bench folder: ``report.html`` to read, ``report.md`` to paste, ``results.csv`` to compute with."""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from fedlas._core.extras import require
from fedlas._core.files import write_text
from fedlas.bench.collect import collect
from fedlas.bench.report_html import html_report
from fedlas.bench.report_markdown import markdown_report
from fedlas.bench.results import STAGES, Summary
from fedlas.bench.tables import SYMBOLS, legend, missing_notes, spread_note, summary_table

if TYPE_CHECKING:
    from rich.table import Table

__all__ = ["Report", "collect", "terminal_table", "write_report"]

_TERMINAL = ("accuracy", "nll", "ece", "adaptive_ece", "classwise_ece")
_STYLES = {"best": "bold green", "same": "green", "worse": "", "untested": "", "": ""}


@dataclass(frozen=True)
class Report:
    """Paths of the three files of a report, and the summary they were made from."""

    markdown: Path
    html: Path
    csv: Path
    summary: Summary


def write_report(folder: str | Path) -> Report:
    """Read the runs in ``folder`` and write ``report.md``, ``report.html`` and ``results.csv`` beside them.

    Each file is replaced atomically, and all three are made before the first is written. The same runs give the same
    bytes.

    Args:
        folder: A bench folder, see :func:`collect`.

    Raises:
        InputError: If nothing in it has finished, or it cannot be written to.
    """
    summary = collect(folder)
    texts = {
        "report.md": markdown_report(summary),
        "report.html": html_report(summary),
        "results.csv": results_csv(summary),
    }
    markdown, html, table = (write_text(summary.folder / name, text) for name, text in texts.items())
    return Report(markdown, html, table, summary)


def results_csv(summary: Summary) -> str:
    """One row per finished run and stage (``before`` or ``after`` temperature), fractions in full precision."""
    about = ("run", "recipe", "loss", "seed", "stage", "temperature", "best_epoch", "epochs", "seconds", "parameters")
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*about, *summary.metrics])
    for run in summary.runs:
        known = {
            "run": run.name, "recipe": run.recipe, "loss": run.loss, "seed": run.seed, "temperature": run.temperature,
            "best_epoch": run.best_epoch, "epochs": run.epochs, "seconds": run.seconds, "parameters": run.parameters,
        }  # fmt: skip
        for stage, word in STAGES.items():
            if values := run.measured[stage]:
                row = {**known, "stage": word, **values}
                writer.writerow([row.get(name) for name in (*about, *summary.metrics)])  # None becomes an empty field
    return text.getvalue()


def terminal_table(summary: Summary) -> Table:
    """The main metrics before temperature scaling, and ECE after it, in at most 100 columns for short method names."""
    metrics = [name for name in _TERMINAL if name in summary.metrics]
    before = summary_table(summary, "test", metrics, places=3)
    after = summary_table(summary, "test_scaled", ["ece"] if "ece" in summary.metrics else [])
    notes = [
        spread_note(summary),
        *(f"{SYMBOLS[mark] + ' ' if SYMBOLS[mark] else ''}{meaning}." for mark, meaning in legend(summary).items()),
        *missing_notes(summary),
    ]
    tables, boxes, texts = (require(f"rich.{name}", extra="bench") for name in ("table", "box", "text"))
    table: Table = tables.Table(
        title=texts.Text(f"{summary.recipe}: test set"),
        caption=texts.Text("\n".join(notes)),
        caption_justify="left",
        box=boxes.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        pad_edge=False,
    )
    table.add_column("method", no_wrap=True)
    heads = [c.head for c in before.columns] + [f"{c.title} after T {c.unit} {c.arrow}" for c in after.columns]
    for head in heads:
        table.add_column(texts.Text(head), justify="right", vertical="bottom", overflow="fold")
    sizes_differ = len({row.n for row in before.rows}) > 1
    for row, scaled in zip(before.rows, after.rows, strict=True):
        cells = [
            texts.Text(
                f"{cell.mean}{f' ±{cell.std}' if cell.std else ''}{cell.symbol or ' '}", style=_STYLES[cell.mark]
            )
            for cell in (*row.cells, *scaled.cells)
        ]
        table.add_row(texts.Text(f"{row.method}, n = {row.n}" if sizes_differ else row.method), *cells)
    return table
