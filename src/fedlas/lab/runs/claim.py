"""Run folders: those in a bench, and a folder's owner, completion and lock."""

from __future__ import annotations

import logging
import re
import zipfile
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

from fedlas._core.check import InputError
from fedlas._core.extras import require
from fedlas._core.files import (
    foreign,
    not_writable,
    refuse_links,
    remove,
    remove_parts,
    write_json,
    write_text,
)
from fedlas._core.ranks import on_main
from fedlas.lab.recipes.yaml_text import dump_yaml
from fedlas.lab.runs.folder import FORMAT, RunFolder, UnreadableError, packed_names
from fedlas.lab.runs.summary import NUMBERS
from fedlas.lab.train.checkpoint import differences

_BEGUN = (RunFolder.lock_path, RunFolder.config_path, RunFolder.data_path)
_FIRST = [
    str(name)
    for name in (*_BEGUN, RunFolder.environment_path, RunFolder.error_path, RunFolder.splits_path)
]
"""Files allowed in the folder of a run that was stopped before it wrote ``config.yaml``."""
_NEEDED = ("test", "test_calibrated", "temperature", "best_epoch", "seconds", "notes")


class Claim(Protocol):
    """Owner of a folder: a run, or a method on top of runs."""

    @property
    def folder(self) -> Path:
        """The folder."""

    def config(self) -> dict[str, Any]:
        """Return the resolved configuration, plain values only; the folder refuses another one."""


class BusyError(InputError):
    """Another process is working on the run folder."""


def finished(run: Claim, folder: RunFolder | None = None) -> dict[str, Any] | None:
    """Return contents of ``metrics.json``, or None if the run is not finished; only reads.

    Args:
        run: The run.
        folder: Its folder, if some of it has been read already.

    Raises:
        InputError: If the folder belongs to another configuration (every difference is named), or its files cannot be
            read or are of another format.
    """
    folder = folder or RunFolder(run.folder)
    check_claim(run, folder)
    if not folder.holds(folder.metrics_path):
        return None
    metrics = folder.metrics
    try:
        check_metrics(metrics)
        if missing := [key for key in _NEEDED if key not in metrics]:
            raise ValueError(f"{', '.join(missing)} missing")
    except ValueError as error:
        fix = "Use the release that wrote it, or remove it to measure the run again."
        raise InputError(
            "metrics.json must be whole", f"{folder.metrics_path} ({error})", fix
        ) from error
    return metrics


def check_metrics(metrics: Mapping[str, Any]) -> None:
    """Refuse the contents of a ``metrics.json`` that is of another format, or edited so that it cannot be shown.

    Raises:
        ValueError: With a few words on what is wrong.
    """
    if metrics.get("format") != FORMAT:
        raise ValueError(f"it has format {metrics.get('format')!r}, this version reads {FORMAT}")
    values = {name: metrics.get(name) for name in NUMBERS}
    for stage in ("val", "test", "test_calibrated"):
        if not isinstance(scores := metrics.get(stage, {}), dict):
            raise ValueError(f"{stage} is not an object")
        values |= {f"{stage}.{name}": value for name, value in scores.items()}
    for name, value in values.items():
        if isinstance(value, bool) or not isinstance(value, int | float | None):
            raise ValueError(f"{name} is not a number")
    notes = metrics.get("notes", [])
    if not isinstance(notes, list) or not all(isinstance(note, str) for note in notes):
        raise ValueError("notes are not texts")


def must_be_finished(folder: RunFolder) -> dict[str, Any]:
    """Return contents of ``metrics.json`` of a trained run.

    Raises:
        InputError: As :attr:`RunFolder.run` and :func:`finished`, or if the run is not finished.
    """
    metrics = finished(folder.run, folder)
    if metrics is None:
        raise InputError(
            "a run must be finished", folder.path, "Rerun its fedlas command: it resumes."
        )
    return metrics


