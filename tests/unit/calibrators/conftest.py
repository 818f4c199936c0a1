"""Predictions with a known flaw."""

import pytest
import torch

from fedlas import Predictions


@pytest.fixture
def generated():
    """A function that draws true logits and labels, and shows the calibrator a distorted version of the logits."""

    def draw(
        samples=2000, classes=4, *, distort=lambda logits: 2 * logits, seed=0, dtype=torch.float64
    ):
        random = torch.Generator().manual_seed(seed)
        logits = 2 * torch.randn(samples, classes, generator=random, dtype=torch.float64)
        target = torch.multinomial(logits.softmax(1), 1, generator=random).squeeze(1)
        return Predictions(distort(logits).to(dtype), target, label_probs=logits.softmax(1))

    return draw
