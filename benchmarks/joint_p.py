"""Size and power of the joint p-value and of O/E by group, and coverage of AUROC's and clusters' intervals.

Test sets come from a known distribution. Logits are normal; labels are drawn from the softmax of the logits divided by
a sharpness: 1 is a calibrated model, above 1 an over-confident one. Counts are printed after every hundred sets.

    python benchmarks/joint_p.py joint --classes 10 --sets 2000
    python benchmarks/joint_p.py joint --classes 10 --sets 500 --sharpness 1.2
    python benchmarks/joint_p.py groups --sets 2000
    python benchmarks/joint_p.py coverage --sets 1000
    python benchmarks/joint_p.py coverage --sets 1000 --clusters 100
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch

from fedlas import Predictions, binary, estimates, evaluate

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


def groups(seed: int, args: argparse.Namespace) -> dict[str, bool]:
    """Return whether a calibrated group is rejected, alone and after Holm's correction for ten groups."""
    random = np.random.default_rng(seed)
    log_odds = torch.from_numpy(random.normal(args.mean, 1.2, args.samples))
    group = np.arange(args.samples) % 10
    happened = (
        random.random(args.samples)
        < torch.sigmoid(log_odds + args.shift * torch.from_numpy(group == 0)).numpy()
    )
    two = Predictions(
        torch.stack([torch.zeros_like(log_odds), log_odds], dim=1),
        torch.from_numpy(happened).long(),
    )
    found = binary.group_measures(two, group)
    return {
        "group 0 alone": found[0].ratio.p <= ALPHA,
        "some other group, Holm": any(each.p <= ALPHA for name, each in found.items() if name),
        "group 0, Holm": found[0].p <= ALPHA,
        "O/E of group 1 holds 1": found[1].ratio.low <= 1 <= found[1].ratio.high,
    }


def coverage(seed: int, args: argparse.Namespace) -> dict[str, bool]:
    """Return whether each interval holds the truth; visits of a patient share part of their log-odds and outcomes.

    The truth is that of a sample of 400,000. With clusters, each has a random effect that the model does not know, so
    that the outcomes of a patient depend on each other; the probabilities are right on average over patients.
    """
    truth = TRUTHS.setdefault(
        args.clusters, values(*patients(10**6, 400_000, args.clusters and 40_000))
    )
    test, names = patients(seed, args.samples, args.clusters)
    hits = {}
    for kind in ("ignored", "clusters") if args.clusters else ("clusters",):
        each = replace(test, clusters=names if kind == "clusters" else None)
        found = binary.measures(each, replicates=args.replicates, seed=seed)
        for name, number in truth.items():
            hits[f"{name}, {kind}"] = found[name].low <= number <= found[name].high
        hits[f"joint rejects, {kind}"] = found.joint_p <= ALPHA
        nll = estimates(each, ["nll"], replicates=args.replicates, seed=seed)["nll"]
        hits[f"nll, {kind}"] = nll.low <= float(NLL[args.clusters]) <= nll.high
    return hits


TRUTHS: dict[int, dict[str, float]] = {}
NLL: dict[int, float] = {}
NAMES = ("slope", "in_the_large", "observed", "brier", "auroc", "average_precision", "ici")


def patients(seed: int, samples: int, clusters: int) -> tuple[Predictions, torch.Tensor | None]:
    """Return predictions of visits, and their patients."""
    random = np.random.default_rng(seed)
    number = random.integers(clusters, size=samples) if clusters else np.arange(samples)
    units = clusters or samples
    log_odds = random.normal(-1.0, 0.8, units)[number] + random.normal(0.0, 0.8, samples)
    shared = random.normal(0.0, 1.0, units)[number] if clusters else np.zeros(samples)
    # The logistic of a normal sum is nearly one with log-odds divided by sqrt(1 + pi s^2 / 8).
    scale = np.sqrt(1.0 + np.pi / 8.0) if clusters else 1.0
    happened = random.random(samples) < 1.0 / (1.0 + np.exp(-(log_odds + shared)))
    column = torch.from_numpy(log_odds / scale)
    two = Predictions(
        torch.stack([torch.zeros_like(column), column], dim=1), torch.from_numpy(happened).long()
    )
    return two, torch.from_numpy(number) if clusters else None


def values(test: Predictions, names: torch.Tensor | None) -> dict[str, float]:
    """Return the truth, from very many samples; the ICI of a calibrated model is 0."""
    found = binary.measures(test, replicates=0)
    NLL[0 if names is None else 100] = float(evaluate(test)["nll"])
    return {name: found[name].value for name in NAMES if name != "ici"} | {"ici": 0.0}


def count(
    run: Callable[[int, argparse.Namespace], dict[str, bool]], args: argparse.Namespace
) -> None:
    """Print the share of sets in which each test rejects, or each interval holds the truth."""
    hits: dict[str, int] = {}
    start = time.time()
    for seed in range(args.sets):
        for name, hit in run(seed, args).items():
            hits[name] = hits.get(name, 0) + int(hit)
        if (seed + 1) % 100 == 0 or seed + 1 == args.sets:
            shares = ", ".join(f"{name} {number / (seed + 1):.4f}" for name, number in hits.items())
            print(
                f"{vars(args)} {seed + 1} sets: {shares}; {time.time() - start:.0f} s", flush=True
            )


def main() -> None:
    """Read the options and count."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=["joint", "groups", "coverage"])
    parser.add_argument("--sets", type=int, default=2000)
    parser.add_argument("--samples", type=int, default=500)
    parser.add_argument("--replicates", type=int, default=199)
    parser.add_argument("--classes", type=int, default=2)
    parser.add_argument("--sharpness", type=float, default=1.0)
    parser.add_argument("--mean", type=float, default=-3.0, help="mean log-odds")
    parser.add_argument(
        "--shift", type=float, default=0.0, help="by how much the log-odds of group 0 are too low"
    )
    parser.add_argument(
        "--clusters",
        type=int,
        default=0,
        choices=[0, 100],
        help="patients; 0: every visit is alone",
    )
    args = parser.parse_args()
    torch.set_num_threads(1)
    count({"joint": joint, "groups": groups, "coverage": coverage}[args.what], args)


if __name__ == "__main__":
    main()
