"""Paired tests and confidence intervals of two methods over seeds, and Holm's correction."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import replace
from statistics import fmean, stdev
from typing import TYPE_CHECKING

import numpy as np

from fedlas._core.check import InputError, as_float_array, check_number, describe
from fedlas.metrics.metric import find_measure
from fedlas.stats.degrees import critical_t, two_sided_p_value
from fedlas.stats.difference import Difference
from fedlas.stats.intervals import ALPHA, check_confidence_level

if TYPE_CHECKING:
    from fedlas._core.types import FloatArray

ROUNDING = 1e-12
"""Relative size below which a spread of differences is rounding, not variation between seeds."""
LARGEST = 1e150
"""Largest size of a value: squares of differences, and their sums, stay below what float64 can hold."""
_ENUMERATED = 16
"""Most pairs for which all assignments of signs are enumerated (65,536) if ties rule out scipy's exact p-value."""


def paired_t_test(
    a: Sequence[float], b: Sequence[float], *, test_share: float | None = None
) -> Difference:
    """Return the two-sided paired t-test of ``mean(a - b) = 0``.

    Args:
        a: Values ``(n,)`` of one method, finite.
        b: Values ``(n,)`` of the other, in the same order (same seed, same place).
        test_share: Where each seed splits the same data anew, the share that its test part has, in ``[0, 1)``: training
            parts overlap, so that differences are dependent, and the variance of their mean is taken as
            ``1 / n + test_share / (1 - test_share)`` times theirs (Nadeau & Bengio). None: one split for all seeds.

    Returns:
        The test. ``p_value`` is 1 if all pairs are equal. It is None for fewer than two pairs, and for differences that
        are all the same but not zero: they have no spread to measure the mean against, and the formula's p = 0 would
        claim certainty from coarse values (an accuracy on 360 images moves in steps of 1/360).

    Raises:
        InputError: If the lengths differ, there are no values, one is not finite, or ``test_share`` is out of range.

    Example:
        >>> test = paired_t_test([0.91, 0.93, 0.92], [0.90, 0.91, 0.91])
        >>> round(test.difference, 4), round(test.p_value, 4), test.count
        (0.0133, 0.0572, 3)
        >>> paired_t_test([0.91], [0.90]).reason
        'one pair has no spread'
        >>> round(paired_t_test([0.91, 0.93, 0.92], [0.90, 0.91, 0.91], test_share=0.2).p_value, 4)
        0.0942

    Source:
        Student, "The probable error of a mean", Biometrika 6 (1908); of overlapping splits Nadeau & Bengio, "Inference
        for the generalization error", Machine Learning 52 (2003).
    """
    pairs = check_pairs(a, b)
    n = len(pairs)
    error = _relative_standard_error(n, test_share)
    differences = [float(x - y) for x, y in pairs]
    if n < 2:
        return _test_result(pairs, None, "one pair has no spread")
    # Differences as small as the rounding of the values are no evidence, however regular they are.
    noise = ROUNDING * float(np.abs(pairs).max())
    if all(abs(d) <= noise for d in differences):
        return _test_result(pairs, 1.0)
    spread = stdev(differences)
    if spread <= noise:
        return _test_result(
            pairs, None, "all pairs differ by the same amount, so there is no spread"
        )
    statistic = abs(fmean(differences)) / (spread * error)
    return _test_result(pairs, two_sided_p_value(statistic, n - 1))


def _relative_standard_error(n: int, test_share: float | None) -> float:
    """Return the standard error of a mean over ``n`` seeds, relative to the standard deviation of their values."""
    if test_share is None:
        return 1 / math.sqrt(n)
    share = check_number("test_share", test_share, low=0.0, high=1.0, high_open=True)
    return math.sqrt(1 / n + share / (1 - share))


def _test_result(pairs: FloatArray, p_value: float | None, reason: str = "") -> Difference:
    """Return a :class:`Difference` of pairs ``(n, 2)`` with a p-value, or with the reason why there is none."""
    first, second = pairs.T.tolist()
    return Difference(
        "",
        fmean(first),
        fmean(second),
        p_value=p_value,
        unit="seeds",
        count=len(pairs),
        reason=reason,
        values=(tuple(first), tuple(second)),
    )


