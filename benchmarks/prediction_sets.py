"""Coverage and size of prediction sets before and after temperature scaling: the table of results/prediction-sets.md.

Run it with ``python benchmarks/prediction_sets.py FOLDER DATA``: FOLDER holds ``resnet20-cifar10-test.npz`` and
``resnet56-cifar10-test.npz`` (``logits``, ``target``, and of the CIFAR-100 test images ``ood_features``), and DATA
``cifar100-labels.npz`` (``test_target``). Each line is a mean over ten random halves, seeds 0 to 9, with the standard
deviation of the size over them.
"""

import argparse
import warnings
from pathlib import Path

import numpy as np
import torch
from torch import nn

from fedlas import Predictions
from fedlas.calibrators import TemperatureScaling
from fedlas.errors import CalibrationWarning
from fedlas.integrations.mapie import prediction_sets

HALVES = 10
SCORES = (("lac", False), ("aps", False), ("aps", True), ("raps", True))


def network(file):
    """Logits and labels of a published network."""
    arrays = np.load(file)
    return torch.from_numpy(arrays["logits"]), torch.from_numpy(arrays["target"]).long()


def linear_classifier(file, labels):
    """A linear classifier of 100 classes on the features of a network of 10, fitted on the first 4,000 images."""
    features = torch.from_numpy(np.load(file)["ood_features"]).float()
    features = (features - features.mean(0)) / features.std(0)
    target = torch.from_numpy(np.load(labels)["test_target"]).long()
    torch.manual_seed(0)
    layer = nn.Linear(features.shape[1], 100)
    optimizer = torch.optim.LBFGS(layer.parameters(), max_iter=300)

    def loss():
        optimizer.zero_grad()
        value = nn.functional.cross_entropy(layer(features[:4000]), target[:4000])
        value.backward()
        return value

    optimizer.step(loss)
    return layer(features[4000:]).detach(), target[4000:]


def measured(logits, target, score, randomized, coverage, seed):
    """Coverage and mean size without and with a temperature, of one pair of halves."""
    order = np.random.default_rng(seed).permutation(len(target))
    val, test = (Predictions(logits[half], target[half]) for half in np.array_split(order, 2))
    scaling = TemperatureScaling().fit(val)
    numbers = []
    for pair in ((val, test), (scaling.transform(val), scaling.transform(test))):
        sets = prediction_sets(
            *pair, coverage=coverage, score=score, randomized=randomized, seed=seed
        )
        numbers += [sets.coverage, sets.mean_size]
    return numbers


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("--coverage", type=float, default=0.95)
    args = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore", CalibrationWarning)
    files = {
        name: args.folder / f"{name.lower().replace('-', '')}-cifar10-test.npz"
        for name in ("ResNet-20", "ResNet-56")
    }
    models = {name: network(file) for name, file in files.items()}
    models["linear, CIFAR-100"] = linear_classifier(
        files["ResNet-56"], args.data / "cifar100-labels.npz"
    )
    print(
        "| model (accuracy) | score | coverage | classes | coverage with temperature | classes with temperature |"
    )
    print("|---|---|---:|---:|---:|---:|")
    for name, (logits, target) in models.items():
        accuracy = float((logits.argmax(1) == target).double().mean())
        for score, randomized in SCORES:
            runs = [
                measured(logits, target, score, randomized, args.coverage, seed)
                for seed in range(HALVES)
            ]
            mean, spread = np.mean(runs, axis=0), np.std(runs, axis=0, ddof=1)
            cells = [f"{100 * mean[0]:.1f} %", f"{mean[1]:.2f} ± {spread[1]:.2f}"]
            cells += [f"{100 * mean[2]:.1f} %", f"{mean[3]:.2f} ± {spread[3]:.2f}"]
            kind = f"`{score}`, randomized" if randomized else f"`{score}`"
            print(f"| {name} ({100 * accuracy:.1f} %) | {kind} |", " | ".join(cells), "|")


if __name__ == "__main__":
    main()
