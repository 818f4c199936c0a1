"""Packs the finished runs of a bench folder into the zip that :mod:`fedlas.lab.runs.folder` reads."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fedlas._core.files import write_atomically
from fedlas.lab.runs.collect import collect
from fedlas.lab.runs.folder import PACK_MARK, RUNS
from fedlas.lab.runs.intervals import with_estimates
from fedlas.lab.runs.summary import Summary
from fedlas.stats.estimates import REPLICATES


def pack(bench: Path, *, replicates: int = REPLICATES, console: Any = None) -> tuple[Path, Summary]:
    """Pack the finished runs of a bench folder, those that are packed already included.

    A packed run keeps what reports, comparisons and a bench that resumes need: configuration, fingerprint of the data,
    environments, metrics, intervals and log; also metrics after calibrators and those of ``fedlas shift``.
    Checkpoint and predictions stay in its folder, which nothing removes.

    Args:
        bench: The bench folder.
        replicates: Of intervals that are not there yet, as they cannot be computed from a pack; 0 computes none.
        console: A ``rich.console.Console`` for the progress bar; None makes one on standard error.

    Returns:
        ``runs.zip``, and the runs of the bench folder, of which the finished ones are packed.

    Raises:
        InputError: As :func:`~fedlas.lab.runs.collect.collect`, or if the file cannot be written.
    """
    summary = with_estimates(collect(bench), replicates=replicates, console=console)
    texts: dict[str, dict[str, str]] = {}
    for folder in (run.folder for run in summary.runs):
        small = (folder.config_path, folder.data_path, folder.environment_path, folder.metrics_path)
        paths = (
            *small,
            folder.intervals_path,
            folder.calibrated_path,
            folder.shift_path,
            folder.log_path,
        )
        texts[folder.name] = {
            path.name: text for path in paths if (text := folder.text(path)) is not None
        }
    return write_pack(bench, texts), summary


def write_pack(bench: Path, runs: Mapping[str, Mapping[str, str]]) -> Path:
    """Write ``runs.zip`` atomically: the same texts give the same bytes.

    Args:
        bench: The bench folder.
        runs: For each run the text of its files, by name of the file.
    """
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        archive.comment = PACK_MARK
        for run, files in runs.items():
            for name, text in files.items():
                about = zipfile.ZipInfo(f"{run}/{name}")  # without the time of today
                about.external_attr = 0o644 << 16
                archive.writestr(about, text, zipfile.ZIP_DEFLATED, 9)
    return write_atomically(bench / RUNS, lambda file: file.write(buffer.getvalue()))
