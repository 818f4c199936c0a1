"""OOD detection by rules and by the negative-aware norm, with their peers: the tables of ``results/ood-rules.md``.

    python benchmarks/ood_rules.py --real FOLDER --data FOLDER --kept FOLDER

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
from scipy.stats import mannwhitneyu
from torch import Tensor
from torch.nn.functional import pad, relu

from fedlas import Predictions
from fedlas.lab.data.sets.torchvision_sets import load_cifar10, load_cifar100
from fedlas.lab.data.shift import Corruption
from fedlas.lab.models.resnet_small import BasicBlock, SmallResNet
from fedlas.zoo.ood import Outputs, Reference, compute_score, detection_metrics, negative_aware_norm_score
from fedlas.zoo.ood.rules import Rules

# numba, which some packages import, would take the file coverage.py next to this one for the package.
sys.path[:] = [place for place in sys.path if Path(place or ".").resolve() != Path(__file__).resolve().parent]

DEPTHS, SEEDS, SIZES, BATCHES = (20, 56), (0, 1, 2), (20, 50, 100, 200), 20
SETS = ("cifar100", "gaussian-noise-3", "defocus-blur-3")
SCORES = ("rules", "knn", "mahalanobis", "feature-norm", "negative-aware-norm", "msp")
PEERS = ("knn", "mahalanobis")
MAP = "negative-aware-norm, map"
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class PublishedBlock(BasicBlock):
    """Its shortcut puts half of the new channels before the old ones."""

    def forward(self, x: Tensor) -> Tensor:
        residual = self.bn2(self.conv2(relu(self.bn1(self.conv1(x)))))
        half = self.new_channels // 2
        return relu(residual + pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, half, half)))


def network(real: Path, depth: int) -> SmallResNet:
    """The network with its published weights."""
    model = SmallResNet(10, 3, blocks=(depth - 2) // 6)
    for module in model.modules():
        if isinstance(module, BasicBlock):
            module.__class__ = PublishedBlock
    weights = load_file(real / f"resnet{depth}-cifar10.safetensors")
    names = {"layer1": "stages.0", "layer2": "stages.1", "layer3": "stages.2", "linear": "fc"}
    model.load_state_dict(
        {".".join([names.get(n.split(".")[0], n.split(".")[0]), *n.split(".")[1:]]): w for n, w in weights.items()}
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
                    images = torch.stack([corruption(image, row) for row, image in enumerate(known)])
            found = said(network(real, depth), images)
            if name == "cifar10":
                given = np.load(real / f"resnet{depth}-cifar10-test.npz")["logits"]
                assert np.abs(found["logits"] - given).max() < 1e-2, "other images or weights"
            part = path.with_suffix(".part")
            with part.open("wb") as file:
                np.savez(file, **found)
            part.rename(path)
            print(path.name, flush=True)


def halves(number: int) -> Iterator[tuple[int, Tensor, Tensor]]:
    """Seed, rows to fit on, rows to test."""
    for seed in SEEDS:
        yield seed, *torch.randperm(number, generator=torch.Generator().manual_seed(seed)).chunk(2)


def read(kept: Path, depth: int, name: str) -> dict[str, Tensor]:
    with np.load(kept / f"resnet{depth}-{name}.npz") as arrays:
        return {key: torch.from_numpy(arrays[key]) for key in arrays.files}


def samples(kept: Path, target: Tensor, depth: int) -> None:
    """Print AUROC and FPR95 of each score against each set, mean and deviation over the halves."""
    known = read(kept, depth, "cifar10")
    values: dict[tuple[str, str], list[tuple[float, float]]] = {}
    for _, fit, test in halves(len(target)):
        train = Predictions(known["logits"][fit], target[fit], features=known["features"][fit])
        for name in SETS:
            other = read(kept, depth, name)
            # A corrupted image stands against the clean images of the tested half, and is one of them.
            rows = test if "-" in name else torch.arange(len(other["logits"]))
            for score in SCORES:
                own, theirs = (
                    compute_score(
                        score, Outputs(part["logits"][r], part["features"][r]), reference=Reference(train, train)
                    )
                    for part, r in ((known, test), (other, rows))
                )
                values.setdefault((score, name), []).append(detected(own, theirs))
            values.setdefault((MAP, name), []).append(detected(known["map"][test], other["map"][rows]))
    print(
        f"\nResNet-{depth}\n\n| score | "
        + " | ".join(f"{s} AUROC | FPR95" for s in SETS)
        + " |\n|---|"
        + "---:|---:|" * len(SETS)
    )
    for score in (*SCORES, MAP):
        cells = [spread(column) for name in SETS for column in zip(*values[score, name], strict=True)]
        print(f"| {score} | {' | '.join(cells)} |", flush=True)


def detected(own: Tensor, theirs: Tensor) -> tuple[float, float]:
    found = detection_metrics(own, theirs)
    return 100 * found["auroc"], 100 * found["fpr95-in"]


def spread(values: tuple[float, ...]) -> str:
    return f"{fmean(values):.2f} ± {stdev(values):.2f}"


def sets(kept: Path, target: Tensor, depth: int) -> None:
    """Print the share of random batches that a test at 5 % calls shifted.

    The peers test whether the scores of a batch are higher than those of the held-out images (Mann-Whitney).
    """
    x = read(kept, depth, "cifar10")["features"]
    found: dict[tuple[str, str, int], list[float]] = {}
    for seed, fit, test in halves(len(target)):
        rows, held_out = fit.chunk(2)
        train = Predictions(torch.zeros(len(rows), 10), target[rows], features=x[rows])
        rules = Rules(x[rows], target[rows])
        random = torch.Generator().manual_seed(seed)
        for name in ("cifar10", *SETS):
            pool = read(kept, depth, name)["features"]
            pool = pool if name == "cifar100" else pool[test]
            scores = {peer: (scored(peer, x[held_out], train), scored(peer, pool, train)) for peer in PEERS}
            for size in SIZES:
                for _ in range(BATCHES):
                    batch = torch.randperm(len(pool), generator=random)[:size]
                    p = {
                        f"rules, {statistic}": rules.shift(
                            x[held_out], pool[batch], statistic=statistic, permutations=199
                        ).p_value
                        for statistic in ("distance", "information")
                    }
                    for peer, (own, theirs) in scores.items():
                        p[peer] = float(mannwhitneyu(theirs[batch], own, alternative="greater").pvalue)
                    for test_name, value in p.items():
                        found.setdefault((test_name, name, size), []).append(value)
    print(f"\nResNet-{depth}, share of {BATCHES * len(SEEDS)} sets with p <= 0.05 in %\n")
    print(f"| test | set | {' | '.join(map(str, SIZES))} |\n|---|---|" + "---:|" * len(SIZES))
    for test_name in dict.fromkeys(key[0] for key in found):
        for name in ("cifar10", *SETS):
            shares = [np.mean([p <= 0.05 for p in found[test_name, name, size]]) for size in SIZES]
            print(f"| {test_name} | {name} | {' | '.join(f'{100 * share:.0f}' for share in shares)} |", flush=True)


def scored(score: str, features: Tensor, train: Predictions) -> Tensor:
    outputs = Outputs(torch.zeros(len(features), 10), features)
    return compute_score(score, outputs, reference=Reference(train=train))


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("--real", "--data", "--kept"):
        parser.add_argument(name, type=Path, required=True)
    args = parser.parse_args()
    keep_outputs(args.real, args.data, args.kept)
    for depth in DEPTHS:
        target = torch.from_numpy(np.load(args.real / f"resnet{depth}-cifar10-test.npz")["target"])
        samples(args.kept, target, depth)
        sets(args.kept, target, depth)


if __name__ == "__main__":
    main()
