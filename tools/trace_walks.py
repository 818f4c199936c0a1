#!/usr/bin/env python3
"""Trace walks through the package: ``tools/trace_walks.py [PART OF A NAME ...]``. Prints what each call enters.

For each walk: files, functions, calls, and climbs, which are calls into a room on a higher line of the picture in
``docs/architecture.md``, such as of a function that was handed down. For a run also how often control returns to the
file that executes it. All threads count that a walk starts; lambdas and comprehensions do not. Everything is imported
before a call is traced, so the figures are of the work itself.

Uses the standard library and ``sys.setprofile`` beside the package and its own dependencies; walks take seconds.
``--json`` prints JSON.
"""

import contextlib
import functools
import io
import json
import os
import re
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import torch

import fedlas

ROOT = Path(fedlas.__file__).parent
RULE = Path(__file__).parents[1] / "docs" / "architecture.md"
RUN = str(ROOT / "lab" / "runs" / "execution.py")


def lines_of_rooms() -> dict[str, int]:
    """Return the line of each room in the picture of the rooms, counted from the top."""
    shown = RULE.read_text(encoding="utf-8").split("```")[1].strip().splitlines()
    return {
        room: number
        for number, line in enumerate(shown)
        for room in re.split(r" {2,}", line)[0].split(" · ")
    }


LINES = lines_of_rooms()


@functools.cache
def line_of(file: str) -> int | None:
    """Return the line of the room that a file lies in; None for the files of no room."""
    parts = Path(file).relative_to(ROOT).parts
    return LINES.get(".".join(parts[:2]), LINES.get(parts[0]))


def is_ours(frame: FrameType) -> bool:
    """Return whether a frame runs a function of the package that has a name."""
    code = frame.f_code
    return code.co_filename.startswith(str(ROOT)) and not code.co_name.startswith("<")


class Trace:
    """What a call enters, in the thread that makes it and in those that it starts.

    Args:
        start: ``(file, name)`` of the function within which to count; None counts everything.
    """

    def __init__(self, start: tuple[str, str] | None = None) -> None:
        self.start = start
        self.functions: Counter[tuple[str, str]] = Counter()
        self.climbs = 0
        self.returns = 0

    def counts(self) -> dict[str, int]:
        """Return the figures of the table."""
        figures = {
            "files": len({file for file, _ in self.functions}),
            "functions": len(self.functions),
            "calls": self.functions.total(),
            "climbs": self.climbs,
        }
        return figures | ({"returns": self.returns} if self.start else {})

    def note(self, frame: FrameType, event: str, _: Any) -> None:
        """Count a call; for ``sys.setprofile``."""
        if event != "call" or not is_ours(frame) or not self._is_within(frame):
            return
        file = frame.f_code.co_filename
        self.functions[file, frame.f_code.co_qualname] += 1
        caller = frame.f_back
        while caller is not None and not is_ours(caller):
            caller = caller.f_back
        if caller is None:
            return
        here = line_of(file)
        there = line_of(caller.f_code.co_filename)
        self.climbs += here is not None and there is not None and here < there
        if self.start is not None and caller.f_code.co_filename == self.start[0]:
            self.returns += file != self.start[0]

    def _is_within(self, frame: FrameType) -> bool:
        if self.start is None:
            return True
        outer: FrameType | None = frame
        while outer is not None:
            if (outer.f_code.co_filename, outer.f_code.co_name) == self.start:
                return True
            outer = outer.f_back
        return False


def traced(call: Callable[[], Any], start: tuple[str, str] | None = None) -> Trace:
    """Run ``call`` twice, so that what is imported at first use is not counted, and trace the second run."""
    trace = Trace(start)
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        call()
        threading.setprofile(trace.note)
        sys.setprofile(trace.note)
        try:
            call()
        finally:
            sys.setprofile(None)
            threading.setprofile(None)  # type: ignore[arg-type]  # None ends it
    return trace


