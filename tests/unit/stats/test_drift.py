import itertools
import json
import math

import numpy as np
import pytest
from scipy.stats import ks_2samp

from fedlas._core.check import InputError
from fedlas.stats.drift import GapDrift, confidence_drift, spent
from fedlas.stats.gap_sums import GapSums

EDGES = np.array([0.0, 0.7, 0.9, 1.0])


def stream(seed, size, gap=0.0):
    """Confidences, and predictions that are right with probability ``confidence + gap``."""
    rng = np.random.default_rng(seed)
    confidence = rng.beta(4, 1, size)
    return confidence, rng.random(size) < np.clip(confidence + gap, 0, 1)


def certain(gap=0.0, size=10**9):
    """Sums of a card that knows the gap in every cell, from a very large number of samples."""
    confidence = np.array([0.5, 0.8, 0.95])
    share = GapSums.of(EDGES, confidence, np.zeros(3, dtype=bool))
    scale = size / 3
    right = share.confidence + gap * share.count
    return GapSums(EDGES, share.count * scale, right * scale, share.confidence * scale, share.squares * scale,
                   (share.squares + gap * share.confidence) * scale)  # fmt: skip


def test_sums_add_up_and_come_back():
    confidence, correct = stream(0, 500)
    whole = GapSums.of(EDGES, confidence, correct)
    parts = GapSums.of(EDGES, confidence[:100], correct[:100]) + GapSums.of(EDGES, confidence[100:], correct[100:])
    np.testing.assert_allclose(parts.products, whole.products)
    assert whole.count.tolist() == [500, *np.histogram(confidence, EDGES)[0]]
    assert whole.gap[0] == pytest.approx(correct.mean() - confidence.mean())
    again = GapSums.read(json.loads(json.dumps(whole.plain())))
    np.testing.assert_array_equal(again.squares, whole.squares)
    for seed in range(20):  # rounding is no damage
        GapSums.read(json.loads(json.dumps(GapSums.of(EDGES, *stream(seed, 10 * seed)).plain())))


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        ("right", lambda _: [1.0]),
        ("right", lambda _: None),
        ("count", lambda v: ["many"] * len(v)),
        ("count", lambda v: [[n] for n in v]),
        ("count", lambda v: [10**400, *v[1:]]),
        ("squares", lambda v: [math.nan, *v[1:]]),
        ("edges", lambda v: [*v[:-1], math.inf]),
        ("edges", lambda v: [v[0], v[2], v[1], v[3]]),
        ("edges", lambda v: [0.0, 0.7, 0.7, 1.0]),
        ("edges", lambda v: [*v[:-1], 2.0]),
        ("edges", lambda v: [0.1, *v[1:]]),
        ("count", lambda v: [v[0] + 1, *v[1:]]),
        ("count", lambda v: [v[0], v[1] + 1.5, v[2] - 1.5, v[3]]),
        ("count", lambda v: [-n for n in v]),
        ("right", lambda v: [n + 500 for n in v]),
        ("confidence", lambda v: [v[0], v[1] - 9, v[2] + 9, v[3]]),
        ("confidence", lambda v: [3 * n for n in v]),
        ("squares", lambda v: [0.5 * n for n in v]),
        ("squares", lambda v: [2 * n for n in v]),
        ("products", lambda v: [2 * n for n in v]),
        ("products", lambda v: [-n for n in v]),
    ],
)
def test_sums_that_no_samples_have_are_refused(name, damage):
    plain = GapSums.of(EDGES, *stream(0, 500)).plain()
    for broken in ({**plain, name: damage(plain[name])}, {n: v for n, v in plain.items() if n != name}):
        with pytest.raises(InputError, match="sums of confidences"):
            GapSums.read(broken)


def test_bounds_hold_and_narrow():
    inside = 0
    for seed in range(60):
        low, high = GapSums.of(EDGES, *stream(seed, 400, gap=-0.05)).bounds(level=0.9)
        inside += bool((low <= -0.05).all() and (high >= -0.05).all())
    assert inside >= 54
    widths = [np.subtract(*GapSums.of(EDGES, *stream(0, size)).bounds(level=0.9)[::-1])[0] for size in (100, 10**4)]
    assert widths[1] < widths[0] / 4
    empty = GapSums.of(EDGES, np.zeros(0), np.zeros(0, dtype=bool)).bounds(level=0.9)
    np.testing.assert_allclose(empty[0], [-1, -0.7, -0.9, -1.0])
    np.testing.assert_allclose(empty[1], [1, 1, 0.3, 0.1])


def test_no_gambler_gains_by_one_bet_on_average():
    """Under the null hypothesis the expected factor of every bet is at most 1, whatever the confidence."""
    reference = GapSums.of(EDGES, *stream(3, 300))
    test = GapDrift(reference, false_alarm=0.1)
    for confidence, k in ((0.5, 1), (0.8, 2), (0.95, 3)):
        for gap in (test.low[k], test.high[k], (test.low[k] + test.high[k]) / 2):
            right = confidence + gap
            if not 0 <= right <= 1:
                continue
            factors = []
            for correct in (True, False):
                gambler = GapDrift(reference, false_alarm=0.1)
                gambler.observe(np.array([confidence]), np.array([correct]))
                factors.append(np.exp(gambler.log_wealth[k]))
            assert (right * factors[0] + (1 - right) * factors[1] <= 1 + 1e-12).all()


