"""The first steps of ACLS on CIFAR-100 with airnet: what makes it diverge, and what stops it.

    python benchmarks/acls_start.py cifar100.npz [--steps 41]

The network, batches of 256 and the rate of the first epoch (0.08) are those of ``results/cifar100-45000``, seed 0.
A row
is a variant: cross-entropy, ``alpha`` times the penalty, the mean distance of the largest from the smallest logit, the
norm of the gradient and the accuracy of a batch, at some steps.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from fedlas.lab.models.airnet import AirNet
from fedlas.losses.acls import adaptive_penalty

ALPHA, MARGIN, RATE = 0.1, 6.0, 0.08
SHOWN = (0, 1, 2, 3, 5, 10, 20, 40)
VARIANTS: dict[str, dict[str, float | str]] = {
    "cross-entropy": {"lambda1": 0.0, "lambda2": 0.0},
    "acls": {},
    "acls, arg-max term alone": {"lambda2": 0.0},
    "acls, other term alone": {"lambda1": 0.0},
    "acls, variant reference": {"variant": "reference"},
    "acls, features / 9": {"scale": 1 / 9},
    "acls, gradients clipped at 2": {"clip": 2.0},
    "acls, penalty rises over an epoch": {"warm": 176},
    "acls, rate rises over 20 steps": {"ramp": 20},
}


def main() -> None:
    """Print the rows."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path)
    parser.add_argument("--steps", type=int, default=41)
    args = parser.parse_args()
    torch.set_num_threads(1)
    with np.load(args.data) as data:
        images = torch.from_numpy(data["train_images"][:45000])
        target = torch.from_numpy(data["train_target"][:45000]).long()
    mean = torch.tensor([0.5071, 0.4865, 0.4409])
    std = torch.tensor([0.2673, 0.2564, 0.2762])

    def batch(rows: torch.Tensor) -> torch.Tensor:
        pixels = ((images[rows].float() / 255 - mean) / std).permute(0, 3, 1, 2).contiguous()
        mirrored = torch.rand(len(rows)) < 0.5
        pixels[mirrored] = pixels[mirrored].flip(3)
        return pixels

    for name, options in VARIANTS.items():
        steps(name, batch, target, args.steps, **options)


def steps(
    name,
    batch,
    target,
    count,
    *,
    lambda1=1.0,
    lambda2=0.1,
    variant="paper",
    scale=1.0,
    clip=0.0,
    warm=0,
    ramp=0,
):
    """Train for some steps and print some of them."""
    torch.manual_seed(0)
    model = AirNet(100, 3, image_size=32, widths=[32, 128, 128], feature_scale=scale)
    model.fit_inputs(batch(torch.arange(5000)))
    optimizer = torch.optim.SGD(
        model.parameters(), lr=RATE, momentum=0.9, nesterov=True, weight_decay=5e-4
    )
    for step in range(count):
        rows = torch.randint(len(target), (256,))
        logits = model(batch(rows))
        penalty = adaptive_penalty(
            logits, margin=MARGIN, lambda1=lambda1, lambda2=lambda2, variant=variant
        ).mean()
        penalty = penalty * ALPHA * (min(1.0, (step + 1) / warm) if warm else 1.0)
        loss = F.cross_entropy(logits, target[rows])
        optimizer.zero_grad()
        (loss + penalty).backward()
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), clip or float("inf"))
        optimizer.param_groups[0]["lr"] = RATE * (min(1.0, (step + 1) / ramp) if ramp else 1.0)
        optimizer.step()
        if step in SHOWN or step == count - 1:
            gap = float((logits.amax(1) - logits.amin(1)).mean())
            right = float((logits.argmax(1) == target[rows]).double().mean())
            print(
                f"{name:34} step {step:3}  ce {float(loss):8.2f}  penalty {float(penalty):10.2f}  "
                f"gap {gap:8.2f}  |gradient| {float(norm):9.2f}  accuracy {100 * right:5.1f} %",
                flush=True,
            )


if __name__ == "__main__":
    main()
