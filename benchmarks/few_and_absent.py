"""``auto`` with few classes and samples, and with classes that validation lacks; see ``results/many/README.md``.

    python benchmarks/few_and_absent.py few --real FOLDER --out results/many/few.csv
    python benchmarks/few_and_absent.py priors --real FOLDER --kept FOLDER --out results/many/FILE.csv
    python benchmarks/few_and_absent.py absent --real FOLDER --out results/many/absent.csv
    python benchmarks/few_and_absent.py spread --real FOLDER --out results/many/spread.csv
    python benchmarks/few_and_absent.py tables --real FOLDER --out results/many/FILE.csv

``few`` fits ``auto`` with four priors on 34 sets of 2 to 14 classes: probabilities of CIFAR-10 and IMDB, two residual
networks, tables of scikit-learn; ``priors`` on the splits of ``calibrators.py``, whose folder ``--kept`` it reads.
``absent`` compares how much classes without a sample may get, by temperature scaling alone, and ``spread`` whose odds
they keep; both on the archives ``many-*.npz`` of ``--real``.
"""

from __future__ import annotations

import argparse
import csv
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from calibrators import DRAWS, cases, few_sets
from many_classes import auto_before
from numpy.typing import NDArray
from torch import Tensor

from fedlas import Predictions
from fedlas.calibrators import AutoCalibration, fit_mixture
from fedlas.calibrators._fit.temperature_search import nll_temperature
from fedlas.metrics import nll, smooth_ece

Array = NDArray[Any]
PRIORS = {
    "before this change": (2.0, 2.0),
    "1 and 3": (1.0, 3.0),
    "1 and 2": (1.0, 2.0),
    "2 and 2": (2.0, 2.0),
}
SPREADS = {"temperature": (1, 0), "mixture": (0, 1), "both": (1, 1)}
"""How often temperature scaling and the mixture count in what absent classes get."""


def few(args: argparse.Namespace) -> Iterator[dict[str, object]]:
    """NLL and smooth ECE of ``auto`` with each prior."""
    for name, probs, target in few_sets(args.real):
        logits = torch.from_numpy(np.clip(probs, 1e-7, 1)).double().log().log_softmax(1)
        labels = torch.from_numpy(target.astype(np.int64))
        for size, draws in DRAWS.items():
            for seed in range(draws if len(labels) >= size + 100 else 0):
                order = np.random.RandomState(100 + seed).permutation(len(labels))
                fit, test = order[:size], order[size:][:3000]
                for prior, (raw, scaled) in PRIORS.items():
                    fit_mixture._PRIOR = fit_mixture._PRIOR_FEW_SAMPLES = (raw, scaled)
                    fit_mixture._SHARED_COUNT = 0.0
                    auto = AutoCalibration().fit(Predictions(logits[fit], labels[fit]))
                    after = auto.transform(Predictions(logits[test], labels[test]))
                    yield {
                        **{"set": name, "classes": probs.shape[1], "labels": size, "seed": seed},
                        **{"prior": prior, "nll": float(nll(after))},
                        "smooth_ece": float(smooth_ece(after)),
                    }


def priors(args: argparse.Namespace) -> Iterator[dict[str, object]]:
    """NLL and smooth ECE of ``auto`` with each prior, on the splits that ``calibrators.py`` reports."""
    options = argparse.Namespace(real=args.real, keel=None, kept=args.kept, development=False)
    usual = fit_mixture._absent_share_with_note
    fit_mixture._absent_share_with_note = lambda *_: (None, ())
    for size in (50, 80):
        for group in "abc":
            for name, *arrays in cases(group, options, size):
                probs, target, others, labels = (torch.from_numpy(each) for each in arrays)
                for prior, (raw, scaled) in PRIORS.items():
                    fit_mixture._PRIOR = fit_mixture._PRIOR_FEW_SAMPLES = (raw, scaled)
                    fit_mixture._SHARED_COUNT = 0.0
                    auto = AutoCalibration().fit(Predictions(probs.clamp(min=1e-12).log(), target))
                    after = auto.transform(Predictions(others.clamp(min=1e-12).log(), labels))
                    yield {
                        **{"group": group, "set": name, "labels": size, "prior": prior},
                        "nll": float(nll(after)),
                        "smooth_ece": float(smooth_ece(after)),
                    }
    fit_mixture._absent_share_with_note = usual


