"""Metrics against one softmax: time and memory of ``evaluate`` and ECE, side by side in one process.

    python benchmarks/metrics.py [--repeats 9] [--threads 2] [--each]
    python benchmarks/metrics.py --stream 100_000_000      # so many samples, made up batch by batch and forgotten

Ratios are medians of pairs measured one after the other, so a machine that is busy for a while slows both halves.
Memory is the peak that the operating system saw during the first call above what the process held before it.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import gc
import statistics
import threading
import time
from collections.abc import Callable
from pathlib import Path

import torch

from fedlas import Predictions
from fedlas.metrics import METRICS, StreamingMetrics, ece, evaluate

MIB = 2**20


def seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def resident_bytes() -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1]) * 1024
    raise RuntimeError("no VmRSS in /proc/self/status: peak memory needs Linux")


def peak_bytes(work: Callable[[], object]) -> int:
    """Highest resident size during ``work`` above the size before it, sampled every millisecond."""
    gc.collect()
    # else freed memory that the C library kept would be used again, unseen
    with contextlib.suppress(AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
    before, peak, done = resident_bytes(), 0, threading.Event()

    def watch() -> None:
        nonlocal peak
        while not done.wait(0.001):
            peak = max(peak, resident_bytes())

    watcher = threading.Thread(target=watch)
    watcher.start()
    work()
    done.set()
    watcher.join()
    return max(0, peak - before)


def compare(
    name: str, work: Callable[[Predictions], object], samples: int, classes: int, repeats: int
) -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(samples, classes, generator=generator) * 3
    predictions = Predictions(
        logits, torch.multinomial(logits.softmax(1), 1, generator=generator).squeeze(1)
    )

    def bare() -> object:
        return logits.softmax(1).max(1)

    memory = peak_bytes(lambda: work(predictions))
    bare()
    pairs = [(seconds(lambda: work(predictions)), seconds(bare)) for _ in range(repeats)]
    ratio = statistics.median(ours / base for ours, base in pairs)
    ours, base = (1e3 * statistics.median(column) for column in zip(*pairs, strict=True))
    held = logits.numel() * logits.element_size()
    print(
        f"{name:<26} {samples:>9,} x {classes:<5,} {ours:8.1f} ms {base:8.1f} ms {ratio:6.2f} x "
        f"{memory / MIB:8.1f} MiB {100 * memory / held:6.1f} %"
    )


def stream(samples: int, classes: int = 10, batch: int = 2**16) -> None:
    """Peak memory and time of all streaming metrics at ``samples`` and at a hundredth of them."""
    names = [entry.name for entry in METRICS.entries() if not entry.needs and entry.name != "ace"]
    for total in (samples // 100, samples):
        metrics = StreamingMetrics(classes, metrics=names)
        generator = torch.Generator().manual_seed(0)
        spent = 0.0

        def work(
            metrics: StreamingMetrics = metrics,
            total: int = total,
            generator: torch.Generator = generator,
        ) -> None:
            nonlocal spent
            for start in range(0, total, batch):
                rows = min(batch, total - start)
                logits = torch.randn(rows, classes, generator=generator) * 3
                noise = torch.empty_like(logits).exponential_(generator=generator).log_()
                target = (logits / 1.5 - noise).argmax(1)  # drawn from softmax(logits / 1.5)
                spent += seconds(
                    lambda logits=logits, target=target: metrics.update(logits, target)
                )

        memory = peak_bytes(work)
        state = sum(
            tensor.numel() * tensor.element_size() for tensor in metrics.state_dict().values()
        )
        first = seconds(metrics.compute)
        print(
            f"{metrics.num_samples:>13,} x {classes}: {spent:8.1f} s in update, {first:5.2f} s in compute, peak memory "
            f"{memory / MIB:6.1f} MiB, state {state / MIB:.2f}, batch {4 * batch * classes / MIB:.1f}"
        )
        bounds = {name: bound for name, bound in metrics.error_bounds().items() if bound}
        print("  ", {name: round(value, 7) for name, value in metrics.compute().items()})
        print("   at most off by", {name: float(f"{bound:.1e}") for name, bound in bounds.items()})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--each", action="store_true", help="also every metric by itself")
    parser.add_argument(
        "--stream", type=int, metavar="N", help="only stream N samples through all metrics"
    )
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    if arguments.stream:
        stream(arguments.stream)
        return
    print(
        f"torch {torch.__version__}, {arguments.threads} threads; softmax = logits.softmax(1).max(1)"
    )
    print(
        f"{'':<26} {'N x C':<17} {'ours':>11} {'softmax':>11} {'ratio':>8} {'peak memory':>12} {'of logits':>8}"
    )
    for samples, classes in ((50_000, 1000), (1_000_000, 100), (1_000_000, 10)):
        compare("evaluate", evaluate, samples, classes, arguments.repeats)
        compare("ece", ece, samples, classes, arguments.repeats)
    if arguments.each:
        for entry in METRICS.entries():
            if not entry.needs:
                repeats = arguments.repeats if entry.default else min(3, arguments.repeats)
                compare(entry.name, entry.value, 50_000, 1000, repeats)


if __name__ == "__main__":
    main()
