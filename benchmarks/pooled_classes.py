"""Pooled splines as a member of ``auto`` with many classes.

    python benchmarks/pooled_classes.py build --kept FOLDER
    python benchmarks/pooled_classes.py run --kept FOLDER --out results/many/pooled.csv
    python benchmarks/pooled_classes.py tables --out results/many/pooled.csv

Protocol, written before the run:

- That the member joins before the last map, its basis and its rounds were chosen on the six archives ``many-*`` of
  ``real/``, where in addition to ``spline`` and in its place it did the same.
- Three problems that entered no choice, built as those of ``many_classes.py`` and with its three models: names of
  Unicode characters without their first word, to that word; names of territories and languages in CLDR (Babel 2.18),
  to their language; names of functions and classes of Python's standard library, to their module. And of the problems
  of ``many_classes.py`` those that are given with ``--also``.
- 5 and 20 labels a class, 100 where there are enough rows, at most 4,000; three draws.
- The member stays if the mean log ratio of NLL is below 0 on the new problems, and the mean of no case of any problem
  is more than 0.5 % higher.
- The first form, in place of ``spline``, was stopped after 22 lines (``results/many/pooled-first.csv``): with 5 labels
  a class the forest on characters was 1.2 % higher, since ``spline`` had nearly half of the weight there. In the second
  form the pooled member joins and ``spline`` stays. All cases are run with that, by the same rule; draws 1 and 2 and
  the problems of ``--also`` had not been looked at.
"""

from __future__ import annotations

import argparse
import importlib
import inspect
import sys
import unicodedata
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import many_classes
import numpy as np
import pandas as pd
import torch
from calibrators import normalized
from numpy.typing import NDArray

from fedlas import Predictions
from fedlas.calibrators import AutoCalibration, fit_mixture
from fedlas.calibrators.fit_mixture import Members
from fedlas.metrics import ece as expected_calibration_error
from fedlas.metrics import nll

Array = NDArray[Any]
Rows = list[tuple[Any, str]]
DRAWS = 3


def characters() -> Rows:
    """Names of characters without the first word, and that word."""
    names = [unicodedata.name(chr(code), "") for code in range(0x110000)]
    words = [name.split(" ", 1) for name in names if " " in name and "-" not in name]
    return [(rest, first) for first, rest in words]


def territories() -> Rows:
    """Names of territories and languages, and the language that they are in."""
    babel = importlib.import_module("babel")
    rows = []
    for language in sorted(babel.localedata.locale_identifiers()):
        if "_" not in language:
            locale = babel.Locale(language)
            texts = {*locale.territories.values(), *locale.languages.values()}
            rows += [(text, language) for text in sorted(texts) if len(text) > 3]
    return rows


def functions() -> Rows:
    """Names of functions, classes and constants, and their module."""
    rows = []
    for module in sorted(sys.stdlib_module_names):
        if module.startswith("_") or module in ("antigravity", "this", "idlelib", "turtledemo"):
            continue
        try:
            found = vars(importlib.import_module(module))
        except Exception:  # noqa: BLE001 (modules of other systems, or without their library)
            continue
        for name, value in found.items():
            owner = getattr(value, "__module__", module)
            if not name.startswith("_") and owner == module:
                rows.append((name, module))
            if inspect.isclass(value) and owner == module:
                rows += [(f"{name}.{each}", module) for each in vars(value) if each[0] != "_"]
    return rows


PROBLEMS: dict[str, tuple[Callable[[], Rows], int, int]] = {
    "characters": (characters, 60, 150),
    "territories": (territories, 150, 80),
    "functions": (functions, 40, 150),
}


