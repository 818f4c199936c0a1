"""A calibrator that uses features where there are some, and works without: what `auto` does, in one line."""

import torch
from torch import nn
from torch.nn.functional import cross_entropy

from fedlas.calibrators import Calibrator


class ByNorm(nn.Module):
    def __init__(self, slope):
        super().__init__()
        self.register_buffer("slope", torch.tensor(slope), persistent=False)

    def forward(self, rows, features=None):
        length = 0.0 if features is None else features.square().mean(dim=1, keepdim=True).sqrt()
        return rows / (1 + self.slope * (1 + length))


class NormTemperature(Calibrator):
    """Divides logits by ``1 + s (1 + |h|)``; without features by ``1 + s``."""

    keeps_argmax = True
    wants = frozenset({"features"})

    def __init__(self):
        self.slope = 0.0

    def _features_used(self, val):
        return None if val.features is None else val.features.shape[1]

    def _fit(self, val):
        slopes = torch.linspace(0, 3, 61).tolist()
        self.slope = min(
            slopes,
            key=lambda s: float(cross_entropy(ByNorm(s)(val.logits, val.features), val.target)),
        )

    def _transform_predictions(self, test):
        features = None if self.num_features is None else test.features
        return self._row_map()(test.logits, features)

    def _row_map(self):
        return ByNorm(self.slope)

    def _arguments(self):
        return {}

    def _state(self):
        return {"slope": self.slope}

    def _restore(self, state):
        self.slope = state["slope"]