def walks(folder: Path) -> dict[str, Callable[[], Any]]:
    """Return the walks by name, on small generated data in ``folder``."""
    from fedlas import Objective, Predictions
    from fedlas.cli import main
    from fedlas.deploy import export
    from fedlas.losses import FedLAS
    from fedlas.metrics import METRICS, ece

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
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(8, 6), torch.nn.ReLU(), torch.nn.Linear(6, 4))
    plain = torch.nn.Sequential(torch.nn.Linear(8, 4), torch.nn.Identity())
    images = torch.randn(400, 8, generator=generator)
    labels = torch.multinomial(model(images).softmax(1), 1, generator=generator)[:, 0]
    loader = [(images, labels)]
    objective = Objective(model, FedLAS(num_classes=4))
    finished = fedlas.calibrate(model, loader, "temperature")

    tiny = ["train.epochs=1", "data.train_size=60", "data.val_size=50", "data.test_size=50"]
    number = iter(range(9))

    def set_to_run() -> None:
        words = [word for each in (*tiny, "model.hidden=[8]") for word in ("--set", each)]
        out = str(folder / f"run{next(number)}")
        assert main(["runs", "train", "synthetic", *words, "--out", out]) == 0

    def to_bench() -> None:
        words = [word for each in (*tiny, "model.hidden=[8]") for word in ("--set", each)]
        out = str(folder / f"bench{next(number)}")
        which = ["--losses", "ce", "ls", "--seeds", "0", "1", "--workers", "1"]
        assert main(["bench", "synthetic", *which, *words, "--out", out]) == 0

    def to_onnx() -> None:
        export(finished, folder / f"model{next(number)}.onnx", images)

    csv = folder / "test.csv"
    fit = folder / "fit.json"
    scores = ["--probs", "p_*", "--target", "label"]
    fedlas.calibrate(csv, "temperature", probs="p_*", target="label").save(fit)
    table = [*scores, "--replicates", "39"]
    page = ["--replicates", "39", "--report", str(folder / "page.html")]
    return {
        "ECE": lambda: METRICS["ece"].value(predictions),
        "raw logits to ECE": lambda: ece(Predictions(logits, target)),
        "raw logits to report": lambda: str(fedlas.report(Predictions(logits, target))),
        "features to loss": lambda: objective(images[:32], labels[:32])[0].backward(),
        "predictions to page": lambda: main(["evaluate", str(folder / "test.npz"), *page]),
        "CSV to table": lambda: main(["evaluate", str(csv), *table]),
        "fedlas calibrate": lambda: main(["calibrate", str(csv), *scores, "--out", str(fit)]),
        "fedlas apply": lambda: main(
            ["apply", str(fit), str(csv), "--out", str(csv.with_stem("out"))]
        ),
        "temperature": lambda: fedlas.calibrate(model, loader, "temperature"),
        "auto": lambda: fedlas.calibrate(model, loader),
        "auto without features": lambda: fedlas.calibrate(plain, loader, features=False),
        "calibrated to ONNX": to_onnx,
        "--set to a run": set_to_run,
        "bench of 2 x 2 runs": to_bench,
        "execute": set_to_run,
    }


def run(words: list[str]) -> None:
    """Trace the walks whose names hold one of the words, or all, and print a table, or JSON with ``--json``."""
    os.environ.setdefault("COLUMNS", "80")
    parts = [word for word in words if not word.startswith("-")]
    counts = {}
    with tempfile.TemporaryDirectory() as place:
        for name, call in walks(Path(place)).items():
            if not parts or any(part in name for part in parts):
                counts[name] = traced(call, (RUN, name) if name == "execute" else None).counts()
    if "--json" in words:
        print(json.dumps(counts))
        return
    columns = ("files", "functions", "calls", "climbs", "returns")
    print(f"{'walk':<24}" + "".join(f"{column:>11}" for column in columns))
    for name, each in counts.items():
        print(f"{name:<24}" + "".join(f"{each.get(column, ''):>11}" for column in columns))


if __name__ == "__main__":
    run(sys.argv[1:])