def build(args: argparse.Namespace) -> None:
    """Write one archive a pair of problem and model."""
    args.kept.mkdir(parents=True, exist_ok=True)
    for problem, (rows_of, least, most) in PROBLEMS.items():
        inputs, target = many_classes.arrays_of(rows_of(), least, most)
        train = min(many_classes.TRAIN, len(target) // 3)
        for model, probs in many_classes.predictions(inputs, target, train):
            floor = normalized(probs, 1e-8).astype(np.float32)
            np.savez(args.kept / f"{problem}, {model}.npz", probs=floor, target=target[train:])
        print(problem, len(target), "rows", target.max() + 1, "classes", flush=True)


def without_pooled(val: Predictions) -> tuple[Members, tuple[str, ...]]:
    """Members without the pooled one."""
    members, dropped = USUAL(val)
    others = {name: member for name, member in members.items() if name != "pooled spline"}
    return others, dropped


USUAL = fit_mixture._default_members


def run(args: argparse.Namespace) -> None:
    """Add a line for each case, draw and form of ``auto`` that has none yet."""
    lines = pd.read_csv(args.out).to_dict("records") if args.out.is_file() else []
    done = {(each["pair"], each["size"], each["draw"]) for each in lines}
    paths = sorted(path for folder in (args.kept, *args.also) for path in folder.glob("*.npz"))
    cases = [(path, size) for path in paths for size in many_classes.sizes(path)]
    for draw in range(DRAWS):
        for path, size in sorted(cases, key=lambda case: many_classes.cost(*case)):
            if (path.stem, size, draw) in done or many_classes.cost(path, size) > args.most:
                continue
            probs, target, others, labels = map(
                torch.from_numpy, many_classes.split(path, size, draw)
            )
            row: dict[str, Any] = {"pair": path.stem, "size": size, "draw": draw}
            row |= {"rows": len(probs), "classes": probs.shape[1]}
            for name, members in (("before", without_pooled), ("pooled", USUAL)):
                fit_mixture._default_members = members
                auto = AutoCalibration().fit(Predictions(probs.log(), target))
                after = auto.transform(Predictions(others.log(), labels))
                row |= {
                    f"nll {name}": f"{nll(after):.6f}",
                    f"ece {name}": f"{expected_calibration_error(after):.6f}",
                }
            row["weight"] = f"{auto.weights.get('pooled spline', 0.0):.3f}"
            lines.append(row)
            pd.DataFrame(lines).to_csv(args.out, index=False, lineterminator="\n")


def tables(frame: pd.DataFrame) -> str:
    """NLL and ECE with the pooled member against those without, over cases (means of draws)."""
    frame["problem"] = frame.pair.str.split(", ").str[0]
    cases = frame.groupby(["problem", "pair", "size"])[
        ["nll before", "nll pooled", "ece before", "ece pooled"]
    ].mean()
    change = 100 * np.log(cases["nll pooled"] / cases["nll before"])
    new = change.index.get_level_values(0).isin(list(PROBLEMS))
    head = "| cases | number | NLL: mean | worst | lower | ECE % before | after |"
    lines = [head, "|---|---:|---:|---:|---:|---:|---:|"]
    sizes = change.index.get_level_values(2)
    parts = {f"new, {size} labels a class": new & (sizes == size) for size in sorted(set(sizes))}
    parts |= {"new problems": new, "problems of this page": ~new}
    for name, chosen in parts.items():
        if chosen.any():
            some = change[chosen]
            ece = [100 * cases[f"ece {each}"][chosen].mean() for each in ("before", "pooled")]
            lines.append(
                f"| {name} | {len(some)} | {some.mean():+.2f} % | {some.max():+.2f} % | {(some < 0).sum()} | "
                f"{ece[0]:.2f} | {ece[1]:.2f} |"
            )
    return "\n".join(lines)


def main() -> None:
    """Run what the first argument names."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=("build", "run", "tables"))
    parser.add_argument("--kept", type=Path, help="folder of predictions")
    parser.add_argument("--also", type=Path, nargs="+", default=(), help="of many_classes.py")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--most", type=int, default=10**9, help="logits of the largest fit")
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    if args.what == "tables":
        print(tables(pd.read_csv(args.out)))
    else:
        {"build": build, "run": run}[args.what](args)


if __name__ == "__main__":
    main()
