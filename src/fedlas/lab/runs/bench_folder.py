"""Which folders a bench may put its runs and its report into."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fedlas._core.check import InputError
from fedlas.lab.runs.folder import UnreadableError, check_vacant, read_config

RESULTS = "results.csv"
"""Table of a report, one row a run and stage."""
HEAD = ("run", "recipe", "loss", "seed", "stage")
"""Its first columns."""
_RUN = re.compile(r".+-s\d+")


def is_run(config: Mapping[str, Any]) -> bool:
    """Whether a ``config.yaml`` is of a run, or of what was made of runs."""
    return {"recipe", "loss", "seed"} <= config.keys()


def check_bench_folder(folder: Path) -> None:
    """Refuse a folder that is a run's, or holds only files of something else; only reads.

    A bench's own folder is known by a run in it, or by the ``results.csv`` of a report. Recipes may lie in a new one.

    Raises:
        InputError: If it is none.
    """
    if any((folder / name).is_file() for name in ("metrics.json", "study.yaml")) or is_run(_config(folder)):
        fix = f"Choose another --out, such as the folder above it, {folder.absolute().parent}."
        raise InputError("fedlas bench", "--out must be a folder for runs", f"{folder}, which is a run or a study", fix)
    try:
        children = [path for path in folder.iterdir() if path.is_dir()] if folder.is_dir() else []
    except OSError:
        children = []  # what is wrong with it is said below
    table = folder / RESULTS
    if any(_RUN.fullmatch(path.name) or is_run(_config(path)) for path in children):
        return
    if table.is_file() and table.read_text(encoding="utf-8", errors="replace").startswith(",".join(HEAD)):
        return
    recipes = [path.name for pattern in ("*.yaml", "*.yml") for path in folder.glob(pattern)]
    check_vacant("fedlas bench", folder, (".slurm", ".trackers", ".workers", *recipes))


def _config(folder: Path) -> Mapping[str, Any]:
    try:
        return read_config(folder) or {}
    except UnreadableError:
        return {}
