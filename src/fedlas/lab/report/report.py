"""The report over a bench folder: ``report.html`` to read, ``report.md`` to paste, ``results.csv`` to compute with."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedlas._core.files import write_text
from fedlas.lab.report.after_auto import with_auto
from fedlas.lab.report.bench_tables import results_table
from fedlas.lab.report.html import html_report
from fedlas.lab.report.markdown import markdown_report
from fedlas.lab.report.model import ReportModel, report_model
from fedlas.lab.runs.claim import RESULTS
from fedlas.lab.runs.collect import collect
from fedlas.lab.runs.intervals import with_estimates
from fedlas.lab.runs.summary import Summary
from fedlas.present.table import csv_text
from fedlas.stats.estimates import REPLICATES

__all__ = ["Report", "collect", "write_report"]


@dataclass(frozen=True)
class Report:
    """Paths of the three files of a report, and the model they were made from."""

    markdown: Path
    html: Path
    csv: Path
    model: ReportModel

    @property
    def summary(self) -> Summary:
        """The runs, with their intervals."""
        return self.model.summary


def write_report(
    folder: str | Path,
    *,
    replicates: int = REPLICATES,
    console: Any = None,
) -> Report:
    """Read the runs in ``folder`` and write ``report.md``, ``report.html`` and ``results.csv`` beside them.

    Each file is replaced atomically, and all three are made before the first is written. The same runs give the same
    bytes.

    Args:
        folder: A bench folder, see :func:`collect`.
        replicates: Of intervals and noise floors; 0 computes none and shows those that are kept in the run folders.
        console: A ``rich.console.Console`` for progress bars; None makes one on standard error.

    Raises:
        InputError: If nothing in it has finished, it cannot be written to, or there are too few replicates.
    """
    model = report_model(with_auto(with_estimates(collect(folder), replicates=replicates, console=console)))
    summary = model.summary
    texts = {
        "report.md": markdown_report(model),
        "report.html": html_report(model),
        RESULTS: csv_text(results_table(summary)),
    }
    markdown, html, results = (write_text(summary.folder / name, text) for name, text in texts.items())
    return Report(markdown, html, results, model)
