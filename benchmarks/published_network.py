"""Two published CIFAR-10 networks, ResNet-20 and ResNet-56, calibrated: the numbers of ``results/published-network``.

    python benchmarks/published_network.py --real FOLDER --data FOLDER [--kept FOLDER] [--out results/published-network]

``--real`` holds ``resnetN-cifar10.safetensors``, the weights of github.com/akamaster/pytorch_resnet_cifar10, and
``resnetN-cifar10-test.npz`` with ``logits``, ``features`` and ``target`` of the 10,000 test images, ``ood_logits`` and
``ood_features`` of CIFAR-100's. ``--data`` holds ``cifar10.npz``, the images in the same order. Logits of corrupted
images are kept in ``--kept``, so that a second call resumes.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import io
import json
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn.functional import pad, relu

from fedlas import Predictions
from fedlas.calibrators import CALIBRATORS, Calibrator, StructuredScaling, TemperatureScaling
from fedlas.cli.main import main as command_line
from fedlas.deploy.build_card import make_card
from fedlas.deploy.calibration import fit_calibration
from fedlas.lab.data.sets.torchvision_sets import load_cifar10
from fedlas.lab.data.shift import CORRUPTIONS, Corruption
from fedlas.metrics import (
    accuracy,
    brier,
    ece,
    nll,
)
from fedlas.zoo.ood import Outputs, Reference, compute_score, detection_metrics

DEPTHS = (20, 56)
HALVES = 10
SEVERITIES = (3, 5)
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class Block(nn.Module):
    """Two convolutions; the shortcut takes every second pixel and puts empty channels on both sides (option A)."""

    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        stride = 1 if before == after else 2
        self.conv1 = nn.Conv2d(before, after, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(after)
        self.conv2 = nn.Conv2d(after, after, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(after)
        self.empty = (after - before) // 2

    def forward(self, x: Tensor) -> Tensor:
        residual = self.bn2(self.conv2(relu(self.bn1(self.conv1(x)))))
        if self.empty:
            x = pad(x[:, :, ::2, ::2], (0, 0, 0, 0, self.empty, self.empty))
        return relu(residual + x)


class PublishedResNet(nn.Module):
    """The network of He et al. 2015, section 4.2, with the names of the published weights."""

    def __init__(self, depth: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        for stage, (before, after) in enumerate([(16, 16), (16, 32), (32, 64)], start=1):
            blocks = [
                Block(before, after),
                *(Block(after, after) for _ in range((depth - 2) // 6 - 1)),
            ]
            self.add_module(f"layer{stage}", nn.Sequential(*blocks))
        self.linear = nn.Linear(64, 10)

    def forward(self, images: Tensor) -> Tensor:
        """Logits of normalized images ``(N, 3, 32, 32)``."""
        x = relu(self.bn1(self.conv1(images)))
        for stage in (self.layer1, self.layer2, self.layer3):
            x = stage(x)
        logits: Tensor = self.linear(x.mean(dim=(2, 3)))
        return logits


def network(real: Path, depth: int) -> PublishedResNet:
    """The network with its published weights."""
    model = PublishedResNet(depth)
    model.load_state_dict(load_file(real / f"resnet{depth}-cifar10.safetensors"))
    return model.eval()


@torch.inference_mode()
def logits_of(model: nn.Module, images: Tensor) -> Tensor:
    """Logits of uint8 images ``(N, 3, 32, 32)``."""
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (MEAN, STD))
    return torch.cat([model((part / 255 - mean) / std) for part in images.split(64)])


def predict_corrupted(real: Path, data: Path, kept: Path) -> None:
    """Write ``kept/NAME-SEVERITY.npz`` with the logits of each network, for each corruption that lacks it."""
    images = load_cifar10(str(data)).test.images
    models = {depth: network(real, depth) for depth in DEPTHS}
    # The order of the images, and the network, are those of the logits.
    for depth, model in models.items():
        given = np.load(real / f"resnet{depth}-cifar10-test.npz")["logits"][:200]
        assert np.abs(logits_of(model, images[:200]).numpy() - given).max() < 1e-3, (
            "other images or weights"
        )
    kept.mkdir(parents=True, exist_ok=True)
    for severity in SEVERITIES:
        for entry in CORRUPTIONS.entries():
            path = kept / f"{entry.name}-{severity}.npz"
            if path.is_file():
                continue
            corruption = Corruption(entry.name, severity)
            changed = torch.stack([corruption(image, row) for row, image in enumerate(images)])
            found = {
                f"resnet{depth}": logits_of(model, changed).numpy()
                for depth, model in models.items()
            }
            part = path.with_suffix(".part")
            with part.open("wb") as file:
                np.savez(file, **found)
            part.rename(path)
            print(path.name, flush=True)


def given(real: Path, depth: int) -> tuple[Predictions, Outputs]:
    """What the network says on the 10,000 test images, and on CIFAR-100's."""
    arrays = np.load(real / f"resnet{depth}-cifar10-test.npz")
    logits, features, ood_logits, ood_features = (
        torch.from_numpy(arrays[name]).float()
        for name in ("logits", "features", "ood_logits", "ood_features")
    )
    target = torch.from_numpy(arrays["target"])
    return Predictions(logits, target, features=features), Outputs(ood_logits, ood_features)


