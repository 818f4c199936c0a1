"""Bootstrap and noise floor against a loop over replicates, and how often the intervals hold the truth.

    python benchmarks/stats.py [--samples 10000] [--classes 10] [--replicates 1000] [--repeats 5] [--threads 1]
    python benchmarks/stats.py --coverage 500 [--samples 2000] [--metrics ece ks ...]

The loop is what one would write by hand: draw N rows, call the metric's own function, again and again. It is timed on a
twentieth of the replicates, side by side with ours, and scaled up; ratios are medians of such pairs.

Coverage draws test sets from a known distribution (10 classes, true logits normal with standard deviation 2, the
model's logits sharper or softer by a factor) and counts how often an interval of level 0.95 holds the metric's value on
a million other samples; for ECE and adaptive ECE that is the true calibration error, from the known probabilities. The
same is counted for differences between two models, some of them equally good by construction. On the calibrated model,
whose logits are the true ones, it counts how often the calibration test rejects at 0.05, over four times as many sets.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Sequence

import numpy as np
import torch

from fedlas import Predictions
from fedlas.metrics import METRICS, evaluate
from fedlas.stats import bootstrap_interval, bootstrap_intervals, noise_floor, paired_bootstrap

SHARPNESS = (0.9, 1.0, 1.05, 1.15, 1.5)
MISCALIBRATED = 1.5
"""The sharpness at which everybody would call the model miscalibrated: calibration is rejected on every test set."""
TRUTH = {"ece": "true_ece", "adaptive_ece": "true_ece"}
MEASURED = ("accuracy", "nll", "brier", "ece", "adaptive_ece")
TESTED = ("ece", "adaptive_ece", "debiased_ece2")
LEVEL = 0.05
ALARMS_PER_SET = 4
"""Test sets of the false-alarm rate for each of the coverage's: a share of 0.05 is to be known to half a point."""


def seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def draw(samples: int, classes: int, sharpness: float, seed: int) -> Predictions:
    generator = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(samples, classes, generator=generator, dtype=torch.float64)
    probs = logits.softmax(1)
    target = torch.multinomial(probs, 1, generator=generator).squeeze(1)
    return Predictions((sharpness * logits).float(), target, label_probs=probs)


def by_hand(predictions: Predictions, metric: Callable[..., float], replicates: int) -> np.ndarray:
    random = np.random.default_rng(0)
    values = []
    for _ in range(replicates):
        rows = random.integers(0, predictions.num_samples, predictions.num_samples)
        values.append(metric(Predictions(predictions.logits[rows], predictions.target[rows])))
    return np.array(values)