def check_pairs(a: Sequence[float], b: Sequence[float]) -> FloatArray:
    """Check that ``a`` and ``b`` have equally many finite values, and return them as pairs ``(n, 2)``."""
    first, second = (
        check_values(name, each, "Drop that seed from both methods.")
        for name, each in (("a", a), ("b", b))
    )
    if len(first) != len(second) or len(first) == 0:
        raise InputError(
            "a and b must hold one value per seed, for the same seeds in the same order",
            f"{len(first)} and {len(second)} values",
            "Keep only the seeds that both methods have.",
        )
    return np.stack([first, second], axis=1)


def check_values(
    name: str, values: Sequence[float], fix: str, *, allow_nan: bool = False
) -> FloatArray:
    """Return ``values (n,)`` if all are finite and at most :data:`LARGEST` in size; ``allow_nan`` also allows NaN."""
    numbers = as_float_array(values)
    if (
        numbers.ndim != 1
        or not ((np.abs(numbers) <= LARGEST) | (np.isnan(numbers) & allow_nan)).all()
    ):
        raise InputError(
            f"{name} must be finite numbers with absolute value at most {LARGEST:g}",
            describe(values),
            fix,
        )
    return numbers


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjust p-values by Holm's step-down method, for comparison with the level of a single test.

    Args:
        p_values: One per test, in ``[0, 1]``.

    Returns:
        Adjusted p-values in the same order, each at least the given one and at most 1. Calling all tests with an
        adjusted value up to ``alpha`` significant makes one or more false claims with probability at most ``alpha``,
        however the tests depend on each other.

    Raises:
        InputError: If a value is outside ``[0, 1]``.

    Example:
        >>> holm([0.01, 0.04, 0.03])
        [0.03, 0.06, 0.06]

    Source:
        Holm, "A simple sequentially rejective multiple test procedure", Scand. J. Statistics 6 (1979).
    """
    numbers = check_values("p_values", p_values, "Pass one for each test.", allow_nan=True)
    values = [
        check_number(f"p_values[{i}]", float(p), low=0.0, high=1.0) for i, p in enumerate(numbers)
    ]
    adjusted = [0.0] * len(values)
    so_far = 0.0
    for rank, i in enumerate(sorted(range(len(values)), key=values.__getitem__)):
        # The running maximum keeps the order: a larger p-value never gets a smaller adjusted one.
        so_far = max(so_far, min(1.0, (len(values) - rank) * values[i]))
        adjusted[i] = so_far
    return adjusted


def apply_holm(differences: Iterable[Difference]) -> list[Difference]:
    """Return the tested differences with Holm-adjusted p-values, and the better side of each significant one."""
    tested = list(differences)
    adjusted = iter(holm([each.p_value for each in tested if each.p_value is not None]))
    return [
        each if each.p_value is None else _with_corrected_p(each, next(adjusted)) for each in tested
    ]


def _with_corrected_p(difference: Difference, p: float) -> Difference:
    record = find_measure(difference.metric, event=False)
    higher = None if record is None else record.higher_is_better
    better = None
    if p <= ALPHA and higher is not None and difference.difference != 0:
        better = "a" if (difference.difference > 0) is higher else "b"
    return replace(difference, p=p, better=better)


def seed_difference(
    a: Sequence[float],
    b: Sequence[float],
    *,
    metric: str = "",
    names: tuple[str, str] = ("a", "b"),
    confidence_level: float = 1 - ALPHA,
    test_share: float | None = None,
) -> Difference:
    """Return the difference of two methods over seeds, with paired t-test and interval, without Holm's correction.

    Args:
        a: Values ``(n,)`` of one method, finite.
        b: Values ``(n,)`` of the other, the same seed at the same place.
        metric: Registry name.
        names: Names of the methods.
        confidence_level: Level of the interval, in ``(0, 1)``.
        test_share: As in :func:`paired_t_test`.
    """
    test = replace(
        paired_t_test(a, b, test_share=test_share),
        metric=metric,
        names=names,
        test_share=test_share,
    )
    # Without spread the test has nothing to divide by, and there is no interval.
    ends = (
        None
        if test.p_value is None
        else mean_interval(test.gaps, confidence_level=confidence_level, test_share=test_share)
    )
    return test if ends is None else replace(test, low=ends[0], high=ends[1])


def wilcoxon_test(a: Sequence[float], b: Sequence[float]) -> Difference:
    """Return the two-sided Wilcoxon signed-rank test that the differences ``a - b`` are symmetric about 0.

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
    pairs = check_pairs(a, b)
    differences = _tie_rounded_differences(pairs)
    moved = differences[differences != 0.0]
    if len(moved) == 0:
        return _test_result(pairs, 1.0)
    from scipy import stats

    # With ties, all assignments of signs are enumerated while they are few.
    tied = len(np.unique(np.abs(moved))) < len(moved) <= _ENUMERATED
    method = stats.PermutationMethod(n_resamples=2**_ENUMERATED) if tied else "auto"
    return _test_result(pairs, float(stats.wilcoxon(moved, method=method).pvalue))


