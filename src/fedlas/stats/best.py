"""Comparison of several methods run with the same seeds against the best one."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import TYPE_CHECKING

from fedlas._core.check import InputError, check_number
from fedlas._core.kinds import check_argument_types
from fedlas.stats.compare import check_values, holm, paired_t_test

if TYPE_CHECKING:
    from fedlas.stats.difference import Difference


@dataclass(frozen=True)
class BestMethod:
    """The method with the best mean, and the methods that are not significantly worse.

    Attributes:
        best: Method with the best mean over the common seeds (the first one among equals); None if no seed is common.
        not_distinguishable: Methods whose difference from the best is not significant. Absence of evidence: few seeds
            find few differences.
        distinguishable: Methods significantly worse than the best.
        untested: Methods for which there was no test; ``reason`` says why.
        p_values: Holm-adjusted p-value of each tested method.
        tests: The difference of each other method from the best, ``best - other``, without Holm's correction.
        n: Number of seeds all methods have, on which everything here rests.
        alpha: Significance level.
        reason: Why methods are untested, as a sentence; empty when all were tested.
    """

    best: str | None
    not_distinguishable: frozenset[str]
    distinguishable: frozenset[str]
    untested: frozenset[str]
    p_values: Mapping[str, float]
    tests: Mapping[str, Difference]
    n: int
    alpha: float
    reason: str = ""


@check_argument_types
def compare_to_best(
    values: Mapping[str, Sequence[float]],
    *,
    higher_is_better: bool,
    alpha: float = 0.05,
    test: Callable[[Sequence[float], Sequence[float]], Difference] = paired_t_test,
) -> BestMethod:
    """Find the method with the best mean over the common seeds and test every other method against it.

    Args:
        values: For each method its values ``(n,)``, the same seed at the same place; NaN where a seed is missing. A
            seed that any method lacks is left out for all.
        higher_is_better: True for accuracy, False for errors and losses.
        alpha: Significance level in ``(0, 1)``.
        test: Paired test of the best against another; also :func:`~fedlas.stats.wilcoxon_test`,
            :func:`~fedlas.stats.sign_test`.

    Returns:
        The comparison. With one common seed nothing can be tested: all others are ``untested``.

    Raises:
        InputError: If there are no methods, lengths differ, a value is infinite, or the level is out of range.

    Note:
        What ``alpha`` promises with the t-test: if the seeds' differences are normal, the truly best method is among
        ``best`` and ``not_distinguishable`` with probability at least ``1 - alpha``. The best is chosen with the data
        it is then tested on, so this is not the chance that *no* method is wrongly set apart: among six exactly equal
        methods and three seeds some method is in about 8 of 100 comparisons. The other tests need no normal
        differences, but below 6 seeds they set no method apart at level 0.05: they cannot give a p-value that low.

    Example:
        >>> result = compare_to_best(
        ...     {"ce": [0.041, 0.043, 0.042], "ls": [0.012, 0.011, 0.013], "fedlas": [0.011, 0.012, 0.011]},
        ...     higher_is_better=False,
        ... )
        >>> result.best, sorted(result.not_distinguishable), sorted(result.distinguishable)
        ('fedlas', ['ls'], ['ce'])

    Source:
        Hsu, "Multiple Comparisons: Theory and Methods" (1996), on comparison with the best.
    """
    alpha = check_number("alpha", alpha, low=0.0, high=1.0, low_open=True)
    checked = {
        name: check_values(
            f"the values of {name!r}", numbers, "Pass NaN for a missing seed.", allow_nan=True
        )
        for name, numbers in values.items()
    }
    lengths = {name: len(numbers) for name, numbers in checked.items()}
    if not lengths or len(set(lengths.values())) != 1:
        raise InputError(
            "values must hold at least one method, and equally many values for every method",
            lengths or "none",
            "Pass NaN for a seed that a method lacks.",
        )
    # A seed that one method lacks is dropped for all, so that every test is over the same seeds.
    columns = [
        column
        for column in zip(*checked.values(), strict=True)
        if not any(math.isnan(v) for v in column)
    ]
    others = frozenset(values)
    if not columns:
        reason = "No seed is common to all methods, so no best method can be chosen."
        return BestMethod(None, frozenset(), frozenset(), others, {}, {}, 0, alpha, reason)
    common = {name: [column[i] for column in columns] for i, name in enumerate(values)}
    sign = 1.0 if higher_is_better else -1.0
    # Of equal means max takes the first, so the given order decides.
    best = max(common, key=lambda name: sign * fmean(common[name]))
    tests = {name: test(common[best], common[name]) for name in common if name != best}
    # Holm's correction counts only the tests that were made: an untested method is no claim that could be false.
    raw = {name: test.p_value for name, test in tests.items() if test.p_value is not None}
    p_values = dict(zip(raw, holm(list(raw.values())), strict=True))
    untested = frozenset(tests) - frozenset(raw)
    worse = frozenset(name for name, p in p_values.items() if p <= alpha)
    if untested and len(columns) == 1:
        reason = "All methods share only one seed, so no difference can be tested."
    elif untested:
        names = ", ".join(n for n in tests if n in untested)
        reason = (
            f"{names}: same difference from {best} at every seed, so there is no spread to test it."
        )
    else:
        reason = ""
    return BestMethod(
        best,
        frozenset(p_values) - worse,
        worse,
        untested,
        p_values,
        tests,
        len(columns),
        alpha,
        reason,
    )
