"""One run, from its plan to ``metrics.json``: targets, training, predictions and metrics."""

from __future__ import annotations

import shlex
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fedlas._core.check import InputError
from fedlas._core.files import remove, write_json
from fedlas._core.ranks import new_accelerator, on_main
from fedlas._core.streams import Purpose, derive, restore_rng_state, rng_state, stream
from fedlas._core.terminal import say
from fedlas.calibrators import TemperatureScaling
from fedlas.calibrators.base import fit_with_notes
from fedlas.diagnose import monitors
from fedlas.lab.data import Splits
from fedlas.lab.data.base import Part
from fedlas.lab.data.splits import shuffled_classes
from fedlas.lab.recipes.plan import Run, build_loss, check_targets, taker_of_targets
from fedlas.lab.runs.build import build_objective
from fedlas.lab.runs.claim import claim, finished, locked
from fedlas.lab.runs.comparable import settled
from fedlas.lab.runs.data import (
    HELD_OUT,
    as_tested,
    data_root,
    fingerprints,
    held_out,
    outputs_fingerprint,
    prepare_data,
    unknown_images,
    warn_of_small_validation,
)  # fmt: skip
from fedlas.lab.runs.environment import note_start
from fedlas.lab.runs.folder import FORMAT, RunFolder
from fedlas.lab.train.checkpoint import CHECKPOINT
from fedlas.lab.train.engine import precision_text
from fedlas.lab.train.job import EpochBatches, TrainingJob
from fedlas.lab.train.log import ShowProgress, TrainingProgress, alarm_epochs
from fedlas.lab.train.loop import Fitted, fit
from fedlas.lab.train.tracking import Tracking
from fedlas.metrics import METRICS, evaluate
from fedlas.objective import Objective
from fedlas.objective.predict import predict
from fedlas.predictions import Predictions
from fedlas.zoo.ood import Outputs


def predictions_of(
    model: nn.Module, splits: Splits, part: Part, *, batch_size: int, features: bool
) -> Predictions:
    """Predict one part of the data, with the label probabilities where they are known."""
    predictions = predict(model, splits.batches(part, batch_size=batch_size), features=features)
    return replace(
        predictions, label_probs=None if part.label_probs is None else part.label_probs.cpu()
    )


def held_out_predictions(
    run: Run, splits: Splits, model: nn.Module, *, features: bool = False
) -> tuple[Predictions, Predictions]:
    """Predict the validation and the test part of a run, each under its own normalization."""
    size = run.recipe.train.batch_size
    val, test = (
        predictions_of(model, by, part, batch_size=size, features=features)
        for by, part in held_out(run, splits)
    )
    return val, test


def unknown_predictions(
    run: Run, splits: Splits, model: nn.Module, *, features: bool = False
) -> Predictions:
    """Predict the test images of the classes that a run holds out; their targets are all 0.

    Raises:
        InputError: If it holds out none.
    """
    part = unknown_images(run)
    # Their labels are no classes of the model.
    part = part.with_target(part.target * 0).to(splits.test.target.device)
    size = run.recipe.train.batch_size
    return predictions_of(model, as_tested(run, splits), part, batch_size=size, features=features)


def measure(val: Predictions | None, test: Predictions, *, num_bins: int = 15) -> dict[str, Any]:
    """Return metrics before and after temperature scaling, which is fitted on validation by NLL.

    Returns:
        ``temperature`` (NLL optimum), ``temperature_ece`` (grid, for parity with published tables), ``notes`` (what the
        fits warned of), and the metrics ``val``, ``test``, ``test_calibrated``. Without ``val`` the temperatures are
        None, and ``val`` and ``test_calibrated`` are empty.
    """
    if val is None:
        unknown: dict[str, Any] = {
            "temperature": None,
            "temperature_ece": None,
            "notes": [],
            "val": {},
        }
        return {**unknown, "test": recorded(test, num_bins), "test_calibrated": {}}
    scaling, notes = fit_with_notes(TemperatureScaling(), val)
    grid, more = fit_with_notes(TemperatureScaling(objective="ece", num_bins=num_bins), val)
    return {
        "temperature": scaling.temperature,
        "temperature_ece": grid.temperature,
        "notes": [*notes, *more],
        "val": recorded(val, num_bins),
        "test": recorded(test, num_bins),
        "test_calibrated": recorded(scaling.transform(test), num_bins),
    }


def recorded(predictions: Predictions, num_bins: int = 15) -> dict[str, float]:
    """Return the default metrics and AURC, since a loss may pay for calibration with the order."""
    return {**evaluate(predictions, num_bins=num_bins), "aurc": METRICS["aurc"].value(predictions)}


FOLD_LOSS = "ce"
"""Loss of the models of the folds."""
LEFT_OUT = "left-out"
"""Name of the predictions on the part that a model was not trained on."""


def fold_runs(run: Run) -> list[Run]:
    """Return the runs of the folds, in folders inside the run's; none for a loss that takes no targets."""
    loss = build_loss(run, num_classes=10, num_samples=1000)
    folds = run.recipe.data.cross_fit
    if folds is None or taker_of_targets(loss) is None:
        return []
    plain = replace(run.recipe, data=replace(run.recipe.data, cross_fit=None))
    names = [f"fold-{number + 1}-of-{folds}" for number in range(folds)]
    return [
        replace(run, recipe=plain, loss=FOLD_LOSS, folder=run.folder / "cross-fit" / name)
        for name in names
    ]


def folds_of(
    target: NDArray[np.int64], num_classes: int, folds: int, *, seed: int
) -> NDArray[np.int64]:
    """Return the fold of each sample ``(N,)``: folds of equal size, with classes divided as equally as possible."""
    order = np.concatenate(shuffled_classes(target, num_classes, stream(Purpose.CROSS_FIT, seed)))
    fold = np.empty_like(order)
    fold[order] = np.arange(len(order)) % folds
    return fold


