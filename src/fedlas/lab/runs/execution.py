"""Execution of one run, from its plan to ``metrics.json``."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

from fedlas._core.files import write_json
from fedlas._core.ranks import new_accelerator, run_on_main
from fedlas._core.terminal import print_lines
from fedlas.lab.data import Splits
from fedlas.lab.recipes.planning import Run
from fedlas.lab.runs.begin import acquire_folder, lock_folder, open_run
from fedlas.lab.runs.data import (
    data_root,
    prepare_data,
    run_fingerprint,
    warn_if_validation_small,
    with_test_normalization,
)
from fedlas.lab.runs.folder import FORMAT, RunFolder
from fedlas.lab.runs.measure import measure_predictions
from fedlas.lab.runs.predict import predict_held_out, save_predictions
from fedlas.lab.runs.provenance import record_start
from fedlas.lab.runs.train import build_objective, build_training_job, train_run
from fedlas.lab.train.engine import describe_precision
from fedlas.lab.train.job import TrainingJob
from fedlas.lab.train.log import ShowProgress, TrainingProgress
from fedlas.lab.train.tracking import Tracking


def execute(
    run: Run, *, label: str | None = None, show: ShowProgress = TrainingProgress
) -> dict[str, Any]:
    """Train a run, predict and measure, and return its metrics; an interrupted run resumes.

    Args:
        run: The run.
        label: Shown in front of the progress bar; None is the run's name.
        show: Shows the progress of the training.

    Returns:
        The contents of ``metrics.json``.

    Raises:
        InputError: If the folder cannot be written to, holds a run of another configuration or on other data, or is
            used by another process; or if data, model, loss or training settings are invalid.

    State:
        All files are written to ``run.folder``; ``metrics.json`` comes last and marks the run as finished.
    """
    accelerator = new_accelerator()
    device = accelerator.device
    requested = run.recipe.train.precision
    # A finished run needs no data, so its metrics can be read on a machine that has none.
    run, metrics = run_on_main(accelerator, lambda: open_run(run, device))
    if metrics is not None:
        return metrics

    # Whatever is wrong with data, model or loss shows before anything is written.
    splits = prepare_data(run).to(device)
    if accelerator.is_main_process:
        warn_if_validation_small(len(splits.val))
    with_test_normalization(run, splits)
    objective = build_objective(run, splits, rank=accelerator.process_index)
    watch = run.recipe.train.save_features
    job = build_training_job(run, objective, splits, accelerator, watch_norms=watch)
    job = replace(job, name=label or run.name, show=show)

    # Another process may have finished the run before this one got the lock.
    with lock_folder(
        run.folder, accelerator, lambda: acquire_folder(run, run_fingerprint(run, splits))
    ) as metrics:
        if metrics is not None:
            return metrics
        trackers = {}
        if accelerator.is_main_process:
            used = describe_precision(run.recipe.train.precision, requested, device)
            record_start(run.folder, device, precision=used)
            splits.save_indices(RunFolder(run.folder).splits_path)
            if (root := data_root(run)) is not None:
                RunFolder(run.folder).save_data_root(root)
            if label is None:  # a bench says it itself, once for its runs
                print_lines(f"precision {used}", style="dim", stderr=True)
            trackers = run.recipe.trackers
        with Tracking(
            trackers, run.folder, project=run.recipe.name, name=run.name, config=run.config()
        ) as tracking:
            return _train_and_measure(run, splits, replace(job, on_record=tracking.epoch), tracking)


def _train_and_measure(
    run: Run, splits: Splits, job: TrainingJob, tracking: Tracking
) -> dict[str, Any]:
    fitted = train_run(run, splits, job)
    started = time.monotonic()
    # The objective now holds the weights of the best epoch.
    val, test = predict_held_out(
        run, splits, job.objective, features=run.recipe.train.save_features
    )
    train = run.recipe.train
    metrics = {
        "format": FORMAT,
        "run": run.name,
        "recipe": run.recipe.name,
        "loss": run.loss,
        "seed": run.seed,
        "epochs": train.epochs,
        "best_epoch": fitted.best_epoch,
        "selected_by": train.select,
        "parameters": sum(p.numel() for p in job.objective.model.parameters()),
        **measure_predictions(val, test, num_bins=train.num_bins),
    }
    # of all starts, not of this one alone
    trained = sum(record["seconds"] for record in fitted.history)
    metrics["seconds"] = round(trained + time.monotonic() - started, 2)
    if job.accelerator.is_main_process:
        save_predictions(run, splits, job.objective, val, test)
        # The metrics come last: a run counts as finished by this file, so all others must be there before it.
        write_json(RunFolder(run.folder).metrics_path, metrics)
        tracking.final(metrics)
    # No process may return before the files are there: what it does next may read them.
    job.accelerator.wait_for_everyone()
    return metrics
