"""A calibrator that uses features where there are some, and works without: what `auto` does, in one line."""

import torch
from torch import nn
from torch.nn.functional import cross_entropy

from fedlas.calibrators import Calibrator


class ByNorm(nn.Module):
    def __init__(self, slope):
        super().__init__()
        self.register_buffer("slope", torch.as_tensor(slope))

    def forward(self, rows, features=None):
        length = 0.0 if features is None else features.square().mean(dim=1, keepdim=True).sqrt()
        return rows / (1 + self.slope * (1 + length))


class NormTemperature(Calibrator):
    """Divides logits by ``1 + s (1 + |h|)``; without features by ``1 + s``."""

    map_type = ByNorm
    keeps_argmax = True
    wants = frozenset({"features"})

    def fit_map(self, val, start=None):
        slopes = torch.linspace(0, 3, 61).tolist()
        best = min(
            slopes,
            key=lambda s: float(
                cross_entropy(
                    ByNorm(s)(val.tensors().logits, val.tensors().features), val.tensors().target
                )
            ),
        )
        return ByNorm(best)
