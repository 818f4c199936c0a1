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
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from fedlas import MultiLabel
from fedlas.binary import label_measures
from fedlas.calibrators import MultiLabelCalibration

Array = NDArray[Any]
Fit = Callable[[Array, Array], Callable[[Array], Array]]
SIZES = (100, 1000, 300, 3000)
MORE_SIZES = (50, 10_000)
DRAWS, TEST, BINS = 5, 4000, 15
FLOOR = 1e-12
MAIN = "partial pooling"
TODAY = "auto a label"
OF_MORE_SIZES = (MAIN, "raw", "Platt for all", "temperature for all")
"""Calibrators of 50 and 10,000 rows too."""
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

    class Scores(ClassifierMixin, BaseEstimator):  # type: ignore[misc]  # scikit-learn has no types
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
    calibrators = {n: fit for n, fit in fits().items() if args.only is None or n in args.only}
    for path, size, draw in cases(args.kept):
        problem, model = path.stem.split(", ")
        about = (problem, model, str(size), str(draw))
        wanted = [
            name
            for name in calibrators
            if (*about, name) not in done and (size in SIZES or name in OF_MORE_SIZES)
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
    """Write processor seconds of fits, and of applying and measuring: medians of three, of the most labels once."""
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
                times = times if labels * rows <= 5_000_000 else 1
                work: dict[str, Callable[[], object]] = {
                    name: partial(fits()[name], logits, target)
                }
                if name == MAIN:
                    work["apply"] = partial(fits()[name](logits, target), logits)
                    work["measures"] = partial(label_measures, MultiLabel(logits, target))
                for what, run_once in work.items():
                    seconds = [processor_seconds(run_once) for _ in range(times)]
                    writer.writerow((labels, rows, what, f"{np.median(seconds):.2f}"))
                    file.flush()


def processor_seconds(work: Callable[[], object]) -> float:
    """How much processor time some work takes."""
    began = time.process_time()
    work()
    return time.process_time() - began


# Tables.


def read(folder: Path) -> pd.DataFrame:
    """Scores, indexed by problem, model, size, draw and calibrator."""
    numbers = ["without", *MEASURES, "nll_without", "truth", "seconds"]
    return pd.read_csv(folder / "scores.csv").set_index([*KEYS])[numbers]


def complete(frame: pd.DataFrame, sizes: tuple[int, ...], names: list[str]) -> pd.DataFrame:
    """The cases of these sizes, means over the draws that all these calibrators have been through."""
    some = frame[
        frame.index.isin(sizes, level="size") & frame.index.isin(names, level="calibrator")
    ]
    count = some.groupby(["problem", "model", "size", "draw"])["seconds"].transform("size")
    keys = ["problem", "model", "size", "calibrator"]
    return some[count == len(names)].groupby(keys, sort=False).mean()


def wide(frame: pd.DataFrame, measure: str) -> pd.DataFrame:
    """A row a case, a column a calibrator."""
    return frame[measure].unstack("calibrator")


def markdown(head: list[str], rows: list[list[str]]) -> str:
    """A table."""
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def rank_table(frame: pd.DataFrame) -> str:
    """Mean ranks and the calibrators' mean scores."""
    names = list(frame.index.unique("calibrator"))
    ranks = {m: wide(frame, m).rank(axis=1, na_option="bottom").mean() for m in MEASURES}
    mean = {m: wide(frame, m).mean() for m in ("nll", "brier", "ece")}
    order = sorted(names, key=lambda name: sum(ranks[m][name] for m in ("nll", "brier", "ece")))
    failed = wide(frame, "nll").isna().sum()
    rows = [
        [
            name,
            *(f"{ranks[m][name]:.2f}" for m in MEASURES),
            f"{mean['nll'][name]:.4f}",
            f"{mean['brier'][name]:.5f}",
            f"{100 * mean['ece'][name]:.2f}",
            str(failed[name]),
        ]
        for name in order
    ]
    head = ["calibrator", "NLL", "Brier", "ECE", "worst label's ECE", "count error"]
    return markdown([*head, "mean NLL", "mean Brier", "mean ECE, %", "failed"], rows)


def today_table(frame: pd.DataFrame) -> str:
    """NLL, Brier score and ECE over those of ``auto`` a label, by size."""
    rows = []
    sizes = sorted(frame.index.unique("size"))
    ratios = {m: wide(frame, m)[MAIN] / wide(frame, m)[TODAY] for m in ("nll", "brier", "ece")}
    for size in [*sizes, None]:
        parts = {
            m: ratio if size is None else ratio.xs(size, level="size")
            for m, ratio in ratios.items()
        }
        nll = parts["nll"]
        problems = nll.groupby("problem").median()
        rows.append(
            [
                "all" if size is None else f"{size:,}",
                str(len(nll)),
                *(percent(parts[m].median()) for m in ("nll", "brier", "ece")),
                percent(problems.median()),
                f"{(nll < 1).sum()}",
                f"{percent(nll.max())} ({', '.join(map(str, nll.idxmax()[:2]))})",
            ]
        )
    head = ["rows", "cases", "NLL, median", "Brier, median", "ECE, median"]
    return markdown([*head, "NLL, median of problems", "NLL lower in", "worst NLL"], rows)


def percent(ratio: float) -> str:
    """Change in percent."""
    return f"{100 * (ratio - 1):+.1f} %"


def paired_table(frame: pd.DataFrame) -> str:
    """Mean ratio to each rival over problems, problems below 1, and the exact test of paired signs."""
    rows = []
    for rival in (name for name in frame.index.unique("calibrator") if name != MAIN):
        cells = [rival]
        for measure in ("nll", "brier", "ece"):
            scores = wide(frame, measure).dropna(subset=[rival])
            means = np.log(scores[MAIN] / scores[rival]).groupby("problem").mean().to_numpy()
            signs = np.array(list(itertools.product((-1, 1), repeat=len(means))))
            p_value = (np.abs(signs @ means) >= abs(means.sum()) - 1e-12).mean()
            below = f"{(means < 0).sum()} of {len(means)}"
            cells.append(f"{percent(np.exp(means.mean()))}, {below}, p {p_value:.4f}")
        rows.append(cells)
    return markdown(["partial pooling over", "NLL", "Brier", "ECE"], rows)


def harm_table(frame: pd.DataFrame) -> str:
    """Cases by how far the NLL is above the better of raw and one Platt for all, for some calibrators."""
    nll = wide(frame, "nll")
    best = nll[["raw", "Platt for all"]].min(axis=1)
    rows = []
    for name in nll.columns.drop(["raw"]):
        ratio = (nll[name] / best).dropna()
        worst = ratio.idxmax()
        rows.append(
            [
                name,
                f"{(ratio > 1.003).sum()} of {len(ratio)}",
                f"{(ratio > 1.02).sum()}",
                percent(ratio.median()),
                f"{percent(ratio.max())} ({worst[0]}, {worst[1]}, {worst[2]:,})",
            ]
        )
    return markdown(["calibrator", "above by .3 %", "by 2 %", "median", "worst"], rows)


def problem_table(frame: pd.DataFrame) -> str:
    """Mean NLL of each problem over models and sizes, in thousandths."""
    shown = ["raw", "Platt for all", "auto for all", "Platt a label", "beta a label", TODAY, MAIN]
    mean = wide(frame, "nll")[shown].groupby("problem").mean() * 1000
    rows = [[name, *(f"{value:.1f}" for value in row)] for name, row in mean.iterrows()]
    return markdown(["NLL in thousandths", *shown], rows)


def without_table(frame: pd.DataFrame) -> str:
    """NLL of the labels without a positive among the labeled rows, over that of raw predictions, by size."""
    nll = wide(frame, "nll_without").dropna(subset=["raw"])
    ratio = nll.div(nll["raw"], axis=0)
    some = frame.xs("raw", level="calibrator").loc[ratio.index]
    rows = []
    for size, part in ratio.groupby("size"):
        labels = some.xs(size, level="size")["without"].sum()
        rows.append(
            [f"{size:,}", str(len(part)), f"{labels:.0f}", *(percent(v) for v in part.median())]
        )
    return markdown(["rows", "cases", "labels", *nll.columns], rows)


def truth_table(frame: pd.DataFrame) -> str:
    """Root of the mean squared distance from the true probability, in %, on the simulated problem."""
    truth = np.sqrt(wide(frame, "truth").dropna(how="all")) * 100
    some = truth.groupby("size").mean().T
    rows = [[str(name), *(f"{v:.2f}" for v in row)] for name, row in some.iterrows()]
    rows.sort(key=lambda row: float(row[1]))
    return markdown(["calibrator", *(f"{size:,} rows" for size in some.columns)], rows)


def seconds_table(frame: pd.DataFrame) -> str:
    """Median processor seconds of a fit, by size."""
    some = wide(frame, "seconds").groupby("size").median().T
    rows = [[str(name), *(f"{v:.2f}" for v in row)] for name, row in some.iterrows()]
    return markdown(["calibrator", *(f"{size:,} rows" for size in some.columns)], rows)


def cost_table(folder: Path) -> str:
    """Processor seconds of fits by labels and rows."""
    frame = pd.read_csv(folder / "cost.csv").pivot(index=["labels", "rows"], columns="calibrator")
    some = frame["seconds"]
    rows = [
        [f"{labels:,}", f"{count:,}", *("" if np.isnan(v) else f"{v:.2f}" for v in row)]
        for (labels, count), row in some.iterrows()
    ]
    return markdown(["labels", "rows", *some.columns], rows)


def tables(folder: Path) -> dict[str, str]:
    """The tables of ``results/labels/README.md`` by title, as Markdown, from the files of a folder."""
    frame = read(folder)
    main = complete(frame, SIZES, list(fits()))
    more = complete(frame, MORE_SIZES, list(OF_MORE_SIZES))
    result = {
        "ranks": rank_table(main),
        "against auto a label": today_table(main),
        "paired": paired_table(main),
        "harm": harm_table(main),
        "problems": problem_table(main),
        "without": without_table(main),
        "truth": truth_table(main),
        "seconds": seconds_table(main),
    }
    if len(more):
        result["harm, 50 and 10,000 rows"] = harm_table(more)
    if (folder / "cost.csv").is_file():
        result["cost"] = cost_table(folder)
    return result


def print_tables(args: argparse.Namespace) -> None:
    """Print all tables."""
    for title, text in tables(args.out.parent).items():
        print(f"\n<!-- table: {title} -->\n\n{text}\n\n<!-- end -->")


def main() -> None:
    """Run what the first argument names."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=("run", "cost", "tables"))
    parser.add_argument("--kept", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--only", nargs="*", help="of run: these calibrators")
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    {"run": run, "cost": cost, "tables": print_tables}[args.what](args)


if __name__ == "__main__":
    main()
