"""Bayes by backprop: every weight is a Gaussian, trained by the evidence lower bound; layers of torch-uncertainty.

Source:
    Blundell, Cornebise, Kavukcuoglu, Wierstra: Weight Uncertainty in Neural Networks, ICML 2015, section 3.
    https://arxiv.org/abs/1505.05424
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fedlas._core.check import InputError, check_count, check_number
from fedlas._core.extras import require
from fedlas.objective import logits_of

_OWNER = "bayes by backprop"


@dataclass(frozen=True)
class BayesianConfig:
    """Weights as Gaussians ``N(mu, sigma^2)``.

    Args:
        prior_sigma: Standard deviation of the prior ``N(0, prior_sigma^2)``, in (0, 100] like the other two.
        prior_sigma_2: Standard deviation of the second component of a scale mixture prior.
        prior_pi: Share of the first component, in (0, 1]; 1 is the plain Gaussian.
        sigma_init: Standard deviation of every weight at the start.
        kl_weight: Factor of the KL term; 1 is the evidence lower bound, less a tempered ("cold") posterior.
    """

    prior_sigma: float = 0.1
    prior_sigma_2: float = 0.002
    prior_pi: float = 1.0
    sigma_init: float = 0.01
    kl_weight: float = 1.0

    def __post_init__(self) -> None:
        for name in ("prior_sigma", "prior_sigma_2", "sigma_init"):
            check_number("model.bayesian", name, getattr(self, name), low=0, high=100, low_open=True)
        check_number("model.bayesian", "prior_pi", self.prior_pi, low=0, high=1, low_open=True)
        check_number("model.bayesian", "kl_weight", self.kl_weight, low=0)


def to_bayesian(model: nn.Module, config: BayesianConfig | None = None) -> nn.Module:
    """Replace every linear and convolutional layer of ``model`` by a Bayesian one, in place.

    Args:
        model: Any network; layers of other types, and subclasses of these, stay as they are.
        config: Prior and start.

    Returns:
        The model, or the new layer if the model itself was one.

    Raises:
        InputError: If there is nothing to replace.
        MissingExtraError: Without torch-uncertainty.

    State:
        The new layers' means are the old layers' weights. In ``train()`` each forward pass draws new weights, one set
        for the whole batch, from torch's global generator; in ``eval()`` the means are used, unless within
        :func:`sampling`.
    """
    config = config or BayesianConfig()
    twins: dict[nn.Module, nn.Module | None] = {}  # a layer that the model has in two places stays one layer
    for name, layer in list(model.named_modules(remove_duplicate=False)):
        if layer not in twins:
            twins[layer] = _bayesian_twin(layer, config)
        new = twins[layer]
        if new is None:
            continue
        if not name:
            return new
        parent, _, child = name.rpartition(".")
        setattr(model.get_submodule(parent), child, new)
    if all(new is None for new in twins.values()):  # not any(): a module may have a length
        raise InputError(
            "model.bayesian",
            "the model must have linear or convolutional layers",
            type(model).__name__,
            "Leave model.bayesian out.",
        )
    return model


def bayesian_layers(model: nn.Module) -> list[Any]:
    """The layers of ``model`` whose weights are Gaussians."""
    return [layer for layer in model.modules() if hasattr(layer, "weight_mu") and hasattr(layer, "weight_prior_dist")]


@contextmanager
def sampling(model: nn.Module) -> Iterator[None]:
    """Within, each forward pass draws new weights, in ``eval()`` too.

    Raises:
        InputError: If the model has no Bayesian layers.
    """
    layers = _checked_layers(model)
    for layer in layers:
        layer.sampled = True
    try:
        yield
    finally:
        for layer in layers:
            layer.sampled = False
            _forget(layer)


class SampledWeights(nn.Module):
    """Predicts with the mean of the probabilities over draws of the weights.

    Args:
        model: A model with Bayesian layers that returns logits ``(N, C)``.
        samples: Draws ``S``.
        seed: Of the draws.

    State:
        None. Every batch meets the same ``S`` sets of weights, so what is said of one input does not depend on the
        batches; torch's global generators are left as they were.

    Raises:
        InputError: If the model has no Bayesian layers, or for numbers out of range.
    """

    def __init__(self, model: nn.Module, *, samples: int = 32, seed: int = 0) -> None:
        super().__init__()
        self.samples = check_count(_OWNER, "samples", samples)
        check_count(_OWNER, "seed", seed, low=0)
        _checked_layers(model)
        self.model = model
        self.seeds = torch.randint(2**31, (samples,), generator=torch.Generator().manual_seed(seed)).tolist()

    def forward(self, inputs: Any) -> Tensor:
        """Log of the mean probabilities ``(N, C)``, float32."""
        devices = [inputs.device] if isinstance(inputs, Tensor) and inputs.is_cuda else []
        with sampling(self.model), torch.random.fork_rng(devices):
            total = self._log_probs(inputs, self.seeds[0])
            for seed in self.seeds[1:]:
                total = torch.logaddexp(total, self._log_probs(inputs, seed))
        return total - math.log(self.samples)

    def _log_probs(self, inputs: Any, seed: int) -> Tensor:
        torch.manual_seed(seed)
        return logits_of(_OWNER, self.model(inputs)).float().log_softmax(dim=1)


def gaussian_kl(mu: Tensor, sigma: Tensor, prior_sigma: float) -> Tensor:
    """``KL(N(mu, sigma^2) || N(0, prior_sigma^2))`` summed over all elements, in nats.

    ``sum log(prior_sigma / sigma) + (sigma^2 + mu^2) / (2 prior_sigma^2) - 1/2``.

    Args:
        mu: Means, any shape.
        sigma: Standard deviations above 0, of that shape.
        prior_sigma: Standard deviation of the prior.

    Example:
        >>> gaussian_kl(torch.tensor([0.3]), torch.tensor([0.1]), 0.1).item()  # 0.3^2 / (2 * 0.1^2)
        4.5
    """
    return (math.log(prior_sigma) - sigma.log() + (sigma.square() + mu.square()) / (2 * prior_sigma**2) - 0.5).sum()


def kl_divergence(model: nn.Module) -> Tensor:
    """KL divergence of the weights' distribution from the prior, summed over all layers, in nats.

    Args:
        model: A model with Bayesian layers; with a mixture prior, after a forward pass in training mode.

    Returns:
        A scalar: exact for a Gaussian prior; for a mixture, ``-H(q) - log p(w)`` with the weights ``w`` that the last
        forward pass drew, which is right on average.

    Raises:
        InputError: If the model has no Bayesian layers, or a mixture prior and no weights drawn.

    Note:
        torch-uncertainty's own ``KLDiv`` (0.13) is not used: it divides by the number of layers, its value is too low
        by half a nat a weight, and it draws where the Gaussian's value is known.
    """
    parts = [
        _kl(layer, kind)
        for layer in _checked_layers(model)
        for kind in ("weight", "bias")
        if getattr(layer, f"{kind}_mu") is not None
    ]
    return torch.stack(parts).sum()


class KLPenalty(nn.Module):
    """``weight * KL(q || p) / num_samples``: with a mean over samples it makes the negative ELBO, per sample.

    Args:
        num_samples: Samples of the training part.
        weight: 1 for the evidence lower bound.

    State:
        None of its own. When called it lets go of the weights that the layers drew.

    Note:
        Every batch has the same share of the KL term; the paper's decaying shares of an epoch (section 3.4) sum to the
        same.
    """

    def __init__(self, num_samples: int, weight: float = 1.0) -> None:
        super().__init__()
        self.num_samples, self.weight = num_samples, weight

    def forward(self, model: nn.Module) -> Tensor:
        """The penalty of ``model``, a scalar."""
        penalty = kl_divergence(model) * (self.weight / self.num_samples)
        for layer in bayesian_layers(model):
            _forget(layer)
        return penalty


def _checked_layers(model: nn.Module) -> list[Any]:
    layers = bayesian_layers(model)
    if not layers:
        raise InputError(
            _OWNER,
            "the model must have Bayesian layers",
            type(model).__name__,
            "Convert it with to_bayesian, or train the run with --set model.bayesian=true.",
        )
    return layers


def _kl(layer: Any, kind: str) -> Tensor:
    """KL divergence of the weights, or of the bias, of one layer."""
    mu, sigma = getattr(layer, f"{kind}_mu"), F.softplus(getattr(layer, f"{kind}_sigma"))
    if layer.prior_pi == 1:
        return gaussian_kl(mu, sigma, layer.prior_sigma_1)
    drawn = getattr(layer, f"{kind}_sampler").weight
    if drawn is None:
        raise InputError(
            _OWNER,
            "with a mixture prior the weights must have been drawn",
            "no forward pass in training mode since the last call",
            "Run the model in train() first, or set prior_pi to 1.",
        )
    entropy = (sigma.log() + 0.5 * math.log(2 * math.pi * math.e)).sum()
    log_prior: Tensor = getattr(layer, f"{kind}_prior_dist").log_prob(drawn)
    return -entropy - log_prior


def _bayesian_twin(layer: nn.Module, config: BayesianConfig) -> nn.Module | None:
    """A Bayesian layer of the same shape around the same weights; None for a layer that has no Bayesian kind."""
    prior = {
        "prior_sigma_1": config.prior_sigma,
        "prior_sigma_2": config.prior_sigma_2,
        "prior_pi": config.prior_pi,
    }
    new: Any
    if type(layer) is nn.Linear:
        new = _library().BayesLinear(layer.in_features, layer.out_features, bias=layer.bias is not None, **prior)
    elif type(layer) in (nn.Conv1d, nn.Conv2d, nn.Conv3d):
        conv: Any = layer
        new = getattr(_library(), f"Bayes{type(layer).__name__}")(
            conv.in_channels,
            conv.out_channels,
            conv.kernel_size,
            stride=conv.stride,
            padding=conv.padding,
            dilation=conv.dilation,
            groups=conv.groups,
            bias=conv.bias is not None,
            padding_mode=conv.padding_mode,
            **prior,
        )
        # The library cannot work out padding="same" in other modes than zeros; the old layer has.
        new._reversed_padding_repeated_twice = conv._reversed_padding_repeated_twice
    else:
        return None
    old: Any = layer
    with torch.no_grad():
        for kind in ("weight", "bias"):
            if getattr(old, kind) is not None:
                getattr(new, f"{kind}_mu").copy_(getattr(old, kind))
                getattr(new, f"{kind}_sigma").fill_(math.log(math.expm1(config.sigma_init)))  # softplus gives it back
    new.sampled = False
    new.register_forward_pre_hook(_follow_mode)
    new.to(old.weight.device, old.weight.dtype)
    twin: nn.Module = new.train(layer.training)
    return twin


def _library() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what it remarks while it is imported is no news to whoever trains
        return require("torch_uncertainty.layers.bayesian", extra="uncertainty")


def _follow_mode(layer: Any, _: Any) -> None:
    """Draw weights in training and within :func:`sampling`; else use the means."""
    layer.frozen = not (layer.training or layer.sampled)


def _forget(layer: Any) -> None:
    """Let go of what was drawn, so that no graph outlives its step and the model can be copied."""
    for sampler in (getattr(layer, "weight_sampler", None), getattr(layer, "bias_sampler", None)):
        if sampler is not None:
            sampler.weight = sampler.sigma = None
    for name in ("log_prior", "log_variational_posterior"):
        vars(layer).pop(name, None)
