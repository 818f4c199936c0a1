import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats as scipy_stats
from sklearn.metrics import roc_auc_score

from fedlas.diagnose import associations


@given(
    values=st.lists(st.integers(-5, 5), min_size=4, max_size=40),
    others=st.lists(st.integers(-5, 5), min_size=40, max_size=40),
    truth=st.lists(st.booleans(), min_size=40, max_size=40),
)
def test_values_are_those_of_scipy_and_scikit_learn(values, others, truth):
    """Integers in a small range: many ties."""
    x, y = np.array(values, float), np.array(others[: len(values)], float)
    right = np.array(truth[: len(values)])
    for options in ({"replicates": 39}, {"method": "jackknife"}):
        found = associations(x, y, **options)
        if x.std() and y.std():
            assert found.pearson.value == pytest.approx(scipy_stats.pearsonr(x, y)[0], abs=1e-9)
            assert found.spearman.value == pytest.approx(scipy_stats.spearmanr(x, y)[0], abs=1e-9)
        else:
            assert np.isnan(found.pearson.value)
            assert np.isnan(found.spearman.value)
        assert found.auroc is None
        auroc = associations(x, right, **options).auroc.value
        if right.all() or not right.any():
            assert np.isnan(auroc)
        else:
            assert auroc == pytest.approx(roc_auc_score(right, x), abs=1e-12)


def test_a_replicate_is_what_resampling_by_hand_gives():
    rng = np.random.default_rng(3)
    x, truth = rng.integers(0, 9, 60).astype(float), rng.random(60) < 0.6
    found = associations(x, truth, replicates=199, seed=5)
    drawn = np.random.default_rng(5).integers(60, size=(199, 60))
    auroc = np.sort([roc_auc_score(truth[rows], x[rows]) for rows in drawn])
    spearman = np.sort([scipy_stats.spearmanr(x[rows], truth[rows])[0] for rows in drawn])
    assert (found.auroc.low, found.auroc.high) == pytest.approx((auroc[4], auroc[-5]), abs=1e-12)
    assert (found.spearman.low, found.spearman.high) == pytest.approx((spearman[4], spearman[-5]), abs=1e-9)


@pytest.mark.parametrize("method", ["bootstrap", "jackknife"])
def test_intervals_hold_the_truth_about_as_often_as_they_say(method):
    """Bivariate normal with correlation 0.6; coverage of 95 % intervals over 200 draws."""
    rng, hits = np.random.default_rng(0), 0
    for seed in range(200):
        x = rng.normal(size=150)
        y = 0.6 * x + 0.8 * rng.normal(size=150)
        found = associations(x, y, replicates=199, seed=seed, method=method).pearson
        hits += found.low <= 0.6 <= found.high
    assert 0.88 <= hits / 200 <= 0.99


def without(array, row):
    return np.delete(array, row)


@pytest.mark.parametrize("truth", [False, True])
def test_the_infinitesimal_jackknife_is_the_limit_of_the_one_that_leaves_samples_out(truth):
    """Many ties, and values far from normal; the classical jackknife's error by 300 computations without one sample."""
    rng = np.random.default_rng(7)
    x = np.round(rng.standard_t(4, size=300), 1)
    y = rng.random(300) < 1 / (1 + np.exp(-x)) if truth else np.round(x + rng.exponential(2, size=300))
    found = associations(x, y, method="jackknife")
    measures = {
        "pearson": lambda a, b: scipy_stats.pearsonr(a, b)[0],
        "spearman": lambda a, b: scipy_stats.spearmanr(a, b)[0],
    }
    if truth:
        measures["auroc"] = lambda a, b: roc_auc_score(b, a)
    for name, measure in measures.items():
        left_out = np.array([measure(without(x, row), without(y, row)) for row in range(300)])
        error = np.sqrt(299 / 300 * ((left_out - left_out.mean()) ** 2).sum())
        assert getattr(found, name).standard_error == pytest.approx(error, rel=0.02)


