"""Features of a network's head for several labels: pooled coefficients against ``auto`` a label, one try.

    python benchmarks/labels_features.py run --sources FOLDER --problems mosaics --out results/labels/features.csv
    python benchmarks/labels_features.py table --out results/labels/features.csv

``FOLDER`` is that of ``labels_data.py``. A network of one hidden layer of 100 units is trained on 4,000 samples; the
units are the features. Behind partial pooling, cross-fitted by five folds, stand the ``k`` widest principal directions
of the features of the labeled rows, whitened and clipped at 4. A label's coefficients of them are drawn from a normal
distribution with mean 0 and a variance a direction that all labels share, by EM: 12 rounds of two Newton steps.
"""

from __future__ import annotations

import argparse
import csv
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import labels as bench
import labels_data
import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from sklearn.decomposition import PCA, TruncatedSVD
from sklearn.feature_extraction.text import HashingVectorizer, TfidfTransformer
from sklearn.neural_network import MLPClassifier
from sklearn.preprocessing import StandardScaler

from fedlas.calibrators import MultiLabelCalibration

Array = NDArray[Any]
TRAIN, DRAWS, SIZES, DIRECTIONS = 4000, 3, (100, 300, 1000), (4, 16, 64)
COLUMNS = ("problem", "rows", "draw", "calibrator", "nll", "seconds")


def network(name: str, sources: Path) -> tuple[Array, Array, Array]:
    """Features, logits and labels of samples that the network has not seen."""
    inputs, target, _ = labels_data.arrays_of(name, sources)
    kind = labels_data.PROBLEMS[name][1]
    if kind in ("letters", "words"):
        units: dict[str, Any] = {"analyzer": "word"}
        if kind == "letters":
            units = {"analyzer": "char_wb", "ngram_range": (1, 3)}
        hashed = HashingVectorizer(norm=None, alternate_sign=False, n_features=2**15, **units)
        counts = hashed.transform(inputs)
        shares = TfidfTransformer(sublinear_tf=True).fit(counts[:TRAIN]).transform(counts)
        dense = TruncatedSVD(64, random_state=0).fit(shares[:TRAIN]).transform(shares)
    else:
        dense = np.array(inputs, dtype=float)
        if kind == "pixels":
            dense = PCA(64, random_state=0).fit(dense[:TRAIN]).transform(dense)
    dense = StandardScaler().fit(dense[:TRAIN]).transform(dense)
    model = MLPClassifier((100,), max_iter=40, random_state=0).fit(dense[:TRAIN], target[:TRAIN])
    hidden = np.maximum(dense[TRAIN:] @ model.coefs_[0] + model.intercepts_[0], 0)
    logits = hidden @ model.coefs_[1] + model.intercepts_[1]
    return hidden.astype(np.float32), logits.astype(np.float32), target[TRAIN:].astype(np.int64)


def pooled_coefficients(offset: Array, target: Array, inputs: Array) -> Array:
    """Coefficients of each label ``(L, k)``, from offsets and labels ``(n, L)`` and directions ``(n, k)``."""
    weight = np.zeros((target.shape[1], inputs.shape[1]))
    variance = np.full(inputs.shape[1], 0.01)
    for _ in range(12):
        for _ in range(2):
            probs = bench.sigmoid(offset + inputs @ weight.T)
            slope = (target - probs).T @ inputs - weight / variance
            spread = probs * (1 - probs)
            curvature = np.einsum("nl,ni,nj->lij", spread, inputs, inputs, optimize=True)
            covariance = np.linalg.inv(curvature + np.diag(1 / variance))
            weight = weight + np.clip(np.einsum("lij,lj->li", covariance, slope), -1, 1)
        variance = (weight**2 + np.diagonal(covariance, axis1=1, axis2=2)).mean(axis=0) + 1e-6
    return weight


def calibrators(
    fit: tuple[Array, ...], test: tuple[Array, Array]
) -> Iterator[tuple[str, Array, float]]:
    """Names, probabilities of the test rows, and processor seconds."""
    hidden, logits, target = fit
    yield "raw", bench.sigmoid(test[1]), 0.0

    def ours(method: str, rows: Any, others: Array, features: Array | None = None) -> Array:
        tensors = [torch.from_numpy(each) for each in (logits[rows], target[rows])]
        more = [] if features is None else [torch.from_numpy(hidden[rows])]
        behind = [] if features is None else [torch.from_numpy(features)]
        fitted = MultiLabelCalibration(method).fit(*tensors, *more)
        return fitted.transform(torch.from_numpy(others), *behind).double().numpy()

    every = np.ones(len(logits), dtype=bool)
    for name, features in (("auto a label", None), ("auto a label, features", test[0])):
        began = time.process_time()
        odds = ours("auto", every, test[1], features)
        yield name, bench.sigmoid(odds), time.process_time() - began
    began = time.process_time()
    odds = ours("partial-pooling", every, test[1])
    seconds = time.process_time() - began
    yield "partial pooling", bench.sigmoid(odds), seconds
    offset = np.empty(target.shape)
    fold = np.random.RandomState(1).permutation(len(logits)) % 5
    for number in range(5):
        offset[fold == number] = ours("partial-pooling", fold != number, logits[fold == number])
    seconds = time.process_time() - began
    for count in DIRECTIONS:
        began = time.process_time()
        turn = PCA(min(count, len(hidden) - 1), whiten=True, random_state=0).fit(hidden)
        inside, others = (np.clip(turn.transform(each), -4, 4) for each in (hidden, test[0]))
        weight = pooled_coefficients(offset, target, inside)
        probs = bench.sigmoid(odds + others @ weight.T)
        yield f"partial pooling, {count} directions", probs, seconds + time.process_time() - began


def run(args: argparse.Namespace) -> None:
    """Write a line for each problem, number of rows, draw and calibrator."""
    with args.out.open("a", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        if not file.tell():
            writer.writerow(COLUMNS)
        for problem in args.problems:
            hidden, logits, target = network(problem, args.sources)
            for draw in range(DRAWS):
                order = np.random.RandomState(draw).permutation(len(logits))
                test, rest = order[: bench.TEST], order[bench.TEST :]
                for size in SIZES:
                    fit = tuple(each[rest[:size]] for each in (hidden, logits, target))
                    for name, probs, seconds in calibrators(fit, (hidden[test], logits[test])):
                        nll = bench.nll_of_labels(probs, target[test]).mean()
                        writer.writerow((problem, size, draw, name, f"{nll:.6f}", f"{seconds:.2f}"))
                        file.flush()


def table(frame: pd.DataFrame) -> str:
    """NLL of each calibrator, mean over draws, and the seconds of a fit."""
    names = list(dict.fromkeys(frame.calibrator))
    mean = frame.groupby(["problem", "rows", "calibrator"])[["nll", "seconds"]].mean().unstack()
    rows = []
    for (problem, size), part in mean.iterrows():
        cells = [f"{part['nll'][name]:.4f} ({part['seconds'][name]:.1f} s)" for name in names]
        rows.append([problem, f"{size:,}", *cells])
    return bench.markdown(["problem", "rows", *names], rows)


def main() -> None:
    """Run, or print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=("run", "table"))
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--sources", type=Path)
    parser.add_argument("--problems", nargs="*", default=["mosaics"])
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    if args.what == "run":
        run(args)
    else:
        print(table(pd.read_csv(args.out)))


if __name__ == "__main__":
    main()
