import numpy as np
import pytest
from scipy import stats as scipy_stats

from fedlas import Predictions
from fedlas.errors import InputError
from fedlas.metrics import METRICS
from fedlas.stats import Interval
from fedlas.stats.bootstrap import metric_interval
from fedlas.stats.draws import prepare_rows
from fedlas.stats.intervals import (
    check_bootstrap_options,
    floor_corrected_interval,
    interval_from_replicates,
    min_replicates,
)
from fedlas.stats.noise_floor import is_significant, monte_carlo_p_value


def test_ends_are_order_statistics():
    # (999 + 1) * 0.05 / 2 = 25: the 25th lowest and the 25th highest
    replicates = np.random.default_rng(0).permutation(np.arange(1.0, 1000.0))
    found = interval_from_replicates(500.0, replicates, confidence_level=0.95, method="percentile")
    assert (found.low, found.high) == (25.0, 975.0)
    assert (found.replicates, found.bias) == (999, 0.0)
    assert found.standard_error == pytest.approx(np.std(replicates, ddof=1))


def test_basic_is_reflected_about_the_value():
    replicates = np.arange(1.0, 100.0)
    percentile = interval_from_replicates(
        40.0, replicates, confidence_level=0.9, method="percentile"
    )
    basic = interval_from_replicates(40.0, replicates, confidence_level=0.9, method="basic")
    assert (percentile.low, percentile.high) == (5.0, 95.0)
    assert (basic.low, basic.high) == (-15.0, 75.0)
    assert basic.bias == 10.0  # the mean of 1 to 99 is 50


def test_centered_interval_shifts_replicates_to_value():
    replicates = np.arange(1.0, 100.0) ** 2
    percentile = interval_from_replicates(
        40.0, replicates, confidence_level=0.9, method="percentile"
    )
    centered = interval_from_replicates(40.0, replicates, confidence_level=0.9, method="centered")
    assert (percentile.low, percentile.high) == (25.0, 95.0**2)
    shift = 40.0 - replicates.mean()
    assert (centered.low, centered.high) == pytest.approx((25.0 + shift, 95.0**2 + shift))
    assert (centered.bias, centered.method) == (percentile.bias, "centered")


def test_floor_bounds_bias_of_calibration_error():
    replicates = np.arange(1.0, 100.0) - 50 + 240  # mean 240, the ends of level 0.9 are 45 from it
    far, none = (
        floor_corrected_interval(200.0, replicates, floor=floor, confidence_level=0.9)
        for floor in (100.0, 0.0)
    )
    assert far.high == none.high == 200 + 45  # no bias taken off
    assert none.low == 200 - 40 - 45  # the replicates' own
    # on the line from 100 at an error of 0 to 40 at an error of 200, the bias at 1000 / 7 is 400 / 7
    assert far.low == pytest.approx(200 - 400 / 7 - 45)
    assert pytest.approx(400 / 7) == 100 - (100 - 40) * (1000 / 7) / 200
    # nothing may be left
    assert floor_corrected_interval(200.0, replicates, floor=250.0, confidence_level=0.9).low == -45
    assert (
        floor_corrected_interval(200.0, replicates, floor=20.0, confidence_level=0.9).low
        == none.low
    )
    assert (far.method, far.bias, far.value) == ("floor", 40.0, 200.0)
    constant = floor_corrected_interval(0.0, np.zeros(99), floor=0.0, confidence_level=0.9)
    assert (constant.low, constant.high) == (0.0, 0.0)


@pytest.mark.parametrize(
    ("shift", "method"), [(0.0, "percentile"), (0.2, "percentile"), (0.3, "basic"), (-0.3, "basic")]
)
def test_auto_follows_the_bias(shift, method):
    replicates = np.array([-1.0, 0.0, 1.0] * 50)
    replicates = replicates / replicates.std(ddof=1) + shift
    found = interval_from_replicates(0.0, replicates, confidence_level=0.95, method="auto")
    assert found == interval_from_replicates(0.0, replicates, confidence_level=0.95, method=method)


