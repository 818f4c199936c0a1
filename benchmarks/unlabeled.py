"""What unlabeled samples show: the tables of ``docs/binary.md``.

    python benchmarks/unlabeled.py --real FOLDER [--kept FOLDER] [--seeds 10]

``--real`` holds ``resnet20-cifar10-test.npz`` with ``logits`` and ``target`` of the 10,000 test images. ``--kept``
holds the logits of corrupted images that ``benchmarks/published_network.py`` keeps, ``NAME-SEVERITY.npz`` with the
array ``resnet20``; without it the table on accuracy is left out.

Each seed splits the test images into 5,000 to fit on and 5,000 to test on. For label shift 2,000 samples are drawn from
the second half, with replacement and with shares of the classes from a Dirichlet distribution, whose concentration
follows the name of the data; the digits are scikit-learn's, with noise, by its logistic regression. For accuracy the
second half is corrupted, and its labels are used only to measure the error of the estimate. Numbers are means over the
seeds and their standard deviation.
"""

from __future__ import annotations

import argparse
import warnings
from collections import defaultdict
from pathlib import Path

import numpy as np
import torch

from fedlas import Predictions
from fedlas.calibrators import LabelShift, TemperatureScaling
from fedlas.metrics import evaluate
from fedlas.stats import accuracy_without_labels

METHODS = ("atc-entropy", "atc-confidence", "difference", "mean-confidence")
BASES = ("none", "temperature", "bias-corrected")


def take(predictions: Predictions, rows: np.ndarray) -> Predictions:
    index = torch.as_tensor(rows)
    return Predictions(predictions.logits[index], predictions.target[index])


def halves(samples: int, seed: int) -> list[np.ndarray]:
    return np.array_split(np.random.default_rng(seed).permutation(samples), 2)


def digits(seed: int) -> tuple[Predictions, Predictions]:
    """Predictions of a logistic regression on 600 digits, for 600 to fit on and 597 to draw from."""
    from sklearn.datasets import load_digits
    from sklearn.linear_model import LogisticRegression

    x, y = load_digits(return_X_y=True)
    x = x / 16 + 0.25 * np.random.default_rng(0).normal(size=x.shape)  # without noise hardly any is mistaken
    parts = np.array_split(np.random.default_rng(seed).permutation(len(y)), 3)
    model = LogisticRegression(C=10.0, max_iter=2000).fit(x[parts[0]], y[parts[0]])
    val, test = (Predictions(model.decision_function(x[rows]), y[rows]) for rows in parts[1:])
    return val, test


def show(name: str, columns: dict[str, list[float]], form: str, first: str = "") -> None:
    """A row of a table, and before the first one its head."""
    if not show.known:
        print("| | " + " | ".join(columns) + " |\n|---|" + "---:|" * len(columns))
    show.known = True
    forms = [first or form] + [form] * (len(columns) - 1)
    cells = [
        f"{np.mean(values):{each}} ± {np.std(values, ddof=1):{each.strip('+')}}"
        for each, values in zip(forms, columns.values(), strict=True)
    ]
    print(f"| {name} | " + " | ".join(cells) + " |", flush=True)


def label_shift(sources: dict, seeds: int) -> None:
    """NLL before and after, and half the summed distance of the shares from those of the labels."""
    show.known = False
    for name, source in sources.items():
        for concentration in (0.1, 1.0, 10.0):
            nll, off = defaultdict(list), defaultdict(list)
            for seed in range(seeds):
                val, pool = source(seed)
                random = np.random.default_rng(1000 + seed)
                shares = random.dirichlet(np.full(val.num_classes, concentration))
                labels = random.choice(val.num_classes, size=2000, p=shares)
                target = pool.target.numpy()
                test = take(pool, np.array([random.choice(np.flatnonzero(target == label)) for label in labels]))
                real = np.bincount(test.target, minlength=val.num_classes) / 2000

                fits = {"no shift": LabelShift().fit(val)}
                fits |= {f"EM, {base}": LabelShift(base=base).fit(val).adapt(test.logits) for base in BASES}
                fits["known shares"] = LabelShift(prior=np.maximum(shares, 1e-9)).fit(val)
                nll["NLL as predicted"].append(evaluate(test)["nll"])
                for fit, calibrator in fits.items():
                    nll[f"NLL {fit}"].append(evaluate(calibrator.transform(test))["nll"])
                    distance = 0.5 * np.abs(calibrator.target_prior.numpy() - real).sum()
                    off[f"shares off by, {fit}"].append(distance)
            show(f"{name}, {concentration:g}", nll | off, ".3f")


def accuracy(real: Predictions, kept: Path, seeds: int) -> None:
    """Accuracy, and how far estimates are from it, in percentage points."""
    show.known = False
    total = defaultdict(list)
    for path in [None, *sorted(kept.glob("*-[0-9].npz"), key=lambda path: (path.stem[-1], path.stem))]:
        logits = real.logits if path is None else np.load(path)["resnet20"]
        changed, found = Predictions(logits, real.target), defaultdict(list)
        for seed in range(seeds):
            fit, rest = halves(real.num_samples, seed)
            val, test = take(real, fit), take(changed, rest)
            scaling = TemperatureScaling().fit(val)
            right = float(test.correct.double().mean())
            found["accuracy, %"].append(100 * right)
            pairs = {method: (scaling.transform(val), scaling.transform(test), method) for method in METHODS}
            pairs["mean-confidence, not calibrated"] = val, test, "mean-confidence"
            for name, (source, target, method) in pairs.items():
                estimate = accuracy_without_labels(source, target, method=method, replicates=39).value
                found[name].append(100 * (estimate - right))
        name = "clean" if path is None else path.stem
        show(name, found, "+.1f", first=".1f")
        for method in list(found)[1:]:
            total[name[-1] if path else name, method].append(abs(np.mean(found[method])))
    for (severity, method), values in total.items():
        print(f"severity {severity}, {method}: mean absolute error {np.mean(values):.1f}, worst {max(values):.1f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--real", type=Path, required=True)
    parser.add_argument("--kept", type=Path)
    parser.add_argument("--seeds", type=int, default=10)
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    given = np.load(args.real / "resnet20-cifar10-test.npz")
    real = Predictions(given["logits"], given["target"].astype(np.int64))

    def cifar(seed: int) -> tuple[Predictions, ...]:
        return tuple(take(real, rows) for rows in halves(real.num_samples, seed))

    label_shift({"CIFAR-10, ResNet-20": cifar, "digits, logistic": digits}, args.seeds)
    if args.kept is not None:
        accuracy(real, args.kept, args.seeds)


if __name__ == "__main__":
    main()