def cross_fitted_probs(
    run: Run, splits: Splits, accelerator: Any, train: Callable[[Run, Objective, Splits], object]
) -> Tensor:
    """Return probabilities ``(N, C)`` of all training samples, each by a model that was trained without it.

    One temperature, fitted on these held-out predictions, calibrates them.

    Args:
        run: The run that they are for; its seed decides the folds.
        splits: Its data.
        accelerator: From :func:`fedlas._core.ranks.new_accelerator`.
        train: Trains an objective as a run says, on the training part of splits.

    State:
        Each model has a folder, whose predictions stay and whose checkpoint goes; one that is finished is not trained
        again. The global generators are as they were.
    """
    runs = fold_runs(run)
    target = splits.train.target.cpu()
    device = splits.train.target.device
    folds = folds_of(
        target.numpy(), splits.num_classes, len(runs), seed=derive(run.seed, "cross-fit")
    )
    fold = torch.from_numpy(folds).to(device)
    logits = torch.empty(len(target), splits.num_classes)
    random = rng_state()
    for number, each in enumerate(runs):
        rest, left_out = (
            chosen.nonzero().squeeze(1) for chosen in (fold != number, fold == number)
        )
        path = RunFolder(each.folder).part_path(LEFT_OUT)
        if not on_main(accelerator, path.exists):
            part = replace(splits, train=splits.train.take(rest), clean_target=None)
            objective = build_objective(each, part, rank=int(accelerator.process_index))
            each.folder.mkdir(parents=True, exist_ok=True)
            train(each, objective, part)
            size = run.recipe.train.batch_size
            images = splits.train.take(left_out)
            predictions = predictions_of(objective, splits, images, batch_size=size, features=False)
            if accelerator.is_main_process:
                predictions.save(path)
                remove(RunFolder(each.folder).checkpoint_path, inside=run.folder)
            accelerator.wait_for_everyone()
        logits[left_out.cpu()] = Predictions.load(path).logits
    restore_rng_state(random)
    held_out = Predictions(logits, target)
    temperature, _ = fit_with_notes(TemperatureScaling(), held_out)
    return temperature.transform(held_out).probs


def training_job(
    run: Run, objective: Objective, splits: Splits, accelerator: Any, *, watch_norms: bool = False
) -> TrainingJob:
    """Return the job that trains an objective as the recipe of a run says, in the run's folder.

    Args:
        run: Recipe, seed (of the order of the data) and folder.
        objective: Model and loss; not necessarily those that :func:`build_objective` makes of the run.
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
        InputError: As :func:`fedlas.lab.train.loop.fit`.
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
    """Return the training batches of this process.

    Raises:
        InputError: If the last batch has fewer samples than there are processes.
    """
    train = run.recipe.train
    processes = int(accelerator.num_processes)
    last = len(splits.train) % train.batch_size
    if 0 < last < processes and not train.drop_last:
        expected = f"the last batch must have a sample for each of {processes} processes"
        got = f"{last} of {len(splits.train)} training samples in it"
        raise InputError(expected, got, "Set train.drop_last=true, or another train.batch_size.")
    return splits.training_batches(
        batch_size=train.batch_size,
        drop_last=train.drop_last,
        seed=derive(run.seed, "order"),
        rank=accelerator.process_index,
        world_size=processes,
    )


def execute(
    run: Run, *, label: str | None = None, show: ShowProgress = TrainingProgress
) -> dict[str, Any]:
    """Train, predict and measure; resume an earlier start, or return the metrics of a finished run.

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
        Everything lands in ``run.folder``. ``metrics.json`` is written last, and marks the run as finished.
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
    job = training_job(
        run, objective, splits, accelerator, watch_norms=run.recipe.train.save_features
    )
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
        with Tracking(
            trackers, run.folder, project=run.recipe.name, name=run.name, config=run.config()
        ) as tracking:
            return _train_and_measure(run, splits, replace(job, on_record=tracking.epoch), tracking)


def _train_and_measure(
    run: Run, splits: Splits, job: TrainingJob, tracking: Tracking
) -> dict[str, Any]:
    train = run.recipe.train
    objective = job.objective
    accelerator = job.accelerator
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
    # of all starts, not of this one alone
    trained = sum(record["seconds"] for record in fitted.history)
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
    predictions = unknown_predictions(
        run, splits, objective, features=run.recipe.train.save_features
    )
    path = RunFolder(run.folder).part_path(f"ood-{HELD_OUT}")
    Outputs.of(predictions).save(path, about=outputs_fingerprint(run.folder, unknown_images(run)))


def alarms_of(runs: Sequence[Run], folder: Path) -> list[str]:
    """Return a line if gate or indicator raised alarms after the warm-up of finished runs; none without alarms.

    Args:
        runs: Finished runs.
        folder: Of the run, or of all runs of a bench.
    """
    names = []
    for run in runs:
        epochs = run.recipe.train.epochs
        warmup = run.recipe.schedule.warmup_epochs
        if alarm_epochs(RunFolder(run.folder).log, epochs=epochs, warmup_epochs=warmup):
            names.append(run.name)
    command = shlex.join(["fedlas", "diagnose", str(folder), "--details"])
    return (
        [f"Gate or indicator raised alarms in {counted(names)}; look at them: {command}"]
        if names
        else []
    )


def counted(names: Sequence[str]) -> str:
    """Return the name of one run, or how many there are."""
    return names[0] if len(names) == 1 else f"{len(names)} runs"
