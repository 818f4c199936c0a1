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
    result = associations(x, y)
    if x.std() and y.std():
        assert result.pearson.value == pytest.approx(scipy_stats.pearsonr(x, y)[0], abs=1e-9)
        assert result.spearman.value == pytest.approx(scipy_stats.spearmanr(x, y)[0], abs=1e-9)
    else:
        assert np.isnan(result.pearson.value)
        assert np.isnan(result.spearman.value)
    assert result.auroc is None
    auroc = associations(x, right).auroc.value
    if right.all() or not right.any():
        assert np.isnan(auroc)
    else:
        assert auroc == pytest.approx(roc_auc_score(right, x), abs=1e-12)


def test_interval_coverage_is_near_nominal():
    """Bivariate normal with correlation 0.6; coverage of 95 % intervals over 200 draws."""
    rng, hits = np.random.default_rng(0), 0
    for _ in range(200):
        x = rng.normal(size=150)
        y = 0.6 * x + 0.8 * rng.normal(size=150)
        found = associations(x, y).pearson
        hits += found.low <= 0.6 <= found.high
    assert 0.88 <= hits / 200 <= 0.99


def without(array, row):
    return np.delete(array, row)


@pytest.mark.parametrize("truth", [False, True])
def test_infinitesimal_jackknife_matches_leave_one_out(truth):
    """Many ties, and values far from normal; the classical jackknife's error by 300 computations without one sample."""
    rng = np.random.default_rng(7)
    x = np.round(rng.standard_t(4, size=300), 1)
    y = (
        rng.random(300) < 1 / (1 + np.exp(-x))
        if truth
        else np.round(x + rng.exponential(2, size=300))
    )
    found = associations(x, y)
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


def test_the_bootstrap_gives_about_the_same_interval():
    rng = np.random.default_rng(2)
    x = np.round(rng.normal(size=800), 1)
    y = rng.random(800) < 1 / (1 + np.exp(-x - 1))
    rows = rng.integers(800, size=(600, 800))
    measures = {
        "pearson": [np.corrcoef(x[i], y[i])[0, 1] for i in rows],
        # a boolean is its own rank
        "spearman": [np.corrcoef(scipy_stats.rankdata(x[i]), y[i])[0, 1] for i in rows],
        "auroc": [scipy_stats.rankdata(x[i])[y[i]].sum() / (y[i].sum() * (~y[i]).sum())
                  - (y[i].sum() + 1) / (2 * (~y[i]).sum()) for i in rows],
    }  # fmt: skip
    for name, values in measures.items():
        interval = getattr(associations(x, y), name)
        low, high = np.quantile(values, [0.025, 0.975])
        assert (interval.low, interval.high) == pytest.approx((low, high), abs=0.15 * (high - low))


def test_interval_stays_in_range_without_single_positive():
    x = np.arange(20.0)
    assert associations(x, 2 * x).pearson.high == pytest.approx(1.0, abs=1e-12)
    split = associations(x, x > 9).auroc
    assert (split.low, split.value, split.high) == (1.0, 1.0, 1.0)
    single = associations(x, x == 12).auroc
    assert single.value == pytest.approx(12 / 19)
    assert np.isnan(single.low)
    close = associations(x, x + np.array([0.0, 8.0] * 10)).spearman
    assert -1 < close.low < close.value < close.high < 1


def test_constant_score_has_no_correlation():
    result = associations(torch.full((20,), 0.1), torch.arange(20) % 2 == 0)
    assert np.isnan(result.pearson.value)
    assert np.isnan(result.spearman.low)
    assert result.auroc.value == 0.5


@pytest.mark.parametrize(
    "as_boolean", [list, np.array, torch.tensor], ids=["list", "array", "tensor"]
)
def test_booleans_have_an_auroc(as_boolean):
    assert associations([1.0, 2.0, 3.0], as_boolean([False, True, True])).auroc.value == 1.0
    assert associations([1.0, 2.0, 3.0], [0, 1, 1]).auroc is None


def test_large_offsets_do_not_cost_digits():
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=200), rng.normal(size=200)
    assert associations(x + 1e8, y).pearson.value == pytest.approx(
        associations(x, y).pearson.value, abs=1e-6
    )


@pytest.mark.parametrize(
    ("score", "value", "match"),
    [
        (torch.ones(3), torch.ones(4), "N at least 3"),
        (torch.ones(2), torch.ones(2), "N at least 3"),
        (torch.ones(3, 1), torch.ones(3, 1), "N at least 3"),
        (torch.tensor([1.0, 2.0, float("nan")]), torch.ones(3), "finite"),
        ("abc", torch.ones(3), "N at least 3"),
        (torch.ones(3), None, "N at least 3|must be"),
    ],
)
def test_refuses_what_is_no_number_a_sample(score, value, match):
    with pytest.raises(ValueError, match=match):
        associations(score, value)


def test_interval_level_and_zero_replicates():
    rng = np.random.default_rng(4)
    x, y = rng.normal(size=50), rng.normal(size=50)
    narrow, wide, widest = (
        associations(x, y, confidence_level=confidence_level).pearson
        for confidence_level in (0.5, 0.999, 1 - 2**-53)
    )
    assert widest.low < wide.low < narrow.low < narrow.value < narrow.high < wide.high < widest.high
    with pytest.raises(ValueError, match="confidence_level"):
        associations(x, y, confidence_level=1.0)


@pytest.mark.parametrize("factor", [2.0**-540, 2.0**500])
def test_scale_changes_nothing(factor):
    rng = np.random.default_rng(5)
    x, y = rng.normal(size=60), rng.normal(size=60)
    far, near = (associations(f * x, f * y).pearson for f in (factor, 1.0))
    assert (far.value, far.low, far.high) == (near.value, near.low, near.high)
