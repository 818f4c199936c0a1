"""Folds for cross-validation of fits, by class, cluster and time of the samples."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from fedlas.predictions import Predictions
from fedlas.resample.clusters import is_clustered, merge_overlapping_groups
from fedlas.resample.effective import effective_sample_size
from fedlas.resample.folds import Folds, chronological_folds, original_sample_ids, stratified_folds

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, eq=False)
class OutOfFold:
    """Out-of-fold predictions of one fold.

    Attributes:
        rows: Indices of the held-out rows ``(n,)``.
        log_probs: Log-probabilities of these rows ``(n, C)``, float64.
    """

    rows: Tensor
    log_probs: Tensor


def make_folds(
    val: Predictions,
    num_folds: int,
    inputs: Tensor | None = None,
    weights: Tensor | None = None,
    features: Tensor | None = None,
) -> Folds:
    """Return at most ``num_folds`` folds, stratified by class, of whole clusters; in order of time if times are known.

    Rows that all have the same time are dealt as if times were unknown.

    Args:
        val: With labels.
        num_folds: Number of folds, at least 1.
        inputs: Inputs of the fit in place of the logits ``(N, C)``.
        weights: ``(N,)``; a weight of 2 counts as a repeated sample.
        features: ``(N, D)``; rows with equal logits but different features are different samples.
    """
    import torch

    rows = val.tensors().logits if inputs is None else inputs
    time = val.tensors().time
    if time is None or not has_time_order(val):
        grouping = (weights, features, val.clusters)
        return Folds(
            stratified_folds(rows, val.tensors().target, num_folds, best_temperature, *grouping)
        )
    sample_ids = original_sample_ids(rows, val.tensors().target, best_temperature, features)
    if is_clustered(val.clusters):
        sample_ids = merge_overlapping_groups(sample_ids, val.clusters)
    return chronological_folds(time, num_folds, torch.from_numpy(sample_ids), weights)


def has_time_order(val: Predictions) -> bool:
    """Return whether the samples have at least two distinct times, so that folds follow time."""
    return val.time is not None and len(np.unique(val.time)) > 1


def validation_sample_ids(val: Predictions) -> NDArray[np.int64]:
    """Return a sample id per row, ``(N,)``; duplicate rows share an id."""
    return original_sample_ids(
        val.tensors().logits, val.tensors().target, best_temperature, val.tensors().features
    )


def best_temperature(logits: Tensor, target: Tensor) -> float:
    """Return the temperature with the lowest NLL."""
    from fedlas.calibrators._fit.temperature_search import nll_temperature

    return nll_temperature(Predictions(logits, target)).value


def effective_count(sample_ids: NDArray[np.int64], weights: Tensor) -> float:
    """Return the effective number of samples, given sample ids and weights of the rows.

    Args:
        sample_ids: Sample id of each row, as returned by :func:`validation_sample_ids`.
        weights: ``(N,)``.
    """
    return effective_sample_size(np.bincount(sample_ids, weights.numpy()))