@pytest.mark.parametrize("reference", ["certain", "drawn"])
def test_false_alarms_are_as_rare_as_asked(reference):
    """Streams without drift, looked at after every sample."""
    rate, streams = 0.3, 120
    alarms = 0
    for seed in range(streams):
        card = certain() if reference == "certain" else GapSums.of(EDGES, *stream(10**6 + seed, 300))
        alarms += GapDrift(card, false_alarm=rate).observe(*stream(seed, 1500)) is not None
    assert alarms <= streams * rate + 3 * math.sqrt(streams * rate * (1 - rate))
    if reference == "certain":  # half the rate is for the card's own uncertainty, of which there is none
        assert alarms <= streams * rate / 2 + 3 * math.sqrt(streams * rate / 2)


def test_drift_is_found_soon_after_it_begins():
    before, after = stream(0, 1000), stream(1, 2000, gap=-0.15)
    joined = tuple(np.concatenate(pair) for pair in zip(before, after, strict=True))
    for card in (certain(), GapSums.of(EDGES, *stream(9, 5000))):
        found = GapDrift(card, false_alarm=0.01).observe(*joined)
        assert found is not None
        assert 1000 < found < 2500
    assert (
        GapDrift(certain(gap=-0.15), false_alarm=0.01).observe(*before) is not None
    )  # it got better: that is drift too


def test_gaps_that_cancel_are_found_in_the_cells():
    rng = np.random.default_rng(0)
    confidence = np.repeat([0.5, 0.95], 1500)[rng.permutation(3000)]
    correct = rng.random(3000) < np.where(confidence == 0.5, 0.65, 0.80)  # on average as confident as right
    test = GapDrift(certain(), false_alarm=0.01)
    assert test.observe(confidence, correct) is not None
    evidence = test.log_evidence_by_cell()
    assert evidence[0] < 1 < min(evidence[1], evidence[3])


def test_blocks_do_not_matter():
    confidence, correct = stream(4, 900, gap=-0.2)
    whole, parts = (GapDrift(certain(), false_alarm=0.01) for _ in range(2))
    found, at = whole.observe(confidence, correct), None
    for start in range(0, 900, 7):
        place = parts.observe(confidence[start : start + 7], correct[start : start + 7])
        at = start + place if at is None and place is not None else at
    assert at == found
    np.testing.assert_allclose(parts.log_wealth, whole.log_wealth)
    resumed = GapDrift(certain(), false_alarm=0.01, log_wealth=whole.log_wealth)
    assert resumed.log_evidence == pytest.approx(whole.log_evidence)
    assert parts.observe(np.zeros(0), np.zeros(0, dtype=bool)) is None


def test_confidence_drift_is_the_kolmogorov_smirnov_test():
    rng = np.random.default_rng(0)
    first, second = rng.integers(0, 20, 500), rng.integers(0, 20, 700) * (rng.random(700) < 0.9)
    found = confidence_drift(*(np.bincount(values, minlength=20) for values in (first, second)))
    expected = ks_2samp(first, second, method="asymp")
    assert found.distance == pytest.approx(expected.statistic)
    assert found.p_value == pytest.approx(expected.pvalue, rel=0.2)
    drawn = (np.bincount(rng.integers(0, 25, 300), minlength=25) for _ in range(800))
    alarms = sum(confidence_drift(a, b).p_value <= 0.05 for a, b in zip(drawn, drawn, strict=True))
    assert alarms <= 400 * 0.05 + 3 * math.sqrt(400 * 0.05)


def test_looks_spend_no_more_than_there_is():
    total = sum(spent(0.05, look) for look in range(1, 10**4))
    assert 0.0499 < total < 0.05
    assert all(a > b for a, b in itertools.pairwise(spent(0.05, look) for look in range(1, 9)))


def test_nonsense():
    for rate in (0.0, 1.0, -1.0):
        with pytest.raises(InputError, match="false_alarm"):
            GapDrift(certain(), false_alarm=rate)
    for counts in (
        ([0, 0], [1, 1]), ([1, 1], [1, 1, 1]), ([math.nan, 1], [1, 1]), ([1, math.inf], [1, 1]), ([1, 1], [3, -1])
    ):  # fmt: skip
        with pytest.raises(InputError, match="same bins"):
            confidence_drift(*counts)
    test = GapDrift(certain(), false_alarm=0.01)
    for confidence in (math.nan, -0.1, 1.1, math.inf):
        with pytest.raises(InputError, match=r"confidence must be in \[0, 1\]"):
            test.observe(np.array([0.5, confidence]), np.array([True, False]))
    with pytest.raises(InputError, match="one for each"):
        test.observe(np.array([0.5, 0.6]), np.array([True]))
    assert test.log_evidence == 0
