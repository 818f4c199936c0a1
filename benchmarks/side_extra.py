"""More of ``side_information.py``: validation samples, the arena's question, where side information may fail, images.

    python benchmarks/side_extra.py curve|losses|few|shift|group|labels|trained --cache FOLDER [--seeds 0 1]
    python benchmarks/side_extra.py images --cache FOLDER --real FOLDER --fashion FOLDER [--cifar FOLDER]
    python benchmarks/side_extra.py networks --cache FOLDER --log networks.jsonl --runs RUN [RUN ...]

``--real`` is as in ``published_network.py``; ``--fashion`` holds the files of Debian's ``dataset-fashion-mnist``;
``--cifar`` is the folder of ``cifar10.npz``, for corrupted images.
"""

from __future__ import annotations

import argparse
import gzip
import logging
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import published_network
import side_data
import torch
from numpy.typing import NDArray
from side_information import (
    KINDS,
    Case,
    Log,
    arena,
    auto,
    case_of,
    data,
    learn,
    pairs,
    split_of,
    stored,
)
from torch import Tensor, nn

from fedlas.lab.data.shift import Corruption
from fedlas.lab.runs.folder import RunFolder

Array = NDArray[Any]
LARGE = ("diamonds", "storms", "rodents", "crashes", "happiness", "lending")
SAMPLES = (50, 100, 200, 500, 1000, 2000, 5000)
FEW = (20, 50, 200)
LOSSES = ("ls", "mbls", "fedlas", "fedlas+")
MORE = ((1.0, 1000), (1.0, 5000), (1.0, 3000))
BOTH = (("auto, side", True), ("auto, logits", False))
CORRUPTED = (("gaussian-noise", 3), ("defocus-blur", 3), ("brightness", 5), ("jpeg-compression", 3))


def both(log: Log, about: dict[str, Any], case: Case) -> None:
    """Score ``auto`` with and without side information, and what the model predicts."""
    works: dict[str, Callable[[], Tensor]] = {
        name: partial(auto, case, side=side) for name, side in BOTH
    }
    works["as predicted"] = lambda: torch.from_numpy(case.test)
    for name, work in works.items():
        log.run({**about, "calibrator": name}, work, lambda: case.test_target)


def first(case: Case, count: int) -> Case:
    """The first validation samples only."""
    return replace(
        case,
        val=case.val[:count],
        val_side=case.val_side[:count],
        val_target=case.val_target[:count],
    )


def arrays(split: data.Split, got: Any) -> dict[str, Array]:
    """A case's arrays."""
    target = {
        "val_target": split.val.target[0].numpy(),
        "test_target": split.test.target[0].numpy(),
    }
    return {
        "val": got.val,
        "test": got.test,
        "val_side": got.val_side,
        "test_side": got.test_side,
        **target,
    }


def of_rows(
    cache: Path, folder: str, about: dict[str, Any], seed: int, choose: Callable[..., Any]
) -> Case:
    """A model's predictions for other rows: ``choose(inputs, seed)`` returns those of all three parts."""
    name, kind = about["data"], about["model"]

    def make() -> dict[str, Array]:
        inputs, target = side_data.samples(name, cache)
        rows = choose(inputs, seed)
        columns = side_data.scaled(inputs, rows[0]).astype(np.float32)
        parts = (
            data.Part(torch.from_numpy(columns[part])[None], torch.from_numpy(target[part])[None])
            for part in rows
        )
        split = data.Split(*parts, num_classes=int(target.max()) + 1)
        return arrays(split, learn(kind, split, seed))

    return Case(**stored(cache / folder / f"{name}-{kind}-{seed}.npz", make))


def direction(inputs: Array) -> Array:
    """Coordinate of each row along the first principal direction of standardized columns."""
    columns = side_data.scaled(inputs, np.arange(len(inputs)))
    columns = columns - columns.mean(axis=0)
    return columns @ np.linalg.eigh(columns.T @ columns)[1][:, -1]


def more(inputs: Array, seed: int) -> tuple[Array, ...]:
    """1,000 rows train, 5,000 validate."""
    return side_data.rows_of(len(inputs), seed, MORE)


def shifted(inputs: Array, seed: int) -> tuple[Array, ...]:
    """Train and validate on the lower 70 % of the first principal direction, test on the rest."""
    place, random = direction(inputs), np.random.default_rng(seed)
    low = place <= np.quantile(place, 0.7)
    inside, outside = (
        random.permutation(np.flatnonzero(low)),
        random.permutation(np.flatnonzero(~low)),
    )
    train, val = min(1000, int(0.6 * len(inside))), min(500, int(0.3 * len(inside)))
    return inside[:train], inside[train : train + val], outside[:3000]


def without_group(inputs: Array, seed: int) -> tuple[Array, ...]:
    """The lowest fifth of the first principal direction trains, does not validate, and is what is tested."""
    place = direction(inputs)
    group = place <= np.quantile(place, 0.2)
    train, val, test = side_data.rows_of(
        len(inputs), seed, ((0.4, 1000), (0.25, 625), (0.35, 3000))
    )
    return train, val[~group[val]][:500], test[group[test]]


