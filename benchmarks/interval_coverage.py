"""How often intervals of level 0.95 hold the truth, by number of classes and of samples.

    python benchmarks/interval_coverage.py [--classes 10 100 1000] [--samples 500 1000 2000 5000] [--sets 500]
        [--metrics ... | --defaults] [--sharpness 1.5] [--replicates 199] [--out coverage.jsonl]

Test sets come from a known distribution: true logits are normal with standard deviation 2, and the model's are
``sharpness`` times as large, 1.5 for one that everybody would call over-confident. The truth is the metric of many
other samples with their labels' known probabilities in the place of labels, so that no chance of labels is in it; all
classes are alike, and share their bins. Results are kept in ``--out`` as they come: the same command resumes, and with
all sets done it only prints the table. Metrics of the predicted class take the probability that this class is right;
smooth ECE, whose bandwidth depends on outcomes, takes four million drawn ones. ACE of a thousand classes takes half a
minute a set: ask for fewer of it.
"""

from __future__ import annotations

import argparse
import functools
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch

from fedlas import Predictions, TopLabel, estimates, evaluate

TOP_LABEL = (
    "adaptive_ece",
    "smooth_ece",
    "mce",
    "o_ece",
    "u_ece",
    "debiased_ece2",
    "true_ece",
)
METRICS = ("accuracy", "nll", "ece", "classwise_ece", "brier_calibration", "ace")
DEFAULTS = ("accuracy", "top5", "nll", "brier", "ece", *TOP_LABEL, "classwise_ece")
BINS = 15
OUTCOMES = 4_000_000
ROWS = 2_000_000
"""Probabilities of one part of the samples that the truth is computed from."""


def draw(samples: int, classes: int, sharpness: float, seed: int) -> Predictions:
    generator = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(samples, classes, generator=generator, dtype=torch.float64)
    probs = logits.softmax(1)
    target = torch.multinomial(probs, 1, generator=generator).squeeze(1)
    return Predictions((sharpness * logits).float(), target, label_probs=probs)


