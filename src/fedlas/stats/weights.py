"""Weights of samples: how many samples they are worth, and weights that make samples stand for others."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedlas._core.check import CalibrationWarning, InputError, check_count, check_dense, check_finite, describe
from fedlas._core.extras import require


def effective_samples(weights: Any) -> float:
    """``(sum w)**2 / sum w**2``: how many equally weighted samples would give a mean as sure as these weights do.

    Args:
        weights: ``(N,)``, at least 0, not all 0; a tensor or an array.

    Returns:
        A number in ``[1, N]``; ``N`` if all weights are equal.

    Raises:
        InputError: If they are no such weights.

    Example:
        >>> effective_samples([1.0, 1.0, 1.0, 1.0]), effective_samples([2.0, 0.0, 0.0, 0.0])
        (4.0, 1.0)

    Source:
        Kish, "Survey Sampling" (1965), section 11.2; for importance weights Kong, "A note on importance sampling using
        standardized weights" (1992).
    """
    values = numbers("effective_samples", "weights", weights)
    if values.ndim != 1 or not len(values) or values.min() < 0 or values.max() == 0:
        fix = "Pass one weight for each sample."
        raise InputError("effective_samples", "weights must be (N,), at least 0, not all 0", describe(weights), fix)
    values = values / values.max()  # squares of large and small weights stay numbers
    return float(values.sum() ** 2 / (values**2).sum())


def numbers(owner: str, name: str, values: Any) -> NDArray[np.float64]:
    """Return a tensor or array as finite float64 on the CPU.

    Raises:
        InputError: If it is none, or not finite.
    """
    array = values
    if isinstance(values, Tensor):
        check_dense(owner, name, values)
        array = values.detach().cpu()
        array = array if array.is_complex() else array.double().numpy()
    try:
        array = np.asarray(array)
        if array.dtype.kind not in "fiub":
            raise TypeError(str(array.dtype))
        array = array.astype(np.float64)
    except (TypeError, ValueError) as error:  # text, objects, rows of different lengths
        raise InputError(
            owner, f"{name} must be real numbers", describe(values), "Pass an array of numbers."
        ) from error
    check_finite(owner, name, torch.from_numpy(array))
    return np.asarray(array, dtype=np.float64)


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


def _features(name: str, features: Any) -> NDArray[np.float64]:
    values = numbers(_OWNER, name, features)
    if values.ndim == 2 and len(values) >= FOLDS and values.shape[1]:
        return values
    fix = "Pass one row of features for each sample."
    raise InputError(_OWNER, f"{name} must be (N, D) with at least {FOLDS} samples", describe(features), fix)
