"""Weights that make labeled samples stand for others: how a model would do after a shift of its inputs."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedlas._core.check import CalibrationWarning, InputError, check_count, describe
from fedlas._core.extras import require
from fedlas.stats.weights import effective_samples, numbers

_OWNER = "importance_weights"
FOLDS = 5
FEW = 0.05
"""Share of the samples below which the effective number of them is warned of."""


def importance_weights(source_features: Any, target_features: Any, *, seed: int = 0) -> Tensor:
    """Weights with which labeled *source* samples stand for unlabeled *target* ones, from a domain classifier.

    A logistic regression learns to distinguish target from source by the features; its odds are the ratio of the two
    densities, up to a factor. Each sample's odds come from a fit without it (five folds). The weights are scaled to
    average 1, so that every weighted mean is self-normalized. Give them to the source's predictions:
    ``dataclasses.replace(predictions, weights=weights)``; metrics and intervals then estimate those on the target.

    Args:
        source_features: Of the samples with labels ``(N, D)``, finite; a tensor or an array.
        target_features: Of those that the estimate is for ``(M, D)``; they need no labels.
        seed: Of the division into folds.

    Returns:
        Weights ``(N,)`` float64 on the CPU, above 0.

    Raises:
        InputError: If the features do not fit, are not finite, or there are fewer than five samples of either kind.
        MissingExtraError: Without scikit-learn.

    Note:
        What is assumed: **only the inputs' distribution differs** (covariate shift), labels given inputs being alike;
        the target has no inputs where the source has none; and the logarithm of the ratio is linear in the features.
        None of this can be seen in the estimate. For a shift of labels, or of what a label means, these weights are
        wrong. Features in which the shift is simple serve best: known covariates, or the input of the head; add squares
        where spreads differ.

        The intervals take the weights as given: how uncertain they are is not in them. A
        :class:`~fedlas.errors.CalibrationWarning` says if the weights are worth less than 5 % of the samples, see
        :func:`effective_samples`: then few samples decide.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> source, target = rng.normal(0.0, 1.0, (2000, 1)), rng.normal(0.5, 1.0, (2000, 1))
        >>> weights = importance_weights(source, target)
        >>> bool(abs(np.average(source[:, 0], weights=weights) - 0.5) < 0.05)
        True

    Source:
        Bickel, Brückner and Scheffer, "Discriminative learning under covariate shift", JMLR 10 (2009); Shimodaira,
        "Improving predictive inference under covariate shift by weighting the log-likelihood function" (2000).
    """
    source, target = _features("source_features", source_features), _features("target_features", target_features)
    check_count(_OWNER, "seed", seed, low=0)
    if source.shape[1] != target.shape[1]:
        got = f"{source.shape[1]} and {target.shape[1]} columns"
        raise InputError(_OWNER, "both features must have the same columns", got, "Compute them by one function.")
    linear, selection = (require(f"sklearn.{part}", extra="posthoc") for part in ("linear_model", "model_selection"))
    scaler, pipeline = (require(f"sklearn.{part}", extra="posthoc") for part in ("preprocessing", "pipeline"))
    log_odds = selection.cross_val_predict(
        pipeline.make_pipeline(scaler.StandardScaler(), linear.LogisticRegression(max_iter=1000)),
        np.concatenate([source, target]),
        np.repeat([0, 1], [len(source), len(target)]),
        cv=selection.StratifiedKFold(FOLDS, shuffle=True, random_state=seed),
        method="decision_function",
    )[: len(source)]
    weights = np.exp(log_odds - log_odds.max())
    weights /= weights.mean()
    worth = effective_samples(weights)
    if worth < FEW * len(weights):
        warnings.warn(
            f"{_OWNER}: the weights should be worth at least {100 * FEW:g} % of the samples; they are worth "
            f"{worth:.1f} of {len(weights)}, so few samples decide. Use features in which source and target overlap, "
            "or more source samples like the target's.",
            CalibrationWarning,
            stacklevel=2,
        )
    return torch.from_numpy(weights)


def _features(name: str, given: Any) -> NDArray[np.float64]:
    found = numbers(_OWNER, name, given)
    if found.ndim == 2 and len(found) >= FOLDS and found.shape[1]:
        return found
    fix = "Pass one row of features for each sample."
    raise InputError(_OWNER, f"{name} must be (N, D) with at least {FOLDS} samples", describe(given), fix)