def halves(predictions: Predictions) -> Iterator[tuple[int, Tensor, Tensor]]:
    """Seed, and rows to fit and to test: ten random halves."""
    for seed in range(HALVES):
        order = torch.randperm(
            predictions.num_samples, generator=torch.Generator().manual_seed(seed)
        )
        yield seed, *order.chunk(2)


def part(predictions: Predictions, rows: Tensor) -> Predictions:
    """These rows."""
    features = predictions.features
    return Predictions(
        predictions.logits[rows],
        predictions.target[rows],
        features=None if features is None else features[rows],
    )


def measured(predictions: Predictions) -> dict[str, float]:
    """Accuracy and ECE as fractions, NLL and Brier score."""
    return {
        "accuracy": accuracy(predictions),
        "nll": nll(predictions),
        "brier": brier(predictions),
        "ece": ece(predictions),
    }


def calibrator_rows(real: Path) -> Iterator[dict[str, Any]]:
    """A row for each network, half and calibrator that is fitted on clean predictions."""
    for depth in DEPTHS:
        whole, _ = given(real, depth)
        for seed, fit, rest in halves(whole):
            val, test = part(whole, fit), part(whole, rest)
            kinds = {
                entry.name: entry.value
                for entry in CALIBRATORS.entries()
                if "part" not in entry.metadata
            }
            after = {"as predicted": test} | {
                name: kind().fit(val).transform(test) for name, kind in kinds.items()
            }
            for name, found in after.items():
                changed = float((found.predicted != test.predicted).mean())
                yield {
                    "network": f"resnet{depth}",
                    "half": seed,
                    "calibrator": name,
                    **measured(found),
                    "changed": changed,
                }
            print(f"resnet{depth}, half {seed}", flush=True)


SHIFTED: dict[str, type[Calibrator] | None] = {
    "as predicted": None,
    "temperature": TemperatureScaling,
    "structured": StructuredScaling,
}


def shift_rows(real: Path, kept: Path) -> Iterator[dict[str, Any]]:
    """A row for each network, corruption, severity and calibrator: means over the halves."""
    for depth in DEPTHS:
        clean, _ = given(real, depth)
        splits = list(halves(clean))
        fitted = {
            (name, seed): kind().fit(part(clean, fit))
            for name, kind in SHIFTED.items()
            if kind
            for seed, fit, _ in splits
        }
        for severity in SEVERITIES:
            for entry in CORRUPTIONS.entries():
                logits = torch.from_numpy(
                    np.load(kept / f"{entry.name}-{severity}.npz")[f"resnet{depth}"]
                )
                whole = Predictions(logits, clean.target)
                for name, kind in SHIFTED.items():
                    tests = [part(whole, rest) for _, _, rest in splits]
                    found = [
                        measured(fitted[name, seed].transform(test) if kind else test)
                        for seed, test in enumerate(tests)
                    ]
                    means = {
                        metric: float(np.mean([each[metric] for each in found]))
                        for metric in found[0]
                    }
                    about = {
                        "network": f"resnet{depth}",
                        "corruption": entry.name,
                        "severity": severity,
                    }
                    yield {**about, "calibrator": name, **means}


