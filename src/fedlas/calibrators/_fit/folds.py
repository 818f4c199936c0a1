"""Folds of predictions: what is said of the samples, their clusters and their time, is used here for every fit."""

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
    """Predictions of samples that a fit left out.

    Attributes:
        rows: Their rows ``(n,)``.
        log_probs: ``(n, C)``, float64.
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
    """Return at most ``count`` folds, by class and of whole clusters; in order of time where that is known.

    Rows of a single time have no order, as samples of a single cluster say nothing about others: they are dealt.

    Args:
        val: With labels.
        count: Number of folds, at least 1.
        inputs: What a fit takes in place of the logits ``(N, C)``.
        weights: ``(N,)``; a weight of 2 counts as a repeated sample.
        features: ``(N, D)``, by which samples of equal logits differ.
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
    """Return whether the samples have an order in time, and so later ones are left out of fits on earlier ones."""
    return val.time is not None and len(val.time.unique()) > 1


def copies_of(val: Predictions) -> NDArray[np.int64]:
    """Return the number of the sample that each row is a copy of ``(N,)``."""
    return sample_numbers(val.logits, val.target, temperature_of, val.features)


def temperature_of(logits: Tensor, target: Tensor) -> float:
    """Return the temperature with the lowest NLL."""
    return nll_temperature(Predictions(logits, target)).value


def worth(number: NDArray[np.int64], weights: Tensor) -> float:
    """Return how many samples of one weight the rows are worth.

    Args:
        number: The sample of each row, of :func:`copies_of`.
        weights: ``(N,)``.
    """
    return effective_samples(np.bincount(number, weights.numpy()))
