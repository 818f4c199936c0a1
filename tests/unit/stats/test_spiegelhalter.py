"""Spiegelhalter's test: its size, its power, and what weights do."""

import numpy as np
import pytest
import torch

from fedlas import TopLabel
from fedlas.errors import InputError
from fedlas.stats import spiegelhalter_test


def test_size_and_power():
    random = np.random.default_rng(0)
    confidence = random.uniform(0.5, 1, (400, 500))
    right = random.random((400, 500)) < confidence
    p_values = np.array(
        [spiegelhalter_test(TopLabel(c, r)).p_value for c, r in zip(confidence, right, strict=True)]
    )
    assert 0.025 < np.mean(p_values <= 0.05) < 0.075
    assert spiegelhalter_test(TopLabel(np.sqrt(confidence[0]), right[0])).z > 3  # over-confident


def test_equal_weights_change_nothing_and_zero_is_absence():
    confidence, right = torch.linspace(0.6, 0.9, 20), torch.arange(20) % 3 > 0
    plain = spiegelhalter_test(TopLabel(confidence, right))
    assert spiegelhalter_test(TopLabel(confidence, right, torch.full((20,), 7.0))) == pytest.approx(
        plain
    )
    absent = spiegelhalter_test(TopLabel(confidence, right, (torch.arange(20) < 10).double()))
    assert absent == pytest.approx(spiegelhalter_test(TopLabel(confidence[:10], right[:10])))


def test_size_with_weights():
    """A tenth of the samples weighs twenty times as much, where confidences are higher."""
    random = np.random.default_rng(0)
    heavy = np.arange(500) % 10 == 0
    confidence, weights = np.where(heavy, 0.85, 0.52), np.where(heavy, 20.0, 1.0)
    right = random.random((1000, 500)) < confidence
    p_values = np.array(
        [spiegelhalter_test(TopLabel(confidence, each, weights)).p_value for each in right]
    )
    assert 0.03 < np.mean(p_values <= 0.05) < 0.07


def test_no_spread_is_an_error():
    with pytest.raises(InputError, match="must differ from"):
        spiegelhalter_test(TopLabel([0.5, 1.0], [True, True]))
