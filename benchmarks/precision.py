"""Time of a training step by precision and memory layout, over that of float32 with channels first.

All kinds of steps run in one process, one after the other in each round, and medians over rounds of the processor time
are compared. Set OMP_NUM_THREADS=1: two threads that wait for each other count as working. `ONEDNN_MAX_CPU_ISA=AVX2
ATEN_CPU_CAPABILITY=avx2` makes the processor one without bf16.

    python benchmarks/precision.py [--rounds 12] [--slices]
"""

import argparse
import statistics
import time

import torch
import torch.nn.functional as F
from torch import nn

from fedlas.lab.models import build_model
from fedlas.lab.models.residual import BasicBlock
from fedlas.lab.train.engine import native_precision

CASES = [
    ("resnet8", {"width": 16}, 1, 28, 128),
    ("resnet8", {"width": 32}, 3, 32, 128),
    ("resnet20", {"width": 16}, 3, 32, 128),
    ("resnet8", {"width": 16}, 1, 8, 64),
    ("mlp", {}, 1, 28, 128),
]
"""Model, options, channels, pixels and batch."""


def slicing(block: BasicBlock, x: torch.Tensor) -> torch.Tensor:
    """The forward pass of a block as it was before its shortcut pooled."""
    residual = block.bn2(block.conv2(F.relu(block.bn1(block.conv1(x)))))
    if block.stride > 1 or block.new_channels:
        x = F.pad(x[:, :, :: block.stride, :: block.stride], (0, 0, 0, 0, 0, block.new_channels))
    return F.relu(residual + x)


class Steps:
    """Steps of one kind, each timed."""

    def __init__(self, case: tuple, precision: str, *, last: bool) -> None:
        name, options, channels, size, batch = case
        torch.manual_seed(0)
        self.precision = precision
        self.layout = torch.channels_last if last else torch.contiguous_format
        self.model = build_model(
            name, num_classes=10, in_channels=channels, image_size=size, **options
        )
        self.model.to(memory_format=self.layout)
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.01, momentum=0.9)
        self.inputs, self.target = (
            torch.randn(batch, channels, size, size),
            torch.randint(0, 10, (batch,)),
        )
        self.seconds: list[float] = []

    def step(self) -> None:
        started = time.process_time()
        inputs = self.inputs.contiguous(memory_format=self.layout)
        with torch.autocast("cpu", torch.bfloat16, enabled=self.precision == "bf16"):
            logits = self.model(inputs)
        nn.functional.cross_entropy(logits.float(), self.target).backward()
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.seconds.append(time.process_time() - started)

    @property
    def quartiles(self) -> list[float]:
        """Quartiles of the seconds, without those of the first two rounds."""
        return statistics.quantiles(self.seconds[2:], n=4)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument(
        "--slices", action="store_true", help="shortcuts that slice, as they did before"
    )
    arguments = parser.parse_args()
    if arguments.slices:
        BasicBlock.forward = slicing
    precision, why = native_precision(torch.device("cpu"))
    print(
        f"auto is {precision}: {why}; {torch.get_num_threads()} threads, torch {torch.__version__}"
    )
    for case in CASES:
        kinds = {
            (p, last): Steps(case, p, last=last) for p in ("fp32", "bf16") for last in (False, True)
        }
        for _ in range(arguments.rounds + 2):
            for steps in kinds.values():
                steps.step()
        base = kinds["fp32", False].quartiles[1]
        print(f"{case[0]} {case[1]}, {case[3]} pixels, batch {case[4]}: fp32 {1000 * base:.1f} ms")
        for (kind, last), steps in kinds.items():
            low, middle, high = (value / base for value in steps.quartiles)
            print(
                f"  {kind} channels {'last ' if last else 'first'}  {middle:.2f}  (quartiles {low:.2f} to {high:.2f})"
            )


if __name__ == "__main__":
    main()
