"""Brier skill, and all measures of one number together."""

import numpy as np
import pytest
from sklearn.metrics import brier_score_loss

from fedlas import binary


def test_brier_skill_is_that_of_scikit_learn_s_score(predictions, sample):
    _, outcome = sample
    probability = predictions.probs[:, 1].numpy()
    reference = brier_score_loss(outcome, np.full(400, outcome.mean()))
    assert binary.brier_skill(predictions).value == pytest.approx(
        1 - brier_score_loss(outcome, probability) / reference
    )


def test_the_error_of_brier_skill_is_the_bootstrap_s(draw):
    p = draw(2000)
    probability, outcome = p.probs[:, 1].numpy(), p.target.numpy()
    random = np.random.default_rng(0)
    drawn = []
    for _ in range(500):
        rows = random.integers(0, 2000, 2000)
        share = outcome[rows].mean()
        drawn.append(1 - np.mean((probability[rows] - outcome[rows]) ** 2) / (share * (1 - share)))
    found = binary.brier_skill(p)
    assert found.standard_error == pytest.approx(np.std(drawn), rel=0.1)
    assert found.high - found.value == pytest.approx(1.959964 * found.standard_error)


def test_the_prevalence_has_no_skill(two_class):
    assert binary.brier_skill(two_class([0.0] * 10, [0, 1] * 5)).value == pytest.approx(0.0)


def test_no_skill_is_above_1(two_class):
    almost = binary.brier_skill(two_class([-9.0, 9.0] * 20 + [9.0], [0, 1] * 20 + [0]))
    assert almost.value < almost.high == 1.0


def test_measures_are_what_their_functions_return(predictions):
    found = binary.measures(predictions, replicates=39, seed=2)
    line = binary.logistic_recalibration(predictions)
    curve = binary.integrated_calibration(predictions, replicates=39, seed=2)
    for name in ("slope", "intercept", "in_the_large", "observed_to_expected"):
        interval = getattr(line, name)
        assert (found[name].value, found[name].low, found[name].high) == (interval.value, interval.low, interval.high)
    assert [found[name] for name in ("ici", "e50", "e90")] == [curve.ici, curve.e50, curve.e90]
    assert found["brier_skill"].value == binary.brier_skill(predictions).value
    assert len(found) == 8


def test_what_samples_cannot_give_is_missing(two_class):
    separated = two_class(np.linspace(-2, 2, 20), [0] * 10 + [1] * 10)
    assert list(binary.measures(separated)) == ["ici", "e50", "e90", "brier_skill"]
    assert binary.measures(two_class([0.0] * 20, [1] * 20)) == {}
    assert binary.measures(two_class([0.0] * 4, [1, 0] * 2)) == {}
