"""Predictions of a model on a part of a run's data, and the metrics that a run records."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from torch import nn

from fedlas.calibrators import TemperatureScaling
from fedlas.calibrators.notes import fit_with_notes
from fedlas.lab.data import Splits
from fedlas.lab.data.base import Part
from fedlas.lab.recipes.plan import Run
from fedlas.lab.runs.data import as_tested, held_out, unknown_images
from fedlas.metrics import METRICS, evaluate
from fedlas.objective.predict import predict
from fedlas.predictions import Predictions


def predictions_of(model: nn.Module, splits: Splits, part: Part, *, batch_size: int, features: bool) -> Predictions:
    """Predictions on one part of the data, with the label probabilities where they are known."""
    predictions = predict(model, splits.batches(part, batch_size=batch_size), features=features)
    return replace(predictions, label_probs=None if part.label_probs is None else part.label_probs.cpu())


def held_out_predictions(
    run: Run, splits: Splits, model: nn.Module, *, features: bool = False
) -> tuple[Predictions, Predictions]:
    """Predictions on the validation and on the test part of a run, each under its own normalization."""
    size = run.recipe.train.batch_size
    val, test = (
        predictions_of(model, by, part, batch_size=size, features=features) for by, part in held_out(run, splits)
    )
    return val, test


def unknown_predictions(run: Run, splits: Splits, model: nn.Module, *, features: bool = False) -> Predictions:
    """Predictions on the test images of the classes that a run holds out; their targets are all 0.

    Raises:
        InputError: If it holds out none.
    """
    part = unknown_images(run)
    # Their labels are no classes of the model.
    part = part.with_target(part.target * 0).to(splits.test.target.device)
    size = run.recipe.train.batch_size
    return predictions_of(model, as_tested(run, splits), part, batch_size=size, features=features)


def measure(val: Predictions | None, test: Predictions, *, num_bins: int = 15) -> dict[str, Any]:
    """Metrics before and after temperature scaling, which is fitted on validation by NLL.

    Returns:
        ``temperature`` (NLL optimum), ``temperature_ece`` (grid, for parity with published tables), ``notes`` (what the
        fits warned of), and the metrics ``val``, ``test``, ``test_calibrated``. Without ``val`` the temperatures are
        None, and ``val`` and ``test_calibrated`` are empty.
    """
    if val is None:
        unknown: dict[str, Any] = {"temperature": None, "temperature_ece": None, "notes": [], "val": {}}
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
    """What a run records: the default metrics, and AURC, since a loss may pay for calibration with the order."""
    return {**evaluate(predictions, num_bins=num_bins), "aurc": METRICS["aurc"].value(predictions)}
