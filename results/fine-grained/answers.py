"""Tests and figures of fine-tuning.

``python answers.py RUNS PROBLEM...`` writes ``runs.csv`` and ``epochs.csv`` from folders ``RUNS/PROBLEM/METHOD-sSEED``;
``python answers.py`` writes ``answers.txt`` and draws ``figure.svg``, ``epochs.svg`` and ``indicator.svg`` from both.
"""

import csv
import json
import sys
import warnings
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import numpy as np
import torch
from scipy.stats import spearmanr

from fedlas import Predictions, read_predictions
from fedlas.calibrators import AutoCalibration
from fedlas.metrics import evaluate
from fedlas.plots import LIGHT
from fedlas.plots.theme import dress, legend_outside, name_axis
from fedlas.present.page import axes, themed_svg
from fedlas.stats import holm, mean_interval, paired_t_test

HERE = Path(__file__).parent
PAIRS = (
    "fedlas:ls",
    "fedlas:mbls",
    "fedlas+:mbls",
    "fedlas+:ls",
    "fedlas:ls-quarter",
    "fedlas:ce",
    "ls:ce",
)
STRENGTHS = (
    *("acls:fedlas", "focal:fedlas", "acls:ce", "focal:ce", "ls-four:ls", "fedlas-four:fedlas"),
    *("fedlas-four:ls-four", "ls-four:ce", "fedlas-four:ce"),
)
"""Other losses, and strengths chosen on development problems."""
ABLATIONS = ("fedlas:fedlas-frozen", "fedlas:fedlas-constant")
SUPERCLASSES = (
    *("flowers", "landscapes", "containers", "medium-mammals", "aquatic-mammals", "fruit"),
)
"""Problems of the first protocol with five classes: one recipe, 20 epochs."""
METHODS = ("ce", "ls", "ls-quarter", "mbls", "fedlas", "fedlas+")
TICKS = (1, 5, 10, 15, 20)
STAGES = {"raw": "test", "temperature": "test_calibrated"}
SHOWN = ("accuracy", "nll", "ece", "smooth_ece")
ENOUGH = 2
"""Seeds that all methods of a problem must have."""
SMALL = 0.03
"""Gap on validation below which the rule for users says: do not smooth."""


def row_of(problem: str, folder: Path) -> dict[str, Any]:
    """Return the numbers of a run."""
    metrics = json.loads((folder / "metrics.json").read_text())
    auto = json.loads((folder / "calibrated.json").read_text())["after"]["auto"]["metrics"]
    row = {
        "problem": problem,
        "method": metrics["loss"],
        "seed": metrics["seed"],
        "epoch": metrics["best_epoch"],
    }
    for stage, values in {
        **{name: metrics[key] for name, key in STAGES.items()},
        "auto": auto,
    }.items():
        row |= {f"{stage} {name}": values[name] for name in SHOWN}
    row["temperature"] = metrics["temperature"]
    val, test = (
        read_predictions(folder / "predictions" / f"{part}.npz").predictions
        for part in ("val", "test")
    )
    row |= {f"plain auto {name}": value for name, value in without_features(val, test).items()}
    row["val gap"] = float(val.confidence.mean() - val.correct.double().mean())
    row["val nll"] = metrics["val"]["nll"]
    gates = [
        json.loads(line).get("gate") or {}
        for line in (folder / "log.jsonl").read_text().splitlines()
    ]
    kept = gates[metrics["best_epoch"] - 1]
    row |= {
        "strength": kept.get("alpha"),
        "up at the start": gates[0].get("plus"),
        "up": kept.get("plus"),
    }
    row["flips"] = sum(gate.get("train_flips") or 0 for gate in gates) if kept else None
    norms = torch.as_tensor(test.features).float().abs().sum(1).numpy()
    confidence, correct = test.confidence.numpy(), test.correct.numpy().astype(float)
    row["norm, correct"] = spearmanr(norms, correct).statistic
    row["norm, confidence"] = spearmanr(norms, confidence).statistic
    row["confidence, correct"] = spearmanr(confidence, correct).statistic
    return row


