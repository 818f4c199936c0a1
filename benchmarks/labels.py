"""Calibrators of several labels a sample; the protocol is ``results/labels/PROTOCOL.md``.

    python benchmarks/labels.py run --kept FOLDER --out results/labels/scores.csv
    python benchmarks/labels.py cost --out results/labels/cost.csv
    python benchmarks/labels.py tables --out results/labels/scores.csv

``FOLDER`` is what ``labels_data.py`` wrote. ``run`` goes on where it ended.
"""

from __future__ import annotations

import argparse
import csv
import itertools
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from fedlas.calibrators import MultiLabelCalibration

Array = NDArray[Any]
Fit = Callable[[Array, Array], Callable[[Array], Array]]
SIZES = (100, 1000, 300, 3000)
MORE_SIZES = (50, 10_000)
DRAWS, TEST, BINS = 5, 4000, 15
FLOOR = 1e-12
MAIN = "partial pooling"
TODAY = "auto a label"
EXPENSIVE = (
    TODAY,
    "Venn-ABERS a label",
    "isotonic a label (scikit-learn)",
    "Platt a label (scikit-learn)",
)
"""Calibrators of draws 0 and 1 alone."""
MEASURES = ("nll", "brier", "ece", "worst_ece", "count_error")
KEYS = ("problem", "model", "size", "draw", "calibrator")
HEAD = (*KEYS, "labels", "without", *MEASURES, "nll_without", "truth", "seconds", "error")


# Calibrators: from logits and labels (n, L) to a function of logits that returns probabilities.


def raw(logits: Array, target: Array) -> Callable[[Array], Array]:  # noqa: ARG001 (nothing is fitted)
    """As predicted."""
    return sigmoid


def ours(method: str, *, shared: bool = False) -> Fit:
    """A calibrator of this library, a label or for all."""

    def fit(logits: Array, target: Array) -> Callable[[Array], Array]:
        calibration = MultiLabelCalibration(method, shared=shared)
        calibration.fit(torch.from_numpy(logits), torch.from_numpy(target))
        return lambda test: sigmoid(calibration.transform(torch.from_numpy(test)).numpy())

    return fit


