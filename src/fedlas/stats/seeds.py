"""Paired tests over seeds without the t-test's assumption, and the interval of a mean."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import fmean, stdev

import numpy as np

from fedlas._core.check import InputError
from fedlas._core.extras import require
from fedlas.stats.compare import ROUNDING, PairedTest, check_pairs, check_values
from fedlas.stats.intervals import check_level
from fedlas.stats.rows import Floats

_ENUMERATED = 16
"""Most pairs for which all assignments of signs are enumerated (65,536) if ties rule out scipy's exact p-value."""


def wilcoxon_test(a: Sequence[float], b: Sequence[float]) -> PairedTest:
    """Two-sided Wilcoxon signed-rank test of whether the differences ``a - b`` are symmetric about 0.

    Equal pairs are left out, as in Wilcoxon's paper. Differences of equal size share their mean rank.

    Args:
        a: Values ``(n,)`` of one method, finite.
        b: Values ``(n,)`` of the other, in the same order.

    Returns:
        The test. ``p_value`` is exact up to 50 pairs without ties and up to 16 with ties, and a normal approximation
        beyond that; 1 if all pairs are equal.

    Raises:
        InputError: If the lengths differ, there are no values, or one is not finite.

    Note:
        The smallest p-value of ``n`` pairs is ``2 / 2**n``: 0.25 for 3 seeds, 0.0625 for 5. **With fewer than 6 seeds
        this test cannot reach 0.05, however large the difference.** The t-test can, because it assumes that differences
        are normal.

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
    # With ties, all assignments of signs are enumerated while they are few.
    tied = len(np.unique(np.abs(moved))) < len(moved) <= _ENUMERATED
    method = stats.PermutationMethod(n_resamples=2**_ENUMERATED) if tied else "auto"
    return PairedTest(mean, float(stats.wilcoxon(moved, method=method).pvalue), n)


def sign_test(a: Sequence[float], b: Sequence[float]) -> PairedTest:
    """Two-sided sign test of whether one method is higher in more pairs than a fair coin would give.

    It assumes only that pairs are independent. Equal pairs are left out.

    Args:
        a: Values ``(n,)`` of one method, finite.
        b: Values ``(n,)`` of the other, in the same order.

    Returns:
        The test; ``p_value`` is exact, and 1 if all pairs are equal.

    Raises:
        InputError: If the lengths differ, there are no values, or one is not finite.

    Note:
        As in :func:`wilcoxon_test`, the p-value is at least ``2 / 2**n``: below 6 pairs it never reaches 0.05.

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


def mean_interval(values: Sequence[float], *, confidence_level: float = 0.95) -> tuple[float, float] | None:
    """Interval of the mean over seeds, by Student's t: ``mean +/- t * sd / sqrt(n)``.

    An interval of paired differences includes 0 where :func:`~fedlas.stats.paired_t_test` has a p-value above
    ``1 - confidence_level``. It is about other seeds on the same test set; :func:`~fedlas.stats.bootstrap_interval` is
    about other samples for the same run.

    Args:
        values: ``(n,)``, finite, one for each seed.
        confidence_level: Confidence level in ``(0, 1)``.

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
    check_level(owner, confidence_level)
    advice = "Drop the seeds without a value."
    numbers = check_values(owner, "values, one for each seed,", values, advice)
    if not numbers:
        raise InputError(owner, "values must be at least one, one for each seed", "none", advice)
    spread = stdev(numbers) if len(numbers) > 1 else 0.0
    # Values that differ by rounding alone have no spread either.
    if spread <= ROUNDING * max(map(abs, numbers)):
        return None
    n, mean = len(numbers), fmean(numbers)
    half = float(require("scipy.stats", extra="stats").t.isf((1 - confidence_level) / 2, n - 1)) * spread / math.sqrt(n)
    return mean - half, mean + half


def _differences(owner: str, a: Sequence[float], b: Sequence[float]) -> Floats:
    """``a - b (n,)`` without rounding errors: sizes that differ by rounding alone become equal, so that ties are ties.

    Accuracies on 360 images move in steps of 1/360, but their differences in floating point do not.
    """
    check_pairs(owner, a, b)
    first, second = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    differences = first - second
    noise = ROUNDING * max(float(np.abs(first).max()), float(np.abs(second).max()))
    # Sorted sizes fall into groups whose neighbors differ by rounding; each takes the smallest size of its group.
    sizes = np.concatenate(([0.0], np.abs(differences)))
    order = np.argsort(sizes, kind="stable")
    ascending = sizes[order]
    starts = np.concatenate(([True], np.diff(ascending) > noise))
    sizes[order] = ascending[starts][np.cumsum(starts) - 1]
    return np.sign(differences) * sizes[1:]
