"""Time of fedlas over the best other library, work by work, in processor time of one thread.

    python benchmarks/peers.py [--rounds 7] [--only WORD ...] [--out FILE.json]
    python benchmarks/peers.py --check [--out FILE.json]     # fails where a ratio is 20 % above the last release's

Ours and theirs take turns in one process, so that a busy machine slows all of them; a ratio is that of the medians.
Libraries that are not installed are left out and named. The last release's ratios are in
``results/speed/peers-<instruction set>.json``; ratios of another instruction set are not compared.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import io
import json
import statistics
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import calibrators
import losses
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from fedlas import Predictions, estimates, evaluate
from fedlas.calibrators import CALIBRATORS
from fedlas.metrics import METRICS, StreamingMetrics
from fedlas.stats import bootstrap_interval
from fedlas.zoo.ood import OOD_SCORES

RELEASED = Path(__file__).parent.parent / "results" / "speed"
SLOWER = 1.2
PEERS = (
    "torchmetrics",
    "netcal",
    "probmetrics",
    "relplot",
    "torch_uncertainty",
    "pytorch_ood",
    "sklearn",
)
Work = Callable[[], object]


@dataclass(frozen=True)
class Row:
    """One kind of work: ours, and that of others by the name of the library."""

    name: str
    ours: Work
    others: dict[str, Work]


def draw(samples: int, classes: int) -> tuple[Tensor, Tensor]:
    """Return logits and labels of an over-confident model."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(samples, classes, generator=generator) * 3
    return logits, torch.multinomial((logits / 1.5).softmax(1), 1, generator=generator).squeeze(1)


def library(name: str) -> Any:
    """Return a module, or None if it is not installed."""
    try:
        return importlib.import_module(name)
    except ImportError:
        return None


def present(**works: Work | None) -> dict[str, Work]:
    """Return the works whose library is installed."""
    return {name.replace("_", "-"): work for name, work in works.items() if work is not None}


def one_pass(samples: int, classes: int) -> Row:
    logits, target = draw(samples, classes)
    predictions = Predictions(logits, target)
    return Row(
        "evaluate",
        lambda: evaluate(predictions),
        {"softmax + max": lambda: logits.softmax(1).max(1)},
    )


def ece(samples: int, classes: int) -> Row:
    logits, target = draw(samples, classes)
    probs = logits.softmax(1)
    metrics = library("torchmetrics.functional.classification")
    theirs = metrics and (
        lambda: metrics.multiclass_calibration_error(probs, target, classes, n_bins=15)
    )
    work = METRICS["ece"].value
    return Row(
        "ECE of probabilities",
        lambda: work(Predictions.from_probs(probs, target)),
        present(torchmetrics=theirs),
    )


def stream(samples: int, classes: int) -> Row:
    logits, target = draw(samples, classes)
    ours = StreamingMetrics(classes, metrics=["ece"])
    metrics = library("torchmetrics.classification")
    theirs = metrics and metrics.MulticlassCalibrationError(classes, n_bins=15)

    def their_update() -> None:
        theirs.update(logits, target)
        theirs.reset()  # it keeps all confidences

    return Row(
        "update of a streaming ECE",
        lambda: ours.update(logits, target),
        present(torchmetrics=theirs and their_update),
    )


def nll(samples: int, classes: int) -> Row:
    logits, target = draw(samples, classes)
    predictions = Predictions(logits, target)
    theirs = {"torch": lambda: functional.cross_entropy(logits, target)}
    return Row("NLL", lambda: METRICS["nll"].value(predictions), theirs)


def smooth(samples: int, classes: int) -> Row:
    logits, target = draw(samples, classes)
    predictions, relplot = Predictions(logits, target), library("relplot")

    def their_error() -> None:
        confidence, predicted = logits.softmax(1).max(1)
        relplot.smECE(confidence.double().numpy(), (predicted == target).double().numpy())

    return Row(
        "smooth ECE",
        lambda: METRICS["smooth_ece"].value(predictions),
        present(relplot=relplot and their_error),
    )


def aurc(samples: int, classes: int) -> Row:
    logits, target = draw(samples, classes)
    predictions, metrics = Predictions(logits, target), library("torch_uncertainty.metrics")

    def their_area() -> None:
        metric = metrics.AURC()
        metric.update(logits.softmax(1), target)
        metric.compute()

    return Row(
        "AURC",
        lambda: METRICS["aurc"].value(predictions),
        present(torch_uncertainty=metrics and their_area),
    )


