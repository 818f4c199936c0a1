"""Two processes on one run against one: is it the same step, and how much faster?

Gradients: of one step of a small transformer in float64, as the largest difference to the gradient of the whole batch
in one process (a plain forward and backward pass), over the largest gradient. Throughput: epochs of
`fedlas.lab.train.loop` on one process while the other waits, and on both, one after the other; medians. Each process
has one thread, and both talk through gloo. On a busy machine read the ratio of processor times, which says what a
process has to do and not how long it waits.

    python benchmarks/scaling.py [--passes 15] [--steps 4]
"""

import argparse
import os
import socket
import statistics
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torchvision.models import VisionTransformer

from fedlas import Objective
from fedlas._core.ranks import new_accelerator
from fedlas.lab.data import Batches, Images
from fedlas.lab.models import build_model
from fedlas.lab.train.config import OptimizerConfig, ScheduleConfig, TrainConfig
from fedlas.lab.train.engine import Engine
from fedlas.lab.train.job import TrainingJob
from fedlas.lab.train.log import TrainingProgress
from fedlas.lab.train.loop import _Training
from fedlas.losses import LOSSES

BATCH, CLASSES = 128, 10
ALONE = SimpleNamespace(
    num_processes=1, is_main_process=True, device=torch.device("cpu"), backward=torch.Tensor.backward,
    prepare=lambda *parts: parts if len(parts) > 1 else parts[0], reduce=lambda value, **_: value,
)  # fmt: skip
"""An accelerator of one process, where there are two."""


def transformer(loss: str) -> Objective:
    torch.manual_seed(0)
    model = VisionTransformer(
        image_size=16,
        patch_size=4,
        num_layers=2,
        num_heads=4,
        hidden_dim=64,
        mlp_dim=128,
        num_classes=CLASSES,
    )
    return Objective(model, LOSSES.build(loss, num_classes=CLASSES)).double()


