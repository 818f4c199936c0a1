"""Weighted samples: how often intervals hold the truth, and how near importance weights come to a shifted target.

    python benchmarks/weights.py [--samples 1000] [--sets 300] [--shifts 0.5 1 2 3] [--shift-sets 40]
    python benchmarks/weights.py --differences [--samples 500] [--sets 200] [--first-seed 500000]

Coverage: true logits of 5 classes are normal with standard deviation 2, the model's are ``sharpness`` times as large.
Weights are lognormal ("random"), fall with the model's true confidence ("hard"), or are 9 for every tenth sample
("tenth"). The truth is the weighted metric of 2,000,000 samples, that of ECE from their known probabilities.

Shift: two normal inputs, the first of mean 0 in the source and ``shift`` in the target, labels of one law, and a model
that is over-confident where the first input is above 0.5. The truth is the metric of 1,000,000 target samples.

Differences: how often the test of ECE of two models with equal ECE rejects at 0.05. Either one adds .4 to the log-odds
of a calibrated event and the other takes it off, or each adds noise of its own (sd .5 a logit).
"""

from __future__ import annotations

import argparse
import warnings
from dataclasses import replace

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from fedlas import Predictions, estimates, evaluate
from fedlas.metrics import true_ece
from fedlas.stats import effective_sample_size, paired_bootstrap

METRICS = ("accuracy", "nll", "brier", "ece", "classwise_ece")
SHIFTED = ("accuracy", "nll", "ece")


def importance_weights(source: np.ndarray, target: np.ndarray) -> torch.Tensor:
    """Return the odds of a logistic regression that distinguishes target from source, each from a fit without it."""
    log_odds = cross_val_predict(
        make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000)),
        np.concatenate([source, target]),
        np.repeat([0, 1], [len(source), len(target)]),
        cv=StratifiedKFold(5, shuffle=True, random_state=0),
        method="decision_function",
    )[: len(source)]
    return torch.from_numpy(np.exp(log_odds - log_odds.max()))


def weighted(samples: int, sharpness: float, kind: str, seed: int) -> Predictions:
    generator = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(samples, 5, generator=generator, dtype=torch.float64)
    probs = logits.softmax(1)
    target = torch.multinomial(probs, 1, generator=generator).squeeze(1)
    if kind == "tenth":
        weights = torch.where(torch.rand(samples, generator=generator) < 0.1, 9.0, 1.0)
    else:
        noise = torch.randn(samples, generator=generator, dtype=torch.float64)
        weights = torch.exp(noise if kind == "random" else 0.5 * noise - 3 * probs.amax(1))
    return Predictions(sharpness * logits, target, label_probs=probs, weights=weights)


def coverage(samples: int, sets: int) -> None:
    for kind in ("random", "hard", "tenth"):
        for sharpness in (1.0, 1.2, 1.5):
            large = weighted(2_000_000, sharpness, kind, seed=999)
            truth = {**evaluate(large), "ece": true_ece(large)}
            if sharpness == 1.0:
                truth |= {"ece": 0.0, "classwise_ece": 0.0}
            held, worth = dict.fromkeys(METRICS, 0.0), 0.0
            for seed in range(sets):
                given = weighted(samples, sharpness, kind, seed)
                worth += effective_sample_size(given.weights) / sets
                for name, found in estimates(given, METRICS, replicates=199, seed=seed).items():
                    held[name] += (found.low <= truth[name] <= found.high) / sets
            shares = "  ".join(f"{name} {share:.3f}" for name, share in held.items())
            print(
                f"{kind:6} sharpness {sharpness}: worth {worth:.0f} of {samples}  {shares}",
                flush=True,
            )


def shifted(
    samples: int, mean: float, random: np.random.Generator
) -> tuple[np.ndarray, Predictions]:
    x = random.normal((mean, 0.0), 1.0, (samples, 2))
    logit = 1.5 * x[:, 0] + x[:, 1]
    said = np.where(x[:, 0] > 0.5, 2.5 * logit - 1.5, 0.9 * logit)
    target = (random.random(samples) < 1 / (1 + np.exp(-logit))).astype(int)
    return x, Predictions(np.stack([np.zeros(samples), said], axis=1), target)


def shift(mean: float, sets: int, samples: int = 4000) -> None:
    truth = evaluate(shifted(1_000_000, mean, np.random.default_rng(10**6))[1])
    plain, values, held, worth = [], [], [], []
    for seed in range(sets):
        random = np.random.default_rng(seed)
        (source, given), (target, _) = shifted(samples, 0.0, random), shifted(samples, mean, random)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # large shifts are warned of, as they should be
            weights = importance_weights(source, target)
        found = estimates(replace(given, weights=weights), SHIFTED, replicates=199, seed=seed)
        plain.append([evaluate(given)[name] for name in SHIFTED])
        values.append([found[name].value for name in SHIFTED])
        held.append([found[name].low <= truth[name] <= found[name].high for name in SHIFTED])
        worth.append(effective_sample_size(weights))
    print(f"shift {mean:g}: worth {np.mean(worth):.0f} of {samples}")
    for place, name in enumerate(SHIFTED):
        unweighted, estimate, covered = (
            np.asarray(part)[:, place] for part in (plain, values, held)
        )
        print(
            f"  {name:8} target {truth[name]:.4f}  source {unweighted.mean():.4f}  weighted {estimate.mean():.4f} "
            f"± {estimate.std():.4f}  in its interval {covered.mean():.3f}",
            flush=True,
        )


def differences(samples: int, sets: int, first_seed: int) -> None:
    """Print how often the test of a difference of ECE rejects where there is none, without and with weights."""
    for kind in ("shift", "noise"):
        for weighted_by in ("none", "exponential"):
            rejected = 0
            for seed in range(first_seed, first_seed + sets):
                generator = torch.Generator().manual_seed(seed)
                logits = 1.5 * torch.randn(samples, 2, generator=generator, dtype=torch.float64)
                target = torch.multinomial(logits.softmax(1), 1, generator=generator).squeeze(1)
                uniform = torch.rand(samples, generator=generator, dtype=torch.float64)
                weights = None if weighted_by == "none" else -uniform.log()
                away = [torch.tensor([0.0, sign * 0.4]) for sign in (1.0, -1.0)]
                if kind == "noise":
                    away = [0.5 * torch.randn(logits.shape, generator=generator) for _ in away]
                a, b = (
                    Predictions((logits + each).float(), target, weights=weights) for each in away
                )
                test = paired_bootstrap(a, b, replicates=199, seed=seed)
                rejected += (test.p_value or 1.0) <= 0.05
            print(f"| {kind} | {samples:,} | {weighted_by} | {rejected / sets:.3f} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--samples", type=int, default=1000)
    parser.add_argument("--sets", type=int, default=300)
    parser.add_argument("--shifts", type=float, nargs="*", default=[0.5, 1.0, 2.0, 3.0])
    parser.add_argument("--shift-sets", type=int, default=40)
    parser.add_argument("--differences", action="store_true", help="differences of ECE alone")
    parser.add_argument("--first-seed", type=int, default=500_000)
    args = parser.parse_args()
    if args.differences:
        differences(args.samples, args.sets, args.first_seed)
        return
    for mean in args.shifts:
        shift(mean, args.shift_sets)
    coverage(args.samples, args.sets)


if __name__ == "__main__":
    main()
