"""Size of the tests of calibration, and coverage of the intervals, with 5 to 100 clusters of equal and unequal size.

Clusters have 20 rows on average: all of them, or 60 in every fifth and 10 in the others. Rows of a cluster share a
part of their log-odds that the model knows and one that it does not (`joint_p.py` has the same). Size is of a model
whose probabilities are right on average over clusters, coverage of one whose log-odds are 1.5 times too large.

    python benchmarks/few_clusters.py --sets 1000 --replicates 0  # lines alone, which take no bootstrap
    python benchmarks/few_clusters.py --sets 300 --clusters 10 --sizes unequal
"""

from __future__ import annotations

import argparse
from collections import Counter
from typing import Any

import numpy as np
import torch

from fedlas import Predictions, binary, compare, estimates
from fedlas.metrics.evaluation import compute_metrics, resolve_metrics

ALPHA = 0.05
KNOWN_SD = 0.8
HIDDEN_SD = 1.0
SHARPNESS = 1.5
MEANS = ("confidence_gap", "smooth_ece", "nll", "brier")
LINES = ("slope", "in_the_large", "observed_to_expected")
NODES, WEIGHTS = np.polynomial.hermite_e.hermegauss(30)


def log_odds_of(known: np.ndarray) -> np.ndarray:
    """Return the log-odds (N,) after the mean over the hidden part, which is normal."""
    rate = sum(
        weight / (1.0 + np.exp(-known - HIDDEN_SD * node))
        for node, weight in zip(NODES, WEIGHTS / WEIGHTS.sum(), strict=True)
    )
    return np.asarray(np.log(rate) - np.log1p(-rate))


def visits(seed: int, clusters: int, sizes: str, mean: float) -> Predictions:
    """Return predictions of a calibrated model for rows in clusters."""
    random = np.random.default_rng(seed)
    rows = np.full(clusters, 20)
    if sizes == "unequal":
        rows = np.where(np.arange(clusters) % 5 == 0, 60, 10)
    number = np.repeat(np.arange(clusters), rows)
    known = random.normal(mean, KNOWN_SD, clusters)[number]
    known = known + random.normal(0.0, KNOWN_SD, len(number))
    hidden = random.normal(0.0, HIDDEN_SD, clusters)[number]
    event = random.random(len(number)) < 1.0 / (1.0 + np.exp(-known - hidden))
    return two_columns(log_odds_of(known), event, number)


def two_columns(log_odds: np.ndarray, event: np.ndarray, number: np.ndarray) -> Predictions:
    """Return predictions of two classes."""
    column = torch.from_numpy(log_odds)
    logits = torch.stack([torch.zeros_like(column), column], dim=1)
    return Predictions(
        logits, torch.from_numpy(event).long(), clusters=torch.from_numpy(number).long()
    )


def sharper(predictions: Predictions) -> Predictions:
    """Return the same rows with log-odds that are too large."""
    return Predictions(
        SHARPNESS * predictions.logits, predictions.target, clusters=predictions.clusters
    )


def truths(mean: float, samples: int = 500_000) -> dict[str, float]:
    """Return the measures of very many independent rows."""
    random = np.random.default_rng(10**6)
    log_odds = log_odds_of(random.normal(mean, KNOWN_SD * np.sqrt(2.0), samples))
    event = random.random(samples) < 1.0 / (1.0 + np.exp(-log_odds))
    calibrated = two_columns(log_odds, event, np.arange(samples))
    claimed = sharper(calibrated)
    found = compute_metrics(claimed, resolve_metrics(MEANS, claimed), 15)
    line = binary.logistic_recalibration(
        Predictions(claimed.logits[:200_000], claimed.target[:200_000])
    )
    ratio = event.mean() / claimed.probs[:, 1].mean()
    found |= {
        "slope": 1.0 / SHARPNESS,
        "in_the_large": line.in_the_large.value,
        "observed_to_expected": float(ratio),
        "nll difference": compute_metrics(calibrated, resolve_metrics(["nll"], calibrated), 15)[
            "nll"
        ]
        - found["nll"],
    }
    return {name: float(value) for name, value in found.items()}


def counted(
    seed: int, predictions: Predictions, truth: dict[str, float], replicates: int
) -> Counter[str]:
    """Return 1 by name of each test that rejects the calibrated model and each interval that holds the truth."""
    claimed = sharper(predictions)
    hits: Counter[str] = Counter()
    found: dict[str, tuple[float, float]] = {}
    try:
        line = binary.logistic_recalibration(claimed)
        found |= {name: _ends(getattr(line, name)) for name in LINES}
        hits["lines"] += 1
        hits["size: Cox"] += binary.logistic_recalibration(predictions).p_value <= ALPHA
    except ValueError:  # a threshold separates the outcomes
        pass
    if replicates:
        options = {"replicates": replicates, "seed": seed}
        joint_p = binary.measures(predictions, **options).joint_p
        hits["size: joint p"] += joint_p <= ALPHA
        hits["size: joint p at 0.01"] += joint_p <= 0.01
        means = estimates(claimed, list(MEANS), **options)
        found |= {name: _ends(means[name]) for name in MEANS}
        found["nll difference"] = _ends(compare(predictions, claimed, ["nll"], **options)["nll"])
    for name, (low, high) in found.items():
        hits[name] += low <= truth[name] <= high
    return hits


def _ends(interval: Any) -> tuple[float, float]:
    return interval.low, interval.high


def main() -> None:
    """Read the options and print a row for each number and size of clusters."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sets", type=int, default=1000)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--clusters", type=int, nargs="+", default=[5, 10, 30, 100])
    parser.add_argument("--sizes", nargs="+", default=["equal", "unequal"])
    parser.add_argument("--replicates", type=int, default=199, help="0: lines alone")
    parser.add_argument("--mean", type=float, default=-1.0, help="mean log-odds")
    args = parser.parse_args()
    torch.set_num_threads(1)
    truth = truths(args.mean)
    for sizes in args.sizes:
        for clusters in args.clusters:
            hits: Counter[str] = Counter()
            for seed in range(args.first_seed, args.first_seed + args.sets):
                test = visits(seed, clusters, sizes, args.mean)
                hits += counted(seed, test, truth, args.replicates)
            shares = {}
            for name, count in hits.items():
                few = name in LINES or name == "size: Cox"
                shares[name] = round(count / (hits["lines"] if few else args.sets), 3)
            print(clusters, sizes, args.sets, shares, flush=True)


if __name__ == "__main__":
    main()
