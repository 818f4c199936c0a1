"""Ownership of a run folder: whether its run is finished, checks before it is used, and its lock."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import torch

from fedlas._core.check import InputError
from fedlas._core.extras import require
from fedlas._core.files import (
    not_writable_error,
    remove,
    remove_stale_temporaries,
    require_no_links,
    unexpected_names,
    write_json,
    write_text,
)
from fedlas._core.ranks import Accelerator, run_on_main
from fedlas.lab.recipes.planning import Run
from fedlas.lab.recipes.yaml_text import dump_yaml
from fedlas.lab.runs.folder import FORMAT, RunFolder, UnreadableError
from fedlas.lab.runs.summary import NUMBERS
from fedlas.lab.train.checkpoint import config_differences
from fedlas.lab.train.engine import resolve_for_device

_STARTUP_FILES = (RunFolder.lock_path, RunFolder.config_path, RunFolder.data_path)
_FILES_BEFORE_CONFIG = [
    str(name)
    for name in (
        *_STARTUP_FILES,
        RunFolder.environment_path,
        RunFolder.error_path,
        RunFolder.splits_path,
    )
]
"""Files allowed in the folder of a run that was stopped before it wrote ``config.yaml``."""
_REQUIRED_KEYS = ("test", "test_calibrated", "temperature", "best_epoch", "seconds", "notes")


class FolderOwner(Protocol):
    """Owner of a run folder: a run, or a method applied to runs."""

    @property
    def folder(self) -> Path:
        """Path of the run folder."""

    def config(self) -> dict[str, Any]:
        """Return the resolved configuration as plain values, which must match the folder's."""


class BusyError(InputError):
    """Another process is working on the run folder."""


_MACHINE_DEFAULTS = {"precision": "auto", "channels_last": None}
"""Settings of training that a recipe may leave to the machine, and the values that do so."""


def unresolved_settings(run: Run) -> list[str]:
    """Return the names of the training settings that the recipe leaves to the machine, such as ``precision``."""
    return [
        key for key, value in _MACHINE_DEFAULTS.items() if getattr(run.recipe.train, key) == value
    ]


def with_saved_precision(run: Run) -> Run:
    """Return the run with the precision and memory layout that are saved in its folder; only reads."""
    try:
        section = (RunFolder(run.folder).config or {}).get("train")
    except UnreadableError:
        return run  # an unreadable folder is reported when it is used
    if not isinstance(section, Mapping):
        return run
    decided = {key: section[key] for key in unresolved_settings(run) if key in section}
    train = replace(run.recipe.train, **decided)
    return replace(run, recipe=replace(run.recipe, train=train))


def resolve_precision(run: Run, device: torch.device) -> Run:
    """Return the run with precision and memory layout resolved: as saved, else as suits the device; only reads."""
    run = with_saved_precision(run)
    return replace(
        run, recipe=replace(run.recipe, train=resolve_for_device(run.recipe.train, device))
    )


def open_run(run: Run, device: torch.device) -> tuple[Run, dict[str, Any] | None]:
    """Return the run with its precision resolved, and its metrics if it is finished, else None; only reads.

    Raises:
        InputError: As :func:`read_metrics_if_finished`.
    """
    run = resolve_precision(run, device)
    return run, read_metrics_if_finished(run)


def read_metrics_if_finished(
    run: FolderOwner, folder: RunFolder | None = None
) -> dict[str, Any] | None:
    """Return the contents of ``metrics.json``, or None if the run is not finished; only reads.

    Args:
        run: The run.
        folder: Its folder, if some of it has been read already.

    Raises:
        InputError: If the folder belongs to another configuration (every difference is named), or its files cannot be
            read or are of another format.
    """
    folder = folder or RunFolder(run.folder)
    check_same_config(run, folder)
    if not folder.has_file(folder.metrics_path):
        return None
    metrics = folder.metrics
    try:
        check_metrics(metrics)
        if missing := [key for key in _REQUIRED_KEYS if key not in metrics]:
            raise ValueError(f"{', '.join(missing)} missing")
    except ValueError as error:
        raise InputError(
            "metrics.json must be complete and valid",
            f"{folder.metrics_path} ({error})",
            "Use the release that wrote it, or remove it to measure the run again.",
        ) from error
    return metrics


def check_metrics(metrics: Mapping[str, Any]) -> None:
    """Raise ValueError if the contents of ``metrics.json`` have another format or invalid values.

    Raises:
        ValueError: With a few words on what is wrong.
    """
    if metrics.get("format") != FORMAT:
        raise ValueError(f"its format is {metrics.get('format')!r}; this version reads {FORMAT}")
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
        raise ValueError("notes is not a list of strings")


def require_finished(folder: RunFolder) -> dict[str, Any]:
    """Return the contents of ``metrics.json`` of a trained run; raise InputError if the run is not finished.

    Raises:
        InputError: As :attr:`RunFolder.run` and :func:`read_metrics_if_finished`, or if the run is not finished.
    """
    metrics = read_metrics_if_finished(folder.run, folder)
    if metrics is None:
        raise InputError(
            "the run must be finished", folder.path, "Rerun its fedlas command: it resumes."
        )
    return metrics


