"""The scores that ``results/auto/README.md`` needs, and its tables from them; see ``auto_ablation.py``."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Cell = tuple[str, str, int, int]
"""Set, model, draw and number of labels."""
Scores = dict[str, dict[Cell, list[float]]]
"""Of each variant and cell: scores, and last the seconds."""
PAGE = Path(__file__).parents[1] / "results/auto/README.md"
LEFT_OUT = ("copies are samples", "copies count", "each row once")
"""Variants of a first form of the group "copies"; its cells were run again."""
BASE = "auto"
RAW = "as predicted"
RIVALS = ("new", BASE, "temperature", "svs", "sms", "logistic", RAW)
RULE = "|---|" + "---:|" * 20


def pack(cache: Path, out: Path) -> int:
    """Write the scores of a cache folder as one file."""
    scores: dict[str, dict[str, dict[str, list[float]]]] = defaultdict(lambda: defaultdict(dict))
    for name in ("scores.jsonl", "scores-side.jsonl"):
        path = cache / name
        for text in path.read_text().splitlines() if path.is_file() else ():
            line = json.loads(text)
            group, dataset, model, draw, size, variant = line["key"]
            if "scores" not in line or variant in LEFT_OUT:
                continue
            cell = f"{dataset}|{model}|{draw}|{size}"
            numbers = [round(each, 5) for each in line["scores"]] + [round(line["seconds"], 3)]
            scores[group][variant][cell] = numbers
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(scores, separators=(",", ":")) + "\n")
    return 0


def read(path: Path) -> dict[str, Scores]:
    """Return the scores of each group."""

    def cell(text: str) -> Cell:
        dataset, model, draw, size = text.split("|")
        return dataset, model, int(draw), int(size)

    return {
        group: {
            variant: {cell(text): numbers for text, numbers in cells.items()}
            for variant, cells in variants.items()
        }
        for group, variants in json.loads(path.read_text()).items()
    }


def by_set(
    scores: Scores, variant: str, base: str, keep: Callable[[Cell], bool], which: int = 0
) -> dict[str, float]:
    """Return 100 times the mean log ratio to ``base`` of each set: over draws, then over models."""
    ratios: dict[tuple[str, str], list[float]] = defaultdict(list)
    for cell, numbers in scores.get(variant, {}).items():
        other = scores[base].get(cell)
        if other is not None and keep(cell):
            low = 1e-6
            ratio = np.log(max(numbers[which], low) / max(other[which], low))
            ratios[cell[:2]].append(100 * ratio)
    sets: dict[str, list[float]] = defaultdict(list)
    for (dataset, _), each in ratios.items():
        sets[dataset].append(float(np.mean(each)))
    return {dataset: float(np.mean(each)) for dataset, each in sets.items()}


def points(scores: Scores, variant: str, base: str, keep: Callable[[Cell], bool]) -> float:
    """Return the mean difference of smooth ECE to ``base``, in points."""
    gaps: dict[str, list[float]] = defaultdict(list)
    for cell, numbers in scores.get(variant, {}).items():
        if cell in scores[base] and keep(cell):
            gaps[cell[0]].append(100 * (numbers[2] - scores[base][cell][2]))
    return float(np.mean([np.mean(each) for each in gaps.values()]))


def seconds(scores: Scores, variant: str, base: str) -> float:
    """Return the ratio of seconds, over the cells of both."""
    both = [cell for cell in scores[variant] if cell in scores[base]]
    spent = [sum(scores[name][cell][-1] for cell in both) for name in (variant, base)]
    return spent[0] / max(spent[1], 1e-9)


def group_table(
    scores: Scores, variants: list[str], base: str = BASE, draws: tuple[int, ...] = (1, 2, 3)
) -> str:
    """Return a row a variant: mean and worst set by number of labels, then over all."""
    sizes = sorted({cell[3] for cell in scores[base] if cell[2] in draws})
    head = "| changed |" + "".join(f" {size:,} labels: mean (worst set) |" for size in sizes)
    lines = [head + " median | smooth ECE | seconds x |"]
    lines.append("|---|" + "---:|" * (len(sizes) + 3))
    for variant in variants:
        if variant not in scores:
            continue
        cells, everything = [], []
        for size in sizes:
            sets = by_set(scores, variant, base, lambda c, s=size: c[3] == s and c[2] in draws)
            if not sets:
                cells.append("")
                continue
            values = list(sets.values())
            everything += values
            worst = max(sets, key=lambda name: sets[name])
            cells.append(f"{np.mean(values):+.2f} ({sets[worst]:+.1f} {worst})")
        if not everything:
            continue
        smooth = points(scores, variant, base, lambda c: c[2] in draws)
        lines.append(
            f"| {variant} | "
            + " | ".join(cells)
            + f" | {np.median(everything):+.2f} | {smooth:+.2f} | {seconds(scores, variant, base):.2f} |"
        )
    return "\n".join(lines)


def absent_table(scores: Scores) -> str:
    """Return NLL where absent classes stay out, are 2 %, are a quarter, and come as often as they do."""
    names = ("never come", "2 %", "a quarter", "as often as they do")
    lines = ["| changed | " + " | ".join(f"{name}: mean (worst set)" for name in names) + " |"]
    lines.append("|---|" + "---:|" * 4)
    wanted = [
        *(RAW, "temperature", "no floor", "list: core, vector, confusion"),
        *("list: core, vector, confusion, no floor", "new", "new without absent share"),
    ]
    for variant in wanted:
        if variant not in scores:
            continue
        cells = []
        for which in range(4):
            sets = by_set(scores, variant, BASE, lambda _: True, which)
            worst = max(sets, key=lambda name: sets[name])
            cells.append(f"{np.mean(list(sets.values())):+.2f} ({sets[worst]:+.1f} {worst})")
        lines.append(f"| {variant} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def new_table(groups: dict[str, Scores]) -> str:
    """Return the prototype against ``auto`` in each group: draw 1, which chose, and the others."""
    lines = [
        "| group | sets | labels | draw 1: mean | median | worst set | draws 2, 3: mean | median | worst set "
        "| Brier % | smooth ECE | seconds x |",
        "|---|---:|" + "---:|" * 10,
    ]
    for group, scores in groups.items():
        if "new" not in scores or group == "absent":
            continue
        for size in sorted({cell[3] for cell in scores["new"]}):
            cells = []
            for draws in ((1,), (2, 3)):
                sets = by_set(
                    scores, "new", BASE, lambda c, s=size, d=draws: c[3] == s and c[2] in d
                )
                if not sets:
                    cells += ["", "", ""]
                    continue
                values = list(sets.values())
                worst = max(sets, key=lambda name: sets[name])
                cells += [
                    f"{np.mean(values):+.2f}",
                    f"{np.median(values):+.2f}",
                    f"{sets[worst]:+.1f} ({worst})",
                ]
            of_size = lambda c, s=size: c[3] == s  # noqa: E731 (used twice below)
            brier = np.mean(list(by_set(scores, "new", BASE, of_size, 1).values()))
            smooth = points(scores, "new", BASE, of_size)
            few = {
                name: {c: v for c, v in scores[name].items() if c[3] == size}
                for name in ("new", BASE)
            }
            count = len({cell[0] for cell in few["new"]})
            lines.append(
                f"| {group} | {count} | {size:,} | {' | '.join(cells)} | {brier:+.2f} | {smooth:+.2f} | "
                f"{seconds(few, 'new', BASE):.2f} |"
            )
    return "\n".join(lines)


def rank_table(groups: dict[str, Scores], names: tuple[str, ...]) -> str:
    """Return mean ranks and harm of the prototype, ``auto`` and rivals over cells that all have been through."""
    cells = {
        (group, cell)
        for group in names
        for cell in groups[group].get("new", {})
        if all(cell in groups[group].get(name, {}) for name in RIVALS)
    }
    order = sorted(cells)
    lines = [
        f"{len(order)} cells of {len({(g, c[0]) for g, c in order})} sets.\n",
        "| calibrator | rank by NLL | by Brier | by smooth ECE | worst set against raw % | against temperature % "
        "| seconds |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    table = np.array([[groups[g][name][c] for g, c in order] for name in RIVALS])
    rank = np.stack(
        [
            (table[None, :, :, k] < table[:, None, :, k]).sum(axis=1)
            + ((table[None, :, :, k] == table[:, None, :, k]).sum(axis=1) + 1) / 2
            for k in range(3)
        ],
        axis=2,
    ).mean(axis=1)
    for place in np.argsort(rank.sum(axis=1)):
        name = RIVALS[place]
        harm = []
        for base in (RAW, "temperature"):
            worst = max(
                (value, dataset)
                for group in names
                for dataset, value in by_set(
                    groups[group], name, base, lambda c, g=group: (g, c) in cells
                ).items()
            )
            harm.append(f"{worst[0]:+.1f} ({worst[1]})" if name != base else "")
        numbers = " | ".join(f"{each:.2f}" for each in rank[place])
        lines.append(
            f"| {name} | {numbers} | {' | '.join(harm)} | {table[place, :, -1].sum():.1f} |"
        )
    return "\n".join(lines)


PARTS = [f"new without {name}" for name in ("curves", "matrix", "isotonic", "confusion")]
PARTS += [f"new without {name}" for name in ("last map", "slopes", "offsets", "bends")]


def tables(path: Path) -> dict[str, str]:
    """Return the tables of the page by title."""
    groups = read(path)
    made = {}
    skipped = ("auto", "new", *PARTS, "svs", "sms", "logistic", "new without absent share")
    for group, scores in groups.items():
        if group == "absent":
            made[group] = absent_table(scores)
            continue
        variants = [name for name in scores if name not in skipped]
        made[group] = group_table(scores, variants, draws=(1,) if group in LISTED else (1, 2, 3))
    made["new"] = new_table(groups)
    ranked = tuple(g for g in ("networks", "many", "tables 2", "tables several") if g in groups)
    if all(name in groups["networks"] for name in RIVALS):
        made["ranks"] = rank_table(groups, ranked)
    for group in ranked:
        if "new" in groups.get(group, {}):
            made[f"parts: {group}"] = group_table(groups[group], PARTS, "new", (1,))
    return made


LISTED = (
    "networks",
    "many",
    "tables 2",
    "tables several",
    "tables many",
    "few",
    "large",
    "confidences",
)
"""Groups whose ablation has one draw."""


def print_tables(path: Path) -> int:
    """Print the tables, and write them into the page where it has a place for them."""
    made = tables(path)
    page = PAGE.read_text("utf8") if PAGE.is_file() else ""
    for title, text in made.items():
        block = f"<!-- table: {title} -->\n\n{text}\n\n<!-- end -->"
        place = f"<!-- table: {re.escape(title)} -->.*?<!-- end -->"
        page, count = re.subn(place, lambda _, b=block: b, page, flags=re.DOTALL)
        if not count:
            print(f"\n{title}\n\n{text}")
    if page:
        PAGE.write_text(page, "utf8")
    return 0
