"""Does ``auto`` with side information repair more than logits can? See results/side-information/PROTOCOL.md.

    python benchmarks/side_information.py base --cache FOLDER                # train, predict; resumes where it stopped
    python benchmarks/side_information.py rivals --cache FOLDER [--peers]    # everything but the new calibrator
    python benchmarks/side_information.py side --cache FOLDER                # auto with and without side information
    python benchmarks/side_report.py --cache FOLDER results/side-information

``--seeds`` and ``--only`` choose a part. Scores go to ``FOLDER/scores.jsonl``, one line for each calibrator.
"""

from __future__ import annotations

import argparse
import json
import logging
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import side_data
import torch
from numpy.typing import NDArray
from torch import Tensor

import fedlas
from fedlas import Predictions
from fedlas.calibrators import AutoCalibration
from fedlas.metrics import (
    accuracy,
    aurc,
    brier,
    nll,
    smooth_ece,
)

sys.path.append(str(Path(__file__).parent / "arena"))
import arena
import calibrators
import data
from train import Method, train

Array = NDArray[Any]
METRICS = {
    "nll": nll,
    "brier": brier,
    "aurc": aurc,
    "smooth_ece": smooth_ece,
    "accuracy": accuracy,
}
KINDS = ("mlp", "forest", "boosting")
FOLDS = 5
MOST_SECONDS = 60


@dataclass(frozen=True)
class Case:
    """Logits, side information and labels to fit on and to test."""

    val: Array
    val_side: Array
    val_target: Array
    test: Array
    test_side: Array
    test_target: Array


# Base models.


def classifier(kind: str, seed: int) -> Any:
    """A model of scikit-learn with its defaults."""
    from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier

    if kind == "forest":
        return RandomForestClassifier(100, random_state=seed)
    return HistGradientBoostingClassifier(random_state=seed)


@dataclass(frozen=True)
class Learned:
    """What a model says on validation and test samples of one seed; ``place`` is a network's checkpoint."""

    val: Array
    test: Array
    val_side: Array
    test_side: Array
    place: int = 0


def split_of(inputs: Array, target: Array, seed: int, sizes: Any = side_data.SIZES) -> data.Split:
    """The samples of one seed, as the arena's training takes them."""
    parts = side_data.rows_of(len(target), seed, sizes)
    columns = side_data.scaled(inputs, parts[0]).astype(np.float32)
    made = [
        data.Part(torch.from_numpy(columns[rows])[None], torch.from_numpy(target[rows])[None])
        for rows in parts
    ]
    return data.Split(*made, num_classes=int(target.max()) + 1)


def learn(
    kind: str,
    split: data.Split,
    seed: int,
    *,
    place: int | None = None,
    method: Method | None = None,
) -> Learned:
    """Train on the split's training samples; a network's epoch has the lowest NLL after the best temperature."""
    if kind == "mlp":
        method = method or Method(arena.CrossEntropy())
        outputs, _ = train(split, method, first_seed=seed)
        if place is None:
            place = int(arena.RULES["refined"](outputs.val, split.val.target).argmin(dim=0)[0])
        arrays = (
            getattr(outputs, name)[place, 0]
            for name in ("val", "test", "val_features", "test_features")
        )
        return Learned(*(each.double().numpy() for each in arrays), place)
    inputs = [part.inputs[0].double().numpy() for part in (split.train, split.val, split.test)]
    model = classifier(kind, seed).fit(inputs[0], split.train.target[0].numpy())
    logits = []
    for part in inputs[1:]:
        probs = np.zeros((len(part), split.num_classes))
        probs[:, model.classes_] = model.predict_proba(part)
        logits.append(np.log(calibrators.normalized(probs)))
    return Learned(*logits, *inputs[1:])


def with_rows(split: data.Split, train_rows: Tensor, val_rows: Tensor) -> data.Split:
    """Rows of training and validation samples together, in other roles."""
    inputs = torch.cat([split.train.inputs, split.val.inputs], dim=1)
    target = torch.cat([split.train.target, split.val.target], dim=1)
    parts = (data.Part(inputs[:, rows], target[:, rows]) for rows in (train_rows, val_rows))
    return data.Split(*parts, split.test, split.num_classes)


