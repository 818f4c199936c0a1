"""Random shares and partners of mixed samples."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fedlas._core.check import InputError, describe, is_dense


def check_mixable(owner: str, inputs: Any, target: Any) -> None:
    """Refuse what cannot be mixed sample by sample.

    Raises:
        InputError: If the inputs are no floating tensor ``(N, ...)``, or the target is neither integers ``(N, ...)``
            nor floats ``(N, C, ...)``.
    """
    both = is_dense(inputs) and is_dense(target) and not inputs.is_meta and not target.is_meta
    if both and inputs.is_floating_point() and inputs.ndim and inputs.shape[:1] == target.shape[:1]:
        labels = not target.is_complex() and target.dtype != torch.bool
        if labels and target.ndim > target.is_floating_point() and inputs.dtype.itemsize > 1:
            return
    raise InputError(
        owner,
        "inputs must be a floating tensor with one row a target, which are classes or probabilities",
        f"{describe(inputs)} for target {describe(target)}",
        "Mix the inputs of the model; integers such as token ids cannot be mixed.",
    )


def draw_share(alpha: float) -> Tensor:
    """A number from ``Beta(alpha, alpha)``, the share of the first sample; from PyTorch's global CPU generator."""
    share: Tensor = torch.distributions.Beta(alpha, alpha, validate_args=False).sample()
    return share


def draw_partners(samples: int, device: torch.device) -> Tensor:
    """A random order ``(N,)``, the partner of each sample in its mixture; the same numbers on every device."""
    return torch.randperm(samples).to(device)
