"""Labels and scores as two arrays, in either order, as functions of scikit-learn and torchmetrics take them."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from fedlas._core.check import InputError, describe
from fedlas.predictions.any_predictions import AnyPredictions, PredictionTable
from fedlas.predictions.arguments import PASS_PREDICTIONS, detached, several_labels
from fedlas.predictions.predictions import Predictions


def predictions_of_arrays(first: Any, second: Any) -> Predictions:
    """Return the predictions in labels ``(N,)`` and scores ``(N, C)``, or ``(N,)`` of the second of two classes.

    Scores are the array with a column a class; of two arrays ``(N,)`` the one that holds other values than 0 and 1.
    They are logits if one is below 0, else probabilities.

    Args:
        first: Labels or scores.
        second: The other.

    Raises:
        InputError: If shapes and values do not show which is which, or labels are names, whose columns nothing shows;
            or as :class:`Predictions`.

    Example:
        >>> predictions_of_arrays([0, 1, 1], [0.2, 0.9, 0.4]).predicted
        tensor([0, 1, 0])
    """
    if isinstance(first, AnyPredictions | PredictionTable):
        raise InputError(
            "labels must be part of the predictions",
            f"{describe(first)} and labels",
            PASS_PREDICTIONS,
        )
    for array in (first, second):
        if not isinstance(array, Tensor) and np.asarray(array).dtype.kind in "OUS":
            raise InputError(
                "of two arrays, labels must be class numbers",
                describe(array),
                "Name the classes in the order of the columns: "
                "fedlas.Predictions.from_probs(probs, target, classes=['cat', 'dog']).",
            )
    arrays = [_without_column(detached("arrays", array)) for array in (first, second)]
    scores, target = arrays if _is_scores(*arrays) else reversed(arrays)
    if not scores.is_floating_point():
        scores = scores.float()
    if bool((scores < 0).any()):
        return Predictions(scores if scores.ndim == 2 else _of_two(scores), target)
    return Predictions.from_probs(scores, target)


def _is_scores(first: Tensor, second: Tensor) -> bool:
    """Return whether the first of two arrays holds the scores."""
    shapes = f"{describe(first)} and {describe(second)}"
    if first.ndim not in (1, 2) or second.ndim not in (1, 2) or len(first) != len(second):
        raise InputError(
            "labels (N,) and scores (N, C) must have as many rows", shapes, PASS_PREDICTIONS
        )
    if first.ndim != second.ndim:
        return first.ndim == 2
    labels = [bool(((array == 0) | (array == 1)).all()) for array in (first, second)]
    if first.ndim == 2:
        target = first if labels[0] else second
        raise InputError("labels must be (N,)", shapes, several_labels(target))
    if labels[0] == labels[1]:
        content = "0 and 1 alone" if labels[0] else "other values than 0 and 1"
        raise InputError(
            "one of two arrays (N,) must hold labels 0 and 1, the other probabilities",
            f"{shapes}, both with {content}",
            f"Scores of more classes are (N, C). {PASS_PREDICTIONS}",
        )
    return labels[1]


def _without_column(array: Tensor) -> Tensor:
    return array[:, 0] if array.ndim == 2 and array.shape[1] == 1 else array


def _of_two(logits: Tensor) -> Tensor:
    """Return logits ``(N, 2)`` of the log odds of the second class."""
    return torch.stack([torch.zeros_like(logits), logits], dim=1)