def speed(samples: int, classes: int, replicates: int, repeats: int) -> None:
    given = draw(samples, classes, 1.2, seed=0)
    given = Predictions(given.logits, given.target)
    print(
        f"{samples:,} x {classes}, {replicates:,} replicates; seconds, and the loop's time over ours"
    )
    print(f"{'':<16} {'bootstrap':>10} {'loop':>10} {'ratio':>8} {'noise floor':>14}")
    for entry in METRICS.entries():
        if entry.needs:
            continue

        def ours(name: str = entry.name) -> object:
            return bootstrap_interval(given, metric=name, replicates=replicates, method="basic")

        def loop(metric: Callable[..., float] = entry.value) -> object:
            return by_hand(given, metric, max(1, replicates // 20))

        def floor(name: str = entry.name) -> object:
            return noise_floor(given, metric=name, replicates=replicates)

        pairs = [
            (seconds(ours), seconds(loop) * replicates / max(1, replicates // 20))
            for _ in range(repeats)
        ]
        fast, slow = (statistics.median(column) for column in zip(*pairs, strict=True))
        ratio = statistics.median(theirs / mine for mine, theirs in pairs)
        below = statistics.median(seconds(floor) for _ in range(repeats))
        print(f"{entry.name:<16} {fast:>10.3f} {slow:>10.2f} {ratio:>8.1f} {below:>14.3f}")


def coverage(samples: int, sets: int, replicates: int, names: Sequence[str]) -> None:
    print(
        f"N = {samples:,}, {sets} test sets, {replicates} replicates: share of intervals that hold the truth"
    )
    print(
        f"{'sharpness':>9} {'metric':<17} {'truth':>8} {'mean':>8} {'percentile':>11} {'basic':>8} {'auto':>8}"
    )
    clearly: dict[str, int] = {}
    for sharpness in SHARPNESS:
        large = draw(1_000_000, 10, sharpness, seed=10**6)
        truths = {name: METRICS[TRUTH.get(name, name)].value(large) for name in names}
        hits = {(name, method): 0 for name in names for method in ("percentile", "basic", "auto")}
        sums = dict.fromkeys(names, 0.0)
        for seed in range(sets):
            given = draw(samples, 10, sharpness, seed)
            for method in ("percentile", "basic", "auto"):
                found = bootstrap_intervals(
                    given, metrics=names, replicates=replicates, seed=seed, method=method
                )
                for name, interval in found.items():
                    hits[name, method] += interval.low <= truths[name] <= interval.high
            for name in names:
                sums[name] += found[name].value
        for name in names:
            shares = [hits[name, method] / sets for method in ("percentile", "basic", "auto")]
            print(
                f"{sharpness:>9} {name:<17} {truths[name]:>8.4f} {sums[name] / sets:>8.4f} "
                f"{shares[0]:>11.3f} {shares[1]:>8.3f} {shares[2]:>8.3f}",
                flush=True,
            )
        if sharpness == MISCALIBRATED:
            clearly = {name: hits[name, "auto"] for name in names}
    print(
        f"clearly miscalibrated model, sharpness {MISCALIBRATED}: intervals of level 0.95 that hold the truth"
    )
    for name, count in clearly.items():
        print(f"  {name:<17} {with_error(count, sets)}", flush=True)


def with_error(count: int, trials: int) -> str:
    """A share and its Monte Carlo standard error."""
    share = count / trials
    return f"{share:.4f} ± {(share * (1 - share) / trials) ** 0.5:.4f} ({count:,} of {trials:,})"


def false_alarms(samples: int, sets: int, replicates: int) -> None:
    print(
        f"N = {samples:,}, {sets:,} test sets of a calibrated model, {replicates} replicates: share of p <= {LEVEL}"
    )
    alarms = dict.fromkeys(TESTED, 0)
    for seed in range(sets):
        given = draw(samples, 10, 1.0, seed)
        for name in TESTED:
            found = noise_floor(given, metric=name, replicates=replicates, seed=seed)
            alarms[name] += found.p_value <= LEVEL
    for name in TESTED:
        print(f"  {name:<14} {with_error(alarms[name], sets)}", flush=True)


def paired(samples: int, sets: int, replicates: int) -> None:
    names = ["accuracy", "nll", "brier", "ece", "adaptive_ece"]
    truth = {
        sharpness: evaluate(draw(1_000_000, 10, sharpness, seed=10**6)) for sharpness in SHARPNESS
    }
    print(
        f"N = {samples:,}, {sets} test sets: intervals of paired differences that hold the truth, and p <= 0.05"
    )
    print(f"{'sharpness':>12} {'':<8} " + " ".join(f"{name:>13}" for name in names))
    for sharpness in (*SHARPNESS, (1.0, 1.15), (1.05, 1.5)):
        held, found = dict.fromkeys(names, 0), dict.fromkeys(names, 0)
        for seed in range(sets):
            # two models of different sharpness, whose true difference is known
            if isinstance(sharpness, tuple):
                models = [draw(samples, 10, each, seed) for each in sharpness]
            else:  # two equally good ones: the same logits with a noise of each one's own
                given = draw(samples, 10, sharpness, seed)
                noises = [
                    torch.Generator().manual_seed(10**7 + 2 * seed + which) for which in (0, 1)
                ]
                models = [
                    given.with_logits(
                        given.tensors().logits
                        + 0.3 * torch.randn(given.logits.shape, generator=noise)
                    )
                    for noise in noises
                ]
            for name in names:
                result = paired_bootstrap(*models, metric=name, replicates=replicates, seed=seed)
                key = TRUTH.get(name, name)
                difference = (
                    truth[sharpness[0]][key] - truth[sharpness[1]][key]
                    if isinstance(sharpness, tuple)
                    else 0
                )
                held[name] += result.low <= difference <= result.high
                found[name] += result.p_value <= 0.05
        for title, counts in (("held", held), ("p <= .05", found)):
            shares = " ".join(f"{counts[name] / sets:>13.3f}" for name in names)
            print(f"{sharpness!s:>12} {title:<8} {shares}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--samples", type=int)
    parser.add_argument("--classes", type=int, default=10)
    parser.add_argument("--replicates", type=int)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument(
        "--coverage", type=int, metavar="SETS", help="count over so many test sets instead"
    )
    parser.add_argument(
        "--metrics",
        nargs="+",
        default=MEASURED,
        help="with --coverage: of which metrics' intervals",
    )
    only = parser.add_mutually_exclusive_group()
    only.add_argument("--paired", action="store_true", help="with --coverage: of differences alone")
    only.add_argument(
        "--alarms", action="store_true", help="with --coverage: of the calibration test alone"
    )
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    print(f"torch {torch.__version__}, numpy {np.__version__}, {arguments.threads} threads")
    if arguments.coverage:
        # One more than the replicates is a multiple of 40: then levels of 0.05 on one side and on two are both exact.
        samples, sets, replicates = (
            arguments.samples or 2000,
            arguments.coverage,
            arguments.replicates or 399,
        )
        if not arguments.paired and not arguments.alarms:
            coverage(samples, sets, replicates, arguments.metrics)
        if not arguments.paired:
            false_alarms(samples, ALARMS_PER_SET * sets, replicates)
        if not arguments.alarms:
            paired(samples, sets, replicates)
    else:
        speed(
            arguments.samples or 10_000,
            arguments.classes,
            arguments.replicates or 1000,
            arguments.repeats,
        )


if __name__ == "__main__":
    main()
