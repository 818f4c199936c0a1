"""The mean of the probabilities over random passes of a model."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from fedlas.objective.call import Arguments, class_logits, tensors_in


def mean_over_draws(model: nn.Module, inputs: Any, seeds: Sequence[int | None]) -> Tensor:
    """Return the log of the mean probabilities ``(N, C)``, float32; torch's generators keep their state.

    Args:
        model: Returns logits ``(N, C)``, at random.
        inputs: Inputs of the model, as :meth:`Arguments.call` takes them.
        seeds: One entry a pass: a seed, or None to continue the random numbers of the pass before.
    """
    arguments = Arguments.of(model)
    tensors = (*tensors_in(inputs), *model.parameters(), *model.buffers())
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