def check_claim(run: Claim, folder: RunFolder | None = None) -> None:
    """Refuse a folder that holds a run of another configuration; only reads.

    Raises:
        InputError: If it does (every difference is named), holds results and does not say of which configuration, or
            holds files of something else.
        UnreadableError: If it cannot be read.
    """
    folder = folder or RunFolder(run.folder)
    if folder.config is None:
        # Results without a configuration may be of any settings, so they are not built upon.
        results = [
            path.name
            for path in (folder.metrics_path, folder.checkpoint_path)
            if folder.holds(path)
        ]
        if results:
            expected = f"a folder with {results[0]} must say in config.yaml what it was made with"
            got = f"{folder.path}, where it is missing or empty"
            raise InputError(
                expected, got, "Choose another --out, or remove the folder to start over."
            )
        check_vacant(folder.path, _FIRST)
        return
    # A run resumes only with the settings that it began with; a mixture would be a result of neither.
    if changes := differences(folder.config, run.config()):
        expected = "its folder must hold the same configuration"
        got = f"{folder.path}, which differs in {'; '.join(changes)}"
        raise InputError(
            expected, got, "Use the old settings to resume, or another --out to start over."
        )


def check_vacant(folder: Path, allowed: Collection[str] = ()) -> None:
    """Refuse a folder with files of something else, some of which could be replaced or removed; only reads.

    Args:
        folder: Where something new is to be put.
        allowed: Names that may lie there.

    Raises:
        InputError: If there are others.
        UnreadableError: If it cannot be read.
    """
    try:
        others = foreign(folder, allowed)
    except OSError as error:
        raise UnreadableError(*not_writable(folder, error).parts) from error
    if others:
        shown = ", ".join(others[:3]) + (f" and {len(others) - 3} more" if len(others) > 3 else "")
        fix = "Choose another --out, such as a new folder in it."
        raise InputError(
            "the output folder must be new, empty or its own", f"{folder} with {shown}", fix
        )


def check_data(folder: RunFolder, data: Mapping[str, Any]) -> None:
    """Refuse a folder whose run was started on other data; only reads.

    Args:
        folder: Run folder; one without ``data.json`` is free for any data.
        data: Fingerprint of the data; what it lacks is not compared.

    Raises:
        InputError: If its data differ, or ``data.json`` cannot be read.
    """
    old = folder.data
    if old is None:
        return
    if changes := differences({key: old[key] for key in data if key in old}, data):
        expected = "its folder must hold a run on the same data"
        fix = "Use the old data (--data) to resume, or another --out to start over."
        raise InputError(expected, f"{folder.path}, which differs in {'; '.join(changes)}", fix)


@contextmanager
def locked(folder: Path, accelerator: Any) -> Iterator[None]:
    """Keep other runs out of the folder; the main process holds the lock, which goes with it, however it ends."""
    filelock = require("filelock", extra="bench")
    lock = filelock.FileLock(RunFolder(folder).lock_path)

    # The main process takes the lock for all: a second process of the same run would find it taken.
    def acquire() -> None:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            refuse_links(folder, RunFolder(folder).lock_path)
            lock.acquire(timeout=0)
        except filelock.Timeout as error:
            raise BusyError(
                "its folder must not be in use",
                f"{folder}, which another process is working on",
                "Wait for it, or choose another --out.",
            ) from error
        except OSError as error:
            raise not_writable(folder, error) from error

    # The folder may be a stranger's, and most of what is written into it comes after hours of training.
    def check_links() -> None:
        for path in folder.iterdir():
            refuse_links(folder, path)

    on_main(accelerator, acquire)
    try:
        on_main(accelerator, check_links)
        yield
    finally:
        lock.release()


def claim(run: Claim, data: Mapping[str, Any]) -> dict[str, Any] | None:
    """Make the locked folder this run's: metrics if another process has just finished it, else what it is made with.

    Args:
        run: The run.
        data: Fingerprint of its data.

    Raises:
        InputError: As :func:`finished` and :func:`check_data`; nothing is written then.
    """
    folder = RunFolder(run.folder)
    metrics = finished(run, folder)
    check_data(folder, data)
    if metrics is None:
        remove_parts(
            folder.path, folder.predictions_path, folder.work_path, *folder.work_path.glob("*")
        )
        remove(folder.error_path, inside=folder.path)  # what it says was true of an earlier start
        if folder.config is None:
            write_text(folder.config_path, dump_yaml(run.config(), sort_keys=False))
        if folder.data is None:
            write_json(folder.data_path, dict(data))
    return metrics