def retrained(kind: str, split: data.Split, seed: int) -> dict[str, Array]:
    """Held-out predictions of five folds of all labels, and the tests of a model that all labels trained."""
    count = split.train.target.shape[1] + split.val.target.shape[1]
    rows, parts, order = torch.arange(count), [], []
    for fold in range(FOLDS):
        out = rows[rows % FOLDS == fold]
        parts.append(learn(kind, with_rows(split, rows[rows % FOLDS != fold], out), seed))
        order.append(out)
    place = int(np.median([part.place for part in parts]))
    whole = learn(kind, with_rows(split, rows, rows[:1]), seed, place=place)
    everything = with_rows(split, rows, torch.cat(order)).val
    return {
        "val": np.concatenate([part.val for part in parts]),
        "val_side": everything.inputs[0].double().numpy(),
        "val_target": everything.target[0].numpy(),
        "test": whole.test,
        "test_side": split.test.inputs[0].double().numpy(),
        "test_target": split.test.target[0].numpy(),
    }


def stored(path: Path, make: Callable[[], dict[str, Array]]) -> Any:
    """Arrays of a file that is made once."""
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f"part-{path.name}")
        np.savez(part, **make())
        part.rename(path)
    return np.load(path)


def case_of(cache: Path, name: str, kind: str, seed: int) -> Case:
    """Predictions of a model on a data set."""

    def make() -> dict[str, Array]:
        split = split_of(*side_data.samples(name, cache), seed)
        got = learn(kind, split, seed)
        target = {
            "val_target": split.val.target[0].numpy(),
            "test_target": split.test.target[0].numpy(),
        }
        sides = {"val_side": got.val_side, "test_side": got.test_side}
        return {"val": got.val, "test": got.test, **sides, **target}

    return Case(**stored(cache / "base" / f"{name}-{kind}-{seed}.npz", make))


def retrained_of(cache: Path, name: str, kind: str, seed: int) -> Case:
    """Predictions of a model that validation labels trained too."""

    def make() -> dict[str, Array]:
        return retrained(kind, split_of(*side_data.samples(name, cache), seed), seed)

    return Case(**stored(cache / "retrained" / f"{name}-{kind}-{seed}.npz", make))


def folds_of(cache: Path, name: str, kind: str, seed: int) -> list[Case]:
    """The arena's cross-fitting: two more models, each of which has not seen another part of the labels."""

    def make(fold: int) -> dict[str, Array]:
        split = data.folded(split_of(*side_data.samples(name, cache), seed), fold)
        got = learn(kind, split, seed + 100 * fold)
        target = {
            "val_target": split.val.target[0].numpy(),
            "test_target": split.test.target[0].numpy(),
        }
        nothing = {"val_side": np.zeros(0), "test_side": np.zeros(0)}
        return {"val": got.val, "test": got.test, **nothing, **target}

    paths = [cache / "folds" / f"{name}-{kind}-{seed}-{fold}.npz" for fold in (1, 2)]
    others = [
        Case(**stored(path, lambda fold=fold: make(fold))) for fold, path in enumerate(paths, 1)
    ]
    return [case_of(cache, name, kind, seed), *others]


# Calibrators; each returns log-probabilities of the test samples.


def predictions(case: Case, *, side: bool) -> tuple[Predictions, Predictions]:
    """Validation and test samples."""
    val, test, target = (torch.from_numpy(each) for each in (case.val, case.test, case.val_target))
    sides = (
        [torch.from_numpy(each) for each in (case.val_side, case.test_side)]
        if side
        else [None, None]
    )
    return Predictions(val, target, features=sides[0]), Predictions(test, features=sides[1])


def auto(case: Case, *, side: bool = False) -> Tensor:
    """``auto``, with or without side information."""
    val, test = predictions(case, side=side)
    return AutoCalibration().fit(val).transform(test).logits.log_softmax(1)


def by_probabilities(fit: Any) -> Callable[[Case], Tensor]:
    """A calibrator of ``calibrators.py``."""

    def run(case: Case) -> Tensor:
        before = [
            calibrators.normalized(np.exp(log_softmax(logits))) for logits in (case.val, case.test)
        ]
        after = np.asarray(fit(before[0], case.val_target)(before[1]), dtype=np.float64)
        if after.shape != case.test.shape or not np.isfinite(after).all():
            raise ValueError("no probabilities of all classes")
        return torch.from_numpy(after).clamp(min=0).log()

    return run


def log_softmax(logits: Array) -> Array:
    """Log-probabilities."""
    return torch.from_numpy(logits).log_softmax(1).numpy()


