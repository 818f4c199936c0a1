"""Tables and figure of the arena: ``python benchmarks/arena/report.py results/arena`` writes them into its README."""

from __future__ import annotations

import csv
import json
import math
import re
import sys
from collections import defaultdict
from pathlib import Path
from statistics import fmean, median, stdev

import data
from scipy import stats

from fedlas.stats import holm, wilcoxon_test

BASE = "ce or ls"
TRAININGS = {
    BASE: ("ce", "ls"),
    "ce tuned": ("ce", "ce decay 1", "ce decay 4"),
    "tuned": ("ce", "ce decay 1", "ce decay 4", "ls", "ls decay 1", "ls decay 4"),
    "ensemble of 3": ("ce", "ce 1", "ce 2"),
    "cross-fitted": ("ce", "fold 1", "fold 2"),
    "ce, last": ("ce",),
    "ce, nll": ("ce",),
}
"""What a method trains, where it is not the training of its own name."""
Values = dict[str, dict[str, dict[str, list[float]]]]
"""Metric, method, data set: one value a seed."""


def read(path: Path) -> Values:
    """The packed results."""
    values: Values = defaultdict(lambda: defaultdict(lambda: defaultdict(list)))
    with path.open(newline="") as file:
        for row in csv.DictReader(file):
            for metric, value in row.items():
                if metric not in ("data", "method", "seed", "commit"):
                    values[metric][row["method"]][row["data"]].append(float(value))
    return values


def change(mine: list[float], other: list[float]) -> float:
    """Percent by which the mean differs."""
    return 100 * (fmean(mine) / fmean(other) - 1)


def p_value(mine: list[float], other: list[float], *, extra: float = 0.0) -> float:
    """The p-value of a paired t-test over seeds; ``extra`` is added to 1/J in its variance (Nadeau and Bengio 2003)."""
    gaps = [a - b for a, b in zip(mine, other, strict=True)]
    if stdev(gaps) == 0:
        return 1.0
    t = fmean(gaps) / (stdev(gaps) * math.sqrt(1 / len(gaps) + extra))
    return float(2 * stats.t.sf(abs(t), len(gaps) - 1))


def marks(
    values: Values, method: str, metric: str = "nll", base: str = BASE, *, extra: float = 0.0
) -> dict[str, int]:
    """-1 where a method is lower than the base beyond Holm's correction over data sets, 1 where it is higher."""
    mine, other = values[metric][method], values[metric][base]
    adjusted = holm([p_value(mine[name], other[name], extra=extra) for name in other])
    return {
        name: (p < 0.05) * (1 if fmean(mine[name]) > fmean(other[name]) else -1)
        for name, p in zip(other, adjusted, strict=True)
    }


def counted(found: dict[str, int]) -> str:
    return f"{list(found.values()).count(-1)} / {list(found.values()).count(1)}"


def table(head: list[str], rows: list[list[str]]) -> str:
    """Markdown; all columns but the first are numbers."""
    widths = [max(3, *(len(row[place]) for row in [head, *rows])) for place in range(len(head))]
    lines = [
        " | ".join(
            cell.rjust(width) if place else cell.ljust(width) for place, (cell, width) in pairs
        )
        for pairs in (list(enumerate(zip(row, widths, strict=True))) for row in [head, *rows])
    ]
    rule = " | ".join(
        "-" * (width - (place > 0)) + ":" * (place > 0) for place, width in enumerate(widths)
    )
    return "\n".join(f"| {line} |" for line in [lines[0], rule, *lines[1:]])


def headline(values: Values, costs: dict[str, float]) -> str:
    """Each method against the better of ce and ls, and against ce, over data sets."""
    ratio = data.TEST[0] / data.TRAIN[0]
    rows = []
    for method, sets in values["nll"].items():
        other, ce = values["nll"][BASE], values["nll"]["ce"]
        changes = {name: change(sets[name], other[name]) for name in other}
        worst = max(changes, key=changes.__getitem__)
        p = wilcoxon_test([0.0] * len(changes), list(changes.values())).p_value
        cost = sum(costs[name] for name in TRAININGS.get(method, (method,)))
        cells = [
            f"{median(changes.values()):+.2f}",
            "" if method == BASE else f"{changes[worst]:+.1f} ({worst})",
            counted(marks(values, method)),
            counted(marks(values, method, extra=ratio)),
            "" if method == BASE else f"{p:.3f}",
            f"{cost:.2f}",
            f"{median(change(sets[name], ce[name]) for name in ce):+.2f}",
            counted(marks(values, method, base="ce")),
        ]
        rows.append((median(changes.values()), [method, *cells]))
    head = [
        "method",
        "median %",
        "worst %",
        "lower / higher",
        "cautious",
        "Wilcoxon p",
        "cost",
        "median % to ce",
    ]
    return table([*head, "lower / higher than ce"], [row for _, row in sorted(rows)])


def by_set(values: Values, methods: list[str]) -> str:
    """NLL of the better of ce and ls, and by how many percent methods differ; a star where Holm confirms it."""
    found = {method: marks(values, method) for method in methods}
    rows = []
    for name, other in values["nll"][BASE].items():
        cells = [
            f"{change(values['nll'][method][name], other):+.1f}{'*' if found[method][name] else ' '}"
            for method in methods
        ]
        rows.append([name, f"{fmean(other):.4f}", *cells])
    return table(["data set", f"NLL of {BASE}", *methods], rows)


