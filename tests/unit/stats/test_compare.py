"""Paired tests against scipy, against arithmetic done by hand, and against what they promise."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats as scipy_stats

from fedlas.errors import InputError
from fedlas.stats import compare_to_best, holm, paired_t_test

number = st.floats(-1e3, 1e3, allow_nan=False)


@given(st.lists(st.tuples(number, number), min_size=2, max_size=8))
def test_t_test_matches_scipy_with_spread(pairs):
    a, b = zip(*pairs, strict=True)
    ours = paired_t_test(a, b)
    assert ours.count == len(pairs)
    differences = np.subtract(a, b)
    if differences.std() > 1e-6 * max(1.0, np.abs([a, b]).max()):
        assert ours.p_value == pytest.approx(
            scipy_stats.ttest_rel(a, b).pvalue, rel=1e-6, abs=1e-12
        )
        assert ours.reason == ""
    else:
        assert ours.p_value is None or 0.0 <= ours.p_value <= 1.0


def test_t_test_by_hand():
    # differences 1, 2, 3: mean 2, sd 1, t = 2 sqrt(3), and for 2 degrees of freedom p = 1 - t / sqrt(t^2 + 2)
    test = paired_t_test([2.0, 4.0, 6.0], [1.0, 2.0, 3.0])
    t = 2 * math.sqrt(3)
    assert test.difference == 2.0
    assert test.p_value == pytest.approx(1 - t / math.sqrt(t * t + 2), rel=1e-12)


def test_equal_values_are_no_evidence():
    assert paired_t_test([0.1, 0.2], [0.1, 0.2]).p_value == 1.0


@pytest.mark.parametrize("offset", [1 / 360, 1e-9, 5.0])
def test_constant_difference_is_not_certainty(offset):
    a = np.array([0.91, 0.923, 0.897])
    test = paired_t_test(a + offset, a)
    assert test.p_value is None
    assert "same amount" in test.reason
    assert test.difference == pytest.approx(offset)


def test_one_pair_cannot_be_tested():
    test = paired_t_test([0.9], [0.1])
    assert test.p_value is None
    assert test.count == 1


@pytest.mark.parametrize(
    ("a", "b"), [([1.0], [1.0, 2.0]), ([], []), ([1.0, math.nan], [1.0, 2.0]), ([1.0], [math.inf])]
)
def test_t_test_refuses(a, b):
    with pytest.raises(InputError, match="paired_t_test"):
        paired_t_test(a, b)


def test_holm_by_hand():
    assert holm([0.01, 0.02, 0.03, 0.5]) == pytest.approx([0.04, 0.06, 0.06, 0.5])
    assert holm([0.9, 0.8]) == pytest.approx([1.0, 1.0])
    assert holm([]) == []


@given(st.lists(st.floats(0, 1), min_size=1, max_size=7))
def test_holm_keeps_order_between_raw_and_bonferroni(p_values):
    adjusted = holm(p_values)
    for p, q in zip(p_values, adjusted, strict=True):
        assert p <= q <= 1.0
    pairs = sorted(zip(p_values, adjusted, strict=True))
    assert [q for _, q in pairs] == sorted(adjusted)
    assert adjusted[int(np.argmin(p_values))] == pytest.approx(
        min(1.0, len(p_values) * min(p_values))
    )


@pytest.mark.parametrize("bad", [-0.1, 1.1, math.nan])
def test_holm_refuses(bad):
    with pytest.raises(InputError, match=r"p_values\[1\]"):
        holm([0.1, bad])


def test_best_follows_the_direction():
    values = {"low": [0.1, 0.11, 0.12], "high": [0.9, 0.93, 0.91]}
    assert compare_to_best(values, higher_is_better=True).best == "high"
    result = compare_to_best(values, higher_is_better=False)
    assert (result.best, result.distinguishable) == ("low", frozenset({"high"}))
    assert result.tests["high"].difference < 0


def test_every_method_is_in_exactly_one_set():
    rng = np.random.default_rng(3)
    values = {f"m{i}": list(rng.normal(i / 3, 0.1, 4)) for i in range(5)}
    values["twin"] = [v + 0.5 for v in values["m0"]]
    values["m0-again"] = list(values["m0"])
    result = compare_to_best(values, higher_is_better=False)
    parts = [{result.best}, result.not_distinguishable, result.distinguishable, result.untested]
    assert set().union(*parts) == set(values)
    assert sum(map(len, parts)) == len(values)


def test_exact_ties_keep_order_and_are_not_distinguishable():
    result = compare_to_best({"b": [1.0, 2.0], "a": [1.0, 2.0]}, higher_is_better=True)
    assert (result.best, result.not_distinguishable, dict(result.p_values)) == (
        "b",
        {"a"},
        {"a": 1.0},
    )


def test_one_seed_tests_nothing_and_says_so():
    result = compare_to_best({"a": [1.0], "b": [2.0], "c": [3.0]}, higher_is_better=True)
    assert result.best == "c"
    assert result.untested == {"a", "b"}
    assert not result.p_values
    assert "one seed" in result.reason


def test_constant_difference_is_untested_without_cost_to_others():
    values = {"best": [1.0, 1.1, 1.3], "shifted": [1.5, 1.6, 1.8], "worse": [2.0, 2.12, 2.3]}
    result = compare_to_best(values, higher_is_better=False)
    assert result.untested == {"shifted"}
    assert "shifted" in result.reason
    assert result.p_values["worse"] == paired_t_test(values["best"], values["worse"]).p_value


def test_missing_seeds_are_left_out_for_all():
    values = {"a": [1.0, 2.0, 9.0], "b": [1.5, 2.6, math.nan]}
    result = compare_to_best(values, higher_is_better=True)
    assert (result.best, result.n) == ("b", 2)  # without the third seed, which only "a" has
    disjoint = compare_to_best({"a": [1.0, math.nan], "b": [math.nan, 2.0]}, higher_is_better=True)
    assert disjoint.best is None
    assert disjoint.untested == {"a", "b"}


def test_one_method_is_best_of_one():
    result = compare_to_best({"only": [1.0, 2.0]}, higher_is_better=True)
    assert (result.best, result.reason) == ("only", "")


@pytest.mark.parametrize(
    ("values", "alpha"),
    [
        ({}, 0.05),
        ({"a": [1.0], "b": [1.0, 2.0]}, 0.05),
        ({"a": [math.inf]}, 0.05),
        ({"a": [1.0]}, 0),
        ({"a": [1.0]}, 2),
    ],
)
def test_comparison_refuses(values, alpha):
    with pytest.raises(InputError, match="compare_to_best"):
        compare_to_best(values, higher_is_better=True, alpha=alpha)


def test_the_test_errs_as_often_as_it_says():
    rng = np.random.default_rng(0)
    draws = rng.normal(size=(3000, 2, 3))
    errors = sum(paired_t_test(a, b).p_value <= 0.05 for a, b in draws)
    # binomial(3000, 0.05): sd 12, so 4 sd is 48
    assert abs(errors - 150) < 48


@pytest.mark.system
@pytest.mark.parametrize(
    "means", [(0, 0), (0, 0, 0, 0, 0, 0), (0, 0, 0, -9, -9, -9), (0.5, 0, 0, 0, 0, 0)]
)
def test_true_best_is_rejected_less_often_than_alpha(means):
    rng = np.random.default_rng(1)
    repeats = 600
    draws = rng.normal(size=(repeats, len(means), 3)) + np.asarray(means)[:, None]
    lost = sum(
        0
        in compare_to_best(
            dict(enumerate(draw.tolist())), higher_is_better=True, alpha=0.05
        ).distinguishable
        for draw in draws
    )
    assert lost <= 0.05 * repeats


def test_among_equal_methods_few_are_set_apart():
    rng = np.random.default_rng(2)
    draws = rng.normal(size=(600, 6, 3))
    wrong = sum(
        bool(compare_to_best(dict(enumerate(draw.tolist())), higher_is_better=True).distinguishable)
        for draw in draws
    )
    assert 0.04 < wrong / 600 < 0.12  # the docstring says about 8 of 100
