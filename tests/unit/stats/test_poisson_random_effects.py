"""Poisson random effects against a trapezoidal rule with SciPy's optimizer, and against drawn counts."""

import math

import numpy as np
import pytest
from scipy.optimize import minimize_scalar
from scipy.special import logsumexp
from scipy.stats import t as student

from fedlas.errors import InputError
from fedlas.stats import poisson_random_effects

COUNTS = np.array([0.0, 9.0, 2.0, 30.0, 4.0, 1.0])
EXPECTED = np.array([3.0, 4.0, 2.5, 20.0, 9.0, 0.4])
_DEVIATES = np.linspace(-9.0, 9.0, 2001)


def likelihood(mean, tau):
    """Log-likelihood up to the factorials of the counts, by the trapezoidal rule."""
    rate = mean + tau * _DEVIATES
    terms = COUNTS[:, None] * rate - EXPECTED[:, None] * np.exp(rate) - _DEVIATES**2 / 2
    return float(logsumexp(terms, axis=1).sum()) + len(COUNTS) * math.log(
        (_DEVIATES[1] - _DEVIATES[0]) / math.sqrt(2 * math.pi)
    )


def fit_by_scipy(tau):
    """The mean with the largest likelihood, its information by differences, and the adjusted likelihood."""
    found = minimize_scalar(lambda mean: -likelihood(mean, tau), bracket=(-1.0, 1.0), tol=1e-10)
    step = 1e-3
    ends = likelihood(found.x - step, tau) + likelihood(found.x + step, tau)
    information = (-2 * found.fun - ends) / step**2
    return found.x, information, -found.fun - 0.5 * math.log(information)


def test_scipy_finds_the_same_maximum():
    best = minimize_scalar(lambda tau: -fit_by_scipy(tau)[2], bounds=(0.01, 3.0), method="bounded")
    mean, information, _ = fit_by_scipy(best.x)
    found = poisson_random_effects(COUNTS, EXPECTED)
    assert found.tau == pytest.approx(best.x, rel=1e-3)
    assert found.mean == pytest.approx(mean, abs=1e-4)
    reach = student.ppf(0.975, 5) / math.sqrt(information)
    further = student.ppf(0.975, 4) * math.hypot(best.x, 1 / math.sqrt(information))
    ends = (found.low, found.high, found.prediction_low, found.prediction_high)
    assert ends == pytest.approx((mean - reach, mean + reach, mean - further, mean + further), 1e-3)
    assert (found.count, found.method) == (6, "Poisson, adjusted profile likelihood")


@pytest.mark.parametrize("counts", [COUNTS, np.array([2.0, 6.0, 3.0, 17.0, 15.0, 1.0])])
def test_p_is_that_of_drawn_counts(counts):
    share = EXPECTED / EXPECTED.sum()
    drawn = np.random.default_rng(0).multinomial(int(counts.sum()), share, size=20_000)
    gaps = drawn - counts.sum() * share
    observed = ((counts - counts.sum() * share) ** 2).sum()
    assert poisson_random_effects(counts, EXPECTED).p == pytest.approx(
        float(((gaps**2).sum(axis=1) >= observed).mean()), abs=0.025
    )


def test_equal_ratios_have_no_spread():
    found = poisson_random_effects(2.0 * EXPECTED, EXPECTED)
    assert found.mean == pytest.approx(math.log(2.0), abs=1e-9)
    assert (found.tau, found.i_squared) == (0.0, 0.0)
    assert found.p > 0.99
    assert found.high - found.mean == pytest.approx(
        student.ppf(0.975, 5) / math.sqrt(2.0 * EXPECTED.sum())
    )


@pytest.mark.parametrize("size", [1e-3, 1e3, 1e6])
def test_counts_of_any_size_give_finite_numbers(size):
    ratio = np.array([0.5, 1.0, 2.0, 0.0])
    found = poisson_random_effects(size * ratio, np.full(4, size))
    assert math.isfinite(found.low)
    assert math.isfinite(found.prediction_high)
    assert found.tau > 0.5


def test_two_clusters_have_no_prediction_interval():
    assert math.isnan(poisson_random_effects(COUNTS[:2], EXPECTED[:2]).prediction_low)


@pytest.mark.parametrize(
    ("counts", "expected"),
    [
        ([1.0], [1.0]),
        ([0.0, 0.0], [1.0, 1.0]),
        ([1.0, -1.0], [1.0, 1.0]),
        ([1.0, 1.0], [1.0, 0.0]),
        ([1.0, np.nan], [1.0, 1.0]),
    ],
)
def test_other_counts_are_refused(counts, expected):
    with pytest.raises(InputError, match="K at least 2"):
        poisson_random_effects(np.array(counts), np.array(expected))