def second(values: Values) -> str:
    """The other metrics after auto: differences from the better of ce and ls, in the median over data sets."""
    rows = []
    for method, sets in values["nll"].items():
        gaps = [100 * (_root(values, method, name) - _root(values, BASE, name)) for name in sets]
        cells = [f"{median(gaps):+.2f}"]
        for metric in ("smooth_ece", "accuracy"):
            gaps = [
                100 * (fmean(mine) - fmean(values[metric][BASE][name]))
                for name, mine in values[metric][method].items()
            ]
            cells.append(f"{median(gaps):+.2f}")
        for metric in ("brier", "aurc"):
            changes = [
                change(mine, values[metric][BASE][name])
                for name, mine in values[metric][method].items()
            ]
            cells.append(f"{median(changes):+.1f}")
        rows.append([method, *cells])
    return table(
        ["method", "ECE, points", "smooth ECE, points", "accuracy, points", "Brier %", "AURC %"],
        rows,
    )


def _root(values: Values, method: str, name: str, prefix: str = "") -> float:
    return math.sqrt(max(0.0, fmean(values[f"{prefix}ece2"][method][name])))


def question(values: Values) -> str:
    """FedLAS's question: lower or higher than others, before and after the calibrator, in NLL and ECE."""
    rows = []
    for method, others in (("fedlas", ("ce", "ls")), ("fedlas+", ("ce", "mbls"))):
        for other in others:
            cells = []
            for prefix in ("raw_", ""):
                cells += [
                    counted(marks(values, method, prefix + metric, other))
                    for metric in ("nll", "ece2")
                ]
                pairs = values[f"{prefix}nll"][method], values[f"{prefix}nll"][other]
                cells.insert(
                    -1,
                    f"{median(change(pairs[0][name], pairs[1][name]) for name in pairs[0]):+.1f}",
                )
            rows.append([f"{method} minus {other}", *cells])
    head = ["", "raw NLL", "median %", "raw ECE²", "NLL after auto", "median %", "ECE² after auto"]
    return table(head, rows)


def figure(values: Values) -> str:
    """ECE of each data set, before and after auto: one dot for each method."""
    names = list(values["nll"][BASE])
    colors = {"ce": "#4477aa", "ls": "#ee7733", "fedlas": "#aa3377", "fedlas+": "#228833"}
    ends = [max(_root(values, m, n, "raw_") for m in colors for n in names)] * 2
    top = math.ceil(100 * ends[0] / 5) * 5
    parts = []
    for panel, (prefix, title) in enumerate((("raw_", "as trained"), ("", "after auto"))):
        left = 110 + 270 * panel
        parts.append(f'<text x="{left}" y="16" font-weight="bold">{title}</text>')
        for tick in range(0, top + 1, 5):
            x = left + 240 * tick / top
            parts.append(f'<path d="M{x:.0f} 26V{34 + 20 * len(names)}" stroke="#ccc"/>')
            parts.append(
                f'<text x="{x:.0f}" y="{50 + 20 * len(names)}" text-anchor="middle">{tick}</text>'
            )
        for row, name in enumerate(names):
            y = 40 + 20 * row
            if not panel:
                parts.append(f'<text x="100" y="{y + 4}" text-anchor="end">{name}</text>')
            for method, color in colors.items():
                x = left + 240 * 100 * _root(values, method, name, prefix) / top
                parts.append(
                    f'<circle cx="{x:.1f}" cy="{y}" r="4" fill="{color}" fill-opacity=".75"/>'
                )
    bottom = 70 + 20 * len(names)
    parts.append(f'<text x="110" y="{bottom + 4}">ECE in percent, chance removed</text>')
    for place, (method, color) in enumerate(colors.items()):
        x = 390 + 65 * place
        parts.append(f'<circle cx="{x}" cy="{bottom}" r="4" fill="{color}"/>')
        parts.append(f'<text x="{x + 8}" y="{bottom + 4}">{method}</text>')
    style = 'font-family="sans-serif" font-size="12"'
    size = f'viewBox="0 0 650 {bottom + 14}" width="650" height="{bottom + 14}"'
    background = '<rect width="100%" height="100%" fill="#fff"/>'
    return f'<svg xmlns="http://www.w3.org/2000/svg" {size} {style}>{background}{"".join(parts)}</svg>\n'


def blocks(folder: Path) -> dict[str, str]:
    """The tables of the README by name."""
    values, costs = read(folder / "results.csv"), json.loads((folder / "cost.json").read_text())
    several = [
        "ce",
        "ls",
        "mbls",
        "fedlas",
        "fedlas+",
        "tempered-past",
        "tuned",
        "cross-fitted",
        "ensemble of 3",
    ]
    return {
        "headline": headline(values, costs),
        "sets": by_set(values, several),
        "second": second(values),
        "question": question(values),
    }


def main() -> None:
    folder = Path(sys.argv[1])
    page = (folder / "README.md").read_text(encoding="utf-8")
    for name, text in blocks(folder).items():
        pattern = rf"(<!-- arena: {name} -->\n).*?(<!-- end -->)"
        page = re.sub(
            pattern,
            lambda match, text=text: f"{match[1]}\n{text}\n\n{match[2]}",
            page,
            flags=re.DOTALL,
        )
    (folder / "README.md").write_text(page, encoding="utf-8")
    (folder / "figure.svg").write_text(figure(read(folder / "results.csv")), encoding="utf-8")


if __name__ == "__main__":
    main()
