"""Expected work of a run before it starts: optimizer steps, threads and progress."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn.modules.conv import _ConvNd

from fedlas._core.check import InputError
from fedlas._core.files import is_file
from fedlas._core.ranks import has_accelerator
from fedlas.lab.data import DATASETS
from fedlas.lab.recipes.planning import Run
from fedlas.lab.runs.data import load_source, prepare_data
from fedlas.lab.runs.folder import RunFolder
from fedlas.lab.runs.train import HELD_OUT_FOLD, build_run_model, fold_runs
from fedlas.lab.train.config import TrainConfig


@dataclass(frozen=True)
class Forecast:
    """Expected work of a run: its optimizer steps, in total and left, and its state.

    Attributes:
        run: The run.
        steps: About how many optimizer steps it takes from the start; None if the size of its data is unknown.
        left: About how many of them are still to be done.
        state: ``new``, ``finished``, ``failed before`` or ``resumes after epoch ...``.
    """

    run: Run
    steps: int | None
    left: int | None
    state: str


def count_train_images(run: Run) -> int | None:
    """Return the approximate number of training images of a run, or None if its data is not available.

    The size of a published data set is known without its files; other data is read.
    """
    data = run.recipe.data
    objects = run.recipe.objects
    published = None if objects else DATASETS[data.name].metadata.get("expected")
    if published is not None and not data.hold_out_classes and data.long_tail is None:
        validation = data.val_size if data.val_size >= 1 else data.val_size * published.train
        images = published.train - math.ceil(validation)
        return images if data.train_size is None else min(images, data.train_size)
    try:
        return len(prepare_data(run).train)
    except (InputError, OSError):  # the run itself will say what is wrong with it
        return data.train_size


def forecast_run(run: Run) -> Forecast:
    """Return the expected work of a run, from its folder and the size of its data."""
    train = run.recipe.train
    images = count_train_images(run)
    # A size that is not known before the data is read leaves the steps open.
    steps_per_epoch = None if images is None else _steps_per_epoch(images, train)
    folder = RunFolder(run.folder)
    epochs_done = _epochs_done(folder, train.checkpoint_every)
    if folder.is_finished:
        state = "finished"
        epochs_done = train.epochs
    elif epochs_done:
        state = f"resumes after epoch {epochs_done}"
    else:
        state = "failed before" if is_file(folder.error_path) else "new"
    if images is None or steps_per_epoch is None:
        return Forecast(run, None, None, state)
    total = steps_per_epoch * train.epochs
    steps_left = steps_per_epoch * max(0, train.epochs - epochs_done)
    # Models of folds come first; where the run itself has begun, they are done.
    folds = fold_runs(run)
    for fold in folds:
        steps = _steps_per_epoch(images - images // len(folds), train)
        total += steps * train.epochs
        if not epochs_done and not is_file(RunFolder(fold.folder).part_path(HELD_OUT_FOLD)):
            steps_left += steps * max(
                0, train.epochs - _epochs_done(RunFolder(fold.folder), train.checkpoint_every)
            )
    return Forecast(run, total, steps_left, state)


def _steps_per_epoch(images: int, train: TrainConfig) -> int:
    whole = images // train.batch_size
    return whole if train.drop_last and whole else math.ceil(images / train.batch_size)


def _epochs_done(folder: RunFolder, checkpoint_every: int) -> int:
    """Return the number of epochs in the checkpoint, from which the run resumes; the log may hold more."""
    # Without a checkpoint, training starts from the beginning, whatever the log holds.
    if not is_file(folder.checkpoint_path):
        return 0
    try:
        return len(folder.log) // checkpoint_every * checkpoint_every
    except (InputError, ValueError, KeyError):  # the run itself will say what is wrong with it
        return 0


SMALL_MODEL_FLOPS = 5e9
"""Floating-point operations of a forward pass of one batch, below which a model counts as small.

A processor core does so many in about a tenth of a second. Threads that share less work than that mostly wait for each
other, most of all while other processes compute, too.
"""


def choose_threads(run: Run) -> int | None:
    """Return 1 for a small model on a CPU-only machine, else None for PyTorch's default number of threads.

    The number of threads changes rounding, so it depends on the recipe alone, not on the number of parallel runs or
    the load of the machine.

    Raises:
        InputError: If the data cannot be read, or the model not built.
    """
    if has_accelerator():
        return None
    source = load_source(run)
    with torch.random.fork_rng(devices=[]):
        model = build_run_model(run, source)
        each = count_forward_flops(model, source.train.shape)
    return 1 if run.recipe.train.batch_size * each < SMALL_MODEL_FLOPS else None


def count_forward_flops(model: nn.Module, shape: Sequence[int]) -> int:
    """Return the floating-point operations of a forward pass of one input; a multiply-add counts as 2."""
    total = 0

    def count(layer: Any, _: Any, output: Any) -> None:
        nonlocal total
        total += 2 * output.numel() * layer.weight[0].numel()

    # Torch's own counter takes seconds to import; nearly all operations are in these layers.
    layers = [layer for layer in model.eval().modules() if isinstance(layer, nn.Linear | _ConvNd)]
    hooks = [layer.register_forward_hook(count) for layer in layers]
    with torch.no_grad():
        model(torch.zeros(1, *shape))
    for hook in hooks:
        hook.remove()
    return total
