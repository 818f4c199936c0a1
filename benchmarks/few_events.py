"""Coverage of calibration slope and calibration in the large with sampling weights and few events; of accuracies.

Test sets are of a calibrated model with normal log-odds. Slopes are measured as those of groups, which have the numbers
of `binary.logistic_recalibration` of one group at a time. Accuracies are of two models on clusters of rows. Their
bootstrap is no longer in the package, which has Newcombe's interval: it is drawn here, its interval is the package's.

    python benchmarks/few_events.py --sets 2000
    python benchmarks/few_events.py --sets 400 --accuracy
"""

from __future__ import annotations

import argparse

import numpy as np
import torch

from fedlas import Predictions
from fedlas.binary import group_measures
from fedlas.stats.degrees import degrees_of_freedom
from fedlas.stats.intervals import interval_from_replicates
from fedlas.stats.proportion import paired_share_interval

DESIGNS = ((400, -5.0), (400, -4.3), (400, -3.0), (100, -2.3), (1000, -1.0))
"""Rows of a test set, and the mean of their log-odds."""
GATE = 0.8


def weights_of(kind: str, away: np.ndarray, random: np.random.Generator) -> np.ndarray | None:
    """Return weights (N,): log-normal ones, ones of a few rows that count tenfold, or larger ones of low risk."""
    noise = random.normal(size=len(away))
    return {
        "none": None,
        "log-normal": np.exp(noise),
        "tenfold": np.where(random.random(len(away)) < 0.2, 10.0, 1.0),
        "by risk": np.exp(-0.5 * away + 0.5 * noise),
    }[kind]


def two_models(clusters: int, mean: float, random: np.random.Generator) -> list[np.ndarray]:
    """Return the clusters of 20 rows (N,), which of them two models get right (N,), and log-normal weights (N,)."""
    number = np.arange(clusters).repeat(20)
    known = (
        mean + 0.8 * random.normal(size=clusters)[number] + 0.8 * random.normal(size=len(number))
    )
    hidden = random.normal(size=clusters)[number]
    event = random.random(len(number)) < 1.0 / (1.0 + np.exp(-known - hidden))
    other = 1.5 * known - 0.5 * mean + 0.7 * random.normal(size=len(number))
    weights = np.exp(0.8 * random.normal(size=len(number)))
    return [number, (known > 0) == event, (other > 0) == event, weights]


def accuracies(sets: int, seed: int) -> None:
    """Print how often the interval of a difference of accuracies holds it, of the bootstrap and Newcombe's."""
    for clusters, mean in ((10, -4.0), (30, -4.0), (10, -1.0), (30, -1.0), (100, -1.0)):
        for is_weighted in (False, True):
            random = np.random.default_rng(seed)
            _, a, b, weights = two_models(20_000, mean, random)
            truth = np.average(a * 1.0 - b, weights=weights if is_weighted else None)
            hits = []
            for _ in range(sets):
                number, a, b, weights = two_models(clusters, mean, random)
                weights = weights if is_weighted else np.ones(len(number))
                low, high = paired_share_interval(a, b, weights, number, confidence_level=0.95)
                times = random.multinomial(clusters, np.full(clusters, 1 / clusters), size=399)
                sums = np.bincount(number, weights * (a * 1.0 - b)), np.bincount(number, weights)
                values = np.divide(*(times @ each for each in sums))
                drawn = interval_from_replicates(
                    sums[0].sum() / sums[1].sum(),
                    values,
                    confidence_level=0.95,
                    method="percentile",
                    degrees=degrees_of_freedom(weights, number),
                )
                held = drawn.low <= truth <= drawn.high
                hits.append((held, drawn.low == drawn.high == 0.0, low <= truth <= high))
            shares = np.mean(hits, axis=0).round(3).tolist()
            names = ("bootstrap", "[0, 0]", "Newcombe")
            kind = "weighted" if is_weighted else ""
            print(clusters, mean, kind, dict(zip(names, shares, strict=True)), flush=True)


def main() -> None:
    """Read the options and print a row for each kind of weights and size of the sets."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sets", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=1000)
    parser.add_argument(
        "--weights", nargs="+", default=["none", "log-normal", "tenfold", "by risk"]
    )
    parser.add_argument("--accuracy", action="store_true", help="differences of accuracies alone")
    args = parser.parse_args()
    if args.accuracy:
        accuracies(args.sets, args.seed)
        return
    torch.set_num_threads(1)
    for kind in args.weights:
        for rows, mean in DESIGNS:
            random = np.random.default_rng(args.seed)
            number = np.arange(args.sets).repeat(rows)
            away = random.normal(size=len(number))
            log_odds = mean + away
            happened = random.random(len(number)) < 1.0 / (1.0 + np.exp(-log_odds))
            scores = np.stack([np.zeros(len(number)), log_odds], axis=1)
            weights = weights_of(kind, away, random)
            table = group_measures(
                Predictions(scores, happened.astype(int), weights=weights), number
            )
            groups = [each for each in table.values() if each.slope is not None]
            slopes = np.array([(each.slope.low, each.slope.high) for each in groups])
            shifts = np.array([(each.shift.low, each.shift.high) for each in groups])
            found = {
                "slope": (slopes[:, 0] <= 1.0) & (slopes[:, 1] >= 1.0),
                "in the large": (shifts[:, 0] <= 0.0) & (shifts[:, 1] >= 0.0),
                f"slope>={GATE} fails": slopes[:, 1] < GATE,
            }
            shares = {name: round(float(each.mean()), 3) for name, each in found.items()}
            length = round(float(np.median(slopes[:, 1] - slopes[:, 0])), 2)
            print(
                kind, rows, f"{happened.sum() / args.sets:.0f} events", len(groups), shares, length
            )


if __name__ == "__main__":
    main()
