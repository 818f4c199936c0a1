"""Step time of the training loop over that of a bare step, and with FedLAS over that with cross-entropy.

Both run in one process, a pass of one after a pass of the other, and medians of the passes are compared. The loop's
pass is a whole epoch of `fedlas.lab.train.loop`: it makes and normalizes its batches, counts hits and updates
the progress bar. On a busy machine, set OMP_NUM_THREADS=1 and read the ratio of processor times. With ``--models``, one
step of an Objective with FedLAS takes turns with one of `F.cross_entropy` on the bare model.

    python benchmarks/training_step.py [--passes 30] [--steps 4]
    python benchmarks/training_step.py --models resnet8 resnet20 airnet resnet50 vit-s [--passes 30]
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from accelerate import Accelerator
from torch import Tensor, nn

from fedlas import Objective
from fedlas.lab.data import Batches, Images
from fedlas.lab.models import build_model
from fedlas.lab.train.config import OptimizerConfig, ScheduleConfig, TrainConfig
from fedlas.lab.train.engine import build_optimizer
from fedlas.lab.train.job import TrainingJob
from fedlas.lab.train.log import TrainingProgress
from fedlas.lab.train.loop import _Training
from fedlas.losses import FedLAS

BATCH = 128


def parts(seed: int = 0):
    torch.manual_seed(seed)
    objective = Objective(
        build_model("resnet8", num_classes=10, in_channels=1, image_size=28, width=16),
        nn.CrossEntropyLoss(),
    )
    return objective, build_optimizer(objective, OptimizerConfig())


def vit_small() -> nn.Module:
    """Return ViT-S/16 of 22 million parameters for 224 pixels."""
    from torchvision.models import VisionTransformer

    return VisionTransformer(224, 16, 12, 6, 384, 1536, num_classes=1000)


MODELS = {
    "resnet8": (partial(build_model, "resnet8", num_classes=10, in_channels=3), (128, 3, 32, 32), 10),
    "resnet20": (partial(build_model, "resnet20", num_classes=100, in_channels=3), (128, 3, 32, 32), 100),
    "airnet": (
        partial(build_model, "airnet", num_classes=10, in_channels=3, widths=[64, 192, 192]), (256, 3, 32, 32), 10
    ),
    "resnet50": (
        partial(build_model, "resnet50", num_classes=1000, in_channels=3, stem="imagenet"), (32, 3, 224, 224), 1000
    ),
    "vit-s": (vit_small, (32, 3, 224, 224), 1000),
}  # fmt: skip
"""Name: builder, shape of a batch, number of classes."""


def share_of_the_loss(name: str, passes: int) -> None:
    """Print the processor time of a step with FedLAS over that with cross-entropy, medians of steps that take turns."""
    build, shape, classes = MODELS[name]
    torch.manual_seed(0)
    inputs, target = torch.randn(shape), torch.randint(classes, shape[:1])
    models = [build(), build()]
    ours = Objective(models[0], FedLAS(num_classes=classes, alpha=0.1, beta=4.0))
    works: dict[str, Callable[[], Tensor]] = {
        "fedlas": lambda: ours(inputs, target)[0],
        "ce": lambda: F.cross_entropy(models[1](inputs), target),
    }
    optimizers = {
        "fedlas": torch.optim.SGD(ours.parameters(), lr=1e-3, momentum=0.9),
        "ce": torch.optim.SGD(models[1].parameters(), lr=1e-3, momentum=0.9),
    }
    times: dict[str, list[float]] = {"fedlas": [], "ce": []}
    for number in range(passes + 1):
        for key in sorted(works, reverse=bool(number % 2)):
            started = time.process_time()
            works[key]().backward()
            optimizers[key].step()
            optimizers[key].zero_grad()
            if number:  # the first step of each warms up
                times[key].append(time.process_time() - started)
    pairs = sorted(a / b for a, b in zip(times["fedlas"], times["ce"], strict=True))
    milliseconds = statistics.median(times["ce"]) * 1000
    print(
        f"{name} {shape}, {classes} classes: cross-entropy {milliseconds:.1f} ms, FedLAS over it "
        f"{statistics.median(times['fedlas']) * 1000 / milliseconds:.3f}; quartiles of pairs "
        f"{pairs[len(pairs) // 4]:.3f} to {pairs[3 * len(pairs) // 4]:.3f}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--passes", type=int, default=30)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--models", nargs="+", choices=MODELS, default=())
    arguments = parser.parse_args()
    steps = arguments.steps
    for name in arguments.models:
        share_of_the_loss(name, arguments.passes)
    if arguments.models:
        return
    device = Accelerator(mixed_precision="no").device
    pixels = torch.randint(0, 256, (steps * BATCH, 1, 28, 28), dtype=torch.uint8)
    images = Images(pixels, torch.randint(0, 10, (steps * BATCH,))).to(device)
    batches = Batches(images, mean=(0.3,), std=(0.3,), batch_size=BATCH, flip=True, shuffle=True)
    inputs, target, _ = next(iter(batches))
    print(
        f"resnet8, width 16, 28 x 28, batch {BATCH}, {device}, "
        f"{torch.get_num_threads()} threads, torch {torch.__version__}"
    )
    for precision in ("fp32", "bf16"):
        bare, bare_optimizer = parts()
        # as the bare step
        config = TrainConfig(precision=precision, channels_last=False, batch_size=BATCH)
        folder = Path(tempfile.mkdtemp())  # no run is written, but a log is looked for
        job = TrainingJob(
            parts()[0], batches, batches, folder, config, OptimizerConfig(), ScheduleConfig(), {}
        )
        training = _Training(job)

        def bare_pass(model=bare.model, optimizer=bare_optimizer, precision=precision) -> None:
            model.train()
            for _ in range(steps):
                with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
                    loss = F.cross_entropy(model(inputs), target)
                loss.backward()
                optimizer.step()
                optimizer.zero_grad()

        def our_pass(training=training) -> None:
            with TrainingProgress("benchmark", epochs=1000, steps=steps) as bar:
                training._train_epoch(1, bar)

        times: dict[str, list[float]] = {"bare": [], "loop": []}
        cpu: dict[str, list[float]] = {"bare": [], "loop": []}
        for number in range(arguments.passes + 1):
            for name, run in (
                (("bare", bare_pass), ("loop", our_pass))
                if number % 2
                else (("loop", our_pass), ("bare", bare_pass))
            ):
                started, busy = time.perf_counter(), time.process_time()
                run()
                if device.type == "cuda":
                    torch.cuda.synchronize()
                if number:  # the first pass of each warms up
                    times[name].append((time.perf_counter() - started) / steps * 1000)
                    cpu[name].append(time.process_time() - busy)
        bare_ms, loop_ms = (statistics.median(times[name]) for name in ("bare", "loop"))
        ratio, cpu_ratio = (
            loop_ms / bare_ms,
            statistics.median(cpu["loop"]) / statistics.median(cpu["bare"]),
        )
        print(
            f"{precision}  bare {bare_ms:.2f} ms  loop {loop_ms:.2f} ms  ratio {ratio:.3f}", end=""
        )
        print(f"  (processor time {cpu_ratio:.3f})")


if __name__ == "__main__":
    main()
