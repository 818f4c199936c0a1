"""The noise floor, and that its test rejects calibrated models as often as it says and others nearly always."""

import numpy as np
import pytest
import torch
from scipy import stats as scipy_stats

from fedlas import Predictions
from fedlas.errors import InputError
from fedlas.metrics import METRICS
from fedlas.stats import noise_floor


def long(*values):
    """A case of ``make test-long``: another of its kind is in every run."""
    return pytest.param(*values, marks=pytest.mark.long)


def draw(samples=300, classes=5, sharpness=1.0, seed=0):
    generator = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(samples, classes, generator=generator, dtype=torch.float64)
    target = torch.multinomial(logits.softmax(1), 1, generator=generator).squeeze(1)
    return Predictions((sharpness * logits).float(), target)


@pytest.mark.system
@pytest.mark.parametrize(
    ("metric", "alternative"),
    [
        ("ece", "worse"),
        long("adaptive_ece", "worse"),
        long("classwise_ece", "worse"),
        long("nll", "worse"),
        ("brier", "different"),
        long("ece", "different"),
    ],
)
def test_p_values_of_calibrated_models_are_uniform(metric, alternative):
    found = [
        noise_floor(
            draw(seed=seed), metric=metric, replicates=99, seed=seed, alternative=alternative
        ).p_value
        for seed in range(200)
    ]
    assert scipy_stats.kstest(found, "uniform").pvalue > 0.01


def test_the_mean_is_that_of_calibrated_test_sets():
    """Labels redrawn by the library for one set of logits, and by hand."""
    p = draw(500)
    found = noise_floor(p, replicates=2000)
    probs, generator = p.tensors().logits.double().softmax(1), torch.Generator().manual_seed(9)
    by_hand = [
        METRICS["ece"].value(
            Predictions(
                p.tensors().logits, torch.multinomial(probs, 1, generator=generator).squeeze(1)
            )
        )
        for _ in range(500)
    ]
    assert found.mean == pytest.approx(
        np.mean(by_hand), abs=5 * found.standard_deviation / 500**0.5
    )
    assert found.standard_deviation == pytest.approx(np.std(by_hand), rel=0.15)
    assert found.quantiles[0.5] == pytest.approx(
        np.median(by_hand), abs=0.3 * found.standard_deviation
    )
    assert found.excess == found.value - found.mean


def test_floors_are_mean_confidence_and_mean_entropy():
    p = draw(2000)
    probs = p.tensors().logits.double().softmax(1)
    accuracy, nll = (noise_floor(p, metric=name, replicates=400) for name in ("accuracy", "nll"))
    for found, expected in (
        (accuracy, p.tensors().confidence.double().mean()),
        (nll, -(probs * probs.log()).sum(1).mean()),
    ):
        assert found.mean == pytest.approx(
            float(expected), abs=5 * found.standard_deviation / 400**0.5
        )


@pytest.mark.system
@pytest.mark.parametrize(
    "metric", ["ece", long("adaptive_ece"), long("classwise_ece"), "nll", long("brier"), "accuracy"]
)
def test_overconfident_models_are_found(metric):
    found = [
        noise_floor(draw(1000, sharpness=2.0, seed=seed), metric=metric, replicates=99)
        for seed in range(20)
    ]
    assert sum(f.p_value <= 0.05 for f in found) >= 19
    better = METRICS[metric].higher_is_better
    assert all((f.value < f.mean) == better for f in found)


@pytest.mark.system
def test_nll_detects_underconfidence_only_two_sided():
    p = draw(2000, sharpness=0.5)
    assert noise_floor(p, metric="ece").p_value < 0.01
    assert noise_floor(p, metric="nll").p_value > 0.99
    assert noise_floor(p, metric="nll", alternative="different").p_value < 0.01


def test_signed_metric_is_tested_two_sided():
    for sharpness in (0.5, 2.0):
        found = noise_floor(draw(2000, sharpness=sharpness), metric="confidence_gap")
        assert (found.alternative, found.p_value) == ("different", 2 / 1001)
        assert (found.value > 0) == (sharpness > 1)
    assert abs(found.mean) < 5 * found.standard_deviation / 1000**0.5
    with pytest.raises(InputError, match=r"alternative .*got 'worse'"):
        noise_floor(draw(), metric="confidence_gap", alternative="worse")


