"""Does the runs of one trial: trains, and reads the objective off the validation part. There is no test part here."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NoReturn, cast

from fedlas._core.check import InputError
from fedlas._core.files import read_json, write_json
from fedlas._core.ranks import on_main
from fedlas.lab.data import Splits
from fedlas.lab.data.base import Part
from fedlas.lab.recipes.plan import Run
from fedlas.lab.runs.build import build_objective
from fedlas.lab.runs.claim import check_claim, claim
from fedlas.lab.runs.data import fingerprints, prepare_data
from fedlas.lab.runs.execute import train_as_planned
from fedlas.lab.runs.folder import RunFolder
from fedlas.lab.train import DivergedError, read_log
from fedlas.lab.tune.goal import Goal
from fedlas.lab.tune.plan import Tuning
from fedlas.lab.tune.record import DONE, FAILED, Trial
from fedlas.lab.tune.space import Method

_MEASURED = "measured.json"


class _Sealed:
    """Stands where the test part was. Nothing can be asked of it."""

    def __getattr__(self, name: str) -> NoReturn:
        raise AssertionError(f"tuning must not look at the test part, and asked for its {name}")


def run_trial(
    tuning: Tuning, method: Method, trial: Trial, accelerator: Any, *, label: Callable[[Run], str], start: int
) -> Trial:
    """Do the runs of a drawn trial that are not done, one seed after the other.

    Args:
        tuning: The study.
        method: Whose trial it is.
        trial: Drawn.
        accelerator: From :func:`fedlas._core.ranks.new_accelerator`.
        label: What is shown in front of a run's progress bar.
        start: Which entry of ``environment.json`` this start is.

    Returns:
        The trial, done or failed. The first seed that diverges ends it.

    Raises:
        InputError: For whatever else is wrong.
    """
    seeds: dict[str, dict[str, float]] = {}
    for run in tuning.runs(method, trial.number, trial.params):
        try:
            seeds[str(run.seed)] = measured(run, tuning.goal, accelerator, label=label(run))
        except DivergedError as error:
            log = on_main(accelerator, partial(read_log, RunFolder(run.folder).log_path))
            lost = math.fsum(float(record["seconds"]) for record in log)
            seconds = math.fsum([*(found["seconds"] for found in seeds.values()), lost])
            reason = f"seed {run.seed}: {error}"
            return replace(trial, state=FAILED, seeds=seeds, seconds=round(seconds, 3), reason=reason, start=start)
    value = tuning.goal.mean([found["value"] for found in seeds.values()])
    seconds = math.fsum(found["seconds"] for found in seeds.values())
    return replace(trial, state=DONE, value=value, seeds=seeds, seconds=round(seconds, 3), start=start)


def measured(run: Run, goal: Goal, accelerator: Any, *, label: str) -> dict[str, float]:
    """Train a run, or go on with it, and say what it came to; at once if it is done.

    Args:
        run: The run.
        goal: What it is measured by.
        accelerator: From :func:`fedlas._core.ranks.new_accelerator`.
        label: Shown in front of the progress bar.

    Returns:
        ``value`` (the objective at the epoch that the recipe selects), ``epoch`` (which one) and ``seconds``.

    Raises:
        DivergedError: If loss or logits are no longer finite, or the objective is not.
        InputError: As :func:`fedlas.lab.runs.execute.execute`.

    State:
        Everything lands in ``run.folder``, as of any run but for predictions and metrics; ``measured.json`` comes last.
    """
    path = run.folder / _MEASURED
    ready = on_main(accelerator, lambda: _read(run, path))
    if ready is not None:
        return ready
    whole = prepare_data(run)
    splits = without_test(whole, accelerator.device)
    objective = build_objective(run, splits, rank=accelerator.process_index)
    on_main(accelerator, lambda: _claim(run, splits, fingerprints(run, whole)))
    fitted = train_as_planned(run, objective, splits, accelerator=accelerator, label=label)
    scores = fitted.history[fitted.best_epoch - 1]["val"]
    value = goal.of(scores)
    if not math.isfinite(value):
        expected = f"{goal.metric} of the validation part must be a number"
        raise DivergedError("objective", expected, value, "Choose another --objective if that happens often.")
    seconds = math.fsum(float(record["seconds"]) for record in fitted.history)  # of all starts
    found = {"value": value, "epoch": fitted.best_epoch, "seconds": round(seconds, 3)}
    on_main(accelerator, lambda: write_json(path, found))
    return found


def without_test(splits: Splits, device: Any) -> Splits:
    """Splits on a device, in which the test part is sealed: whatever asks for it raises an error."""
    train, val = splits.train.to(device), splits.val.to(device)
    return replace(splits, train=train, val=val, test=cast(Part, _Sealed()))


def _claim(run: Run, splits: Splits, data: dict[str, Any]) -> None:
    claim(run, data)
    splits.save_indices(RunFolder(run.folder).splits_path)


def _read(run: Run, path: Path) -> dict[str, float] | None:
    check_claim(run)
    if not path.exists():
        return None
    try:
        found = read_json(path)
        return {key: float(found[key]) for key in ("value", "epoch", "seconds")}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            "fedlas tune", f"{_MEASURED} must be readable", f"{path} ({error})", "Remove it to measure the run again."
        ) from error