def without_features(val: Predictions, test: Predictions) -> dict[str, float]:
    """Return metrics of test predictions after ``auto`` that does not use features."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # classes without a validation sample
        auto = AutoCalibration(features=False).fit(val)
    metrics = evaluate(auto.transform(test))
    return {name: metrics[name] for name in SHOWN}


def epochs_of(problem: str, folder: Path) -> list[dict[str, Any]]:
    """Return what the log of a run says of its indicator, an epoch a row."""
    metrics = json.loads((folder / "metrics.json").read_text())
    records = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return [
        {
            "problem": problem,
            "method": metrics["loss"],
            "seed": metrics["seed"],
            "epoch": record["epoch"],
            "train accuracy": record["train"]["accuracy"],
            **{f"val {name}": record["val"][name] for name in ("accuracy", "nll", "ece")},
            "val gap": record["val"]["o_ece"] - record["val"]["u_ece"],
            "norm, correct": record["indicator"]["spearman_correct"],
            "norm, confidence": record["indicator"]["spearman_confidence"],
        }
        for record in records
    ]


def write(name: str, rows: list[dict[str, Any]]) -> None:
    """Write rows as CSV with six digits."""
    with (HERE / name).open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        for row in rows:
            writer.writerow(
                {key: f"{v:.6g}" if isinstance(v, float) else v for key, v in row.items()}
            )


def read(name: str) -> list[dict[str, Any]]:
    """Return the rows of a CSV, numbers as numbers."""
    with (HERE / name).open(encoding="utf-8") as file:
        return [
            {
                key: value if key in ("problem", "method") else float(value or "nan")
                for key, value in row.items()
            }
            for row in csv.DictReader(file)
        ]


class Runs:
    """The rows of ``runs.csv``: of each problem the seeds that all planned methods have."""

    def __init__(self) -> None:
        rows = read("runs.csv")
        seeds = {}
        for row in rows:
            seeds.setdefault(row["problem"], {}).setdefault(row["method"], set()).add(row["seed"])
        common = {
            problem: set.intersection(*(of_problem[m] for m in METHODS if m in of_problem))
            for problem, of_problem in seeds.items()
        }
        self.rows = [
            row
            for row in rows
            if len(common[row["problem"]]) >= ENOUGH and row["seed"] in common[row["problem"]]
        ]
        self.problems = list(dict.fromkeys(row["problem"] for row in self.rows))

    def values(self, problem: str, method: str, key: str) -> list[float]:
        """Return one value a seed."""
        rows = [row for row in self.rows if (row["problem"], row["method"]) == (problem, method)]
        return [row[key] for row in sorted(rows, key=lambda row: row["seed"])]

    def differences(self, problem: str, pair: str, key: str) -> list[float]:
        """Return one method minus another, a value a seed; none if one of them was not run."""
        mine, its = (self.values(problem, method, key) for method in pair.split(":"))
        return [a - b for a, b in zip(mine, its, strict=True)] if mine and its else []


def compare(runs: Runs, key: str, scale: float, planned: tuple[str, ...] = PAIRS) -> Iterator[str]:
    """Yield each planned difference in each problem, with Holm's correction in a problem, and over problems."""
    yield (f"\n{key}" if planned is PAIRS else f"\nstrengths: {key}")
    tests = {}
    for problem in runs.problems:
        pairs = [pair for pair in planned if runs.differences(problem, pair, key)]
        if not pairs:
            continue
        values = [runs.differences(problem, pair, key) for pair in pairs]
        p = holm([paired_t_test(v, [0.0] * len(v)).p_value for v in values])
        tests |= {(problem, pair): (v, q) for pair, v, q in zip(pairs, values, p, strict=True)}
    for pair in planned:
        cells, means = [], []
        for problem in runs.problems:
            if (problem, pair) in tests:
                values, p = tests[problem, pair]
                means.append(scale * fmean(values))
                cells.append(f"{problem} {means[-1]:+.3f}{'*' if p < 0.05 else ''} (p {p:.3f})")
        if not means:
            continue
        over = ""
        if len(means) > 1:
            low, high = mean_interval(means)
            p = paired_t_test(means, [0.0] * len(means)).p_value
            signs = f"below 0 in {sum(mean < 0 for mean in means)} of {len(means)}"
            over = f"mean {fmean(means):+.3f} [{low:+.3f}, {high:+.3f}], p {p:.3f}, {signs}:  "
        yield (f"  {pair:18} {over}" + "; ".join(cells))


def ablations(runs: Runs) -> Iterator[str]:
    """Yield what the indicator alone and the gate alone change, and in how many seeds nothing at all."""
    yield "\nablations: fedlas less the indicator alone (frozen), less the gate alone (constant)"
    for problem in runs.problems:
        for pair in ABLATIONS:
            ece, nll = (runs.differences(problem, pair, f"raw {name}") for name in ("ece", "nll"))
            if not ece:
                continue
            test = paired_t_test(ece, [0.0] * len(ece))
            spread = stdev(runs.values(problem, pair.split(":")[1], "raw ece"))
            yield (
                f"  {problem} {pair}: ECE {100 * fmean(ece):+.2f} (p {test.p_value:.3f}), spread of the ablation "
                f"{100 * spread:.2f}; the same NLL in {sum(value == 0 for value in nll)} of {len(nll)} seeds"
            )


