"""Probabilistic backpropagation: Gaussian weights, updated sample by sample through propagated moments.

Source:
    Hernández-Lobato, Adams: Probabilistic Backpropagation for Scalable Learning of Bayesian Neural Networks,
    ICML 2015, sections 2 and 3. https://arxiv.org/abs/1502.05336
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, get_args

import torch
from torch import Tensor

from fedlas._core.check import check_choice, check_count
from fedlas._core.kinds import check_argument_types
from fedlas.predictions import Predictions
from fedlas.zoo.uncertainty._inputs import FeatureHead, FeatureStandardizer
from fedlas.zoo.uncertainty._moments import (
    NUM_NODES,
    GaussianLayer,
    label_log_prob,
    log_prob_gradients,
    propagate_moments,
)

__all__ = ["Prior", "ProbabilisticBackprop"]

Prior = Literal["fixed", "learned"]


_PRIOR_SHAPE_AND_RATE = (
    6.0  # shape and rate of the Gamma prior of the weights' precision, as published
)
_CHUNK_NUMBERS = 2**22  # numbers in a chunk of predictions, 32 MB in float64

Gamma = tuple[float, float]
"""Shape and rate."""


@dataclass
class PriorLayer(GaussianLayer):
    """Gaussian layer with the prior factor of each weight: precision, and contribution to shape and rate."""

    prior: Tensor
    shape: Tensor
    rate: Tensor


class ProbabilisticBackprop(FeatureHead):
    """Small network on features with independent Gaussian weights, trained by probabilistic backpropagation.

    Means and variances go forward through linear layers and ReLUs to Gaussian logits. The logarithm of the probability
    ``Z`` of the label goes backward, and every weight ``N(m, v)`` takes the moments of its exact update:
    ``m + v dlogZ/dm`` and ``v - v^2 ((dlogZ/dm)^2 - 2 dlogZ/dv)``.

    Args:
        hidden: Units of the hidden layer; 0 for none.
        passes: Passes over the training part; published with 40.
        prior: ``learned``: ``N(0, 1 / lambda)`` with ``lambda ~ Gamma(6, 6)``, whose factors expectation propagation
            refines after each pass, as published. ``fixed``: the Gaussian that this starts from, ``N(0, 6 / 5)``.
        seed: Seed of the start and of the order of the samples.

    State:
        The posterior, after :meth:`fit`. Global generators are left as they were.

    Raises:
        InputError: For numbers out of range.

    Note:
        The paper treats regression with Gaussian noise. Here the label is the largest of the logits plus independent
        standard normal noise (multinomial probit). Given independent Gaussian logits, its probability is an integral
        over one dimension, computed by quadrature. The noise needs no prior, because its scale is that of the logits.
        Each pass treats the samples as new ones, as in the paper: many passes make the variances too small.
        A learned prior becomes far wider with labels than with numbers, because where the training part is separable a
        larger scale of all weights explains it as well. On the digits it predicts worse than the fixed one.

    Example:
        >>> features = torch.tensor([[-1.0], [-2.0], [1.0], [2.0]])
        >>> train = Predictions(torch.zeros(4, 2), torch.tensor([0, 0, 1, 1]), features=features)
        >>> ProbabilisticBackprop(hidden=0, passes=5).fit(train).predict(train).predicted.tolist()
        [0, 0, 1, 1]
    """

    def __init__(
        self, *, hidden: int = 50, passes: int = 10, prior: Prior = "fixed", seed: int = 0
    ) -> None:
        self.hidden = check_count("hidden", hidden, low=0)
        self.passes = check_count("passes", passes)
        self.prior: Prior = check_choice("prior", prior, get_args(Prior))
        self.seed = check_count("seed", seed, low=0)
        self.precision: Gamma = (_PRIOR_SHAPE_AND_RATE, _PRIOR_SHAPE_AND_RATE)
        """Shape and rate of the Gamma posterior of the weights' precision, after :meth:`fit`."""
        self._layers: list[PriorLayer] = []

    @check_argument_types
    def fit(
        self, train: Predictions, *, progress: Callable[[Iterable[int]], Iterable[int]] = iter
    ) -> ProbabilisticBackprop:
        """Fit the posterior to the features and labels of the training part; return ``self``.

        Args:
            train: Predictions on the training part without augmentation, with ``features``.
            progress: Gets the passes and yields them, to show how many are left.

        Raises:
            InputError: Without features, or if they are not finite.
        """
        inputs = FeatureStandardizer(train)
        generator = torch.Generator().manual_seed(self.seed)
        features = inputs(train)
        target = train.tensors().target.tolist()
        sizes = self._layer_sizes(train, features)
        layers = [_new_layer(size, out, generator) for size, out in pairwise(sizes)]
        precision = (_PRIOR_SHAPE_AND_RATE, _PRIOR_SHAPE_AND_RATE)
        for _ in progress(range(self.passes)):
            for index in torch.randperm(len(features), generator=generator).tolist():
                update_on_sample(layers, features[index], target[index])
            if self.prior == "learned":
                precision = refine_prior(layers, precision)
        self._layers = layers
        self.precision = precision
        self._inputs = inputs
        return self

    @property
    def num_parameters(self) -> int:
        """Number of means and variances of the weights."""
        return sum(2 * layer.mean.numel() for layer in self._layers)

    def logit_moments(self, predictions: Predictions) -> tuple[Tensor, Tensor]:
        """Return the mean and variance of the logits, each ``(N, C)``, float64.

        Args:
            predictions: Predictions with ``features``.

        Raises:
            InputError: Before :meth:`fit`; or for features that are missing or of another size.
        """
        return propagate_moments(self._layers, self._require_fitted()(predictions))[-1]

    def predict(self, predictions: Predictions) -> Predictions:
        """Return predictions whose logits are the log of the probabilities under the posterior.

        Args:
            predictions: Predictions with ``features``.

        Raises:
            InputError: Before :meth:`fit`; or for features that are missing or of another size.
        """
        mean, var = self.logit_moments(predictions)
        rows = max(1, _CHUNK_NUMBERS // (NUM_NODES * mean.shape[1]))
        chunks = zip(mean.split(rows), var.split(rows), strict=True)
        log_probs = torch.cat([
            torch.stack([label_log_prob(m, v, label)[0] for label in range(mean.shape[1])], dim=1) for m, v in chunks
        ])  # fmt: skip
        # The quadrature's error keeps the sum a little off 1.
        return predictions.with_logits(
            log_probs.log_softmax(dim=1).to(predictions.tensors().logits)
        )


def _new_layer(size: int, out: int, generator: torch.Generator) -> PriorLayer:
    """Return a layer with the prior as its posterior, but with random means to break the symmetry."""
    variance = _PRIOR_SHAPE_AND_RATE / (_PRIOR_SHAPE_AND_RATE - 1)
    shape = (out, size + 1)
    mean = torch.randn(shape, generator=generator, dtype=torch.float64) / math.sqrt(size + 1)
    full = torch.ones(shape, dtype=torch.float64)
    return PriorLayer(mean, full * variance, full / variance, full * 0, full * 0)


@torch.no_grad()
def update_on_sample(layers: list[PriorLayer], features: Tensor, label: int) -> None:
    """Update all weights in place for one labeled sample."""
    _, slopes = log_prob_gradients(layers, features, label)
    for layer, (to_mean, to_var) in zip(layers, slopes, strict=True):
        var = layer.var - layer.var.square() * (to_mean.square() - 2 * to_var)
        # The propagated moments are no exact ones, so a variance may end below 0: that weight stays as it was.
        good = var > 0
        layer.mean = torch.where(good, layer.mean + layer.var * to_mean, layer.mean)
        layer.var = torch.where(good, var, layer.var)


def refine_prior(layers: list[PriorLayer], precision: Gamma) -> Gamma:
    """Refine the prior factors of all weights in place, one by one, and return the posterior of the precision."""
    for layer in layers:
        # Thousands of steps of a few numbers each, every one from the precision of the one before: floats, no tensors.
        columns = (layer.mean, layer.var, layer.prior, layer.shape, layer.rate)
        rows = list(zip(*(column.flatten().tolist() for column in columns), strict=True))
        for index, row in enumerate(rows):
            rows[index], precision = _refine_weight(row, precision)
        layer.mean, layer.var, layer.prior, layer.shape, layer.rate = (
            torch.tensor(column, dtype=torch.float64).view_as(layer.mean)
            for column in zip(*rows, strict=True)
        )
    return precision


def _refine_weight(
    parameters: tuple[float, ...], precision: Gamma
) -> tuple[tuple[float, ...], Gamma]:
    """Return a weight's refined mean, variance and prior factor, and the posterior of the precision."""
    mean, var, prior, more_shape, more_rate = parameters
    # Both without this factor. It is skipped where that is no distribution, as usual in expectation propagation.
    rest = 1 / var - prior
    shape = precision[0] - more_shape
    rate = precision[1] - more_rate
    if rest <= 0 or shape <= 1 or rate <= 0:
        return parameters, precision
    mean = mean / var / rest
    # The precision is integrated out with a Gaussian of the same variance; that makes the new factor Gaussian too.
    z, z_1, z_2 = (
        _log_normal_density(mean, 1 / rest + rate / (shape - 1 + more)) for more in (0, 1, 2)
    )
    try:
        new_shape, new_rate = gamma_update(z, z_1, z_2, shape, rate)
    except (
        OverflowError,
        ZeroDivisionError,
    ):  # a weight whose update is beyond the range of floats
        return parameters, precision
    if new_shape <= 1 or new_rate <= 0:
        return parameters, precision
    prior = (shape - 1) / rate
    var = 1 / (rest + prior)
    return (var * rest * mean, var, prior, new_shape - shape, new_rate - rate), (
        new_shape,
        new_rate,
    )


def gamma_update(z: float, z_1: float, z_2: float, shape: float, rate: float) -> Gamma:
    """Return the shape and rate of the Gamma distribution that matches the updated mean and variance.

    Args:
        z: ``log Z`` at ``shape``.
        z_1: ``log Z`` at ``shape + 1``.
        z_2: ``log Z`` at ``shape + 2``.
        shape: Before the update.
        rate: Before the update.
    """
    first = math.exp(z_1 - z)
    second = math.exp(z_2 - z_1)
    new_shape = 1 / (second / first * (shape + 1) / shape - 1)
    return new_shape, 1 / (second * (shape + 1) / rate - first * shape / rate)


def _log_normal_density(x: float, var: float) -> float:
    return -0.5 * (x * x / var + math.log(2 * math.pi * var))
