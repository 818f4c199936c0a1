"""Kinds of predictions that functions accept: all scores, the top label alone, or a table; and checks of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from fedlas._core.check import InputError, describe, is_module
from fedlas._core.kinds import PASS_ONE_LABEL, is_lazy_frame
from fedlas._core.types import BoolArray
from fedlas.predictions.arguments import PASS_PREDICTIONS, missing_target_error
from fedlas.predictions.predictions import Predictions
from fedlas.predictions.top_label import TopLabel, needs_all_classes_error

if TYPE_CHECKING:
    from fedlas.predictions.covariates import Covariates

P = TypeVar("P", Predictions, TopLabel)
AnyPredictions = Predictions | TopLabel
"""Predictions of which the top label can be measured."""


@dataclass(frozen=True)
class PredictionTable:
    """Predictions read from a table, with its classes, groups, covariates and notes.

    Attributes:
        predictions: Scores and labels; or confidences and outcomes, if the scores of all classes are not there; or
            several labels a sample.
        classes: Names of the classes; empty if they have none.
        notes: How the table was read, as sentences.
        groups: Group of each sample, if a column holds groups.
        labels: Label of each sample of a top label, as text, where columns name both what is predicted and the label.
        unread: Number of answers of a language model whose confidence could not be read; they were left out.
        refusals: Number of answers that decline to answer, as "I don't know" does.
        covariates: What the columns of covariates hold, which are the features of the predictions.
        dropped: Number of rows that lacked a value and were left out.
        scores: Columns of the scores of a number each, in the order of the classes; one is of the second of two.
        cluster_names: Names of the clusters, in the order of their numbers; empty if a column holds none.
    """

    predictions: AnyPredictions
    classes: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    groups: tuple[str, ...] | None = None
    labels: tuple[str, ...] | None = None
    unread: int = 0
    refusals: int = 0
    covariates: Covariates | None = None
    dropped: int = 0
    scores: tuple[str, ...] = ()
    cluster_names: tuple[str, ...] = ()


def is_table(value: object) -> bool:
    """Return whether a value is a table: a path, a list of paths, or a data frame."""
    if isinstance(value, str | Path):
        return Path(value).suffix.lower() != ".onnx"  # that is a model
    if isinstance(value, Mapping):
        return True
    if isinstance(value, list | tuple):
        return bool(value) and all(isinstance(each, str | Path) for each in value)
    return is_lazy_frame(value) or (hasattr(value, "columns") and not is_module(value))


def drop_zero_weights(predictions: AnyPredictions) -> tuple[AnyPredictions, BoolArray | None]:
    """Return the samples of positive weight and their mask ``(N,)``; the mask is None if no weight is 0."""
    weights = predictions.weights
    if weights is None or bool(weights.all()):
        return predictions, None
    return predictions.rows(weights > 0), weights > 0


def zero_weight_note(has_weight: BoolArray) -> str:
    """Return a note that counts the samples of weight 0."""
    return f"{int((~has_weight).sum()):,} rows of weight 0 are ignored."


def unwrap_table(value: object) -> Any:
    """Return the predictions of a :class:`PredictionTable`; any other value is returned unchanged."""
    return value.predictions if isinstance(value, PredictionTable) else value


def one_per_cluster(predictions: P) -> P:
    """Return predictions with the first sample of each cluster only, so that samples are independent.

    Args:
        predictions: Predictions with ``clusters``.

    Raises:
        InputError: If they have none.

    Example:
        >>> one_per_cluster(TopLabel([0.9, 0.8, 0.6], [1, 0, 1], clusters=["a", "a", "b"])).confidence.tolist()
        [0.9, 0.6]
    """
    clusters = getattr(predictions, "clusters", None)
    if clusters is None:
        raise InputError(
            "predictions must have clusters",
            describe(predictions),
            "Pass clusters=... when you create them.",
        )
    first = np.unique(clusters, return_index=True)[1]
    return predictions.rows(np.sort(first))


def require_labels(predictions: object) -> Predictions:
    """Return ``predictions``; raise InputError unless they are :class:`~fedlas.Predictions` with a target.

    Raises:
        InputError: Otherwise.
    """
    checked = require_predictions(predictions)
    if not checked.has_target:
        raise missing_target_error(checked)
    return checked


def require_predictions(predictions: object) -> Predictions:
    """Return ``predictions``, or those of a table; raise InputError unless they are :class:`~fedlas.Predictions`.

    Raises:
        InputError: Otherwise.
    """
    predictions = unwrap_table(predictions)
    if isinstance(predictions, Predictions):
        return predictions
    if isinstance(predictions, TopLabel):
        raise needs_all_classes_error()
    fix = PASS_ONE_LABEL if hasattr(predictions, "pooled") else PASS_PREDICTIONS
    raise InputError("predictions must be Predictions", describe(predictions), fix)


def require_top_label(predictions: object) -> AnyPredictions:
    """Return ``predictions``; raise InputError unless they are Predictions with a target, or a TopLabel.

    Raises:
        InputError: Otherwise.
    """
    predictions = unwrap_table(predictions)
    if isinstance(predictions, TopLabel):
        return predictions
    if isinstance(predictions, Predictions) and predictions.has_target:
        return predictions
    return require_labels(predictions)
