"""Packs the finished runs of a bench folder into the two files that :mod:`fedlas.lab.runs.packed` reads."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedlas._core.files import parse_json
from fedlas.lab.runs.collect import collect
from fedlas.lab.runs.folder import RunFolder
from fedlas.lab.runs.intervals import with_estimates
from fedlas.lab.runs.packed import write_pack
from fedlas.lab.runs.summary import Summary
from fedlas.stats.estimates import REPLICATES


@dataclass(frozen=True)
class Packed:
    """What was packed.

    Attributes:
        runs: ``runs.jsonl``.
        epochs: ``epochs.csv``.
        num_epochs: Its rows.
        summary: The bench folder; its finished runs are packed, no others.
        folders: Names of packed runs that still have a folder.
    """

    runs: Path
    epochs: Path
    num_epochs: int
    summary: Summary
    folders: tuple[str, ...]


def pack(bench: Path, *, replicates: int = REPLICATES, console: Any = None) -> Packed:
    """Pack the finished runs of a bench folder, those that are packed already included.

    A packed run keeps what reports, comparisons and a bench that resumes need: configuration, fingerprint of the data,
    environments, metrics, intervals and log. Checkpoint and predictions stay in its folder, which nothing removes.

    Args:
        bench: The bench folder.
        replicates: Of intervals that are not there yet, as they cannot be computed from a pack; 0 computes none.
        console: A ``rich.console.Console`` for the progress bar; None makes one on standard error.

    Raises:
        InputError: As :func:`~fedlas.lab.runs.collect.collect`, or if the files cannot be written.
    """
    summary = with_estimates(collect(bench), replicates=replicates, console=console)
    folders = [run.folder for run in summary.runs]
    logs = {folder.name: folder.log for folder in folders}
    runs, epochs = write_pack(bench, {folder.name: _content(folder) for folder in folders}, logs)
    remaining = tuple(folder.name for folder in folders if folder.path.is_dir())
    return Packed(runs, epochs, sum(map(len, logs.values())), summary, remaining)


def _content(folder: RunFolder) -> dict[str, Any]:
    intervals = folder.text(folder.intervals_path)
    held = {
        folder.config_path: folder.config,
        folder.data_path: folder.data,
        folder.environment_path: folder.starts,
        folder.metrics_path: folder.metrics,
        folder.intervals_path: None if intervals is None else parse_json(intervals),
    }
    return {path.name: content for path, content in held.items() if content}
