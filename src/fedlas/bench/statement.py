"""What was run and what came of it, in sentences."""

from __future__ import annotations

from dataclasses import dataclass

from fedlas.bench.results import Summary
from fedlas.bench.tables import Cell, column, summary_table


def title(summary: Summary) -> str:
    """Head of a report."""
    return f"Calibration benchmark: {summary.recipe}" if summary.recipe else "Calibration benchmark"


def what_was_run(summary: Summary) -> str:
    """One or two sentences that let a stranger read the tables."""
    methods, seeds = summary.methods, summary.seeds
    made = summary.derived
    trained = [method for method in methods if method not in made]
    losses = "1 loss" if len(trained) == 1 else f"{len(trained)} losses"
    parts = [f"{losses} ({', '.join(trained)})"] if trained else []
    if made:
        parts.append(f"{len(made)} method{'s' * (len(made) != 1)} on top of finished runs ({', '.join(made)})")
    word = "seed" if len(seeds) == 1 else "seeds"
    text = f"{' and '.join(parts)} with {word} {', '.join(map(str, seeds))}: "
    text += f"{len(summary.runs)} finished run{'s' * (len(summary.runs) != 1)}"
    others = {"failed": summary.failed, "unfinished": summary.unfinished, "unreadable": summary.unreadable}
    text += "".join(f", {len(runs)} {kind}" for kind, runs in others.items() if runs) + ". "
    chosen = sorted({run.selected_by for run in summary.runs if run.selected_by})
    epoch = f" at the epoch with the best validation {' or '.join(chosen)}" if chosen else ""
    return (
        f"{text}All numbers are measured on the test set{epoch}, before and after temperature scaling fitted on the "
        "validation set."
    )


@dataclass(frozen=True)
class Finding:
    """The best method by one metric, and those that could be as good.

    Attributes:
        question: E.g. ``"Lowest ECE, after temperature"``.
        method: Its name.
        cell: Its mean and spread.
        unit: ``"%"`` or nothing.
        others: Methods not distinguishable from it.
    """

    question: str
    method: str
    cell: Cell
    unit: str
    others: tuple[str, ...]


def findings(summary: Summary) -> list[Finding]:
    """The best by accuracy, NLL, and ECE before and after temperature; nothing where no best is marked."""
    found = []
    for metric, stage in (("accuracy", "test"), ("nll", "test"), ("ece", "test"), ("ece", "test_scaled")):
        head = column(metric)
        rows = [(row.method, row.cells[0]) for row in summary_table(summary, stage, [metric]).rows]
        best = [(method, cell) for method, cell in rows if cell.mark == "best"]
        if best:
            (method, cell), others = best[0], tuple(m for m, c in rows if c.mark == "same")
            name = head.title if head.title.isupper() else head.title.lower()
            question = f"{'Highest' if head.arrow == '↑' else 'Lowest'} {name}"
            question += ", after temperature" if stage == "test_scaled" else ""
            found.append(Finding(question, method, cell, head.unit, others))
    return found
