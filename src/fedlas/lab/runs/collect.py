"""Reads a bench folder: which runs finished, which did not, and why."""

from __future__ import annotations

import math
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

from fedlas._core.check import InputError, reason
from fedlas.lab.runs.claim import leave_out, run_folders
from fedlas.lab.runs.comparable import check_alike, check_config, check_data_alike, settings_note
from fedlas.lab.runs.folder import FORMAT, RunFolder
from fedlas.lab.runs.summary import STAGES, FinishedRun, Problem, Summary
from fedlas.losses import LOSSES


def collect(folder: str | Path) -> Summary:
    """Read a bench folder, whose direct children are run folders.

    Args:
        folder: The bench folder. Children whose name starts with a dot, and folders without any file of a run, are
            ignored.

    Returns:
        Its runs. One whose files cannot be used is among the ``unreadable``, with the reason, and a warning names it.

    Raises:
        InputError: If the folder does not exist, no run in it has finished, or its runs differ in more than
            loss and seed: in recipe, configuration or data. A run without ``config.yaml`` or ``data.json`` is not
            compared by it. What was made of other runs must be of the same data; if these were trained otherwise than
            those in the folder, a note says so.
    """
    folder = Path(folder)
    owner = "fedlas report"
    if not folder.is_dir():
        raise InputError(owner, "the folder must exist", folder, "Pass the --out of a fedlas bench.")
    # Sort the runs. One that cannot be read is listed, so that it does not hide the results of the others.
    runs: list[FinishedRun] = []
    failed: list[Problem] = []
    unreadable: list[Problem] = []
    unfinished: list[str] = []
    for child in run_folders(folder):
        try:
            run = _looked_into(child)
        except (ValueError, OSError) as error:
            leave_out(child.name, why := reason(error))
            unreadable.append(Problem(child.name, why))
            continue
        if isinstance(run, FinishedRun):
            # A seed that counts twice would make a test believe in more independent runs than there are.
            twin = next((r for r in runs if (r.loss, r.seed) == (run.loss, run.seed)), None)
            if twin is None:
                runs.append(run)
            else:
                same = "name and lowest seed" if run.made_by else "loss and seed"
                unreadable.append(Problem(child.name, f"not counted: {twin.name} has the same {same}"))
        elif isinstance(run, Problem):
            failed.append(run)
        elif run:
            unfinished.append(child.name)
    if not runs:
        raise _nothing_finished(owner, folder, failed, unfinished, unreadable)
    # Runs share a table only if they differ in nothing but loss and seed.
    recipes = {run.recipe: run.name for run in runs if not run.made_by}
    if len(recipes) > 1:
        raise InputError(
            owner,
            "all runs of one folder must come from the same recipe",
            ", ".join(f"{recipe} ({name})" for recipe, name in recipes.items()),
            "Move the runs of each recipe into a folder of their own.",
        )
    fix = "Move the runs of each configuration into a folder of their own."
    counted = [run.folder for run in runs]
    trained = [(each.name, each.config) for each in counted if each.config and not each.is_derived]
    derived = [(each.name, each.config) for each in counted if each.config and each.is_derived]
    check_alike(owner, trained, fix)
    check_data_alike(owner, [*trained, *derived], fix)
    # Which images a seed chose differs from seed to seed; the data set they are chosen from must not.
    check_alike(owner, [(each.name, {"data": {**each.data, "split": None}}) for each in counted if each.data], fix)
    runs = [_with_note(run, trained) for run in runs]
    # The table has the order in which papers print losses, not that of the names of the folders.
    order = {method: i for i, method in enumerate(_ordered(list(dict.fromkeys(run.loss for run in runs))))}
    runs.sort(key=lambda run: (order[run.loss], run.seed))
    return Summary(folder, tuple(runs), tuple(failed), tuple(unfinished), tuple(unreadable))


def _looked_into(folder: RunFolder) -> FinishedRun | Problem | bool:
    """The finished run in a folder, or what a run failed of; of any other whether it is a run's, as an empty one is.

    Raises:
        ValueError: If its files cannot be used.
        OSError: If the folder cannot be looked into.
    """
    names = {path.name for path in folder.path.iterdir()} if folder.path.exists() else set()
    if folder.holds(folder.metrics_path):
        run = read_run(folder)
        check_config(folder.config or {})
        _ = folder.data  # read now, so that a damaged one is found here
        if denied := [name for name in folder.files if name in names and not os.access(folder.path / name, os.R_OK)]:
            raise ValueError(f"{denied[0]} cannot be read (Permission denied)")
        return run
    if folder.error_path.name in names:
        return Problem(folder.name, _last_line(folder.error_path))
    signs = (folder.config_path, folder.environment_path, folder.log_path, folder.checkpoint_path, folder.lock_path)
    return not names or any(path.name in names for path in signs)


