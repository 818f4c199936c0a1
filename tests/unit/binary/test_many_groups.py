"""Groups are measured in passes over all samples, with the numbers of one group at a time."""

from dataclasses import astuple

import numpy as np
import pytest
import torch

from fedlas import Predictions
from fedlas.binary import group_measures, logistic_recalibration
from fedlas.binary.grouped_samples import GroupedSamples
from fedlas.binary.positive import positive_class
from fedlas.binary.recalibration import event_count_test, wald_estimate
from fedlas.errors import InputError
from fedlas.stats import effective_sample_size
from fedlas.stats.degrees import critical_t
from fedlas.stats.proportion import (
    clopper_pearson,
    poisson_binomial_p_value,
    poisson_binomial_p_values,
)


def problem(sizes, seed, *, scale=1.5):
    draw = np.random.default_rng(seed)
    number = np.repeat(np.arange(len(sizes)), sizes)
    log_odds = scale * draw.normal(size=len(number)) - 0.5
    happened = draw.random(len(number)) < 1 / (1 + np.exp(-0.8 * log_odds))
    shuffle = draw.permutation(len(number))
    return log_odds[shuffle], happened[shuffle].astype(int), number[shuffle]


def plain(value):
    return [np.nan if each is None else each for each in value if not isinstance(each, str)]


def alone(predictions):
    """Return the measures of the samples of one group."""
    data = positive_class(predictions, None)
    expected, observed = data.mean(data.probability), data.mean(data.outcome)
    mean = max(expected, 1e-300)
    ratio = observed / mean
    if data.is_iid:
        low, high = (
            end / mean for end in clopper_pearson(int(data.outcome.sum()), len(data.outcome))
        )
    else:
        gaps = data.outcome - ratio * data.probability
        error, degrees = (
            float(each[0]) for each in GroupedSamples.from_positive(data).event_sum_error(gaps)
        )
        error = error / len(gaps)
        with np.errstate(over="ignore"):
            reach = float(np.exp(critical_t(0.95, degrees) * error / (observed or 1.0)))
        low, high = ratio / reach, ratio * reach
        if observed == 0:
            worth = (
                data.counts if data.clusters is None else np.bincount(data.clusters, data.counts)
            )
            high = (1 - 0.025 ** (1 / effective_sample_size(worth))) / mean
            low, high = (0.0, high) if degrees > 0 else (np.nan, np.nan)
    lines = [None, None]
    try:
        line = logistic_recalibration(predictions)
        lines = [wald_estimate(line.slope, 1.0), wald_estimate(line.in_the_large, 0.0)]
        lines = [None if each.p is None else plain(astuple(each)) for each in lines]
    except InputError:
        pass
    p, _ = event_count_test(data)
    return [len(data.outcome), data.outcome.sum(), expected, observed, ratio, low, high, p, *lines]


@pytest.mark.parametrize("roles", ["", "weights", "clusters", "weights, clusters"])
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
def test_vectorized_groups_equal_single_groups(sizes, scale, roles):
    log_odds, happened, number = problem(sizes, 0, scale=scale)
    draw = np.random.default_rng(1)
    values = {
        "weights": draw.exponential(size=len(number)) * (draw.random(len(number)) < 0.9) + 0.001,
        "clusters": number // 2 * 10 + draw.integers(0, 7, len(number)),  # of two groups each
    }
    options = {name: each for name, each in values.items() if name in roles}
    predictions = Predictions(np.stack([0 * log_odds, log_odds], axis=1), happened, **options)
    table = group_measures(predictions, number)
    assert len(table) == len(sizes)
    for name, each in table.items():
        *expected, slope, shift = alone(predictions.rows(torch.from_numpy(number == name)))
        ratio = each.ratio
        values = [each.num_samples, each.events, each.expected, each.observed]
        values += [ratio.value, ratio.low, ratio.high, ratio.p]
        pairs = [(expected, values), (slope, each.slope), (shift, each.shift)]
        for alone_, together in pairs:
            assert (alone_ is None) == (together is None)
            if alone_ is not None:
                together = together if isinstance(together, list) else astuple(together)
                one, other = (np.array(plain(side), dtype=float) for side in (alone_, together))
                assert other == pytest.approx(one, rel=1e-8, abs=1e-10, nan_ok=True)


