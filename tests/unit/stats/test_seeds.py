"""Paired tests over seeds against scipy and against enumerating all cases."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats as scipy_stats

from fedlas.errors import InputError
from fedlas.stats import compare_to_best, mean_interval, paired_t_test, sign_test, wilcoxon_test

EACH = pytest.mark.parametrize("test", [wilcoxon_test, sign_test], ids=lambda test: test.__name__)


def counted_signed_rank(differences):
    """P-value over all assignments of signs, written as the definition is."""
    d = [x for x in differences if x != 0]
    ranks = [
        sum(abs(y) < abs(x) for y in d) + (sum(abs(y) == abs(x) for y in d) + 1) / 2 for x in d
    ]
    center = sum(ranks) / 2
    observed = abs(sum(r for r, x in zip(ranks, d, strict=True) if x > 0) - center)
    cases = list(itertools.product([0, 1], repeat=len(d)))
    sums = [sum(r for r, s in zip(ranks, case, strict=True) if s) for case in cases]
    return sum(abs(each - center) >= observed for each in sums) / len(cases)


@given(st.lists(st.integers(-4, 4), min_size=1, max_size=9))
def test_wilcoxon_with_ties_and_zeros_is_counted_out(differences):
    found = wilcoxon_test([float(d) for d in differences], [0.0] * len(differences))
    expected = counted_signed_rank(differences) if any(differences) else 1.0
    assert found.p_value == pytest.approx(expected, rel=1e-12)
    assert (found.count, found.difference) == (
        len(differences),
        pytest.approx(np.mean(differences)),
    )


@pytest.mark.parametrize("n", [1, 2, 3, 10, 17, 40, 60])
def test_wilcoxon_without_ties_is_scipys(n):
    differences = np.random.default_rng(n).normal(0.3, 1, n)
    assert (
        wilcoxon_test(differences, np.zeros(n)).p_value == scipy_stats.wilcoxon(differences).pvalue
    )
    if n <= 10:
        assert wilcoxon_test(differences, np.zeros(n)).p_value == pytest.approx(
            counted_signed_rank(differences)
        )


@given(st.lists(st.integers(-2, 2), min_size=1, max_size=30))
def test_sign_test_is_a_binomial_test(differences):
    above, below = sum(d > 0 for d in differences), sum(d < 0 for d in differences)
    n = above + below
    tail = sum(math.comb(n, k) for k in range(min(above, below) + 1)) / 2**n
    expected = 1.0 if above == below else 2 * tail
    assert sign_test(differences, [0] * len(differences)).p_value == pytest.approx(expected)


@EACH
@pytest.mark.parametrize("n", [1, 2, 3, 5, 6, 8])
def test_the_smallest_p_value(test, n):
    """As the documentation says: 3 seeds give 0.25 at best, 5 give 0.0625, and 6 are needed for 0.05."""
    values = np.arange(1.0, n + 1)
    found = test(values, np.zeros(n)).p_value
    assert found == pytest.approx(2 / 2**n)
    assert (found <= 0.05) == (n >= 6)


@EACH
def test_rounding_makes_neither_differences_nor_breaks_ties(test):
    # Accuracies on 360 images: the differences are 2, 2, -2, 0 and 1 images, which floating point does not know.
    a, b = np.array([331, 325, 320, 340, 337]) / 360, np.array([329, 323, 322, 340, 336]) / 360
    assert len(set(np.abs(a - b))) > 3
    assert test(a, b).p_value == test([2, 2, -2, 0, 1], [0] * 5).p_value
    third = 0.1 + 0.2
    assert test([third] * 6, [0.3] * 6).p_value == 1.0


@EACH
def test_swapping_changes_the_sign_only(test):
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, 7))
    one, other = test(a, b), test(b, a)
    assert one.p_value == other.p_value
    assert one.difference == pytest.approx(-other.difference)


@pytest.mark.parametrize("function", [wilcoxon_test, sign_test], ids=lambda f: f.__name__)
@pytest.mark.parametrize(
    ("a", "b"), [([1.0], [1.0, 2.0]), ([], []), ([1.0, math.nan], [1.0, 2.0]), ([1.0], [math.inf])]
)
def test_values_are_checked(function, a, b):
    with pytest.raises(InputError, match=function.__name__):
        function(a, b)


@EACH
def test_methods_can_be_compared_with_these_tests(test):
    rng = np.random.default_rng(0)
    values = {f"m{i}": list(rng.normal(i, 0.1, 9)) for i in range(3)}
    result = compare_to_best(values, higher_is_better=True, test=test)
    assert (result.best, result.distinguishable) == ("m2", {"m0", "m1"})
    # Interval ends are NaN here, which from Python 3.13 on make two equal records differ.
    assert repr(result.tests["m0"]) == repr(test(values["m2"], values["m0"]))
    assert result.p_values["m0"] == pytest.approx(2 * 2 / 2**9)  # Holm: two methods
    three = {name: numbers[:3] for name, numbers in values.items()}
    assert not compare_to_best(three, higher_is_better=True, test=test).distinguishable


def test_the_interval_of_a_mean_is_scipys():
    values = [0.3, 0.9, 0.4, 0.7]
    error = float(scipy_stats.sem(values))
    for confidence_level in (0.9, 0.95):
        expected = scipy_stats.t.interval(confidence_level, 3, loc=np.mean(values), scale=error)
        assert mean_interval(values, confidence_level=confidence_level) == pytest.approx(
            expected, rel=1e-12
        )


def test_without_a_spread_there_is_no_interval():
    assert mean_interval([0.3]) is None
    assert mean_interval([0.3, 0.3, 0.3]) is None
    assert mean_interval([0.0, 0.0]) is None
    for values in ([], [0.1, math.nan]):
        with pytest.raises(InputError, match="one per seed"):
            mean_interval(values)
    with pytest.raises(InputError, match=r"confidence_level must be a finite number in \(0, 1\)"):
        mean_interval([0.1, 0.2], confidence_level=1.0)


@pytest.mark.parametrize("test", [paired_t_test, wilcoxon_test, sign_test])
@pytest.mark.parametrize("value", [1e308, -1e308, 1.1e150, 10**400, "high", None])
def test_overflowing_and_non_numeric_values_raise(test, value):
    for pair in (([value, 1.0, 2.0], [0.0, 0.0, 0.0]), ([0.0, 0.0, 0.0], [value, 1.0, 2.0])):
        with pytest.raises(InputError, match=r"[ab] .*finite .*1e\+150"):
            test(*pair)
    with pytest.raises(InputError, match=r"values, .*finite numbers"):
        mean_interval([value, 1.0])
    with pytest.raises(InputError, match="finite numbers"):
        compare_to_best({"a": [value, 1.0], "b": [1.0, 2.0]}, higher_is_better=True, test=test)


@pytest.mark.parametrize("test", [paired_t_test, wilcoxon_test, sign_test])
def test_the_largest_values_can_be_tested(test):
    found = test([1e150, 0.9e150, 0.95e150], [-1e150, -1e150, -1e150])
    assert found.p_value == pytest.approx(test([1.0, 0.9, 0.95], [-1.0, -1.0, -1.0]).p_value)
    assert found.difference == pytest.approx(1.95e150)
