"""Predictions of a run's model on the parts of its data, and their files."""

from __future__ import annotations

from dataclasses import replace

from torch import nn

from fedlas.features import find_head
from fedlas.lab.data import Splits
from fedlas.lab.data.base import Part
from fedlas.lab.recipes.planning import Run
from fedlas.lab.runs.data import (
    HELD_OUT,
    held_out_class_images,
    held_out_parts,
    outputs_fingerprint,
    with_test_normalization,
)
from fedlas.lab.runs.folder import RunFolder
from fedlas.objective import Objective
from fedlas.objective.predict import predict
from fedlas.predictions import Predictions
from fedlas.zoo.ood import Outputs


def predict_part(
    model: nn.Module, splits: Splits, part: Part, *, batch_size: int, features: bool
) -> Predictions:
    """Return the predictions on one part of the data, with label probabilities if they are known."""
    batches = splits.batches(part, batch_size=batch_size)
    # Named here, it need not be searched for by a run of the model.
    network = model.model if isinstance(model, Objective) else model
    head = find_head(network) if features else None
    predictions = predict(model, batches, features=features, head=head)
    probs = part.label_probs
    return replace(predictions, label_probs=None if probs is None else probs.cpu())


def predict_held_out(
    run: Run, splits: Splits, model: nn.Module, *, features: bool = False
) -> tuple[Predictions, Predictions]:
    """Return the predictions on the validation and the test part of a run, each with its normalization."""
    size = run.recipe.train.batch_size
    val, test = (
        predict_part(model, by, part, batch_size=size, features=features)
        for by, part in held_out_parts(run, splits)
    )
    return val, test


def predict_held_out_classes(
    run: Run, splits: Splits, model: nn.Module, *, features: bool = False
) -> Predictions:
    """Return the predictions on test images of the classes that a run holds out, with all targets 0.

    Raises:
        InputError: If it holds out none.
    """
    part = held_out_class_images(run)
    # Their labels are no classes of the model.
    part = part.with_target(part.target * 0).to(splits.test.target.device)
    size = run.recipe.train.batch_size
    return predict_part(
        model, with_test_normalization(run, splits), part, batch_size=size, features=features
    )


def save_predictions(
    run: Run, splits: Splits, model: nn.Module, val: Predictions, test: Predictions
) -> None:
    """Save the validation and test predictions of a run, and its predictions on held-out classes if any."""
    folder = RunFolder(run.folder)
    val.save(folder.part_path("val"))
    test.save(folder.part_path("test"))
    if run.recipe.data.hold_out_classes:
        features = run.recipe.train.save_features
        unknown = predict_held_out_classes(run, splits, model, features=features)
        about = outputs_fingerprint(run.folder, held_out_class_images(run))
        Outputs.from_predictions(unknown).save(folder.part_path(f"ood-{HELD_OUT}"), about=about)