def gaps_in_bins(probs: torch.Tensor, known: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Sum of ``probs - known`` and count in each bin of equal width."""
    bins = torch.bucketize(probs, torch.linspace(0, 1, BINS + 1)[1:-1])
    count = torch.bincount(bins, minlength=BINS).double()
    return torch.bincount(bins, weights=probs.double() - known, minlength=BINS), count


@functools.cache
def truths(classes: int, sharpness: float, parts: int = 10) -> dict[str, float]:
    """The metrics of ``parts * ROWS`` probabilities, without the chance of labels."""
    means = {"accuracy": 0.0, "top5": 0.0, "nll": 0.0, "brier": 0.0}
    mass = 0.0
    samples = 0
    every = torch.zeros(BINS, dtype=torch.float64)
    count = torch.zeros(BINS, dtype=torch.float64)
    tops = []
    for part in range(parts):
        predictions = draw(ROWS // classes, classes, sharpness, seed=10**6 + part).tensors()
        probs = predictions.probs
        known = predictions.label_probs
        confidence, predicted = probs.max(dim=1)
        right = known.gather(1, predicted.unsqueeze(1)).squeeze(1)
        best = probs.topk(min(5, classes), dim=1).indices
        tops.append(torch.stack([confidence.double(), right]))
        gaps, filled = gaps_in_bins(probs.flatten(), known.flatten())
        every += gaps
        count += filled
        means["accuracy"] += float(right.sum())
        means["top5"] += float(known.gather(1, best).sum())
        means["nll"] -= float((known * predictions.logits.double().log_softmax(1)).sum())
        double = probs.double()
        means["brier"] += float((double**2 - 2 * double * known + known).sum())
        # Bins of equal mass of all classes together are those of each one.
        order = probs.flatten().argsort()
        mass += sum(
            abs(float(each.sum()))
            for each in np.array_split((probs - known).flatten()[order].numpy(), BINS)
        )
        samples += predictions.num_samples
    confidence, right = torch.cat(tops, dim=1)
    return {name: total / samples for name, total in means.items()} | {
        "classwise_ece": float(every.abs().sum()) / samples / classes,
        "brier_calibration": float((every**2 / count.clamp(min=1)).sum()) / samples,
        "ace": mass / samples / classes,
        **top_label_truths(confidence, right),
    }


def top_label_truths(confidence: torch.Tensor, right: torch.Tensor) -> dict[str, float]:
    """The metrics of the predicted class from the probability that it is right."""
    samples = len(confidence)
    gaps, count = gaps_in_bins(confidence, right)
    order = confidence.argsort()
    adaptive = sum(
        abs(float(each.sum())) for each in np.array_split((confidence - right)[order].numpy(), BINS)
    )
    copies = -(-OUTCOMES // samples)
    correct = torch.bernoulli(
        right.repeat(copies), generator=torch.Generator().manual_seed(0)
    ).bool()
    return {
        "ece": float(gaps.abs().sum()) / samples,
        "true_ece": float(gaps.abs().sum()) / samples,
        "adaptive_ece": adaptive / samples,
        "smooth_ece": evaluate(TopLabel(confidence.repeat(copies), correct))["smooth_ece"],
        "mce": float((gaps[count > 0] / count[count > 0]).abs().max()),
        "o_ece": float(gaps.clamp(min=0).sum()) / samples,
        "u_ece": float(-gaps.clamp(max=0).sum()) / samples,
        "debiased_ece2": float((gaps**2 / count.clamp(min=1)).sum()) / samples,
    }


Key = tuple[int, int, float, int, str]


def measured(path: Path) -> dict[Key, tuple[float, float, float]]:
    """Value and both ends of every interval in the file."""
    ends: dict[Key, tuple[float, float, float]] = {}
    for line in path.read_text().splitlines() if path.exists() else []:
        one = json.loads(line)
        for metric, numbers in one["found"].items():
            key = (one["classes"], one["samples"], one["sharpness"], one["seed"], metric)
            ends[key] = tuple(numbers)
    return ends


def measure(path: Path, settings: Sequence[tuple[int, int]], options: argparse.Namespace) -> None:
    """Append what is not in the file yet."""
    done = measured(path)
    with path.open("a") as file:
        for classes, samples in settings:
            for seed in range(options.sets):
                place = (classes, samples, options.sharpness, seed)
                metrics = [metric for metric in options.metrics if (*place, metric) not in done]
                if metrics:
                    predictions = draw(samples, classes, options.sharpness, seed)
                    table = estimates(
                        predictions, metrics, replicates=options.replicates, seed=seed
                    )
                    line = dict(
                        zip(("classes", "samples", "sharpness", "seed"), place, strict=True)
                    )
                    line["found"] = {
                        name: (each.value, each.low, each.high) for name, each in table.items()
                    }
                    file.write(json.dumps(line) + "\n")
                    file.flush()


def table(
    path: Path, settings: Sequence[tuple[int, int]], options: argparse.Namespace
) -> Iterator[str]:
    """Lines of Markdown: the share of intervals that hold the truth, and of how many where there are fewer sets."""
    done = measured(path)
    yield f"| C | N | {' | '.join(options.metrics)} |"
    yield f"|{' ---: |' * (2 + len(options.metrics))}"
    for classes, samples in settings:
        cells = []
        for metric in options.metrics:
            places = [
                (classes, samples, options.sharpness, seed, metric) for seed in range(options.sets)
            ]
            ends = [done[place][1:] for place in places if place in done]
            truth = truths(classes, options.sharpness)[metric]
            share = sum(low <= truth <= high for low, high in ends) / max(1, len(ends))
            fewer = "" if len(ends) == options.sets else f" ({len(ends)})"
            cells.append(f"{share:.3f}{fewer}" if ends else "")
        yield f"| {classes} | {samples:,} | {' | '.join(cells)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--classes", type=int, nargs="+", default=[10, 100, 1000])
    parser.add_argument("--samples", type=int, nargs="+", default=[500, 1000, 2000, 5000])
    parser.add_argument("--sets", type=int, default=500)
    parser.add_argument(
        "--metrics", nargs="+", default=METRICS, choices=sorted({*METRICS, *DEFAULTS})
    )
    parser.add_argument("--defaults", action="store_true", help="the default metrics")
    parser.add_argument("--sharpness", type=float, default=1.5)
    parser.add_argument("--replicates", type=int, default=199)
    parser.add_argument("--out", type=Path, default=Path("coverage.jsonl"))
    parser.add_argument("--table", action="store_true", help="only print what has been measured")
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.defaults:
        options.metrics = DEFAULTS
    settings = [(classes, samples) for classes in options.classes for samples in options.samples]
    if not options.table:
        measure(options.out, settings, options)
    for line in table(options.out, settings, options):
        print(line, flush=True)


if __name__ == "__main__":
    main()
