import json
import math

import numpy as np
import pytest

from fedlas.errors import InputError
from fedlas.stats.drift import MeanDrift
from fedlas.stats.gap_sums import GapSums

EDGES = np.array([0.0, 0.7, 0.9, 1.0])


def stream(seed, size, gap=0.0):
    """Confidences, and predictions that are right with probability ``confidence + gap``."""
    rng = np.random.default_rng(seed)
    confidence = rng.beta(4, 1, size)
    return confidence, rng.random(size) < np.clip(confidence + gap, 0, 1)


def test_sums_add_up_and_come_back():
    confidence, correct = stream(0, 500)
    whole = GapSums.from_samples(EDGES, confidence, correct)
    parts = GapSums.from_samples(EDGES, confidence[:100], correct[:100]) + GapSums.from_samples(
        EDGES, confidence[100:], correct[100:]
    )
    np.testing.assert_allclose(parts.products, whole.products)
    assert whole.count.tolist() == [500, *np.histogram(confidence, EDGES)[0]]
    assert whole.gap[0] == pytest.approx(correct.mean() - confidence.mean())
    again = GapSums.from_dict(json.loads(json.dumps(whole.to_dict())))
    np.testing.assert_array_equal(again.squares, whole.squares)
    for seed in range(20):  # rounding is no damage
        GapSums.from_dict(
            json.loads(json.dumps(GapSums.from_samples(EDGES, *stream(seed, 10 * seed)).to_dict()))
        )


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
    plain = GapSums.from_samples(EDGES, *stream(0, 500)).to_dict()
    for broken in (
        {**plain, name: damage(plain[name])},
        {n: v for n, v in plain.items() if n != name},
    ):
        with pytest.raises(InputError, match="sums of confidences"):
            GapSums.from_dict(broken)


def test_bounds_hold_and_narrow():
    inside = 0
    for seed in range(60):
        low, high = GapSums.from_samples(EDGES, *stream(seed, 400, gap=-0.05)).bounds(
            confidence_level=0.9
        )
        inside += bool((low <= -0.05).all() and (high >= -0.05).all())
    assert inside >= 54
    widths = [
        np.subtract(
            *GapSums.from_samples(EDGES, *stream(0, size)).bounds(confidence_level=0.9)[::-1]
        )[0]
        for size in (100, 10**4)
    ]
    assert widths[1] < widths[0] / 4
    empty = GapSums.from_samples(EDGES, np.zeros(0), np.zeros(0, dtype=bool)).bounds(
        confidence_level=0.9
    )
    np.testing.assert_allclose(empty[0], [-1, -0.7, -0.9, -1.0])
    np.testing.assert_allclose(empty[1], [1, 1, 0.3, 0.1])


@pytest.mark.parametrize(("shape", "size"), [((30, 1), 200), ((30, 1), 5000), ((1, 1), 40)])
def test_confidence_bounds_cover_and_are_tightest(shape, size):
    """Confidences near 1 as of a good model, and even ones."""
    inside, mean = 0, shape[0] / sum(shape)
    for seed in range(80):
        confidence = np.random.default_rng(seed).beta(*shape, size)
        sums = GapSums.from_samples(np.array([0.0, 1.0]), confidence, np.ones(size, dtype=bool))
        low, high = sums.confidence_bounds(confidence_level=0.8)
        inside += low <= mean <= high
        assert 0 <= low < confidence.mean() < high <= 1
    assert inside >= 64
    if size == 200:  # the variance alone says far less with so few
        logarithm = math.log(2 / 0.05)
        assert high - low < 2 * 7 * logarithm / (3 * (size - 1))


def test_bounds_of_confidences_that_are_all_the_same():
    for value in (0.0, 1.0):
        sums = GapSums.from_samples(
            np.array([0.0, 1.0]), np.full(100, value), np.ones(100, dtype=bool)
        )
        low, high = sums.confidence_bounds(confidence_level=0.9)
        assert low <= value <= high
        # -log(1 - width) = log(4 / 0.1) / n
        assert high - low == pytest.approx(math.log(4 / 0.1) / 100, rel=0.02)


def shares(low, high, **kwargs):
    """A test of the share of ones."""
    ends = [np.atleast_1d(np.asarray(end, dtype=float)) for end in (low, high)]
    return MeanDrift(
        *ends, np.zeros_like(ends[0]), np.ones_like(ends[0]), **{"false_alarm": 0.01, **kwargs}
    )


def ones(seed, size, share):
    """Draws of zeros and ones, and that all have them."""
    values = (np.random.default_rng(seed).random((size, 1)) < share).astype(float)
    return values, np.ones_like(values, dtype=bool)


def test_no_gambler_gains_by_one_bet_on_average():
    """Under the null hypothesis the expected factor of every bet is at most 1, whatever the mean in the interval."""
    low, high = np.array([0.1, 0.0, 0.96]), np.array([0.3, 0.02, 1.0])
    has = np.ones((1, 3), dtype=bool)
    for mean in (low, high, (low + high) / 2):
        factors = []
        for value in (0.0, 1.0):
            gamblers = shares(low, high)
            staked = gamblers.wealth + MONEY_AT_FIRST
            gamblers.observe(np.full((1, 3), value), has)
            factors.append(gamblers.wealth / staked)
        lost, won = factors
        share = mean[:, None, None]
        assert (share * won + (1 - share) * lost <= 1 + 1e-12).all()
        assert (np.minimum(won, lost) > 0).all()


