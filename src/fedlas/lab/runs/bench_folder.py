"""Which folders a bench may put its runs and its report into."""

from __future__ import annotations

import re
from pathlib import Path

from fedlas._core.check import InputError
from fedlas.lab.runs.claim import check_vacant
from fedlas.lab.runs.find import run_folders
from fedlas.lab.runs.folder import RunFolder, UnreadableError

RESULTS = "results.csv"
"""Table of a report, one row a run and stage."""
HEAD = ("run", "recipe", "loss", "seed", "stage")
"""Its first columns."""
_RUN = re.compile(r".+-s\d+")


def is_run(folder: RunFolder) -> bool:
    """Whether it says in ``config.yaml`` that it is a run, or was made of runs; not if that cannot be read."""
    try:
        return {"recipe", "loss", "seed"} <= (folder.config or {}).keys()
    except UnreadableError:
        return False


def check_bench_folder(folder: Path) -> None:
    """Refuse a folder that is a run's, or holds only files of something else; only reads.

    A bench's own folder is known by a run in it, or by the ``results.csv`` of a report. Recipes may lie in a new one.

    Raises:
        InputError: If it is none.
    """
    own = RunFolder(folder)
    if own.metrics_path.is_file() or (folder / "study.yaml").is_file() or is_run(own):
        fix = f"Choose another --out, such as the folder above it, {folder.absolute().parent}."
        raise InputError("fedlas bench", "--out must be a folder for runs", f"{folder}, which is a run or a study", fix)
    try:
        children = run_folders(folder)
    except OSError:
        children = []  # what is wrong with it is said below
    table = folder / RESULTS
    if any(_RUN.fullmatch(child.name) or is_run(child) for child in children):
        return
    if table.is_file() and table.read_text(encoding="utf-8", errors="replace").startswith(",".join(HEAD)):
        return
    recipes = [path.name for pattern in ("*.yaml", "*.yml") for path in folder.glob(pattern)]
    check_vacant("fedlas bench", folder, (".slurm", ".trackers", ".workers", *recipes))
