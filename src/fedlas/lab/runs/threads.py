"""How many threads a run computes with: one where its model is small, so that runs fill the cores side by side."""

from __future__ import annotations

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from fedlas._core.ranks import has_accelerator
from fedlas.lab.models import build_model
from fedlas.lab.recipes.plan import Run
from fedlas.lab.runs.data import image_shape

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
