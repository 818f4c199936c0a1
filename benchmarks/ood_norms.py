"""OOD detection by feature norms and their peers: the tables of ``results/ood-norms.md``.

    python benchmarks/ood_norms.py --real FOLDER --data FOLDER --kept FOLDER

``--real`` holds ``resnetN-cifar10.safetensors``, the weights of github.com/akamaster/pytorch_resnet_cifar10, and
``resnetN-cifar10-test.npz`` with ``logits``, ``features`` and ``target`` of CIFAR-10's test images. ``--data`` holds
``cifar10.npz`` and ``cifar100.npz``, the former in the same order. What the networks say of each set is kept in
``--kept``, so that a second call measures at once.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from statistics import fmean, stdev

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.nn.functional import pad, relu

from fedlas import Predictions
from fedlas.lab.data.sets.torchvision_sets import load_cifar10, load_cifar100
from fedlas.lab.data.shift import Corruption
from fedlas.lab.models.residual import BasicBlock, SmallResNet
from fedlas.zoo.ood import (
    Outputs,
    Reference,
    compute_score,
    detection_metrics,
    negative_aware_norm_score,
)

# numba, which some packages import, would take the file coverage.py next to this one for the package.
sys.path[:] = [
    place for place in sys.path if Path(place or ".").resolve() != Path(__file__).resolve().parent
]

DEPTHS, SEEDS = (20, 56), (0, 1, 2)
SETS = ("cifar100", "gaussian-noise-3", "defocus-blur-3")
SCORES = ("knn", "mahalanobis", "feature-norm", "negative-aware-norm", "msp")
MAP = "negative-aware-norm, map"
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class PublishedBlock(BasicBlock):
    """Its shortcut puts half of the new channels before the old ones."""

    def forward(self, x: Tensor) -> Tensor:
        residual = self.bn2(self.conv2(relu(self.bn1(self.conv1(x)))))
        half = self.new_channels // 2
        return relu(
            residual + pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, half, half))
        )


def network(real: Path, depth: int) -> SmallResNet:
    """The network with its published weights."""
    model = SmallResNet(10, 3, blocks=(depth - 2) // 6)
    for module in model.modules():
        if isinstance(module, BasicBlock):
            module.__class__ = PublishedBlock
    weights = load_file(real / f"resnet{depth}-cifar10.safetensors")
    names = {"layer1": "stages.0", "layer2": "stages.1", "layer3": "stages.2", "linear": "fc"}
    model.load_state_dict(
        {
            ".".join([names.get(n.split(".")[0], n.split(".")[0]), *n.split(".")[1:]]): w
            for n, w in weights.items()
        }
    )
    return model.eval()


@torch.inference_mode()
def said(model: SmallResNet, images: Tensor) -> dict[str, np.ndarray]:
    """Logits, pooled features and the negative-aware norm of the map before the pool, of uint8 images."""
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (MEAN, STD))
    found: dict[str, list[Tensor]] = {"logits": [], "features": [], "map": []}
    for part in images.split(100):
        maps = model.stages(relu(model.bn1(model.conv1((part / 255 - mean) / std))))
        features = model.pool(maps)
        found["features"].append(features)
        found["logits"].append(model.fc(features))
        found["map"].append(negative_aware_norm_score(maps.flatten(1)))
    return {name: torch.cat(parts).numpy() for name, parts in found.items()}


def keep_outputs(real: Path, data: Path, kept: Path) -> None:
    """Write ``kept/resnetN-SET.npz`` for every set that lacks it."""
    kept.mkdir(parents=True, exist_ok=True)
    known = load_cifar10(str(data)).test.images
    for name in ("cifar10", *SETS):
        images = None
        for depth in DEPTHS:
            path = kept / f"resnet{depth}-{name}.npz"
            if path.is_file():
                continue
            if images is None:
                images = known if name == "cifar10" else load_cifar100(str(data)).test.images
                if "-" in name:
                    corruption = Corruption(name.rsplit("-", 1)[0], int(name[-1]))
                    images = torch.stack(
                        [corruption(image, row) for row, image in enumerate(known)]
                    )
            found = said(network(real, depth), images)
            if name == "cifar10":
                given = np.load(real / f"resnet{depth}-cifar10-test.npz")["logits"]
                assert np.abs(found["logits"] - given).max() < 1e-2, "other images or weights"
            part = path.with_suffix(".part")
            with part.open("wb") as file:
                np.savez(file, **found)
            part.rename(path)
            print(path.name, flush=True)


def halves(number: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield rows to fit on and rows to test, for each seed."""
    for seed in SEEDS:
        yield torch.randperm(number, generator=torch.Generator().manual_seed(seed)).chunk(2)


def read(kept: Path, depth: int, name: str) -> dict[str, Tensor]:
    with np.load(kept / f"resnet{depth}-{name}.npz") as arrays:
        return {key: torch.from_numpy(arrays[key]) for key in arrays.files}


def samples(kept: Path, target: Tensor, depth: int) -> None:
    """Print AUROC and FPR95 of each score against each set, mean and deviation over the halves."""
    known = read(kept, depth, "cifar10")
    values: dict[tuple[str, str], list[tuple[float, float]]] = {}
    for fit, test in halves(len(target)):
        train = Predictions(known["logits"][fit], target[fit], features=known["features"][fit])
        for name in SETS:
            other = read(kept, depth, name)
            # A corrupted image stands against the clean images of the tested half, and is one of them.
            rows = test if "-" in name else torch.arange(len(other["logits"]))
            for score in SCORES:
                own, theirs = (
                    compute_score(
                        score,
                        Outputs(part["logits"][r], part["features"][r]),
                        reference=Reference(train, train),
                    )
                    for part, r in ((known, test), (other, rows))
                )
                values.setdefault((score, name), []).append(detected(own, theirs))
            values.setdefault((MAP, name), []).append(
                detected(known["map"][test], other["map"][rows])
            )
    print(
        f"\nResNet-{depth}\n\n| score | "
        + " | ".join(f"{s} AUROC | FPR95" for s in SETS)
        + " |\n|---|"
        + "---:|---:|" * len(SETS)
    )
    for score in (*SCORES, MAP):
        cells = [
            spread(column) for name in SETS for column in zip(*values[score, name], strict=True)
        ]
        print(f"| {score} | {' | '.join(cells)} |", flush=True)


def detected(own: Tensor, theirs: Tensor) -> tuple[float, float]:
    found = detection_metrics(own, theirs)
    return 100 * found["auroc"], 100 * found["fpr95-in"]


def spread(values: tuple[float, ...]) -> str:
    return f"{fmean(values):.2f} ± {stdev(values):.2f}"


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--real", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--kept", type=Path, required=True)
    args = parser.parse_args()
    keep_outputs(args.real, args.data, args.kept)
    for depth in DEPTHS:
        target = torch.from_numpy(np.load(args.real / f"resnet{depth}-cifar10-test.npz")["target"])
        samples(args.kept, target, depth)


if __name__ == "__main__":
    main()
