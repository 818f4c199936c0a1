"""What ``fedlas calibrate`` makes of models that others trained; the protocol is in ``results/wild/PROTOCOL.md``.

    python benchmarks/wild.py commands --kept FOLDER --out results/wild/commands.csv
    python benchmarks/wild.py run --kept FOLDER --out results/wild/scores.csv
    python benchmarks/wild.py tables --out results/wild/scores.csv

``--kept`` has the archives of ``wild_data.py``. ``commands`` writes tables, as a user has them, and calls the commands;
``run`` calls the calibrators of ``many_classes.py`` in one process, with five seeds, and resumes.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from calibrators import late, normalized
from many_classes import METRICS, SEEDS, add, compare, fits, ranking, scored
from numpy.typing import NDArray

Array = NDArray[Any]
SIZES = (200, 1000, 5000)
TEST = 4000
FEW = ("as predicted", "temperature", "auto", "auto before")
"""Calibrators of cases with two classes."""
FORMATS = {
    "languages, fastText": "parquet",
    "languages, n-grams": "npz",
    "files, magika": "npz",
    "sections, MiniLM": "parquet",
    "encodings, chardet": "jsonl",
}
"""Formats of tables; the others are CSV."""
LATER = ("spline",)
"""What seeds 1 to 4 leave out, for time."""


def rows_of(number: int, size: int, seed: int) -> tuple[Array, Array] | None:
    """Rows to fit and to test; None if there are not so many."""
    order = np.random.RandomState(seed).permutation(number)
    test = order[-min(TEST, number // 2) :]
    return (order[:size], test) if size <= number - len(test) else None


# By the commands.


def write(folder: Path, name: str, case: str, arrays: dict[str, Array], rows: Array) -> Path:
    """Write rows as a table in the format of the case."""
    ending = FORMATS.get(case, "csv")
    path = folder / f"{name}.{ending}"
    if ending == "npz":
        np.savez(path, probs=arrays["probs"][rows], label=arrays["target"][rows])
        return path
    if "confidence" in arrays:
        frame = pd.DataFrame({key: arrays[key][rows] for key in ("confidence", "correct")})
    else:
        names = [f"p_{name}" for name in arrays["classes"]]
        frame = pd.DataFrame(arrays["probs"][rows], columns=names)
        frame["label"] = arrays["classes"][arrays["target"][rows]]
        if "clusters" in arrays:
            frame["clip"] = arrays["clusters"][rows]
    if ending == "parquet":
        frame.to_parquet(path)
    elif ending == "jsonl":
        frame.to_json(path, orient="records", lines=True)
    else:
        frame.to_csv(path, index=False)
    return path


def call(*words: object) -> tuple[str, float]:
    """What a command prints, and its seconds of processor time.

    Raises:
        RuntimeError: If it fails, with the end of what it prints.
    """
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        [sys.executable, "-m", "fedlas", *map(str, words)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        raise RuntimeError(done.stderr[-300:])
    return done.stdout + done.stderr, after.ru_utime + after.ru_stime - before.ru_utime


def commands(args: argparse.Namespace) -> None:
    """Calibrate, apply and evaluate by the commands, with seed 0; add a line for each case and size."""
    done = set()
    if args.out.is_file():
        done = {(r["case"], r["labels"]) for r in csv.DictReader(args.out.open())}
    else:
        head = "case,labels,classes,rows,accuracy,nll,ece,nll_after,ece_after,accuracy_after"
        args.out.write_text(f"{head},seconds,error\n")
    for path in sorted(args.kept.glob("*.npz")):
        arrays = {**np.load(path)}
        number = len(arrays.get("target", arrays.get("correct", ())))
        for size in SIZES:
            chosen = rows_of(number, size, 0)
            if chosen is not None and (path.stem, str(size)) not in done:
                with tempfile.TemporaryDirectory() as folder, args.out.open("a") as out:
                    line = by_commands(Path(folder), path.stem, arrays, chosen)
                    classes = len(arrays.get("classes", (0, 1)))
                    csv.writer(out).writerow([path.stem, size, classes, len(chosen[1]), *line])
                print(path.stem, size, line, flush=True)


def by_commands(
    folder: Path, case: str, arrays: dict[str, Array], chosen: tuple[Array, Array]
) -> list[object]:
    """Measures before and after, seconds, and the error, from the commands."""
    val = write(folder, "val", case, arrays, chosen[0])
    test = write(folder, "test", case, arrays, chosen[1])
    if "confidence" in arrays:
        columns = ["--confidence", "confidence", "--correct", "correct"]
    elif val.suffix == ".npz":
        columns = ["--probs", "probs", "--target", "label"]
    else:
        columns = ["--probs", "p_*", "--target", "label"]
    if "clusters" in arrays:
        columns += ["--clusters", "clip"]
    fit, every = folder / "cal.json", ["--replicates", "0", "--json"]
    try:
        text, seconds = call("calibrate", val, *columns, "--out", fit)
        print(text, flush=True)
        result = json.loads(
            call("evaluate", test, *columns, "--calibration", fit, *every)[0].split("\n", 0)[0]
        )
    except (RuntimeError, ValueError) as error:
        return [""] * 6 + ["", str(error)]
    before, after = result["before"], result["after"]
    keys = ("accuracy", "nll", "ece")
    return [
        *(before[key] for key in keys),
        *(after[key] for key in ("nll", "ece", "accuracy")),
        round(seconds, 1),
        "",
    ]


# By the library.


def run(args: argparse.Namespace) -> None:
    """Add a line for each case, size, seed and calibrator that has none yet."""
    done = set()
    if args.out.is_file():
        done = {
            (r["pair"], r["size"], r["seed"], r["calibrator"])
            for r in csv.DictReader(args.out.open())
        }
    calibrators = fits()
    for seed in SEEDS:
        for size in SIZES:
            for path in sorted(args.kept.glob("*.npz")):
                arrays = np.load(path)
                if "probs" not in arrays:
                    continue
                target = arrays["target"]
                chosen = rows_of(len(target), size, seed)
                if chosen is None:
                    continue
                probs = normalized(arrays["probs"].astype(float), 1e-12)
                fit, test = chosen
                case = probs[fit], target[fit], probs[test], target[test]
                names = FEW if probs.shape[1] == 2 else tuple(calibrators)
                for name in names:
                    if (path.stem, str(size), str(seed), name) in done or (seed and name in LATER):
                        continue
                    about = (path.stem, size, seed, len(fit), probs.shape[1])
                    add(args.out, about, name, *scored(calibrators[name], case))


def tables(args: argparse.Namespace) -> None:
    """Print mean ranks and ``auto`` against ``auto before``, of cases with 20 classes or more."""
    rows = pd.read_csv(args.out)
    rows = rows[rows.classes >= 20]
    names = [name for name in dict.fromkeys(rows.calibrator) if name not in LATER]
    cases = {
        (str(pair), str(size), str(seed)): {
            row.calibrator: np.array([getattr(row, key) for key in METRICS])
            for row in part.itertuples()
            if row.calibrator in names
        }
        for (pair, size, seed), part in rows.groupby(["pair", "size", "seed"])
    }
    complete = {case: scores for case, scores in cases.items() if len(scores) == len(names)}
    ranking(complete, names)
    compare(complete, SIZES)


def main() -> None:
    """Run what the first argument names."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=("commands", "run", "tables"))
    parser.add_argument("--kept", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    signal.signal(signal.SIGPROF, late)
    {"commands": commands, "run": run, "tables": tables}[args.what](args)


if __name__ == "__main__":
    main()
