"""A training step with a loss over one with cross-entropy: processor time, medians, taking turns in one process.

    OMP_NUM_THREADS=1 python benchmarks/loss_in_step.py [--losses NAME ...] [--rounds 40] [--model resnet8] [--size 28]

A step is forward, loss, backward and optimizer on a batch of 128 that is in memory. The memory is what the loss keeps
in buffers for 50,000 samples.
"""

import argparse
import statistics
import time

import torch

from fedlas import Objective
from fedlas.lab.models import build_model
from fedlas.lab.train.config import OptimizerConfig
from fedlas.lab.train.engine import build_optimizer
from fedlas.losses import LOSSES

BATCH, SAMPLES, CLASSES = 128, 50_000, 10
DEFAULT = [
    "ls",
    "fedlas",
    "bsce-gra",
    "ps-kd",
    "own-average",
    "bsd",
    "cross-fitted",
    "controlled",
    "tempered-past",
]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--losses", nargs="+", default=DEFAULT)
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--model", default="resnet8")
    parser.add_argument("--size", type=int, default=28)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.manual_seed(options.seed)
    images = torch.randn(BATCH, 1, options.size, options.size)
    target, index = torch.randint(CLASSES, (BATCH,)), torch.randperm(SAMPLES)[:BATCH]
    steps, memory = {}, {}
    for name in ["ce", *options.losses]:
        model = build_model(
            options.model, num_classes=CLASSES, in_channels=1, image_size=options.size
        )
        offered = {"num_classes": CLASSES, "num_samples": SAMPLES, "num_epochs": 30}
        extra = {"base": "own-average"} if name == "controlled" else {}
        objective = Objective(model, LOSSES.build(name, extra, **offered)).train()
        steps[name] = (objective, build_optimizer(objective, OptimizerConfig()))
        memory[name] = sum(b.numel() * b.element_size() for b in objective.criterion.buffers())
    times: dict[str, list[float]] = {name: [] for name in steps}
    for number in range(options.rounds + 1):
        for name in list(steps)[:: 1 if number % 2 else -1]:
            objective, optimizer = steps[name]
            started = time.process_time()
            loss, _ = objective(images, target, index=index)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            if number:  # the first round warms up
                times[name].append(time.process_time() - started)
    print(
        f"{options.model}, {options.size} x {options.size}, batch {BATCH}, torch {torch.__version__}"
    )
    print("loss           step / that of ce (quartiles)   kept for 50,000 samples")
    for name in options.losses:
        ratios = [own / other for own, other in zip(times[name], times["ce"], strict=True)]
        low, middle, high = statistics.quantiles(ratios, n=4)
        print(
            f"{name:14} {middle:.3f} ({low:.3f} to {high:.3f})          {memory[name] / 1e6:.2f} MB"
        )


if __name__ == "__main__":
    main()
