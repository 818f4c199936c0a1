"""Bayes by backprop: Gaussian weights trained with the evidence lower bound.

Source:
    Blundell, Cornebise, Kavukcuoglu, Wierstra: Weight Uncertainty in Neural Networks, ICML 2015, section 3.
    https://arxiv.org/abs/1505.05424
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fedlas._core.check import InputError, check_count, check_number
from fedlas._core.kinds import check_argument_types
from fedlas.zoo.uncertainty.bayesian_layers import (
    enable_weight_sampling,
    find_bayesian_layers,
    forget_draws,
    require_bayesian_layers,
)
from fedlas.zoo.uncertainty.mc_dropout import log_mean_over_passes

__all__ = ["KLPenalty", "SampledWeights"]


class SampledWeights(nn.Module):
    """Module that averages the probabilities over draws of Gaussian weights.

    Args:
        model: A model with Bayesian layers that returns logits ``(N, C)``.
        samples: Number of draws ``S``.
        seed: Seed of the draws.

    State:
        None. Every batch meets the same ``S`` sets of weights, so the prediction for an input does not depend on its
        batch; torch's global generators are left as they were.

    Raises:
        InputError: If the model has no Bayesian layers, or for numbers out of range.

    Example:
        >>> from fedlas.zoo.uncertainty import to_bayesian
        >>> network = to_bayesian(nn.Sequential(nn.Linear(4, 3))).eval()
        >>> SampledWeights(network, samples=5)(torch.ones(2, 4)).shape
        torch.Size([2, 3])
    """

    @check_argument_types
    def __init__(self, model: nn.Module, *, samples: int = 32, seed: int = 0) -> None:
        super().__init__()
        self.samples = check_count("samples", samples)
        check_count("seed", seed, low=0)
        require_bayesian_layers(model)
        self.model = model
        self.seeds = torch.randint(
            2**31, (samples,), generator=torch.Generator().manual_seed(seed)
        ).tolist()

    def forward(self, inputs: object) -> Tensor:
        """Return the log of the mean probabilities ``(N, C)`` over draws, float32."""
        with enable_weight_sampling(self.model):
            return log_mean_over_passes(self.model, inputs, self.seeds)


def gaussian_kl(mu: Tensor, sigma: Tensor, prior_sigma: float) -> Tensor:
    """Return ``KL(N(mu, sigma^2) || N(0, prior_sigma^2))`` summed over all elements, in nats.

    ``sum log(prior_sigma / sigma) + (sigma^2 + mu^2) / (2 prior_sigma^2) - 1/2``.

    Args:
        mu: Means, any shape.
        sigma: Standard deviations above 0, of the same shape.
        prior_sigma: Standard deviation of the prior.

    Example:
        >>> gaussian_kl(torch.tensor([0.3]), torch.tensor([0.1]), 0.1).item()  # 0.3^2 / (2 * 0.1^2)
        4.5
    """
    return (
        math.log(prior_sigma)
        - sigma.log()
        + (sigma.square() + mu.square()) / (2 * prior_sigma**2)
        - 0.5
    ).sum()


def kl_divergence(model: nn.Module) -> Tensor:
    """Return the KL divergence of the weight distribution from the prior, summed over all layers, in nats.

    Args:
        model: A model with Bayesian layers; with a mixture prior, after a forward pass in training mode.

    Returns:
        A scalar: exact for a Gaussian prior; for a mixture, ``-H(q) - log p(w)`` with the weights ``w`` of the last
        forward pass, an unbiased estimate.

    Raises:
        InputError: If the model has no Bayesian layers, or a mixture prior and no weights drawn.

    Note:
        torch-uncertainty's ``KLDiv`` (0.13) is not used: it divides by the number of layers, its value is too low by
        half a nat per weight, and it samples where the value for a Gaussian is known.
    """
    parts = [
        _layer_kl(layer, kind)
        for layer in require_bayesian_layers(model)
        for kind in ("weight", "bias")
        if getattr(layer, f"{kind}_mu") is not None
    ]
    return torch.stack(parts).sum()


class KLPenalty(nn.Module):
    """KL penalty ``weight * KL(q || p) / num_samples``, which turns a mean loss into the negative ELBO per sample.

    Args:
        num_samples: Number of training samples.
        weight: 1 for the evidence lower bound.

    State:
        None. A call drops the weights that the layers drew.

    Note:
        Every batch has the same share of the KL term; the paper's decaying shares of an epoch (section 3.4) sum to the
        same.

    Example:
        >>> from fedlas.zoo.uncertainty import to_bayesian
        >>> network = to_bayesian(nn.Sequential(nn.Linear(4, 3)))
        >>> bool(KLPenalty(num_samples=1000)(network) > 0)
        True
    """

    def __init__(self, num_samples: int, weight: float = 1.0) -> None:
        super().__init__()
        self.num_samples = check_count("num_samples", num_samples)
        self.weight = check_number("weight", weight, low=0)

    def forward(self, model: nn.Module) -> Tensor:
        """Return the penalty for ``model``, a scalar."""
        penalty = kl_divergence(model) * (self.weight / self.num_samples)
        for layer in find_bayesian_layers(model):
            forget_draws(layer)
        return penalty


def _layer_kl(layer: Any, kind: str) -> Tensor:
    """Return the KL divergence of the weights or the bias of one layer, in nats."""
    mu = getattr(layer, f"{kind}_mu")
    sigma = F.softplus(getattr(layer, f"{kind}_sigma"))
    if layer.prior_pi == 1:
        return gaussian_kl(mu, sigma, layer.prior_sigma_1)
    weights = getattr(layer, f"{kind}_sampler").weight
    if weights is None:
        raise InputError(
            "a mixture prior requires weights drawn in a forward pass",
            "no forward pass in training mode since the last call",
            "Run the model in train() first, or set prior_pi to 1.",
        )
    # The entropy of a Gaussian is known; only the mixture prior has to be sampled.
    entropy = (sigma.log() + 0.5 * math.log(2 * math.pi * math.e)).sum()
    log_prior: Tensor = getattr(layer, f"{kind}_prior_dist").log_prob(weights)
    return -entropy - log_prior
