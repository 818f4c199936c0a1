"""Which class is set against the rest, and what is refused."""

import numpy as np
import pytest
import torch

from fedlas import Predictions, binary
from fedlas.binary.positive import positive_class

MEASURES = [
    binary.brier_skill,
    binary.integrated_calibration,
    binary.logistic_recalibration,
    binary.measures,
    binary.net_benefit,
    binary.positive_bins,
]


@pytest.fixture(scope="module")
def four_classes():
    logits = torch.randn(60, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return Predictions(3 * logits, logits.argmax(1).roll(1))


@pytest.mark.parametrize("positive", [0, 2, 3])
def test_one_class_of_four_against_the_rest(four_classes, positive):
    found = positive_class(four_classes, positive)
    np.testing.assert_allclose(
        found.probability, four_classes.logits.double().softmax(1)[:, positive], rtol=1e-12
    )
    np.testing.assert_allclose(
        found.log_odds, np.log(found.probability / (1 - found.probability)), rtol=1e-9
    )
    np.testing.assert_array_equal(found.outcome, four_classes.target == positive)


def test_two_classes_mean_class_1_and_keep_odds_that_a_probability_would_lose():
    found = positive_class(Predictions([[0.0, 60.0], [0.0, -60.0]], [1, 0]), None)
    np.testing.assert_array_equal(found.log_odds, [60.0, -60.0])
    np.testing.assert_array_equal(found.outcome, [1.0, 0.0])
    other = positive_class(Predictions([[0.0, 60.0], [0.0, -60.0]], [1, 0]), 0)
    np.testing.assert_array_equal(other.log_odds, [-60.0, 60.0])


@pytest.mark.parametrize("measure", MEASURES, ids=lambda m: m.__name__)
def test_every_measure_takes_one_class_against_the_rest(measure, four_classes):
    found = positive_class(four_classes, 2)
    as_two = Predictions(
        np.stack([0 * found.log_odds, found.log_odds], 1), found.outcome.astype(int)
    )
    assert repr(measure(four_classes, event=2)) == repr(measure(as_two))


@pytest.mark.parametrize("measure", MEASURES, ids=lambda m: m.__name__)
def test_every_measure_refuses_what_has_no_positive_class(measure, four_classes):
    name = measure.__name__
    with pytest.raises(ValueError, match=rf"{name}: .*two classes.*got 4 classes"):
        measure(four_classes)
    with pytest.raises(ValueError, match=rf"{name}: event .*\[0, 4\); got 4"):
        measure(four_classes, event=4)
    with pytest.raises(ValueError, match=rf"{name}: event .*whole number.*got int -1"):
        measure(four_classes, event=-1)
    with pytest.raises(ValueError, match=rf"{name}: .*two classes.*got 1 class"):
        measure(Predictions([[1.0], [2.0]], [0, 0]), event=0)
    with pytest.raises(ValueError, match=rf"{name}: predictions must be Predictions; got"):
        measure(torch.zeros(2, 2))


@pytest.mark.parametrize("measure", [binary.brier_skill, binary.logistic_recalibration])
@pytest.mark.parametrize("label", [0, 1])
def test_one_outcome_alone_is_refused(measure, label):
    what = ("no", "only")[label]
    with pytest.raises(ValueError, match=rf"class 1 .*needed; got 3 samples, {what} clas"):
        measure(Predictions([[0.0, 1.0], [0.0, 2.0], [1.0, 0.0]], [label] * 3))


def test_rows_of_weight_0_are_left_out():
    weighted = Predictions(
        [[0.0, 1.0], [0.0, -1.0], [0.0, 5.0]], [1, 0, 0], weights=[3.0, 1.0, 0.0]
    )
    found = positive_class(weighted, None)
    np.testing.assert_array_equal(found.log_odds, [1.0, -1.0])
    np.testing.assert_array_equal(found.counts, [1.5, 0.5])
