"""One set of predictions that needs no random numbers, so that other programs can be given the same."""

import numpy as np
import pytest
import torch

from fedlas import Predictions


@pytest.fixture(scope="session")
def sample():
    """Log-odds and outcomes of 400 samples, without names: what the numbers of other programs were computed from."""
    i = np.arange(400)
    log_odds = 3 * np.sin(1.7 * i)
    return log_odds, (0.5 * log_odds + 1.5 * np.sin(2.9 * i + 1) > 0.3).astype(int)


@pytest.fixture(scope="session")
def predictions(sample):
    return of_two(*sample)


@pytest.fixture(scope="session")
def two_class():
    """Makes predictions with these log-odds of class 1, and these outcomes."""
    return of_two


def of_two(log_odds, outcome):
    log_odds = torch.as_tensor(log_odds, dtype=torch.float64)
    return Predictions(
        torch.stack([torch.zeros_like(log_odds), log_odds], dim=1), torch.as_tensor(outcome)
    )


@pytest.fixture(scope="session")
def draw():
    """Draws predictions whose log-odds are ``factor`` times too large and ``shift`` too high."""

    def drawn(samples, *, factor=1.0, shift=0.0, seed=0):
        random = np.random.default_rng(seed)
        log_odds = random.normal(-1, 1.5, samples)
        outcome = random.random(samples) < 1 / (1 + np.exp(-log_odds))
        return of_two(factor * log_odds + shift, outcome.astype(int))

    return drawn
