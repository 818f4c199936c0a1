"""The report as Markdown: the same tables, to paste into a README or an issue."""

from __future__ import annotations

from fedlas.lab.report.markdown import code_block as _code
from fedlas.lab.report.markdown import grid as _grid
from fedlas.lab.report.markdown import plain as _plain
from fedlas.lab.report.tables import (
    SYMBOLS,
    Cell,
    column,
    legend,
    missing_notes,
    noise_notes,
    run_cell,
    spread_note,
    stage_tables,
)
from fedlas.lab.report.verdict import calibrated_note, findings, title, verdicts, what_was_run
from fedlas.lab.runs import provenance
from fedlas.lab.runs.summary import FinishedRun, Summary


def markdown_report(summary: Summary) -> str:
    """``report.md`` of ``summary``; names from the runs are escaped."""
    parts = [f"# {_plain(title(summary))}", _plain(what_was_run(summary))]
    if commands := provenance.commands(summary.starts):
        parts.append(_code(commands))
    if found_best := [f"- {f.question}: {_plain(f.method)}, {_plain(f.verdict)}" for f in findings(summary)]:
        parts.append("\n".join(found_best))
    if note := calibrated_note(summary):
        parts.append(_plain(note))
    for heading, _, table in stage_tables(summary):
        heads = ["method", "n", *(c.head for c in table.columns)]
        rows = [[_plain(row.method), str(row.n), *map(_cell, row.cells)] for row in table.rows]
        parts += [f"## {heading}", _grid(heads, rows, left=1)]
    notes = [spread_note(summary)]
    notes += [f"{SYMBOLS[mark]} {meaning}.".strip() for mark, meaning in legend(summary).items()]
    parts.append("\n".join(f"- {_plain(note)}" for note in (*notes, *noise_notes(summary), *missing_notes(summary))))
    for heading, lines in verdicts(summary):
        parts += [
            f"## Who is best, {heading[:1].lower()}{heading[1:]}",
            "\n".join(f"- {_plain(metric)}: {_plain(best)}, {_plain(said)}" for metric, best, said in lines),
        ]
    parts += ["## Runs", _runs(summary)]
    if run_notes := [f"- {_plain(run.name)}: {_plain(note)}" for run in summary.runs for note in run.notes]:
        parts.append("\n".join(run_notes))
    for heading, problems in (("Failed", summary.failed), ("Not readable", summary.unreadable)):
        if problems:
            parts += [f"## {heading}", "\n".join(f"- {_plain(p.name)}: {_plain(p.reason)}" for p in problems)]
    if summary.unfinished:
        parts += ["## Unfinished", "\n".join(f"- {_plain(name)}" for name in summary.unfinished)]
    if found := provenance.environment(summary.starts):
        parts += [
            "## Environment",
            _grid(["", ""], [[_plain(k), _plain("; ".join(v))] for k, v in found.items()], left=2),
        ]
    return "\n\n".join(parts) + "\n"


def _runs(summary: Summary) -> str:
    accuracy, ece = column("accuracy"), column("ece")
    rows = [
        [
            _plain(run.name), _plain(run.loss), str(run.seed), _of_run(run, "accuracy"),
            _of_run(run, "ece"), _of_run(run, "ece", "test_scaled"), _number(run.temperature, ".3f"),
            _number(run.best_epoch, ".0f"), _number(run.seconds, ".0f"),
        ]
        for run in summary.runs
    ]  # fmt: skip
    heads = ["run", "method", "seed", accuracy.head, ece.head, "ECE after, %", "temperature", "best epoch", "seconds"]
    return _grid(heads, rows, left=2)


def _of_run(run: FinishedRun, metric: str, stage: str = "test") -> str:
    cell = run_cell(run, metric, stage)
    return "<br>".join(part for part in (cell.mean, cell.noise.interval, cell.noise.test) if part)


def _number(value: float | None, form: str) -> str:
    return "—" if value is None else format(value, form)


def _cell(cell: Cell) -> str:
    text = f"{cell.mean} ± {cell.std}" if cell.std else cell.mean
    text = f"{f'**{text}**' if cell.mark == 'best' else text} {cell.symbol}".strip()
    return "<br>".join(part for part in (text, cell.noise.interval, cell.noise.test) if part)
