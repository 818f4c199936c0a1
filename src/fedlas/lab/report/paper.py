"""``fedlas report FOLDER --against paper``: published numbers beside those of finished runs of the same cell."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from fedlas._core.check import InputError, check_choice
from fedlas._core.files import write_text
from fedlas._core.terminal import say, show
from fedlas.lab.report.published import METRICS, Published, published_ranks, rows_for, settings_that_differ
from fedlas.lab.runs.collect import collect
from fedlas.lab.runs.find import run_folders
from fedlas.lab.runs.folder import RunFolder
from fedlas.lab.runs.intervals import with_estimates
from fedlas.lab.runs.summary import Summary
from fedlas.present.noise_text import UNTOLD, noise_text
from fedlas.present.table import Table, bullets, column, markdown, plain, table_of, terminal

AGAINST = ("paper",)
"""What a report can be put against."""
FILE = "against-paper.md"
_HEADS = ("method", "from", "model", "accuracy %", "ECE %", "adaptive ECE %", "differs in")
_PERCENT = 100
_CHANCE = (
    "Below ours, where a report has computed them: from the lowest to the highest end of the seeds' 95 % bootstrap "
    "intervals over the test samples; floor: the number if the model were calibrated; p: of the test that it is, the "
    f"smallest and the largest; {UNTOLD}: the test rejects calibration for no seed (Bonferroni)."
)


@dataclass(frozen=True)
class Comparison:
    """Finished runs of one data set and model, and what is published of the same methods.

    Attributes:
        summary: The runs.
        data: Registry name of the data set.
        model: Registry name of the model.
        published: Rows by method, in the order of the runs, each with the settings in which it differs from these.
    """

    summary: Summary
    data: str
    model: str
    published: Mapping[str, Sequence[tuple[Published, tuple[str, ...]]]]

    @property
    def letters(self) -> dict[tuple[str, ...], str]:
        """A letter for every set of settings that differ, and a dash for none."""
        sets = dict.fromkeys(keys for rows in self.published.values() for _, keys in rows)
        named = [keys for keys in sets if keys]
        letters = {keys: chr(ord("a") + i) if i < 26 else f"z{i - 25}" for i, keys in enumerate(named)}
        return letters | ({(): "-"} if () in sets else {})

    @property
    def rows(self) -> list[tuple[str, ...]]:
        """One row for a method's runs, and one for each published row of it below."""
        rows: list[tuple[str, ...]] = []
        letters = self.letters
        for method in self.summary.methods:
            values = [_spread(self.summary.values(method, metric)) for metric in METRICS]
            seeds = sum(self.summary.run(method, seed) is not None for seed in self.summary.seeds)
            rows.append((method, f"here, {seeds} seed{'' if seeds == 1 else 's'}", self.model, *values, ""))
            estimates = {name: self.summary.estimates(method, name) for name in METRICS}
            if any(chance := [noise_text(each, column(name).format).text for name, each in estimates.items()]):
                rows.append(("", "95 %, floor, p", "", *chance, ""))
            rows += [
                ("", _origin(row), row.model, *_percents(row.values), letters[keys])
                for row, keys in self.published.get(method, ())
            ]
        return rows


def against_paper(folder: Path, *, against: str = "paper") -> int:
    """Write ``against-paper.md`` over a bench folder, or over a folder of such folders, and print it.

    Args:
        folder: Its direct children are run folders, or bench folders: the cells of one table.
        against: What to compare with, one of :data:`AGAINST`.

    Returns:
        0.

    Raises:
        InputError: If there is no finished run, nothing is published of any cell, or the file cannot be written.

    Note:
        Numbers are of the test set before temperature scaling. Nothing is said to be better: published numbers are of
        one seed, or of a number that is not stated, so there is no spread to test against.
    """
    check_choice("fedlas report", "--against", against, AGAINST)
    cells = [_cell(summary) for summary in _summaries(folder)]
    known = [cell for cell in cells if any(cell.published.values())]
    if not known:
        got = ", ".join(f"{cell.model} on {cell.data} ({', '.join(cell.summary.methods)})" for cell in cells)
        raise InputError(
            "fedlas report",
            "something must be published of the same data and method",
            got,
            "The report without --against says what was measured.",
        )
    ranks = _rank_rows(cells)
    path = folder / FILE
    write_text(path, _markdown(known, ranks))
    for cell in known:
        show(terminal(_table(cell)))
        say(*_differences(cell), wrap=True)
    say(_CHANCE, wrap=True)
    if ranks:
        show(terminal(_rank_table(cells, ranks)))
    say(f"against the paper: {path}")
    return 0


def _summaries(folder: Path) -> list[Summary]:
    """The bench folder, or the bench folders in it; runs of more than one cell cannot stand in one folder."""
    if not folder.is_dir():
        raise InputError("fedlas report", "the folder must exist", folder, "Pass the --out of a fedlas bench.")
    inside = run_folders(folder)
    if any(run.is_finished for run in inside):
        return [_read(folder)]
    benches = [each.path for each in inside if any(run.is_finished for run in run_folders(each.path))]
    return [_read(path) for path in benches] if benches else [_read(folder)]


def _read(folder: Path) -> Summary:
    """The runs, with the intervals that are kept in their folders."""
    return with_estimates(collect(folder), replicates=0)


