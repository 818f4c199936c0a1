"""Tables and figure of ``side_information.py``.

python benchmarks/side_report.py pack FOLDER results/side-information    # the scores that the page needs, as CSV
python benchmarks/side_report.py add LOG results/side-information        # further scores, such as those of networks
python benchmarks/side_report.py page results/side-information           # tables of the README, and its figure
"""

from __future__ import annotations

import csv
import json
import math
import re
import sys
from collections import defaultdict
from collections.abc import Callable, Iterable
from pathlib import Path
from statistics import fmean, median
from typing import Any

import side_data

from fedlas.stats import holm, wilcoxon_test

sys.path.append(str(Path(__file__).parent / "arena"))
from report import p_value, table

METRICS = ("nll", "brier", "aurc", "smooth_ece", "accuracy")
SIDE, BASE = "auto, side", "auto, logits"
RETRAINED = ("retrained, auto", "retrained, auto, side", "arena's cross-fitting")
KEPT = (SIDE, BASE, *RETRAINED)
"""Calibrators whose seeds are packed one by one."""
KINDS = ("mlp", "forest", "boosting")
Pair = tuple[str, str]
"""Data set and model."""
Means = dict[str, dict[str, dict[Pair, float]]]
"""Metric, calibrator, pair: the mean over seeds."""


# Packing.


def lines(path: Path) -> list[dict[str, Any]]:
    """Lines of JSON."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []


def write(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    """A CSV file with six digits."""
    rows = list(rows)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(
            {name: f"{v:.6g}" if isinstance(v, float) else v for name, v in row.items()}
            for row in rows
        )


def averaged(rows: list[dict[str, Any]], *names: str) -> Iterable[dict[str, Any]]:
    """The mean over seeds of the scores of lines that are alike in all names; nothing where a line has failed."""
    groups: dict[tuple[Any, ...], list[dict[str, Any]]] = defaultdict(list)
    for row in rows:
        groups[tuple(row[name] for name in names)].append(row)
    for key, group in groups.items():
        fine = all("nll" in row for row in group)
        means = {metric: fmean(row[metric] for row in group) if fine else "" for metric in METRICS}
        yield {**dict(zip(names, key, strict=True)), "seeds": len(group), **means}


def pack(cache: Path, folder: Path) -> None:
    """Write pairs.csv, seeds.csv, extra.csv."""
    main = lines(cache / "scores.jsonl")
    write(folder / "pairs.csv", averaged(main, "data", "model", "calibrator"))
    chosen = (row for row in main if row["calibrator"] in KEPT)
    seeds = [
        {name: row.get(name, "") for name in ("data", "model", "seed", "calibrator", *METRICS)}
        for row in chosen
    ]
    write(folder / "seeds.csv", seeds)
    extra = lines(cache / "extra.jsonl")
    there = {(row["data"], row["seed"]) for row in extra if row["part"] == "losses"}
    wanted = (SIDE, BASE, "as predicted")
    ce = [row for row in main if row["model"] == "mlp" and row["calibrator"] in wanted]
    extra += [
        {**row, "part": "losses", "model": "ce"}
        for row in ce
        if (row["data"], row["seed"]) in there
    ]
    write(folder / "extra.csv", averaged(extra, "part", "data", "model", "calibrator"))
    commits = {(row["commit"], row.get("library", row["commit"])) for row in main + extra}
    print("benchmark and library at", commits)


def add(log: Path, folder: Path) -> None:
    """Add the lines of a log to extra.csv, in place of rows of the same kind."""
    names = ("part", "data", "model", "calibrator")
    path = folder / "extra.csv"
    rows = {tuple(row[name] for name in names): row for row in read(path)}
    for row in averaged(lines(log), *names):
        rows[tuple(row[name] for name in names)] = row
    write(path, rows.values())


# Reading.


def read(path: Path) -> list[dict[str, str]]:
    """Rows of a CSV file."""
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def means(rows: list[dict[str, str]]) -> Means:
    """By metric, calibrator and pair; infinite where a calibrator failed (accuracy: its negative)."""
    result: Means = defaultdict(lambda: defaultdict(dict))
    for row in rows:
        for metric in METRICS:
            value = (
                float(row[metric])
                if row[metric]
                else (-math.inf if metric == "accuracy" else math.inf)
            )
            result[metric][row["calibrator"]][row["data"], row["model"]] = value
    return result


def changes(mine: dict[Pair, float], other: dict[Pair, float]) -> dict[Pair, float]:
    """Percent by which the first is above the second, for pairs that both have."""
    both = [
        pair
        for pair in other
        if pair in mine and math.isfinite(mine[pair]) and 0 < other[pair] < math.inf
    ]
    return {pair: 100 * (mine[pair] / other[pair] - 1) for pair in both}


def by_data(values: dict[Pair, float]) -> dict[str, float]:
    """The mean over the models of each data set."""
    groups: dict[str, list[float]] = defaultdict(list)
    for (name, _), value in values.items():
        groups[name].append(value)
    return {name: fmean(group) for name, group in groups.items()}


def share_lower(values: Iterable[float]) -> float:
    """Percent of values below 0."""
    found = list(values)
    return 100 * sum(value < 0 for value in found) / len(found)


def worst(values: dict[Any, float]) -> str:
    """The largest, with its name."""
    name = max(values, key=values.__getitem__)
    return f"{values[name]:+.1f} ({', '.join(name) if isinstance(name, tuple) else name})"


def mean_ranks(values: dict[str, dict[Pair, float]], *, high: bool = False) -> dict[str, float]:
    """The mean over pairs of each calibrator's rank; ties share theirs."""
    pairs = list(values[BASE])
    sign = -1 if high else 1
    total = dict.fromkeys(values, 0.0)
    for pair in pairs:
        scores = {name: round(sign * each[pair], 9) for name, each in values.items()}
        for name, mine in scores.items():
            below = sum(other < mine for other in scores.values())
            same = sum(other == mine for other in scores.values())
            total[name] += below + (same + 1) / 2
    return {name: each / len(pairs) for name, each in total.items()}


