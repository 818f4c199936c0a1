"""Monte Carlo dropout: dropout stays on when predicting, and the mean over passes is the prediction.

Source:
    Gal, Ghahramani: Dropout as a Bayesian Approximation: Representing Model Uncertainty in Deep Learning, ICML 2016,
    section 4. https://arxiv.org/abs/1506.02142
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.dropout import _DropoutNd

from fedlas._core.check import InputError, check_count
from fedlas.objective import Objective, logits_of
from fedlas.predictions import Predictions

_OWNER = "mc_dropout"


def mc_dropout(
    model: nn.Module, loader: Iterable[Any], *, samples: int = 20, seed: int = 0, device: Any = None
) -> Predictions:
    """Mean of the probabilities over passes with dropout on.

    Args:
        model: Classifier to logits ``(N, C)``, or an :class:`~fedlas.Objective` around one, with dropout.
        loader: Yields ``(inputs, target, ...)``; gone through once.
        samples: Passes ``T``.
        seed: Of the masks.
        device: Where the model runs; None is where its parameters are.

    Returns:
        Float32 predictions on the CPU in the order of the loader; the logits are the log of the mean probabilities.

    Raises:
        InputError: If the model has no dropout with a rate above 0 or returns no logits, or the loader is empty.

    State:
        As :class:`DropoutSamples`; each submodule's mode is restored.

    Example:
        >>> model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Dropout(0.5), nn.Linear(8, 3))
        >>> predictions = mc_dropout(model, [(torch.ones(2, 4), torch.tensor([0, 1]))], samples=5)
        >>> predictions.num_samples, predictions.num_classes
        (2, 3)
    """
    network = model.model if isinstance(model, Objective) else model
    sampled = DropoutSamples(network, samples=samples, seed=seed)
    if device is None:
        device = next((p.device for p in network.parameters()), torch.device("cpu"))
    modes = [(module, module.training) for module in network.modules()]
    logits, targets = [], []
    try:
        network.eval()
        with torch.inference_mode():
            for inputs, target, *_ in loader:
                logits.append(sampled(inputs.to(device) if isinstance(inputs, Tensor) else inputs).cpu())
                targets.append(target.cpu())
    finally:
        for module, mode in modes:
            module.training = mode
    if not logits:
        raise InputError(_OWNER, "the loader must yield at least one batch", "none", "Check the data set.")
    return Predictions(torch.cat(logits), torch.cat(targets))


class DropoutSamples(nn.Module):
    """Predicts with the mean of the probabilities over passes with dropout on and all else as it is.

    ``log (1 / T) sum_t softmax(f(x; mask_t))``.

    Args:
        model: A model with dropout that returns logits ``(N, C)``; in ``eval()``, or batch norms would learn.
        samples: Passes ``T``.
        seed: Of the masks.

    State:
        None. The same batch gets the same masks each time, whatever was predicted before; they depend on a sample's
        place in its batch. torch's generators for the CPU and, for inputs on a GPU, for that GPU are left as they were.

    Raises:
        InputError: If the model has no dropout with a rate above 0, or for numbers out of range.

    Note:
        What is switched on is every module of torch's dropout family. Dropout that is no module of its own, as the
        attention weights' in ``nn.MultiheadAttention``, stays off, and so does stochastic depth.
    """

    def __init__(self, model: nn.Module, *, samples: int = 20, seed: int = 0) -> None:
        super().__init__()
        active_dropout(model)
        self.samples = check_count(_OWNER, "samples", samples)
        self.seed = check_count(_OWNER, "seed", seed, low=0)
        self.model = model

    def forward(self, inputs: Any) -> Tensor:
        """Log of the mean probabilities ``(N, C)``, float32."""
        devices = [inputs.device] if isinstance(inputs, Tensor) and inputs.is_cuda else []
        with dropout_on(self.model), torch.random.fork_rng(devices):
            torch.manual_seed(self.seed)
            total = self._log_probs(inputs)
            for _ in range(self.samples - 1):
                total = torch.logaddexp(total, self._log_probs(inputs))
        return total - math.log(self.samples)

    def _log_probs(self, inputs: Any) -> Tensor:
        return logits_of(_OWNER, self.model(inputs)).float().log_softmax(dim=1)


@contextmanager
def dropout_on(model: nn.Module) -> Iterator[None]:
    """Within, dropout is on, also in a model in ``eval()``; afterwards each layer is in the mode it was in.

    Raises:
        InputError: If the model has no dropout with a rate above 0.
    """
    modes = [(layer, layer.training) for layer in active_dropout(model)]
    for layer, _ in modes:
        layer.training = True
    try:
        yield
    finally:
        for layer, mode in modes:
            layer.training = mode


def active_dropout(model: nn.Module) -> list[nn.Module]:
    """The dropout layers of ``model`` whose rate is above 0.

    Raises:
        InputError: If there are none.
    """
    layers: list[nn.Module] = [m for m in model.modules() if isinstance(m, _DropoutNd) and m.p > 0]
    if not layers:
        raise InputError(
            _OWNER,
            "the model must have dropout with a rate above 0",
            type(model).__name__,
            "Train the run with --set model.dropout=0.2, say.",
        )
    return layers