def caps(size: int, absent: int, singles: int) -> dict[str, float]:
    """How many samples the absent classes may count together."""
    return {
        "together 3/N": 3,
        "together max(3, n)/N": max(3, singles),
        "together max(3, n, A)/N": max(3, singles, absent),
        "together max(3, n, min(A, N/100))/N": max(3, singles, min(absent, size // 100)),
        "together 3A/N": min(3 * absent, 0.99 * size),
        "the share of temperature scaling": size,
    }


def losses(log_probs: Tensor, target: Tensor, is_absent: Tensor) -> dict[str, float]:
    """NLL of a test where absent classes never come, are a quarter or 2 %, or come as often as they do."""
    loss = -log_probs.gather(1, target.unsqueeze(1)).squeeze(1)
    stay, come = float(loss[~is_absent[target]].mean()), float(loss[is_absent[target]].mean())
    return {
        "nll_never": stay,
        "nll_quarter": 0.75 * stay + 0.25 * come,
        "nll_two_percent": 0.98 * stay + 0.02 * come,
        "nll_as_often": float(loss.mean()),
    }


def absent(
    args: argparse.Namespace, variants_of: Callable[..., dict[str, Tensor]] | None = None
) -> Iterator[dict[str, object]]:
    """NLL of ``auto`` with each variant, with a fifth and two fifths of the classes left out, and as they come."""
    variants_of = variants_of or capped
    parts = {"fifth": 0.2, "two fifths": 0.4, "natural": 0.0}
    for path in sorted(args.real.glob("many-*.npz")):
        stored = np.load(path)
        logits = torch.from_numpy(stored["log_probs"].astype(float))
        target = torch.from_numpy(stored["target"].astype(np.int64))
        classes = logits.shape[1]
        for kind, share in parts.items():
            chosen = np.random.RandomState(1).permutation(classes)[: int(share * classes)]
            inside = ~torch.isin(target, torch.from_numpy(chosen))
            for size in (500, 1500):
                fit = torch.arange(3000)[inside[:3000]][:size]
                test = torch.arange(3000, 7000)[::2]
                count = torch.bincount(target[fit], minlength=classes)
                if bool((count > 0).all()):
                    continue
                val, rows = Predictions(logits[fit], target[fit]), logits[test]
                about = {"archive": path.stem.removeprefix("many-"), "labels": size, "absent": kind}
                for variant, log_probs in variants_of(val, rows, count).items():
                    scores = losses(log_probs, target[test], count == 0)
                    yield {**about, "variant": variant, **scores}


def spread(args: argparse.Namespace) -> Iterator[dict[str, object]]:
    """The same with what absent classes get from temperature scaling, the mixture, and both."""
    yield from absent(args, spreads)


def fitted(val: Predictions, rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Log-probabilities of ``auto`` without the step, of ``val`` and the rows, and of ``auto before``, of the rows."""
    usual = fit_mixture._absent_share_with_note
    fit_mixture._absent_share_with_note = lambda *_: (None, ())
    auto = AutoCalibration().fit(val)
    own, others = (
        auto.transform(Predictions(z)).tensors().logits.log_softmax(1) for z in (val.logits, rows)
    )
    fit_mixture._absent_share_with_note = usual
    before = auto_before(val.probs, val.target)(rows.softmax(1).numpy())
    return own, others, torch.from_numpy(before).log()


def capped(val: Predictions, rows: Tensor, count: Tensor) -> dict[str, Tensor]:
    """Log-probabilities of the rows by how much absent classes may get."""
    temperature = nll_temperature(val).value
    own, others, before = fitted(val, rows)
    results = {
        "raw": rows.log_softmax(1),
        "temperature": (rows / temperature).log_softmax(1),
        "auto before": before,
        "auto, no step": others,
    }
    numbers = caps(len(val.target), int((count == 0).sum()), int((count == 1).sum()))
    for name, most in numbers.items():
        results[name] = placed(val, own, rows, others, count == 0, most, SPREADS["temperature"])
    return results


def spreads(val: Predictions, rows: Tensor, count: Tensor) -> dict[str, Tensor]:
    """Log-probabilities of the rows by whose odds absent classes keep."""
    own, others, before = fitted(val, rows)
    results = {"auto before": before, "auto, no step": others}
    size, absent_classes, singles, doubles = (
        len(val.target),
        *(int((count == k).sum()) for k in range(3)),
    )
    usual = max(3, singles, min(absent_classes, size // 100))
    upper = max(usual, singles + 1.645 * (singles + 2 * doubles) ** 0.5)
    for name, shares in SPREADS.items():
        for limit, most in (("n", usual), ("upper bound", upper)):
            step = placed(val, own, rows, others, count == 0, most, shares)
            results[f"{name}, {limit}"] = step
    return results


def placed(
    val: Predictions,
    own: Tensor,
    rows: Tensor,
    others: Tensor,
    is_absent: Tensor,
    most: float,
    shares: tuple[int, int],
) -> Tensor:
    """Return what ``others`` become if absent classes get at most ``most`` samples, at the odds of these shares."""
    temperature = nll_temperature(val).value
    counts = torch.tensor(shares, dtype=torch.float64).log().view(2, 1, 1)

    def mean(logits: Tensor, log_probs: Tensor, log_factor: float) -> Tensor:
        parts = torch.stack([(logits / temperature).log_softmax(1), log_probs])
        return ((parts + counts).logsumexp(0) + is_absent * log_factor).log_softmax(1)

    def share(log_factor: float) -> float:
        return float(mean(val.tensors().logits, own, log_factor)[:, is_absent].exp().sum(1).mean())

    limit = min(share(0.0), most / len(val.target))
    low, high = -30.0 if share(0.0) > limit else 0.0, 0.0
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (middle, high) if share(middle) <= limit else (low, middle)
    rare = mean(rows, others, low)
    common = rare.masked_fill(is_absent, -torch.inf).logsumexp(1, keepdim=True)
    rest = others.masked_fill(is_absent, -torch.inf).log_softmax(1)
    return torch.where(is_absent, rare, rest + common)


def tables(args: argparse.Namespace) -> None:
    """Print medians and worst cases against what was before, in percent of the NLL."""
    rows = pd.read_csv(args.out)
    if "variant" in rows:
        keys = ["archive", "labels", "absent"]
        before = rows[rows.variant == "auto before"].set_index(keys)
        for kind, part in rows.groupby("absent", sort=False):
            print(f"\n{kind}: median and worst, never, a quarter, 2 %, as often")
            for variant, some in part.groupby("variant", sort=False):
                some = some.set_index(keys).drop(columns="variant")
                gain = 100 * (some / before.loc[some.index, some.columns] - 1)
                shown = zip(gain.median(), gain.max(), strict=True)
                print(
                    variant, " | ".join(f"{middle:+.2f}, {worst:+.2f}" for middle, worst in shown)
                )
        return
    mean = rows.groupby(["set", "classes", "labels", "prior"])[["nll", "smooth_ece"]].mean()
    frame = mean.reset_index().set_index(["set", "classes", "labels"])
    before = frame[frame.prior == "before this change"]
    for prior, part in frame.groupby("prior"):
        gain = 100 * (part.nll / before.nll.loc[part.index] - 1)
        for size, some in gain.groupby("labels"):
            print(
                prior, size, len(some), f"{some.median():+.2f} {some.mean():+.2f} {some.max():+.2f}"
            )


def main() -> None:
    """Run what the first argument names."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=("few", "priors", "absent", "spread", "tables"))
    parser.add_argument("--real", type=Path, required=True)
    parser.add_argument("--kept", type=Path, help="of priors: predictions of group c")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    if args.what == "tables":
        tables(args)
        return
    makers: dict[str, Callable[..., Iterator[dict[str, object]]]] = {
        "few": few,
        "priors": priors,
        "absent": absent,
        "spread": spread,
    }
    with args.out.open("w", newline="") as file:
        writer = None
        for row in makers[args.what](args):
            writer = writer or csv.DictWriter(file, list(row))
            if file.tell() == 0:
                writer.writeheader()
            writer.writerow({k: f"{v:.6f}" if isinstance(v, float) else v for k, v in row.items()})
            file.flush()


if __name__ == "__main__":
    main()
