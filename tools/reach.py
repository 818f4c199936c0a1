#!/usr/bin/env python3
"""Show what a use of the package loads: ``tools/reach.py [--json] [--run] [NAME ...]``, for thirteen without torch.

Of each use: whether it works where torch is not installed, how many modules of the package it loads, and how many of
these import torch when they are loaded themselves. ``--run`` also counts the modules with a function that a second call
enters. An import hook stands for an environment without torch; what needs torch is counted with it. Each use runs in a
process forked from one that has imported other libraries only. Files are those of ``tests/frozen``; takes seconds.
Needs the ``tables`` extra.
"""

import ast
import contextlib
import functools
import importlib
import io
import json
import os
import re
import shutil
import sys
import tempfile
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "fedlas"
PROBS = "--probs p_* --target y"
RISK = "--probs risk --target died --event yes"
FEW = "--replicates 39"
USES = {
    "Predictions": "fedlas.Predictions(logits, target)",
    "metrics.ece": "fedlas.metrics.ece(probs, target)",
    "report": "str(fedlas.report(fedlas.Predictions(logits, target), replicates=39))",
    "compare": (
        "str(fedlas.compare(*(fedlas.Predictions(each, target) for each in (logits, 2 * logits)), replicates=39))"
    ),
    "estimates": "fedlas.estimates(fedlas.Predictions(logits, target), metrics=['ece'], replicates=39)",
    "fedlas evaluate": f"fedlas evaluate probs.csv {PROBS} {FEW}",
    "fedlas compare": f"fedlas compare probs.csv other.csv {PROBS} {FEW}",
    "fedlas calibrate": f"fedlas calibrate probs.csv {PROBS} --out fit.json",
    "fedlas apply": "fedlas apply probs.json probs.csv --out applied.csv",
    "fedlas monitor": f"fedlas monitor event.json later.csv {RISK}",
    "fedlas card": f"fedlas card risk.csv later.csv {RISK} {FEW} --out card.json",
    "fedlas init": "fedlas init probs.csv",
    "fedlas export --format sql": "fedlas export probs.json --format sql --out probs.sql",
}
"""An expression, or a command of a CSV; by name."""


