"""Few clusters: intervals hold the truth as often as they say, and tests reject a calibrated model no more often."""

import math

import numpy as np
import pytest
import torch

from fedlas import Predictions, binary, compare, estimates, report
from fedlas.errors import InputError
from fedlas.stats import group_estimates, noise_floor, spiegelhalter_test
from fedlas.stats.degrees import critical_t, degrees_of_freedom, two_sided_p_value, wald_p_value
from fedlas.stats.intervals import interval_from_replicates, normal_interval

SETS = 250


def visits(seed, rows):
    """Calibrated log-odds ``1.6 x`` less noise that is shared in a cluster, so that labels there are alike."""
    random = np.random.default_rng(seed)
    number = np.repeat(np.arange(len(rows)), rows)
    log_odds = 1.6 * random.normal(0.0, 1.0, len(number))
    # A normal copula: each label's probability is right, whatever the others of its cluster are.
    shared = math.sqrt(0.4) * random.normal(0.0, 1.0, len(rows))[number]
    own = math.sqrt(0.6) * random.normal(0.0, 1.0, len(number))
    uniform = torch.special.ndtr(torch.from_numpy(shared + own))
    column = torch.from_numpy(log_odds)
    two = torch.stack([torch.zeros_like(column), column], dim=1)
    return Predictions(two, (uniform < column.sigmoid()).long(), clusters=torch.from_numpy(number))


@pytest.mark.parametrize(
    ("rows", "least"),
    [([20] * 8, 0.92), ([60, 60] + [10] * 8, 0.87)],  # 0.89 and 0.80 with normal intervals
    ids=["equal", "unequal"],
)
def test_recalibration_covers_and_keeps_level_with_few_clusters(rows, least):
    inside = {"slope": 0, "in_the_large": 0, "observed_to_expected": 0}
    rejected = 0
    for seed in range(SETS):
        line = binary.logistic_recalibration(visits(seed, rows))
        for name in inside:
            ends = getattr(line, name)
            inside[name] += ends.low <= (name != "in_the_large") <= ends.high
        rejected += line.p_value <= 0.05
    assert min(inside.values()) >= least * SETS, inside
    assert rejected <= 0.08 * SETS  # 0.15 and 0.27 with chi-squared


def test_bootstrap_intervals_of_a_mean_hold_the_truth():
    inside = 0
    said = torch.tensor([[1.0, 0.0]]).repeat(80, 1)
    number = np.arange(8).repeat(10)
    for seed in range(SETS):
        random = np.random.default_rng(seed)
        wrong = random.normal(size=8)[number] + random.normal(size=80) > 0
        p = Predictions(said, torch.from_numpy(wrong).long(), clusters=torch.from_numpy(number))
        found = estimates(p, ["nll"], replicates=99, seed=seed)["nll"]
        # Half of the labels are wrong on average, by a log-odds of 1.
        inside += found.low <= math.log(1.0 + math.e) - 0.5 <= found.high
    assert inside >= 0.92 * SETS


def test_degrees_are_effective_clusters_minus_one():
    assert degrees_of_freedom(np.ones(5)) == math.inf
    assert degrees_of_freedom(np.ones(12), np.arange(6).repeat(2)) == pytest.approx(5.0)
    unequal = np.repeat(np.arange(10), [60, 60] + [10] * 8)
    assert degrees_of_freedom(np.ones(200), unequal) == pytest.approx(200**2 / 8000 - 1)
    assert degrees_of_freedom(np.ones(4), np.zeros(4, dtype=np.int64)) == 0.0
    # Units of the terms do not matter, nor those of each column.
    terms = np.random.default_rng(0).normal(size=(200, 2))
    assert degrees_of_freedom(terms * [1.0, 100.0], unequal) == pytest.approx(
        degrees_of_freedom(terms, unequal)
    )


@pytest.mark.parametrize("degrees", [1.0, 1.5, 2.0, 4.0, 9.0, 29.0, 1e5])
def test_students_distribution_is_that_of_scipy(degrees):
    stats = pytest.importorskip("scipy.stats")
    for level in (0.5, 0.95, 0.99):
        assert critical_t(level, degrees) == pytest.approx(
            stats.t.isf((1.0 - level) / 2.0, degrees), rel=1e-6
        )
    for score in (0.0, 0.5, 2.0, 10.0, 1e4):
        assert two_sided_p_value(score, degrees) == pytest.approx(
            2.0 * stats.t.sf(score, degrees), abs=1e-6
        )


