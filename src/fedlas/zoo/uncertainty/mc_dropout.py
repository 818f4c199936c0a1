"""Monte Carlo dropout: the mean of the probabilities over forward passes with dropout on.

Source:
    Gal, Ghahramani: Dropout as a Bayesian Approximation: Representing Model Uncertainty in Deep Learning, ICML 2016,
    section 4. https://arxiv.org/abs/1506.02142
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.dropout import _DropoutNd

from fedlas._core.check import InputError, check_count
from fedlas._core.kinds import check_argument_types
from fedlas.objective import predict
from fedlas.objective.call import ForwardArguments, class_logits, iter_tensors
from fedlas.objective.network import to_network
from fedlas.predictions import Predictions

__all__ = ["DropoutSamples", "mc_dropout"]


@check_argument_types
def mc_dropout(
    model: nn.Module, loader: Iterable[Any], *, samples: int = 20, seed: int = 0, device: Any = None
) -> Predictions:
    """Return predictions with the mean of the probabilities over forward passes with dropout on.

    Args:
        model: Classifier to logits ``(N, C)``, or an :class:`~fedlas.Objective` around one, with dropout.
        loader: As :func:`~fedlas.predict` takes it; iterated once.
        samples: Number of passes ``T``.
        seed: Seed of the masks.
        device: Where the model runs; None is where its parameters are.

    Returns:
        Float32 predictions on the CPU in the order of the loader; the logits are the log of the mean probabilities.

    Raises:
        InputError: If the model has no dropout with a rate above 0 or returns no logits, or the loader is empty.

    State:
        As :class:`DropoutSamples`; each submodule's mode is restored.

    Example:
        >>> import torch
        >>> model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Dropout(0.5), nn.Linear(8, 3))
        >>> predictions = mc_dropout(model, [(torch.ones(2, 4), torch.tensor([0, 1]))], samples=5)
        >>> predictions.num_samples, predictions.num_classes
        (2, 3)
    """
    return predict(
        DropoutSamples(to_network(model), samples=samples, seed=seed), loader, device=device
    )


class DropoutSamples(nn.Module):
    """Module that averages the probabilities over forward passes with dropout on.

    ``log (1 / T) sum_t softmax(f(x; mask_t))``.

    Args:
        model: A model with dropout that returns logits ``(N, C)``; in ``eval()``, or batch norms would be updated.
        samples: Number of passes ``T``.
        seed: Seed of the masks.

    State:
        None. The same batch gets the same masks each time; they depend on the index of a sample in its batch. torch's
        generators for the CPU and, for inputs on a GPU, for that GPU are left as they were.

    Raises:
        InputError: If the model has no dropout with a rate above 0, or for numbers out of range.

    Note:
        Every module of torch's dropout family is switched on. Dropout that is not a module, such as that of the
        attention weights in ``nn.MultiheadAttention``, stays off, and so does stochastic depth.

    Example:
        >>> import torch
        >>> model = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.5), nn.Linear(8, 3)).eval()
        >>> DropoutSamples(model, samples=5)(torch.ones(2, 4)).exp().sum(dim=1).round(decimals=4)
        tensor([1., 1.], grad_fn=<RoundBackward1>)
    """

    @check_argument_types
    def __init__(self, model: nn.Module, *, samples: int = 20, seed: int = 0) -> None:
        super().__init__()
        require_dropout_layers(model)
        self.samples = check_count("samples", samples)
        self.seed = check_count("seed", seed, low=0)
        self.model = model

    def forward(self, inputs: object) -> Tensor:
        """Return the log of the mean probabilities ``(N, C)`` over passes, float32."""
        with enable_dropout(self.model):
            return log_mean_over_passes(
                self.model, inputs, [self.seed, *[None] * (self.samples - 1)]
            )


@contextmanager
def enable_dropout(model: nn.Module) -> Iterator[None]:
    """Turn dropout on inside this context, even in ``eval()``, and restore each layer's mode afterward."""
    modes = [(layer, layer.training) for layer in require_dropout_layers(model)]
    for layer, _ in modes:
        layer.training = True
    try:
        yield
    finally:
        for layer, mode in modes:
            layer.training = mode


def require_dropout_layers(model: nn.Module) -> list[nn.Module]:
    """Return the dropout layers of ``model`` with a rate above 0, or raise InputError if there are none."""
    layers: list[nn.Module] = [m for m in model.modules() if isinstance(m, _DropoutNd) and m.p > 0]
    if not layers:
        raise InputError(
            "the model must have dropout with a rate above 0",
            type(model).__name__,
            "Train the run with dropout, e.g. --set model.dropout=0.2.",
        )
    return layers


def log_mean_over_passes(model: nn.Module, inputs: object, seeds: Sequence[int | None]) -> Tensor:
    """Return the log of the mean probabilities ``(N, C)``, float32, over one forward pass per entry of ``seeds``."""
    # A seed of None continues the random numbers of the previous pass; torch's generators keep their state.
    arguments = ForwardArguments.from_model(model)
    tensors = (*iter_tensors(inputs), *model.parameters(), *model.buffers())
    devices = {tensor.device for tensor in tensors if tensor.is_cuda}
    total: Tensor | float = -math.inf
    with torch.random.fork_rng(list(devices)):
        for seed in seeds:
            if seed is not None:
                torch.manual_seed(seed)
            # Summed in the logarithm, where tiny probabilities keep their digits.
            log_probs = class_logits(arguments.call(model, inputs, {})).float().log_softmax(dim=1)
            total = torch.logaddexp(total, log_probs) if isinstance(total, Tensor) else log_probs
    return torch.as_tensor(total - math.log(len(seeds)))
