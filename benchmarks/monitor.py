"""How often ``fedlas monitor`` raises a false alarm, and after how many samples it sees a change.

    python benchmarks/monitor.py --alarms 1000 [--length 10000] [--tests 600 5000] [--false-alarm 0.1] [--first 0]
    python benchmarks/monitor.py --power 20 [--good 10000] [--length 10000] [--tests 600 5000]

A calibrated model of ten classes is drawn: normal logits with standard deviation 12, and labels from its probabilities,
so that accuracy and mean confidence are 91 %. Each trial draws a card's parts of its own (as many validation as test
samples) and a stream with labels, which is looked at after every sample. For false alarms nothing changes. For power
something does, with the first sample and once more after ``--good`` good samples. Trial ``i`` has the seed ``i``, and
``--first`` skips trials, so that parts of a long count add up.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable

import numpy as np
import torch

from fedlas import Predictions
from fedlas.deploy.build_card import make_card
from fedlas.deploy.calibration import read_calibration
from fedlas.deploy.card import Card
from fedlas.deploy.monitor.state import StreamState
from fedlas.deploy.monitor.watches import WATCHES, LiveBatch, build_watches

CLASSES, SCALE = 10, 12.0
NONE = read_calibration({"method": "none"}, CLASSES)


def draw(samples: int, generator: torch.Generator) -> Predictions:
    logits = SCALE * torch.randn(samples, CLASSES, generator=generator)
    return Predictions(
        logits, torch.multinomial(logits.softmax(1), 1, generator=generator).squeeze(1)
    )


def card_of(test: int, generator: torch.Generator) -> Card:
    return make_card(
        draw(test, generator),
        draw(test, generator),
        NONE,
        model={"run": "drawn"},
        data={"name": "drawn"},
    )


def batch_of(given: Predictions) -> LiveBatch:
    return LiveBatch(
        given.confidence.astype(np.float64).clip(0, 1),
        given.correct,
        given.predicted,
    )


Change = Callable[[LiveBatch, np.random.Generator], LiveBatch]


def less_right(points: float) -> Change:
    def change(batch: LiveBatch, rng: np.random.Generator) -> LiveBatch:
        share = points / batch.correct.mean()
        return LiveBatch(
            batch.confidence, batch.correct & (rng.random(len(batch)) >= share), batch.predicted
        )

    return change


def less_sure(points: float) -> Change:
    """Some confidences are halved; accuracy and classes stay."""

    def change(batch: LiveBatch, rng: np.random.Generator) -> LiveBatch:
        halved = rng.random(len(batch)) < 2 * points / batch.confidence.mean()
        return LiveBatch(
            np.where(halved, batch.confidence / 2, batch.confidence), batch.correct, batch.predicted
        )

    return change


def other_class(points: float) -> Change:
    def change(batch: LiveBatch, rng: np.random.Generator) -> LiveBatch:
        return LiveBatch(
            batch.confidence,
            batch.correct,
            np.where(rng.random(len(batch)) < points, 0, batch.predicted),
        )

    return change


def unsure_and_wrong(batch: LiveBatch, rng: np.random.Generator) -> LiveBatch:
    """As of inputs in the wrong range: calibrated, but hardly better than chance."""
    confidence = rng.uniform(0.1, 0.3, len(batch))
    return LiveBatch(confidence, rng.random(len(batch)) < confidence, batch.predicted)


CHANGES: dict[str, Change] = {
    "accuracy 5 points lower": less_right(0.05),
    "accuracy 20 points lower": less_right(0.2),
    "mean confidence 5 points lower": less_sure(0.05),
    "mean confidence 20 points lower": less_sure(0.2),
    "5 points of predictions in another class": other_class(0.05),
    "20 points of predictions in another class": other_class(0.2),
    "inputs in the wrong range": unsure_and_wrong,
}


def alarms(args: argparse.Namespace, test: int) -> None:
    found = dict.fromkeys((*WATCHES["top label"], "any"), 0)
    for trial in range(args.first, args.first + args.alarms):
        generator = torch.Generator().manual_seed(trial)
        seen = StreamState.initial(
            build_watches(card_of(test, generator), false_alarm=args.false_alarm)
        )
        seen.observe(batch_of(draw(args.length, generator)))
        for name in seen.alarms:
            found[name] += 1
        found["any"] += bool(seen.alarms)
        if (trial + 1) % 100 == 0:
            print(f"  after trial {trial + 1}: {found}", flush=True)
    print(
        f"card of {test:,} samples, {args.alarms:,} streams of {args.length:,} samples from seed {args.first}, rate "
        f"{args.false_alarm:g}; streams with an alarm: "
        + ", ".join(f"{n} {name}" for name, n in found.items()),
        flush=True,
    )


def power(args: argparse.Namespace, test: int, change: str, good: int) -> None:
    """Median, lowest and highest number of samples until the first alarm, and which watches it came from."""
    delays, first, early = [], dict.fromkeys(WATCHES["top label"], 0), 0
    for trial in range(args.first, args.first + args.power):
        generator, rng = torch.Generator().manual_seed(trial), np.random.default_rng(trial)
        seen = StreamState.initial(
            build_watches(card_of(test, generator), false_alarm=args.false_alarm)
        )
        if good:
            seen.observe(batch_of(draw(good, generator)))
        early += bool(seen.alarms)
        live = CHANGES[change](batch_of(draw(args.length, generator)), rng)
        for start in range(0, args.length, 250):  # no need to read on after the alarm
            if not seen.alarms:
                seen.observe(live[start : start + 250])
        if seen.first_alarm is not None and seen.first_alarm > good:
            delays.append(seen.first_alarm - good)
            first[min(seen.alarms, key=lambda name: seen.alarms[name])] += 1
        else:
            delays.append(np.inf)
    spread = ", ".join(
        f"{value:,.0f}" for value in (statistics.median(delays), min(delays), max(delays))
    )
    watches = ", ".join(f"{name} {n}" for name, n in first.items() if n)
    print(
        f"| {change} | {test:,} | {good:,} | {spread} | {watches or 'none'} |{f' {early} early' * bool(early)}",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--alarms", type=int, metavar="TRIALS", help="count false alarms")
    what.add_argument("--power", type=int, metavar="TRIALS", help="count samples until an alarm")
    parser.add_argument(
        "--tests", type=int, nargs="+", default=[600, 5000], help="test samples of the cards"
    )
    parser.add_argument(
        "--length",
        type=int,
        default=10_000,
        help="samples of a stream; with --power after the change",
    )
    parser.add_argument(
        "--good", type=int, default=10_000, help="with --power: samples before the later change"
    )
    parser.add_argument(
        "--false-alarm", type=float, help="default: 0.1 for --alarms, 0.01 for --power"
    )
    parser.add_argument(
        "--first", type=int, default=0, metavar="SEED", help="seed of the first trial"
    )
    args = parser.parse_args()
    args.false_alarm = args.false_alarm or (0.1 if args.alarms else 0.01)
    torch.set_num_threads(1)
    print(f"torch {torch.__version__}, numpy {np.__version__}")
    if args.alarms:
        for test in args.tests:
            alarms(args, test)
        return
    print(
        "| change | card | good samples before | samples until the alarm: median, least, most | watch |"
    )
    for change in CHANGES:
        for test in args.tests:
            for good in (0, args.good):
                power(args, test, change, good)


if __name__ == "__main__":
    main()