def test_equal_replicates_give_a_point():
    found = interval_from_replicates(0.5, np.full(99, 0.5), confidence_level=0.95, method="auto")
    assert (found.low, found.high, found.bias, found.standard_error) == (0.5, 0.5, 0.0, 0.0)


@pytest.mark.parametrize("confidence_level", [0.5, 0.8, 0.9, 0.95, 0.99, 0.999])
def test_fewest_replicates_are_just_enough(confidence_level):
    fewest = min_replicates(confidence_level)
    check_bootstrap_options(
        confidence_level=confidence_level, replicates=fewest, seed=0, method="auto"
    )
    assert (
        interval_from_replicates(
            0.0, np.arange(float(fewest)), confidence_level=confidence_level, method="percentile"
        ).low
        == 0.0
    )
    with pytest.raises(InputError, match=rf"replicates .*at least {fewest} for"):
        check_bootstrap_options(
            confidence_level=confidence_level, replicates=fewest - 1, seed=0, method="auto"
        )
    # as many as a distribution-free interval of this level between the extremes would need
    assert fewest == round(2 / scipy_stats.uniform.sf(confidence_level)) - 1


@pytest.mark.parametrize(
    "options",
    [
        {"confidence_level": 0.0},
        {"confidence_level": 1.0},
        {"confidence_level": 95},
        {"confidence_level": float("nan")},
        {"replicates": 0},
        {"replicates": 10.5},
        {"replicates": 38},
        {"seed": -1},
        {"seed": None},
        {"method": "bca"},
    ],
    ids=str,
)
def test_refuses(options):
    with pytest.raises(InputError, match=f"^{next(iter(options))}"):
        check_bootstrap_options(
            **({"confidence_level": 0.95, "replicates": 100, "seed": 0, "method": "auto"} | options)
        )


def test_intervals_with_nothing_where_nan_stands_are_equal():
    """From Python 3.13 on, two NaN of one object are no longer taken for equal."""
    first, second = (
        Interval(0.5, 0.4, 0.6, 0.95, 0, float("nan"), 0.05, "jackknife") for _ in range(2)
    )
    assert first == second
    assert len({first, second}) == 1
    assert first != Interval(0.5, 0.4, 0.6, 0.95, 0, 0.0, 0.05, "jackknife")
    assert first != "jackknife"


def test_error_interval_holds_value_with_few_positive_replicates():
    """U-ECE of an over-confident model: the upper end was below 0, so that 13 % of intervals missed a truth of 0."""
    replicates = np.zeros(199)
    replicates[:3] = 1e-3
    interval = floor_corrected_interval(0.0, replicates, floor=0.0, confidence_level=0.95)
    assert interval.low <= 0.0 <= interval.high


@pytest.mark.parametrize("confidence_level", [0.5, 0.8, 0.9, 0.95, 0.99])
def test_p_value_at_level_rejects_despite_rounding(confidence_level):
    at = float(f"{1 - confidence_level:.2g}")  # 0.1, which is more than 1 - 0.9
    assert is_significant(at, 1 - confidence_level)
    assert not is_significant(at * 1.001, 1 - confidence_level)


def test_rounding_is_no_difference_to_a_p_value():
    values = np.array([0.1, 0.2, 0.3, 0.4])
    assert monte_carlo_p_value(values, 0.3) == monte_carlo_p_value(values, 0.3 + 1e-15) == 3 / 5
    assert monte_carlo_p_value(-values, -0.1) == 2 / 5


def test_weighted_accuracy_has_wilson_interval():
    p = Predictions([[1.0, 0.0]] * 4, [0, 0, 0, 1], weights=[1.0, 1.0, 1.0, 3.0])
    found = metric_interval(
        METRICS["accuracy"],
        prepare_rows(p, 15),
        0.5,
        np.linspace(0, 1, 99),
        confidence_level=0.9,
        method="auto",
    )
    assert found.method == "wilson"
