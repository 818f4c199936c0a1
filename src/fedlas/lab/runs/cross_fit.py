"""Targets from models that have not seen the sample, for a loss that takes them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedlas._core.files import remove
from fedlas._core.ranks import on_main
from fedlas._core.streams import Purpose, derive, restore_rng_state, rng_state, stream
from fedlas.calibrators import TemperatureScaling
from fedlas.calibrators.notes import fit_with_notes
from fedlas.lab.data import Splits
from fedlas.lab.data.pipeline.stratify import shuffled_classes
from fedlas.lab.recipes.plan import Run, build_loss, taker_of_targets
from fedlas.lab.runs.build import build_objective
from fedlas.lab.runs.folder import RunFolder
from fedlas.lab.runs.measure import predictions_of
from fedlas.objective import Objective
from fedlas.predictions import Predictions

FOLD_LOSS = "ce"
"""Loss of the models of the folds."""
LEFT_OUT = "left-out"
"""Name of the predictions on the part that a model was not trained on."""


def fold_runs(run: Run) -> list[Run]:
    """The runs of the folds, each in a folder of its own in the run's; none if the loss of the run takes no targets."""
    loss, folds = build_loss(run, num_classes=10, num_samples=1000), run.recipe.data.cross_fit
    if folds is None or taker_of_targets(loss) is None:
        return []
    plain = replace(run.recipe, data=replace(run.recipe.data, cross_fit=None))
    names = [f"fold-{number + 1}-of-{folds}" for number in range(folds)]
    return [replace(run, recipe=plain, loss=FOLD_LOSS, folder=run.folder / "cross-fit" / name) for name in names]


def folds_of(target: NDArray[np.int64], num_classes: int, folds: int, *, seed: int) -> NDArray[np.int64]:
    """Fold of each sample ``(N,)``: equal in size, and every class divided as equally as it can be."""
    order = np.concatenate(shuffled_classes(target, num_classes, stream(Purpose.CROSS_FIT, seed)))
    fold = np.empty_like(order)
    fold[order] = np.arange(len(order)) % folds
    return fold


def cross_fitted_probs(
    run: Run, splits: Splits, accelerator: Any, train: Callable[[Run, Objective, Splits], object]
) -> Tensor:
    """Probabilities ``(N, C)`` of all training samples, each by a model that was trained without it.

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
    fold = torch.from_numpy(folds_of(target.numpy(), splits.num_classes, len(runs), seed=derive(run.seed, "cross-fit")))
    logits = torch.empty(len(target), splits.num_classes)
    random = rng_state()
    for number, each in enumerate(runs):
        rest, left_out = (chosen.nonzero().squeeze(1) for chosen in (fold != number, fold == number))
        path = RunFolder(each.folder).part_path(LEFT_OUT)
        if not on_main(accelerator, path.exists):
            given = splits.train.target.device
            part = replace(splits, train=splits.train.take(rest.to(given)), clean_target=None)
            objective = build_objective(each, part, rank=int(accelerator.process_index))
            each.folder.mkdir(parents=True, exist_ok=True)
            train(each, objective, part)
            size = run.recipe.train.batch_size
            images = splits.train.take(left_out.to(given))
            found = predictions_of(objective, splits, images, batch_size=size, features=False)
            if accelerator.is_main_process:
                found.save(path)
                remove(RunFolder(each.folder).checkpoint_path, inside=run.folder)
            accelerator.wait_for_everyone()
        logits[left_out] = Predictions.load(path).logits
    restore_rng_state(random)
    held_out = Predictions(logits, target)
    temperature, _ = fit_with_notes(TemperatureScaling(), held_out)
    return temperature.transform(held_out).probs
