"""Partial pooling against its definition."""

import numpy as np
import pytest

from fedlas.stats import partial_pooling


def test_spread_solves_paule_mandel_and_values_are_shrunk():
    values = np.array([0.4, 0.9, 1.0, 1.6, 0.2])
    errors = np.array([0.1, 0.2, 0.05, 0.4, 0.15])
    pooled = partial_pooling(values, errors)
    weights = 1 / (errors**2 + pooled.spread**2)
    assert weights @ (values - pooled.mean) ** 2 == pytest.approx(4)
    assert pooled.mean == pytest.approx(weights @ values / weights.sum())
    low = np.minimum(values, pooled.mean)
    high = np.maximum(values, pooled.mean)
    assert ((low <= pooled.values) & (pooled.values <= high)).all()
    # the larger error moves more
    assert np.abs(pooled.values - values)[3] > np.abs(pooled.values - values)[2]


def test_equal_groups_share_one_mean():
    pooled = partial_pooling(np.array([1.0, 1.1, 0.95]), np.array([0.2, 0.2, 0.2]))
    assert pooled.spread == 0
    assert np.ptp(pooled.values) == 0
    assert pooled.errors[0] == pytest.approx(0.2 / 3**0.5)


def test_a_group_without_an_error_is_refused():
    with pytest.raises(ValueError, match="errors must be above 0"):
        partial_pooling(np.array([1.0, 2.0]), np.array([0.0, 1.0]))