def _cell(summary: Summary) -> Comparison:
    configs = {run.loss: config for run in reversed(summary.runs) if (config := _config(run.folder)) is not None}
    if not configs:
        raise InputError(
            "fedlas report",
            "a run must say how it was done",
            f"no config.yaml of a trained run in {summary.folder}",
            "Pass a folder that fedlas bench made.",
        )
    any_config = next(iter(configs.values()))
    data, model = str(any_config["data"]["name"]), str(any_config["model"]["name"])
    # A published number is only comparable as far as its settings agree, so each row carries what differs.
    found = rows_for(data, model, summary.methods)
    published = {
        method: [
            (row, tuple(settings_that_differ(configs.get(method, any_config), row)))
            for row in found
            if row.method == method
        ]
        for method in summary.methods
    }
    return Comparison(summary, data, model, published)


def _config(folder: RunFolder) -> dict[str, Any] | None:
    return folder.config if folder.config and not folder.is_derived else None


def _title(cell: Comparison) -> str:
    return f"{cell.model} on {cell.data}: published and measured here, test set, before temperature"


def _origin(row: Published) -> str:
    return f"{row.source}{'' if row.protocol == 'paper' else f', {row.protocol}'}"


def _differences(cell: Comparison) -> list[str]:
    """What the letters stand for, and what the sources say besides."""
    lines = [f"{letter}: {'; '.join(keys) or 'no known setting'}." for keys, letter in cell.letters.items()]
    notes = [
        f"{method}, {_origin(row)}, {row.model}: {row.note}."
        for method, rows in cell.published.items()
        for row, _ in rows
        if row.note
    ]
    return [*lines, *notes]


def _percent(value: float) -> str:
    return f"{value * _PERCENT:.2f}"


def _spread(values: Sequence[float]) -> str:
    finite = [value * _PERCENT for value in values if not math.isnan(value)]
    if not finite:
        return "-"
    return f"{fmean(finite):.2f}" + (f" ± {stdev(finite):.2f}" if len(finite) > 1 else "")


def _percents(values: Mapping[str, float]) -> list[str]:
    return [_percent(values[metric]) if metric in values else "-" for metric in METRICS]


_RANKS_TITLE = "Average ranks over {} cells here, and over the paper's six"
_RANK_HEADS = ("method", "from", "ECE rank", "adaptive ECE rank", "mean accuracy %")


def _rank_rows(cells: Sequence[Comparison]) -> list[tuple[str, ...]]:
    """Average rank of each method that all cells have, by its mean over seeds; 1 is best, equals share a rank."""
    if len(cells) < 2:
        return []
    methods = [m for m in cells[0].summary.methods if all(m in cell.summary.methods for cell in cells)]
    ranks = {metric: [_ranked(cell.summary, methods, metric) for cell in cells] for metric in ("ece", "adaptive_ece")}
    printed = {row.method: row for row in published_ranks()}
    rows = []
    for method in methods:
        accuracy = fmean(_mean(cell.summary, method, "accuracy") for cell in cells) * _PERCENT
        averages = [f"{fmean(cell[method] for cell in ranks[metric]):.1f}" for metric in ranks]
        rows.append((method, f"here, of {len(methods)} methods", *averages, f"{accuracy:.2f}"))
        if method in printed:
            row = printed[method]
            theirs = [f"{row.ranks[metric]:g}" for metric in ranks]
            rows.append(("", f"{row.source}, of 14 methods", *theirs, f"{row.accuracy * _PERCENT:.2f}"))
    return rows


def _ranked(summary: Summary, methods: Sequence[str], metric: str) -> dict[str, float]:
    means = {method: _mean(summary, method, metric) for method in methods}
    return {
        method: 1 + sum(other < mean for other in means.values()) + (list(means.values()).count(mean) - 1) / 2
        for method, mean in means.items()
    }


def _mean(summary: Summary, method: str, metric: str) -> float:
    finite = [value for value in summary.values(method, metric) if not math.isnan(value)]
    return fmean(finite) if finite else math.inf


def _markdown(cells: Sequence[Comparison], ranks: Sequence[tuple[str, ...]]) -> str:
    parts = [
        "# Published numbers beside measured ones\n",
        "Percent. Ours: mean and standard deviation over seeds. Published numbers are printed without a spread, so no "
        "difference is tested.\n",
        f"{_CHANCE}\n",
    ]
    for cell in cells:
        parts += [
            f"## {plain(_title(cell))}\n",
            markdown(_table(cell)) + "\n",
            "Settings that differ, and what the sources say besides:\n",
            bullets(_differences(cell)) + "\n",
        ]
    if ranks:
        table = _rank_table(cells, ranks)
        parts += [f"## {table.title}\n", markdown(table) + "\n"]
    return "\n".join(parts)


def _table(cell: Comparison) -> Table:
    return table_of(_HEADS, cell.rows, title=_title(cell), text=(0, 1, 2, 6))


def _rank_table(cells: Sequence[Comparison], ranks: Sequence[tuple[str, ...]]) -> Table:
    return table_of(_RANK_HEADS, ranks, title=_RANKS_TITLE.format(len(cells)), text=(0, 1))
