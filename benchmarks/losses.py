"""Forward and backward of losses, over the same formula written straight down in torch, and over ``F.cross_entropy``.

    OMP_NUM_THREADS=1 python benchmarks/losses.py [--losses NAME ...|all] [--sizes 128x10 ...] [--compile] [--json FILE]

All losses take turns in one process; a ratio is one of 2 % quantiles of single calls. ``all`` times every registered
loss at 256x1000, over ``F.cross_entropy``. ``fedlas-top`` is FedLAS with ``gate_top=8``.
``ratios()`` returns {name: ratio}, where a name is "LOSS SIZE over PEER".
"""

import argparse
import ctypes
import json
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from fedlas.losses import LOSSES

SIZES = ["128x10", "128x100", "256x1000", "1024x1000"]
WIDTH = 1024  # of the features; some losses need one dimension for each class


class StraightFedLAS(torch.nn.Module):
    """FedLAS as its formulas read, with the gate of the paper."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        width = max(num_classes // 2, 1)
        self.hidden, self.out = torch.nn.Linear(num_classes, width), torch.nn.Linear(width, 2)
        self.mean, self.std = torch.tensor(20.0), torch.tensor(100.0)

    def forward(self, logits: Tensor, target: Tensor, features: Tensor) -> Tensor:
        norms = features.detach().abs().sum(dim=1)
        self.mean = 0.95 * norms.mean() + 0.05 * self.mean
        self.std = 0.95 * norms.std() + 0.05 * self.std
        two = F.softmax(self.out(F.leaky_relu(self.hidden(logits.detach()))), dim=1)
        u = two[:, 1] - two[:, 0]
        psi = u + (torch.sign(u) - u).detach()
        alpha = 2 * 0.05 * torch.sigmoid(4 * psi * (norms - self.mean) / (self.std + 1e-3))
        log_probs = F.log_softmax(logits, dim=1)
        hit = log_probs.gather(1, target[:, None]).squeeze(1)
        return -((1 - alpha) * hit + alpha * log_probs.mean(dim=1)).mean()


def mbls(logits: Tensor, target: Tensor) -> Tensor:
    gaps = F.relu(logits.amax(dim=1, keepdim=True) - logits - 10)
    return F.cross_entropy(logits, target) + 0.1 * gaps.mean()


def focal(logits: Tensor, target: Tensor) -> Tensor:
    nll = F.cross_entropy(logits, target, reduction="none")
    return ((1 - (-nll).exp()) ** 3 * nll).mean()


def maxsup(logits: Tensor, target: Tensor) -> Tensor:
    return F.cross_entropy(logits, target) + 0.1 * (logits.amax(dim=1) - logits.mean(dim=1)).mean()


def entropy_penalty(logits: Tensor, target: Tensor) -> Tensor:
    log_probs = F.log_softmax(logits, dim=1)
    return F.nll_loss(log_probs, target) + 0.1 * (log_probs.exp() * log_probs).sum(dim=1).mean()


def dca(logits: Tensor, target: Tensor) -> Tensor:
    confidence, top = logits.softmax(dim=1).max(dim=1)
    return (
        F.cross_entropy(logits, target) + (confidence.mean() - (top == target).float().mean()).abs()
    )


STRAIGHT: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "ce": F.cross_entropy,
    "ls": lambda logits, target: F.cross_entropy(logits, target, label_smoothing=0.05),
    "mbls": mbls,
    "focal": focal,
    "maxsup": maxsup,
    "entropy-penalty": entropy_penalty,
    "dca": dca,
}


def contestants(
    names: list[str], samples: int, classes: int, compiled: bool
) -> dict[str, Callable[[], Tensor]]:
    """Calls by name: each loss, its straight form under ``NAME by hand``, and ``F.cross_entropy``."""
    generator = torch.Generator().manual_seed(0)
    torch.manual_seed(0)
    logits = torch.randn(samples, classes, generator=generator, requires_grad=True)
    target = torch.randint(classes, (samples,), generator=generator)
    extras = {
        "features": torch.randn(samples, WIDTH, generator=generator).relu(),
        "index": torch.arange(samples),
        "mixed": torch.randn(samples, 1, classes, generator=generator),
        "mixed_share": torch.rand(samples, 1, generator=generator),
        # rows of length about 1
        "head_weight": torch.randn(classes, WIDTH, generator=generator) / WIDTH**0.5,
    }
    calls: dict[str, Callable[[], Tensor]] = {
        "F.cross_entropy": lambda: F.cross_entropy(logits, target)
    }
    for name in names:
        registered, options = ("fedlas", {"gate_top": 8}) if name == "fedlas-top" else (name, {})
        criterion = LOSSES.build(
            registered, options, num_classes=classes, num_samples=samples, num_epochs=100
        )
        needs = {key: value for key, value in extras.items() if key in criterion.needs}
        calls[name] = lambda criterion=criterion, needs=needs: criterion(logits, target, **needs)
        if name == "fedlas" and classes <= 1000:
            by_hand = StraightFedLAS(classes)
            calls[f"{name} by hand"] = lambda by_hand=by_hand: by_hand(
                logits, target, extras["features"]
            )
        elif name in STRAIGHT:
            calls[f"{name} by hand"] = lambda by_hand=STRAIGHT[name]: by_hand(logits, target)
        if compiled:
            fast = torch.compile(criterion, fullgraph=True)
            calls[f"{name} compiled"] = lambda fast=fast, needs=needs: fast(logits, target, **needs)
    if compiled:
        plain = torch.compile(F.cross_entropy)
        calls["F.cross_entropy compiled"] = lambda: plain(logits, target)
    return calls


def keep_freed_memory() -> None:
    """Tell glibc to keep freed memory, so that no contestant pays for the pages that another one returned.

    At 1024 x 1000 the pages of one (N, C) array cost more than a loss, and by chance fall on one of two equal calls.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        for option in (-1, -3):  # M_TRIM_THRESHOLD, M_MMAP_THRESHOLD
            mallopt(option, 1 << 30)


