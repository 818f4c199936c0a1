"""Does one run, from its plan to ``metrics.json``; the only place that turns names into things."""

from __future__ import annotations

import json
import logging
import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import lru_cache
from typing import Any

from torch import nn

from fedlas._core.check import InputError
from fedlas._core.files import write_json
from fedlas._core.pixels import usable_statistics
from fedlas._core.ranks import new_accelerator, on_main
from fedlas._core.streams import derive, seed_everything
from fedlas._core.terminal import printable
from fedlas.calibrators import CalibrationWarning, TemperatureScaling
from fedlas.diagnose import monitors
from fedlas.features import find_head
from fedlas.lab.data import Source, Splits, load_dataset, split
from fedlas.lab.data.base import Part
from fedlas.lab.data.shift.corrupted import corrupted
from fedlas.lab.data.shift.label_noise import with_label_noise
from fedlas.lab.data.shift.long_tail import long_tailed
from fedlas.lab.data.shift.open_set import OpenSet, open_set
from fedlas.lab.models import build_model, load_weights, weights_digest
from fedlas.lab.recipes.plan import Run, build_loss
from fedlas.lab.runs.environment import environment, read_starts
from fedlas.lab.runs.fingerprint import outputs_fingerprint, source_fingerprint, split_fingerprint
from fedlas.lab.runs.folder import claim, finished, locked
from fedlas.lab.runs.summary import FORMAT
from fedlas.lab.runs.tracking import Tracking, tracking_of
from fedlas.lab.train import Fitted, fit
from fedlas.lab.train.loop import EpochBatches
from fedlas.metrics import evaluate
from fedlas.objective import Objective
from fedlas.objective.predict import predict
from fedlas.ood import Outputs
from fedlas.predictions import Predictions
from fedlas.uncertainty.bayes_by_backprop import KLPenalty
from fedlas.uncertainty.bayesian_layers import to_bayesian

HELD_OUT = "held-out"
"""Name of the images of the classes that a run holds out, where other data sets have theirs."""


def execute(run: Run, *, label: str | None = None) -> dict[str, Any]:
    """Train, predict and measure; go on where an earlier start stopped, or return what a finished one found.

    Args:
        run: The run.
        label: Shown in front of the progress bar; None is the run's name.

    Returns:
        The contents of ``metrics.json``.

    Raises:
        InputError: If the folder cannot be written to, holds a run of another configuration or on other data, or is
            being worked on by another process; and whatever data, model, loss or training find wrong.

    State:
        Everything lands in ``run.folder``. ``metrics.json`` is written last: a folder that has it is finished.
    """
    accelerator = new_accelerator()
    metrics = on_main(accelerator, lambda: finished(run))
    if metrics is not None:
        return metrics
    # Whatever is wrong with data, model or loss shows before anything is written.
    splits = prepare_data(run).to(accelerator.device)
    as_tested(run, splits)
    objective = build_objective(run, splits, rank=accelerator.process_index)
    batches = _training_batches(run, splits, accelerator)
    with locked(run.folder, accelerator):
        metrics = on_main(accelerator, lambda: claim(run, fingerprints(run, splits)))
        if metrics is not None:
            return metrics
        if accelerator.is_main_process:
            splits.save_indices(run.folder / "splits.npz")
            starts = run.folder / "environment.json"
            write_json(starts, [*read_starts(starts), environment(accelerator.device)])
        with tracking_of(run, accelerator) as tracking:
            return _train_and_measure(run, objective, splits, batches, accelerator, label or run.name, tracking)


def _train_and_measure(
    run: Run,
    objective: Objective,
    splits: Splits,
    batches: EpochBatches,
    accelerator: Any,
    label: str,
    tracking: Tracking,
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
    )
    started = time.monotonic()
    val, test = (
        predictions_of(objective, by, part, batch_size=train.batch_size, features=train.save_features)
        for by, part in held_out(run, splits)
    )
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
        for name, predictions in (("val", val), ("test", test)):
            predictions.save(run.folder / "predictions" / f"{name}.npz")
        if run.recipe.data.hold_out_classes:
            _save_unknown(run, objective, splits)
        write_json(run.folder / "metrics.json", metrics)
        tracking.final(metrics, test)
    accelerator.wait_for_everyone()
    return metrics