def batch_of(rank: int = 0, ranks: int = 1):
    """This rank's slice of a batch whose size neither 2 nor 4 divides, so that slices and parts differ."""
    random = torch.Generator().manual_seed(1)
    inputs = torch.randn(BATCH - 1, 3, 16, 16, generator=random, dtype=torch.float64)
    target = torch.randint(0, CLASSES, (BATCH - 1,), generator=random)
    mine = slice((BATCH - 1) * rank // ranks, (BATCH - 1) * (rank + 1) // ranks)
    return inputs[mine], target[mine], None


def gradient_of_whole_batch(loss: str) -> dict[str, torch.Tensor]:
    objective = transformer(loss).train()
    objective(*batch_of()[:2])[0].backward()
    return {name: parameter.grad for name, parameter in objective.named_parameters()}


def gradient_of_step(loss: str, accelerator, **config) -> dict[str, torch.Tensor]:
    """What a step with learning rate 1 subtracts."""
    objective = transformer(loss)
    before = {name: parameter.detach().clone() for name, parameter in objective.named_parameters()}
    engine = Engine(objective, TrainConfig(**config), accelerator)
    engine.start(torch.optim.SGD(objective.parameters(), lr=1.0))
    engine.wrapped.train()
    parts = list(engine.parts(*batch_of(accelerator.process_index, accelerator.num_processes)))
    for number, (inputs, target, index, share) in enumerate(parts, start=1):
        with engine.gradient_sync(last=number == len(parts)):
            engine.backward(engine.wrapped(inputs, target, index=index)[0], share)
    engine.step(None)
    after = objective.state_dict()
    return {name: value - after[name] for name, value in before.items()}


def difference(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> float:
    largest = max(float(gradient.abs().max()) for gradient in expected.values())
    return (
        max(float((found[name] - gradient).abs().max()) for name, gradient in expected.items())
        / largest
    )


def loop(loss: str, accelerator, steps: int, rank: int, ranks: int):
    """An epoch of the training loop, ready to be run again and again."""
    torch.manual_seed(0)
    model = build_model("resnet8", num_classes=CLASSES, in_channels=1, image_size=28, width=16)
    objective = Objective(model, LOSSES.build(loss, num_classes=CLASSES))
    pixels = torch.randint(0, 256, (steps * BATCH, 1, 28, 28), dtype=torch.uint8)
    images = Images(pixels, torch.randint(0, CLASSES, (steps * BATCH,)))
    batches = Batches(
        images,
        mean=(0.3,),
        std=(0.3,),
        batch_size=BATCH,
        flip=True,
        shuffle=True,
        rank=rank,
        world_size=ranks,
    )
    folder = Path(tempfile.mkdtemp())  # no run is written, but a log is looked for
    job = TrainingJob(
        objective, batches, batches, folder, TrainConfig(batch_size=BATCH), OptimizerConfig(), ScheduleConfig(), {},
        accelerator,
    )  # fmt: skip
    training = _Training(job)

    def epoch() -> None:
        with TrainingProgress("benchmark", epochs=1000, steps=steps, quiet=True) as bar:
            training._train_epoch(1, bar)

    return epoch


def worker(rank: int, port: int, passes: int, steps: int) -> None:
    torch.set_num_threads(1)
    whole = {loss: gradient_of_whole_batch(loss) for loss in ("ce", "fedlas")}
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2"}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "CUDA_VISIBLE_DEVICES": ""}
    accelerator = new_accelerator()
    say = print if rank == 0 else lambda *_: None
    say(
        f"gradient of a step, transformer of 2 blocks, batch {BATCH - 1}: largest difference to one process's"
    )
    for name, loss, config in (
        ("2 processes, each with a copy (DDP)", "ce", {}),
        ("2 processes, each with a copy (DDP)", "fedlas", {}),
        ("2 processes (DDP), 4 parts each", "ce", {"accumulate": 4}),
    ):
        say(
            f"  {name:38} {loss:8} {difference(gradient_of_step(loss, accelerator, **config), whole[loss]):.1e}"
        )
    say(
        f"throughput, resnet8 of width 16, 28 x 28, batch {BATCH}, a thread a process, torch {torch.__version__}"
    )
    kinds = {"one": loop("ce", ALONE, steps, 0, 1) if rank == 0 else None}
    kinds |= {f"two, {loss}": loop(loss, accelerator, steps, rank, 2) for loss in ("ce", "fedlas")}
    times: dict[str, list[float]] = {kind: [] for kind in kinds}
    cpu: dict[str, list[float]] = {kind: [] for kind in kinds}
    for number in range(passes + 1):
        for kind, epoch in list(kinds.items())[:: 1 if number % 2 else -1]:
            dist.barrier()
            started, busy = time.perf_counter(), time.process_time()
            if epoch is not None:
                epoch()
            if number:  # the first pass of each warms up
                times[kind].append((time.perf_counter() - started) / steps)
                cpu[kind].append(time.process_time() - busy)
    rates = {kind: BATCH / statistics.median(each) for kind, each in times.items()}
    say(f"  1 process, ce        {rates['one']:8.0f} images/s")
    for loss in ("ce", "fedlas"):
        rate, ratio = (
            rates[f"two, {loss}"],
            statistics.median(cpu[f"two, {loss}"]) / statistics.median(cpu["one"] or [1]),
        )
        say(
            f"  2 processes, {loss:7} {rate:8.0f} images/s, {rate / rates['one']:.2f} times one process with ce; "
            f"processor time of each {ratio:.2f} times (0.5: nothing but half the work)"
        )
    if rank == 0:
        load = f"load {os.getloadavg()[0]:.1f}, " if hasattr(os, "getloadavg") else ""
        print(f"  medians of {passes} passes of {steps} steps; {load}{os.cpu_count()} cores")
    dist.barrier()
    dist.destroy_process_group()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--passes", type=int, default=15)
    parser.add_argument("--steps", type=int, default=4)
    arguments = parser.parse_args()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    mp.spawn(worker, args=(port, arguments.passes, arguments.steps), nprocs=2)


if __name__ == "__main__":
    main()
