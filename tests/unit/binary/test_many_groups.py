"""Groups are measured in passes over all samples, with the numbers of one group at a time."""

from dataclasses import astuple

import numpy as np
import pytest
import torch

from fedlas import Predictions
from fedlas.binary import group_measures
from fedlas.binary.groups import _measured
from fedlas.binary.positive import positive_class
from fedlas.stats.proportion import clopper_pearson, poisson_binomial_p, poisson_binomial_ps


def problem(sizes, seed, *, scale=1.5):
    draw = np.random.default_rng(seed)
    number = np.repeat(np.arange(len(sizes)), sizes)
    log_odds = scale * draw.normal(size=len(number)) - 0.5
    happened = draw.random(len(number)) < 1 / (1 + np.exp(-0.8 * log_odds))
    shuffle = draw.permutation(len(number))
    return log_odds[shuffle], happened[shuffle].astype(int), number[shuffle]


def plain(value):
    return [np.nan if each is None else each for each in value if not isinstance(each, str)]


@pytest.mark.parametrize(
    ("sizes", "scale"),
    [
        ([1, 2, 3, 5, 8, 13, 40, 200, 900, 6000, 2], 1.5),
        ([4] * 60, 3.0),
        ([30] * 40, 200.0),
        ([3, 50, 700], 0.0),
        ([20] * 30, 1e-9),
    ],
)
def test_it_is_the_same_as_one_group_at_a_time(sizes, scale):
    log_odds, happened, number = problem(sizes, 0, scale=scale)
    predictions = Predictions(np.stack([0 * log_odds, log_odds], axis=1), happened)
    table = group_measures(predictions, number)
    data = positive_class(predictions, None)
    assert len(table) == len(sizes)
    for name, together in table.items():
        alone = _measured(data.rows(np.flatnonzero(number == name)), 0.95)
        for field, value in vars(alone).items():
            other = getattr(together, field)
            assert (value is None) == (other is None), field
            if value is not None and field in ("ratio", "slope", "shift"):
                value, other = (plain(astuple(each)) for each in (value, other))
            if value is not None:
                assert other == pytest.approx(value, rel=1e-8, abs=1e-10, nan_ok=True), field


def test_exact_intervals_and_tests_are_those_of_one_share():
    log_odds, happened, number = problem([1, 7, 7, 300, 600, 3000], 3)
    order = np.argsort(number, kind="stable")
    probs = 1 / (1 + np.exp(-log_odds[order]))
    sizes = np.bincount(number)
    events = np.bincount(number, happened).astype(int)
    alone = [
        poisson_binomial_p(probs[number[order] == place], int(events[place]))
        for place in range(len(sizes))
    ]
    assert poisson_binomial_ps(probs, sizes, events) == pytest.approx(alone, rel=1e-9)
    assert clopper_pearson(3, 10) == pytest.approx((0.06673951117773447, 0.6524528500599973))
    assert clopper_pearson(0, 1) == pytest.approx((0.0, 0.975))
    assert clopper_pearson(1_000_000, 2_000_000)[0] == pytest.approx(0.4993068, abs=1e-6)


def test_a_group_costs_no_pass_over_all_samples(monkeypatch):
    """With 20,000 groups the samples of a group are not searched for among all."""
    calls = []
    monkeypatch.setattr(np, "flatnonzero", lambda *a, f=np.flatnonzero: calls.append(0) or f(*a))
    log_odds, happened, number = problem([3] * 20_000, 1)
    predictions = Predictions(np.stack([0 * log_odds, log_odds], axis=1), torch.tensor(happened))
    table = group_measures(predictions, number)
    assert len(table) == 20_000
    assert len(calls) < 10
    assert sum(each.num_samples for each in table.values()) == 60_000
    assert any(each.pooled_slope is not None for each in table.values())
