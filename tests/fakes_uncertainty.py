"""What several tests of uncertainty fit their heads on."""

import torch

from fedlas import Predictions


def three_clouds(count=150, seed=0):
    """Predictions with features: three clouds in two dimensions."""
    generator = torch.Generator().manual_seed(seed)
    target = torch.randint(3, (count,), generator=generator)
    centers = torch.tensor([[0.0, 3.0], [3.0, -2.0], [-3.0, -2.0]])
    features = centers[target] + 1.2 * torch.randn(count, 2, generator=generator)
    return Predictions(torch.zeros(count, 3), target, features=features)
