"""Random shares and partners of mixed samples."""

from __future__ import annotations

import torch
from torch import Tensor


def draw_share(alpha: float) -> Tensor:
    """A number from ``Beta(alpha, alpha)``, the share of the first sample; from PyTorch's global CPU generator."""
    share: Tensor = torch.distributions.Beta(alpha, alpha, validate_args=False).sample()
    return share


def draw_partners(samples: int, device: torch.device) -> Tensor:
    """A random order ``(N,)``, the partner of each sample in its mixture; the same numbers on every device."""
    return torch.randperm(samples).to(device)
