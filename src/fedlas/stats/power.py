"""Sample size in seeds: how many seeds a paired t-test needs to detect a difference."""

from __future__ import annotations

import functools
import math
from typing import TYPE_CHECKING

import numpy as np

from fedlas._core.check import InputError, check_number
from fedlas.stats.intervals import check_confidence_level

if TYPE_CHECKING:
    from fedlas._core.types import FloatArray

_MAX_SEEDS = 10**5
_NODES = 400
"""Points of the integral over the variance: more change no number of seeds in the tests' grid."""


def seeds_needed(
    difference: float, spread: float, *, power: float = 0.8, alpha: float = 0.05
) -> int:
    """Return the fewest seeds with which a paired t-test detects the difference with probability ``power``.

    It assumes that the differences between two methods with the same seeds are normal with mean ``difference`` and
    standard deviation ``spread``.

    Args:
        difference: True mean difference between the methods. Its sign does not matter, but it must not be 0.
        spread: Standard deviation *of the difference* over seeds, > 0, in the same unit. If only each method's own
            deviation is known and the seeds are not paired, it is ``sqrt(sd_a**2 + sd_b**2)``.
        power: Probability in ``(0, 1)`` of a significant result.
        alpha: Level of the two-sided test in ``(0, 1)``. With Holm's correction over ``m`` methods, ``alpha / m`` is on
            the safe side.

    Returns:
        Number of seeds.

    Raises:
        InputError: For arguments out of range, or if it would take more than 100,000 seeds.

    Note:
        A spread that was estimated from three seeds is easily wrong by a factor of two, and this number by the square
        of that: plan with a pessimistic spread.

    Example:
        >>> seeds_needed(0.5, 0.5), seeds_needed(0.5, 1.0)
        (10, 34)

    Source:
        Cohen, "Statistical Power Analysis" (1988), chapter 2.
    """
    effect = abs(check_number("difference", difference)) / check_number(
        "spread", spread, low=0.0, low_open=True
    )
    check_confidence_level(power, name="power")
    check_confidence_level(alpha, name="alpha")
    # Larger ones need as few seeds, and scipy has NaN for their power.
    effect = min(effect, 1e6)
    if effect == 0.0:
        raise InputError("difference must not be 0", difference, "Pass the difference to detect.")
    low = 1
    # one seed is never enough; the power grows with each seed, so bisection finds the first number
    high = 2
    while t_test_power(effect, high, alpha) < power:
        low = high
        high = 2 * high
        if low > _MAX_SEEDS:
            raise InputError(
                f"difference / spread must be detectable with at most {_MAX_SEEDS:,} seeds",
                f"{effect:.3g}",
                "Pass a larger difference or a smaller spread.",
            )
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (
            (low, middle) if t_test_power(effect, middle, alpha) >= power else (middle, high)
        )
    return high


def t_test_power(effect: float, n: int, alpha: float) -> float:
    """Return the power of a two-sided paired t-test of ``n`` pairs."""
    from scipy import stats

    # Given the sample's variance `v / (n - 1)`, `v` chi-squared, the mean is normal: its two tails beyond the critical
    # value are averaged over `v`. scipy's noncentral t distribution is NaN far out in its tails.
    nodes, weights = _gauss_legendre_rule()
    # Squaring the share twice crowds the nodes where few degrees of freedom bend the integrand: near a variance of 0.
    share = (0.5 * (nodes + 1)) ** 4
    spread = np.sqrt(stats.chi2.ppf(share, n - 1) / (n - 1))
    critical = stats.t.isf(alpha / 2, n - 1)
    shift = effect * math.sqrt(n)
    beyond = stats.norm.sf(critical * spread - shift) + stats.norm.cdf(-critical * spread - shift)
    return float(weights @ (beyond * 2 * (0.5 * (nodes + 1)) ** 3))


@functools.cache
def _gauss_legendre_rule() -> tuple[FloatArray, FloatArray]:
    """Return nodes and weights ``(_NODES,)`` of the integral over ``[-1, 1]``, eigenvalues that take milliseconds."""
    nodes, weights = np.polynomial.legendre.leggauss(_NODES)
    return nodes, weights