def bootstrap(samples: int, classes: int) -> Row:
    logits, target = draw(samples, classes)
    predictions = Predictions(logits, target)

    def loop() -> None:
        """Draw confidences with their bins, and add up: what one writes by hand, for all replicates."""
        confidence, predicted = (each.numpy() for each in logits.softmax(1).max(1))
        gaps, bins = (
            confidence - (predicted == target.numpy()),
            np.ceil(confidence * 15).astype(np.int64) - 1,
        )
        random = np.random.default_rng(0)
        for _ in range(200):
            index = random.integers(0, samples, samples)
            np.abs(np.bincount(bins[index], gaps[index], 15)).sum()

    options: dict[str, Any] = {"replicates": 200, "method": "basic"}
    return Row(
        "200 replicates of ECE", lambda: bootstrap_interval(predictions, **options), {"numpy": loop}
    )


def smooth_bootstrap(samples: int, classes: int) -> Row:
    predictions = Predictions(*draw(samples, classes))
    options: dict[str, Any] = {"metric": "smooth_ece", "replicates": 1000, "method": "basic"}
    return Row("1,000 of smooth ECE", lambda: bootstrap_interval(predictions, **options), {})


def all_estimates(samples: int, classes: int) -> Row:
    predictions = Predictions(*draw(samples, classes))
    return Row(
        "estimates, 1,000 each",
        lambda: estimates(predictions),
        {"evaluate": lambda: evaluate(predictions)},
    )


def ood(score: str, detector: str) -> Callable[[int, int], Row]:
    """Return the row of a score and the detector of pytorch-ood that computes it."""

    def row(samples: int, classes: int) -> Row:
        logits, _ = draw(samples, classes)
        detectors, function = library("pytorch_ood.detector"), OOD_SCORES[score].value
        theirs = detectors and (lambda: getattr(detectors, detector).score(logits))
        return Row(f"OOD score {score}", lambda: function(logits), present(pytorch_ood=theirs))

    row.__name__ = f"ood_{score}"
    return row


def mahalanobis(samples: int, classes: int) -> Row:
    features, target = draw(samples, 64)[0], torch.arange(samples) % classes
    detectors, function = library("pytorch_ood.detector"), OOD_SCORES["mahalanobis"].value
    train = Predictions(torch.zeros(samples, classes), target, features=features)
    theirs = detectors and (
        lambda: (
            detectors.Mahalanobis(None).fit_features(features, target).predict_features(features)
        )
    )
    return Row(
        "OOD score Mahalanobis",
        lambda: function(features, train=train),
        present(pytorch_ood=theirs),
    )


def fit(name: str, *names: str, **options: Any) -> Callable[[int, int], Row]:
    """Return the row of a calibrator's fit and those of others, as ``benchmarks/calibrators.py`` calls them."""

    def row(samples: int, classes: int) -> Row:
        logits, target = draw(samples, classes)
        probs, labels = logits.double().softmax(1).numpy(), target.numpy()
        others = {other: calibrators.peers().get(other) for other in names}
        theirs = {
            other: partial(each, probs, labels)
            for other, each in others.items()
            if each is not None
        }
        work = partial(
            calibrators.fit_of(partial(CALIBRATORS[name].value, **options)), probs, labels
        )
        return Row(f"fit {name}{', one penalty' if options else ''}", work, theirs)

    row.__name__ = f"fit_{name}"
    return row


def loss(name: str) -> Callable[[int, int], Row]:
    """Return the row of a loss, forward and backward, and its formula written straight down in torch."""

    def row(samples: int, classes: int) -> Row:
        calls = losses.contestants([name], samples, classes, compiled=False)
        theirs = {"torch": lambda: calls[f"{name} by hand"]().backward()}
        return Row(f"loss {name}", lambda: calls[name]().backward(), theirs)

    row.__name__ = f"loss_{name}"
    return row