def rivals(values: Means) -> list[str]:
    """Calibrators that use the same labels without another training, and that worked at least once."""
    pairs = values["nll"][BASE]
    return [
        name
        for name, each in values["nll"].items()
        if name not in RETRAINED
        and len(each) == len(pairs)
        and any(map(math.isfinite, each.values()))
    ]


# Tables.


def reach(values: Means, seeds: list[dict[str, str]]) -> str:
    """The protocol's conditions, met or not."""
    change = changes(values["nll"][SIDE], values["nll"][BASE])
    sets = by_data(change)
    names = rivals(values)
    duels = {
        name: sum(values["nll"][SIDE][pair] < values["nll"][name][pair] for pair in change)
        / len(change)
        for name in names
        if name != SIDE
    }
    hardest = min(duels, key=duels.__getitem__)
    rows = [
        (
            "median of pairs",
            f"{median(change.values()):+.2f} %",
            "-2 %",
            median(change.values()) <= -2,
        ),
        (
            "lower in",
            f"{share_lower(change.values()):.0f} % of pairs",
            "90 %",
            share_lower(change.values()) >= 90,
        ),
        ("worst data set", f"{worst(sets)} %", "+1 %", max(sets.values()) <= 1),
    ]
    for metric, name in (("nll", "NLL"), ("brier", "Brier score"), ("aurc", "AURC")):
        order = mean_ranks({each: values[metric][each] for each in names})
        first, second = sorted(order, key=order.__getitem__)[:2]
        text = f"{first}, {order[first]:.1f}; then {second}, {order[second]:.1f}"
        rows.append(
            (f"first of {len(names)} by mean rank, {name}", text, "auto, side", first == SIDE)
        )
    rows.append(
        (
            "fewest duels won, NLL",
            f"{100 * duels[hardest]:.0f} % ({hardest})",
            "75 %",
            duels[hardest] >= 0.75,
        )
    )
    smooth = [
        values["smooth_ece"][SIDE][pair] - values["smooth_ece"][BASE][pair] for pair in change
    ]
    rows.append(
        ("smooth ECE, median", f"{100 * median(smooth):+.2f} points", "0", median(smooth) <= 0)
    )
    cells = [[name, got, goal, "yes" if met else "**no**"] for name, got, goal, met in rows]
    p = wilcoxon_test([0.0] * len(sets), list(sets.values())).p_value
    tests = [confirmed(seeds, extra=extra) for extra in (0.0, 1.0)]
    notes = [
        f"{list(each.values()).count(-1)} lower, {list(each.values()).count(1)} higher"
        for each in tests
    ]
    about = f"T-tests over seeds with Holm's correction confirm, out of {len(sets)} data sets, {notes[0]}"
    rows = table(["", "auto, side", "goal", "met"], cells)
    return f"{rows}\n\n{about}; cautiously {notes[1]}. Wilcoxon's p: {p:.1g}."


