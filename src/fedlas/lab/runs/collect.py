"""Reads a bench folder: which runs finished, which did not, and why."""

from __future__ import annotations

import json
import math
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

from fedlas._core.check import InputError
from fedlas.lab.runs import saved as evidence
from fedlas.lab.runs.comparable import check_config, check_data_alike, is_derived, settings_note
from fedlas.lab.runs.folder import check_alike, leave_out, read_config, read_data, run_like
from fedlas.lab.runs.summary import FORMAT, STAGES, FinishedRun, Problem, Summary
from fedlas.losses import LOSSES

_SIGNS_OF_A_RUN = ("config.yaml", "environment.json", "log.jsonl", "checkpoint.pt", ".lock")


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
    runs: list[FinishedRun] = []
    failed: list[Problem] = []
    unreadable: list[Problem] = []
    unfinished: list[str] = []
    made_with: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {}
    for child in run_like(folder):
        try:
            run = _looked_into(child, made_with)
        except (ValueError, OSError) as error:
            leave_out(child.name, error)
            unreadable.append(Problem(child.name, str(error)))
            continue
        if isinstance(run, FinishedRun):
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
    recipes = {run.recipe: run.name for run in runs if not run.made_by}
    if len(recipes) > 1:
        raise InputError(
            owner,
            "all runs of one folder must come from the same recipe",
            ", ".join(f"{recipe} ({name})" for recipe, name in recipes.items()),
            "Move the runs of each recipe into a folder of their own.",
        )
    fix = "Move the runs of each configuration into a folder of their own."
    counted = [(run.name, *made_with[run.name]) for run in runs]
    trained = [(name, config) for name, config, _ in counted if config and not is_derived(config)]
    check_alike(owner, trained, fix)
    check_data_alike(owner, [*trained, *((n, config) for n, config, _ in counted if is_derived(config))], fix)
    # Which images a seed chose differs from seed to seed; the data set they are chosen from must not.
    check_alike(owner, [(name, {"data": {**data, "split": None}}) for name, _, data in counted if data], fix)
    runs = [_with_note(run, made_with[run.name][0], trained) for run in runs]
    order = {method: i for i, method in enumerate(_ordered(list(dict.fromkeys(run.loss for run in runs))))}
    runs.sort(key=lambda run: (order[run.loss], run.seed))
    return Summary(folder, tuple(runs), tuple(failed), tuple(unfinished), tuple(unreadable))


def _looked_into(
    child: Path, made_with: dict[str, tuple[dict[str, Any], dict[str, Any]]]
) -> FinishedRun | Problem | bool:
    """The finished run in a folder, whose configuration and data are noted in ``made_with``, or what a run failed of.

    Of any other folder whether it is that of a run, as an empty one is.

    Raises:
        ValueError: If its files cannot be used.
        OSError: If the folder cannot be looked into.
    """
    names = {path.name for path in child.iterdir()}
    if "metrics.json" in names:
        run = read_run(child)
        config = read_config(child) or {}
        check_config(config)
        made_with[run.name] = (config, read_data(child) or {})
        if denied := [name for name in evidence.FILES if name in names and not os.access(child / name, os.R_OK)]:
            raise ValueError(f"{denied[0]} cannot be read (Permission denied)")
        return run
    if "error.txt" in names:
        return Problem(child.name, _last_line(child / "error.txt"))
    return not names or any(sign in names for sign in _SIGNS_OF_A_RUN)


def _with_note(run: FinishedRun, config: dict[str, Any], trained: list[tuple[str, dict[str, Any]]]) -> FinishedRun:
    note = settings_note(config, *trained[0]) if trained and is_derived(config) else None
    return replace(run, notes=(*run.notes, note)) if note else run


def _ordered(methods: list[str]) -> list[str]:
    """Baselines by age and the newest last, as papers print them; cross-entropy is the oldest of all."""
    registered = list(LOSSES)

    def key(method: str) -> tuple[float, int]:
        if method not in LOSSES:
            return math.inf, methods.index(method)
        return float(LOSSES[method].metadata.get("year", math.inf)), registered.index(method)

    return sorted(methods, key=key)


def _nothing_finished(
    owner: str, folder: Path, failed: list[Problem], unfinished: list[str], unreadable: list[Problem]
) -> InputError:
    counts = {"failed": len(failed), "unfinished": len(unfinished), "unreadable": len(unreadable)}
    got = ", ".join(f"{count} {kind}" for kind, count in counts.items() if count) or "no run folder at all"
    if (folder / "metrics.json").exists():
        fix = f"This is a run folder; pass its parent, {folder.resolve().parent}."
    elif failed:
        fix = f"Read {folder / failed[0].name / 'error.txt'} ({failed[0].reason}), then start the same command again."
    elif unreadable:
        fix = f"{unreadable[0].name}: {unreadable[0].reason}. Delete that folder and start the same command again."
    else:
        fix = "Start the same fedlas bench command again: it goes on where it stopped."
    return InputError(owner, "the folder must hold at least one finished run", f"{folder} with {got}", fix)


def _last_line(path: Path) -> str:
    lines = [line.strip() for line in path.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    return lines[-1] if lines else "no message"


def read_run(path: Path) -> FinishedRun:
    """The run in ``path``; a ValueError says in a few words why it cannot be used."""
    try:
        content: Any = json.loads((path / "metrics.json").read_text(encoding="utf-8"))
    except OSError as error:
        raise ValueError(f"metrics.json cannot be read ({error.strerror})") from error
    except ValueError as error:
        raise ValueError(f"metrics.json is not valid JSON ({error})") from error
    if not isinstance(content, dict):
        raise ValueError("metrics.json does not hold an object")
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
        path, recipe, loss, seed, measured, selected_by=selected_by, notes=notes, made_by=made_by, **numbers
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