def held_out(run: Run, splits: Splits) -> tuple[tuple[Splits, Part], tuple[Splits, Part]]:
    """Validation and test part, each with the splits whose normalisation it is predicted under: :func:`as_tested`.

    Whoever predicts on the test part of a run goes through one of the two, or would measure another transform.
    """
    return (splits, splits.val), (as_tested(run, splits), splits.test)


def as_tested(run: Run, splits: Splits) -> Splits:
    """The splits with the test part's own normalisation, if the recipe has one.

    Raises:
        InputError: If it does not fit the images.
    """
    mean, std = run.recipe.data.test_mean, run.recipe.data.test_std
    if mean is None or std is None:
        return splits
    if not usable_statistics(mean, std, splits.in_channels):
        raise InputError(
            "data",
            f"test_mean and test_std must hold {splits.in_channels} numbers, finite and std above 0",
            f"{mean} and {std}",
            "Give one per channel.",
        )
    return replace(splits, mean=tuple(mean), std=tuple(std))


def _save_unknown(run: Run, objective: Objective, splits: Splits) -> None:
    """What the model says of the classes that it never saw, where ``fedlas ood`` looks for it."""
    train, part = run.recipe.train, unknown_images(run)
    said = predictions_of(
        objective,
        as_tested(run, splits),
        part.with_target(part.target * 0).to(splits.test.target.device),  # their labels are no classes of the model
        batch_size=train.batch_size,
        features=train.save_features,
    )
    path = run.folder / "predictions" / f"ood-{HELD_OUT}.npz"
    Outputs.of(said).save(path, about=outputs_fingerprint(run.folder, part))


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
    )


def measure(val: Predictions | None, test: Predictions, *, num_bins: int = 15) -> dict[str, Any]:
    """Metrics before and after temperature scaling, which is fitted on validation by NLL.

    Returns:
        ``temperature`` (NLL optimum), ``temperature_ece`` (grid, for parity with published tables), ``notes`` (what the
        fits warned of), and the metrics ``val``, ``test``, ``test_scaled``. Without ``val`` the temperatures are None,
        and ``val`` and ``test_scaled`` are empty.
    """
    if val is None:
        unknown: dict[str, Any] = {"temperature": None, "temperature_ece": None, "notes": [], "val": {}}
        return {**unknown, "test": evaluate(test, num_bins=num_bins), "test_scaled": {}}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", CalibrationWarning)
        scaling = TemperatureScaling().fit(val)
        grid = TemperatureScaling(objective="ece", num_bins=num_bins).fit(val)
    return {
        "temperature": scaling.temperature,
        "temperature_ece": grid.temperature,
        "notes": [str(warning.message) for warning in caught],
        "val": evaluate(val, num_bins=num_bins),
        "test": evaluate(test, num_bins=num_bins),
        "test_scaled": evaluate(scaling.transform(test), num_bins=num_bins),
    }


def prepare_data(run: Run) -> Splits:
    """The three parts of a run's data; the same for every loss of the same seed, and for every ``data.split_seed``."""
    data, source = run.recipe.data, _source(*_source_key(run))
    seed = run.seed if data.split_seed is None else data.split_seed
    splits = split(
        source,
        seed=derive(seed, "split"),
        val_size=data.val_size,
        train_size=data.train_size,
        test_size=data.test_size,
    )
    if data.long_tail is not None:
        splits = long_tailed(splits, data.long_tail, seed=derive(seed, "long tail"))
    if data.label_noise is not None:
        splits = with_label_noise(splits, data.label_noise, seed=derive(seed, "label noise"))
    if data.corruption is not None:
        splits = replace(splits, test=corrupted(splits.test, data.corruption))
    return replace(splits, workers=data.workers)


