"""Bounds on speed that must hold: a loop that crept in would break them, a busy machine should not.

    python benchmarks/bounds.py

Ratios are medians of pairs measured one after the other; an absolute time is the best of thirty.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import numpy as np
import torch

from fedlas import Predictions
from fedlas.binary import logistic_recalibration
from fedlas.lab.data import Batches, Images
from fedlas.metrics import calibration_by_group, ece
from fedlas.stats import bootstrap_interval


def seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def draw(samples: int, classes: int) -> Predictions:
    generator = torch.Generator().manual_seed(0)
    logits = 2 * torch.randn(samples, classes, generator=generator)
    return Predictions(
        logits, torch.multinomial(logits.softmax(1), 1, generator=generator).squeeze(1)
    )


def bootstrap_against_a_loop() -> None:
    """The loop over replicates takes about twenty times as long, and must take at least three times as long."""
    given = draw(10_000, 10)

    def loop() -> None:
        random = np.random.default_rng(0)
        for _ in range(20):
            rows = random.integers(0, 10_000, 10_000)
            ece(Predictions(given.logits[rows], given.target[rows]))

    def ours() -> None:
        bootstrap_interval(given, replicates=1000, method="basic")

    ratio = statistics.median(seconds(loop) * 50 / seconds(ours) for _ in range(3))
    print(f"1,000 bootstrap replicates: a loop takes {ratio:.1f} times as long")
    assert ratio > 3


def many_groups_against_few() -> None:
    """Ten thousand groups as fast as ten, to a factor that a loop over groups with all their sums would exceed."""
    given = draw(20_000, 5)

    def by(groups: int) -> float:
        return seconds(lambda: calibration_by_group(given, np.arange(20_000) % groups))

    by(10)
    few, many = (statistics.median(by(groups) for _ in range(3)) for groups in (10, 10_000))
    print(f"10,000 groups take {many / few:.1f} times as long as 10")
    assert many < 60 * few


def one_batch() -> None:
    """0.4 ms when written; the bound leaves room for a slow machine, not for one image at a time."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (128 * 30, 3, 32, 32), generator=generator, dtype=torch.uint8)
    batches = Batches(
        Images(images, torch.arange(len(images)) % 10),
        mean=(0.0,) * 3,
        std=(1.0,) * 3,
        batch_size=128,
        flip=True,
        crop_padding=4,
        shuffle=True,
    )
    drawn = iter(batches)
    best = min(seconds(lambda: next(drawn)) for _ in range(30))
    print(f"a batch of 128 images, cropped and flipped: {1e3 * best:.2f} ms")
    assert best < 0.004


def recalibration_of_a_million() -> None:
    """0.6 s of processor time when written; 89 s where a likelihood that rises no more was taken for one that does."""
    generator = torch.Generator().manual_seed(0)
    log_odds = 2 * torch.randn(1_000_000, generator=generator)
    for kind, share in (
        ("a model", log_odds.sigmoid()),
        ("chance", torch.full_like(log_odds, 0.5)),
    ):
        happened = torch.bernoulli(share, generator=generator).long()
        sample = Predictions(torch.stack([0 * log_odds, log_odds], dim=1), happened)
        start = time.process_time()
        logistic_recalibration(sample)
        taken = time.process_time() - start
        print(f"logistic recalibration of a million labels of {kind}: {taken:.2f} s")
        assert taken < 3


if __name__ == "__main__":
    # two threads on busy cores wait for each other, whatever the code does
    torch.set_num_threads(1)
    bootstrap_against_a_loop()
    many_groups_against_few()
    one_batch()
    recalibration_of_a_million()
