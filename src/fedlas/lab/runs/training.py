"""Trains the objective of a run as its recipe says."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from fedlas._core.check import InputError
from fedlas._core.ranks import on_main
from fedlas._core.streams import derive
from fedlas.diagnose import monitors
from fedlas.lab.data import Splits
from fedlas.lab.recipes.plan import Run, check_targets
from fedlas.lab.runs.cross_fit import cross_fitted_probs
from fedlas.lab.train import Fitted, Hook, fit
from fedlas.lab.train.checkpoint import CHECKPOINT
from fedlas.lab.train.loop import EpochBatches
from fedlas.lab.train.progress import ShowProgress, TrainingProgress
from fedlas.objective import Objective


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

    A loss that takes targets gets them first, from models of folds that are trained in folders below the run's.

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
    label = label or run.name
    batches = training_batches(run, splits, accelerator) if batches is None else batches
    # A checkpoint holds the targets.
    if (loss := check_targets(run, objective.criterion)) is not None and not on_main(
        accelerator, (run.folder / CHECKPOINT).exists
    ):

        def train_fold(fold: Run, objective: Objective, splits: Splits) -> None:
            few = training_batches(fold, splits, accelerator)
            title = f"{label} {fold.folder.name}"
            _fit(fold, objective, splits, few, fold.config(), accelerator, title, show, hooks=[], on_record=None)

        loss.set_targets(cross_fitted_probs(run, splits, accelerator, train_fold))
    hooks = monitors(objective.criterion, norms=watch_norms)
    identity = run.config() if identity is None else identity
    return _fit(run, objective, splits, batches, identity, accelerator, label, show, hooks=hooks, on_record=on_record)


def _fit(
    run: Run,
    objective: Objective,
    splits: Splits,
    batches: EpochBatches,
    identity: Mapping[str, Any],
    accelerator: Any,
    label: str,
    show: ShowProgress,
    *,
    hooks: Sequence[Hook],
    on_record: Callable[[Mapping[str, Any]], None] | None,
) -> Fitted:
    train = run.recipe.train
    return fit(
        objective,
        batches,
        splits.batches(splits.val, batch_size=train.batch_size),
        folder=run.folder,
        config=train,
        optimizer=run.recipe.optimizer,
        schedule=run.recipe.schedule,
        identity=identity,
        accelerator=accelerator,
        name=label,
        hooks=hooks,
        on_record=on_record,
        show=show,
    )


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