def noise(runs: Runs) -> Iterator[str]:
    """Yield the means of the methods, and the spread of their ECE over seeds."""
    for problem in runs.problems:
        yield (f"\n{problem}")
        for method in dict.fromkeys(
            row["method"] for row in runs.rows if row["problem"] == problem
        ):
            cells = []
            for key, scale in (("raw accuracy", 100), ("raw ece", 100), ("temperature ece", 100), ("auto ece", 100),
                               ("raw nll", 1), ("temperature nll", 1), ("auto nll", 1), ("val gap", 100),
                               ("plain auto nll", 1), ("plain auto ece", 100),
                               ("norm, correct", 1), ("norm, confidence", 1), ("confidence, correct", 1)):  # fmt: skip
                v = [scale * value for value in runs.values(problem, method, key)]
                cells.append(f"{key} {fmean(v):.3f} ± {stdev(v) if len(v) > 1 else 0:.3f}")
            yield f"  {method:16} " + "; ".join(cells)


def over_fitting(runs: Runs) -> Iterator[str]:
    """Yield how the effect of a method on the ECE goes with the over-confidence of cross-entropy on validation."""
    for method in ("ls", "fedlas", "mbls", "fedlas+"):
        gaps = [runs.values(problem, "ce", "val gap") for problem in runs.problems]
        effects = [
            runs.differences(problem, f"{method}:ce", "raw ece") for problem in runs.problems
        ]
        for name, pairs in (
            ("runs", (list(chain(*gaps)), list(chain(*effects)))),
            ("problems", ([fmean(v) for v in gaps], [fmean(v) for v in effects])),
        ):
            correlation = spearmanr(*pairs)
            yield (
                f"  {method}: rank correlation of its effect with the gap over {len(pairs[0])} {name} "
                f"{correlation.statistic:+.2f} (p {correlation.pvalue:.3f})"
            )


def by_epoch() -> Iterator[str]:
    """Yield the ECE of validation of methods less that of cross-entropy at some epochs, over seeds and superclasses."""
    rows = {
        (row["problem"], row["method"], row["seed"], row["epoch"]): row
        for row in read("epochs.csv")
    }
    for epoch in (1, 2, 3, 5, 8, 12, 20):
        cells = []
        of_ce = {
            key: row
            for key, row in rows.items()
            if key[0] in SUPERCLASSES and key[1] == "ce" and key[3] == epoch
        }
        for method in ("ls", "fedlas", "mbls", "fedlas+"):
            pairs = [(rows.get((key[0], method, *key[2:])), row) for key, row in of_ce.items()]
            found = [100 * (mine["val ece"] - row["val ece"]) for mine, row in pairs if mine]
            p = paired_t_test(found, [0.0] * len(found)).p_value
            cells.append(f"{method} {fmean(found):+.2f} (p {p:.3f})")
        gap, trained = (
            100 * fmean(row[key] for row in of_ce.values()) for key in ("val gap", "train accuracy")
        )
        yield (
            f"  epoch {epoch:2}: ce is right on {trained:.0f} % in training, gap {gap:+.1f}; "
            + ", ".join(cells)
        )


def rule(runs: Runs) -> Iterator[str]:
    """Yield what the choice between two trainings by a validation NLL, and by the gap of the first, gives."""
    for other in ("ls", "mbls", "fedlas", "fedlas+"):
        for problem in runs.problems:
            gap = runs.values(problem, "ce", "val gap")
            raw = runs.differences(problem, f"{other}:ce", "raw ece")
            auto = runs.differences(problem, f"{other}:ce", "auto nll")
            val = runs.differences(problem, f"{other}:ce", "val nll")
            by_nll = fmean(a if v < 0 else 0.0 for a, v in zip(auto, val, strict=True))
            row = "upper" if fmean(gap) < SMALL else "lower"
            tests = [paired_t_test(v, [0.0] * len(v)).p_value for v in (raw, auto)]
            held = (fmean(raw) >= 0) == (row == "upper"), fmean(auto) >= 0
            yield (
                f"  {other:8} {problem:16} gap {100 * fmean(gap):+.1f}, {row} row; raw ECE {100 * fmean(raw):+.2f} "
                f"(p {tests[0]:.3f}; held {held[0]}); auto NLL {fmean(auto):+.4f} (p {tests[1]:.3f}; held {held[1]}); "
                f"chosen by validation NLL as trained {by_nll:+.4f}"
            )