def seconds(calls: dict[str, Callable[[], Tensor]], rounds: int, turn: int = 8) -> dict[str, float]:
    """Seconds of one forward and backward: the 2 % quantile of single calls, in rounds where all take turns.

    An interruption falls on few of the calls, so other programs hardly move this quantile; they move a mean, and the
    time of a turn, by a factor of two.
    """
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            for _ in range(turn):
                started = time.perf_counter()
                call().backward()
                times[name].append(time.perf_counter() - started)
    return {name: sorted(values)[len(values) // 50] for name, values in times.items()}


def ratios(
    names: list[str], sizes: list[str], rounds: int, compiled: bool = False
) -> dict[str, float]:
    """Ratios by "LOSS SIZE over PEER": over the straight form where there is one, and over ``F.cross_entropy``."""
    found = {}
    for size in sizes:
        samples, classes = map(int, size.split("x"))
        torch._dynamo.reset() if compiled else None
        times = seconds(contestants(names, samples, classes, compiled), rounds)
        for name in names:
            found[f"{name} {size} over F.cross_entropy"] = times[name] / times["F.cross_entropy"]
            if (peer := f"{name} by hand") in times:
                found[f"{name} {size} over by hand"] = times[name] / times[peer]
            if compiled:
                base = times["F.cross_entropy compiled"]
                found[f"{name} {size} compiled over F.cross_entropy compiled"] = (
                    times[f"{name} compiled"] / base
                )
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--losses", nargs="+", default=[*STRAIGHT, "fedlas", "fedlas-top"])
    parser.add_argument(
        "--sizes", nargs="+", default=SIZES, help="batch x classes, such as 256x32000"
    )
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument(
        "--compile", action="store_true", help="also compiled (needs a C++ compiler)"
    )
    parser.add_argument("--json", type=Path, help="write {name: ratio}")
    options = parser.parse_args()
    torch.set_num_threads(1)
    keep_freed_memory()
    names, sizes = (
        (list(LOSSES), ["256x1000"])
        if options.losses == ["all"]
        else (options.losses, options.sizes)
    )
    found = ratios(names, sizes, options.rounds, options.compile)
    print(f"torch {torch.__version__}, {torch.backends.cpu.get_cpu_capability()}, one thread")
    for name, ratio in found.items():
        print(f"{name:48} {ratio:6.2f}")
    if options.json:
        options.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
