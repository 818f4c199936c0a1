import math

import numpy as np
import pytest
from scipy import stats

from fedlas.errors import InputError
from fedlas.stats import compare_ranks, holm, wilcoxon_test

AUC = {
    "C4.5": [0.763, 0.599, 0.954, 0.628, 0.882, 0.936, 0.661, 0.583, 0.775, 1.0, 0.940, 0.619, 0.972, 0.957],
    "C4.5+m": [0.768, 0.591, 0.971, 0.661, 0.888, 0.931, 0.668, 0.583, 0.838, 1.0, 0.962, 0.666, 0.981, 0.978],
    "C4.5+cf": [0.771, 0.590, 0.968, 0.654, 0.886, 0.916, 0.609, 0.563, 0.866, 1.0, 0.965, 0.614, 0.975, 0.946],
}  # fmt: skip


@pytest.mark.parametrize(
    ("k", "q"), [(2, 1.960), (3, 2.343), (4, 2.569), (5, 2.728), (6, 2.850), (10, 3.164)]
)
def test_critical_difference_matches_demsar_table_5(k, q):
    random = np.random.default_rng(0)
    values = {f"m{i}": random.random(14).tolist() for i in range(k)}
    result = compare_ranks(values, higher_is_better=False)
    assert result.critical_difference == pytest.approx(q * math.sqrt(k * (k + 1) / 84), rel=6e-4)


@pytest.fixture(scope="module")
def result():
    return compare_ranks(AUC, higher_is_better=True)


def test_ranks_and_friedman_are_those_of_scipy(result):
    ranks = stats.rankdata(-np.array(list(AUC.values())), axis=0).mean(axis=1)
    assert result.ranks == pytest.approx(dict(zip(AUC, ranks, strict=True)))
    assert list(result.ranks.values()) == sorted(ranks)
    chi2 = stats.friedmanchisquare(*AUC.values()).statistic
    k, n = 3, 14
    statistic = (n - 1) * chi2 / (n * (k - 1) - chi2)  # Iman and Davenport
    assert result.friedman_p == pytest.approx(stats.f.sf(statistic, k - 1, (k - 1) * (n - 1)))


def test_pairs_have_wilcoxon_with_holm(result):
    pairs = [("C4.5", "C4.5+m"), ("C4.5", "C4.5+cf"), ("C4.5+m", "C4.5+cf")]
    raw = [wilcoxon_test(AUC[a], AUC[b]).p_value for a, b in pairs]
    assert list(result.p_values) == pairs
    assert list(result.p_values.values()) == holm(raw)
    assert result.distinguishable("C4.5+m", "C4.5", "wilcoxon") == (holm(raw)[0] <= 0.05)


def test_groups_are_the_largest_without_a_difference():
    base = np.arange(12.0)
    values = {"a": base, "b": base + 0.1, "c": base + 30, "d": base + 31}
    result = compare_ranks(values, higher_is_better=False)
    assert result.ranks == {"a": 1, "b": 2, "c": 3, "d": 4}
    assert result.critical_difference == pytest.approx(1.354, abs=1e-3)
    assert result.groups() == [("a", "b"), ("b", "c"), ("c", "d")]
    assert result.groups("wilcoxon") == []
    assert result.friedman_p == 0.0


def test_equal_methods_are_one_group():
    result = compare_ranks({key: [0.1, 0.2, 0.3] for key in "abc"}, higher_is_better=True)
    assert set(result.ranks.values()) == {2.0}
    assert result.friedman_p == 1.0
    assert result.groups() == result.groups("wilcoxon") == [("a", "b", "c")]


@pytest.mark.parametrize(
    ("values", "options", "match"),
    [
        ({"a": [1, 2]}, {}, "at least two methods"),
        ({"a": [1], "b": [2]}, {}, "at least two data sets"),
        ({"a": [1, 2], "b": [2]}, {}, "got {'a': 2, 'b': 1}"),
        ({"a": [1, math.nan], "b": [2, 3]}, {}, "values of 'a' must be finite"),
        ({"a": [1, 2], "b": [2, 3]}, {"alpha": 1}, "alpha"),
    ],
)
def test_what_cannot_be_ranked(values, options, match):
    with pytest.raises(InputError, match=match):
        compare_ranks(values, higher_is_better=True, **options)


def test_an_unknown_test_is_refused(result):
    with pytest.raises(InputError, match="nemenyi"):
        result.groups("bonferroni")
