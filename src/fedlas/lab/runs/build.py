"""Model and loss of a run, new or trained, and the threads that it computes with."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.modules.conv import _ConvNd

from fedlas._core.check import InputError
from fedlas._core.extras import MissingExtraError, require
from fedlas._core.files import is_file
from fedlas._core.ranks import has_accelerator
from fedlas._core.streams import derive, seed_everything
from fedlas.features import find_head
from fedlas.lab.data import Source, Splits
from fedlas.lab.models.base import build_model, check_inputs
from fedlas.lab.models.weights import load_weights
from fedlas.lab.recipes.plan import Run, build_loss
from fedlas.lab.runs.claim import check_data, must_be_finished
from fedlas.lab.runs.data import data_fingerprint, prepare_data, source_of
from fedlas.lab.runs.folder import RunFolder
from fedlas.lab.train.checkpoint import load_checkpoint, restore_module
from fedlas.lab.train.log import warn_once
from fedlas.objective import Objective
from fedlas.zoo.uncertainty.bayes_by_backprop import KLPenalty
from fedlas.zoo.uncertainty.bayesian_layers import to_bayesian

_FIRST_IMAGES = 5_000
"""Training images that a model with ``fit_inputs`` gets before it is trained."""


def build_objective(
    run: Run, splits: Splits, *, rank: int = 0, pretrained: bool = True
) -> Objective:
    """Return the model and loss of a run. Every loss gets the same model weights, as it draws from its own stream.

    Args:
        run: The run.
        splits: Its data.
        rank: Of this process.
        pretrained: Read the recipe's file of weights, if it names one, and fit the model's input layer, if it has one
            to be fitted; not needed where a checkpoint follows.

    State:
        Seeds the global generators for training; for each rank differently, or all would drop out the same units.
    """
    # Each step draws from a seed of its own, so a loss that draws numbers does not change the initial weights.
    seed_everything(derive(run.seed, "model"))
    model = _plain_model(run, splits)
    if pretrained and (fit_inputs := getattr(model, "fit_inputs", None)) is not None:
        first = splits.train.take(torch.arange(min(len(splits.train), _FIRST_IMAGES)))
        fit_inputs(torch.cat([images for images, *_ in splits.batches(first, batch_size=256)]))
    if run.recipe.model.weights is not None and pretrained:
        for note in load_weights(model, run.recipe.model.weights):
            warn_once(note)
    if run.recipe.train.save_features:
        find_head(model)  # an error after the last epoch would come too late
    # Weights are loaded before the conversion, because their names are those of the plain layers.
    bayesian = run.recipe.model.bayesian
    penalty = None
    if bayesian is not None:
        model = to_bayesian(model, bayesian)
        penalty = KLPenalty(len(splits.train), bayesian.kl_weight)
    seed_everything(derive(run.seed, "criterion"))
    loss = build_loss(
        run,
        num_classes=splits.num_classes,
        num_samples=len(splits.train),
        num_features=_head_inputs(model),
    )
    objective = Objective(model, loss, features=run.features, penalty=penalty)
    # Processes must draw different numbers, or each would augment and drop out alike.
    seed_everything(derive(run.seed, f"training/{rank}" if rank else "training"))
    return objective


def _plain_model(run: Run, data: Splits | Source) -> nn.Module:
    """Return the model of a run, for the shape of its data."""
    shape = (*data.train.shape, 1, 1)
    model = run.recipe.model
    size = {"num_classes": data.num_classes, "in_channels": shape[0], "image_size": shape[1]}
    objects = run.recipe.objects
    if objects is not None and objects.model is not None:
        return objects.build("model", model.name, model.options, **size)
    check_inputs(model.name, data.train.shape)
    return build_model(model.name, **size, **model.options)


def _check_size(run: Run, splits: Splits, checkpoint: Path) -> None:
    """Refuse a model larger than its checkpoint: the configuration of a stranger may ask for any memory."""
    with torch.device("meta"):
        size = sum(
            each.numel() * each.element_size() for each in _plain_model(run, splits).parameters()
        )
    if size > checkpoint.stat().st_size:
        expected = "the model of the run must fit into its checkpoint"
        got = f"{size:,} bytes of weights for {checkpoint}"
        raise InputError(expected, got, "Use the configuration that it was trained with.")


def _head_inputs(model: nn.Module) -> int | None:
    """Return the length of the head's input; None without one linear head: a loss that needs it then complains."""
    try:
        length = getattr(find_head(model), "in_features", None)
    except InputError:
        return None
    return length if isinstance(length, int) else None


