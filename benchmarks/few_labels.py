"""``auto`` and a temperature with 30 to 1,000 labels.

    python benchmarks/few_labels.py run --real FOLDER --kept FOLDER --out results/calibrators/few-labels.csv
    PYTHONPATH=OLD/src python benchmarks/few_labels.py run ... --rename "auto before"
    python benchmarks/few_labels.py tables --out results/calibrators/few-labels.csv

Protocol, written before the run:

- What ``auto`` counts in addition with few samples, and from how many on its last map counts, was chosen on the
  data sets ``DEVELOPMENT`` of ``calibrators.py`` and on splits with seeds 100 to 102 of its groups a and b.
- Shown are its group c, seven models on each data set ``REPORTED``, and group d, 34 sets of 2 to 14 classes. A cell
  is a model on a data set with a number of labels; its samples are the first ones of a permutation, so that those of
  fewer labels are among those of more. Three permutations, all cells with one before the next, as far as time allows;
  at most 1,000 test rows.
- Goals: in the mean of a cell ``auto`` is at most 1 % above a temperature; from one number of labels to the next, its
  mean NLL over the cells that have both does not rise.
- After a first run of these cells and a rerun of ``calibrators.py``, temperature scaling counted two samples in place
  of three, and the offsets of the last map got their old ridge back: tables with 10 and 11 classes had become worse.
- ``auto before`` is that of commit 177f99ce, on the same samples.
"""

from __future__ import annotations

import argparse
import csv
import itertools
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from calibrators import REPORTED, few_sets, normalized, tabular
from numpy.typing import NDArray

from fedlas import Predictions
from fedlas.calibrators import AutoCalibration, TemperatureScaling
from fedlas.metrics import nll as negative_log_likelihood

Array = NDArray[Any]
SIZES = (30, 50, 99, 100, 199, 200, 300, 1000)
DRAWS = 3
TEST = 1000
COLUMNS = ("group", "cell", "labels", "draw", "calibrator", "nll")
FEWEST = ("raw", "temperature", "auto", "limit21")
"""Columns of ``fewest-labels.csv`` that are scores; commit 9954bc5c has the code that wrote it."""


def pools(args: argparse.Namespace) -> Iterator[tuple[str, str, Array, Array, Array, Array]]:
    """Group, cell, and probabilities and labels to draw from and to test on."""
    for name, *arrays in tabular(None, args.kept, REPORTED):
        yield "c", name, *arrays
    for name, probs, target in few_sets(args.real):
        order = np.random.RandomState(200).permutation(len(target))
        half = len(order) // 2
        pool, test = order[:half], order[half:]
        kept = normalized(probs, 1e-7)
        yield "d", name, kept[pool], target[pool], kept[test], target[test]


def run(args: argparse.Namespace) -> None:
    """Add the lines of cells that have none."""
    ours = args.rename or "auto"
    kinds = {ours: AutoCalibration, "temperature": TemperatureScaling}
    done = set()
    if args.out.is_file():
        frame = pd.read_csv(args.out)
        done = set(zip(frame.cell, frame.labels, frame.draw, frame.calibrator, strict=True))
    else:
        args.out.write_text(",".join(COLUMNS) + "\n")
    for draw, (group, cell, *arrays) in itertools.product(range(DRAWS), pools(args)):
        for (size, val, test), name in itertools.product(drawn(draw, SIZES, *arrays), kinds):
            if (cell, size, draw, name) in done:
                continue
            fit = kinds[name]().fit(val)
            nll = negative_log_likelihood(fit.transform(test))
            with args.out.open("a", newline="") as file:
                row = (group, cell, size, draw, name, f"{nll:.6f}")
                csv.writer(file, lineterminator="\n").writerow(row)


