"""The folder of a run: whose it is, whether it is finished, and that one process at a time works in it."""

from __future__ import annotations

import json
import logging
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from fedlas._core.check import InputError, describe
from fedlas._core.extras import require
from fedlas._core.files import foreign, not_writable, remove, remove_parts, write_json, write_text
from fedlas._core.ranks import on_main
from fedlas.lab.runs.summary import FORMAT
from fedlas.lab.train.checkpoint import differences

_FIRST = (".lock", "config.yaml", "data.json", "environment.json", "error.txt", "splits.npz")
"""What may lie in a folder that was begun and does not say in ``config.yaml`` what it is."""
_NEEDED = ("test", "test_scaled", "temperature", "best_epoch", "seconds", "notes")


class Claim(Protocol):
    """What can have a folder: a run, or what was made of runs."""

    @property
    def folder(self) -> Path:
        """The folder."""

    def config(self) -> dict[str, Any]:
        """Resolved configuration, plain values only; another one may not go on in the folder."""


class BusyError(InputError):
    """Another process is working on the run folder."""


class UnreadableError(InputError):
    """A run folder, or a file in it, cannot be read."""


def finished(run: Claim) -> dict[str, Any] | None:
    """Contents of ``metrics.json``, or None if the run is not finished; only reads.

    Raises:
        InputError: If the folder belongs to another configuration (every difference is named), or its files cannot be
            read or are of another format.
    """
    check_claim(run)
    path = run.folder / "metrics.json"
    metrics = _read_json(path, "Remove it to measure the run again.")
    if metrics is None:
        return None
    lacking = [key for key in _NEEDED if key not in metrics]
    lacking += [key for key in ("test", "test_scaled") if key in metrics and not isinstance(metrics[key], dict)]
    if metrics.get("format") != FORMAT or lacking:
        raise InputError(
            "run",
            f"metrics.json must be of format {FORMAT} with {', '.join(_NEEDED)}",
            f"{path} of format {metrics.get('format')!r}" + (f" without {', '.join(lacking)}" if lacking else ""),
            "Use the release that wrote it, or remove it to measure the run again.",
        )
    return metrics


def check_claim(run: Claim) -> None:
    """Refuse a folder that holds a run of another configuration; only reads.

    Raises:
        InputError: If it does (every difference is named), holds results and does not say of which configuration, or
            holds files of something else.
        UnreadableError: If it cannot be read.
    """
    old = read_config(run.folder)
    if old is None:
        results = [name for name in ("metrics.json", "checkpoint.pt") if (run.folder / name).exists()]
        if results:
            raise InputError(
                "run",
                f"a folder with {results[0]} must say in config.yaml what it was made with",
                f"{run.folder}, where it is missing or empty",
                "Choose another --out, or remove the folder to start afresh.",
            )
        check_vacant("run", run.folder, _FIRST)
        return
    if found := differences(old, run.config()):
        raise InputError(
            "run",
            "its folder must hold the same configuration",
            f"{run.folder}, which differs in {'; '.join(found)}",
            "Use the old settings to go on, or another --out to start afresh.",
        )


def check_vacant(owner: str, folder: Path, own: Collection[str] = ()) -> None:
    """Refuse a folder with files of something else, some of which could be replaced or removed; only reads.

    Args:
        owner: Who complains.
        folder: Where something new is to be put.
        own: Names that may lie there.

    Raises:
        InputError: If there are others.
        UnreadableError: If it cannot be read.
    """
    try:
        others = foreign(folder, own)
    except OSError as error:
        raise UnreadableError(*not_writable(folder, error).parts) from error
    if others:
        shown = ", ".join(others[:3]) + (f" and {len(others) - 3} more" if len(others) > 3 else "")
        fix = "Choose another --out, such as a new folder in it."
        raise InputError(owner, "the output folder must be new, empty or its own", f"{folder} with {shown}", fix)


def run_like(folder: Path) -> list[Path]:
    """The folders in ``folder`` that may be runs, by name: all but hidden ones."""
    return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))


def leave_out(name: str, reason: object) -> str:
    """Warn that a run cannot be read and is left out of what is said of the others; returns the sentence."""
    text = f"{name} is left out: {reason}"
    logging.getLogger("fedlas").warning("%s", text)
    return text


