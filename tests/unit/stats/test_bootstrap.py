"""Bootstrap intervals against scipy's, against a loop written by hand, and for how often they hold the truth."""

import numpy as np
import pytest
import torch
from scipy import stats as scipy_stats

from fedlas import Predictions, evaluate
from fedlas.errors import InputError
from fedlas.metrics import METRICS, ece
from fedlas.stats import bootstrap_interval, bootstrap_intervals, noise_floor


def long(*values):
    """A case of ``make test-long``: another of its kind is in every run."""
    return pytest.param(*values, marks=pytest.mark.long)


def draw(samples=400, classes=5, sharpness=1.0, seed=0):
    generator = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(samples, classes, generator=generator, dtype=torch.float64)
    probs = logits.softmax(1)
    target = torch.multinomial(probs, 1, generator=generator).squeeze(1)
    return Predictions((sharpness * logits).float(), target, label_probs=probs)


@pytest.mark.parametrize("method", ["percentile", "basic"])
@pytest.mark.parametrize(
    ("metric", "quantity"),
    [
        ("accuracy", lambda p: p.tensors().correct.double()),
        (
            "nll",
            lambda p: torch.nn.functional.cross_entropy(
                p.tensors().logits.double(), p.tensors().target, reduction="none"
            ),
        ),
    ],
)
def test_interval_of_mean_matches_scipy(metric, quantity, method):
    p = draw()
    ours = bootstrap_interval(p, metric=metric, replicates=9999, method=method)
    values = (quantity(p).numpy(),)
    theirs = scipy_stats.bootstrap(
        values,
        np.mean,
        n_resamples=9999,
        vectorized=True,
        method=method,
        rng=np.random.default_rng(0),
    )
    low, high = theirs.confidence_interval
    width = high - low
    # an end is known within sqrt(0.025 * 0.975 / 9999) / density = 0.0067 standard errors... 1.7 % of the width
    assert ours.low == pytest.approx(low, abs=0.05 * width)
    assert ours.high == pytest.approx(high, abs=0.05 * width)
    assert ours.standard_error == pytest.approx(theirs.standard_error, rel=0.04)


def test_agrees_with_a_loop_written_by_hand():
    """Of ECE, with other random numbers: the two distributions of replicates are the same."""
    p = draw(sharpness=1.5)
    ours = bootstrap_interval(p, replicates=3999, method="percentile")
    random = np.random.default_rng(7)
    rows = [torch.from_numpy(random.integers(0, 400, 400)) for _ in range(2000)]
    theirs = [ece(Predictions(p.tensors().logits[i], p.tensors().target[i])) for i in rows]
    assert ours.value + ours.bias == pytest.approx(
        np.mean(theirs), abs=4 * ours.standard_error / 2000**0.5
    )
    assert ours.standard_error == pytest.approx(np.std(theirs), rel=0.08)
    low, high = np.quantile(theirs, [0.025, 0.975])
    assert (ours.low, ours.high) == pytest.approx((low, high), abs=0.25 * ours.standard_error)


def test_intervals_at_once_equal_single_intervals():
    p = draw(150)
    found = bootstrap_intervals(p, replicates=99, num_bins=10)
    assert list(found) == list(evaluate(p))
    for name, interval in found.items():
        assert interval == bootstrap_interval(p, metric=name, replicates=99, num_bins=10)
    two = bootstrap_intervals(p, metrics=["nll", "ece", "nll"], replicates=99, num_bins=10)
    assert two == {name: found[name] for name in ("nll", "ece")}


def test_bins_and_level_and_method_matter():
    p = draw(150, sharpness=1.4)
    wide = bootstrap_interval(p, method="basic", replicates=499)
    assert wide != bootstrap_interval(p, method="basic", replicates=499, num_bins=3)
    narrow = bootstrap_interval(p, method="basic", replicates=499, confidence_level=0.5)
    assert wide.low < narrow.low < narrow.high < wide.high
    assert wide.value == ece(p)


def test_threads_do_not_matter():
    p = draw(3000, 20)
    expected = bootstrap_intervals(p, replicates=60)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        assert bootstrap_intervals(p, replicates=60) == expected
    finally:
        torch.set_num_threads(before)


def test_error_interval_starts_at_zero_unless_rejected():
    calibrated, sharp = draw(1000), draw(1000, sharpness=2.0)
    calibrated_value = ece(calibrated)
    assert noise_floor(calibrated).p_value > 0.05
    assert bootstrap_interval(calibrated).low == 0.0
    assert noise_floor(sharp).p_value < 0.05
    assert bootstrap_interval(sharp).low > 0.1
    for method in ("basic", "percentile"):
        assert bootstrap_interval(calibrated, method=method).low != 0.0
    assert (
        bootstrap_interval(calibrated, method="basic", confidence_level=0.3).high < calibrated_value
    )
    assert bootstrap_interval(calibrated, confidence_level=0.3).high > calibrated_value
    assert bootstrap_interval(calibrated, metric="nll").low > 0.0


def test_interval_excludes_zero_only_if_test_rejects():
    """Also where p equals the level but for rounding: 1 - 0.9 is a little less than 1/10."""
    # whether the lower end is, by p-value of 19 replicates
    above = {k / 20: [] for k in range(1, 21)}
    for seed in range(60):
        p = draw(300, sharpness=1.2, seed=seed)
        above[noise_floor(p, replicates=19).p_value].append(
            bootstrap_interval(p, replicates=19, confidence_level=0.9).low > 0
        )
    assert any(above[0.1])
    assert any(above[0.05])
    assert above[0.15]
    assert not any(any(leaves) for p_value, leaves in above.items() if p_value > 0.1)


