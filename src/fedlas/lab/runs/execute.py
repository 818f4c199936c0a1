"""Does one run, from its plan to ``metrics.json``."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

from fedlas._core.files import write_json
from fedlas._core.ranks import new_accelerator, on_main
from fedlas._core.terminal import say
from fedlas.lab.data import Splits
from fedlas.lab.recipes.plan import Run
from fedlas.lab.runs.build import build_objective
from fedlas.lab.runs.claim import claim, finished, locked
from fedlas.lab.runs.data import (
    HELD_OUT,
    as_tested,
    data_root,
    fingerprints,
    outputs_fingerprint,
    prepare_data,
    unknown_images,
    warn_of_small_validation,
)  # fmt: skip
from fedlas.lab.runs.environment import note_start
from fedlas.lab.runs.folder import FORMAT, RunFolder
from fedlas.lab.runs.measure import held_out_predictions, measure, unknown_predictions
from fedlas.lab.runs.settle import settled
from fedlas.lab.runs.training import train_run, training_job
from fedlas.lab.train.job import TrainingJob
from fedlas.lab.train.machine import precision_text
from fedlas.lab.train.progress import ShowProgress, TrainingProgress
from fedlas.lab.train.tracking import Tracking
from fedlas.objective import Objective
from fedlas.zoo.ood import Outputs


def execute(run: Run, *, label: str | None = None, show: ShowProgress = TrainingProgress) -> dict[str, Any]:
    """Train, predict and measure; go on where an earlier start stopped, or return what a finished one found.

    Args:
        run: The run.
        label: Shown in front of the progress bar; None is the run's name.
        show: Shows the progress of the training.

    Returns:
        The contents of ``metrics.json``.

    Raises:
        InputError: If the folder cannot be written to, holds a run of another configuration or on other data, or is
            being worked on by another process; and whatever data, model, loss or training find wrong.

    State:
        Everything lands in ``run.folder``. ``metrics.json`` is written last: a folder that has it is finished.
    """
    accelerator = new_accelerator()
    requested = run.recipe.train.precision
    run = on_main(accelerator, lambda: settled(run, accelerator.device))
    # A finished run needs no data, so its metrics can be read on a machine that has none.
    metrics = on_main(accelerator, lambda: finished(run))
    if metrics is not None:
        return metrics
    # Whatever is wrong with data, model or loss shows before anything is written.
    splits = prepare_data(run).to(accelerator.device)
    if accelerator.is_main_process:
        warn_of_small_validation(len(splits.val))
    as_tested(run, splits)
    objective = build_objective(run, splits, rank=accelerator.process_index)
    job = training_job(run, objective, splits, accelerator, watch_norms=run.recipe.train.save_features)
    job = replace(job, name=label or run.name, show=show)
    with locked(run.folder, accelerator):
        # Another process may have finished the run before this one got the lock.
        metrics = on_main(accelerator, lambda: claim(run, fingerprints(run, splits)))
        if metrics is not None:
            return metrics
        if accelerator.is_main_process:
            splits.save_indices(RunFolder(run.folder).splits_path)
            if (root := data_root(run)) is not None:
                RunFolder(run.folder).keep_root(root)
            used = precision_text(run.recipe.train.precision, requested, accelerator.device)
            if label is None:  # a bench says it itself, once for its runs
                say(f"precision {used}", style="dim", stderr=True)
            note_start(run.folder, accelerator.device, precision=used)
        trackers = run.recipe.trackers if accelerator.is_main_process else {}
        with Tracking(trackers, run.folder, project=run.recipe.name, name=run.name, config=run.config()) as tracking:
            return _train_and_measure(run, splits, replace(job, on_record=tracking.epoch), tracking)


def _train_and_measure(run: Run, splits: Splits, job: TrainingJob, tracking: Tracking) -> dict[str, Any]:
    train, objective, accelerator = run.recipe.train, job.objective, job.accelerator
    fitted = train_run(run, splits, job)
    started = time.monotonic()
    # Predict with the weights of the best epoch, which are now in the objective.
    val, test = held_out_predictions(run, splits, objective, features=train.save_features)
    metrics = {
        "format": FORMAT,
        "run": run.name,
        "recipe": run.recipe.name,
        "loss": run.loss,
        "seed": run.seed,
        "epochs": train.epochs,
        "best_epoch": fitted.best_epoch,
        "selected_by": train.select,
        "parameters": sum(p.numel() for p in objective.model.parameters()),
        **measure(val, test, num_bins=train.num_bins),
    }
    trained = sum(record["seconds"] for record in fitted.history)  # of all starts, not of this one alone
    metrics["seconds"] = round(trained + time.monotonic() - started, 2)
    if accelerator.is_main_process:
        folder = RunFolder(run.folder)
        for part, predictions in (("val", val), ("test", test)):
            predictions.save(folder.part_path(part))
        if run.recipe.data.hold_out_classes:
            _save_unknown(run, objective, splits)
        # The metrics come last: a run counts as finished by this file, so all others must be there before it.
        write_json(folder.metrics_path, metrics)
        tracking.final(metrics)
    # No process may return before the files are there: what it does next may read them.
    accelerator.wait_for_everyone()
    return metrics


def _save_unknown(run: Run, objective: Objective, splits: Splits) -> None:
    """Save the outputs for the classes that the model never saw, where ``fedlas ood`` looks for them."""
    said = unknown_predictions(run, splits, objective, features=run.recipe.train.save_features)
    path = RunFolder(run.folder).part_path(f"ood-{HELD_OUT}")
    Outputs.of(said).save(path, about=outputs_fingerprint(run.folder, unknown_images(run)))