def test_both_methods_give_about_the_same_interval():
    rng = np.random.default_rng(2)
    x = np.round(rng.normal(size=1500), 1)
    y = rng.random(1500) < 1 / (1 + np.exp(-x - 1))
    drawn, computed = (associations(x, y, method=method, replicates=999) for method in ("bootstrap", "jackknife"))
    for name in ("pearson", "spearman", "auroc"):
        a, b = getattr(drawn, name), getattr(computed, name)
        width = a.high - a.low
        assert (b.low, b.high) == pytest.approx((a.low, a.high), abs=0.1 * width)


def test_the_jackknife_stays_in_range_and_says_nothing_of_a_single_positive():
    x = np.arange(20.0)
    assert associations(x, 2 * x, method="jackknife").pearson.high == pytest.approx(1.0, abs=1e-12)
    split = associations(x, x > 9, method="jackknife").auroc
    assert (split.low, split.value, split.high) == (1.0, 1.0, 1.0)
    single = associations(x, x == 12, method="jackknife").auroc
    assert single.value == pytest.approx(12 / 19)
    assert np.isnan(single.low)
    close = associations(x, x + np.array([0.0, 8.0] * 10), method="jackknife").spearman
    assert -1 < close.low < close.value < close.high < 1


def test_a_constant_score_has_no_number_and_no_interval():
    for method in ("bootstrap", "jackknife"):
        found = associations(torch.full((20,), 0.1), torch.arange(20) % 2 == 0, replicates=50, method=method)
        assert np.isnan(found.pearson.value)
        assert np.isnan(found.spearman.low)
        assert found.auroc.value == 0.5


def test_large_offsets_do_not_cost_digits():
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=200), rng.normal(size=200)
    for options in ({"replicates": 39}, {"method": "jackknife"}):
        far = associations(x + 1e8, y, **options).pearson
        assert far.value == pytest.approx(associations(x, y, **options).pearson.value, abs=1e-6)


@pytest.mark.parametrize(
    ("score", "value", "match"),
    [
        (torch.ones(3), torch.ones(4), "at least 3 samples"),
        (torch.ones(2), torch.ones(2), "at least 3 samples"),
        (torch.ones(3, 1), torch.ones(3, 1), "at least 3 samples"),
        (torch.tensor([1.0, 2.0, float("nan")]), torch.ones(3), "finite"),
    ],
)
def test_refuses_what_is_no_number_a_sample(score, value, match):
    with pytest.raises(ValueError, match=match):
        associations(score, value)
    with pytest.raises(ValueError, match=match):
        associations(score, value, method="jackknife")


def test_refuses_another_method():
    with pytest.raises(ValueError, match="bootstrap, jackknife"):
        associations(torch.arange(4.0), torch.arange(4.0), method="jack")


def test_the_jackknife_takes_every_level_and_counts_no_replicates():
    rng = np.random.default_rng(4)
    x, y = rng.normal(size=50), rng.normal(size=50)
    narrow, wide, widest = (
        associations(x, y, method="jackknife", replicates=1, confidence_level=confidence_level).pearson
        for confidence_level in (0.5, 0.999, 1 - 2**-53)
    )
    assert widest.low < wide.low < narrow.low < narrow.value < narrow.high < wide.high < widest.high
    with pytest.raises(ValueError, match="confidence_level"):
        associations(x, y, method="jackknife", confidence_level=1.0)


@pytest.mark.parametrize("factor", [2.0**-540, 2.0**500])
def test_scale_changes_nothing(factor):
    rng = np.random.default_rng(5)
    x, y = rng.normal(size=60), rng.normal(size=60)
    for options in ({"replicates": 39}, {"method": "jackknife"}):
        far, near = (associations(f * x, f * y, **options).pearson for f in (factor, 1.0))
        assert (far.value, far.low, far.high) == (near.value, near.low, near.high)
