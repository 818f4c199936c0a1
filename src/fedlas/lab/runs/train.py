"""Training of a run: its model, loss and job, and the cross-fitting of targets that some losses need."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fedlas._core.check import InputError
from fedlas._core.extras import require
from fedlas._core.files import remove
from fedlas._core.ranks import Accelerator, run_on_main
from fedlas._core.streams import (
    Purpose,
    derive_seed,
    restore_rng_state,
    rng_state,
    seed_everything,
    seeded_generator,
)
from fedlas.calibrators import TemperatureScaling
from fedlas.calibrators.fit_notes import fit_with_notes
from fedlas.diagnose import make_monitors
from fedlas.features import find_head
from fedlas.lab.data import Source, Splits
from fedlas.lab.data.splits import shuffle_within_classes
from fedlas.lab.models.base import build_model, check_input_shape
from fedlas.lab.models.weights import load_weights
from fedlas.lab.recipes.planning import Run, build_loss, checked_target_loss, find_target_loss
from fedlas.lab.runs.folder import RunFolder
from fedlas.lab.runs.predict import predict_part
from fedlas.lab.train.checkpoint import CHECKPOINT
from fedlas.lab.train.job import EpochBatches, TrainingJob
from fedlas.lab.train.layers import freeze
from fedlas.lab.train.log import warn_once
from fedlas.lab.train.loop import FitResult, fit
from fedlas.objective import Objective
from fedlas.predictions import Predictions
from fedlas.zoo.uncertainty.bayes_by_backprop import KLPenalty
from fedlas.zoo.uncertainty.bayesian_layers import to_bayesian

_FIRST_IMAGES = 5_000
"""Number of training images that ``fit_inputs`` of a model gets before training."""


def build_objective(
    run: Run, splits: Splits, *, rank: int = 0, pretrained: bool = True
) -> Objective:
    """Return the model and loss of a run; the initial weights do not depend on the loss.

    Args:
        run: The run.
        splits: Its data.
        rank: Rank of this process.
        pretrained: Whether to load the recipe's weights, if any, and to fit the model's input layer, if it needs a
            fit; False if a checkpoint is loaded afterward.

    State:
        Seeds the global generators for training, differently for each rank, so that dropout masks differ.
    """
    # Each step draws from a seed of its own, so a loss that draws numbers does not change the initial weights.
    seed_everything(derive_seed(run.seed, "model"))
    model = build_run_model(run, splits)
    if pretrained and (fit_inputs := getattr(model, "fit_inputs", None)) is not None:
        first = splits.train.take(torch.arange(min(len(splits.train), _FIRST_IMAGES)))
        fit_inputs(torch.cat([images for images, *_ in splits.batches(first, batch_size=256)]))
    if run.recipe.model.weights is not None and pretrained:
        for note in load_weights(model, run.recipe.model.weights):
            warn_once(note)
    if run.recipe.train.save_features:
        find_head(model)  # an error after the last epoch would come too late
    if run.recipe.model.tune == "head":
        model.requires_grad_(False)
        find_head(model).requires_grad_(True)
    freeze(model, run.recipe.model.freeze)
    # Weights are loaded before the conversion, because their names are those of the plain layers.
    bayesian = run.recipe.model.bayesian
    penalty = None
    if bayesian is not None:
        model = to_bayesian(model, bayesian)
        penalty = KLPenalty(len(splits.train), bayesian.kl_weight)
    seed_everything(derive_seed(run.seed, "criterion"))
    loss = build_loss(
        run,
        num_classes=splits.num_classes,
        num_samples=len(splits.train),
        num_features=_head_input_size(model),
    )
    objective = Objective(model, loss, features=run.features, penalty=penalty)
    # Processes must draw different numbers, or each would augment and drop out alike.
    seed_everything(derive_seed(run.seed, f"training/{rank}" if rank else "training"))
    return objective


def build_run_model(run: Run, data: Splits | Source) -> nn.Module:
    """Return the model of a run, built for the shape of its data."""
    shape = (*data.train.shape, 1, 1)
    model = run.recipe.model
    size = {"num_classes": data.num_classes, "in_channels": shape[0], "image_size": shape[1]}
    objects = run.recipe.objects
    if objects is not None and objects.model is not None:
        return objects.build("model", model.name, model.options, **size)
    check_input_shape(model.name, data.train.shape)
    return build_model(model.name, **size, **model.options)


def _head_input_size(model: nn.Module) -> int | None:
    """Return the number of input features of the head, or None if the head is not one linear layer."""
    try:
        length = getattr(find_head(model), "in_features", None)
    except InputError:
        return None
    return length if isinstance(length, int) else None


def build_training_job(
    run: Run,
    objective: Objective,
    splits: Splits,
    accelerator: Accelerator,
    *,
    watch_norms: bool = False,
) -> TrainingJob:
    """Return the training job of an objective, configured by the recipe of a run.

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
        frozen=_frozen_layers(run, objective.model),
        hooks=make_monitors(objective.criterion, norms=watch_norms),
    )


def _frozen_layers(run: Run, model: nn.Module) -> list[str]:
    """Return the names of frozen layers: ``model.freeze``, or all without trainable parameters unless tuned in full."""
    if run.recipe.model.tune == "full":
        return run.recipe.model.freeze
    return [
        name
        for name, layer in model.named_modules()
        if not any(parameter.requires_grad for parameter in layer.parameters())
    ]


