"""The rows of results/methods/results.csv: every run of its settings, before and after a calibrator.

    fedlas bench results/methods/digits.yaml --out runs/methods/digits     # and so on, a folder a setting
    python benchmarks/methods.py runs/methods/* --out results/methods/results.csv

A run has a row before any calibrator, and one after temperature scaling. Cross-entropy has a third after structured
scaling. Both calibrators are fitted on the validation part of the run. The last columns are the ECE's noise floor, the
p-value of the test that the model is calibrated, and AURC.
"""

from __future__ import annotations

import argparse
import csv
import json
import warnings
from collections.abc import Iterator
from pathlib import Path

import torch

from fedlas import Predictions
from fedlas.calibrators import CalibrationWarning, Calibrator, StructuredScaling, TemperatureScaling
from fedlas.lab.runs.folder import RunFolder
from fedlas.metrics import METRICS
from fedlas.stats import noise_floor

MEASURED = ("accuracy", "nll", "ece", "aurc")
COLUMNS = ("setting", "method", "seed", "after", *MEASURED, "floor", "p")


def rows(folder: Path) -> Iterator[dict[str, object]]:
    """The rows of one finished run."""
    metrics = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    run = RunFolder(folder)
    held_out, test = run.predictions("val"), run.predictions("test")
    calibrators: dict[str, Calibrator | None] = {"": None, "temperature": TemperatureScaling()}
    if metrics["loss"] == "ce":
        calibrators["structured"] = StructuredScaling()
    for after, calibrator in calibrators.items():
        found = test if calibrator is None else calibrator.fit(held_out).transform(test)
        yield {
            "setting": folder.parent.name,
            "method": metrics["loss"],
            "seed": metrics["seed"],
            "after": after,
            **measured(found),
        }


def measured(predictions: Predictions) -> dict[str, str]:
    floor = noise_floor(predictions, replicates=500)
    values = {name: METRICS[name].value(predictions) for name in MEASURED} | {
        "floor": floor.mean,
        "p": floor.p_value,
    }
    return {name: f"{value:.6g}" for name, value in values.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("settings", type=Path, nargs="+", help="folders of benches")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    torch.set_num_threads(1)
    # a temperature of 1 is what a calibrated model asks for
    warnings.simplefilter("ignore", CalibrationWarning)
    with options.out.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        for setting in options.settings:
            for folder in sorted(path.parent for path in setting.glob("*/metrics.json")):
                writer.writerows(rows(folder))


if __name__ == "__main__":
    main()
