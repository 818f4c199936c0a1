"""What ``fedlas calibrate`` makes of models that others trained; the protocol is in ``results/wild/PROTOCOL.md``.

    python benchmarks/wild.py commands --kept FOLDER --out results/wild/commands.csv
    python benchmarks/wild.py run --kept FOLDER --out results/wild/scores.csv
    python benchmarks/wild.py tables --out results/wild/scores.csv

``--kept`` has the archives of ``wild_data.py``. ``commands`` writes tables, as a user has them, and calls the commands;
``run`` calls the calibrators of ``many_classes.py`` in one process, with five seeds, and resumes.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import io
import json
import signal
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from calibrators import late, normalized
from many_classes import (
    RIVALS,
    SEEDS,
    add,
    compare,
    complete,
    fits,
    lines_of,
    ranking,
    read,
    scored,
)
from numpy.typing import NDArray

from fedlas.cli.main import main as fedlas_main

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
    """What a command prints, and its seconds of processor time, without the start of Python.

    Raises:
        RuntimeError: If it fails, with the end of what it prints.
    """
    out, err = io.StringIO(), io.StringIO()
    began = time.process_time()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        status = fedlas_main([str(word) for word in words])
    if status:
        raise RuntimeError(err.getvalue()[-300:])
    return out.getvalue(), time.process_time() - began


def commands(args: argparse.Namespace) -> None:
    """Calibrate, apply and evaluate by the commands, with seed 0; add a line for each case and size."""
    done = set()
    if args.out.is_file():
        done = {(r["case"], r["labels"]) for r in csv.DictReader(args.out.open())}
    else:
        head = "case,labels,classes,rows,accuracy,nll,ece,accuracy_after,nll_after,ece_after"
        args.out.write_text(f"{head},seconds,error\n")
    for path in sorted(args.kept.glob("*.npz")):
        stored = np.load(path)
        arrays = {key: stored[key] for key in stored.files if key != "inputs"}
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
    fit = folder / "cal.json"
    live = folder / f"live{val.suffix}"
    measured = ["--replicates", "0", "--json"]
    try:
        seconds = call("calibrate", val, *columns, "--out", fit)[1]
        call("apply", fit, test, "--out", live)
        before = json.loads(call("evaluate", test, *columns, *measured)[0])
        after = json.loads(call("evaluate", live, *calibrated(columns), *measured)[0])
    except (RuntimeError, ValueError) as error:
        return [""] * 7 + [str(error)]
    keys = ("accuracy", "nll", "ece")
    of = (before["as predicted"], after["as predicted"])
    return [*(each.get(key, "") for each in of for key in keys), round(seconds, 1), ""]


def calibrated(columns: list[str]) -> list[str]:
    """The options that name the columns which ``fedlas apply`` adds."""
    options = {"--probs", "--confidence"}
    pairs = zip(columns[::2], columns[1::2], strict=True)
    return [w for k, v in pairs for w in (k, f"calibrated_{v}" if k in options else v)]


# By the library.


def run(args: argparse.Namespace) -> None:
    """Add a line for each case, size, seed and calibrator that has none yet."""
    done = lines_of(args.out)
    calibrators = fits()
    for seed in SEEDS[: args.seeds]:
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
                most = tuple(calibrators) if (seed, size) == (0, SIZES[0]) else RIVALS
                names = FEW if probs.shape[1] == 2 else most
                for name in names:
                    if (path.stem, str(size), str(seed), name) in done:
                        continue
                    about = (path.stem, size, seed, len(fit), probs.shape[1])
                    add(args.out, about, name, *scored(calibrators[name], case))


def shown(path: Path) -> None:
    """Print the measures by the commands, a row for each case."""
    rows = pd.read_csv(path).sort_values(["case", "labels"])
    print("| case | classes | measure | raw | " + " | ".join(f"{n:,}" for n in SIZES), end="")
    print(" | seconds |\n|---|---:|---" + "|---:" * (len(SIZES) + 2) + "|")
    for case, part in rows.groupby("case"):
        for key, factor, digits in (("nll", 1, 3), ("ece", 100, 1), ("accuracy", 100, 1)):
            after = dict(zip(part.labels, factor * part[f"{key}_after"], strict=True))
            numbers = [factor * part[key].iloc[0], *(after.get(n, np.nan) for n in SIZES)]
            texts = ["" if np.isnan(n) else f"{n:.{digits}f}" for n in numbers]
            about = f"{case} | {part.classes.iloc[0]}" if key == "nll" else " | "
            name = {"nll": "NLL", "ece": "ECE, %", "accuracy": "accuracy, %"}[key]
            seconds = f"{part.seconds.iloc[-1]:.1f}" if key == "nll" else ""
            print(f"| {about} | {name} | " + " | ".join(texts) + f" | {seconds} |")


def tables(args: argparse.Namespace) -> None:
    """Print mean ranks and ``auto`` against ``auto before``, of cases with 20 classes or more."""
    shown(args.out.parent / "commands.csv")
    cases = {case: scores for case, scores in read(args.out).items() if "vector" in scores}
    first = {case: scores for case, scores in cases.items() if case[1:] == ("200", "0")}
    ranking(first, list(dict.fromkeys(name for scores in first.values() for name in scores)))
    ranking(cases, RIVALS)
    compare(complete(cases, RIVALS), SIZES, "labels")


def main() -> None:
    """Run what the first argument names."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=("commands", "run", "tables"))
    parser.add_argument("--kept", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=len(SEEDS), help="of run: so many")
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    signal.signal(signal.SIGPROF, late)
    {"commands": commands, "run": run, "tables": tables}[args.what](args)


if __name__ == "__main__":
    main()
