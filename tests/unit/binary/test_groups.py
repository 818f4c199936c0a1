"""Events by group: the group whose risk is too low comes first, and exact numbers of simple groups."""

import numpy as np
import pytest
import torch
from scipy.stats import binomtest

from fedlas import Predictions, binary


def test_group_with_underestimated_risk_has_ratio_above_one(two_class):
    random = np.random.default_rng(0)
    log_odds = random.normal(-3, 1, 6000)
    group = np.arange(6000) % 5
    happened = random.random(6000) < 1 / (1 + np.exp(-(log_odds + (group == 3))))
    found = binary.group_measures(two_class(log_odds, happened.astype(int)), group)
    assert next(iter(found)) == 3
    worst = found[3]
    assert worst.ratio.low > 1
    assert worst.p < 0.001 < min(each.p for name, each in found.items() if name != 3)
    assert worst.events == happened[group == 3].sum()
    assert worst.ratio.value == pytest.approx(worst.observed / worst.expected)
    low, high = binomtest(worst.events, 1200).proportion_ci()
    assert (worst.ratio.low, worst.ratio.high) == pytest.approx(
        (low / worst.expected, high / worst.expected)
    )


def test_pooled_slopes_are_shrunk_toward_the_mean(draw):
    p = draw(1000)
    found = binary.group_measures(p, np.where(np.arange(1000) < 60, "small", "large"))
    small, large = found["small"], found["large"]
    assert min(small.slope.value, large.slope.value) <= small.pooled_slope.value
    assert small.pooled_slope.value <= max(small.slope.value, large.slope.value)
    assert small.pooled_slope.high - small.pooled_slope.low < small.slope.high - small.slope.low


def test_group_without_events_has_ratio_but_no_slope(two_class):
    found = binary.group_measures(
        two_class([0.0, 1.0, 0.5, -1.0] * 5, [0, 1, 0, 0] * 5), ["a", "b"] * 10
    )
    none = found["a"]
    assert (none.events, none.ratio.value, none.ratio.low, none.slope) == (0, 0.0, 0.0, None)
    assert none.ratio.high > 0


def test_weights_of_a_group():
    p = Predictions([[0.0, 1.0], [0.0, -1.0]] * 20, [1, 0, 0, 1] * 10, weights=torch.arange(40) % 4)
    found = binary.group_measures(p, np.arange(40) // 20)
    probability = 1 / (1 + np.exp([1.0, -1.0, 1.0]))
    assert found[0].num_samples == 15  # a quarter weighs nothing
    assert found[0].expected == pytest.approx(np.average(probability, weights=[1, 2, 3]))
    assert found[0].observed == pytest.approx(0.5)
    assert found[0].ratio.test == "Wald"
    with pytest.raises(ValueError, match="group_measures: groups must hold at least two samples"):
        binary.group_measures(p, np.arange(40))
