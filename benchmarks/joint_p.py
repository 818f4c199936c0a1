"""Size and power of the joint p-value, of headlines and of O/E by group; coverage of AUROC's and clusters' intervals.

Test sets come from a known distribution. Logits are normal; labels are drawn from the softmax of the logits divided by
a sharpness: 1 is a calibrated model, above 1 an over-confident one. Counts are printed after every hundred sets.

    python benchmarks/joint_p.py joint --classes 10 --sets 2000
    python benchmarks/joint_p.py joint --classes 10 --sets 500 --sharpness 1.2
    python benchmarks/joint_p.py headline --classes 2 --sets 400 --first-seed 10000
    python benchmarks/joint_p.py groups --sets 2000
    python benchmarks/joint_p.py delong --sets 2000 --mean -1
    python benchmarks/joint_p.py coverage --sets 1000 --mean -1
    python benchmarks/joint_p.py coverage --sets 500 --mean -1 --samples 5000 --cluster-rows 100
    python benchmarks/joint_p.py coverage --sets 1000 --mean -1 --samples 5000 --cluster-rows 10 --sharpness 1.5 \
        --clusters-only
"""

from __future__ import annotations

import argparse
import functools
import time
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch

from fedlas import Predictions, binary, estimates, report
from fedlas.present.verdict import PRE_SPECIFIED
from fedlas.stats import Estimate, Interval

ALPHA = 0.05


def model(seed: int, samples: int, classes: int, sharpness: float) -> Predictions:
    """Return predictions whose logits are ``sharpness`` times too large; of two classes a third are events."""
    random = torch.Generator().manual_seed(seed)
    logits = torch.randn(samples, classes, generator=random, dtype=torch.float64)
    logits = logits * 1.5 + (0.0 if classes > 2 else torch.tensor([0.7, 0.0]))
    target = torch.multinomial(logits.softmax(1), 1, generator=random)[:, 0]
    return Predictions(sharpness * logits, target)


def joint(seed: int, args: argparse.Namespace) -> dict[str, bool]:
    """Return whether the joint test rejects, and whether Bonferroni's correction of the same tests would."""
    test = model(seed, args.samples, args.classes, args.sharpness)
    measure = binary.measures if args.classes == 2 else estimates
    table = measure(test, replicates=args.replicates, seed=seed)
    least = min(table.tests.values())
    return {
        "joint": table.joint_p <= ALPHA,
        "Bonferroni": len(table.tests) * least <= ALPHA,
        "any": least <= ALPHA,
    }


def headline(seed: int, args: argparse.Namespace) -> dict[str, bool]:
    """Return what the first sentence of a report says: the joint test rejects, or a single test alone."""
    test = model(seed, args.samples, args.classes, args.sharpness)
    verdict = report(test, replicates=args.replicates).verdicts["as predicted"]
    return {
        "joint": verdict.rejects_calibration,
        **{f"alone: {name}": verdict.rejects_alone == name for name in PRE_SPECIFIED},
        "says miscalibrated": verdict.rejects_calibration or verdict.rejects_alone in PRE_SPECIFIED,
        "names another": bool(verdict.rejects_alone) and verdict.rejects_alone not in PRE_SPECIFIED,
    }


def groups(seed: int, args: argparse.Namespace) -> dict[str, bool]:
    """Return whether a calibrated group is rejected, alone and after Holm's correction for ten groups."""
    random = np.random.default_rng(seed)
    log_odds = torch.from_numpy(random.normal(args.mean, 1.2, args.samples))
    group = np.arange(args.samples) % 10
    event = (
        random.random(args.samples)
        < torch.sigmoid(log_odds + args.shift * torch.from_numpy(group == 0)).numpy()
    )
    two = Predictions(
        torch.stack([torch.zeros_like(log_odds), log_odds], dim=1),
        torch.from_numpy(event).long(),
    )
    table = binary.group_measures(two, group)
    return {
        "group 0 alone": table[0].ratio.p <= ALPHA,
        "some other group, Holm": any(each.p <= ALPHA for name, each in table.items() if name),
        "group 0, Holm": table[0].p <= ALPHA,
        "O/E of group 1 holds 1": table[1].ratio.low <= 1 <= table[1].ratio.high,
    }


