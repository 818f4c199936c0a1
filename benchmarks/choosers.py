"""Automatic choosers of other packages on problems of many classes; the protocol is in ``results/many/PROTOCOL.md``.

    python benchmarks/choosers.py --kept FOLDER --out results/many/choosers.csv

``--kept`` has the archives of ``many_classes.py build``. Wants smartcal 0.1.16 and calibre 0.4.0 in an environment of
their own, with pandas and safetensors, and this library on the path.
"""

from __future__ import annotations

import argparse
import csv
import multiprocessing
import resource
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import many_classes
import numpy as np
import torch
from calibrators import as_predicted, fit_of, normalized
from numpy.typing import NDArray
from scipy.stats import chi2

from fedlas.calibrators import CALIBRATORS, VectorScaling

Array = NDArray[Any]
Fit = Callable[[Array, Array], Callable[[Array], Array]]
PAIRS = (
    *("letters, network", "endings, forest", "maintainers, network"),
    *("countries, forest", "languages, naive Bayes"),
)
SIZE = 20
MOST_SECONDS = 150
LEVEL = 0.05


def log_odds(probs: Array) -> Array:
    """``log p_j / p_C``, the last class being the baseline, as the logarithms of probabilities."""
    log_probs = np.log(normalized(probs, 1e-12))
    return np.asarray(log_probs - log_probs[:, -1:])


def linear_log_odds(test_first: bool) -> Fit:
    """Multicategory linear log odds, ``d_j + g_j log(p_j / p_C)`` by maximum likelihood.

    With ``test_first`` predictions stay as they are unless the likelihood ratio test rejects that they are calibrated.
    """

    def fit(probs: Array, target: Array) -> Callable[[Array], Array]:
        val = many_classes.Predictions(torch.from_numpy(log_odds(probs)), torch.from_numpy(target))
        scaling = VectorScaling(num_folds=None).fit(val)

        def transform(test: Array) -> Array:
            logits = torch.from_numpy(log_odds(test))
            after = scaling.transform(many_classes.Predictions(logits))
            return after.probs

        rows = np.arange(len(target))
        before, after = (
            np.log(part[rows, target]).sum()
            for part in (normalized(probs, 1e-12), transform(probs))
        )
        p_value = chi2.sf(2 * (after - before), 2 * (probs.shape[1] - 1))
        return as_predicted(probs, target) if test_first and p_value > LEVEL else transform

    return fit


def smartcal(probs: Array, target: Array) -> Callable[[Array], Array]:
    """smartcal: five recommended calibrators, ten steps of Bayesian optimization, its defaults."""
    from smartcal import SmartCal

    chooser = SmartCal(metric="ECE")
    chooser.recommend_calibrators(target, probs, n=5)
    best = chooser.best_fitted_calibrator(target, probs, n_iter=10)
    return lambda test: np.asarray(best.predict(test))


def calibre(probs: Array, target: Array) -> Callable[[Array], Array]:
    """I-splines of calibre, whose penalty it cross-validates, one class against the rest."""
    from calibre import ISplineCalibrator

    curves = [
        ISplineCalibrator().fit(probs[:, number], (target == number).astype(float))
        for number in range(probs.shape[1])
    ]

    def transform(test: Array) -> Array:
        columns = [curve.transform(test[:, number]) for number, curve in enumerate(curves)]
        return normalized(np.stack(columns, axis=1), 1e-12)

    return transform


FITS: dict[str, Fit] = {
    "as predicted": as_predicted,
    "temperature": fit_of(CALIBRATORS["temperature"].value),
    "vector": fit_of(CALIBRATORS["vector"].value),
    "auto": fit_of(CALIBRATORS["auto"].value),
    "linear log odds": linear_log_odds(test_first=False),
    "linear log odds, tested": linear_log_odds(test_first=True),
    "calibre I-splines": calibre,
    "smartcal": smartcal,
}


def in_child(fit: Fit, case: Any, out: Any) -> None:
    """Put the scores into a queue; the system ends what takes too long."""
    resource.setrlimit(resource.RLIMIT_CPU, (MOST_SECONDS, MOST_SECONDS))
    many_classes.MOST_SECONDS = 10 * MOST_SECONDS
    out.put(many_classes.scored(fit, case))


def main() -> None:
    """Add a line for each pair and calibrator that has none yet."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kept", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    done = set()
    if args.out.is_file():
        with args.out.open() as file:
            done = {(row["pair"], row["calibrator"]) for row in csv.DictReader(file)}
    nothing = {**dict.fromkeys(many_classes.METRICS, np.nan), "seconds": MOST_SECONDS}
    for pair in PAIRS:
        case = many_classes.split(args.kept / f"{pair}.npz", SIZE)
        about = (pair, SIZE, 0, len(case[0]), case[0].shape[1])
        for name, fit in FITS.items():
            if (pair, name) in done:
                continue
            queue: Any = multiprocessing.Queue()
            child = multiprocessing.Process(target=in_child, args=(fit, case, queue))
            child.start()
            child.join()
            row, error = queue.get() if child.exitcode == 0 else (nothing, f"over {MOST_SECONDS} s")
            many_classes.add(args.out, about, name, row, error)


if __name__ == "__main__":
    main()