def _with_note(run: FinishedRun, trained: list[tuple[str, dict[str, Any]]]) -> FinishedRun:
    config = run.folder.config
    note = settings_note(config, *trained[0]) if config and trained and run.folder.is_derived else None
    return replace(run, notes=(*run.notes, note)) if note else run


def _ordered(methods: list[str]) -> list[str]:
    """Baselines by age and the newest last, as papers print them; cross-entropy is the oldest of all."""
    registered = list(LOSSES)

    def key(method: str) -> tuple[float, int]:
        if method not in LOSSES:
            return math.inf, methods.index(method)
        return float(LOSSES[method].metadata["year"] or math.inf), registered.index(method)

    return sorted(methods, key=key)


def _nothing_finished(
    owner: str, folder: Path, failed: list[Problem], unfinished: list[str], unreadable: list[Problem]
) -> InputError:
    counts = {"failed": len(failed), "unfinished": len(unfinished), "unreadable": len(unreadable)}
    got = ", ".join(f"{count} {kind}" for kind, count in counts.items() if count) or "no run folder at all"
    if RunFolder(folder).metrics_path.exists():
        fix = f"This is a run folder; pass its parent, {folder.resolve().parent}."
    elif failed:
        file = RunFolder(folder / failed[0].name).error_path
        fix = f"Read {file} ({failed[0].reason}), then start the same command again."
    elif unreadable:
        fix = f"{unreadable[0].name}: {unreadable[0].reason}. Delete that folder and start the same command again."
    else:
        fix = "Rerun the same fedlas bench command: it resumes."
    return InputError(owner, "the folder must hold at least one finished run", f"{folder} with {got}", fix)


def _last_line(path: Path) -> str:
    lines = [line.strip() for line in path.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    return lines[-1] if lines else "no message"


def read_run(folder: RunFolder) -> FinishedRun:
    """The finished run in a folder; a ValueError says in a few words why it cannot be used."""
    if not folder.is_finished:
        raise ValueError("metrics.json is missing")
    content = folder.metrics
    # The file may be edited or from another release, so each field is checked before it is used.
    if content.get("format") != FORMAT:
        raise ValueError(f"metrics.json has format {content.get('format')!r}, this version reads {FORMAT}")
    loss, seed, recipe = content.get("loss"), content.get("seed"), content.get("recipe", "")
    if not (isinstance(loss, str) and loss and isinstance(seed, int) and not isinstance(seed, bool)):
        raise ValueError("metrics.json lacks the loss or the seed")
    if not isinstance(recipe, str):
        raise ValueError("metrics.json: recipe is not a name")
    numbers: dict[str, Any] = {
        name: _number(name, content.get(name))
        for name in ("epochs", "best_epoch", "parameters", "seconds", "temperature", "temperature_ece")
    }
    measured = {stage: _measured(stage, content.get(stage, {})) for stage in ("val", *STAGES)}
    if not measured["test"]:
        raise ValueError("metrics.json holds no test metrics")
    selected_by, notes = content.get("selected_by"), content.get("notes", ())
    selected_by = selected_by if isinstance(selected_by, str) else None
    notes = tuple(map(str, notes)) if isinstance(notes, list) else ()
    made_by = content.get("uncertainty")
    made_by = made_by if isinstance(made_by, str) else None
    return FinishedRun(
        folder, recipe, loss, seed, measured, selected_by=selected_by, notes=notes, made_by=made_by, **numbers
    )


def _measured(stage: str, content: object) -> dict[str, float]:
    if not isinstance(content, dict):
        raise ValueError(f"metrics.json: {stage} is not an object")
    values = {str(name): _number(f"{stage}.{name}", value) for name, value in content.items()}
    return {name: value for name, value in values.items() if value is not None}


def _number(name: str, value: object) -> float | None:
    """A finite number, or None for null, NaN and infinities: something that was not measured."""
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"metrics.json: {name} is not a number")
    return value if math.isfinite(value) else None
