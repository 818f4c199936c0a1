"""The folder of a run: whose it is, whether it is finished, and that one process at a time works in it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fedlas._core.check import InputError
from fedlas._core.extras import require
from fedlas._core.files import not_writable, remove_parts, write_text
from fedlas.bench.plan import Run
from fedlas.train.checkpoint import differences
from fedlas.train.ranks import on_main


class BusyError(InputError):
    """Another process is working on the run folder."""


def finished(run: Run) -> dict[str, Any] | None:
    """Contents of ``metrics.json``, or None if the run is not finished; only reads.

    Raises:
        InputError: If the folder belongs to another configuration (every difference is named) or cannot be read.
    """
    check_claim(run)
    path = run.folder / "metrics.json"
    if not path.exists():
        return None
    try:
        metrics: dict[str, Any] = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise InputError(
            "run", "metrics.json must be readable JSON", f"{path} ({error})", "Remove it to measure the run again."
        ) from error
    return metrics


def check_claim(run: Run) -> None:
    """Refuse a folder that holds a run of another configuration; only reads.

    Raises:
        InputError: If it does; every difference is named.
    """
    yaml = require("yaml", extra="bench")
    path = run.folder / "config.yaml"
    try:
        old = yaml.safe_load(path.read_text()) if path.exists() else None
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())
        raise InputError(
            "run", "config.yaml must be readable YAML", f"{path} ({reason})", "Choose another --out to start afresh."
        ) from error
    found = differences(old if isinstance(old, dict) else {}, run.config()) if old is not None else []
    if found:
        raise InputError(
            "run",
            "its folder must hold the same configuration",
            f"{run.folder}, which differs in {'; '.join(found)}",
            "Use the old settings to go on, or another --out to start afresh.",
        )


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


def claim(run: Run) -> dict[str, Any] | None:
    """Make the locked folder this run's: metrics if another process has just finished it, else ``config.yaml``."""
    metrics = finished(run)
    if metrics is None:
        remove_parts(run.folder)
        yaml = require("yaml", extra="bench")
        if not (run.folder / "config.yaml").exists():
            write_text(run.folder / "config.yaml", yaml.safe_dump(run.config(), sort_keys=False))
    return metrics
