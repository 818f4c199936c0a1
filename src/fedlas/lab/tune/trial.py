"""The runs of one trial: training, and the objective on the validation part. The test part is sealed."""

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
from fedlas._core.threads import limited_to
from fedlas.lab.data import Splits
from fedlas.lab.data.base import Part
from fedlas.lab.recipes.plan import Run
from fedlas.lab.runs.build import build_objective
from fedlas.lab.runs.claim import check_claim, claim
from fedlas.lab.runs.data import fingerprints, prepare_data
from fedlas.lab.runs.folder import RunFolder
from fedlas.lab.runs.threads import threads_for
from fedlas.lab.runs.training import train_as_planned
from fedlas.lab.train import DivergedError, read_log
from fedlas.lab.tune.goal import Goal
from fedlas.lab.tune.plan import Tuning
from fedlas.lab.tune.record import DONE, FAILED, Trial
from fedlas.lab.tune.space import Method

__all__ = ["measured", "run_trial", "without_test"]

_MEASURED = "measured.json"


class _Sealed:
    """Replaces the test part. Every access is an error."""

    def __getattr__(self, name: str) -> NoReturn:
        raise AssertionError(f"tuning must not use the test part, and accessed its {name}")


def run_trial(
    tuning: Tuning, method: Method, trial: Trial, accelerator: Any, *, label: Callable[[Run], str], start: int
) -> Trial:
    """Do the unfinished runs of a drawn trial, one seed after the other.

    Args:
        tuning: The study.
        method: The method of the trial.
        trial: The drawn trial.
        accelerator: From :func:`fedlas._core.ranks.new_accelerator`.
        label: Returns the text in front of a run's progress bar.
        start: Entry of ``environment.json`` for this start.

    Returns:
        The trial, done or failed. The first seed that diverges ends it.

    Raises:
        InputError: For any error other than divergence.
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
    """Train or resume a run and measure it; a run that is done is only read.

    Args:
        run: The run.
        goal: The objective.
        accelerator: From :func:`fedlas._core.ranks.new_accelerator`.
        label: Text in front of the progress bar.

    Returns:
        ``value`` (the objective at the epoch that the recipe selects), ``epoch`` (its number) and ``seconds``.

    Raises:
        DivergedError: If loss, logits or objective are not finite.
        InputError: As :func:`fedlas.lab.runs.execute.execute`.

    State:
        ``run.folder`` gets the files of any run except predictions and metrics; ``measured.json`` is written last.
    """
    path = run.folder / _MEASURED
    ready = on_main(accelerator, lambda: _read(run, path))
    if ready is not None:
        return ready
    with limited_to(threads_for(run)):
        return _measured(run, path, goal, accelerator, label)


def _measured(run: Run, path: Path, goal: Goal, accelerator: Any, label: str) -> dict[str, float]:
    # Training that cannot see the test part.
    whole = prepare_data(run)
    splits = without_test(whole, accelerator.device)
    objective = build_objective(run, splits, rank=accelerator.process_index)
    on_main(accelerator, lambda: _claim(run, splits, fingerprints(run, whole)))
    fitted = train_as_planned(run, objective, splits, accelerator=accelerator, label=label)
    # The objective at the epoch that the recipe's own rule chose.
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
    """Splits on a device, with a sealed test part: every access to it raises an error."""
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