def coverage(seed: int, args: argparse.Namespace) -> dict[str, bool]:
    """Return whether each interval holds the truth, once with clusters and once as if all rows were independent.

    Rows of a cluster share a part of their log-odds that the model knows, and a part that it does not know, so that
    their outcomes depend on each other. The model's probabilities are right on average over clusters, unless its
    log-odds are ``sharpness`` times too large.
    """
    truth = truths(args.mean, CLUSTER_SD if args.cluster_rows else 0.0, args.sharpness)
    predictions, clusters = visits(seed, args)
    hits = {}
    compared = args.cluster_rows and not args.clusters_only
    for kind in ("ignored", "clusters") if compared else ("clusters",):
        each = replace(predictions, clusters=clusters if kind == "clusters" else None)
        for name, interval in intervals(each, args.replicates, seed).items():
            hits[f"{name}, {kind}"] = interval.low <= truth[name] <= interval.high
        if args.replicates:
            table = binary.measures(each, replicates=args.replicates, seed=seed)
            for name in ("observed", "average_precision", "ici"):
                hits[f"{name}, {kind}"] = table[name].low <= truth[name] <= table[name].high
            hits[f"joint rejects, {kind}"] = table.joint_p <= ALPHA
    return hits


def intervals(
    predictions: Predictions, replicates: int, seed: int
) -> dict[str, Estimate | Interval]:
    """Return the intervals that take milliseconds: bootstrap of means, lines and AUROC."""
    means = estimates(predictions, ["nll", "brier"], replicates=replicates or 199, seed=seed)
    line = binary.logistic_recalibration(predictions)
    return {
        "nll": means["nll"],
        "brier": means["brier"],
        "auroc": binary.auroc(predictions),
        "slope": line.slope,
        "in_the_large": line.in_the_large,
    }


def delong(seed: int, args: argparse.Namespace) -> dict[str, bool]:
    """Return whether the intervals of AUROC (DeLong) and average precision hold the truth."""
    truth = truths(args.mean, 0.0, args.sharpness)
    predictions, _ = visits(seed, args)
    area = binary.auroc(predictions)
    hits = {"auroc": area.low <= truth["auroc"] <= area.high}
    if args.replicates:
        precision = binary.average_precision(predictions, replicates=args.replicates, seed=seed)
        hits["average_precision"] = precision.low <= truth["average_precision"] <= precision.high
    return hits


KNOWN_SD = 0.8
CLUSTER_SD = 1.0
"""Standard deviations of log-odds: what the model knows of a cluster and of a row; what it does not know."""
NODES, WEIGHTS = np.polynomial.hermite_e.hermegauss(30)


def marginal(log_odds: np.ndarray, hidden_sd: float) -> np.ndarray:
    """Return the probabilities (N,) after the mean over the hidden part, which is normal."""
    total = np.zeros_like(log_odds)
    for node, weight in zip(NODES, WEIGHTS / WEIGHTS.sum(), strict=True):
        total += weight / (1.0 + np.exp(-(log_odds + hidden_sd * node)))
    return total


def visits(seed: int, args: argparse.Namespace) -> tuple[Predictions, torch.Tensor | None]:
    """Return predictions, and the cluster of each row; clusters have ``cluster_rows`` rows on average."""
    random = np.random.default_rng(seed)
    units = args.samples // max(1, args.cluster_rows)
    number = np.arange(args.samples) % units
    shared = random.normal(args.mean, KNOWN_SD, units)[number]
    log_odds = shared + random.normal(0.0, KNOWN_SD, args.samples)
    hidden_sd = CLUSTER_SD if args.cluster_rows else 0.0
    hidden = random.normal(0.0, hidden_sd, units)[number]
    event = random.random(args.samples) < 1.0 / (1.0 + np.exp(-(log_odds + hidden)))
    probs = marginal(log_odds, hidden_sd)
    column = args.sharpness * torch.from_numpy(np.log(probs) - np.log1p(-probs))
    two = Predictions(
        torch.stack([torch.zeros_like(column), column], dim=1), torch.from_numpy(event).long()
    )
    return two, torch.from_numpy(number) if args.cluster_rows else None


