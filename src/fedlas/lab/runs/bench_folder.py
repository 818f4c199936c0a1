"""Folders of runs: listing a bench, selecting usable runs, and recognizing run folders."""

from __future__ import annotations

import logging
import re
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from fedlas._core.check import InputError
from fedlas.lab.runs.begin import check_no_foreign_files
from fedlas.lab.runs.folder import RunFolder, UnreadableError, packed_run_names


def run_folders(bench: Path) -> list[RunFolder]:
    """Return the run folders of a bench, packed runs included, by name; empty if ``bench`` is not a folder."""
    if not bench.is_dir():
        return []
    folders = (path for path in bench.iterdir() if path.is_dir() and not path.name.startswith("."))
    return [
        RunFolder(path)
        for path in sorted({*folders, *(bench / name for name in packed_run_names(bench))})
    ]


def warn_skipped(name: str, reason: object) -> str:
    """Log a warning that a run is left out, and return its text."""
    text = format_skipped(name, reason)
    logging.getLogger("fedlas").warning("%s", text)
    return text


def format_skipped(name: str, reason: object) -> str:
    """Return the sentence that a run is left out, with the reason."""
    return f"{name} is left out: {reason}"


def find_runs(
    folders: Sequence[Path],
    reason_to_skip: Callable[[RunFolder], str | None],
    *,
    content: str,
    data: str | None = None,
) -> tuple[list[RunFolder], list[str]]:
    """Return the named run folders and the usable runs of the named bench folders.

    Args:
        folders: Run folders, which are not checked, or bench folders.
        reason_to_skip: Returns the reason why a run of a bench cannot be used: empty if it can, None to skip the run
            without a note. If an error is raised, the run is left out with a warning.
        content: Content that a bench must have, such as ``"finished runs"``.
        data: Where the runs' data is; None searches the usual places.

    Returns:
        The runs, and a sentence for each that is left out.

    Raises:
        InputError: If a folder is neither a run folder nor a bench folder, or no run is found.
    """
    expected = f"each folder must be a run folder, or hold {content}"
    fix = "Pass one that fedlas runs train or bench made."
    runs: list[RunFolder] = []
    notes: list[str] = []
    for folder in folders:
        # A run that is named is taken unseen, so that its use reports what is wrong with it.
        if RunFolder(folder).has_file(RunFolder(folder).config_path) or not folder.is_dir():
            runs.append(RunFolder(folder, data_root=data))
            continue
        # The runs of a bench are filtered: one that does not qualify is noted, and the others are used.
        before = len(runs) + len(notes)
        for run in (replace(each, data_root=data) for each in run_folders(folder)):
            try:
                reason = reason_to_skip(run)
            except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
                notes.append(warn_skipped(run.name, error))
            else:
                runs += [run] if reason == "" else []
                notes += [format_skipped(run.name, reason)] if reason else []
        if len(runs) + len(notes) == before:
            raise InputError(expected, folder, fix)
    if not runs:
        raise InputError(expected, f"{', '.join(map(str, folders))}: {'; '.join(notes)}", fix)
    return runs, notes


RESULTS_FILE = "results.csv"
"""File of a report's table, one row per run and stage."""
RESULTS_COLUMNS = ("run", "recipe", "loss", "seed", "stage")
"""First columns of the table."""
_RUN_NAME = re.compile(r".+-s\d+")


def is_run_folder(folder: RunFolder) -> bool:
    """Return whether ``config.yaml`` describes a run, trained or derived; False if it cannot be read."""
    try:
        return {"recipe", "loss", "seed"} <= (folder.config or {}).keys()
    except UnreadableError:
        return False


def check_bench_folder(folder: Path) -> None:
    """Raise InputError if a folder is a run or a study, or holds only unrelated files; only reads.

    A bench folder is recognized by a run in it, or by the ``results.csv`` of a report. A new one may hold recipes.

    Raises:
        InputError: If the folder cannot be used as a bench folder.
    """
    itself = RunFolder(folder)
    if itself.metrics_path.is_file() or (folder / "study.yaml").is_file() or is_run_folder(itself):
        raise InputError(
            "--out must be a folder for several runs",
            f"{folder}, which is a run or a study",
            f"Choose another --out, such as the folder above it, {folder.absolute().parent}.",
        )
    try:
        children = run_folders(folder)
    except OSError:
        children = []  # what is wrong with it is said below
    table = folder / RESULTS_FILE
    if any(_RUN_NAME.fullmatch(child.name) or is_run_folder(child) for child in children):
        return
    if table.is_file() and table.read_text(encoding="utf-8", errors="replace").startswith(
        ",".join(RESULTS_COLUMNS)
    ):
        return
    recipes = [path.name for pattern in ("*.yaml", "*.yml") for path in folder.glob(pattern)]
    check_no_foreign_files(folder, (".slurm", ".trackers", ".workers", *recipes))
