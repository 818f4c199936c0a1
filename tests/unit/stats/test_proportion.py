"""Intervals of shares of samples: exact, also where all or none of the samples are right."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import beta, binom, binomtest, poisson_binom

from fedlas import Predictions
from fedlas.errors import InputError
from fedlas.stats import bootstrap_interval, estimates, paired_bootstrap
from fedlas.stats.proportion import (
    clopper_pearson,
    paired_share_interval,
    poisson_binomial_p_value,
    poisson_binomial_p_values,
    weighted_share_interval,
    wilson_interval,
)


def predictions(correct):
    """Two classes, of which the first is predicted with one confidence after another."""
    logits = torch.stack([torch.linspace(0.1, 2.0, len(correct)), torch.zeros(len(correct))], 1)
    return Predictions(logits, [0 if right else 1 for right in correct])


@pytest.mark.parametrize("sides", [1, 2])
@given(
    samples=st.integers(1, 300),
    share=st.floats(0, 1),
    confidence_level=st.sampled_from([0.8, 0.95, 0.999]),
)
def test_clopper_pearson_is_that_of_scipy(sides, samples, share, confidence_level):
    successes = round(share * samples)
    found = clopper_pearson(successes, samples, confidence_level=confidence_level, sides=sides)
    ends = [
        binomtest(successes, samples, alternative=a).proportion_ci(confidence_level, "exact")
        for a in ("less", "greater")
    ]
    expected = (ends[1].low, ends[0].high)
    if sides == 2:
        interval = binomtest(successes, samples).proportion_ci(confidence_level, "exact")
        expected = (interval.low, interval.high)
    assert found == pytest.approx(expected, abs=1e-12)
    assert clopper_pearson(0, 0) == (0.0, 1.0)


@pytest.mark.parametrize("samples", [10**4, 10**6, 10**9])
@pytest.mark.parametrize("share", [0.0, 1e-5, 0.03, 0.5, 0.97, 1.0])
@pytest.mark.parametrize("confidence_level", [1e-3, 0.95, 1 - 1e-9])
def test_clopper_pearson_of_many_samples(samples, share, confidence_level):
    successes, alpha = round(share * samples), (1 - confidence_level) / 2
    low = beta.ppf(alpha, successes, samples - successes + 1) if successes else 0.0
    high = beta.ppf(1 - alpha, successes + 1, samples - successes) if successes < samples else 1.0
    found = clopper_pearson(successes, samples, confidence_level=confidence_level)
    assert found == pytest.approx((low, high), rel=1e-7)


def test_clopper_pearson_refuses_more_successes_than_samples():
    with pytest.raises(InputError, match="successes"):
        clopper_pearson(3, 2)


@pytest.mark.parametrize("method", ["auto", "percentile", "basic", "centered"])
def test_twenty_of_twenty_leave_room_for_mistakes(method):
    p = predictions([True] * 20)
    interval = bootstrap_interval(p, metric="accuracy", replicates=99, method=method)
    assert interval.low == pytest.approx(0.025 ** (1 / 20))
    assert (interval.value, interval.high, interval.method) == (1.0, 1.0, "exact")
    none = bootstrap_interval(
        predictions([False] * 20), metric="accuracy", replicates=99, method=method
    )
    assert (none.low, none.high) == (0.0, pytest.approx(1 - 0.025 ** (1 / 20)))
    found = estimates(p, ["accuracy"], replicates=99)["accuracy"]
    assert (found.low, found.high) == (interval.low, interval.high)


@pytest.mark.system
@pytest.mark.parametrize("truth", [0.5, 0.9, 0.95, 0.99, 0.999])
@pytest.mark.parametrize("samples", [20, 100])
def test_intervals_of_accuracy_hold_any_truth(truth, samples):
    """Summed over all numbers of right answers there can be, not simulated."""
    ends = [
        bootstrap_interval(
            predictions([i < right for i in range(samples)]), metric="accuracy", replicates=39
        )
        for right in range(samples + 1)
    ]
    held = sum(
        binom.pmf(k, samples, truth)
        for k, each in enumerate(ends)
        if each.low <= truth <= each.high
    )
    assert 0.95 <= held <= 1.0


def test_wilson_is_that_of_scipy():
    for right in (0, 7, 20):
        expected = binomtest(right, 20).proportion_ci(0.9, "wilson")
        assert wilson_interval(right / 20, 20, confidence_level=0.9) == pytest.approx(
            (expected.low, expected.high), abs=1e-12
        )


def test_paired_shares_against_the_published_example():
    """Newcombe 1998, table II, example (a): 36, 12, 2, 0 pairs; method 10 gives 0.0569 to 0.3404."""
    a = np.repeat([True, True, False, False], [36, 12, 2, 0])
    b = np.repeat([True, False, True, False], [36, 12, 2, 0])
    assert paired_share_interval(a, b, confidence_level=0.95) == pytest.approx(
        (0.0569, 0.3404), abs=5e-5
    )


def test_perfect_models_have_nonzero_width():
    p = predictions([True] * 20)
    same = paired_bootstrap(p, p, metric="accuracy", replicates=99)
    assert (same.low, same.high) == (0.0, 0.0)
    sharper = Predictions(2 * p.tensors().logits, p.tensors().target)
    found = paired_bootstrap(p, sharper, metric="accuracy", replicates=99)
    width = 1 - wilson_interval(1.0, 20, confidence_level=0.95)[0]
    assert found.interval == pytest.approx((-width, width))
    assert math.isclose(found.difference, 0.0)


def test_weighted_models_have_the_interval_of_paired_shares():
    random = np.random.default_rng(0)
    weights = random.uniform(0.1, 2.0, 300)
    right = random.random((2, 300)) < 0.8
    p = predictions(right[0])
    turned = torch.where(torch.tensor(right[0] == right[1])[:, None], 1, -1) * p.tensors().logits
    a, b = (
        Predictions(each, p.tensors().target, weights=weights)
        for each in (p.tensors().logits, turned)
    )
    found = paired_bootstrap(a, b, metric="accuracy", replicates=199)
    assert found.interval == pytest.approx(
        paired_share_interval(*right, weights, confidence_level=0.95)
    )


@pytest.mark.parametrize(("samples", "scale"), [(7, 0.5), (300, 0.01), (4000, 0.02), (6000, 0.4)])
def test_poisson_binomial_p_matches_scipy(samples, scale):
    probs = np.random.default_rng(0).beta(1, 1 / scale - 1, samples)
    exact = poisson_binom(probs)
    for events in {0, int(probs.sum()), int(1.2 * probs.sum()) + 1, samples // 2}:
        half = 0.5 * exact.pmf(events)
        expected = min(1.0, 2 * min(exact.cdf(events) - half, exact.sf(events) + half))
        assert poisson_binomial_p_value(probs, events) == pytest.approx(expected, abs=1e-4)


def test_grouped_poisson_binomial_matches_convolved_cells():
    random = np.random.default_rng(0)
    sizes = np.array([1, 3, 512, 513, 700, 700, 3000, 900])
    groups = [random.beta(0.3, 2.0, size) for size in sizes]
    groups[5][:400], groups[5][400:] = 1.0, random.random(300)
    events = np.array([round(1.1 * group.sum()) for group in groups])
    expected = []
    for probs, number in zip(groups, events, strict=True):
        pmf = np.ones(1)
        for cell in np.array_split(np.sort(probs), min(512, len(probs))):
            pmf = np.convolve(pmf, binom.pmf(np.arange(len(cell) + 1), len(cell), cell.mean()))
        below = pmf[:number].sum() + 0.5 * pmf[number]
        expected.append(min(1.0, 2 * min(below, 1 - below)))
    together = poisson_binomial_p_values(np.concatenate(groups), sizes, events)
    assert together == pytest.approx(expected, rel=1e-11)


def test_events_that_are_sure():
    assert poisson_binomial_p_value(np.array([0.0, 1.0]), 1) == 1
    assert poisson_binomial_p_value(np.array([0.0, 1.0]), 2) == 0


def test_share_interval_covers_with_ten_clusters():
    generator = np.random.default_rng(7)
    clusters = np.arange(10).repeat(20)
    covered = 0
    for _ in range(1000):
        rates = generator.beta(1.6, 6.4, 10)
        hits = generator.random(200) < rates[clusters]
        low, high = weighted_share_interval(hits, np.ones(200), clusters, confidence_level=0.95)
        covered += low <= 0.2 <= high
    assert covered >= 935  # 919 with a normal interval
    one = weighted_share_interval(hits, np.ones(200), np.zeros(200, int), confidence_level=0.95)
    assert one == pytest.approx(wilson_interval(hits.mean(), 1.0, confidence_level=0.95))


def test_the_interval_of_a_weighted_share():
    hits = np.array([True, True, True, False])
    assert weighted_share_interval(hits, np.ones(4), confidence_level=0.95) == pytest.approx(
        wilson_interval(0.75, 4, confidence_level=0.95)
    )
    # One heavy sample: share 0.1 / 0.4 = 1/4 of variance (0.3 * 1/4)^2 ... by hand
    weights = np.array([1.0, 1.0, 1.0, 3.0])
    variance = (3 * (1 / 6 * 0.5) ** 2) + (0.5 * 0.5) ** 2
    assert weighted_share_interval(hits, weights, confidence_level=0.95) == pytest.approx(
        wilson_interval(0.5, 0.25 / variance, confidence_level=0.95)
    )
    all_right = weighted_share_interval(np.ones(4, dtype=bool), weights, confidence_level=0.95)
    assert all_right == pytest.approx(wilson_interval(1.0, 3.0, confidence_level=0.95))
    assert all_right[0] < 0.5


@pytest.mark.parametrize("weighted", [False, True])
def test_clustered_rare_share_differences_are_covered(weighted):
    """The bootstrap held the true difference in 0.75 of such sets (weighted 0.64), and 0.19 were [0, 0]."""
    draw = np.random.default_rng(0)
    clusters = np.arange(10).repeat(20)
    covered = 0
    for _ in range(300):
        # Each of two models is right but of the rare rows that it alone misses, of few clusters.
        prone = draw.random(10)[clusters] < 0.2
        missed = [draw.random(200) < np.where(prone, share, 0.002) for share in (0.06, 0.1)]
        weights = np.exp(0.8 * draw.normal(size=200)) if weighted else None
        low, high = paired_share_interval(
            ~missed[0], ~missed[1], weights, clusters, confidence_level=0.95
        )
        assert low < high
        covered += low <= 0.2 * 0.04 <= high
    assert covered / 300 > 0.95


def test_singleton_clusters_equal_independent_rows():
    draw = np.random.default_rng(0)
    a, b = draw.random(4000) < 0.8, draw.random(4000) < 0.7
    rows = paired_share_interval(a, b, confidence_level=0.95)
    clusters = paired_share_interval(a, b, None, np.arange(4000), confidence_level=0.95)
    assert clusters == pytest.approx(rows, abs=2e-4)