def scikit(method: str) -> Fit:
    """``CalibratedClassifierCV`` a label, on decision values; a label of one value alone stays as predicted."""
    from sklearn.base import BaseEstimator, ClassifierMixin
    from sklearn.calibration import CalibratedClassifierCV
    from sklearn.frozen import FrozenEstimator

    class Scores(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
        """The one column that it is given, as decision value."""

        classes_ = np.array([0, 1])

        def __sklearn_is_fitted__(self) -> bool:
            return True

        def fit(self, *_: Any) -> Scores:
            return self

        def decision_function(self, rows: Array) -> Array:
            return rows[:, 0]

        def predict(self, rows: Array) -> Array:
            return (rows[:, 0] > 0).astype(int)

    def fit(logits: Array, target: Array) -> Callable[[Array], Array]:
        fits = []
        for scores, label in zip(logits.T, target.T, strict=True):
            if label.min() == label.max():
                fits.append(None)
                continue
            model = CalibratedClassifierCV(FrozenEstimator(Scores()), method=method, ensemble=False)
            # As many folds as the rarer label allows; the frozen scores are the same in each.
            model.cv = max(2, min(5, int(np.bincount(label).min())))
            fits.append(model.fit(scores[:, None], label) if np.bincount(label).min() > 1 else None)

        def apply(test: Array) -> Array:
            columns = [
                sigmoid(scores) if model is None else model.predict_proba(scores[:, None])[:, 1]
                for scores, model in zip(test.T, fits, strict=True)
            ]
            return np.stack(columns, axis=1)

        return apply

    return fit


def fits() -> dict[str, Fit]:
    """All calibrators of the protocol."""
    return {
        "raw": raw,
        MAIN: ours("partial-pooling"),
        "temperature for all": ours("temperature", shared=True),
        "Platt for all": ours("platt", shared=True),
        "auto for all": ours("auto", shared=True),
        "temperature a label": ours("temperature"),
        "Platt a label": ours("platt"),
        "beta a label": ours("beta"),
        "isotonic a label": ours("isotonic"),
        TODAY: ours("auto"),
        "Platt a label (scikit-learn)": scikit("sigmoid"),
        "isotonic a label (scikit-learn)": scikit("isotonic"),
        "Venn-ABERS a label": ours("venn-abers"),
    }


# Scores.


def sigmoid(logits: Array) -> Array:
    """Probabilities of logits, float64."""
    return np.asarray(torch.from_numpy(np.asarray(logits, dtype=np.float64)).sigmoid().numpy())


def ece_of_labels(probs: Array, target: Array) -> Array:
    """ECE of each label, 15 bins of equal width."""
    place = np.minimum((probs * BINS).astype(int), BINS - 1)
    away = probs - target
    return np.array(
        [
            np.abs(np.bincount(at, gap, minlength=BINS)).sum() / len(probs)
            for at, gap in zip(place.T, away.T, strict=True)
        ]
    )


def count_error(probs: Array, target: Array) -> float:
    """Mean distance of expected and observed labels a sample, over 15 bins of equal mass of the expected number."""
    expected = probs.sum(axis=1)
    gap = (expected - target.sum(axis=1))[np.argsort(expected, kind="stable")]
    return float(sum(abs(part.sum()) for part in np.array_split(gap, BINS)) / len(gap))


def nll_of_labels(probs: Array, target: Array) -> Array:
    """NLL of each label, probabilities held in 1e-12 to 1 - 1e-12."""
    held = np.clip(probs, FLOOR, 1 - FLOOR)
    return np.asarray(-np.where(target == 1, np.log(held), np.log1p(-held)).mean(axis=0))


def scored(fit: Fit, case: tuple[Array, ...], odds: Array | None) -> dict[str, Any]:
    """Scores of a calibrator; NaN, with the error, where it fails."""
    logits, target, test, labels = case
    without = target.sum(axis=0) == 0
    began = time.process_time()
    row: dict[str, Any] = dict.fromkeys((*MEASURES, "nll_without", "truth"), np.nan)
    row |= {"labels": target.shape[1], "without": int(without.sum()), "error": ""}
    try:
        calibrated = fit(logits, target)
        row["seconds"] = time.process_time() - began
        probs = calibrated(test)
        nll, ece = nll_of_labels(probs, labels), ece_of_labels(probs, labels)
        row |= {
            "nll": nll.mean(),
            "brier": np.square(probs - labels).mean(),
            "ece": ece.mean(),
            "worst_ece": ece.max(),
            "count_error": count_error(probs, labels),
            "nll_without": nll[without].mean() if without.any() else np.nan,
        }
        if odds is not None:
            row["truth"] = np.square(probs - sigmoid(odds)).mean()
    except Exception as failure:  # noqa: BLE001 (what a peer raises is its own)
        row |= {"seconds": np.nan, "error": f"{type(failure).__name__}: {failure}"[:100]}
    return row


def cases(kept: Path) -> Iterator[tuple[Path, int, int]]:
    """Archives, sizes and draws: draw by draw, so that a run that ends early has some of each problem."""
    problems: dict[str, list[Path]] = {}
    for path in sorted(kept.glob("*.npz")):
        problems.setdefault(path.stem.split(", ")[0], []).append(path)
    for draw in range(DRAWS):
        for sizes in (SIZES, MORE_SIZES):
            for model, size in itertools.product(range(3), sizes):
                for paths in problems.values():
                    yield paths[model], size, draw


def case_of(path: Path, size: int, draw: int) -> tuple[tuple[Array, ...], Array | None] | None:
    """Logits and labels to fit and to test, and the true log-odds of the test if known; None with too few rows."""
    with np.load(path) as arrays:
        logits, target = arrays["logits"], arrays["target"].astype(np.int64)
        odds = arrays.get("odds")
    order = np.random.RandomState(draw).permutation(len(logits))
    test, rest = order[:TEST], order[TEST:]
    if len(rest) < size:
        return None
    fit = rest[:size]
    case = (logits[fit], target[fit], logits[test], target[test])
    return case, None if odds is None else odds[test]


def run(args: argparse.Namespace) -> None:
    """Add a line for each case and calibrator that has none yet."""
    done = set()
    if args.out.is_file():
        done = set(zip(*(pd.read_csv(args.out, dtype=str)[key] for key in KEYS), strict=True))
    calibrators = fits()
    for path, size, draw in cases(args.kept):
        problem, model = path.stem.split(", ")
        about = (problem, model, str(size), str(draw))
        wanted = [
            name
            for name in calibrators
            if (*about, name) not in done
            and not (name in EXPENSIVE and (draw > 1 or size in MORE_SIZES))
        ]
        found = case_of(path, size, draw) if wanted else None
        if found is None:
            continue
        for name in wanted:
            add(args.out, about, name, scored(calibrators[name], *found))


def add(out: Path, about: tuple[str, ...], name: str, row: dict[str, Any]) -> None:
    """Add a line to the file of scores."""
    new = not out.is_file()
    with out.open("a", newline="") as file:
        writer = csv.writer(file)
        if new:
            writer.writerow(HEAD)
        cells = [f"{row[key]:.7f}" for key in (*MEASURES, "nll_without", "truth")]
        seconds = f"{row['seconds']:.3f}"
        writer.writerow(
            [*about, name, row["labels"], row["without"], *cells, seconds, row["error"]]
        )


def cost(args: argparse.Namespace) -> None:
    """Write processor seconds of fits by labels and rows, the fastest of three; of ``auto`` a label, one."""
    random = np.random.default_rng(0)
    with args.out.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("labels", "rows", "calibrator", "seconds"))
        for labels, rows in (
            (100, 1000),
            (100, 10_000),
            (1000, 1000),
            (5000, 1000),
            (5000, 10_000),
        ):
            odds = random.standard_normal((rows, labels), dtype=np.float32) * 2 - 3
            target = (random.random(odds.shape, dtype=np.float32) < sigmoid(odds)).astype(np.int64)
            logits = odds * np.exp(0.4 * random.standard_normal(labels)).astype(np.float32)
            for name, times in ((MAIN, 3), ("Platt for all", 1), (TODAY, 1)):
                if name != MAIN and labels * rows > 200_000:
                    continue
                seconds = []
                for _ in range(times):
                    began = time.process_time()
                    fits()[name](logits, target)
                    seconds.append(time.process_time() - began)
                writer.writerow((labels, rows, name, f"{min(seconds):.2f}"))
                file.flush()


# Tables.


def main() -> None:
    """Run what the first argument names."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=("run", "cost"))
    parser.add_argument("--kept", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    {"run": run, "cost": cost}[args.what](args)


if __name__ == "__main__":
    main()
