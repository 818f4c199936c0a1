"""Folds for cross-validation of fits, by class, cluster and time of the samples."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedlas.calibrators._fit.temperature_search import nll_temperature
from fedlas.predictions import Predictions
from fedlas.resample.clusters import joined_groups, several
from fedlas.resample.effective import effective_samples
from fedlas.resample.folds import Folds, folds_in_time, sample_numbers, stratified_folds


@dataclass(frozen=True, eq=False)
class LeftOut:
    """Out-of-fold predictions of one fold.

    Attributes:
        rows: Indices of the held-out rows ``(n,)``.
        log_probs: Log-probabilities of these rows ``(n, C)``, float64.
    """

    rows: Tensor
    log_probs: Tensor


def folds_of(
    val: Predictions,
    count: int,
    inputs: Tensor | None = None,
    weights: Tensor | None = None,
    features: Tensor | None = None,
) -> Folds:
    """Return at most ``count`` folds, stratified by class, of whole clusters; in order of time if times are known.

    Rows that all have the same time are dealt as if times were unknown.

    Args:
        val: With labels.
        count: Number of folds, at least 1.
        inputs: Inputs of the fit in place of the logits ``(N, C)``.
        weights: ``(N,)``; a weight of 2 counts as a repeated sample.
        features: ``(N, D)``; rows with equal logits but different features are different samples.
    """
    rows = val.logits if inputs is None else inputs
    if val.time is None or not in_order(val):
        others = (weights, features, val.clusters)
        return Folds(stratified_folds(rows, val.target, count, temperature_of, *others))
    number = sample_numbers(rows, val.target, temperature_of, features)
    if several(val.clusters):
        number = joined_groups(number, val.clusters.numpy())
    return folds_in_time(val.time, count, torch.from_numpy(number), weights)


def in_order(val: Predictions) -> bool:
    """Return whether the samples have at least two distinct times, so that folds follow time."""
    return val.time is not None and len(val.time.unique()) > 1


def copies_of(val: Predictions) -> NDArray[np.int64]:
    """Return a sample id per row, ``(N,)``; duplicate rows share an id."""
    return sample_numbers(val.logits, val.target, temperature_of, val.features)


def temperature_of(logits: Tensor, target: Tensor) -> float:
    """Return the temperature with the lowest NLL."""
    return nll_temperature(Predictions(logits, target)).value


def worth(number: NDArray[np.int64], weights: Tensor) -> float:
    """Return the effective number of samples, given sample ids and weights of the rows.

    Args:
        number: Sample id of each row, as returned by :func:`copies_of`.
        weights: ``(N,)``.
    """
    return effective_samples(np.bincount(number, weights.numpy()))