def test_null_replicates_replace_label_probs_by_model_probs():
    p = draw(100)
    known = Predictions(
        p.tensors().logits, p.tensors().target, label_probs=(p.tensors().logits / 2).softmax(1)
    )
    found = noise_floor(known, metric="true_ece", replicates=99)
    assert (found.mean, found.p_value) == (0.0, 0.01)
    right = Predictions(p.logits, p.target, label_probs=p.probs)
    assert noise_floor(right, metric="true_ece", replicates=99).p_value == 1.0


def test_a_certain_and_right_model_is_calibrated():
    found = noise_floor(Predictions(torch.eye(3) * 1e4, [0, 1, 2]), replicates=99)
    assert (found.value, found.mean, found.p_value) == (0.0, 0.0, 1.0)
    wrong = noise_floor(Predictions(torch.eye(3) * 1e4, [1, 2, 0]), replicates=99)
    assert (wrong.value, wrong.mean, wrong.p_value) == (1.0, 0.0, 0.01)


@pytest.mark.parametrize("metric", ["ece", "accuracy", "brier"])
@pytest.mark.parametrize("alternative", ["worse", "different"])
def test_p_value_by_hand(metric, alternative):
    """The observed value counts as a replicate, and of few samples many values are equal."""
    p = Predictions(torch.tensor([[1.0, 0.0]]).repeat(12, 1), torch.arange(12) % 3 == 0)
    options = {"metric": metric, "alternative": alternative, "replicates": 200}
    # as many quantiles as replicates are the replicates
    found = noise_floor(p, quantiles=np.linspace(0, 1, 200), **options)
    values = np.array(list(found.quantiles.values()))
    assert len(np.unique(values.round(9))) < 13
    above = (1 + (values >= found.value - 1e-9).sum()) / 201
    below = (1 + (values <= found.value + 1e-9).sum()) / 201
    worse = below if metric == "accuracy" else above
    assert found.p_value == (worse if alternative == "worse" else min(1.0, 2 * min(above, below)))


def test_least_p_belongs_to_unreached_value():
    wrong = Predictions(torch.eye(3) * 1e4, [1, 2, 0])
    for metric, expected in (("ece", 0.01), ("debiased_ece2", 0.02), ("confidence_gap", 0.02)):
        found = noise_floor(
            Predictions(wrong.tensors().logits.repeat(9, 1), wrong.tensors().target.repeat(9)),
            metric=metric,
            replicates=99,
        )
        assert (found.p_value, found.least_p) == (expected, expected)
    assert noise_floor(draw(), replicates=99).least_p < noise_floor(draw(), replicates=99).p_value


def test_quantiles_of_ones_own():
    found = noise_floor(draw(), quantiles=[0, 0.3, 1], replicates=50)
    assert list(found.quantiles) == [0.0, 0.3, 1.0]
    assert found.quantiles[0.0] < found.mean < found.quantiles[1.0]


def test_a_metric_registered_by_a_user(changeable):
    changeable(METRICS)

    @METRICS.register("share", title="S", higher_is_better=True, percent=False, paper="none")
    def share_of_class_0(predictions):
        """Of the labels."""
        return (predictions.tensors().target == 0).double().mean()

    p = draw(500)
    found = noise_floor(p, metric="share", replicates=99)
    expected = float(p.tensors().logits.softmax(1)[:, 0].mean())
    assert found.mean == pytest.approx(expected, abs=5 * found.standard_deviation / 99**0.5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"replicates": 0}, "replicates"),
        ({"replicates": 1}, "replicates"),
        ({"seed": -1}, "seed"),
        ({"num_bins": 0}, "num_bins"),
        ({"alternative": "greater"}, "alternative"),
        ({"quantiles": [0.5, 1.5]}, "quantiles"),
        ({"metric": "ecc"}, "Did you mean 'ece'"),
    ],
)
def test_refuses(options, message):
    with pytest.raises(InputError, match=message):
        noise_floor(draw(20), **options)


def test_one_sample_has_no_floor():
    with pytest.raises(InputError, match=r"noise_floor: .*at least 2 samples"):
        noise_floor(Predictions([[1.0, 0.0]], [0]))
