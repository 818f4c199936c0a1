"""Trains the objective of a run as its recipe says."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from fedlas._core.check import InputError
from fedlas._core.ranks import on_main
from fedlas._core.streams import derive
from fedlas.diagnose import monitors
from fedlas.lab.data import Splits
from fedlas.lab.recipes.plan import Run, check_targets
from fedlas.lab.runs.cross_fit import cross_fitted_probs
from fedlas.lab.train import Fitted, TrainingJob, fit
from fedlas.lab.train.checkpoint import CHECKPOINT
from fedlas.lab.train.job import EpochBatches
from fedlas.objective import Objective


def training_job(
    run: Run, objective: Objective, splits: Splits, accelerator: Any, *, watch_norms: bool = False
) -> TrainingJob:
    """Return the job that trains an objective as the recipe of a run says, in the run's folder.

    Args:
        run: Recipe, seed (of the order of the data) and folder.
        objective: What is trained; not necessarily what :func:`build_objective` makes of the run.
        splits: The data; need not be those of the run's seed.
        accelerator: From :func:`fedlas._core.ranks.new_accelerator`.
        watch_norms: Log how the feature norm relates to held-out samples where the loss has no indicator.

    Raises:
        InputError: As :func:`training_batches`.
    """
    recipe = run.recipe
    return TrainingJob(
        objective,
        training_batches(run, splits, accelerator),
        splits.batches(splits.val, batch_size=recipe.train.batch_size),
        folder=run.folder,
        config=recipe.train,
        optimizer=recipe.optimizer,
        schedule=recipe.schedule,
        identity=run.config(),
        accelerator=accelerator,
        name=run.name,
        hooks=monitors(objective.criterion, norms=watch_norms),
    )


def train_run(run: Run, splits: Splits, job: TrainingJob) -> Fitted:
    """Do the job of a run, or resume it where an earlier start stopped.

    A loss that takes targets gets them first, from models of folds that are trained in folders below the run's.

    Raises:
        InputError: As :func:`fedlas.lab.train.fit`.
    """
    # A checkpoint holds the targets.
    loss = check_targets(run, job.objective.criterion)
    if loss is not None and not on_main(job.accelerator, (run.folder / CHECKPOINT).exists):

        def train_fold(fold: Run, objective: Objective, splits: Splits) -> None:
            name = f"{job.name} {fold.folder.name}"
            fold_job = training_job(fold, objective, splits, job.accelerator)
            fit(replace(fold_job, name=name, show=job.show, hooks=()))

        loss.set_targets(cross_fitted_probs(run, splits, job.accelerator, train_fold))
    return fit(job)


def training_batches(run: Run, splits: Splits, accelerator: Any) -> EpochBatches:
    """The training batches of this process.

    Raises:
        InputError: If the last batch has fewer samples than there are processes.
    """
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