def train_run(run: Run, splits: Splits, job: TrainingJob) -> FitResult:
    """Train a run, or resume it from its checkpoint.

    A loss that needs out-of-fold targets gets them first, from models that are trained in subfolders of the run.

    Raises:
        InputError: As :func:`fedlas.lab.train.loop.fit`.
    """
    # A checkpoint holds the targets.
    loss = checked_target_loss(run, job.objective.criterion)
    if loss is not None and not run_on_main(job.accelerator, (run.folder / CHECKPOINT).exists):

        def train_fold(fold: Run, objective: Objective, splits: Splits) -> None:
            name = f"{job.name} {fold.folder.name}"
            fold_job = build_training_job(fold, objective, splits, job.accelerator)
            fit(replace(fold_job, name=name, show=job.show, hooks=()))

        loss.set_targets(out_of_fold_probs(run, splits, job.accelerator, train_fold))
    return fit(job)


def training_batches(run: Run, splits: Splits, accelerator: Accelerator) -> EpochBatches:
    """Return the training batches of this process.

    Raises:
        InputError: If the last batch has fewer samples than there are processes.
    """
    train = run.recipe.train
    processes = int(accelerator.num_processes)
    last = len(splits.train) % train.batch_size
    if 0 < last < processes and not train.drop_last:
        raise InputError(
            f"the last batch must have a sample for each of {processes} processes",
            f"{last} of {len(splits.train)} training samples in it",
            "Set train.drop_last=true, or another train.batch_size.",
        )
    return splits.training_batches(
        batch_size=train.batch_size,
        drop_last=train.drop_last,
        seed=derive_seed(run.seed, "order"),
        rank=accelerator.process_index,
        world_size=processes,
    )


FOLD_LOSS = "ce"
"""Loss of the models that are trained for cross-fitting."""
HELD_OUT_FOLD = "left-out"
"""Name of the predictions on the fold that a model was not trained on."""


def fold_runs(run: Run) -> list[Run]:
    """Return one run per cross-fitting fold, in subfolders of the run; empty if the loss takes no targets."""
    loss = build_loss(run, num_classes=10, num_samples=1000)
    folds = run.recipe.data.cross_fit
    if folds is None or find_target_loss(loss) is None:
        return []
    plain = replace(run.recipe, data=replace(run.recipe.data, cross_fit=None))
    names = [f"fold-{number + 1}-of-{folds}" for number in range(folds)]
    return [
        replace(run, recipe=plain, loss=FOLD_LOSS, folder=run.folder / "cross-fit" / name)
        for name in names
    ]


def assign_folds(
    target: NDArray[np.int64], num_classes: int, folds: int, *, seed: int
) -> NDArray[np.int64]:
    """Return the fold index of each sample ``(N,)``, stratified by class; folds have equal size."""
    order = np.concatenate(
        shuffle_within_classes(target, num_classes, seeded_generator(Purpose.CROSS_FIT, seed))
    )
    fold = np.empty_like(order)
    fold[order] = np.arange(len(order)) % folds
    return fold


def out_of_fold_probs(
    run: Run,
    splits: Splits,
    accelerator: Accelerator,
    train: Callable[[Run, Objective, Splits], object],
) -> Tensor:
    """Return out-of-fold probabilities ``(N, C)`` of the training samples, after temperature scaling.

    One temperature is fitted to the out-of-fold predictions.

    Args:
        run: The run that needs the targets; its seed determines the folds.
        splits: Its data.
        accelerator: From :func:`fedlas._core.ranks.new_accelerator`.
        train: Trains an objective as a run says, on the training part of splits.

    State:
        Each model has a folder, which keeps the predictions but not the checkpoint; a finished model is not trained
        again. The state of the global generators is restored.
    """
    runs = fold_runs(run)
    target = splits.train.target.cpu()
    device = splits.train.target.device
    folds = assign_folds(
        target.numpy(), splits.num_classes, len(runs), seed=derive_seed(run.seed, "cross-fit")
    )
    fold = torch.from_numpy(folds).to(device)
    logits = torch.empty(len(target), splits.num_classes)
    rng = rng_state()
    for fold_index, each in enumerate(runs):
        rest, left_out = (
            chosen.nonzero().squeeze(1) for chosen in (fold != fold_index, fold == fold_index)
        )
        path = RunFolder(each.folder).part_path(HELD_OUT_FOLD)
        if not run_on_main(accelerator, path.exists):
            part = replace(splits, train=splits.train.take(rest), clean_target=None)
            objective = build_objective(each, part, rank=int(accelerator.process_index))
            each.folder.mkdir(parents=True, exist_ok=True)
            train(each, objective, part)
            size = run.recipe.train.batch_size
            images = splits.train.take(left_out)
            predictions = predict_part(objective, splits, images, batch_size=size, features=False)
            if accelerator.is_main_process:
                predictions.save(path)
                remove(RunFolder(each.folder).checkpoint_path, inside=run.folder)
            accelerator.wait_for_everyone()
        logits[left_out.cpu()] = Predictions.load(path).tensors().logits
    restore_rng_state(rng)
    held_out = Predictions(logits, target)
    temperature, _ = fit_with_notes(TemperatureScaling(), held_out)
    return temperature.transform(held_out).tensors().probs


def count_available_cores() -> int:
    """Return the number of cores available to this process, by its affinity and container limit."""
    return int(require("joblib", extra="bench").cpu_count())


@contextmanager
def limit_threads(threads: int | None) -> Iterator[None]:
    """Limit PyTorch and BLAS to ``threads`` threads inside the context; None changes nothing."""
    if threads is None:
        yield
        return
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with require("threadpoolctl", extra="bench").threadpool_limits(threads, user_api="blas"):
            yield
    finally:
        torch.set_num_threads(before)
