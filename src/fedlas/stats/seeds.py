"""Seed-level tests beside the t-test, the size of an effect, and how many seeds it takes to see one."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import NormalDist, fmean, stdev

import numpy as np

from fedlas._core.check import InputError, check_choice, check_number
from fedlas._core.extras import require
from fedlas.stats.compare import ROUNDING, PairedTest, check_pairs
from fedlas.stats.intervals import check_level
from fedlas.stats.rows import Floats

_ENUMERATED = 16
"""Pairs up to which the distribution of the ranks is counted out where ties forbid the tabulated one: 65,536 cases."""
_MOST_SEEDS = 10**5


@dataclass(frozen=True)
class EffectSize:
    """How large a paired difference is, in standard deviations of the differences.

    Attributes:
        cohen_d: ``mean(a - b) / sd(a - b)``; None if there is no spread.
        hedges_g: The same without its bias for few pairs; None below three pairs, where the correction is 0.
        n: Number of pairs.
        reason: Why there is no number; empty when there is one.
    """

    cohen_d: float | None
    hedges_g: float | None
    n: int
    reason: str = ""


def wilcoxon_test(a: Sequence[float], b: Sequence[float]) -> PairedTest:
    """Two-sided Wilcoxon signed-rank test: are the differences ``a - b`` symmetric about 0?

    Pairs that are equal are left out, as Wilcoxon did. Equal sizes of difference share their mean rank.

    Args:
        a: Values ``(n,)`` of one method, finite.
        b: Values ``(n,)`` of the other, in the same order.

    Returns:
        The test. ``p_value`` is exact up to 50 pairs without ties and up to 16 with ties, beyond that from the normal
        approximation; 1 if all pairs are equal.

    Raises:
        InputError: If the lengths differ, there are no values, or one is not finite.

    Note:
        The smallest p-value that ``n`` pairs can give is ``2 / 2**n``: 0.25 for 3 seeds, 0.0625 for 5. **With fewer
        than 6 seeds this test cannot reach 0.05, however large the difference.** The t-test can, because it assumes
        that differences are normal.

    Example:
        >>> wilcoxon_test([0.91, 0.93, 0.92], [0.80, 0.81, 0.81]).p_value
        0.25

    Source:
        Wilcoxon, "Individual comparisons by ranking methods", Biometrics Bulletin 1 (1945).
    """
    differences = _differences("wilcoxon_test", a, b)
    mean, n = float(differences.mean()), len(differences)
    moved = differences[differences != 0.0]
    if len(moved) == 0:
        return PairedTest(mean, 1.0, n)
    stats = require("scipy.stats", extra="stats")
    sizes = np.abs(moved)
    if len(np.unique(sizes)) < len(sizes) <= _ENUMERATED:
        return PairedTest(mean, _signed_rank_p_value(stats.rankdata(sizes), moved > 0), n)
    return PairedTest(mean, float(stats.wilcoxon(moved).pvalue), n)


def _signed_rank_p_value(ranks: Floats, positive: np.ndarray) -> float:
    """Share of all assignments of signs whose rank sum is as far from its mean as the observed one."""
    signs = (np.arange(2 ** len(ranks))[:, None] >> np.arange(len(ranks))) & 1
    centre = ranks.sum() / 2.0
    # Ranks are multiples of 1/2, so these sums are exact and equal ones compare as equal.
    return float(np.mean(np.abs(signs @ ranks - centre) >= abs(ranks[positive].sum() - centre)))


def sign_test(a: Sequence[float], b: Sequence[float]) -> PairedTest:
    """Two-sided sign test: is either method the higher one in more pairs than a fair coin would give?

    Assumes nothing of the differences but that pairs are independent. Pairs that are equal are left out.

    Args:
        a: Values ``(n,)`` of one method, finite.
        b: Values ``(n,)`` of the other, in the same order.

    Returns:
        The test; ``p_value`` is exact, and 1 if all pairs are equal.

    Raises:
        InputError: If the lengths differ, there are no values, or one is not finite.

    Note:
        As :func:`wilcoxon_test`, it cannot give less than ``2 / 2**n``: below 6 pairs it never reaches 0.05.

    Example:
        >>> sign_test([3, 3, 3, 3, 3, 3, 1], [1, 1, 1, 1, 1, 1, 3]).p_value
        0.125
        >>> sign_test([2, 2, 2], [1, 1, 1]).p_value
        0.25

    Source:
        Arbuthnot (1710); Conover, "Practical Nonparametric Statistics" (1999), section 3.4.
    """
    differences = _differences("sign_test", a, b)
    above, below = int((differences > 0).sum()), int((differences < 0).sum())
    p_value = 1.0
    if above + below:
        p_value = float(require("scipy.stats", extra="stats").binomtest(above, above + below, 0.5).pvalue)
    return PairedTest(float(differences.mean()), p_value, len(differences))


def effect_size(a: Sequence[float], b: Sequence[float]) -> EffectSize:
    """Cohen's d of a paired difference, and Hedges' correction of it for few pairs.

    ``d = mean(a - b) / sd(a - b)``, which for ``n`` pairs is too large by the factor ``1 / J``, and ``g = J * d`` with
    ``J = Gamma(m / 2) / (sqrt(m / 2) * Gamma((m - 1) / 2))``, ``m = n - 1``: 0.56 for 3 pairs, 0.80 for 5.

    Args:
        a: Values ``(n,)`` of one method, finite.
        b: Values ``(n,)`` of the other, in the same order.

    Returns:
        Both; the sign is that of ``a - b``.

    Raises:
        InputError: If the lengths differ, there are no values, or one is not finite.

    Note:
        In units of the spread *between seeds of the difference*, not of either method's own spread. It says how sure a
        difference is, not how much it matters: a tiny gain that every seed shows has a huge ``d``.

    Example:
        >>> effect = effect_size([2.0, 4.0, 6.0], [1.0, 2.0, 3.0])
        >>> effect.cohen_d, round(effect.hedges_g, 4)
        (2.0, 1.1284)

    Source:
        Cohen, "Statistical Power Analysis" (1988), chapter 2, where it is d_z; Hedges, "Distribution theory for Glass's
        estimator of effect size", J. Educational Statistics 6 (1981).
    """
    differences = _differences("effect_size", a, b)
    n = len(differences)
    if n < 2:
        return EffectSize(None, None, n, "one pair has no spread")
    if not differences.any():
        return EffectSize(0.0, 0.0 if n > 2 else None, n)
    spread = stdev(differences.tolist())
    if spread == 0.0:
        return EffectSize(None, None, n, "all pairs differ by the same amount, so there is no spread")
    cohen = fmean(differences.tolist()) / spread
    if n == 2:
        return EffectSize(cohen, None, n)
    freedom = n - 1
    correction = math.exp(math.lgamma(freedom / 2) - math.lgamma((freedom - 1) / 2)) / math.sqrt(freedom / 2)
    return EffectSize(cohen, correction * cohen, n)


def mean_interval(values: Sequence[float], *, level: float = 0.95) -> tuple[float, float] | None:
    """Interval of the mean over seeds, by Student's t: ``mean +/- t * sd / sqrt(n)``.

    Of the differences of a pair it holds 0 where :func:`~fedlas.stats.paired_t_test` has ``p > 1 - level``. It is about
    other seeds on the same test set, and :func:`~fedlas.stats.bootstrap_interval` of other samples for the same run.

    Args:
        values: ``(n,)``, finite, one for each seed.
        level: Confidence level in ``(0, 1)``.

    Returns:
        Both ends, in the unit of the values; None for one seed, and where all values are the same: there is no spread
        to measure.

    Raises:
        InputError: If there are no values, one is not finite, or the level is out of range.

    Example:
        >>> low, high = mean_interval([0.02, 0.03, 0.025])
        >>> round(low, 4), round(high, 4)
        (0.0126, 0.0374)

    Source:
        Student, "The probable error of a mean", Biometrika 6 (1908).
    """
    owner = "mean_interval"
    check_level(owner, level)
    numbers = [float(value) for value in values]
    if not numbers or not all(map(math.isfinite, numbers)):
        raise InputError(owner, "values must be finite, one for each seed", numbers, "Drop the seeds without a value.")
    spread = stdev(numbers) if len(numbers) > 1 else 0.0
    if spread <= ROUNDING * max(map(abs, numbers)):
        return None
    n, mean = len(numbers), fmean(numbers)
    half = float(require("scipy.stats", extra="stats").t.isf((1 - level) / 2, n - 1)) * spread / math.sqrt(n)
    return mean - half, mean + half


def seeds_needed(difference: float, spread: float, *, power: float = 0.8, level: float = 0.05, test: str = "t") -> int:
    """The fewest seeds with which a paired test finds a difference of this size as often as ``power`` says.

    Assumes that the differences between two methods run with the same seeds are normal with mean ``difference`` and
    standard deviation ``spread``.

    Args:
        difference: True mean difference between the methods; its sign does not matter, but it must not be 0.
        spread: Standard deviation over seeds *of the difference*, > 0, in the same unit. If only each method's own
            deviation is known and the seeds do not go together, it is ``sqrt(sd_a**2 + sd_b**2)``.
        power: Probability in ``(0, 1)`` of a significant result.
        level: Level of the two-sided test in ``(0, 1)``. With Holm's correction over ``m`` methods, ``level / m`` is on
            the safe side.
        test: ``"t"`` (exact, from the noncentral t distribution), ``"sign"`` (exact), or ``"wilcoxon"`` (approximate:
            the t-test's number over ``3 / pi``, the Wilcoxon test's efficiency for normal data in large samples, and
            never fewer than can reach the level at all).

    Returns:
        Number of seeds.

    Raises:
        InputError: For arguments out of range, or if it would take more than 100,000 seeds.

    Note:
        A spread that was itself estimated from three seeds is off by a factor of two easily, and this number by the
        square of that: plan with a pessimistic one.

    Example:
        >>> seeds_needed(0.5, 0.5), seeds_needed(0.5, 1.0), seeds_needed(3.0, 1.0, test="wilcoxon")
        (10, 34, 6)

    Source:
        Cohen, "Statistical Power Analysis" (1988), chapter 2; Lehmann, "Nonparametrics" (1975), for the efficiency.
    """
    owner = "seeds_needed"
    effect = abs(check_number(owner, "difference", difference)) / check_number(
        owner, "spread", spread, low=0.0, low_open=True
    )
    check_level(owner, power, name="power")
    check_level(owner, level)
    check_choice(owner, "test", test, _POWER)
    if effect == 0.0:
        raise InputError(owner, "difference must not be 0", difference, "No number of seeds finds what is not there.")
    return _POWER[test](effect, power, level)


def _t_seeds(effect: float, power: float, level: float) -> int:
    stats = require("scipy.stats", extra="stats")

    def enough(n: int) -> bool:
        critical, shift = stats.t.isf(level / 2, n - 1), effect * math.sqrt(n)
        found = stats.nct.sf(critical, n - 1, shift)
        if shift < 8:  # else the other tail holds less than Phi(-8) = 6e-16, and scipy cannot compute it
            found += stats.nct.cdf(-critical, n - 1, shift)
        return bool(found >= power)

    low, high = 1, 2  # one seed is never enough; the power grows with every seed, so bisection finds the first
    while not enough(high):
        low, high = high, 2 * high
        _check_affordable(low)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high


def _sign_seeds(effect: float, power: float, level: float) -> int:
    binom = require("scipy.stats", extra="stats").binom
    win = NormalDist().cdf(effect)
    # For normal differences no unbiased test has more power than the t-test, so the search starts at its number. All
    # numbers are tried from there: the power of a discrete test does not grow with every seed.
    first = max(_fewest_pairs(level), _t_seeds(effect, power, level))
    while True:
        n = np.arange(first, 2 * first)
        rejected = binom.ppf(level / 2, n, 0.5)
        rejected -= binom.cdf(rejected, n, 0.5) > level / 2 * (1 + 1e-12)
        reached = np.flatnonzero(binom.cdf(rejected, n, win) + binom.sf(n - rejected - 1, n, win) >= power)
        if len(reached):
            return int(n[reached[0]])
        first *= 2
        _check_affordable(first)


def _wilcoxon_seeds(effect: float, power: float, level: float) -> int:
    return max(_fewest_pairs(level), math.ceil(_t_seeds(effect, power, level) * math.pi / 3))


def _fewest_pairs(level: float) -> int:
    """Pairs with which tests of signs and ranks can reach ``level`` at all: ``2 / 2**n <= level``."""
    return max(1, math.ceil(1 - math.log2(level) - 1e-12))


def _check_affordable(n: int) -> None:
    if n > _MOST_SEEDS:
        raise InputError(
            "seeds_needed",
            f"difference / spread must be so large that {_MOST_SEEDS:,} seeds are enough",
            "a smaller one",
            "A difference that small is out of reach.",
        )


def _differences(owner: str, a: Sequence[float], b: Sequence[float]) -> Floats:
    """``a - b (n,)`` without rounding: sizes that differ by no more become one, so that ties are ties.

    Accuracies on 360 images move in steps of 1/360, but their differences in floating point do not.
    """
    check_pairs(owner, a, b)
    first, second = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    differences = first - second
    noise = ROUNDING * max(float(np.abs(first).max()), float(np.abs(second).max()))
    sizes = np.concatenate(([0.0], np.abs(differences)))
    order = np.argsort(sizes, kind="stable")
    ascending = sizes[order]
    starts = np.concatenate(([True], np.diff(ascending) > noise))
    sizes[order] = ascending[starts][np.cumsum(starts) - 1]
    return np.sign(differences) * sizes[1:]


_POWER: dict[str, Callable[[float, float, float], int]] = {
    "t": _t_seeds,
    "wilcoxon": _wilcoxon_seeds,
    "sign": _sign_seeds,
}