def check_data(folder: Path, data: Mapping[str, Any]) -> None:
    """Refuse a folder whose run was started on other data; only reads.

    Args:
        folder: Run folder; one without ``data.json`` is anybody's.
        data: Fingerprint of the data; what it lacks is not compared.

    Raises:
        InputError: If its data differ, or ``data.json`` cannot be read.
    """
    old = read_data(folder)
    if old is None:
        return
    if found := differences({key: old[key] for key in data if key in old}, data):
        raise InputError(
            "run",
            "its folder must hold a run on the same data",
            f"{folder}, which differs in {'; '.join(found)}",
            "Go on with the old data (--data), or choose another --out to start afresh.",
        )


def check_alike(owner: str, configs: Iterable[tuple[str, Mapping[str, Any]]], fix: str) -> None:
    """Refuse runs that cannot stand in one table: they may differ in loss and seed, the runs of one loss in seed only.

    Args:
        owner: Who complains.
        configs: Name and configuration of each run.
        fix: What to do about it.

    Raises:
        InputError: For the first run that differs otherwise; every difference is named.
    """
    first: dict[str, tuple[str, dict[str, Any]]] = {}
    for name, config in configs:
        loss = config.get("loss")
        shared = {key: value for key, value in config.items() if key not in ("loss", "seed")}
        of_loss = str(loss.get("name") if isinstance(loss, dict) else loss)
        for group, part in (("", shared), (f"loss {of_loss}", {"loss": loss})):
            other, expected = first.setdefault(group, (name, part))
            if found := differences(expected, part):
                raise InputError(
                    owner,
                    "all runs of one folder must have the same configuration but for loss and seed",
                    f"{name}, which differs from {other} in {'; '.join(found)}",
                    fix,
                )


def read_config(folder: Path) -> dict[str, Any] | None:
    """Contents of ``config.yaml``; None if it is missing or empty.

    Raises:
        UnreadableError: If it cannot be read, or is no mapping.
    """
    yaml = require("yaml", extra="bench")
    path = folder / "config.yaml"
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8")) if path.exists() else None
        if not isinstance(content, dict | None):
            raise ValueError(f"it holds {describe(content)}")
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())
        raise UnreadableError(
            "run", "config.yaml must be readable YAML", f"{path} ({reason})", "Choose another --out to start afresh."
        ) from error
    return content


def read_data(folder: Path) -> dict[str, Any] | None:
    """Contents of ``data.json``, the fingerprint of a run's data; None if it is missing.

    Raises:
        UnreadableError: If it cannot be read.
    """
    return _read_json(folder / "data.json", "Choose another --out to start afresh.")


def _read_json(path: Path, fix: str) -> dict[str, Any] | None:
    try:
        if not path.exists():
            return None
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UnreadableError("run", f"{path.name} must be readable JSON", f"{path} ({error})", fix) from error
    if not isinstance(content, dict):
        raise UnreadableError("run", f"{path.name} must hold an object", path, fix)
    return content


@contextmanager
def locked(folder: Path, accelerator: Any) -> Iterator[None]:
    """Keep other runs out of the folder; the main process holds the lock, which goes with it, however it ends."""
    filelock = require("filelock", extra="bench")
    lock = filelock.FileLock(folder / ".lock")

    def acquire() -> None:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            lock.acquire(timeout=0)
        except filelock.Timeout as error:
            raise BusyError(
                "run",
                "its folder must not be in use",
                f"{folder}, which another process is working on",
                "Wait for it, or choose another --out.",
            ) from error
        except OSError as error:
            raise not_writable(folder, error) from error

    on_main(accelerator, acquire)
    try:
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
    metrics = finished(run)
    check_data(run.folder, data)
    if metrics is None:
        below = [run.folder / "predictions", run.folder / "work", *run.folder.glob("work/*")]
        remove_parts(run.folder, *below)
        remove(run.folder / "error.txt", inside=run.folder)  # what it says was true of an earlier start
        if read_config(run.folder) is None:
            yaml = require("yaml", extra="bench")
            write_text(run.folder / "config.yaml", yaml.safe_dump(run.config(), sort_keys=False))
        if read_data(run.folder) is None:
            write_json(run.folder / "data.json", dict(data))
    return metrics
