"""Ranks of methods over data sets: Friedman's test, Nemenyi's critical difference, Wilcoxon tests with Holm."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Literal

import numpy as np

from fedlas._core.check import InputError, check_choice, check_number
from fedlas._core.kinds import check_argument_types
from fedlas.stats.compare import check_values, holm, wilcoxon_test

RankTest = Literal["nemenyi", "wilcoxon"]


@dataclass(frozen=True)
class RankComparison:
    """Mean ranks of methods over data sets, and the tests of their differences.

    Attributes:
        ranks: Mean rank of each method, the best (lowest) first; 1 is the best possible.
        n: Number of data sets.
        friedman_p: P-value of the hypothesis that all methods are equal, by the F statistic of Iman and Davenport.
        critical_difference: Difference of two mean ranks from which Nemenyi's test calls two methods different.
        p_values: P-value of each pair by Wilcoxon's signed-rank test over the data sets, Holm-corrected over all pairs.
        alpha: Significance level.
    """

    ranks: Mapping[str, float]
    n: int
    friedman_p: float
    critical_difference: float
    p_values: Mapping[tuple[str, str], float]
    alpha: float

    def distinguishable(self, first: str, second: str, test: RankTest = "nemenyi") -> bool:
        """Return whether two methods differ significantly by Nemenyi's test, or by Wilcoxon's with Holm.

        Raises:
            InputError: For an unknown method or test.
        """
        for argument, method in (("first", first), ("second", second)):
            check_choice(argument, method, self.ranks)
        if check_choice("test", test, ("nemenyi", "wilcoxon")) == "wilcoxon":
            pair = (first, second) if (first, second) in self.p_values else (second, first)
            return self.p_values.get(pair, 1.0) <= self.alpha
        return abs(self.ranks[first] - self.ranks[second]) >= self.critical_difference

    def groups(self, test: RankTest = "nemenyi") -> list[tuple[str, ...]]:
        """Return the maximal groups of at least two methods, adjacent in rank, that do not differ significantly."""
        names = list(self.ranks)
        cliques: list[tuple[str, ...]] = []
        last = 0
        for start in range(len(names)):
            end = start + 1
            while end < len(names) and not any(
                self.distinguishable(name, names[end], test) for name in names[start:end]
            ):
                end += 1
            # A group inside the one before says nothing new.
            if end - start > 1 and end > last:
                cliques.append(tuple(names[start:end]))
            last = max(last, end)
        return cliques


@check_argument_types
def compare_ranks(
    values: Mapping[str, Sequence[float]], *, higher_is_better: bool, alpha: float = 0.05
) -> RankComparison:
    """Rank methods on each data set and test the differences of mean ranks.

    Args:
        values: For each method one value per data set ``(n,)``, such as a mean over seeds; the same data set at the
            same place. At least two methods and two data sets.
        higher_is_better: True for accuracy, False for errors and losses.
        alpha: Significance level in ``(0, 1)``.

    Returns:
        The comparison. Equal values share their mean rank.

    Raises:
        InputError: For fewer methods or data sets, lengths that differ, values that are not finite, or a level out of
            range.

    Note:
        Data sets are the sample: a result speaks of data sets like these. With fewer than 6 of them no pair is
        distinguishable by Wilcoxon's test at 0.05, and Friedman's F is an approximation that is rough below 10.

    Example:
        >>> auc = {"a": [0.9, 0.8, 0.7, 0.9], "b": [0.8, 0.7, 0.6, 0.8], "c": [0.7, 0.6, 0.8, 0.7]}
        >>> result = compare_ranks(auc, higher_is_better=True)
        >>> result.ranks, round(result.critical_difference, 2)
        ({'a': 1.25, 'b': 2.25, 'c': 2.5}, 1.66)

    Source:
        Demsar, "Statistical Comparisons of Classifiers over Multiple Data Sets", JMLR 7 (2006).
    """
    alpha = check_number("alpha", alpha, low=0.0, high=1.0, low_open=True, high_open=True)
    rows = [
        check_values(f"values of {m!r}", v, "Leave out data sets with such values.")
        for m, v in values.items()
    ]
    sizes = {len(row) for row in rows}
    k = len(rows)
    n = min(sizes, default=0)
    if k < 2 or n < 2 or len(sizes) > 1:
        raise InputError(
            "values must hold at least two methods and at least two data sets, with a value for each pair",
            {name: len(row) for name, row in zip(values, rows, strict=True)},
            "Leave out data sets that a method lacks.",
        )
    from scipy import stats

    scores = np.stack(rows, axis=1) * (-1.0 if higher_is_better else 1.0)
    ranks = stats.rankdata(scores, axis=1)
    means = ranks.mean(axis=0)
    # Friedman's statistic with its correction for ties, then F of Iman and Davenport.
    spread = float(((ranks - (k + 1) / 2) ** 2).sum()) / (n * (k - 1))
    chi2 = n * float(((means - (k + 1) / 2) ** 2).sum()) / spread if spread else 0.0
    rest = n * (k - 1) - chi2
    statistic = (n - 1) * chi2 / rest if rest > 1e-9 else math.inf
    q = stats.studentized_range.isf(alpha, k, math.inf) / math.sqrt(2)
    pairs = list(combinations(values, 2))
    tests = [wilcoxon_test(values[a], values[b]).p_value or 0.0 for a, b in pairs]
    order = sorted(zip(means.tolist(), values, strict=True), key=lambda each: each[0])
    return RankComparison(
        {name: rank for rank, name in order},
        n,
        float(stats.f.sf(statistic, k - 1, (k - 1) * (n - 1))),
        float(q) * math.sqrt(k * (k + 1) / (6 * n)),
        dict(zip(pairs, holm(tests), strict=True)),
        alpha,
    )