@functools.cache
def imports_torch(name: str) -> bool:
    """Return whether a module of the package imports torch when it is itself imported."""
    place = SOURCE.parent.joinpath(*name.split("."))
    path = place / "__init__.py" if place.is_dir() else place.with_suffix(".py")

    def of(nodes: Sequence[ast.stmt]) -> bool:
        for node in nodes:
            names: list[str] = []
            inner: list[ast.stmt] = []
            if isinstance(node, ast.Import):
                names = [each.name for each in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [node.module or ""]
            elif isinstance(node, ast.If) and "TYPE_CHECKING" not in ast.unparse(node.test):
                inner = [*node.body, *node.orelse]
            if any(each.split(".")[0] == "torch" for each in names) or of(inner):
                return True
        return False

    return of(ast.parse(path.read_text(encoding="utf-8")).body)


class TorchRefuser:
    """Import hook that refuses torch, as if it were not installed."""

    def find_spec(self, name: str, *_: Any) -> None:
        """Raise ModuleNotFoundError for torch and what is in it."""
        if name.split(".")[0] == "torch":
            raise ModuleNotFoundError("No module named 'torch'", name="torch")


def call_of(use: str) -> Callable[[], Any]:
    """Return the call of a use, which imports the package at its first run."""
    words = use.split()
    if words[0] == "fedlas":

        def command() -> None:
            from fedlas.cli.main import run

            status = run(words[1:])
            assert status in (0, 3), status

        return command

    import numpy as np

    logits = np.random.default_rng(0).normal(size=(60, 3))
    probs = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    values = {"logits": logits, "probs": probs, "target": np.arange(60) % 3}
    return lambda: exec(f"import fedlas\n{use}", dict(values))


def entered(call: Callable[[], Any]) -> set[str]:
    """Return the files of the package with a function that a call enters."""
    files: set[str] = set()

    def note(frame: FrameType, event: str, _: Any) -> None:
        if event == "call" and not frame.f_code.co_name.startswith("<mod"):
            files.add(frame.f_code.co_filename)

    threading.setprofile(note)
    sys.setprofile(note)
    try:
        call()
    finally:
        sys.setprofile(None)
        threading.setprofile(None)  # type: ignore[arg-type]
    # a template compiled by jinja2 names a file too
    return {
        file
        for file in files
        if file.startswith(str(SOURCE)) and Path(file).suffix == ".py" and Path(file).exists()
    }


def measure(use: str, *, torch: bool, run: bool) -> dict[str, Any]:
    """Run a use in this process, and return what it loaded; an empty dict if it needs torch, which it may not have."""
    if not torch:
        sys.meta_path.insert(0, TorchRefuser())  # type: ignore[arg-type]
    call = call_of(use)
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        try:
            call()
        except ImportError as error:
            text = "".join(traceback.format_exception(error))
            if torch or "torch" not in text:
                raise
            return {}
        loaded = [
            name
            for name, module in sys.modules.items()
            if name.split(".")[0] == "fedlas" and getattr(module, "__file__", None)
        ]
        figures: dict[str, Any] = {
            "modules": sorted(loaded),
            "also": sorted({"pandas", "scipy", "scipy.stats", "pyarrow"} & sys.modules.keys()),
        }
        if run:
            # init replaces no file
            with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
                write_files()
                files = entered(call)
            figures["entered"] = sorted(
                ".".join(Path(file).relative_to(SOURCE.parent).with_suffix("").parts)
                for file in files
            )
    return figures


def in_fork(function: Callable[[], Any]) -> Any:
    """Return what a function returns in a forked process, through JSON.

    Raises:
        RuntimeError: If it fails there; the message holds the traceback.
    """
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            try:
                answer = [True, function()]
            except BaseException:  # noqa: BLE001  # the parent raises it
                answer = [False, traceback.format_exc()]
            with os.fdopen(write, "w") as pipe:
                json.dump(answer, pipe)
        finally:
            os._exit(0)
    os.close(write)
    with os.fdopen(read) as pipe:
        good, answer = json.load(pipe)
    os.waitpid(child, 0)
    if not good:
        raise RuntimeError(answer)
    return answer


def write_files() -> None:
    """Write the tables and fitted files that the uses read into the working directory."""
    for name in ("probs.csv", "risk.csv", "later.csv", "probs.json", "event.json"):
        shutil.copy(ROOT / "tests" / "frozen" / "files" / name, name)
    header, *rows = [
        line.split(",") for line in Path("probs.csv").read_text(encoding="utf-8").split()
    ]
    places = [place for place, name in enumerate(header) if name.startswith("p_")]
    for row in rows:
        squares = [float(row[place]) ** 2 for place in places]
        for place, square in zip(places, squares, strict=True):
            row[place] = repr(square / sum(squares))
    Path("other.csv").write_text("\n".join(map(",".join, [header, *rows])), encoding="utf-8")


def measure_all(names: Sequence[str], *, run: bool = False) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the name and the figures of each use; ``holds`` is whether it worked without torch."""
    for library in ("numpy", "rich.console"):
        importlib.import_module(library)
    figures = {
        name: in_fork(functools.partial(measure, USES[name], torch=False, run=run))
        for name in names
    }
    for name in names:
        holds = bool(figures[name])
        if not holds:
            importlib.import_module("torch")
            figures[name] = in_fork(functools.partial(measure, USES[name], torch=True, run=run))
        modules = figures[name]["modules"]
        counts = {"loaded": len(modules), "with torch": sum(map(imports_torch, modules))}
        if run:
            names = [each.removesuffix(".__init__") for each in figures[name]["entered"]]
            counts |= {"run": len(names), "run with torch": sum(map(imports_torch, names))}
        yield name, {"holds": holds, **counts, **figures[name]}


def main(words: list[str]) -> None:
    """Print a table of the uses whose names hold one of the words, or of all; or JSON with ``--json``."""
    parts = [re.escape(word) for word in words if not word.startswith("--")]
    names = [name for name in USES if not parts or re.search("|".join(parts), name)]
    # a test may run it from any place
    sys.path.insert(0, str(SOURCE.parent))
    os.environ.setdefault("COLUMNS", "80")
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        write_files()
        figures = dict(measure_all(names, run="--run" in words))
    if "--json" in words:
        print(json.dumps(figures))
        return
    columns = ("holds", "loaded", "with torch", "run", "run with torch", "also")
    print(f"{'use':<28}" + "".join(f"{column:>16}" for column in columns))
    for name, each in figures.items():
        print(f"{name:<28}" + "".join(f"{each.get(column, '')!s:>16}" for column in columns))


if __name__ == "__main__":
    main(sys.argv[1:])