def norm_temperature(case: Case) -> Tensor:
    """FedLAS's indicator after training: ``softmax(z exp(a + b s))``, with s the standardized log norm of features."""
    norms = [
        torch.from_numpy(each).norm(dim=1).clamp(min=1e-6).log()
        for each in (case.val_side, case.test_side)
    ]
    mean, deviation = norms[0].mean(), norms[0].std().clamp(min=1e-6)
    val, test = ((norm - mean) / deviation for norm in norms)
    logits, target = (
        torch.from_numpy(np.maximum(log_softmax(case.val), -20)),
        torch.from_numpy(case.val_target),
    )
    numbers = torch.zeros(2, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([numbers], max_iter=100, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        value = torch.nn.functional.cross_entropy(
            logits * (numbers[0] + numbers[1] * val).exp()[:, None], target
        )
        value = value + numbers.pow(2).sum() / 2 / len(target)
        value.backward()
        return value

    optimizer.step(loss)
    a, b = numbers.tolist()
    scale = (a + b * test.clamp(-5, 5)).exp()[:, None]
    return (torch.from_numpy(np.maximum(log_softmax(case.test), -20)) * scale).log_softmax(1)


def logistic_of_side(case: Case) -> Tensor:
    """Logistic regression on side information alone; five folds choose its ridge."""
    from sklearn.linear_model import LogisticRegressionCV
    from sklearn.preprocessing import StandardScaler

    scaler = StandardScaler().fit(case.val_side)
    val, test = (scaler.transform(each).clip(-8, 8) for each in (case.val_side, case.test_side))
    ridges = [1e-4, 1e-3, 1e-2, 1e-1, 1.0]
    model = LogisticRegressionCV(Cs=ridges, cv=FOLDS, scoring="neg_log_loss", max_iter=200).fit(
        val, case.val_target
    )
    probs = np.zeros(case.test.shape)
    probs[:, model.classes_] = model.predict_proba(test)
    return torch.from_numpy(calibrators.normalized(probs, 1e-6)).log()


def mean_of_calibrated(cases: list[Case]) -> Tensor:
    """One ``auto`` for the held-out predictions of all models, then the mean of their probabilities."""
    val = np.concatenate([case.val for case in cases])
    target = np.concatenate([case.val_target for case in cases])
    after = [
        AutoCalibration().fit(Predictions(torch.from_numpy(val), torch.from_numpy(target)))
    ] * len(cases)
    tests = (Predictions(torch.from_numpy(case.test)) for case in cases)
    logs = [
        each.transform(test).logits.log_softmax(1) for each, test in zip(after, tests, strict=True)
    ]
    return torch.stack(logs).logsumexp(0) - np.log(len(cases))


def scores(log_probs: Tensor, target: Array) -> dict[str, float]:
    """Metrics of probabilities that are 1e-12 at least."""
    probs = calibrators.normalized(log_probs.exp().numpy(), calibrators.LEAST)
    test = Predictions(torch.from_numpy(np.log(probs)), torch.from_numpy(target))
    return {name: float(metric(test)) for name, metric in METRICS.items()}


# Runs.


def commit_of(path: str | None) -> str:
    """The commit of a checkout."""
    call = [
        "git",
        "-C",
        str(Path(str(path)).parent),
        "describe",
        "--always",
        "--dirty",
        "--exclude",
        "*",
    ]
    return subprocess.run(call, capture_output=True, text=True, check=True).stdout.strip()


def late(*_: object) -> None:
    """Stop what takes too long."""
    raise TimeoutError


class Log:
    """Lines of JSON; what they hold already is not run again."""

    def __init__(self, path: Path) -> None:
        self.path = path
        signal.signal(signal.SIGPROF, late)
        path.parent.mkdir(parents=True, exist_ok=True)
        lines = map(json.loads, path.read_text().splitlines()) if path.is_file() else iter(())
        self.done = {self.key(line) for line in lines}
        self.commits = {"commit": commit_of(__file__), "library": commit_of(fedlas.__file__)}

    @staticmethod
    def key(line: dict[str, Any]) -> tuple[Any, ...]:
        """What makes a line one of its kind."""
        return tuple(line[name] for name in ("part", "data", "model", "seed", "calibrator"))

    def run(
        self, about: dict[str, Any], work: Callable[[], Tensor], target: Callable[[], Array]
    ) -> None:
        """Score one calibrator; what fails or takes too long is a line too."""
        if self.key(about) in self.done:
            return
        began, line = time.process_time(), dict(about)
        signal.setitimer(signal.ITIMER_PROF, MOST_SECONDS)
        try:
            result = work()
            signal.setitimer(signal.ITIMER_PROF, 0)
            line["seconds"] = round(time.process_time() - began, 3)
            line |= scores(result, target())
        except Exception as failure:  # noqa: BLE001 (what a peer raises is its own)
            line["error"] = f"{type(failure).__name__}: {failure}"[:200]
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0)
        with self.path.open("a") as file:
            file.write(json.dumps({**line, **self.commits}) + "\n")


def pairs(args: argparse.Namespace) -> Iterator[tuple[dict[str, Any], int]]:
    """Data sets, models and seeds; all data sets of a seed before the next seed."""
    for seed in args.seeds:
        for name in args.only or side_data.NAMES:
            for kind in args.models:
                yield {"data": name, "model": kind}, seed


def run_base(args: argparse.Namespace, _: Log) -> None:
    """Train and predict."""
    for about, seed in pairs(args):
        started = time.process_time()
        case_of(args.cache, about["data"], about["model"], seed)
        if seed in args.retrain:
            retrained_of(args.cache, about["data"], about["model"], seed)
            folds_of(args.cache, about["data"], about["model"], seed)
        print(about, seed, f"{time.process_time() - started:.1f} s", flush=True)


def run_rivals(args: argparse.Namespace, log: Log) -> None:
    """Calibrators of logits, and what needs no new calibrator."""
    works: dict[str, Callable[[Case], Tensor]] = {
        "as predicted": lambda case: torch.from_numpy(case.test)
    }
    works |= {name: by_probabilities(fit) for name, fit in calibrators.ours().items()}
    works |= {"norm temperature": norm_temperature, "logistic regression on side": logistic_of_side}
    if args.peers:
        works |= {name: by_probabilities(fit) for name, fit in calibrators.peers().items()}
    for about, seed in pairs(args):
        case = case_of(args.cache, about["data"], about["model"], seed)
        for name, work in works.items():
            key = {"part": "main", **about, "seed": seed, "calibrator": name}
            log.run(
                key, lambda work=work, case=case: work(case), lambda case=case: case.test_target
            )
        if seed in args.retrain:
            place = (args.cache, about["data"], about["model"], seed)
            key = {"part": "main", **about, "seed": seed, "calibrator": "retrained, auto"}
            log.run(
                key,
                lambda place=place: auto(retrained_of(*place)),
                lambda case=case: case.test_target,
            )
            key = {"part": "main", **about, "seed": seed, "calibrator": "arena's cross-fitting"}
            log.run(
                key,
                lambda place=place: mean_of_calibrated(folds_of(*place)),
                lambda case=case: case.test_target,
            )
        print(about, seed, flush=True)


def run_side(args: argparse.Namespace, log: Log) -> None:
    """``auto`` with and without side information, by the same code."""
    for about, seed in pairs(args):
        case = case_of(args.cache, about["data"], about["model"], seed)
        for name, side in (("auto, side", True), ("auto, logits", False)):
            key = {"part": "main", **about, "seed": seed, "calibrator": name}
            log.run(
                key,
                lambda case=case, side=side: auto(case, side=side),
                lambda case=case: case.test_target,
            )
        if seed in args.retrain:
            place = (args.cache, about["data"], about["model"], seed)
            key = {"part": "main", **about, "seed": seed, "calibrator": "retrained, auto, side"}
            log.run(
                key,
                lambda place=place: auto(retrained_of(*place), side=True),
                lambda case=case: case.test_target,
            )
        print(about, seed, flush=True)


def main() -> None:
    """Run what the first argument names."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parts = {"base": run_base, "rivals": run_rivals, "side": run_side}
    parser.add_argument("what", choices=parts)
    parser.add_argument(
        "--cache", type=Path, required=True, help="folder of data, predictions and scores"
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=list(side_data.SEEDS))
    parser.add_argument(
        "--retrain", type=int, nargs="*", default=[0, 1], help="seeds with retraining"
    )
    parser.add_argument("--only", nargs="+", help="data sets")
    parser.add_argument("--models", nargs="+", default=list(KINDS), choices=KINDS)
    parser.add_argument(
        "--peers", action="store_true", help="calibrators of other packages as well"
    )
    parser.add_argument("--log", default="scores.jsonl", help="name of the file of scores")
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    torch.set_num_threads(1)
    parts[args.what](args, Log(args.cache / args.log))


if __name__ == "__main__":
    main()
