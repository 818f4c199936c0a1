"""Test NLL of calibrators that were fitted on few or imbalanced samples: the tables in their docstrings.

    python benchmarks/calibrators.py [--draws 100]
    python benchmarks/calibrators.py --real FOLDER --data FOLDER [--kept FOLDER]

The logits of the first call are those of Bayes' rule for normal scores, so the given predictions, times a known factor,
are right. The second is the table of docs/methods.md: real predictions, 5,000 random samples to fit and half of all to
test. ``--real`` and ``--data`` are those of ``published_network.py``; ``--real`` holds ``cifar10_probs.npz`` and
``imdb_probs.npz`` too. The predictions with 100 classes are made here, of a small network on the features of these.
"""

from __future__ import annotations

import argparse
import math
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import fmean, stdev

import numpy as np
import torch
from published_network import MEAN, STD, network, part
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, relu

from fedlas import Predictions
from fedlas.calibrators import (
    CALIBRATORS,
    Calibrator,
    DirichletCalibration,
    MatrixScaling,
    StructuredScaling,
    TemperatureScaling,
    VectorScaling,
)
from fedlas.calibrators._fit.golden_section import golden_section
from fedlas.lab.data.sets.torchvision_sets import load_cifar100
from fedlas.metrics import accuracy, brier_score, negative_log_likelihood

SIZES = (20, 50, 100, 300, 1000)
IMBALANCED = ([49, 1], [97, 3], [190, 10], [40, 20, 13, 9, 6, 4, 3, 2, 2, 1], [10] * 10)


def drawn(target: torch.Tensor, distance: float, factor: float, seed: int) -> Predictions:
    """Predictions for these labels, calibrated before logits are multiplied by ``factor``."""
    random = torch.Generator().manual_seed(seed)
    share = torch.bincount(target).double() / len(target)
    scores = torch.randn(len(target), len(share), generator=random, dtype=torch.float64)
    scores[torch.arange(len(target)), target] += distance
    return Predictions(factor * (distance * scores + share.log()), target)


def few(samples: int, seed: int) -> Predictions:
    """A model of ten classes, calibrated, with 96 % accuracy."""
    random = torch.Generator().manual_seed(seed)
    target = torch.cat([torch.arange(10), torch.randint(10, (samples - 10,), generator=random)])
    scores = torch.randn(samples, 10, generator=random, dtype=torch.float64)
    scores[torch.arange(samples), target] += 3.58
    return Predictions(3.58 * scores, target)


def lowest(val: Predictions) -> float:
    """The temperature from 0.01 to 100 with the lowest NLL."""
    return math.exp(
        golden_section(
            lambda t: float(cross_entropy(val.logits / math.exp(t), val.target)), math.log(0.01), math.log(100), 1e-6
        )
    )


@torch.inference_mode()
def features_of(real: Path, images: Tensor) -> Tensor:
    """Means over the pixels after each stage of ResNet-20 and ResNet-56, ``(N, 224)``."""
    found = []
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (MEAN, STD))
    for depth in (20, 56):
        model, rows = network(real, depth), []
        for batch in images.split(64):
            maps, means = relu(model.bn1(model.conv1((batch / 255 - mean) / std))), []
            for stage in (model.layer1, model.layer2, model.layer3):
                maps = stage(maps)
                means.append(maps.mean(dim=(2, 3)))
            rows.append(torch.cat(means, dim=1))
        found.append(torch.cat(rows))
    return torch.cat(found, dim=1)


def hundred_classes(real: Path, data: Path, kept: Path) -> Predictions:
    """CIFAR-100's test images, by two layers on these features, trained until they are over-confident."""
    path = kept / "cifar100.npz"
    if not path.is_file():
        source = load_cifar100(str(data))
        inputs, test = features_of(real, source.train.images), features_of(real, source.test.images)
        inputs, test = ((x - inputs.mean(dim=0)) / inputs.std(dim=0) for x in (inputs, test))
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(inputs.shape[1], 512), nn.ReLU(), nn.Linear(512, 100))
        optimizer = torch.optim.AdamW(model.parameters(), 1e-3, weight_decay=0.0)
        for _ in range(60):
            for rows in torch.randperm(len(inputs)).split(256):
                optimizer.zero_grad()
                cross_entropy(model(inputs[rows]), source.train.target[rows]).backward()
                optimizer.step()
        kept.mkdir(parents=True, exist_ok=True)
        Predictions(model(test).detach(), source.test.target).save(path)
    return Predictions.load(path)