def run_folders(bench: Path) -> list[RunFolder]:
    """Return the packed runs and visible folders in ``bench``, by name; None if it is no folder."""
    if not bench.is_dir():
        return []
    folders = (path for path in bench.iterdir() if path.is_dir() and not path.name.startswith("."))
    return [
        RunFolder(path)
        for path in sorted({*folders, *(bench / name for name in packed_names(bench))})
    ]


def leave_out(name: str, reason: object) -> str:
    """Warn that a run cannot be read and is left out; return the text of the warning."""
    text = left_out(name, reason)
    logging.getLogger("fedlas").warning("%s", text)
    return text


def left_out(name: str, reason: object) -> str:
    """Return the text that names a run left out of a report, and the reason."""
    return f"{name} is left out: {reason}"


def find_runs(
    folders: Sequence[Path],
    why_not: Callable[[RunFolder], str | None],
    *,
    content: str,
    data: str | None = None,
) -> tuple[list[RunFolder], list[str]]:
    """Return the runs that were named, and those in bench folders that can be used.

    Args:
        folders: Run folders, taken without a look into them, or folders of benches.
        why_not: Why a run in a bench cannot be used: empty if it can, None if it is no run to be mentioned. An error
            that it raises leaves the run out, with a warning.
        content: Content that a bench must have, such as ``"finished runs"``.
        data: Where the runs' data is; None searches the usual places.

    Returns:
        The runs, and a sentence for each that is left out.

    Raises:
        InputError: If a folder is neither a run's nor a bench's, or no run is found.
    """
    expected = f"a folder must be a run, or hold {content}"
    fix = "Pass one that fedlas train or bench made."
    runs: list[RunFolder] = []
    notes: list[str] = []
    for folder in folders:
        # A run that is named is taken unseen, so that its use reports what is wrong with it.
        if RunFolder(folder).holds(RunFolder(folder).config_path) or not folder.is_dir():
            runs.append(RunFolder(folder, data_root=data))
            continue
        # The runs of a bench are filtered: one that does not qualify is noted, and the others are used.
        before = len(runs) + len(notes)
        for run in (replace(each, data_root=data) for each in run_folders(folder)):
            try:
                reason = why_not(run)
            except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
                notes.append(leave_out(run.name, error))
            else:
                runs += [run] if reason == "" else []
                notes += [left_out(run.name, reason)] if reason else []
        if len(runs) + len(notes) == before:
            raise InputError(expected, folder, fix)
    if not runs:
        raise InputError(expected, f"{', '.join(map(str, folders))}: {'; '.join(notes)}", fix)
    return runs, notes


RESULTS = "results.csv"
"""Table of a report, one row a run and stage."""
HEAD = ("run", "recipe", "loss", "seed", "stage")
"""Its first columns."""
_RUN = re.compile(r".+-s\d+")


def is_run(folder: RunFolder) -> bool:
    """Return whether it says in ``config.yaml`` that it is a run, or was made of runs; not if that cannot be read."""
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
    itself = RunFolder(folder)
    if itself.metrics_path.is_file() or (folder / "study.yaml").is_file() or is_run(itself):
        fix = f"Choose another --out, such as the folder above it, {folder.absolute().parent}."
        raise InputError(
            "--out must be a folder for runs", f"{folder}, which is a run or a study", fix
        )
    try:
        children = run_folders(folder)
    except OSError:
        children = []  # what is wrong with it is said below
    table = folder / RESULTS
    if any(_RUN.fullmatch(child.name) or is_run(child) for child in children):
        return
    if table.is_file() and table.read_text(encoding="utf-8", errors="replace").startswith(
        ",".join(HEAD)
    ):
        return
    recipes = [path.name for pattern in ("*.yaml", "*.yml") for path in folder.glob(pattern)]
    check_vacant(folder, (".slurm", ".trackers", ".workers", *recipes))