SMALL = [(128, 10)]
FITTED = [(10_000, 10)]
SHAPES: dict[Callable[[int, int], Row], list[tuple[int, int]]] = {
    one_pass: [(50_000, 1000), (1_000_000, 100), (1_000_000, 10)],
    ece: [(1_000_000, 10), (1_000_000, 100), (50_000, 1000)],
    stream: [(256, 10), (32, 10)],
    nll: [(50_000, 1000)],
    smooth: [(50_000, 1000)],
    aurc: [(1_000_000, 10)],
    bootstrap: [(100_000, 10)],
    smooth_bootstrap: [(10_000, 10)],
    all_estimates: [(10_000, 10), (50_000, 100)],
    ood("energy", "EnergyBased"): [(50_000, 1000)],
    ood("msp", "MaxSoftmax"): [(50_000, 1000)],
    ood("entropy", "Entropy"): [(50_000, 1000)],
    ood("max-logit", "MaxLogit"): [(50_000, 1000)],
    mahalanobis: [(50_000, 100)],
    fit(
        "temperature",
        "temp-scaling (probmetrics)",
        "Temperature (torch_uncertainty)",
        "temperature (sklearn)",
    ): FITTED,
    fit("ensemble-temperature", "ets (probmetrics)"): FITTED,
    fit("vector", "vector-scaling (probmetrics)", "Vector (torch_uncertainty)"): FITTED,
    fit(
        "vector", "vector-scaling (probmetrics)", "Vector (torch_uncertainty)", num_folds=None
    ): FITTED,
    fit("matrix", "matrix-scaling (probmetrics)", "Matrix (torch_uncertainty)"): FITTED,
    fit(
        "matrix",
        "matrix-scaling (probmetrics)",
        "Matrix (torch_uncertainty)",
        off_diagonal=1.0,
        intercept=1.0,
    ): FITTED,
    fit(
        "isotonic", "isotonic (probmetrics)", "isotonic (sklearn)", "IsotonicRegression (netcal)"
    ): FITTED,
    fit(
        "histogram-binning", "HistogramBinning (netcal)", "HistogramBinning (torch_uncertainty)"
    ): FITTED,
    fit("beta", "BetaCalibration (netcal)"): FITTED,
    loss("ce"): SMALL,
    loss("ls"): [(128, 10), (128, 100)],
    loss("mbls"): SMALL,
    loss("focal"): SMALL,
    loss("maxsup"): SMALL,
    loss("entropy-penalty"): SMALL,
    loss("dca"): SMALL,
    loss("fedlas"): [(128, 10), (128, 100), (256, 1000), (1024, 1000)],
}


def seconds(work: Work, least: float = 0.01) -> float:
    """Processor time of one call; of several where one is too short for the clock."""
    calls, spent = 0, 0.0
    while spent < least:
        start = time.process_time()
        work()
        spent += time.process_time() - start
        calls += 1
    return spent / calls


def measured(rounds: int, only: list[str]) -> Iterator[dict[str, Any]]:
    """Measure row by row."""
    for make, shapes in SHAPES.items():
        for samples, classes in shapes:
            if only and not any(word in make.__name__ for word in only):
                continue
            with contextlib.redirect_stdout(io.StringIO()):
                row = make(samples, classes)
            works = {"ours": row.ours, **row.others}
            times: dict[str, list[float]] = {name: [] for name in works}
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                for number in range(rounds + 1):  # the first round warms up
                    for name, work in works.items():
                        spent = seconds(work)
                        times[name] += [spent] if number else []
            median = {name: statistics.median(each) for name, each in times.items()}
            ours = median.pop("ours")
            best = min(median, key=median.__getitem__, default=None)
            ratio = None if best is None else ours / median[best]
            yield {
                "work": row.name,
                "shape": f"{samples:,} x {classes}",
                "ms": 1e3 * ours,
                "best": best,
                "ratio": ratio,
            }


def slower(rows: list[dict[str, Any]], released: Path) -> list[str]:
    """Return the rows whose ratio is much above that of the last release, as sentences."""
    before = {
        (each["work"], each["shape"]): each["ratio"]
        for each in json.loads(released.read_text())["rows"]
    }
    pairs = [(each, before.get((each["work"], each["shape"]))) for each in rows]
    return [
        f"{each['work']} at {each['shape']}: {each['ratio']:.2f} times {each['best']}, at the last release {old:.2f}"
        for each, old in pairs
        if old is not None and each["ratio"] is not None and each["ratio"] > SLOWER * old
    ]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument(
        "--only", nargs="+", default=[], help=f"of {', '.join(make.__name__ for make in SHAPES)}"
    )
    parser.add_argument("--out", type=Path, help="write the rows as JSON")
    parser.add_argument("--check", action="store_true", help="compare with the last release")
    options = parser.parse_args()
    torch.set_num_threads(1)
    instructions = torch.backends.cpu.get_cpu_capability().lower()
    missing = [name for name in PEERS if library(name) is None]
    print(
        f"torch {torch.__version__}, {instructions}, one thread; not installed: {', '.join(missing) or 'none'}"
    )
    print(f"{'':<26} {'N x C':<17} {'ours':>10} {'ratio':>7}  of")
    rows = []
    for each in measured(options.rounds, options.only):
        rows.append(each)
        ratio = "" if each["ratio"] is None else f"{each['ratio']:7.2f}  {each['best']}"
        print(f"{each['work']:<26} {each['shape']:<17} {each['ms']:7.2f} ms {ratio}", flush=True)
    if options.out:
        options.out.write_text(
            json.dumps({"instructions": instructions, "rows": rows}, indent=1) + "\n"
        )
    released = RELEASED / f"peers-{instructions}.json"
    if not options.check:
        return 0
    if not released.exists():
        print(f"No release was measured with {instructions}: nothing to compare with.")
        return 0
    for line in (failures := slower(rows, released)):
        print(line)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
