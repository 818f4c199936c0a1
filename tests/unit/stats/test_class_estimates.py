"""Interval, floor and test of the calibration error of one class."""

import numpy as np
import pytest
import torch

from fedlas import Predictions
from fedlas.metrics import calibration_by_class, classwise_ece
from fedlas.stats import bootstrap_interval, class_estimates, noise_floor


def model(samples=600, classes=4, sharpness=1.0, seed=0):
    """Labels of the softmax of the logits, which the model has ``sharpness`` times."""
    generator = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(samples, classes, generator=generator)
    target = torch.multinomial(logits.softmax(1), 1, generator=generator).squeeze(1)
    return Predictions(sharpness * logits, target)


def test_values_match_table_and_average_to_classwise_ece():
    p = model()
    found = class_estimates(p, num_bins=9, replicates=39)
    assert {label: error.value for label, error in found.items()} == {
        label: row.ece for label, row in calibration_by_class(p, num_bins=9).items()
    }
    floors = [error.floor for error in found.values()]
    assert np.mean(floors) == pytest.approx(
        noise_floor(p, metric="classwise_ece", num_bins=9, replicates=39).mean, rel=1e-9
    )
    assert np.mean([e.value for e in found.values()]) == pytest.approx(
        classwise_ece(p, num_bins=9), rel=1e-9
    )


def test_two_class_estimates_both_equal_classwise_ece():
    """Their probabilities add up to 1, so with bins that mirror each other the two errors are one number."""
    p = model(classes=2, sharpness=1.6, samples=900)
    whole = bootstrap_interval(p, metric="classwise_ece", num_bins=1, replicates=199)
    for error in class_estimates(p, num_bins=1, replicates=199).values():
        assert error.value == pytest.approx(whole.value, abs=1e-9)
        assert (error.low, error.high) == pytest.approx((whole.low, whole.high), abs=1e-6)


def test_only_what_is_miscalibrated_is_told():
    """One class has its logits raised, which the labels do not follow."""
    p = model(samples=3000, classes=5)
    raised = p.tensors().logits.clone()
    raised[:, 2] += 0.8
    found = class_estimates(Predictions(raised, p.tensors().target), replicates=199)
    assert found[2].p == pytest.approx(1 / 200)
    assert found[2].low > 0
    calibrated = class_estimates(p, replicates=199)
    told = [label for label, error in calibrated.items() if error.p <= 0.05]
    assert len(told) <= 1
    for label, error in calibrated.items():
        assert (error.low > 0) == (label in told)
        assert error.low <= error.value <= error.high
        assert 0.5 < error.value / error.floor < 2


@pytest.mark.system
def test_false_alarms_are_at_the_level():
    """200 calibrated models of 4 classes: 5 % of the 800 p-values are below 0.05, to 3 standard errors."""
    p_values = [
        e.p
        for seed in range(200)
        for e in class_estimates(model(300, seed=seed), replicates=99).values()
    ]
    assert np.mean(np.array(p_values) <= 0.05) == pytest.approx(
        0.05, abs=3 * np.sqrt(0.05 * 0.95 / 800) + 0.005
    )


def test_the_same_seed_and_other_seeds():
    p = model()
    assert class_estimates(p, replicates=99) == class_estimates(p, replicates=99)
    assert class_estimates(p, replicates=99) != class_estimates(p, replicates=99, seed=1)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"replicates": 20}, "replicates must be at least 39"),
        ({"confidence_level": 1.0}, "confidence_level"),
        ({"num_bins": 0}, "num_bins"),
    ],
)
def test_options_are_checked(options, match):
    with pytest.raises(ValueError, match=match):
        class_estimates(model(60), **{"replicates": 99, **options})
    with pytest.raises(ValueError, match="at least 2 samples"):
        class_estimates(Predictions([[0.0, 1.0]], [0]), replicates=99)
