"""OOD scores from the norm of the features, which is small for inputs unlike the training data."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from fedlas._core.check import InputError, check_finite, check_number, describe, is_dense
from fedlas.zoo.ood.base import OOD_SCORES

__all__ = ["feature_norm_score", "negative_aware_norm_score"]

_PAPER = {
    "paper": "Understanding the Feature Norm for Out-of-Distribution Detection",
    "year": 2023,
    "url": "https://arxiv.org/abs/2310.05316",
}


@OOD_SCORES.register("feature-norm", title="Feature norm", **_PAPER)
def feature_norm_score(features: Tensor, *, order: float = 1.0) -> Tensor:
    """Negated norm of the features.

    Args:
        features: Input of the classifier head, ``(N, D)``.
        order: Order of the norm, at least 0.1; 1 is the sum of the absolute values (FedLAS's indicator), 2 the
            Euclidean length, ``inf`` the largest value.

    Returns:
        ``(N,)``, higher = more OOD.

    Raises:
        InputError: If the features are not a finite floating tensor ``(N, D)``, or ``order`` is below 0.1.

    Example:
        >>> feature_norm_score(torch.tensor([[3.0, 4.0]]), order=2).tolist()
        [-5.0]

    Source:
        Park, Chai, Yoon and Teoh 2023: the norm is the confidence of a classifier hidden in the layer.
    """
    if not isinstance(order, float) or order != math.inf:
        check_number("order", order, low=0.1)
    rows = check_features(features).double()
    # Scaled so that the largest value of a row is 1, no power overflows.
    largest = rows.abs().amax(dim=1)
    rows = rows / torch.where(largest > 0, largest, 1.0)[:, None]
    return -largest * torch.linalg.vector_norm(rows, ord=float(order), dim=1)


@OOD_SCORES.register("negative-aware-norm", title="Negative-aware norm", **_PAPER)
def negative_aware_norm_score(features: Tensor) -> Tensor:
    """Negated L1 norm of the features, divided by the number of active features (above 0).

    Args:
        features: ``(N, D)`` after an activation that gives no negative values, such as ReLU.

    Returns:
        ``(N,)``, higher = more OOD; 0 for a row without an active feature.

    Raises:
        InputError: If the features are not a finite floating tensor ``(N, D)``.

    Note:
        The paper has only activations that are not negative. Negative values count as inactive here and do not add to
        the norm, so the score is the mean of the active features, negated. After average pooling hardly any feature
        is exactly 0, and the score then is nearly the L1 norm over ``D``. The flattened map before the pool has
        inactive entries; ``results/ood-norms.md`` compares the two.

    Example:
        >>> negative_aware_norm_score(torch.tensor([[3.0, 0.0, 5.0, 0.0]])).tolist()
        [-4.0]

    Source:
        Park, Chai, Yoon and Teoh 2023, equations 9 and 10.
    """
    rows = check_features(features).double().clamp(min=0)
    return -rows.sum(dim=1) / (rows > 0).sum(dim=1).clamp(min=1)


def check_features(features: Tensor, *, width: int | None = None) -> Tensor:
    """Return ``features``, or raise InputError unless they are a finite, non-empty floating tensor ``(N, D)``."""
    shaped = (
        is_dense(features)
        and features.ndim == 2
        and features.shape[0] > 0
        and features.shape[1] > 0
    )
    if shaped and features.is_floating_point() and width in (None, features.shape[1]):
        check_finite("features", features)
        return features
    raise InputError(
        f"features must be a dense floating tensor (N, {width or 'D'}), not empty",
        describe(features),
        "Pass the input of the classifier head, pooled over space, of the same model throughout.",
    )