@pytest.mark.system
@pytest.mark.parametrize("sharpness", [long(1.05), 1.15, long(1.5)])
@pytest.mark.parametrize("metric", ["classwise_ece", "ks", "ece"])
def test_error_intervals_cover_truth_near_calibration(metric, sharpness):
    """Where the reflected ones go from too high a lower end (classwise ECE) to too low an upper one (KS)."""
    large = draw(300_000, classes=10, sharpness=sharpness, seed=10**6)
    # KS: too sharp at all confidences, so the same
    truth = {"ks": "true_ece", "ece": "true_ece"}.get(metric, metric)
    truth = METRICS[truth].value(large)
    held = 0
    for seed in range(60):
        interval = bootstrap_interval(
            draw(1000, classes=10, sharpness=sharpness, seed=seed), metric=metric, replicates=199
        )
        held += interval.low <= truth <= interval.high
    assert held >= 53  # binomial(60, 0.95): mean 57, sd 1.7


@pytest.mark.system
@pytest.mark.parametrize("gap", [long(0.0), 0.03, long(0.1)])
def test_centered_interval_of_unbiased_estimator_covers_truth(gap):
    """Of the debiased square, the replicates' mean is too high by the labels' chance that the sample has already."""
    held = {"auto": 0, "basic": 0}
    for seed in range(100):
        generator = torch.Generator().manual_seed(seed)
        confidence = 0.5 + 0.4 * torch.rand(1000, generator=generator, dtype=torch.float64)
        wrong = torch.rand(1000, generator=generator, dtype=torch.float64) >= confidence - gap
        p = Predictions(torch.stack([confidence, 1 - confidence], 1).log(), wrong.long())
        for method in held:
            interval = bootstrap_interval(p, metric="debiased_ece2", replicates=199, method=method)
            held[method] += interval.low <= gap**2 <= interval.high
            if method == "auto":
                assert interval.low < interval.value < interval.high
                assert interval.method == "centered"
    # binomial(100, 0.95): mean 95, sd 2.2; wider than it need be where there is no gap
    assert held["auto"] >= 89
    if gap < 0.1:
        assert held["basic"] < 80


@pytest.mark.parametrize("sharpness", [long(1.0), 1.05, long(1.3)])
def test_auto_intervals_cover_where_percentile_intervals_do_not(sharpness):
    truth = METRICS["true_ece"].value(draw(200_000, sharpness=sharpness, seed=10**6))
    held = {"auto": 0, "percentile": 0}
    for seed in range(60):
        p = draw(500, sharpness=sharpness, seed=seed)
        for method in held:
            interval = bootstrap_interval(p, replicates=199, method=method)
            held[method] += interval.low <= truth <= interval.high
    assert held["auto"] >= 53  # binomial(60, 0.95): mean 57, sd 1.7
    assert held["percentile"] < held["auto"]


@pytest.mark.system
@pytest.mark.parametrize("metric", [long("accuracy"), "nll"])
def test_intervals_of_means_have_nominal_coverage(metric):
    truth = METRICS[metric].value(draw(1_000_000, seed=10**6))
    held = 0
    for seed in range(200):
        interval = bootstrap_interval(draw(300, seed=seed), metric=metric, replicates=199)
        held += interval.low <= truth <= interval.high
    # binomial(200, 0.95): mean 190, sd 3.1
    assert 178 <= held <= 199


def test_user_metric_is_called_per_replicate(changeable):
    changeable(METRICS)

    @METRICS.register("largest", title="L", higher_is_better=True, percent=False, paper="none")
    def largest(predictions, *, num_bins=15):
        """Not a mean over rows, and without a pass of its own."""
        return predictions.tensors().logits.max() + num_bins

    p = draw(50)
    interval = bootstrap_interval(
        p, metric="largest", replicates=199, num_bins=3, method="percentile"
    )
    assert interval.value == pytest.approx(float(p.tensors().logits.max()) + 3)
    assert interval.high == interval.value
    assert interval.low < interval.high
    assert interval.bias < 0
    assert "largest" in bootstrap_intervals(p, replicates=39)


def test_replaced_metric_does_not_use_built_in_formula(changeable, monkeypatch):
    monkeypatch.delitem(changeable(METRICS)._entries, "ece")

    @METRICS.register("ece", title="E", higher_is_better=False, percent=False, paper="none")
    def first_logit(predictions):
        """Mean of the first logit."""
        return float(predictions.tensors().logits[:, 0].mean())

    p = draw(50)
    interval = bootstrap_interval(p, replicates=99)
    assert interval.low < first_logit(p) < interval.high


def test_what_cannot_be_resampled():
    p = draw(5)
    with pytest.raises(InputError, match=r"bootstrap_interval: .*at least 2 samples"):
        bootstrap_interval(Predictions(p.tensors().logits[:1], p.tensors().target[:1]))
    with pytest.raises(InputError, match="registered metric; got 'ecee'"):
        bootstrap_interval(p, metric="ecee")
    with pytest.raises(InputError, match="bootstrap_interval: confidence_level"):
        bootstrap_interval(p, confidence_level=1.0)
    with pytest.raises(InputError, match="bootstrap_interval: replicates"):
        bootstrap_interval(p, replicates=0)
    with pytest.raises(InputError, match="bootstrap_intervals: num_bins"):
        bootstrap_intervals(p, num_bins=0)
    with pytest.raises(InputError, match=r"bootstrap_intervals: .*be Predictions"):
        bootstrap_intervals(p.tensors().logits)
    with pytest.raises(InputError, match="label_probs"):
        bootstrap_interval(Predictions(p.tensors().logits, p.tensors().target), metric="true_ece")
