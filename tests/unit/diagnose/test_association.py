import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats as scipy_stats
from sklearn.metrics import roc_auc_score

from fedlas.diagnose import association_values, associations


@given(
    values=st.lists(st.integers(-5, 5), min_size=4, max_size=40),
    others=st.lists(st.integers(-5, 5), min_size=40, max_size=40),
    truth=st.lists(st.booleans(), min_size=40, max_size=40),
)
@settings(deadline=None)
def test_values_are_those_of_scipy_and_scikit_learn(values, others, truth):
    """Integers in a small range: many ties."""
    x, y = np.array(values, float), np.array(others[: len(values)], float)
    found = association_values(x, y)
    if x.std() and y.std():
        assert found["pearson"] == pytest.approx(scipy_stats.pearsonr(x, y)[0], abs=1e-9)
        assert found["spearman"] == pytest.approx(scipy_stats.spearmanr(x, y)[0], abs=1e-9)
    else:
        assert np.isnan(found["pearson"])
        assert np.isnan(found["spearman"])
    assert "auroc" not in found
    right = np.array(truth[: len(values)])
    auroc = association_values(x, right)["auroc"]
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


def test_intervals_hold_the_truth_about_as_often_as_they_say():
    """Bivariate normal with correlation 0.6; coverage of 95 % intervals over 200 draws."""
    rng, hits = np.random.default_rng(0), 0
    for seed in range(200):
        x = rng.normal(size=150)
        y = 0.6 * x + 0.8 * rng.normal(size=150)
        found = associations(x, y, replicates=199, seed=seed).pearson
        hits += found.low <= 0.6 <= found.high
    assert 0.88 <= hits / 200 <= 0.99


def test_a_constant_score_has_no_number_and_no_interval():
    found = associations(torch.full((20,), 0.1), torch.arange(20) % 2 == 0, replicates=50)
    assert np.isnan(found.pearson.value)
    assert np.isnan(found.spearman.low)
    assert found.auroc.value == 0.5


def test_large_offsets_do_not_cost_digits():
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=200), rng.normal(size=200)
    far = association_values(x + 1e8, y)
    assert far["pearson"] == pytest.approx(association_values(x, y)["pearson"], abs=1e-6)


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
    if len(score) == len(value) == 2:
        assert np.isnan(association_values(score, value)["pearson"])
        return
    with pytest.raises(ValueError, match=match.replace("at least 3 samples", "must be")):
        association_values(score, value)