def sign_test(a: Sequence[float], b: Sequence[float]) -> Difference:
    """Return the two-sided sign test that ``a`` and ``b`` are higher equally often.

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
    pairs = check_pairs(a, b)
    differences = _tie_rounded_differences(pairs)
    above = int((differences > 0).sum())
    below = int((differences < 0).sum())
    if above == below:
        return _test_result(pairs, 1.0)
    from scipy.special import bdtr

    return _test_result(pairs, 2.0 * float(bdtr(min(above, below), above + below, 0.5)))


def mean_interval(
    values: Sequence[float], *, confidence_level: float = 0.95, test_share: float | None = None
) -> tuple[float, float] | None:
    """Return Student's t interval of the mean over seeds, ``mean +/- t * sd / sqrt(n)``.

    An interval of paired differences includes 0 where :func:`~fedlas.stats.paired_t_test` has a p-value above
    ``1 - confidence_level``. It is about other seeds on the same test set; :func:`~fedlas.stats.bootstrap_interval` is
    about other samples for the same run.

    Args:
        values: ``(n,)``, finite, one for each seed.
        confidence_level: Confidence level in ``(0, 1)``.
        test_share: Of seeds that split the same data anew, as in :func:`~fedlas.stats.paired_t_test`.

    Returns:
        Both ends, in the unit of the values; None for one seed, and where all values are the same: there is no spread
        to measure.

    Raises:
        InputError: If there are no values, one is not finite, or the level or share is out of range.

    Example:
        >>> low, high = mean_interval([0.02, 0.03, 0.025])
        >>> round(low, 4), round(high, 4)
        (0.0126, 0.0374)

    Source:
        Student, "The probable error of a mean", Biometrika 6 (1908).
    """
    check_confidence_level(confidence_level)
    advice = "Drop the seeds without a value."
    numbers = check_values("values, one per seed,", values, advice).tolist()
    if not numbers:
        raise InputError("values must hold at least one value, one per seed", "none", advice)
    n = len(numbers)
    error = _relative_standard_error(n, test_share)
    spread = stdev(numbers) if n > 1 else 0.0
    # Values that differ by rounding alone have no spread either.
    if spread <= ROUNDING * max(map(abs, numbers)):
        return None
    mean = fmean(numbers)
    half = critical_t(confidence_level, n - 1) * spread * error
    return mean - half, mean + half


def _tie_rounded_differences(pairs: FloatArray) -> FloatArray:
    """Return ``a - b (n,)`` of pairs ``(n, 2)``, with sizes that differ by rounding set equal so that they tie."""
    # Accuracies on 360 images move in steps of 1/360, but their differences in floating point do not.
    differences = pairs[:, 0] - pairs[:, 1]
    noise = ROUNDING * float(np.abs(pairs).max())
    # Sorted sizes fall into groups whose neighbors differ by rounding; each takes the smallest size of its group.
    sizes = np.concatenate(([0.0], np.abs(differences)))
    order = np.argsort(sizes, kind="stable")
    ascending = sizes[order]
    starts = np.concatenate(([True], np.diff(ascending) > noise))
    sizes[order] = ascending[starts][np.cumsum(starts) - 1]
    return np.sign(differences) * sizes[1:]
