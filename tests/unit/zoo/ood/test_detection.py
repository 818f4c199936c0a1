"""Detection metrics against scikit-learn, by hand, and by what must not change them."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn.metrics import average_precision_score, roc_auc_score, roc_curve

from fedlas.errors import InputError
from fedlas.zoo.ood import DETECTION, detection_intervals, detection_metrics, fpr_at_tpr, roc_points

# Few distinct values, so that ties are everywhere.
scores = st.integers(1, 40).flatmap(
    lambda n: arrays(np.float64, n, elements=st.integers(-4, 4).map(float))
)


def oracle(known, unknown):
    label = np.r_[np.zeros(len(known)), np.ones(len(unknown))]
    score = np.r_[known, unknown]

    def fpr95(label, score):
        false, true, _ = roc_curve(label, score, drop_intermediate=False)
        return false[np.argmax(true >= 0.95 - 1e-12)]

    return {
        "auroc": roc_auc_score(label, score),
        "aupr-out": average_precision_score(label, score),
        "aupr-in": average_precision_score(1 - label, -score),
        "fpr95-out": fpr95(label, score),
        "fpr95-in": fpr95(1 - label, -score),
    }


@given(scores, scores)
def test_equals_scikit_learn_with_ties(known, unknown):
    found = detection_metrics(known, unknown)
    for name, expected in oracle(known, unknown).items():
        assert found[name] == pytest.approx(expected, abs=1e-12), name


def test_equals_scikit_learn_without_ties():
    random = np.random.default_rng(0)
    known, unknown = random.normal(size=700), random.normal(0.7, 1.5, size=311)
    found = detection_metrics(known, unknown)
    for name, expected in oracle(known, unknown).items():
        assert found[name] == pytest.approx(expected, abs=1e-12), name
    assert "oscr" not in found


@given(scores, scores)
def test_only_the_order_of_scores_matters(known, unknown):
    assert detection_metrics(known, unknown) == detection_metrics(
        np.exp(known) + 7, np.exp(unknown) + 7
    )


@given(scores, scores)
def test_exchanging_the_classes_exchanges_the_metrics(known, unknown):
    found, turned = detection_metrics(known, unknown), detection_metrics(-unknown, -known)
    for name, other in {"auroc": "auroc", "aupr-in": "aupr-out", "fpr95-in": "fpr95-out"}.items():
        assert found[name] == pytest.approx(turned[other])
        assert found[other] == pytest.approx(turned[name])


@given(scores, scores, st.integers(0, 100))
def test_oscr_is_the_area_under_correct_classification_rate(known, unknown, seed):
    right = np.random.default_rng(seed).random(len(known)) < 0.6
    found = detection_metrics(known, unknown, id_correct=right)["oscr"]
    thresholds = [-np.inf, *np.unique(np.r_[known, unknown])]
    rate = [np.mean((known <= t) & right) for t in thresholds]
    false = [np.mean(unknown <= t) for t in thresholds]
    assert found == pytest.approx(np.trapezoid(rate, false), abs=1e-12)
    assert detection_metrics(known, unknown, id_correct=np.ones(len(known), bool))[
        "oscr"
    ] == pytest.approx(detection_metrics(known, unknown)["auroc"])


def test_by_hand():
    found = detection_metrics([0, 1], [1, 2])
    assert found["auroc"] == 0.875
    assert found["aupr-out"] == pytest.approx(0.5 * 1 + 0.5 * 2 / 3)
    assert found["fpr95-in"] == found["fpr95-out"] == 0.5
    assert fpr_at_tpr([0, 1], [1, 2], tpr=0.5) == 0
    assert fpr_at_tpr([0, 1], [1, 2], tpr=0.5, positive="out") == 0
    assert detection_metrics([0.0], [0.0])["auroc"] == 0.5


def test_95_percent_of_twenty_are_nineteen():
    assert fpr_at_tpr(range(20), [18.5]) == 0.0
    assert fpr_at_tpr(range(20), [18.0]) == 1.0


def test_blockwise_intervals_match_naive_resampling():
    """A block is of 2^17 counts: 77 replicates of 1,700 values."""
    random = np.random.default_rng(1)
    known, unknown = (
        random.normal(size=900),
        random.normal(1, 1, size=800),
    )
    right = random.random(900) < 0.7
    found = detection_intervals(known, unknown, id_correct=right, replicates=99, seed=3)
    sides = [np.random.Generator(np.random.PCG64([3, side])) for side in range(2)]
    rows = [side.integers(0, n, size=(99, n)) for side, n in zip(sides, (900, 800), strict=True)]
    by_hand = [
        detection_metrics(known[a], unknown[b], id_correct=right[a])
        for a, b in zip(rows[0], rows[1], strict=True)
    ]
    for name, interval in found.items():
        values = np.sort([one[name] for one in by_hand])
        assert (interval.low, interval.high) == pytest.approx((values[1], values[-2])), name
        assert interval.value == detection_metrics(known, unknown, id_correct=right)[name]


def test_intervals_cover():
    """AUROC of N(0, 1) against N(1, 1) is Phi(1 / sqrt 2) = 0.7602."""
    random, hits = np.random.default_rng(0), 0
    for _ in range(100):
        known, unknown = random.normal(size=150), random.normal(1, 1, size=150)
        interval = detection_intervals(known, unknown, replicates=199)["auroc"]
        hits += interval.low <= 0.76025 <= interval.high
    assert 87 <= hits <= 100


def test_another_seed_draws_other_samples():
    known, unknown = np.arange(30.0), np.arange(10.0, 40.0)
    first, again, other = (
        detection_intervals(known, unknown, replicates=50, seed=s)["auroc"] for s in (0, 0, 1)
    )
    assert first == again
    assert (first.low, first.high) != (other.low, other.high)


def test_roc_points():
    random = np.random.default_rng(0)
    known, unknown = random.normal(size=5000), random.normal(1, 1, size=5000)
    false, true = roc_points(known, unknown, most=200)
    assert (false[0], true[0], false[-1], true[-1]) == (0, 0, 1, 1)
    assert len(false) <= 203
    assert (np.diff(false) >= 0).all()
    assert (np.diff(true) >= 0).all()
    assert np.trapezoid(true, false) == pytest.approx(
        detection_metrics(known, unknown)["auroc"], abs=2e-3
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([], [1.0]), "id_score"),
        (([1.0], [np.nan]), "ood_score"),
        (([1.0], [[1.0]]), "ood_score"),
        ((["a"], [1.0]), "id_score must be numbers"),
    ],
)
def test_refuses_scores(arguments, message):
    for function in (detection_metrics, detection_intervals, fpr_at_tpr, roc_points):
        with pytest.raises(InputError, match=message):
            function(*arguments)


def test_refuses_options():
    with pytest.raises(InputError, match="id_correct"):
        detection_metrics([1.0, 2.0], [1.0], id_correct=[True])
    with pytest.raises(InputError, match="id_correct"):
        detection_metrics([1.0], [1.0], id_correct=[1])
    with pytest.raises(InputError, match="replicates"):
        detection_intervals([1.0], [2.0], replicates=10)
    with pytest.raises(InputError, match="tpr"):
        fpr_at_tpr([1.0], [2.0], tpr=0.0)
    with pytest.raises(InputError, match="positive"):
        fpr_at_tpr([1.0], [2.0], positive="both")


def test_the_positive_class_is_named():
    assert {e.name: e.metadata["positive"] for e in DETECTION.entries()} == {
        "auroc": "either", "aupr-in": "in", "aupr-out": "out", "fpr95-in": "in", "fpr95-out": "out", "oscr": "in",
    }  # fmt: skip


def test_intervals_of_a_perfect_separation_have_a_width():
    """Each of 20 pairs without a common sample is in order with probability AUROC, so that 0.831 gives 1 in 40."""
    found = detection_intervals(np.arange(20.0), np.arange(20.0, 50.0), replicates=99)
    assert (found["auroc"].low, found["auroc"].high) == (pytest.approx(0.025 ** (1 / 20)), 1.0)
    assert (found["fpr95-in"].low, found["fpr95-in"].high) == (
        0.0,
        pytest.approx(1 - 0.025 ** (1 / 20)),
    )
    assert all(
        each.low < each.high and each.low <= each.value <= each.high for each in found.values()
    )
    tied = detection_intervals([1.0, 1.0], [1.0, 1.0], replicates=99)["auroc"]
    assert tied.low < tied.value == 0.5 < tied.high
    (one,) = {
        (each.low, each.high)
        for name, each in detection_intervals([1.0], [2.0]).items()
        if "fpr" not in name
    }
    assert one == (pytest.approx(0.025), 1.0)


@pytest.mark.parametrize(
    "function", [detection_metrics, detection_intervals, fpr_at_tpr, roc_points]
)
def test_tensors_that_require_grad_or_are_half_precision(function):
    known, unknown = torch.tensor([0.0, 1.0, 2.0]), torch.tensor([1.0, 3.0])
    expected = function(known.numpy(), unknown.numpy())
    for score in (known.clone().requires_grad_(), known.bfloat16(), known.half()):
        np.testing.assert_equal(function(score, unknown.clone().requires_grad_()), expected)


@pytest.mark.parametrize(
    "score",
    [
        torch.ones(2).to_sparse(),
        torch.ones(2, device="meta"),
        torch.ones(2) + 0j,
        np.ones(2) + 0j,
        None,
        {},
    ],
)
def test_what_holds_no_numbers_is_refused(score):
    with pytest.raises(InputError, match="id_score must be"):
        roc_points(score, [1.0])
    with pytest.raises(InputError, match="id_correct must be"):
        detection_metrics(
            [1.0, 2.0], [1.0], id_correct=score if score is not None else [None, None]
        )


def test_as_many_roc_points_as_can_be_drawn():
    for most in (3, 10**12):
        false, true = roc_points([1.0], [2.0], most=most)
        assert (false.tolist(), true.tolist()) == ([0.0, 0.0, 1.0], [0.0, 1.0, 1.0])
    for most in (1, -3, 2.5):
        with pytest.raises(InputError, match=r"roc_points: most .*whole number"):
            roc_points([1.0], [2.0], most=most)