def check_same_config(run: FolderOwner, folder: RunFolder | None = None) -> None:
    """Raise InputError if a folder holds a run of another configuration or foreign files; only reads.

    Raises:
        InputError: If the configuration differs (every difference is named), there are results without a
            configuration, or there are files of something else.
        UnreadableError: If it cannot be read.
    """
    folder = folder or RunFolder(run.folder)
    if folder.config is None:
        # Results without a configuration may be of any settings, so they are not built upon.
        results = [
            path.name
            for path in (folder.metrics_path, folder.checkpoint_path)
            if folder.has_file(path)
        ]
        if results:
            raise InputError(
                f"a folder with {results[0]} must also have a config.yaml",
                f"{folder.path}, where config.yaml is missing or empty",
                "Choose another --out, or remove the folder to start over.",
            )
        check_no_foreign_files(folder.path, _FILES_BEFORE_CONFIG)
        return
    # A run resumes only with the settings that it began with; a mixture would be a result of neither.
    if changes := config_differences(folder.config, run.config()):
        raise InputError(
            "the run folder must have the same configuration",
            f"{folder.path}, which differs in {'; '.join(changes)}",
            "Use the old settings to resume, or another --out to start over.",
        )


def check_no_foreign_files(folder: Path, allowed: Collection[str] = ()) -> None:
    """Raise InputError if a folder holds files other than the allowed ones; only reads.

    Args:
        folder: Where something new is to be put.
        allowed: Names of files that may be in the folder.

    Raises:
        InputError: If there are other files.
        UnreadableError: If the folder cannot be read.
    """
    try:
        others = unexpected_names(folder, allowed)
    except OSError as error:
        raise UnreadableError(*not_writable_error(folder, error).parts) from error
    if others:
        shown = ", ".join(others[:3]) + (f" and {len(others) - 3} more" if len(others) > 3 else "")
        raise InputError(
            "the output folder must be new or empty",
            f"{folder} with {shown}",
            "Choose another --out, such as a new folder in it.",
        )


def check_same_data(folder: RunFolder, data: Mapping[str, Any]) -> None:
    """Raise InputError if the run in a folder was started on other data; only reads.

    Args:
        folder: Run folder; one without ``data.json`` is free for any data.
        data: Fingerprint of the data; what it lacks is not compared.

    Raises:
        InputError: If its data differ, or ``data.json`` cannot be read.
    """
    old = folder.data
    if old is None:
        return
    if changes := config_differences({key: old[key] for key in data if key in old}, data):
        raise InputError(
            "the run folder must be of a run on the same data",
            f"{folder.path}, which differs in {'; '.join(changes)}",
            "Use the old data (--data) to resume, or another --out to start over.",
        )


@contextmanager
def lock_folder(
    folder: Path,
    accelerator: Accelerator,
    action: Callable[[], Any] = lambda: None,
    *,
    stale_link: str = "",
) -> Iterator[Any]:
    """Hold the lock of a run folder, and yield the result of ``action``, which the main process runs once.

    The main process holds the lock, which is released when the process ends, even by a kill. A link named
    ``stale_link``, which a killed process may have left to reserve a file, is removed.
    """
    filelock = require("filelock", extra="bench")
    lock = filelock.FileLock(RunFolder(folder).lock_path)

    # The main process takes the lock for all: a second process of the same run would find it taken.
    def enter() -> Any:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            require_no_links(folder, RunFolder(folder).lock_path)
            lock.acquire(timeout=0)
        except filelock.Timeout as error:
            raise BusyError(
                "the run folder must not be in use",
                f"{folder}, which another process is using",
                "Wait for it, or choose another --out.",
            ) from error
        except OSError as error:
            raise not_writable_error(folder, error) from error
        if stale_link and (folder / stale_link).is_symlink():
            remove(folder / stale_link, inside=folder)
        # The folder may be a stranger's, and most of what is written into it comes after hours of training.
        for path in folder.iterdir():
            require_no_links(folder, path)
        return action()

    try:
        yield run_on_main(accelerator, enter)
    finally:
        lock.release()


def acquire_folder(run: FolderOwner, data: Mapping[str, Any]) -> dict[str, Any] | None:
    """Write configuration and data fingerprint to the locked folder, or return its metrics if the run is finished.

    Args:
        run: The run.
        data: Fingerprint of its data.

    Raises:
        InputError: As :func:`read_metrics_if_finished` and :func:`check_same_data`; nothing is written then.
    """
    folder = RunFolder(run.folder)
    metrics = read_metrics_if_finished(run, folder)
    check_same_data(folder, data)
    if metrics is None:
        remove_stale_temporaries(
            folder.path, folder.predictions_path, folder.work_path, *folder.work_path.glob("*")
        )
        remove(folder.error_path, inside=folder.path)  # what it says was true of an earlier start
        if folder.config is None:
            write_text(folder.config_path, dump_yaml(run.config(), sort_keys=False))
        if folder.data is None:
            write_json(folder.data_path, dict(data))
    return metrics