def archives(real: Path, data: Path, kept: Path) -> Iterator[tuple[str, Predictions]]:
    """Real predictions by name."""
    for depth in (20, 56):
        arrays = np.load(real / f"resnet{depth}-cifar10-test.npz")
        logits, target, features = (torch.from_numpy(arrays[name]) for name in ("logits", "target", "features"))
        yield f"ResNet-{depth}", Predictions(logits, target, features=features.float())
    for name in ("cifar10_probs", "imdb_probs"):
        arrays = np.load(real / f"{name}.npz")
        probs = torch.from_numpy(arrays["probs"])
        yield name, Predictions((probs / probs.sum(dim=1, keepdim=True)).clamp(min=1e-12).log(), arrays["target"])
    yield "CIFAR-100", hundred_classes(real, data, kept)


def real_predictions(real: Path, data: Path, kept: Path, only: list[str] | None) -> None:
    """Brier score and NLL against temperature scaling, for each calibrator and archive: mean and spread over draws."""
    kinds: dict[str, Callable[[], Calibrator]] = {
        entry.name: entry.value for entry in CALIBRATORS.entries() if "part" not in entry.metadata
    }
    kinds |= {f"structured {form}": lambda form=form: StructuredScaling(form) for form in ("matrix", "vector")}
    kinds["matrix, no penalty"] = lambda: MatrixScaling(off_diagonal=0.0, intercept=0.0)
    for name, whole in archives(real, data, kept):
        if only and name not in only:
            continue
        many = whole.num_classes >= 100
        for samples in (5000,) if many else (5000, 1000):
            draws = 3 if many else 10
            found: dict[str, list[tuple[float, float, float, float]]] = {}
            for seed in range(draws):
                order = torch.randperm(whole.num_samples, generator=torch.Generator().manual_seed(seed))
                val, test = part(whole, order[:samples]), part(whole, order[whole.num_samples // 2 :])
                brier, scaled = (
                    brier_score(test),
                    negative_log_likelihood(TemperatureScaling().fit(val).transform(test)),
                )
                for kind, make in kinds.items():
                    if (make().needs and val.features is None) or (many and "no penalty" in kind):
                        continue  # without a penalty, the fit of 10,100 numbers takes many minutes and over-fits
                    began = time.process_time()
                    after = make().fit(val).transform(test)
                    took = time.process_time() - began
                    better, above = 100 * (1 - brier_score(after) / brier), negative_log_likelihood(after) - scaled
                    found.setdefault(kind, []).append((better, above, 100 * accuracy(after), took))
            print(f"\n{name}: {samples:,} to fit, {whole.num_classes} classes, {draws} draws", flush=True)
            for kind, rows in sorted(found.items(), key=lambda item: fmean(row[1] for row in item[1])):
                (brier, nll, right, took) = zip(*rows, strict=True)
                print(
                    f"{kind:20} Brier improved {fmean(brier):6.2f} ± {stdev(brier):4.2f} %, NLL above temperature "
                    f"{fmean(nll):+.4f} ± {stdev(nll):.4f}, accuracy {fmean(right):.2f} %, {fmean(took):.1f} s",
                    flush=True,
                )


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draws", type=int, default=100)
    parser.add_argument("--real", type=Path)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--archives", nargs="+", help="some of them, by name (default: all)")
    parser.add_argument("--kept", type=Path, default=Path("published-network-logits"))
    args = parser.parse_args()
    draws = args.draws
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    if args.real is not None:
        real_predictions(args.real, args.data, args.kept, args.archives)
        return

    test = few(20_000, 99_999)
    print(f"few samples: accuracy {accuracy(test):.3f}, test NLL {negative_log_likelihood(test):.3f}; mean (worst)")
    for name, fit in (("held", lambda val: TemperatureScaling().fit(val).temperature), ("minimum", lowest)):
        cells = []
        for samples in SIZES:
            temperatures = [fit(few(samples, seed)) for seed in range(draws)]
            losses = torch.tensor([float(cross_entropy(test.logits / t, test.target)) for t in temperatures])
            cells.append(f"{samples}: {losses.mean():.3f} ({losses.max():.3f})")
        print(f"{name:8}", "  ".join(cells), flush=True)

    print("\nimbalanced: NLL above that of temperature scaling, mean (worst)")
    for counts in IMBALANCED:
        labels, cells = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts)), []
        for kind in (VectorScaling, MatrixScaling, DirichletCalibration):
            gaps = []
            for seed in range(max(1, draws // 10)):
                val = drawn(labels, 1.3, 1.5, seed)
                test = drawn(labels.repeat(max(1, 4000 // len(labels))), 1.3, 1.5, 1000 + seed)
                ours, plain = (
                    negative_log_likelihood(c.fit(val).transform(test)) for c in (kind(), TemperatureScaling())
                )
                gaps.append(ours - plain)
            cells.append(f"{kind.__name__} {sum(gaps) / len(gaps):+.3f} ({max(gaps):+.3f})")
        print(counts, "  ".join(cells), flush=True)


if __name__ == "__main__":
    main()
