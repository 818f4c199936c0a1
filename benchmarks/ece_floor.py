"""What of the ECE of ``auto`` is noise: that of predictions with its confidences which are calibrated.

    python benchmarks/ece_floor.py run --kept FOLDER --scores results/many/scores.csv --out results/many/floor.csv
    python benchmarks/ece_floor.py table --out results/many/floor.csv

``--kept`` has the predictions of ``many_classes.py build``. Seed 0 of the cases of ``--scores``. The floor is the mean
ECE under labels "the top one is right" that are drawn from the confidences. A last map, as that of ``auto``, is fitted
on the test rows themselves, or on ten times the labels, as far as there are so many.
"""

from __future__ import annotations

import argparse
import csv
import warnings
from pathlib import Path
from typing import Any

import many_classes
import numpy as np
import torch
from calibrators import normalized
from torch import Tensor

from fedlas import Predictions
from fedlas.calibrators._fit.top_map import TopLabelMap, _fit_map
from fedlas.metrics import debiased_ece2, ece

COLUMNS = ("ece", "floor", "square", "ece_test_map", "ece_ten")
LEAST = 1000
"""Labels of the larger set."""


def log_probs(probs: Any) -> Tensor:
    """Logarithms of raised probabilities."""
    return torch.from_numpy(np.log(normalized(probs, 1e-12)))


def map_of(rows: Tensor, target: Tensor) -> TopLabelMap:
    """The last map of these rows."""
    return _fit_map(rows, target, torch.ones(len(target), dtype=torch.float64))


def floor(confidence: Tensor, draws: int = 40, bins: int = 15) -> float:
    """Mean ECE of labels drawn from the confidences."""
    random = torch.Generator().manual_seed(0)
    number = (confidence * bins).ceil().clamp(1, bins).long() - 1
    values = []
    for _ in range(draws):
        gap = confidence - torch.bernoulli(confidence, generator=random)
        sums = torch.zeros(bins, dtype=torch.float64).index_add_(0, number, gap)
        values.append(float(sums.abs().sum()) / len(confidence))
    return float(np.mean(values))


def run(args: argparse.Namespace) -> None:
    """Write a line for each case and calibrator."""
    fits = {"auto": many_classes.fits()["auto"], "auto before": many_classes.auto_before}
    cases = {(pair, int(size)) for pair, size, _ in many_classes.read(args.scores)}
    with args.out.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["pair", "size", "seed", "calibrator", *COLUMNS, "ten"])
        for pair, size in sorted(cases):
            path = args.kept / f"{pair}.npz"
            probs, target, test, labels = many_classes.split(path, size)
            arrays = np.load(path)
            order = np.random.RandomState(0).permutation(len(arrays["target"]))
            others = order[len(test) + len(probs) :][: 10 * len(probs)]
            right = torch.from_numpy(labels)
            for name, fit in fits.items():
                calibrate = fit(probs, target)
                rows = log_probs(calibrate(test))
                after = Predictions(rows, right)
                ten = np.nan
                if len(others) >= LEAST:
                    more = log_probs(calibrate(normalized(arrays["probs"], 1e-12)[others]))
                    best = map_of(more, torch.from_numpy(arrays["target"][others]))
                    ten = ece(Predictions(best(rows), right))
                numbers = (
                    ece(after),
                    floor(rows.exp().amax(1)),
                    debiased_ece2(after),
                    ece(Predictions(map_of(rows, right)(rows), right)),
                    ten,
                )
                texts = [f"{float(number):.6f}" for number in numbers]
                writer.writerow([pair, size, 0, name, *texts, len(others)])
                file.flush()


def table(args: argparse.Namespace) -> None:
    """Print medians in percent, and ratios to ``auto before``."""
    by_case: dict[tuple[str, str], dict[str, Any]] = {}
    with args.out.open() as file:
        for row in csv.DictReader(file):
            numbers = np.array([float(row[name]) for name in COLUMNS])
            by_case.setdefault((row["pair"], row["size"]), {})[row["calibrator"]] = numbers
    head = ("cases", "`auto before`", "`auto`", "`auto` if calibrated", "map of test rows")
    ratios = ("calibrated / `auto before`", "above 0.4", "excess", "root of square")
    print(
        "| labels a class | " + " | ".join((*head, "map of ten times the labels", *ratios)) + " |"
    )
    print("|---" + "|---:" * 10 + "|")
    for size in ("5", "20", "100", "all"):
        chosen = [both for key, both in by_case.items() if size in (key[1], "all")]
        now, before = (
            np.array([both[name] for both in chosen]) for name in ("auto", "auto before")
        )
        middle = 100 * np.nanmedian(now, axis=0)
        reach = now[:, 1] / before[:, 0]
        excess = (now[:, 0] - now[:, 1]).sum() / (before[:, 0] - before[:, 1]).sum()
        square = max(0.0, now[:, 2].mean() / before[:, 2].mean()) ** 0.5
        cells = [100 * np.median(before[:, 0]), *middle[[0, 1, 3, 4]]]
        print(
            f"| {size} | {len(now)} | "
            + " | ".join(f"{value:.1f}" for value in cells)
            + f" | {np.median(reach):.2f} | {int((reach > 0.4).sum())} | {excess:.2f} | {square:.2f} |"
        )


def main() -> None:
    """Run what the first argument names."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=("run", "table"))
    parser.add_argument("--kept", type=Path)
    parser.add_argument("--scores", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    {"run": run, "table": table}[args.what](args)


if __name__ == "__main__":
    main()
