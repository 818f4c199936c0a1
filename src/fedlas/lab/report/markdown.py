"""The report as Markdown: the same tables, to paste into a README or an issue."""

from __future__ import annotations

from fedlas.lab.report.bench_tables import environment_table, runs_table, short_table
from fedlas.lab.report.model import ReportModel
from fedlas.lab.report.notes import marks_notes, missing_notes, noise_notes, spread_note
from fedlas.lab.report.published import published_table
from fedlas.lab.report.verdict import answers, title, what_was_run
from fedlas.present.table import bullets, code_block, markdown, plain


def markdown_report(model: ReportModel) -> str:
    """``report.md``; names from the runs are escaped."""
    summary = model.summary
    parts = [f"# {plain(title(summary))}", plain(what_was_run(summary))]
    if commands := summary.commands:
        parts.append(code_block(commands))
    parts += [
        bullets(f"{answer.question}: {answer.text}" for answer in answers(model)),
        markdown(short_table(model, aurc=True)),
    ]
    for _, table in model.tables:
        parts += [f"## {table.title}", markdown(table)]
    parts.append(bullets([spread_note(model), *marks_notes(model), *noise_notes(model), *missing_notes(model)]))
    if published := published_table(summary):
        parts += [f"## {published.title}", markdown(published)]
    runs = runs_table(summary)
    parts += ["## Runs", markdown(runs.where(range(len(runs.columns) - 1)))]
    if notes := [f"{run.name}: {note}" for run in summary.runs for note in run.notes]:
        parts.append(bullets(notes))
    for heading, problems in (("Failed", summary.failed), ("Not readable", summary.unreadable)):
        if problems:
            parts += [f"## {heading}", bullets(f"{p.name}: {p.reason}" for p in problems)]
    if summary.unfinished:
        parts += ["## Unfinished", bullets(summary.unfinished)]
    if found := summary.environment:
        parts += ["## Environment", markdown(environment_table(found))]
    return "\n\n".join(parts) + "\n"