def figure(runs: Runs) -> str:
    """What four methods change of the ECE, against the gap of cross-entropy on validation, a dot a problem, as SVG."""
    drawn = axes(height=3.4)
    dress(drawn, LIGHT)
    drawn.axhline(0, color=LIGHT.lines[0], linewidth=0.8)
    gaps = [100 * fmean(runs.values(problem, "ce", "val gap")) for problem in runs.problems]
    for number, method in enumerate(("ls", "fedlas", "mbls", "fedlas+"), start=1):
        for stage, marker in (("raw", "o"), ("auto", "x")):
            effects = [
                100 * fmean(runs.differences(problem, f"{method}:ce", f"{stage} ece"))
                for problem in runs.problems
            ]
            label = f"{method}, {'as trained' if stage == 'raw' else 'after auto'}"
            color = LIGHT.lines[number]
            drawn.scatter(gaps, effects, s=18, color=color, marker=marker, label=label)
    name_axis(drawn.xaxis, "gap of cross-entropy on validation, points", LIGHT)
    name_axis(drawn.yaxis, "ECE less that of cross-entropy, points", LIGHT)
    legend_outside(drawn, LIGHT, most=2)
    return themed_svg(
        drawn, "What four methods change of the ECE of cross-entropy, against its gap on validation"
    )


def figure_by_epoch() -> str:
    """ECE on validation images by epoch, a line a method, as SVG."""
    rows = [row for row in read("epochs.csv") if row["problem"] in SUPERCLASSES]
    drawn = axes(height=3.0)
    dress(drawn, LIGHT)
    epochs = sorted({row["epoch"] for row in rows})
    for number, method in enumerate(("ce", "ls", "mbls", "fedlas", "fedlas+")):
        of_method = [row for row in rows if row["method"] == method]
        means = [
            100 * fmean(row["val ece"] for row in of_method if row["epoch"] == epoch)
            for epoch in epochs
        ]
        drawn.plot(epochs, means, color=LIGHT.lines[number], label=method)
    drawn.set_ylim(bottom=0)
    drawn.set_xticks(TICKS)
    name_axis(drawn.xaxis, "epoch", LIGHT)
    name_axis(drawn.yaxis, "ECE %, validation", LIGHT)
    legend_outside(drawn, LIGHT, most=3)
    return themed_svg(
        drawn,
        "ECE of five methods by epoch: from the eighth on smoothing lowers it, the more the longer",
    )


def figure_of_indicator() -> str:
    """Rank correlations of the feature norm with correctness and confidence by epoch, as SVG."""
    rows = [
        row
        for row in read("epochs.csv")
        if row["method"] == "fedlas" and row["problem"] in SUPERCLASSES
    ]
    drawn = axes(height=3.0)
    dress(drawn, LIGHT)
    epochs = sorted({row["epoch"] for row in rows})
    for number, key in enumerate(("norm, correct", "norm, confidence")):
        means = [
            np.nanmean([row[key] for row in rows if row["epoch"] == epoch]) for epoch in epochs
        ]
        drawn.plot(epochs, means, color=LIGHT.lines[number], label=f"{key} (validation)")
    rival = fmean(
        row["confidence, correct"]
        for row in Runs().rows
        if row["method"] == "fedlas" and row["problem"] in SUPERCLASSES
    )
    drawn.axhline(
        rival,
        color=LIGHT.lines[2],
        linestyle="--",
        label="max probability, correct (test, kept epoch)",
    )
    drawn.set_ylim(bottom=min(0, drawn.get_ylim()[0]))
    drawn.set_xticks(TICKS)
    name_axis(drawn.xaxis, "epoch", LIGHT)
    name_axis(drawn.yaxis, "rank correlation", LIGHT)
    legend_outside(drawn, LIGHT, most=1)
    return themed_svg(drawn, "Rank correlation of the feature norm with correctness and confidence")


if __name__ == "__main__":
    if len(sys.argv) > 2:
        folders = [
            (problem.removesuffix("-strengths"), path.parent)
            for problem in sys.argv[2:]
            for path in sorted(Path(sys.argv[1], problem).glob("*/calibrated.json"))
        ]
        write("runs.csv", [row_of(*one) for one in folders])
        write("epochs.csv", [row for one in folders for row in epochs_of(*one)])
    every = Runs()
    lines = list(noise(every))
    for name, factor in (
        ("raw ece", 100),
        ("raw accuracy", 100),
        ("auto ece", 100),
        ("auto nll", 1),
        ("plain auto nll", 1),
    ):
        lines += compare(every, name, factor)
    for name, factor in (
        ("raw accuracy", 100),
        ("raw ece", 100),
        ("auto ece", 100),
        ("auto nll", 1),
    ):
        lines += compare(every, name, factor, STRENGTHS)
    lines += ablations(every)
    lines += ["\nover-fitting", *over_fitting(every), *by_epoch(), "\nrule", *rule(every)]
    (HERE / "answers.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    (HERE / "figure.svg").write_text(figure(every), encoding="utf-8")
    (HERE / "epochs.svg").write_text(figure_by_epoch(), encoding="utf-8")
    (HERE / "indicator.svg").write_text(figure_of_indicator(), encoding="utf-8")
