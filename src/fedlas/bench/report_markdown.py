"""The report as Markdown: the same tables, to paste into a README or an issue."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from fedlas.bench import evidence
from fedlas.bench.results import Summary
from fedlas.bench.statement import title, what_was_run
from fedlas.bench.tables import SYMBOLS, Cell, column, legend, missing_notes, spread_note, stage_tables


def markdown_report(summary: Summary) -> str:
    """``report.md`` of ``summary``; names from the runs are escaped."""
    parts = [f"# {_plain(title(summary))}", _plain(what_was_run(summary))]
    if commands := evidence.commands(summary):
        parts.append(_code(commands))
    for heading, _, table in stage_tables(summary):
        heads = ["method", "n", *(c.head for c in table.columns)]
        rows = [[_plain(row.method), str(row.n), *map(_cell, row.cells)] for row in table.rows]
        parts += [f"## {heading}", _grid(heads, rows, left=1)]
    notes = [spread_note(summary)]
    notes += [f"{SYMBOLS[mark]} {meaning}.".strip() for mark, meaning in legend(summary).items()]
    parts.append("\n".join(f"- {_plain(note)}" for note in (*notes, *missing_notes(summary))))
    parts += ["## Runs", _runs(summary)]
    if run_notes := [f"- {_plain(run.name)}: {_plain(note)}" for run in summary.runs for note in run.notes]:
        parts.append("\n".join(run_notes))
    for heading, problems in (("Failed", summary.failed), ("Not readable", summary.unreadable)):
        if problems:
            parts += [f"## {heading}", "\n".join(f"- {_plain(p.name)}: {_plain(p.reason)}" for p in problems)]
    if summary.unfinished:
        parts += ["## Unfinished", "\n".join(f"- {_plain(name)}" for name in summary.unfinished)]
    if found := evidence.environment(summary):
        parts += [
            "## Environment",
            _grid(["", ""], [[_plain(k), _plain("; ".join(v))] for k, v in found.items()], left=2),
        ]
    return "\n\n".join(parts) + "\n"


def _runs(summary: Summary) -> str:
    accuracy, ece = column("accuracy"), column("ece")
    rows = []
    for run in summary.runs:
        before, after = run.measured["test"], run.measured["test_scaled"]
        rows.append([
            _plain(run.name), _plain(run.loss), str(run.seed), accuracy.format(before.get("accuracy")),
            ece.format(before.get("ece")), ece.format(after.get("ece")), _number(run.temperature, ".3f"),
            _number(run.best_epoch, ".0f"), _number(run.seconds, ".0f"),
        ])  # fmt: skip
    heads = ["run", "method", "seed", accuracy.head, ece.head, "ECE after, %", "temperature", "best epoch", "seconds"]
    return _grid(heads, rows, left=2)


def _number(value: float | None, form: str) -> str:
    return "—" if value is None else format(value, form)


def _cell(cell: Cell) -> str:
    text = f"{cell.mean} ± {cell.std}" if cell.std else cell.mean
    return f"{f'**{text}**' if cell.mark == 'best' else text} {cell.symbol}".strip()


def _grid(heads: Sequence[str], rows: Iterable[Sequence[str]], *, left: int) -> str:
    """A table padded to equal widths, so that it reads as plain text too; the first ``left`` columns to the left."""
    body = [list(heads), *map(list, rows)]
    widths = [max(3, *(len(row[i]) for row in body)) for i in range(len(heads))]
    rule = [("-" * w if i < left else "-" * (w - 1) + ":") for i, w in enumerate(widths)]
    lines = [
        [text.ljust(w) if i < left else text.rjust(w) for i, (text, w) in enumerate(zip(row, widths, strict=True))]
        for row in (body[0], rule, *body[1:])
    ]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _plain(text: str) -> str:
    """``text`` on one line, with what Markdown would read as markup escaped."""
    return re.sub(r"([\\`*\[\]|<])", r"\\\1", " ".join(text.split()))


def _code(lines: Iterable[str]) -> str:
    """An indented block, which no content can end early."""
    return "\n".join(f"    {line}" for text in lines for line in text.splitlines())
