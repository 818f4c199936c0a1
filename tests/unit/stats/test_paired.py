import numpy as np
import pytest
import torch
from scipy import stats as scipy_stats

from fedlas import Predictions, TopLabel
from fedlas.errors import InputError
from fedlas.metrics import METRICS
from fedlas.stats import bootstrap_interval, paired_bootstrap


def long(*values):
    """A case of ``make test-long``: another of its kind is in every run."""
    return pytest.param(*values, marks=pytest.mark.long)


def pair(samples=400, classes=4, noise=0.5, sharpness=(1.0, 1.0), seed=0):
    """Two models of the same samples: the true logits with noise, sharpened."""
    generator = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(samples, classes, generator=generator)
    target = torch.multinomial(logits.softmax(1), 1, generator=generator).squeeze(1)
    return [
        Predictions(
            factor * (logits + noise * torch.randn(logits.shape, generator=generator)), target
        )
        for factor in sharpness
    ]


@pytest.mark.parametrize("metric", ["accuracy", "nll", "ece"])
def test_values_are_the_metrics_own(metric):
    a, b = pair(sharpness=(1.0, 1.5))
    found = paired_bootstrap(a, b, metric=metric, replicates=99)
    assert (found.a, found.b) == (METRICS[metric].value(a), METRICS[metric].value(b))
    assert found.difference == found.a - found.b
    assert (found.unit, found.count, found.p, found.better) == ("samples", 400, None, None)


def test_paired_bootstrap_of_mean_resamples_mean_difference():
    a, b = pair(sharpness=(1.0, 1.3))
    found = paired_bootstrap(a, b, metric="nll", replicates=9999, method="percentile")
    nll = [
        torch.nn.functional.cross_entropy(
            p.tensors().logits.double(), p.tensors().target, reduction="none"
        ).numpy()
        for p in (a, b)
    ]
    theirs = scipy_stats.bootstrap(
        (nll[0] - nll[1],),
        np.mean,
        n_resamples=9999,
        method="percentile",
        rng=np.random.default_rng(0),
    )
    width = theirs.confidence_interval.high - theirs.confidence_interval.low
    assert found.low == pytest.approx(theirs.confidence_interval.low, abs=0.05 * width)
    assert found.high == pytest.approx(theirs.confidence_interval.high, abs=0.05 * width)
    assert found.p_value == pytest.approx(
        scipy_stats.ttest_1samp(nll[0] - nll[1], 0).pvalue, abs=0.02
    )


def test_two_models_are_compared_by_nll_unless_told_otherwise():
    a, b = pair(sharpness=(1.0, 1.5))
    assert paired_bootstrap(a, b, replicates=99) == paired_bootstrap(
        a, b, metric="nll", replicates=99
    )
    one, other = (TopLabel(p.tensors().confidence, p.tensors().correct) for p in (a, b))
    assert paired_bootstrap(one, other, replicates=99).metric == "ece"


def test_pairing_makes_the_interval_narrower():
    a, b = pair(noise=0.2)
    alone = [bootstrap_interval(p, metric="nll").standard_error for p in (a, b)]
    found = paired_bootstrap(a, b, metric="nll")
    assert (found.high - found.low) / (2 * 1.96) < 0.5 * float(np.hypot(*alone))


def test_the_other_way_round_everything_is_negative():
    a, b = pair(sharpness=(1.0, 1.5))
    one, other = paired_bootstrap(a, b, replicates=199), paired_bootstrap(b, a, replicates=199)
    assert (one.low, one.high) == (-other.high, -other.low)
    assert one.p_value == other.p_value


def test_p_value_of_mean_matches_normal():
    a, b = pair(400, sharpness=(1.0, 1.3))
    found = paired_bootstrap(a, b, metric="nll", replicates=1999, seed=3)
    one, other = (
        torch.nn.functional.cross_entropy(
            p.tensors().logits.double(), p.tensors().target, reduction="none"
        ).numpy()
        for p in (a, b)
    )
    score = (one - other).mean() / ((one - other).std() / 20)
    assert found.a - found.b == pytest.approx((one - other).mean())
    assert found.p_value == pytest.approx(2 * scipy_stats.norm.sf(abs(score)), abs=0.03)
    assert 0.05 < found.p_value < 0.95


