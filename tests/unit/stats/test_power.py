"""The number of seeds against published tables and against simulation."""

import math

import numpy as np
import pytest
from scipy import stats as scipy_stats

from fedlas.errors import InputError
from fedlas.stats import seeds_needed


@pytest.mark.parametrize(("effect", "seeds"), [(0.2, 199), (0.5, 34), (0.8, 15)])
def test_number_of_seeds_that_tables_give(effect, seeds):
    """Pairs for a two-sided paired t-test at 0.05 with power 0.8; small, medium and large effect, as in G*Power."""
    assert seeds_needed(effect, 1.0) == seeds
    assert seeds_needed(-3 * effect, 3.0) == seeds


def test_a_small_level_is_no_trap():
    """scipy's noncentral t is NaN far out in its tail, where the search began: 1,012 came out for 279."""
    assert seeds_needed(0.25, 1.0, power=0.8, alpha=0.001) == 279


@pytest.mark.parametrize("effect", [0.05, 0.25, 1.0, 5.0])
@pytest.mark.parametrize("alpha", [0.1, 0.01, 1e-6])
@pytest.mark.parametrize("power", [0.3, 0.8, 0.99])
def test_seeds_needed_matches_statsmodels(effect, alpha, power):
    """``TTestPower().power`` is the noncentral t distribution of scipy, as here."""

    def reached(n):
        critical, shift = scipy_stats.t.isf(alpha / 2, n - 1), effect * math.sqrt(n)
        return float(
            scipy_stats.nct.sf(critical, n - 1, shift)
            + scipy_stats.nct.cdf(-critical, n - 1, shift)
        )

    seeds = seeds_needed(effect, 1.0, power=power, alpha=alpha)
    around = [reached(n) for n in (seeds - 1, seeds) if n > 1]
    if np.isfinite(around).all():  # scipy's is NaN far out in the tails
        assert around[-1] >= power - 3e-6
        assert len(around) == 1 or around[0] < power + 3e-6


@pytest.mark.parametrize(
    ("effect", "wanted", "alpha"), [(0.7, 0.8, 0.05), (1.0, 0.8, 0.05), (1.6, 0.9, 0.1)]
)
def test_seeds_needed_is_smallest_with_power(effect, wanted, alpha):
    def power(n):
        draws = np.random.default_rng(n).normal(effect, 1.0, (20_000, n))
        return np.mean(scipy_stats.ttest_1samp(draws, 0, axis=1).pvalue <= alpha)

    n = seeds_needed(effect, 1.0, power=wanted, alpha=alpha)
    three_sd = 3 * math.sqrt(wanted * (1 - wanted) / 20_000)
    assert power(n) > wanted - three_sd
    assert power(n - 1) < wanted + three_sd


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"difference": 0.0}, "difference must not be 0"),
        ({"difference": math.nan}, "difference"),
        ({"spread": 0.0}, "spread"),
        ({"spread": -1.0}, "spread"),
        ({"power": 0.0}, "power"),
        ({"power": 1.0}, "power"),
        ({"alpha": 0.0}, "alpha"),
        ({"alpha": 1.0}, "alpha"),
        ({"difference": 1e-6}, "100,000 seeds"),
    ],
)
def test_number_of_seeds_refuses(arguments, message):
    with pytest.raises(InputError, match=message):
        seeds_needed(**({"difference": 1.0, "spread": 1.0} | arguments))


def test_large_differences_need_fewest_seeds():
    assert seeds_needed(1e308, 1e-308) == 2
