"""Peak memory and time of a fit in constant memory, on the pixels of made-up images.

    python benchmarks/stream_fit.py temperature --pixels 2_000_000
    python benchmarks/stream_fit.py temperature --pixels 100_000_000      # the same memory

Each image has a million pixels, made in each pass from one random image, which is twice too sure.
"""

from __future__ import annotations

import argparse
import resource
import time
from collections.abc import Iterator

import torch
from torch import Tensor

from fedlas.calibrators import TemperatureScaling, VectorScaling

SIDE = 1000
METHODS = {"temperature": TemperatureScaling, "vector": lambda: VectorScaling(num_folds=None)}


def peak() -> int:
    """MiB that the process has held at most, on Linux."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


class Images:
    """Logits and labels of images, one at a time."""

    def __init__(self, count: int, classes: int) -> None:
        self.count, self.passes = count, 0
        generator = torch.Generator().manual_seed(0)
        self.logits = 4 * torch.randn(1, classes, SIDE, SIDE, generator=generator)
        probs = (self.logits / 2).softmax(1).movedim(1, -1).reshape(-1, classes)
        self.target = torch.multinomial(probs, 1, generator=generator).view(1, SIDE, SIDE)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        self.passes += 1
        print(f"pass {self.passes}: {peak()} MiB", flush=True)
        for number in range(self.count):
            yield self.logits.roll(number, 2), self.target.roll(number, 1)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("method", choices=METHODS)
    parser.add_argument("--pixels", type=int, default=2 * SIDE**2)
    parser.add_argument("--classes", type=int, default=19)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    images = Images(arguments.pixels // SIDE**2, arguments.classes)
    before, start = peak(), time.perf_counter()
    fitted = METHODS[arguments.method]().fit_stream(images)
    print(
        f"{fitted}: {images.passes} passes, {time.perf_counter() - start:.0f} s, {before} MiB before, {peak()} at most"
    )
