"""Base of small networks on saved features, and the standardization of their inputs."""

from __future__ import annotations

import torch
from torch import Tensor

from fedlas._core.check import InputError, check_finite
from fedlas.predictions import Predictions
from fedlas.predictions.any_predictions import require_predictions


class FeatureHead:
    """Base class of small networks on features, with at most one hidden layer."""

    hidden: int
    _inputs: FeatureStandardizer | None = None

    def _layer_sizes(self, train: Predictions, features: Tensor) -> list[int]:
        """Return the layer sizes from the inputs to the logits."""
        hidden = [self.hidden] if self.hidden else []
        return [features.shape[1], *hidden, train.logits.shape[1]]

    def _require_fitted(self) -> FeatureStandardizer:
        """Return the standardizer of the inputs, or raise InputError before the fit."""
        if self._inputs is None:
            raise InputError(
                "the head must be fitted", "an unfitted head", "Call fit(train) first."
            )
        return self._inputs


class FeatureStandardizer:
    """Standardizer of features to mean 0 and standard deviation 1 on the training part, in float64 on the CPU.

    Args:
        train: Predictions on the training part, with ``features (N, D)``.

    Raises:
        InputError: Without features, or if a feature is not finite.
    """

    def __init__(self, train: Predictions) -> None:
        self.size: int | None = None
        features = self._check_features(train)
        self.size = features.shape[1]
        self._mean = features.mean(dim=0)
        std = features.std(dim=0, correction=0)
        # A ReLU that is off for all training samples has no scale of its own.
        self._std = torch.where(std > 0, std, 1.0)

    def __call__(self, predictions: Predictions) -> Tensor:
        """Return the standardized features ``(N, D)``."""
        return (self._check_features(predictions) - self._mean) / self._std

    def _check_features(self, predictions: Predictions) -> Tensor:
        features = require_predictions(predictions).tensors().features
        if features is None or features.shape[1] != (self.size or features.shape[1]):
            raise InputError(
                f"predictions must have features (N, {self.size or 'D'})",
                "none" if features is None else tuple(features.shape),
                "Predict with features=True.",
            )
        check_finite("features", features)
        return features.detach().double().cpu()
