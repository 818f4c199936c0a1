"""Model and loss of a run, made of the names and options in its recipe, and the threads that it computes with."""

from __future__ import annotations

import logging
from functools import lru_cache

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from fedlas._core.check import InputError
from fedlas._core.ranks import has_accelerator
from fedlas._core.streams import derive, seed_everything
from fedlas._core.text import printable
from fedlas.features import find_head
from fedlas.lab.data import Splits
from fedlas.lab.models import build_model, load_weights
from fedlas.lab.recipes.plan import Run, build_loss
from fedlas.lab.runs.data import image_shape
from fedlas.objective import Objective
from fedlas.zoo.uncertainty.bayes_by_backprop import KLPenalty
from fedlas.zoo.uncertainty.bayesian_layers import to_bayesian

_FIRST_IMAGES = 5_000
"""Training images that a model with ``fit_inputs`` gets before it is trained."""


def build_objective(run: Run, splits: Splits, *, rank: int = 0, pretrained: bool = True) -> Objective:
    """Model and loss of a run. Every loss gets the same model weights, as it draws from its own stream.

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
    model = build_model(
        run.recipe.model.name,
        num_classes=splits.num_classes,
        in_channels=splits.in_channels,
        image_size=splits.image_size,
        **run.recipe.model.options,
    )
    if pretrained and (fit_inputs := getattr(model, "fit_inputs", None)) is not None:
        first = splits.train.take(torch.arange(min(len(splits.train), _FIRST_IMAGES)))
        fit_inputs(torch.cat([images for images, *_ in splits.batches(first, batch_size=256)]))
    if run.recipe.model.weights is not None and pretrained:
        for note in load_weights(model, run.recipe.model.weights):
            _say(note)
    if run.recipe.train.save_features:
        find_head(model)  # an error after the last epoch would come too late
    # Weights are loaded before the conversion, because their names are those of the plain layers.
    bayesian, penalty = run.recipe.model.bayesian, None
    if bayesian is not None:
        model = to_bayesian(model, bayesian)
        penalty = KLPenalty(len(splits.train), bayesian.kl_weight)
    seed_everything(derive(run.seed, "criterion"))
    loss = build_loss(
        run, num_classes=splits.num_classes, num_samples=len(splits.train), num_features=_head_inputs(model)
    )
    objective = Objective(model, loss, features=run.features, penalty=penalty)
    # Processes must draw different numbers, or each would augment and drop out alike.
    seed_everything(derive(run.seed, f"training/{rank}" if rank else "training"))
    return objective


def _head_inputs(model: nn.Module) -> int | None:
    """Length of the head's input; None without one linear head, of which a loss that needs it will complain."""
    try:
        length = getattr(find_head(model), "in_features", None)
    except InputError:
        return None
    return length if isinstance(length, int) else None


@lru_cache(maxsize=16)
def _say(note: str) -> None:
    """Once, however many runs it concerns."""
    logging.getLogger("fedlas").warning("%s", printable(note))


SMALL = 5e9
"""Floating-point operations of a forward pass of one batch, below which a model counts as small.

A processor core does so many in about a tenth of a second. Threads that share less work than that mostly wait for each
other, most of all while other processes compute, too.
"""


def threads_for(run: Run) -> int | None:
    """1 for a small model where there is no GPU; else None, which means all that PyTorch uses.

    Sums of several threads round differently. So this depends on the recipe alone, and not on how many runs there are
    at a time or what else the machine does.

    Raises:
        InputError: If the data cannot be read, or the model not built.
    """
    if has_accelerator():
        return None
    recipe = run.recipe
    classes, channels, size = image_shape(run)
    with torch.random.fork_rng(devices=[]):
        model = build_model(
            recipe.model.name, num_classes=classes, in_channels=channels, image_size=size, **recipe.model.options
        )
        operations = recipe.train.batch_size * forward_operations(model, channels, size)
    return 1 if operations < SMALL else None


def forward_operations(model: nn.Module, channels: int, size: int) -> int:
    """Floating-point operations of a forward pass of one image ``(channels, size, size)``; a multiply-add is two."""
    model.eval()
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(torch.zeros(1, channels, size, size))
    return int(counter.get_total_flops())