def test_exact_intervals_and_tests_equal_single_proportion():
    log_odds, happened, number = problem([1, 7, 7, 300, 600, 3000], 3)
    order = np.argsort(number, kind="stable")
    probs = 1 / (1 + np.exp(-log_odds[order]))
    sizes = np.bincount(number)
    events = np.bincount(number, happened).astype(int)
    alone = [
        poisson_binomial_p_value(probs[number[order] == place], int(events[place]))
        for place in range(len(sizes))
    ]
    assert poisson_binomial_p_values(probs, sizes, events) == pytest.approx(alone, rel=1e-9)
    assert clopper_pearson(3, 10) == pytest.approx((0.06673951117773447, 0.6524528500599973))
    assert clopper_pearson(0, 1) == pytest.approx((0.0, 0.975))
    assert clopper_pearson(1_000_000, 2_000_000)[0] == pytest.approx(0.4993068, abs=1e-6)


@pytest.mark.parametrize("roles", [(), ("weights", "clusters")])
def test_a_group_costs_no_pass_over_all_samples(monkeypatch, roles):
    """With 20,000 groups the samples of a group are not searched for among all, nor is one measured alone."""
    calls = []
    monkeypatch.setattr(np, "flatnonzero", lambda *a, f=np.flatnonzero: calls.append(0) or f(*a))
    log_odds, happened, number = problem([3] * 20_000, 1)
    values = {"weights": 1.0 + number % 3, "clusters": np.arange(60_000) // 2}
    options = {name: values[name] for name in roles}
    scores = np.stack([0 * log_odds, log_odds], axis=1)
    predictions = Predictions(scores, torch.tensor(happened), **options)
    table = group_measures(predictions, number)
    assert len(table) == 20_000
    assert len(calls) < 20
    assert sum(each.num_samples for each in table.values()) == 60_000
    assert any(each.pooled_slope is not None for each in table.values())


RARE = 400 * 20  # samples of 400 groups, of which most have no event


@pytest.mark.parametrize(
    "options",
    [{"weights": np.ones(RARE)}, {"clusters": np.arange(RARE) // 2}],
    ids=["weights", "clusters"],
)
@pytest.mark.parametrize("spread", [0.3, 0.0])
def test_rare_events_keep_certainty_with_weights_or_clusters(spread, options):
    """Of 400 calibrated groups 322 were rejected: outcomes vary little where no event occurred."""
    draw = np.random.default_rng(0)
    chance = 0.01 * np.exp(spread * draw.normal(size=RARE))
    happened = (draw.random(RARE) < chance).astype(int)
    log_odds = np.log(chance / (1 - chance))
    scores = np.stack([0 * log_odds, log_odds], axis=1)
    groups = np.arange(RARE) // 20
    table = group_measures(Predictions(scores, happened, **options), groups)
    assert np.mean([each.ratio.p <= 0.05 for each in table.values()]) <= 0.05
    assert not any(each.p <= 0.05 for each in table.values())


@pytest.mark.parametrize("mean", [-5.0, -4.3, -3.0])
def test_weighted_slopes_of_few_events_hold_the_truth(mean):
    """Of calibrated groups with 4, 8 and 28 events 0.74, 0.83 and 0.91 held it, and 0.07 failed `slope>=0.8`."""
    draw = np.random.default_rng(0)
    groups = np.arange(250).repeat(400)
    log_odds = mean + draw.normal(size=len(groups))
    happened = (draw.random(len(groups)) < 1 / (1 + np.exp(-log_odds))).astype(int)
    scores = np.stack([0 * log_odds, log_odds], axis=1)
    weights = np.exp(draw.normal(size=len(groups)))
    table = group_measures(Predictions(scores, happened, weights=weights), groups)
    slopes = [each.slope for each in table.values() if each.slope is not None]
    shifts = [each.shift for each in table.values() if each.shift is not None]
    assert len(slopes) > 220
    assert np.mean([each.low <= 1 <= each.high for each in slopes]) > 0.94
    assert np.mean([each.high < 0.8 for each in slopes]) < 0.03
    assert np.mean([each.low <= 0 <= each.high for each in shifts]) > 0.94


def test_event_of_negligible_weight_has_unbounded_interval():
    scores = [[0.0, 0.3], [0.0, -0.2], [0.0, 0.1], [0.0, -0.4]]
    predictions = Predictions(scores, [0, 1, 0, 0], weights=[1.0, 1e-4, 2.0, 1e-3])
    ratio = logistic_recalibration(predictions).observed_to_expected
    assert (ratio.low, ratio.high) == (0.0, np.inf)


@pytest.mark.parametrize("role", ["weights", "clusters"])
def test_a_group_of_events_alone_has_an_interval(role):
    log_odds = np.full(60, -1.0)
    happened = np.arange(60) < 40
    values = {"weights": np.linspace(0.5, 1.5, 60), "clusters": np.arange(60) // 2}
    scores = np.stack([0 * log_odds, log_odds], axis=1)
    predictions = Predictions(scores, happened.astype(int), **{role: values[role]})
    ratio = group_measures(predictions, np.arange(60) // 30)[0].ratio
    assert ratio.low < 0.95 * ratio.value < 1.05 * ratio.value < ratio.high
    assert 1e-30 < ratio.p < 1e-3


@pytest.mark.parametrize("role", ["", "weights", "copies", "clusters"])
def test_a_group_without_events_has_an_upper_end(role):
    """It is the exact one of independent samples, and as many as weights or clusters are worth."""
    log_odds = np.full(90, -2.0)
    happened = (np.arange(90) >= 60) & (np.arange(90) % 3 == 0)
    # Copies in clusters of two say as much as half as many samples.
    values = {"weights": np.ones(90), "copies": np.arange(90) % 2.0, "clusters": np.arange(90) // 2}
    options = {"weights" if role == "copies" else role: values[role]} if role else {}
    scores = np.stack([0 * log_odds, log_odds], axis=1)
    groups = np.arange(90) // 60
    ratio = group_measures(Predictions(scores, happened.astype(int), **options), groups)[0].ratio
    samples = 30 if role in ("copies", "clusters") else 60
    assert (ratio.value, ratio.low) == (0.0, 0.0)
    assert ratio.high == pytest.approx((1 - 0.025 ** (1 / samples)) * (1 + np.exp(2.0)))


def test_one_cluster_without_events_has_no_interval():
    log_odds = np.full(60, -2.0)
    happened = (np.arange(60) % 3 == 0) & (np.arange(60) > 9)
    scores = np.stack([0 * log_odds, log_odds], axis=1)
    predictions = Predictions(scores, happened.astype(int), clusters=np.arange(60) // 10)
    ratio = group_measures(predictions, np.arange(60) > 9)[False].ratio
    assert np.isnan([ratio.low, ratio.high]).all()


@pytest.mark.parametrize("share", [0.5, 0.9])
def test_slope_is_same_at_any_ratio_of_weights(share):
    """With 1e-16 one twin ended in `LinAlgError` and the other had none; with 1e-14 their intervals differed."""
    log_odds = torch.arange(2.0).repeat_interleave(2000) + 3
    target = torch.where(log_odds > 3, torch.arange(4000) % 10 < 10 * share, torch.arange(4000) % 2)
    logits = torch.stack([torch.zeros(4000), log_odds], dim=1)
    found = []
    for weight in (1e-2, 1e-14, 1e-16, 1e-18):
        weights = torch.where(log_odds > 3, weight, 1.0).double()
        predictions = Predictions(logits, target.long(), weights=weights)
        line = logistic_recalibration(predictions).slope
        group = group_measures(predictions, [0] * 4000)[0].slope
        assert [group.value, group.low, group.high] == pytest.approx(
            [line.value, line.low, line.high], rel=1e-12
        )
        found.append([line.value, line.low, line.high])
    reach = 1.959964 * np.sqrt((4 + 1 / share / (1 - share)) / 2000)
    slope = np.log(share / (1 - share))
    assert found[0] == pytest.approx([slope, slope - reach, slope + reach], abs=1e-5)
    np.testing.assert_allclose(found, [found[0]] * 4, rtol=1e-5, atol=1e-9)


def test_samples_without_a_slope_have_none_in_both():
    """Both outcomes overlap in two scores that differ by a rounding, beside others that are certain."""
    log_odds = np.r_[-4e7, 1.0, np.nextafter(1.0, 2.0), 4e7]
    scores = np.stack([0 * log_odds, log_odds], axis=1)
    predictions = Predictions(scores, [0, 1, 0, 1])
    with pytest.raises(InputError, match="differ beyond rounding"):
        logistic_recalibration(predictions)
    group = group_measures(predictions, [0] * 4)[0]
    assert group.slope is None