SMALL = 5e9
"""Floating-point operations of a forward pass of one batch, below which a model counts as small.

A processor core does so many in about a tenth of a second. Threads that share less work than that mostly wait for each
other, most of all while other processes compute, too.
"""


def threads_for(run: Run) -> int | None:
    """Return 1 for a small model where there is no GPU; else None, which means all threads that PyTorch uses.

    Sums of several threads round differently. So this depends on the recipe alone, and not on how many runs there are
    at a time or what else the machine does.

    Raises:
        InputError: If the data cannot be read, or the model not built.
    """
    if has_accelerator():
        return None
    source = source_of(run)
    with torch.random.fork_rng(devices=[]):
        model = _plain_model(run, source)
        each = forward_operations(model, source.train.shape)
    return 1 if run.recipe.train.batch_size * each < SMALL else None


def available_cores() -> int:
    """Return how many cores this process may use, by its affinity and the limit of its container."""
    return int(require("joblib", extra="bench").cpu_count())


@contextmanager
def limited_to(threads: int | None) -> Iterator[None]:
    """Compute with ``threads`` threads of PyTorch and of NumPy's linear algebra; None changes nothing."""
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


def forward_operations(model: nn.Module, shape: Sequence[int]) -> int:
    """Count the operations of a forward pass of one input of a shape; a multiply-add is two."""
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


@dataclass(frozen=True)
class Trained:
    """A finished run.

    Attributes:
        run: The plan of the run.
        objective: Model and loss with the weights of the best epoch, in ``eval()``.
        splits: Its data, split as it was.
        metrics: Contents of its ``metrics.json``.
    """

    run: Run
    objective: Objective
    splits: Splits
    metrics: dict[str, Any]

    def to(self, device: torch.device | str) -> Trained:
        """Return the same with model and data on a device."""
        return replace(self, objective=self.objective.to(device), splits=self.splits.to(device))


def load_trained(folder: Path | RunFolder, *, data: str | None = None) -> Trained:
    """Return a finished run with its best weights.

    Args:
        folder: A run folder.
        data: Where its data is, unless ``folder`` says so; None looks where it was, then in the usual places.

    Raises:
        InputError: If it is no folder of a finished run, its files cannot be read, or the data is not what it was
            trained on.
    """
    folder = _opened(folder, data)
    metrics = must_be_finished(folder)
    folder = _with_data(folder)
    run = folder.run
    check_data(folder, data_fingerprint(run))
    splits = prepare_data(run)
    path = folder.checkpoint_path
    if is_file(path):  # else reading it says so
        _check_size(run, splits, path)
    objective = build_objective(run, splits, pretrained=False)
    restore_module(objective, load_checkpoint(path, run.config())["best"]["objective"], path)
    return Trained(run, objective.eval(), splits, metrics)


def splits_at_hand(
    folder: Path | RunFolder, *, data: str | None = None
) -> tuple[Splits | None, str]:
    """Return the data of a run, for what is better shown than not, such as images and names of classes.

    Args:
        folder: A run folder.
        data: As :func:`load_trained`.

    Returns:
        The splits, and why there are none: the data is not there, is not what the run was trained on, or cannot be
        read; the caller says if it shows less.
    """
    try:
        opened = _with_data(_opened(folder, data))
        check_data(opened, data_fingerprint(opened.run))
        return prepare_data(opened.run), ""
    except (InputError, MissingExtraError) as error:
        return None, str(error)
    except (KeyError, TypeError, AttributeError, OSError) as error:  # an edited configuration
        return None, f"its configuration cannot be read ({type(error).__name__}: {error})"


def _opened(folder: Path | RunFolder, data: str | None) -> RunFolder:
    if isinstance(folder, RunFolder):
        return folder if data is None else replace(folder, data_root=data)
    return RunFolder(folder, data_root=data)


def _with_data(folder: RunFolder) -> RunFolder:
    """Return the same folder with the place of its data: as told, else where it was, else in the usual places.

    A stranger's folder may name any place. What is there is used only if it has the fingerprint of the run's data.
    """
    root = folder.kept_root if folder.data_root is None else None
    if root is None or folder.data is None:
        return folder
    if os.path.isdir(root) or is_file(Path(root)):  # noqa: PTH112 - Path.is_dir raises where it may not search
        return replace(folder, data_root=root)
    try:
        data_fingerprint(folder.run)
    except InputError as error:
        expected = "the data of the run must be where it was at training"
        got = f"{root}, which does not exist"
        raise InputError(
            expected, got, "Say where it is now: --data PATH, or data=PATH in Python."
        ) from error
    return folder
