"""Importance weights: estimates of a shifted target whose truth is known, and what is refused or warned of."""

import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch

from fedlas import Predictions
from fedlas.errors import CalibrationWarning, InputError
from fedlas.metrics import evaluate
from fedlas.stats import effective_samples, estimates, importance_weights


def drawn(samples, mean, seed):
    """Inputs around ``mean``, labels of one law, and a model that is over-confident on the right only."""
    rng = np.random.default_rng(seed)
    x = np.stack([rng.normal(mean, 1.0, samples), rng.normal(0.0, 1.0, samples)], axis=1)
    z = 1.5 * x[:, 0] + x[:, 1]
    target = (rng.random(samples) < 1 / (1 + np.exp(-z))).astype(int)
    said = np.where(x[:, 0] > 0.5, 2.5 * z - 1.5, 0.9 * z)
    return x, Predictions(np.stack([np.zeros(samples), said], axis=1), target)


def test_weighted_estimates_are_those_of_the_target():
    source, predictions = drawn(4000, 0.0, seed=0)
    target, _ = drawn(4000, 1.0, seed=1)
    truth = evaluate(drawn(200_000, 1.0, seed=2)[1])
    weights = importance_weights(source, torch.from_numpy(target))
    assert float(weights.mean()) == pytest.approx(1)
    assert 1000 < effective_samples(weights) < 2000
    found = estimates(replace(predictions, weights=weights), ["accuracy", "nll", "ece"], replicates=99)
    plain = evaluate(predictions)
    for name, estimate in found.items():
        assert estimate.low < truth[name] < estimate.high
        assert abs(estimate.value - truth[name]) < 0.5 * abs(plain[name] - truth[name])


def test_the_odds_are_the_ratio_of_two_normal_densities():
    rng = np.random.default_rng(0)
    source, target = rng.normal(0.0, 1.0, (20_000, 1)), rng.normal(0.7, 1.0, (8000, 1))
    weights = importance_weights(source, target).numpy()
    ratio = np.exp(0.7 * source[:, 0] - 0.7**2 / 2)
    assert np.corrcoef(np.log(weights), np.log(ratio))[0, 1] > 0.999
    assert np.median(weights / ratio) == pytest.approx(1, abs=0.05)


def test_a_seed_gives_the_same_weights():
    rng = np.random.default_rng(0)
    source, target = rng.normal(size=(40, 2)), rng.normal(size=(30, 2))
    first, again, other = (importance_weights(source, target, seed=seed) for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_few_effective_samples_are_warned_of():
    rng = np.random.default_rng(0)
    source, target = rng.normal(0.0, 1.0, (2000, 1)), rng.normal(4.0, 1.0, (2000, 1))
    with pytest.warns(CalibrationWarning, match=r"worth [0-9.]+ of 2000, so few samples decide"):
        weights = importance_weights(source, target)
    assert effective_samples(weights) < 100
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        importance_weights(source, target - 4)


@pytest.mark.parametrize(
    ("source", "target", "said"),
    [
        (np.zeros((5, 2)), np.zeros((5, 3)), "the same columns; got 2 and 3"),
        (np.zeros(5), np.zeros((5, 1)), r"source_features must be \(N, D\)"),
        (np.zeros((5, 1)), np.zeros((4, 1)), "target_features .* at least 5 samples"),
        (np.zeros((5, 0)), np.zeros((5, 0)), r"source_features must be \(N, D\)"),
        (np.full((5, 1), np.nan), np.zeros((5, 1)), "source_features must be finite"),
        ([["a"]] * 5, np.zeros((5, 1)), "source_features must be real numbers"),
        (torch.eye(5).to_sparse(), np.zeros((5, 5)), "dense"),
    ],
)
def test_nonsense(source, target, said):
    with pytest.raises(InputError, match=said):
        importance_weights(source, target)