def fewest_table(frame: pd.DataFrame) -> str:
    """NLL in percent of a temperature's, in the mean of cells, by number of labels and calibrator."""
    head = "mean, nats | mean | median | worst cell | above by 1 % | below by 1 % |"
    lines = [
        f"| labels | cells | calibrator | {head}",
        "|---:|---:|---|---:|---:|---:|---:|---:|---:|",
    ]
    cells = frame.groupby(["labels", "group", "cell"])[[*FEWEST]].mean()
    for size, part in cells.groupby("labels"):
        for name, title in (("auto", "`auto`"), ("limit21", "its prior of few samples ends at 21")):
            ratio = 100 * (part[name] / part["temperature"] - 1)
            worst = ", ".join(ratio.idxmax()[2:])
            nats = (part[name] - part["temperature"]).mean()
            lines.append(
                f"| {size} | {len(part)} | {title} | {nats:+.4f} | {ratio.mean():+.2f} % | {ratio.median():+.2f} % | "
                f"{ratio.max():+.1f} % ({worst}) | {(ratio > 1).sum()} | {(ratio < -1).sum()} |"
            )
    return "\n".join(lines)


def drawn(
    draw: int, sizes: Iterable[int], probs: Array, target: Array, others: Array, labels: Array
) -> Iterator[tuple[int, Predictions, Predictions]]:
    """Sizes with the predictions to fit and to test, of those sizes that there are."""
    random = np.random.default_rng(500 + draw)
    order = random.permutation(len(target))
    rows = random.permutation(len(labels))[:TEST]

    def predictions(chances: Array, classes: Array, chosen: Array) -> Predictions:
        scores, truth = (torch.from_numpy(np.asarray(each)[chosen]) for each in (chances, classes))
        return Predictions(scores.log(), truth.long())

    test = predictions(others, labels, rows)
    for size in sizes:
        if size <= len(order):
            yield size, predictions(probs, target, order[:size]), test


def tables(frame: pd.DataFrame) -> str:
    """NLL of ``auto`` in percent of a temperature's, in the mean of cells, by number of labels."""
    cells = frame.groupby(["calibrator", "labels", "cell"]).nll.mean()
    names = [name for name in ("auto before", "auto") if name in set(frame.calibrator)]
    head = "".join(f" {name}: mean | worst cell | above by 1 % |" for name in names)
    lines = [f"| labels | cells |{head}", "|---:|---:|" + "---:|---:|---:|" * len(names)]
    for size in sorted(set(frame.labels)):
        row = ""
        count = 0
        for name in names:
            ratio = (100 * (cells[name, size] / cells["temperature", size] - 1)).dropna()
            count = len(ratio)
            row += f" {ratio.mean():+.2f} % | {ratio.max():+.1f} % | {(ratio > 1).sum()} |"
        lines.append(f"| {size:,} | {count} |{row}")
    lines += ["", "| from labels to labels |" + "".join(f" {name} |" for name in names)]
    lines.append("|---|" + "---:|" * len(names))
    for few, more in itertools.pairwise(sorted(set(frame.labels))):
        row = ""
        for name in names:
            change = (100 * (cells[name, more] / cells[name, few] - 1)).dropna()
            row += f" {change.mean():+.2f} ± {change.std() / len(change) ** 0.5:.2f} % |"
        lines.append(f"| {few:,} to {more:,} |{row}")
    return "\n".join(lines)


def changes(now: pd.DataFrame, before: pd.DataFrame) -> str:
    """NLL of ``auto`` in percent of what it was on the splits of ``calibrators.py``, by group and number of samples."""
    keys = ["group", "rows", "archive"]
    new, old = (
        each[each.calibrator == "auto"].groupby(keys, sort=False).nll.mean()
        for each in (now, before)
    )
    change = (100 * (new / old - 1)).dropna()
    lines = [
        "| group | samples to fit | pairs | NLL: median | mean | worst | best | worse by over 0.5 % | better |",
        "|---|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for (group, rows), part in change.groupby(["group", "rows"], sort=False):
        lines.append(
            f"| {group} | {rows} | {len(part)} | {part.median():+.2f} % | {part.mean():+.2f} % | {part.max():+.2f} % | "
            f"{part.min():+.2f} % | {(part > 0.5).sum()} | {(part < -0.5).sum()} |"
        )
    return "\n".join(lines)


def main() -> None:
    """Run, or print the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=("run", "tables"))
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--real", type=Path, help="folder of published predictions")
    parser.add_argument("--kept", type=Path, help="predictions that calibrators.py has kept")
    parser.add_argument("--rename", help="what auto is called")
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    if args.what == "run":
        run(args)
    else:
        print(tables(pd.read_csv(args.out)))


if __name__ == "__main__":
    main()