OOD = (
    "msp",
    "entropy",
    "max-logit",
    "energy",
    "gen",
    "feature-norm",
    "knn",
    "mahalanobis",
    "relative-mahalanobis",
)


def ood_rows(real: Path) -> Iterator[dict[str, Any]]:
    """A row for each network, half and score, before and after temperature: the test half against CIFAR-100."""
    for depth in DEPTHS:
        whole, outside = given(real, depth)
        for seed, fit, rest in halves(whole):
            val, test = part(whole, fit), part(whole, rest)
            temperature = TemperatureScaling().fit(val).temperature
            for stage, factor in (("as predicted", 1.0), ("temperature", temperature)):
                # Scores of features do not depend on the temperature, and the fitted ones take the half to fit.
                for name in OOD if factor == 1 else OOD[:2]:
                    reference = Reference(val=val, train=val)
                    inside, other = (
                        compute_score(
                            name, Outputs(each.logits / factor, each.features), reference=reference
                        )
                        for each in (test.tensors(), outside.tensors())
                    )
                    found = detection_metrics(inside, other)
                    about = {
                        "network": f"resnet{depth}",
                        "half": seed,
                        "score": name,
                        "stage": stage,
                    }
                    yield {**about, "auroc": found["auroc"], "fpr95": found["fpr95-in"]}


def in_production(real: Path, kept: Path) -> Iterator[dict[str, Any]]:
    """Card and monitor, of the first half: thresholds, and after how many images ``fedlas monitor`` notices a shift."""
    for depth in DEPTHS:
        whole, _ = given(real, depth)
        _, fit, rest = next(halves(whole))
        val, test = part(whole, fit), part(whole, rest)
        about = {"run": f"resnet{depth}"}
        card = make_card(
            val, test, fit_calibration("temperature", val), model=about, data={"name": "cifar10"}
        )
        file = kept / f"resnet{depth}-card.json"
        file.write_text(json.dumps(card), encoding="utf-8")
        streams = {"clean": test.tensors().logits}
        for severity in SEVERITIES:
            for entry in CORRUPTIONS.entries():
                logits = np.load(kept / f"{entry.name}-{severity}.npz")[f"resnet{depth}"]
                streams[f"{entry.name}-{severity}"] = torch.from_numpy(logits)[rest]
        alarms = {}
        for name, logits in streams.items():
            Predictions(logits, test.target).save(kept / "stream.npz")
            with contextlib.redirect_stdout(io.StringIO()) as printed:
                command_line(["monitor", str(file), str(kept / "stream.npz"), "--raw", "--json"])
            said = json.loads(printed.getvalue())
            alarms[name] = said["alarm_after"] if said["alarm"] else None
        yield {**about, "temperature": card["calibration"]["temperature"], "selective": card["selective"]["thresholds"],
               "alarms": alarms}  # fmt: skip


def write_csv(path: Path, rows: Iterator[dict[str, Any]]) -> None:
    """One row each, numbers to six digits."""
    kept = [
        {key: round(value, 6) if isinstance(value, float) else value for key, value in row.items()}
        for row in rows
    ]
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, kept[0], lineterminator="\n")
        writer.writeheader()
        writer.writerows(kept)


def main() -> None:
    """Predict, measure and write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--real", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--kept", type=Path, default=Path("published-network-logits"))
    parser.add_argument("--out", type=Path, default=Path("results/published-network"))
    args = parser.parse_args()
    warnings.simplefilter("ignore")  # what fits doubt is on the page
    torch.set_num_threads(1)
    args.out.mkdir(parents=True, exist_ok=True)
    write_csv(args.out / "calibrators.csv", calibrator_rows(args.real))
    write_csv(args.out / "ood.csv", ood_rows(args.real))
    predict_corrupted(args.real, args.data, args.kept)
    write_csv(args.out / "shift.csv", shift_rows(args.real, args.kept))
    production = list(in_production(args.real, args.kept))
    (args.out / "production.json").write_text(
        json.dumps(production, indent=1) + "\n", encoding="utf-8"
    )


if __name__ == "__main__":
    main()
