"""Finds the runs in bench folders."""

from __future__ import annotations

import logging
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path

from fedlas._core.check import InputError
from fedlas.lab.runs.folder import RunFolder
from fedlas.lab.runs.packed import packed_names


def run_folders(bench: Path) -> list[RunFolder]:
    """What may be runs in ``bench``, by name: packed runs and folders that are not hidden. None if it is no folder."""
    if not bench.is_dir():
        return []
    found = (path for path in bench.iterdir() if path.is_dir() and not path.name.startswith("."))
    return [RunFolder(path) for path in sorted({*found, *(bench / name for name in packed_names(bench))})]


def leave_out(name: str, reason: object) -> str:
    """Warn that a run cannot be read and is left out; returns the sentence."""
    text = left_out(name, reason)
    logging.getLogger("fedlas").warning("%s", text)
    return text


def left_out(name: str, reason: object) -> str:
    """The sentence that says so."""
    return f"{name} is left out: {reason}"


def find_runs(
    owner: str,
    folders: Sequence[Path],
    why_not: Callable[[RunFolder], str | None],
    *,
    wanted: str,
    data: str | None = None,
) -> tuple[list[RunFolder], list[str]]:
    """The runs that were named, and those in bench folders that can be used.

    Args:
        owner: Who complains.
        folders: Run folders, taken without a look into them, or folders of benches.
        why_not: Why a run in a bench cannot be used: empty if it can, None if it is no run to be mentioned. An error
            that it raises leaves the run out, with a warning.
        wanted: What a bench must hold, such as ``"finished runs"``.
        data: Where the runs' data is; None searches the usual places.

    Returns:
        The runs, and a sentence for each that is left out.

    Raises:
        InputError: If a folder is neither a run's nor a bench's, or no run is found.
    """
    expected, fix = f"a folder must be a run, or hold {wanted}", "Pass one that fedlas train or bench made."
    found: list[RunFolder] = []
    notes: list[str] = []
    for folder in folders:
        # A run that is named is taken unseen, so that its use reports what is wrong with it.
        if RunFolder(folder).holds(RunFolder(folder).config_path) or not folder.is_dir():
            found.append(RunFolder(folder, data_root=data))
            continue
        # The runs of a bench are filtered: one that does not qualify is noted, and the others are used.
        before = len(found) + len(notes)
        for path in (run.path for run in run_folders(folder)):
            run = RunFolder(path, data_root=data)
            try:
                reason = why_not(run)
            except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
                notes.append(leave_out(run.name, error))
            else:
                found += [run] if reason == "" else []
                notes += [left_out(run.name, reason)] if reason else []
        if len(found) + len(notes) == before:
            raise InputError(owner, expected, folder, fix)
    if not found:
        raise InputError(owner, expected, f"{', '.join(map(str, folders))}: {'; '.join(notes)}", fix)
    return found, notes