def test_hotellings_p_value_is_that_of_f():
    stats = pytest.importorskip("scipy.stats")
    assert wald_p_value(7.0, 9.0) == pytest.approx(stats.f.sf(7.0 * 8 / (2 * 9), 2, 8))
    assert wald_p_value(7.0) == pytest.approx(stats.chi2.sf(7.0, 2))
    assert wald_p_value(7.0, 1.0) == 1.0


def test_without_clusters_nothing_changes():
    values = np.random.default_rng(0).normal(size=199)
    options = {"confidence_level": 0.95, "method": "percentile"}
    plain = interval_from_replicates(0.0, values, **options)
    wide = interval_from_replicates(0.0, values, **options, degrees=4.0)
    assert (plain.low, plain.high) == (np.sort(values)[4], np.sort(values)[-5])
    middle = values.mean()
    # 2.776 / 1.960, and 5 / 4 of the variance.
    assert (wide.high - middle) / (plain.high - middle) == pytest.approx(1.5837, abs=1e-3)
    assert normal_interval(0.0, 1.0, confidence_level=0.95).high == pytest.approx(1.959964)


def test_few_clusters_widen_interval_and_raise_p_value():
    few = visits(0, [20] * 8)
    other = few.with_logits(
        few.tensors().logits
        + 0.3
        * torch.randn(
            few.logits.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64
        )
    )
    found = compare(few, other, ["auroc", "nll"], replicates=199)
    error = (found["auroc"].high - found["auroc"].difference) / critical_t(0.95, 7.0)
    assert found["auroc"].p_value > two_sided_p_value(found["auroc"].difference / error, 7.0)


def test_spiegelhalters_z_is_students():
    few = visits(0, [20] * 8)
    z, p = spiegelhalter_test(few)
    assert p >= two_sided_p_value(z * math.sqrt(7.0 / (8.0 - z**2)), 7.0)
    alone = spiegelhalter_test(
        Predictions(
            few.tensors().logits, few.tensors().target, clusters=torch.arange(few.num_samples)
        )
    )
    assert alone.p_value == pytest.approx(two_sided_p_value(alone.z), abs=0.02)


def test_one_cluster_has_value_without_interval_or_test():
    """Intervals of no width, and a line of Wald's tests below 0.0001, or a singular matrix."""
    one = visits(0, [200])
    whole = report(one, replicates=99, cost_ratio=4)
    assert "nan" not in whole.text(details=True) + whole.html() + whole.tripod()
    assert "one cluster" in " ".join(whole.notes)
    gate = whole.require("slope>=0.5", "ece<=0.1", strict=True)
    assert gate.status == 4
    assert "without an interval" in str(gate)
    table = binary.measures(one, replicates=99)
    assert table.joint_p is None
    for estimate in (*table.values(), *whole.positive["as predicted"].values()):
        assert math.isfinite(estimate.value)
        assert math.isnan(estimate.low + estimate.high)
        assert estimate.p is None
        assert estimate.floor is None
    line = binary.logistic_recalibration(one)
    assert math.isnan(line.p_value)
    assert math.isnan(line.slope.low)
    for asked in (estimates, noise_floor, spiegelhalter_test):
        with pytest.raises(InputError, match="at least 2 clusters"):
            asked(one)
    with pytest.raises(InputError, match="at least 2 clusters"):
        compare(one, one.with_logits(2 * one.tensors().logits))


def test_two_clusters_have_intervals_but_no_wald_test():
    two = visits(0, [100, 100])
    line = binary.logistic_recalibration(two)
    assert math.isnan(line.p_value)
    assert line.slope.low < line.slope.value < line.slope.high
    assert binary.measures(two, replicates=99)["slope"].p > 0.05
    assert 0.0 < binary.logistic_recalibration(visits(0, [70, 70, 60])).p_value <= 1.0


def test_holm_ignores_groups_of_one_cluster():
    three = visits(0, [60] * 6)
    site = np.array(["alone"] * 60 + ["other"] * 300)
    events = binary.group_measures(three, site.tolist())
    alone, other = events["alone"], events["other"]
    assert alone.p is None
    assert alone.slope is None
    assert math.isnan(alone.ratio.low)
    assert other.p == other.ratio.p
    assert list(events)[-1] == "alone"
    by_class = group_estimates(three, site.tolist(), replicates=39)
    assert by_class["alone"].p is None
    assert by_class["other"].p == by_class["other"].ece.p
    assert "none was tested" in " ".join(
        report(three, groups=np.arange(360) // 60, replicates=39).verdict
    )
