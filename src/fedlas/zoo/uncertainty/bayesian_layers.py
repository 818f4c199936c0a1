"""Conversion of networks to Gaussian weights, with layers of torch-uncertainty.

Source:
    Blundell, Cornebise, Kavukcuoglu, Wierstra: Weight Uncertainty in Neural Networks, ICML 2015, section 3.
    https://arxiv.org/abs/1505.05424
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from fedlas._core.check import InputError, check_number
from fedlas._core.extras import require
from fedlas._core.kinds import check_argument_types
from fedlas._core.threads import ignore_warnings

__all__ = ["BayesianConfig", "to_bayesian"]


@dataclass(frozen=True)
class BayesianConfig:
    """Prior and initial distribution of Gaussian weights ``N(mu, sigma^2)``.

    Args:
        prior_sigma: Standard deviation of the prior ``N(0, prior_sigma^2)``; all standard deviations are in (0, 100].
        prior_sigma_2: Standard deviation of the second component of a scale mixture prior.
        prior_pi: Share of the first component, in (0, 1]; 1 is the plain Gaussian.
        sigma_init: Standard deviation of every weight at the start.
        kl_weight: Factor of the KL term; 1 is the evidence lower bound, below 1 a tempered ("cold") posterior.

    Example:
        >>> BayesianConfig(prior_sigma=1.0, kl_weight=0.1).sigma_init
        0.01
    """

    prior_sigma: float = 0.1
    prior_sigma_2: float = 0.002
    prior_pi: float = 1.0
    sigma_init: float = 0.01
    kl_weight: float = 1.0

    def __post_init__(self) -> None:
        for name in ("prior_sigma", "prior_sigma_2", "sigma_init"):
            check_number(name, getattr(self, name), low=0, high=100, low_open=True)
        check_number("prior_pi", self.prior_pi, low=0, high=1, low_open=True)
        check_number("kl_weight", self.kl_weight, low=0)


@check_argument_types
def to_bayesian(model: nn.Module, config: BayesianConfig | None = None) -> nn.Module:
    """Replace the linear and convolutional layers of ``model`` by Bayesian layers, in place.

    Args:
        model: Any network; layers of other types and subclasses of these types are not replaced.
        config: Prior and initial standard deviation.

    Returns:
        The model, or the new layer if the model itself was a replaced layer.

    Raises:
        InputError: If there is nothing to replace.
        MissingExtraError: Without torch-uncertainty.

    State:
        The means of the new layers are the weights of the old layers. In ``train()`` each forward pass draws new
        weights, one set for the whole batch, from torch's global generator. In ``eval()`` the means are used, except
        within :func:`enable_weight_sampling`.

    Example:
        >>> network = to_bayesian(nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3)))
        >>> type(network[0]).__name__, network(torch.ones(2, 4)).shape
        ('BayesLinear', torch.Size([2, 3]))
    """
    config = BayesianConfig() if config is None else config
    # a layer that occurs twice in the model stays one layer
    twins: dict[nn.Module, nn.Module | None] = {}
    for name, layer in list(model.named_modules(remove_duplicate=False)):
        if layer not in twins:
            twins[layer] = _bayesian_twin(layer, config)
        new = twins[layer]
        if new is None:
            continue
        # The model itself is the layer.
        if not name:
            return new
        parent, _, child = name.rpartition(".")
        setattr(model.get_submodule(parent), child, new)
    if all(new is None for new in twins.values()):  # not any(): a module may have a length
        raise InputError(
            "the model must have linear or convolutional layers",
            type(model).__name__,
            "Leave model.bayesian out.",
        )
    return model


def find_bayesian_layers(model: nn.Module) -> list[Any]:
    """Return the layers of ``model`` with Gaussian weights."""
    return [
        layer
        for layer in model.modules()
        if hasattr(layer, "weight_mu") and hasattr(layer, "weight_prior_dist")
    ]


@contextmanager
def enable_weight_sampling(model: nn.Module) -> Iterator[None]:
    """Draw new weights in each forward pass inside this context, even in ``eval()``."""
    layers = require_bayesian_layers(model)
    for layer in layers:
        layer.sampled = True
    try:
        yield
    finally:
        for layer in layers:
            layer.sampled = False
            forget_draws(layer)


def require_bayesian_layers(model: nn.Module) -> list[Any]:
    """Return the Bayesian layers of ``model``, or raise InputError if there are none."""
    layers = find_bayesian_layers(model)
    if not layers:
        raise InputError(
            "the model must have Bayesian layers",
            type(model).__name__,
            "Convert it with to_bayesian, or train the run with --set model.bayesian=true.",
        )
    return layers


def _bayesian_twin(layer: nn.Module, config: BayesianConfig) -> nn.Module | None:
    """Return a Bayesian layer with the weights of ``layer`` as means, or None for other types of layers."""
    prior = {
        "prior_sigma_1": config.prior_sigma,
        "prior_sigma_2": config.prior_sigma_2,
        "prior_pi": config.prior_pi,
    }
    new: Any
    old: Any = layer
    if type(layer) is nn.Linear:
        new = _torch_uncertainty_layers().BayesLinear(
            old.in_features, old.out_features, bias=old.bias is not None, **prior
        )
    elif type(layer) in (nn.Conv1d, nn.Conv2d, nn.Conv3d):
        names = (
            "in_channels",
            "out_channels",
            "kernel_size",
            "stride",
            "padding",
            "dilation",
            "groups",
            "padding_mode",
        )
        options = {name: getattr(old, name) for name in names}
        new = getattr(_torch_uncertainty_layers(), f"Bayes{type(layer).__name__}")(
            **options, bias=old.bias is not None, **prior
        )
        # The library does not compute padding="same" in other modes than zeros; the old layer has the result.
        new._reversed_padding_repeated_twice = old._reversed_padding_repeated_twice
    else:
        return None
    # Means from the old layer; the library's sigma is softplus of its parameter, inverted here.
    with torch.no_grad():
        for kind in ("weight", "bias"):
            if getattr(old, kind) is not None:
                getattr(new, f"{kind}_mu").copy_(getattr(old, kind))
                getattr(new, f"{kind}_sigma").fill_(math.log(math.expm1(config.sigma_init)))
    new.sampled = False
    new.register_forward_pre_hook(_set_sampling_mode)
    new.to(old.weight.device, old.weight.dtype)
    twin: nn.Module = new.train(layer.training)
    return twin


def _torch_uncertainty_layers() -> Any:
    with ignore_warnings:  # warnings of its imports do not concern the user
        return require("torch_uncertainty.layers.bayesian", extra="uncertainty")


def _set_sampling_mode(layer: Any, _: Any) -> None:
    """Make a layer draw weights in training and within :func:`enable_weight_sampling`, and use the means otherwise."""
    layer.frozen = not (layer.training or layer.sampled)


def forget_draws(layer: object) -> None:
    """Drop the drawn weights of a layer, which would keep a graph alive and prevent copies of the model."""
    for sampler in (getattr(layer, "weight_sampler", None), getattr(layer, "bias_sampler", None)):
        if sampler is not None:
            sampler.weight = sampler.sigma = None
    for name in ("log_prior", "log_variational_posterior"):
        vars(layer).pop(name, None)
