"""How the cost of metrics and of their intervals grows with samples and classes: the figure of results/speed.md.

    python benchmarks/cost.py [--rounds 3] [--out results/speed/cost.svg]

Processor time of one thread, medians of rounds in which all works take turns. Intervals have 1,000 replicates.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch

from fedlas import Predictions, estimates, evaluate
from fedlas.metrics import ece
from fedlas.plots import LIGHT, new_axes
from fedlas.plots.theme import draw_legend, set_labels, style_axes

WORKS: dict[str, Callable[[Predictions], object]] = {
    "ECE": ece,
    "evaluate, 12 metrics": evaluate,
    "estimates of 12 metrics": estimates,
}
BY_SAMPLES = [(10**3, 10), (10**4, 10), (10**5, 10), (10**6, 10)]
BY_CLASSES = [(10**4, 2), (10**4, 10), (10**4, 100), (10**4, 1000)]


def draw(samples: int, classes: int) -> Predictions:
    """Return predictions of an over-confident model."""
    generator = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(samples, classes, generator=generator)
    return Predictions(
        logits, torch.multinomial((logits / 1.5).softmax(1), 1, generator=generator).squeeze(1)
    )


def measure(shape: tuple[int, int], rounds: int) -> dict[str, float]:
    """Return seconds of processor time by work."""
    predictions = draw(*shape)
    times: dict[str, list[float]] = {name: [] for name in WORKS}
    for number in range(rounds + 1):  # the first round warms up
        for name, work in WORKS.items():
            start = time.process_time()
            work(predictions)
            times[name] += [time.process_time() - start] if number else []
    return {name: statistics.median(each) for name, each in times.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path("results/speed/cost.svg"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    axes = new_axes(LIGHT, size=(7.2, 3.0), panels=2)
    for ax, shapes, place, label in zip(
        axes,
        (BY_SAMPLES, BY_CLASSES),
        (0, 1),
        ("samples (10 classes)", "classes (10,000 samples)"),
        strict=True,
    ):
        seconds = [measure(shape, options.rounds) for shape in shapes]
        for number, name in enumerate(WORKS):
            sizes, times = [shape[place] for shape in shapes], [each[name] for each in seconds]
            ax.loglog(sizes, times, marker="o", ms=4, label=name, **LIGHT.line(number))
        for shape, each in zip(shapes, seconds, strict=True):
            numbers = ", ".join(f"{name} {value:.4f} s" for name, value in each.items())
            print(f"{shape[0]:>9,} x {shape[1]:<5} {numbers}", flush=True)
        style_axes(ax, LIGHT)
        set_labels(ax, LIGHT, label, "seconds of one core")
    draw_legend(axes[0], LIGHT, loc="upper left")
    axes[0].figure.savefig(options.out, metadata={"Date": None})


if __name__ == "__main__":
    main()