def test_the_observed_difference_counts_as_a_replicate():
    found = paired_bootstrap(*pair(400, sharpness=(2.5, 1.0)), replicates=99)
    assert found.p_value == 1 / 100
    a, _ = pair(50)
    assert paired_bootstrap(a, a, replicates=99).p_value == 1.0


def test_interval_and_p_value_of_mean_agree():
    both = []
    for seed in range(60):
        found = paired_bootstrap(
            *pair(200, sharpness=(1.0, 1.0 + 0.01 * seed), seed=seed), metric="nll", seed=seed
        )
        both.append((not found.low <= 0.0 <= found.high, found.p_value <= 0.05))
    assert {True, False} == {excludes for excludes, _ in both}
    assert sum(excludes != significant for excludes, significant in both) <= 3


@pytest.mark.parametrize("metric", [long("accuracy"), long("nll"), "ece"])
def test_equal_models_differ_at_nominal_rate(metric):
    found = [
        paired_bootstrap(*pair(300, seed=seed), metric=metric, replicates=199, seed=seed)
        for seed in range(200)
    ]
    # binomial(200, 0.05): mean 10, sd 3.1
    assert sum(f.p_value <= 0.05 for f in found) <= 20


def test_a_clear_difference_is_found():
    found = [
        paired_bootstrap(*pair(sharpness=(2.5, 1.0), seed=seed), replicates=199)
        for seed in range(10)
    ]
    assert all(f.p_value <= 0.02 and f.low > 0.02 for f in found)


def test_models_may_differ_in_everything_but_the_samples():
    target = torch.tensor([0, 1, 1, 0])
    small = Predictions(torch.randn(4, 2, generator=torch.Generator().manual_seed(0)), target)
    large = Predictions(
        torch.randn(4, 7, generator=torch.Generator().manual_seed(1), dtype=torch.float64), target
    )
    assert paired_bootstrap(small, large, metric="nll", replicates=39).difference < 0


def test_refuses():
    a, b = pair(20)
    with pytest.raises(InputError, match="same order; got different targets"):
        paired_bootstrap(a, Predictions(b.tensors().logits, (b.tensors().target + 1) % 4))
    with pytest.raises(InputError, match="same samples"):
        paired_bootstrap(a, Predictions(b.tensors().logits[:10], b.tensors().target[:10]))
    with pytest.raises(InputError, match=r"paired_bootstrap: .*be Predictions"):
        paired_bootstrap(a, b.tensors().logits)
    with pytest.raises(InputError, match="paired_bootstrap: confidence_level"):
        paired_bootstrap(a, b, confidence_level=0.0)
    with pytest.raises(InputError, match="paired_bootstrap: replicates"):
        paired_bootstrap(a, b, replicates=0)
    with pytest.raises(InputError, match="at least 2 samples"):
        paired_bootstrap(
            *(Predictions(p.tensors().logits[:1], p.tensors().target[:1]) for p in (a, b))
        )
    with pytest.raises(InputError, match="registered metric"):
        paired_bootstrap(a, b, metric="nope")


def test_clustered_accuracy_difference_of_rare_errors_has_interval():
    """Models that hardly ever differ had [0, 0] in 0.19 of the sets: no replicate drew what they differ in."""
    a, b = pair(samples=200, sharpness=(1.0, 1.5))
    a, b = (
        Predictions(
            each.tensors().logits, each.tensors().predicted, clusters=torch.arange(200) // 20
        )
        for each in (a, a)
    )
    b = Predictions(2 * b.tensors().logits, b.tensors().target, clusters=b.tensors().clusters)
    found = paired_bootstrap(a, b, metric="accuracy", replicates=99)
    assert found.difference == 0.0
    assert found.low < -0.01
    assert found.high > 0.01