def confirmed(seeds: list[dict[str, str]], *, extra: float) -> dict[str, int]:
    """-1 or 1 for each data set where a t-test over seeds of the models' mean confirms a difference."""
    found: dict[tuple[str, str], dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for row in seeds:
        if row["calibrator"] in (SIDE, BASE):
            found[row["data"], row["calibrator"]][row["seed"]].append(float(row["nll"]))
    names = list(dict.fromkeys(name for name, _ in found))
    mine, other = (
        [[fmean(group) for group in found[name, each].values()] for name in names]
        for each in (SIDE, BASE)
    )
    p_values = holm([p_value(a, b, extra=extra) for a, b in zip(mine, other, strict=True)])
    return {
        name: (p < 0.05) * (1 if fmean(a) > fmean(b) else -1)
        for name, p, a, b in zip(names, p_values, mine, other, strict=True)
    }


def calibrators(values: Means) -> str:
    """Mean ranks, and what ``auto, side`` wins against each."""
    names = rivals(values)
    order = {
        metric: mean_ranks({name: values[metric][name] for name in names}) for metric in METRICS[:4]
    }
    rows = []
    for name in sorted(names, key=lambda name: order["nll"][name]):
        cells = [f"{order[metric][name]:.1f}" for metric in METRICS[:4]]
        for metric in METRICS[:3]:
            pairs = values[metric][BASE]
            won = sum(
                values[metric][SIDE][pair] < values[metric][name][pair] for pair in pairs
            ) / len(pairs)
            cells.append("" if name == SIDE else f"{100 * won:.0f}")
        change = changes(values["nll"][name], values["nll"][BASE])
        failed = len(values["nll"][BASE]) - len(change)
        rows.append([name, *cells, f"{median(change.values()):+.1f}", str(failed or "")])
    head = [
        "calibrator",
        "rank by NLL",
        "Brier",
        "AURC",
        "smooth ECE",
        "won by NLL %",
        "Brier %",
        "AURC %",
    ]
    return table([*head, "NLL, median %", "failed"], rows)


def summary(
    values: Means, mine: str, other: str, choose: Callable[[Pair], bool] = lambda _: True
) -> list[str]:
    """Pairs, then median, share lower and worst NLL; then the median change of the other metrics."""

    def gaps(metric: str) -> dict[Pair, float]:
        pairs = [
            pair for pair in values[metric][mine] if pair in values[metric][other] and choose(pair)
        ]
        return {
            pair: 100 * (values[metric][mine][pair] - values[metric][other][pair]) for pair in pairs
        }

    change = {
        pair: each
        for pair, each in changes(values["nll"][mine], values["nll"][other]).items()
        if choose(pair)
    }
    relative = [
        median(
            each
            for pair, each in changes(values[metric][mine], values[metric][other]).items()
            if choose(pair)
        )
        for metric in ("brier", "aurc")
    ]
    points = [median(gaps(metric).values()) for metric in ("smooth_ece", "accuracy")]
    return [
        str(len(change)),
        f"{median(change.values()):+.2f}",
        f"{share_lower(change.values()):.0f}",
        worst(change),
        *(f"{each:+.1f}" for each in relative),
        *(f"{each:+.2f}" for each in points),
    ]


SUMMARY = [
    "pairs",
    "NLL, median %",
    "lower in %",
    "worst %",
    "Brier %",
    "AURC %",
    "smooth ECE, points",
    "accuracy",
]


def models(values: Means) -> str:
    """The difference that side information makes, by kind of model and of data."""
    rows = [["all", *summary(values, SIDE, BASE)]]
    rows += [
        [kind, *summary(values, SIDE, BASE, lambda pair, kind=kind: pair[1] == kind)]
        for kind in KINDS
    ]
    rows.append(["texts", *summary(values, SIDE, BASE, lambda pair: pair[0] in side_data.TEXTS)])
    return table(["", *SUMMARY], rows)


def sets(values: Means, seeds: list[dict[str, str]]) -> str:
    """NLL of each data set: percent above ``auto`` on logits."""
    change = changes(values["nll"][SIDE], values["nll"][BASE])
    stars, mean = confirmed(seeds, extra=0.0), by_data(change)
    rows = []
    for name in sorted(mean, key=mean.__getitem__):
        cells = [f"{change[name, kind]:+.1f}" for kind in KINDS]
        base = [f"{values['nll'][BASE][name, kind]:.3f}" for kind in KINDS]
        rows.append(
            [name, " / ".join(base), *cells, f"{mean[name]:+.1f}{'*' if stars[name] else ' '}"]
        )
    return table(["data set", "NLL of auto, logits", *KINDS, "mean"], rows)


def retraining(seeds: list[dict[str, str]]) -> str:
    """What the validation labels are worth in the training, in the seeds that all have."""
    there = {row["seed"] for row in seeds if row["calibrator"] == RETRAINED[0]}
    rows = [row for row in seeds if row["seed"] in there]
    groups: dict[tuple[str, str, str], list[dict[str, str]]] = defaultdict(list)
    for row in rows:
        groups[row["data"], row["model"], row["calibrator"]].append(row)
    values: Means = defaultdict(lambda: defaultdict(dict))
    for (name, kind, calibrator), group in groups.items():
        for metric in METRICS:
            values[metric][calibrator][name, kind] = fmean(float(row[metric]) for row in group)
    comparisons = [
        (SIDE, BASE),
        ("arena's cross-fitting", BASE),
        ("retrained, auto", BASE),
        ("retrained, auto, side", BASE),
        (SIDE, "retrained, auto"),
        ("retrained, auto, side", "retrained, auto"),
    ]
    trainings = {
        SIDE: 1,
        BASE: 1,
        "arena's cross-fitting": 3,
        "retrained, auto": 6,
        "retrained, auto, side": 6,
    }
    cells = [
        [f"{a} against {b}", str(trainings[a]), *summary(values, a, b)] for a, b in comparisons
    ]
    return f"Seeds {', '.join(sorted(there))}.\n\n{table(['', 'trainings', *SUMMARY], cells)}"


def extra_means(rows: list[dict[str, str]], part: str) -> Means:
    """The means of one part."""
    return means([row for row in rows if row["part"] == part])


def hard(rows: list[dict[str, str]]) -> str:
    """Where side information may fail."""
    names = {
        "few 20": "20 validation samples",
        "few 50": "50",
        "few 200": "200",
        "shift": "covariate shift",
        "group": "a group that validation lacks",
        "label shift": "label shift",
        "trained": "validation samples were trained on",
    }
    cells = []
    for part, name in names.items():
        values = extra_means(rows, part)
        if values:
            change = changes(values["nll"][SIDE], values["nll"][BASE])
            above = 100 * sum(each > 1 for each in change.values()) / len(change)
            cells.append([name, *summary(values, SIDE, BASE), f"{above:.0f}"])
    return table(["", *SUMMARY, "NLL above +1 %, % of pairs"], cells)


def losses(rows: list[dict[str, str]]) -> str:
    """Each loss against cross-entropy, with the same calibrator: MLPs of all data sets."""
    values = extra_means(rows, "losses")
    cells = []
    for loss in ("ls", "mbls", "fedlas", "fedlas+"):
        row = [loss]
        for calibrator in ("as predicted", BASE, SIDE):
            mine, ce = (
                {
                    (name, "mlp"): value
                    for (name, kind), value in values["nll"][calibrator].items()
                    if kind == each
                }
                for each in (loss, "ce")
            )
            change = changes(mine, ce)
            p = wilcoxon_test([0.0] * len(change), list(change.values())).p_value
            row += [
                f"{median(change.values()):+.2f}",
                f"{share_lower(change.values()):.0f}",
                f"{p:.2f}",
            ]
        cells.append(row)
    head = ["loss"]
    for name in ("as trained", "auto, logits", "auto, side"):
        head += [f"{name}: median %", "lower in %", "p"]
    return table(head, cells)


def images(rows: list[dict[str, str]]) -> str:
    """NLL before and after, by network and number of validation images."""
    cells = []
    for count in (500, 5000):
        values = extra_means(rows, f"images {count}")
        for pair in values["nll"].get(SIDE, {}):
            nll = [f"{values['nll'][name][pair]:.4f}" for name in ("as predicted", BASE, SIDE)]
            gain = 100 * (values["nll"][SIDE][pair] / values["nll"][BASE][pair] - 1)
            smooth = [f"{100 * values['smooth_ece'][name][pair]:.2f}" for name in (BASE, SIDE)]
            right = 100 * (values["accuracy"][SIDE][pair] - values["accuracy"][BASE][pair])
            cells.append(
                [pair[0], f"{count:,}", *nll, f"{gain:+.1f}", " / ".join(smooth), f"{right:+.2f}"]
            )
    cells.sort(key=lambda cell: cell[0])
    head = [
        "network",
        "samples",
        "as predicted",
        "auto, logits",
        "auto, side",
        "%",
        "smooth ECE %, logits / side",
    ]
    return table([*head, "accuracy, points"], cells)


def norm(values: Means) -> str:
    """A temperature that depends on the norm alone."""
    name = "norm temperature"
    rows = [
        [f"{name} against {other}", *summary(values, name, other)]
        for other in ("temperature", BASE, SIDE)
    ]
    mlp = summary(values, name, "temperature", lambda pair: pair[1] == "mlp")
    return table(["", *SUMMARY], [*rows, [f"{name} against temperature, mlp", *mlp]])


def curve(rows: list[dict[str, str]]) -> dict[int, dict[Pair, float]]:
    """Change of NLL by the number of validation samples."""
    found = {}
    for part in dict.fromkeys(row["part"] for row in rows if row["part"].startswith("samples ")):
        values = extra_means(rows, part)
        found[int(part.split()[1])] = changes(values["nll"][SIDE], values["nll"][BASE])
    return dict(sorted(found.items()))


def curve_table(rows: list[dict[str, str]]) -> str:
    """The figure's numbers: mean over models."""
    points = curve(rows)
    names = list(dict.fromkeys(name for name, _ in next(iter(points.values()))))
    cells = [
        [name, *(f"{by_data(change)[name]:+.1f}" for change in points.values())] for name in names
    ]
    cells.append(
        ["median of pairs", *(f"{median(change.values()):+.1f}" for change in points.values())]
    )
    cells.append(["worst pair", *(f"{max(change.values()):+.1f}" for change in points.values())])
    return table(["data set", *(f"{count:,}" for count in points)], cells)


def figure(rows: list[dict[str, str]], path: Path) -> None:
    """Gain against number of validation samples, one line for each data set."""
    from fedlas.plots.theme import REFERENCE, draw_legend_outside, set_labels, styled_axes

    points = curve(rows)
    axes, palette = styled_axes("light", None, size=(6.4, 4.2))
    names = list(dict.fromkeys(name for name, _ in next(iter(points.values()))))
    for number, name in enumerate(names):
        heights = [by_data(change)[name] for change in points.values()]
        axes.plot(
            list(points),
            heights,
            marker="o",
            markersize=3.5,
            label=name,
            **palette.line(number + 1),
        )
    middle = [median(change.values()) for change in points.values()]
    axes.plot(list(points), middle, color=palette.ink, linewidth=2.5, label="median of pairs")
    axes.axhline(0, color=palette.ink, **REFERENCE)
    axes.set_xscale("log")
    axes.set_xticks(list(points), [f"{count:,}" for count in points])
    axes.minorticks_off()
    set_labels(
        axes, palette, "validation samples", "NLL with side information, % above auto on logits"
    )
    draw_legend_outside(axes, palette, max_columns=4)
    axes.figure.savefig(path, metadata={"Date": None})


def page(folder: Path) -> None:
    """Fill the README's tables and draw the figure."""
    seeds, extra = read(folder / "seeds.csv"), read(folder / "extra.csv")
    values = means(read(folder / "pairs.csv"))
    blocks = {
        "reach": lambda: reach(values, seeds),
        "calibrators": lambda: calibrators(values),
        "models": lambda: models(values),
        "sets": lambda: sets(values, seeds),
        "retraining": lambda: retraining(seeds),
        "norm": lambda: norm(values),
        "hard": lambda: hard(extra),
        "losses": lambda: losses(extra),
        "images": lambda: images(extra),
        "curve": lambda: curve_table(extra),
    }
    path = folder / "README.md"
    text = path.read_text(encoding="utf-8")
    for name, make in blocks.items():
        pattern = rf"(<!-- side: {name} -->\n).*?(<!-- end -->)"
        text = re.sub(
            pattern,
            lambda match, make=make: f"{match[1]}\n{make()}\n\n{match[2]}",
            text,
            flags=re.DOTALL,
        )
    path.write_text(text, encoding="utf-8")
    figure(extra, folder / "figure.svg")


if __name__ == "__main__":
    if sys.argv[1] == "pack":
        pack(Path(sys.argv[2]), Path(sys.argv[3]))
    elif sys.argv[1] == "add":
        add(Path(sys.argv[2]), Path(sys.argv[3]))
    else:
        page(Path(sys.argv[2]))
