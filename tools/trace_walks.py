#!/usr/bin/env python3
"""Trace six walks through the package: ``tools/trace_walks.py``. Prints the files and functions that each call enters.

Everything is imported before a call is traced, so the figures are of the work itself. Uses the standard library and
``sys.setprofile`` beside the package and its own dependencies; runs take seconds.
"""

import contextlib
import io
import json
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

import fedlas

ROOT = str(Path(fedlas.__file__).parent)


def traced(call: Callable[[], Any]) -> tuple[set[str], set[tuple[str, str]]]:
    """Run ``call`` twice, so that what is imported at first use is not counted, and trace the second run."""
    files: set[str] = set()
    functions: set[tuple[str, str]] = set()

    def note(frame: Any, event: str, _: Any) -> None:
        name = frame.f_code.co_filename
        if event == "call" and name.startswith(ROOT):
            files.add(name)
            functions.add((name, frame.f_code.co_qualname))

    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        call()
        sys.setprofile(note)
        try:
            call()
        finally:
            sys.setprofile(None)
    return files, functions


def walks(folder: Path) -> dict[str, Callable[[], Any]]:
    """The six walks by name, on small generated data in ``folder``."""
    from fedlas import Objective, Predictions
    from fedlas.cli import main
    from fedlas.losses import FedLAS
    from fedlas.metrics import METRICS

    generator = torch.Generator().manual_seed(0)
    logits = 2 * torch.randn(400, 4, generator=generator)
    target = torch.multinomial((logits / 2).softmax(1), 1, generator=generator)[:, 0]
    predictions = Predictions(logits, target)
    Predictions(logits[:200], target[:200]).save(folder / "val.npz")
    Predictions(logits[200:], target[200:]).save(folder / "test.npz")
    rows = [
        f"{','.join(f'{p:.9f}' for p in row)},{label}"
        for row, label in zip(predictions.probs.tolist(), target, strict=True)
    ]
    (folder / "test.csv").write_text("\n".join(["p_a,p_b,p_c,p_d,label", *rows]))

    # A model with features, and the loss that reads them.
    model = torch.nn.Sequential(torch.nn.Linear(8, 6), torch.nn.ReLU(), torch.nn.Linear(6, 4))
    images = torch.randn(32, 8, generator=generator)
    objective = Objective(model, FedLAS(num_classes=4))

    tiny = [
        "train.epochs=1",
        "data.train_size=60",
        "data.val_size=50",
        "data.test_size=50",
        "model.hidden=[8]",
    ]
    number = iter(range(9))

    def set_to_run() -> None:
        words = [word for each in tiny for word in ("--set", each)]
        assert (
            main(["train", "synthetic", *words, "--out", str(folder / f"run{next(number)}")]) == 0
        )

    def calibrated_model() -> None:
        loader = [(images, target[:32])]
        fedlas.calibrate(model, loader, "temperature")(images)

    table = ["--probs", "p_*", "--target", "label", "--replicates", "39"]
    page = ["--replicates", "39", "--report", str(folder / "page.html")]
    return {
        "ECE": lambda: METRICS["ece"].value(predictions),
        "features to loss": lambda: objective(images, target[:32])[0].backward(),
        "predictions to page": lambda: main(["evaluate", str(folder / "test.npz"), *page]),
        "CSV to table": lambda: main(["evaluate", str(folder / "test.csv"), *table]),
        "--set to a run": set_to_run,
        "model to calibrated model": calibrated_model,
    }


def run() -> None:
    """Trace every walk and print a table, or JSON with ``--json``."""
    os.environ.setdefault("COLUMNS", "80")
    counts = {}
    with tempfile.TemporaryDirectory() as place:
        for name, call in walks(Path(place)).items():
            files, functions = traced(call)
            counts[name] = {"files": len(files), "functions": len(functions)}
    if "--json" in sys.argv:
        print(json.dumps(counts))
        return
    print(f"{'walk':<28}{'files':>7}{'functions':>11}")
    for name, each in counts.items():
        print(f"{name:<28}{each['files']:>7}{each['functions']:>11}")


if __name__ == "__main__":
    run()
