"""Does one run, from its plan to ``metrics.json``."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from fedlas._core.check import InputError
from fedlas._core.files import write_json
from fedlas._core.ranks import new_accelerator, on_main
from fedlas._core.streams import derive
from fedlas._core.terminal import say
from fedlas.diagnose import monitors
from fedlas.lab.data import Splits
from fedlas.lab.recipes.plan import Run
from fedlas.lab.runs.build import build_objective
from fedlas.lab.runs.claim import claim, finished, locked
from fedlas.lab.runs.data import (
    HELD_OUT,
    as_tested,
    data_root,
    fingerprints,
    prepare_data,
    unknown_images,
    warn_of_small_validation,
)  # fmt: skip
from fedlas.lab.runs.environment import note_start
from fedlas.lab.runs.fingerprint import outputs_fingerprint
from fedlas.lab.runs.folder import FORMAT, RunFolder
from fedlas.lab.runs.measure import held_out_predictions, measure, unknown_predictions
from fedlas.lab.runs.settle import settled
from fedlas.lab.runs.tracking import Tracking, tracking_of
from fedlas.lab.train import Fitted, fit
from fedlas.lab.train.loop import EpochBatches
from fedlas.lab.train.machine import precision_text
from fedlas.lab.train.progress import ShowProgress, TrainingProgress
from fedlas.objective import Objective
from fedlas.ood import Outputs


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
    asked = run.recipe.train.precision
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
    batches = _training_batches(run, splits, accelerator)
    with locked(run.folder, accelerator):
        # Another process may have finished the run before this one got the lock.
        metrics = on_main(accelerator, lambda: claim(run, fingerprints(run, splits)))
        if metrics is not None:
            return metrics
        if accelerator.is_main_process:
            splits.save_indices(RunFolder(run.folder).splits_path)
            if (root := data_root(run)) is not None:
                RunFolder(run.folder).keep_root(root)
            used = precision_text(run.recipe.train.precision, asked, accelerator.device)
            if label is None:  # a bench says it itself, once for its runs
                say(f"precision {used}", style="dim", stderr=True)
            note_start(run.folder, accelerator.device, precision=used)
        with tracking_of(run, accelerator) as tracking:
            return _train_and_measure(run, objective, splits, batches, accelerator, label, tracking, show)


def _train_and_measure(
    run: Run,
    objective: Objective,
    splits: Splits,
    batches: EpochBatches,
    accelerator: Any,
    label: str | None,
    tracking: Tracking,
    show: ShowProgress,
) -> dict[str, Any]:
    train = run.recipe.train
    fitted = train_as_planned(
        run,
        objective,
        splits,
        batches=batches,
        accelerator=accelerator,
        label=label,
        on_record=tracking.epoch,
        watch_norms=train.save_features,
        show=show,
    )
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
    metrics["notes"] += [record["slow_step"] for record in fitted.history if "slow_step" in record]
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
        tracking.final(metrics, test)
    # No process may return before the files are there: what it does next may read them.
    accelerator.wait_for_everyone()
    return metrics


def _save_unknown(run: Run, objective: Objective, splits: Splits) -> None:
    """Save the outputs for the classes that the model never saw, where ``fedlas ood`` looks for them."""
    said = unknown_predictions(run, splits, objective, features=run.recipe.train.save_features)
    path = RunFolder(run.folder).part_path(f"ood-{HELD_OUT}")
    Outputs.of(said).save(path, about=outputs_fingerprint(run.folder, unknown_images(run)))


def train_as_planned(
    run: Run,
    objective: Objective,
    splits: Splits,
    *,
    accelerator: Any,
    batches: EpochBatches | None = None,
    identity: Mapping[str, Any] | None = None,
    label: str | None = None,
    on_record: Callable[[Mapping[str, Any]], None] | None = None,
    watch_norms: bool = False,
    show: ShowProgress = TrainingProgress,
) -> Fitted:
    """Train an objective as the recipe of a run says, in the run's folder, or go on where an earlier start stopped.

    Args:
        run: Recipe, seed (of the order of the data) and folder.
        objective: What is trained; not necessarily what :func:`build_objective` makes of the run.
        splits: The data; need not be those of the run's seed.
        accelerator: From :func:`fedlas._core.ranks.new_accelerator`.
        batches: Training batches; None makes those of the run.
        identity: What a checkpoint in the folder is compared with; None is ``run.config()``.
        label: Shown in front of the progress bar; None is the run's name.
        on_record: Called with each record once it is in the log, on the main process.
        watch_norms: Log what the feature norm says of held-out samples where the loss has no indicator to be watched.
        show: Shows the progress.

    Raises:
        InputError: As :func:`fedlas.lab.train.fit`.
    """
    train = run.recipe.train
    return fit(
        objective,
        _training_batches(run, splits, accelerator) if batches is None else batches,
        splits.batches(splits.val, batch_size=train.batch_size),
        folder=run.folder,
        config=train,
        optimizer=run.recipe.optimizer,
        schedule=run.recipe.schedule,
        identity=run.config() if identity is None else identity,
        accelerator=accelerator,
        name=label or run.name,
        hooks=monitors(objective.criterion, norms=watch_norms),
        on_record=on_record,
        show=show,
    )


def _training_batches(run: Run, splits: Splits, accelerator: Any) -> EpochBatches:
    train, processes = run.recipe.train, int(accelerator.num_processes)
    last = len(splits.train) % train.batch_size
    if 0 < last < processes and not train.drop_last:
        raise InputError(
            "run",
            f"the last batch must have a sample for each of {processes} processes",
            f"{last} of {len(splits.train)} training samples in it",
            "Set train.drop_last=true, or another train.batch_size.",
        )
    return splits.training_batches(
        batch_size=train.batch_size,
        drop_last=train.drop_last,
        seed=derive(run.seed, "order"),
        rank=accelerator.process_index,
        world_size=processes,
    )