MONEY_AT_FIRST = 0.5 - 0.5 / (1 + math.log1p(1 / 100))
"""What each gambler gets at the first sample."""


def test_money_is_neither_made_nor_lost_without_bets():
    """A statistic that no sample has leaves its gamblers what they were given: all money together stays 1."""
    test = shares(0.2, 0.3)
    for size in (1, 10, 1000, 10**5):
        test.observe(np.zeros((size, 1)), np.zeros((size, 1), dtype=bool))
        assert test.evidence == pytest.approx(1)


@pytest.mark.system
@pytest.mark.parametrize(("share", "rate"), [(0.5, 0.3), (0.97, 0.3)])
def test_false_alarms_are_as_rare_as_asked(share, rate):
    """Streams at the very end of the interval, looked at after every sample: the worst that is no change."""
    streams = 150
    alarms = sum(shares(share, share, false_alarm=rate).observe(*ones(seed, 1500, share)) is not None
                 for seed in range(streams))  # fmt: skip
    assert 0 < alarms <= streams * rate + 3 * math.sqrt(streams * rate * (1 - rate))


def test_late_change_is_detected_soon():
    """Bets that stand since the start have lost everything by then."""
    for good in (0, 1000, 50_000):
        test = shares(0.9, 0.95)
        assert test.observe(*ones(0, good, 0.93)) is None
        assert 20 < test.observe(*ones(1, 2000, 0.75)) < 250
        better = shares(0.9, 0.95)
        better.observe(*ones(0, good, 0.93))
        # a change for the better is one too
        assert better.observe(*ones(1, 2000, 0.999)) is not None


def test_change_of_one_statistic_is_detected_and_named():
    rng = np.random.default_rng(0)
    test = shares(np.full(10, 0.05), np.full(10, 0.15))
    hit = np.where(rng.random(2000) < 0.2, 7, rng.integers(0, 10, 2000))
    values = (hit[:, None] == np.arange(10)).astype(float)
    assert test.observe(values, np.ones_like(values, dtype=bool)) is not None
    assert test.evidence_by_statistic.argmax() == 7
    assert test.evidence == pytest.approx(
        test.evidence_by_statistic.mean() + 0.5 / (1 + math.log1p(20))
    )


def test_only_samples_that_have_a_statistic_count():
    values, has = ones(0, 500, 0.4)
    gaps = np.random.default_rng(1).random((500, 1)) < 0.5
    test, dense = shares(0.9, 0.95), shares(0.9, 0.95)
    test.observe(np.where(gaps, values, 0.9), gaps & has)
    dense.observe(values, has)
    assert 1 < test.evidence < dense.evidence
    nan = shares(0.9, 0.95)
    nan.observe(np.where(gaps, values, 5.0), gaps)  # outside its range where there is none
    assert nan.evidence == test.evidence


def test_blocks_do_not_matter():
    values, has = ones(4, 900, 0.8)
    whole, parts = shares(0.9, 0.95), shares(0.9, 0.95)
    found, at = whole.observe(values, has), None
    for start in range(0, 900, 7):
        place = parts.observe(values[start : start + 7], has[start : start + 7])
        at = start + place if at is None and place is not None else at
    assert at == found is not None
    np.testing.assert_allclose(parts.wealth, whole.wealth)
    before = parts.evidence
    assert parts.observe(np.zeros((0, 1)), np.zeros((0, 1), dtype=bool)) is None
    assert parts.evidence == before


def test_invalid_input_raises():
    for rate in (0.0, 1.0, -1.0):
        with pytest.raises(InputError, match="false_alarm"):
            shares(0.1, 0.2, false_alarm=rate)
    for low, high in ((0.3, 0.2), (-0.1, 0.2), (0.1, 1.1), (math.nan, 0.2)):
        with pytest.raises(InputError, match="range of its statistic"):
            shares(low, high)
    with pytest.raises(InputError, match=r"must have shape \(S,\)"):
        shares([0.1, 0.2], 0.3)
    test = shares(0.1, 0.2)
    for value in (math.nan, -0.1, 1.1, math.inf):
        with pytest.raises(InputError, match="must lie within the range"):
            test.observe(np.array([[0.5], [value]]), np.ones((2, 1), dtype=bool))
    with pytest.raises(InputError, match="one row per sample"):
        test.observe(np.array([0.5, 0.6]), np.array([True]))
    assert test.evidence == 1
    assert test.samples == 0


def test_single_part_can_raise_alarm():
    """Its money alone reaches the limit after that of all together, and its share of the evidence adds up."""
    one = np.ones(4)
    test = MeanDrift(
        0.4 * one, 0.6 * one, 0 * one, one, false_alarm=0.05, parts=np.array([0, 1, 1, 2])
    )
    values = np.random.default_rng(0).random((400, 4))
    values[:, 1] = 1.0
    alarm = test.observe(values, np.ones(values.shape, dtype=bool))
    assert [*test.first_alarm_by_part] == [1]
    assert alarm <= test.first_alarm_by_part[1] < 100
    assert test.evidence == pytest.approx(test.evidence_by_part.sum())
    whole = MeanDrift(0.4 * one, 0.6 * one, 0 * one, one, false_alarm=0.05)
    whole.observe(values, np.ones(values.shape, dtype=bool))
    np.testing.assert_array_equal(whole.wealth, test.wealth)
    assert (
        test.observe(values[:1] * 0 + 0.5, np.ones((1, 4), dtype=bool)) == 0
    )  # an alarm stays one