def data_fingerprint(run: Run) -> dict[str, Any]:
    """Fingerprint of the run's data set; the same for every seed."""
    return _fingerprint(*_source_key(run))


def build_objective(run: Run, splits: Splits, *, rank: int = 0, pretrained: bool = True) -> Objective:
    """Model and loss of a run. Every loss gets the same model weights, as it draws from its own stream.

    Args:
        run: The run.
        splits: Its data.
        rank: Of this process.
        pretrained: Read the recipe's file of weights, if it names one; not needed where a checkpoint follows.

    State:
        Seeds the global generators for training; for each rank differently, or all would drop out the same units.
    """
    seed_everything(derive(run.seed, "model"))
    model = build_model(
        run.recipe.model.name,
        num_classes=splits.num_classes,
        in_channels=splits.in_channels,
        image_size=splits.image_size,
        **run.recipe.model.options,
    )
    if run.recipe.model.weights is not None and pretrained:
        for note in load_weights(model, run.recipe.model.weights):
            _say(note)
    if run.recipe.train.save_features:
        find_head(model)  # an error after the last epoch would come too late
    bayesian, penalty = run.recipe.model.bayesian, None
    if bayesian is not None:
        model = to_bayesian(model, bayesian)
        penalty = KLPenalty(len(splits.train), bayesian.kl_weight)
    seed_everything(derive(run.seed, "criterion"))
    loss = build_loss(run, num_classes=splits.num_classes, num_samples=len(splits.train))
    objective = Objective(model, loss, features=run.features, penalty=penalty)
    seed_everything(derive(run.seed, f"training/{rank}" if rank else "training"))
    return objective


@lru_cache(maxsize=16)
def _say(note: str) -> None:
    """Once, however many runs it concerns."""
    logging.getLogger("fedlas").warning("%s", printable(note))


@lru_cache(maxsize=1)
def _open_set(name: str, root: str | None, options: str, held_out: str) -> OpenSet | Source:
    """The data set, kept from run to run: reading it can take longer than an epoch."""
    source, classes = load_dataset(name, root, **json.loads(options)), json.loads(held_out)
    return open_set(source, classes) if classes else source


def _source(name: str, root: str | None, options: str, held_out: str) -> Source:
    """What of the data set is trained and tested on."""
    found = _open_set(name, root, options, held_out)
    return found.known if isinstance(found, OpenSet) else found


def unknown_images(run: Run) -> Part:
    """Test images of the classes that the run holds out.

    Raises:
        InputError: If it holds out none.
    """
    found = _open_set(*_source_key(run))
    if isinstance(found, OpenSet):
        return found.unknown
    raise InputError("run", "it must hold out classes", run.name, "Train one with --set data.hold_out_classes=[...].")


def fingerprints(run: Run, splits: Splits) -> dict[str, Any]:
    """What a run is tied to beside its configuration: data set, split, and the weights that it starts from."""
    weights = run.recipe.model.weights
    start = {} if weights is None else {"weights": weights_digest(weights)}
    return {**data_fingerprint(run), "split": split_fingerprint(splits), **start}


@lru_cache(maxsize=1)
def _fingerprint(name: str, root: str | None, options: str, held_out: str) -> dict[str, Any]:
    return source_fingerprint(_source(name, root, options, held_out))


def _source_key(run: Run) -> tuple[str, str | None, str, str]:
    data = run.recipe.data
    return data.name, data.root, json.dumps(data.options, sort_keys=True), json.dumps(data.hold_out_classes)


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


def predictions_of(model: nn.Module, splits: Splits, part: Part, *, batch_size: int, features: bool) -> Predictions:
    """Predictions on one part of the data, with the label probabilities where they are known."""
    predictions = predict(model, splits.batches(part, batch_size=batch_size), features=features)
    return replace(predictions, label_probs=None if part.label_probs is None else part.label_probs.cpu())
