"""Conversion of scikit-learn scores and labels to logits and class indices."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedlas._core.check import InputError, describe
from fedlas.predictions import Predictions
from fedlas.predictions.tensors import safe_log

_METHODS = ("decision_function", "predict_proba")


def predictions_from_scores(scores: Any, method: str, y: Any, classes: NDArray[Any]) -> Predictions:
    """Return predictions from classifier scores and labels; ``method`` computed the scores."""
    return Predictions(logits_from_scores(scores, method, len(classes)), class_indices(y, classes))


def score_method(estimator: Any) -> str:
    """Return the name of the estimator's score method, ``decision_function`` or ``predict_proba``."""
    method = next((name for name in _METHODS if hasattr(estimator, name)), None)
    if method is None:
        raise InputError(
            f"the estimator must have {' or '.join(_METHODS)}",
            describe(estimator),
            "Pass a classifier that has one of them.",
        )
    return method


def logits_from_scores(scores: Any, method: str, num_classes: int) -> Tensor:
    """Return float64 logits ``(N, C)`` converted from scores of ``decision_function`` or ``predict_proba``."""
    values = np.array(scores, dtype=np.float64)  # a copy, which torch may share
    if method == "decision_function" and values.ndim == 1 and num_classes == 2:
        # so that both classes are treated alike
        values = np.stack([-values / 2, values / 2], axis=1)
    if values.ndim != 2 or values.shape[1] != num_classes or num_classes < 2:
        raise InputError(
            f"{method} must return one column per class, for at least two classes",
            f"shape {values.shape} for {num_classes} class{'es' * (num_classes != 1)}",
            "Check the labels; an SVC needs decision_function_shape='ovr'.",
        )
    rows = torch.from_numpy(values)
    return safe_log(rows) if method == "predict_proba" else rows


def class_indices(y: Any, classes: NDArray[Any]) -> Tensor:
    """Return the index of each label in the sorted classes, ``(N,)`` int64."""
    labels = np.asarray(y).ravel()
    indices = np.searchsorted(classes, labels).clip(max=len(classes) - 1)
    if not (classes[indices] == labels).all():
        strange = sorted({str(label) for label in labels[classes[indices] != labels]})
        raise InputError(
            "labels must be classes of the estimator",
            ", ".join(strange[:5]),
            "Check the labels, or fit the estimator on samples of every class.",
        )
    return torch.from_numpy(indices)