def trained_on(inputs: Array, seed: int) -> tuple[Array, ...]:
    """The validation samples are half of those that train."""
    train, _, test = side_data.rows_of(len(inputs), seed)
    return train, train[: len(train) // 2], test


def fewer_of_the_most_frequent(case: Case, seed: int) -> Case:
    """Half of the test samples of the most frequent class are gone."""
    most = np.bincount(case.val_target).argmax()
    random = np.random.default_rng(seed)
    rows = (case.test_target != most) | (random.random(len(case.test_target)) < 0.5)
    return replace(
        case,
        test=case.test[rows],
        test_side=case.test_side[rows],
        test_target=case.test_target[rows],
    )


def run_curve(args: argparse.Namespace, log: Log) -> None:
    """50 to 5,000 validation samples."""
    args.only = args.only or LARGE
    for about, seed in pairs(args):
        case = of_rows(args.cache, "curve", about, seed, more)
        for count in SAMPLES:
            both(log, {"part": f"samples {count}", **about, "seed": seed}, first(case, count))
        print(about, seed, flush=True)


def run_few(args: argparse.Namespace, log: Log) -> None:
    """20, 50 and 200 validation samples."""
    for about, seed in pairs(args):
        case = case_of(args.cache, about["data"], about["model"], seed)
        for count in FEW:
            both(log, {"part": f"few {count}", **about, "seed": seed}, first(case, count))


def run_rows(args: argparse.Namespace, log: Log) -> None:
    """Other rows train, validate and test."""
    choose = {"shift": shifted, "group": without_group, "trained": trained_on}[args.what]
    for about, seed in pairs(args):
        case = of_rows(args.cache, args.what, about, seed, choose)
        both(log, {"part": args.what, **about, "seed": seed}, case)


def run_labels(args: argparse.Namespace, log: Log) -> None:
    """Label shift."""
    for about, seed in pairs(args):
        case = fewer_of_the_most_frequent(
            case_of(args.cache, about["data"], about["model"], seed), seed
        )
        both(log, {"part": "label shift", **about, "seed": seed}, case)


def run_losses(args: argparse.Namespace, log: Log) -> None:
    """MLPs of other losses; those of cross-entropy are the main part's."""
    args.models = ["mlp"]
    for about, seed in pairs(args):
        for loss in LOSSES:

            def make(
                loss: str = loss, name: str = about["data"], seed: int = seed
            ) -> dict[str, Array]:
                split = split_of(*side_data.samples(name, args.cache), seed)
                outputs, _ = arena.trainings(split)[loss](first_seed=seed)
                place = int(arena.RULES["refined"](outputs.val, split.val.target).argmin(dim=0)[0])
                names = ("val", "test", "val_features", "test_features")
                val, test, val_side, test_side = (
                    getattr(outputs, each)[place, 0].double().numpy() for each in names
                )
                target = {
                    "val_target": split.val.target[0].numpy(),
                    "test_target": split.test.target[0].numpy(),
                }
                return {
                    "val": val,
                    "test": test,
                    "val_side": val_side,
                    "test_side": test_side,
                    **target,
                }

            case = Case(
                **stored(args.cache / "losses" / f"{about['data']}-{loss}-{seed}.npz", make)
            )
            both(log, {"part": "losses", "data": about["data"], "model": loss, "seed": seed}, case)


# Images.


class Small(nn.Module):
    """Two convolutions and a hidden layer of 128."""

    def __init__(self) -> None:
        super().__init__()
        pool = nn.MaxPool2d(2)
        first_layers = (nn.Conv2d(1, 16, 3), nn.ReLU(), pool, nn.Conv2d(16, 32, 3), nn.ReLU(), pool)
        self.body = nn.Sequential(*first_layers, nn.Flatten(), nn.Linear(800, 128), nn.ReLU())
        self.head = nn.Linear(128, 10)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Logits and the head's inputs."""
        features = self.body(images)
        return self.head(features), features


def fashion(folder: Path, seed: int, epochs: int = 5) -> dict[str, Array]:
    """Train on 55,000 images; what the network says on the other 5,000 and on the test images."""

    def read(name: str, skip: int) -> Array:
        with gzip.open(folder / f"{name}.gz") as file:
            return np.frombuffer(file.read(), np.uint8, offset=skip)

    images, target = read("train-images-idx3-ubyte", 16), read("train-labels-idx1-ubyte", 8)
    tests, test_target = read("t10k-images-idx3-ubyte", 16), read("t10k-labels-idx1-ubyte", 8)
    x, t = (torch.from_numpy(each.reshape(-1, 1, 28, 28)).float() / 255 for each in (images, tests))
    y = torch.from_numpy(target.astype(np.int64))
    random = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)
    net, order = Small(), torch.randperm(len(y), generator=random)
    train, val = order[5000:], order[:5000]
    optimizer = torch.optim.AdamW(net.parameters(), lr=2e-3, weight_decay=0.01)
    steps = epochs * (len(train) // 128)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(epochs):
        for rows in train[torch.randperm(len(train), generator=random)].split(128):
            if len(rows) == 128:
                optimizer.zero_grad()
                torch.nn.functional.cross_entropy(net(x[rows])[0], y[rows]).backward()
                optimizer.step()
                schedule.step()
    with torch.inference_mode():
        (val_logits, val_side), (test, test_side) = net(x[val]), net(t)
    made = {"val": val_logits, "val_side": val_side, "test": test, "test_side": test_side}
    return {name: each.double().numpy() for name, each in made.items()} | {
        "val_target": y[val].numpy(),
        "test_target": test_target.astype(np.int64),
    }


def with_features(model: nn.Module, images: Tensor) -> tuple[Tensor, Tensor]:
    """Logits and the head's inputs of uint8 images."""
    seen: list[Tensor] = []
    hook = model.linear.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    logits = published_network.logits_of(model, images)
    hook.remove()
    return logits, torch.cat(seen)


def image_cases(args: argparse.Namespace, seed: int) -> Iterator[tuple[str, Case]]:
    """Name and case of each: halves of CIFAR-10's test images, corrupted ones, Fashion-MNIST."""
    for depth in published_network.DEPTHS:
        whole, _ = published_network.given(args.real, depth)
        order = np.random.default_rng(seed).permutation(whole.num_samples)
        logits, side, target = (
            each.astype(np.float64) if each.dtype.kind == "f" else each
            for each in (whole.logits, whole.features, whole.target)
        )
        fit, rest = order[:5000], order[5000:]
        case = Case(logits[fit], side[fit], target[fit], logits[rest], side[rest], target[rest])
        yield f"CIFAR-10, ResNet-{depth}", case
        for name, severity in CORRUPTED if args.cifar and depth == 20 and seed == 0 else ():

            def make(
                name: str = name, severity: int = severity, rest: Array = rest
            ) -> dict[str, Array]:
                images = published_network.load_cifar10(str(args.cifar)).test.images[rest[:2000]]
                change = Corruption(name, severity)
                changed = torch.stack([change(image, row) for row, image in enumerate(images)])
                after, inputs = with_features(published_network.network(args.real, 20), changed)
                return {"test": after.double().numpy(), "test_side": inputs.double().numpy()}

            other = stored(args.cache / "images" / f"{name}-{severity}.npz", make)
            parts = {part: other[part] for part in ("test", "test_side")}
            yield (
                f"CIFAR-10, ResNet-20, {name} {severity}",
                replace(case, **parts, test_target=target[rest[:2000]]),
            )
    if args.fashion:
        made = stored(
            args.cache / "images" / f"fashion-{seed}.npz", lambda: fashion(args.fashion, seed)
        )
        yield "Fashion-MNIST", Case(**made)


def run_images(args: argparse.Namespace, log: Log) -> None:
    """All validation images, and 500 of them."""
    for seed in args.seeds:
        for name, case in image_cases(args, seed):
            for count in (500, 5000):
                both(
                    log,
                    {"part": f"images {count}", "data": name, "model": "network", "seed": seed},
                    first(case, count),
                )


def run_networks(args: argparse.Namespace, log: Log) -> None:
    """Networks that fedlas trained: predictions of their run folders, which hold the head's input."""
    for folder in map(RunFolder, args.runs):
        parts = [folder.predictions(part) for part in ("val", "test")]
        arrays = [
            each.astype(np.float64) if each.dtype.kind == "f" else each
            for part in parts
            for each in (part.logits, part.features, part.target)
        ]
        config = folder.config
        order = np.random.default_rng(config["seed"]).permutation(len(arrays[0]))
        case = Case(*(each[order] for each in arrays[:3]), *arrays[3:])
        name = f"{config['data']['name'].upper().replace('CIFAR', 'CIFAR-')}, trained here"
        for count in (500, 5000):
            about = {"part": f"images {count}", "data": name, "model": "network"}
            both(log, {**about, "seed": config["seed"]}, first(case, count))


def main() -> None:
    """Run what the first argument names."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    rows = dict.fromkeys(("shift", "group", "trained"), run_rows)
    parts = {
        "curve": run_curve,
        "losses": run_losses,
        "few": run_few,
        "labels": run_labels,
        "images": run_images,
        "networks": run_networks,
    } | rows
    parser.add_argument("what", choices=parts)
    parser.add_argument("--cache", type=Path, required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--only", nargs="+", help="data sets")
    parser.add_argument("--models", nargs="+", default=list(KINDS), choices=KINDS)
    parser.add_argument("--real", type=Path)
    parser.add_argument("--fashion", type=Path)
    parser.add_argument("--cifar", type=Path)
    parser.add_argument("--runs", type=Path, nargs="+", default=[])
    parser.add_argument("--log", default="extra.jsonl")
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    torch.set_num_threads(1)
    parts[args.what](args, Log(args.cache / args.log))


if __name__ == "__main__":
    main()