@functools.cache
def truths(
    mean: float, hidden_sd: float, sharpness: float, samples: int = 4_000_000
) -> dict[str, float]:
    """Return the measures of very many rows whose outcomes count by their probability, so without chance of labels."""
    random = np.random.default_rng(10**6)
    log_odds = random.normal(mean, KNOWN_SD * np.sqrt(2.0), samples)
    probs = np.sort(marginal(log_odds, hidden_sd))[::-1]
    claimed_log_odds = sharpness * (np.log(probs) - np.log1p(-probs))
    claimed = 1.0 / (1.0 + np.exp(-claimed_log_odds))
    events = probs.cumsum()
    others = (1.0 - probs).cumsum()
    truth = {
        "observed": float(probs.mean()),
        "brier": float(2.0 * (probs * (1.0 - claimed) ** 2 + (1.0 - probs) * claimed**2).mean()),
        "nll": float(-(probs * np.log(claimed) + (1.0 - probs) * np.log1p(-claimed)).mean()),
        "auroc": float(((1.0 - probs) * events).sum() / (events[-1] * others[-1])),
        "average_precision": float((probs * events / (events + others)).sum() / events[-1]),
        "slope": 1.0 / sharpness,
        "in_the_large": shift_to(float(probs.mean()), claimed_log_odds),
        "ici": float(np.abs(claimed - probs).mean()),
    }
    print({name: round(number, 4) for name, number in truth.items()}, flush=True)
    return truth


def shift_to(rate: float, log_odds: np.ndarray) -> float:
    """Return by how much all log-odds must rise so that their mean probability is ``rate``: Newton's method."""
    shift = 0.0
    for _ in range(20):
        probs = 1.0 / (1.0 + np.exp(-(log_odds + shift)))
        shift += (rate - float(probs.mean())) / float((probs * (1.0 - probs)).mean())
    return shift


def count(
    run: Callable[[int, argparse.Namespace], dict[str, bool]], args: argparse.Namespace
) -> None:
    """Print the share of sets in which each test rejects, or each interval holds the truth."""
    hits: dict[str, int] = {}
    start = time.time()
    for number in range(1, args.sets + 1):
        for name, hit in run(args.first_seed + number - 1, args).items():
            hits[name] = hits.get(name, 0) + int(hit)
        if number % 100 == 0 or number == args.sets:
            shares = ", ".join(f"{name} {count / number:.4f}" for name, count in hits.items())
            print(f"{vars(args)} {number} sets: {shares}; {time.time() - start:.0f} s", flush=True)


def main() -> None:
    """Read the options and count."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=["joint", "headline", "groups", "coverage", "delong"])
    parser.add_argument("--sets", type=int, default=2000)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--samples", type=int, default=500)
    parser.add_argument("--replicates", type=int, default=199)
    parser.add_argument("--classes", type=int, default=2)
    parser.add_argument("--sharpness", type=float, default=1.0)
    parser.add_argument("--mean", type=float, default=-3.0, help="mean log-odds")
    parser.add_argument(
        "--shift", type=float, default=0.0, help="by how much the log-odds of group 0 are too low"
    )
    parser.add_argument(
        "--cluster-rows",
        type=int,
        default=0,
        help="rows of a cluster; 0: no hidden part, no clusters",
    )
    parser.add_argument(
        "--clusters-only", action="store_true", help="do not also measure rows as if independent"
    )
    args = parser.parse_args()
    torch.set_num_threads(1)
    runs = (joint, headline, groups, coverage, delong)
    count({run.__name__: run for run in runs}[args.what], args)


if __name__ == "__main__":
    main()
