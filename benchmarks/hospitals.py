"""How often random-effects means over hospitals hold the truth, and how often hospitals that do not differ "differ".

    python benchmarks/hospitals.py [--sets 200] [--first-seed 1000]
        [--settings 100x200x3.5 30x80x2.3 ...] [--tau 0 .2 .5]

A setting is hospitals x rows x expected events of each. Log-odds of the calibrated model are normal with standard
deviation 1 about the mean that gives so many events; a hospital's probabilities are the model's times ``exp(tau z)``,
with z normal. So the mean of log O/E is 0, and without tau the slope is 1 and the AUROC that of four million rows whose
outcomes count by their probability. Each line has the mean of the pooled O/E over sets, and shares of sets.
"""

from __future__ import annotations

import argparse
import functools
import math

import numpy as np
import torch

from fedlas import Predictions
from fedlas.binary import heterogeneity
from fedlas.metrics.ranking_scores import auroc_and_influence

SETTINGS = (
    "100x200x3.5",
    "30x80x2.3",
    "5x200x3.5",
    "10x200x3.5",
    "5x500x12",
    "10x500x12",
    "30x500x12",
    "100x500x12",
    "10x500x50",
    "30x500x50",
    "10x500x200",
)


@functools.cache
def truth(rate: float) -> tuple[float, float]:
    """Return the mean log-odds that gives this share of events, and the AUROC of the model."""
    deviates = np.random.default_rng(10**6).normal(size=1_000_000)
    low, high = -12.0, 12.0
    for _ in range(50):
        middle = 0.5 * (low + high)
        mean = float((1.0 / (1.0 + np.exp(-middle - deviates))).mean())
        low, high = (middle, high) if mean < rate else (low, middle)
    scores = np.repeat(middle + deviates, 2)
    probability = 1.0 / (1.0 + np.exp(-scores))
    outcome = np.tile([True, False], len(deviates))
    weights = np.where(outcome, probability, 1.0 - probability)
    return middle, auroc_and_influence(scores, outcome, weights)[0]


def draw(setting: str, tau: float, seed: int) -> tuple[Predictions, float]:
    """Return predictions of hospitals that do not know the hospital's ratio, and log O/E of a further hospital."""
    count, rows, events = (float(part) for part in setting.split("x"))
    random = np.random.default_rng([seed, int(count), int(rows)])
    mean, _ = truth(events / rows)
    clusters = np.arange(int(count)).repeat(int(rows))
    log_odds = random.normal(mean, 1.0, len(clusters))
    ratio = np.exp(tau * random.normal(size=int(count) + 1))
    probability = np.minimum(ratio[clusters] / (1.0 + np.exp(-log_odds)), 1.0)
    happened = (random.random(len(clusters)) < probability).astype(int)
    scores = np.stack([0.0 * log_odds, log_odds], axis=1)
    return Predictions(scores, happened, clusters=clusters), math.log(ratio[-1])


def measure(setting: str, tau: float, seed: int) -> dict[str, float]:
    """Return what one set shows of each measure, by name; nothing of a measure that has no mean."""
    predictions, further = draw(setting, tau, seed)
    summary = heterogeneity(predictions).summary
    _, rows, events = (float(part) for part in setting.split("x"))
    found: dict[str, float] = {}
    if "observed_to_expected" in summary:
        each = summary["observed_to_expected"]
        found = {
            "O/E": each.mean,
            "holds": each.low <= 1.0 <= each.high,
            "p": each.p <= 0.05,
        }
        if not math.isnan(each.prediction_low):
            found["predicts"] = each.prediction_low <= math.exp(further) <= each.prediction_high
    for name, value in {"slope": 1.0, "auroc": truth(events / rows)[1]}.items():
        if tau == 0.0 and name in summary:
            each = summary[name]
            found |= {
                f"{name} in": each.count,
                f"{name} holds": each.low <= value <= each.high,
                f"{name} p": each.p <= 0.05,
            }
    return found


COLUMNS = (
    *("O/E", "holds", "predicts", "p"),
    *(f"{name} {what}" for name in ("slope", "auroc") for what in ("in", "holds", "p")),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sets", type=int, default=200)
    parser.add_argument("--first-seed", type=int, default=1000)
    parser.add_argument("--settings", nargs="+", default=SETTINGS)
    parser.add_argument("--tau", type=float, nargs="+", default=[0.0, 0.2, 0.5])
    options = parser.parse_args()
    torch.set_num_threads(1)
    print(f"| hospitals x rows x events | tau | {' | '.join(COLUMNS)} |")
    print(f"| --- | ---: |{' ---: |' * len(COLUMNS)}")
    for setting in options.settings:
        for tau in options.tau:
            seeds = range(options.first_seed, options.first_seed + options.sets)
            sets = [measure(setting, tau, seed) for seed in seeds]
            cells = []
            for name in COLUMNS:
                values = [each[name] for each in sets if name in each]
                # A measure that few sets have is not shown.
                enough = len(values) >= options.sets / 4
                form = ".1f" if name.endswith(" in") else ".3f"
                cells.append(f"{np.mean(values):{form}}" if enough else "")
            print(f"| {setting} | {tau:g} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
