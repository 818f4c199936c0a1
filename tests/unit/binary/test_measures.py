"""Brier skill, and all measures of one number together."""

import numpy as np
import pytest
import torch
from scipy.stats import norm
from sklearn.metrics import brier_score_loss

from fedlas import Predictions, binary


def test_brier_skill_matches_scikit_learn(predictions, sample):
    _, outcome = sample
    probability = predictions.tensors().probs[:, 1].numpy()
    reference = brier_score_loss(outcome, np.full(400, outcome.mean()))
    assert binary.brier_skill(predictions).value == pytest.approx(
        1 - brier_score_loss(outcome, probability) / reference
    )


def test_brier_skill_error_matches_bootstrap(draw):
    p = draw(2000)
    probability, outcome = p.tensors().probs[:, 1].numpy(), p.target
    random = np.random.default_rng(0)
    drawn = []
    for _ in range(500):
        rows = random.integers(0, 2000, 2000)
        share = outcome[rows].mean()
        drawn.append(1 - np.mean((probability[rows] - outcome[rows]) ** 2) / (share * (1 - share)))
    found = binary.brier_skill(p)
    assert (found.high - found.value) / 1.959964 == pytest.approx(np.std(drawn), rel=0.1)
    assert found.high - found.value == pytest.approx(found.value - found.low)


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
        assert (found[name].value, found[name].low, found[name].high) == (
            interval.value,
            interval.low,
            interval.high,
        )
    assert [found[name] for name in ("ici", "e50", "e90")] == [curve.ici, curve.e50, curve.e90]
    assert found["brier_skill"].value == binary.brier_skill(predictions).value
    assert found["brier"].value == pytest.approx(
        np.mean((predictions.tensors().probs[:, 1].numpy() - predictions.target) ** 2)
    )
    assert found["observed"].value == predictions.tensors().target.double().mean()


@pytest.mark.parametrize("level", [0.5, 0.9, 0.99])
def test_p_values_do_not_depend_on_confidence_level(predictions, level):
    usual = binary.measures(predictions, replicates=399)
    other = binary.measures(predictions, replicates=399, confidence_level=level)
    assert {name: each.p for name, each in usual.items()} == {
        name: each.p for name, each in other.items()
    }
    assert {each.confidence_level for each in other.values()} == {level}
    slope = binary.logistic_recalibration(predictions).slope
    assert usual["slope"].p == pytest.approx(
        2 * norm.sf(abs(slope.value - 1) / slope.standard_error)
    )
    assert usual["slope"].test == "Wald"


def test_joint_p_detects_what_single_tests_detect(draw):
    assert binary.measures(draw(1000, seed=1)).joint_p > 0.05
    shifted = binary.measures(draw(1000, shift=0.6))
    assert shifted.joint_p < 0.005
    assert shifted.least_joint_p == 1 / 1001
    assert set(shifted.tests) == {
        "ici",
        "e50",
        "e90",
        "emax",
        "in_the_large",
        "slope",
        "spiegelhalter",
    }


def test_weights_count_as_copies(draw):
    p = draw(600, factor=1.4)
    weights = np.arange(600) % 3
    weighted = binary.measures(
        Predictions(p.tensors().logits, p.tensors().target, weights=weights), replicates=0
    )
    copies = binary.measures(
        p.rows(torch.from_numpy(np.repeat(np.arange(600), weights))), replicates=0
    )
    for name in (
        "slope",
        "intercept",
        "in_the_large",
        "observed_to_expected",
        "brier_skill",
        "observed",
    ):
        assert weighted[name].value == pytest.approx(copies[name].value, rel=1e-9), name
    # the curve's places differ
    assert weighted["ici"].value == pytest.approx(copies["ici"].value, rel=3e-3)


def test_weights_do_not_add_information(draw):
    """Errors with weights all alike are those of the samples; copies of a sample would halve them."""
    p = draw(2000)
    alike = binary.measures(
        Predictions(p.tensors().logits, p.tensors().target, weights=np.full(2000, 4.0)),
        replicates=199,
    )
    plain = binary.measures(p, replicates=199)
    for name in ("slope", "in_the_large", "brier", "observed"):
        width = plain[name].high - plain[name].low
        assert alike[name].high - alike[name].low == pytest.approx(width, rel=0.1), name
    assert alike["ici"].floor == pytest.approx(plain["ici"].floor, rel=0.2)
    assert alike.joint_p > 0.05


def test_what_samples_cannot_give_is_missing(two_class):
    separated = two_class(np.linspace(-2, 2, 20), [0] * 10 + [1] * 10)
    found = binary.measures(separated)
    assert "slope" not in found
    assert {"observed", "ici", "brier_skill"} <= set(found)
    for few in (two_class([0.0] * 20, [1] * 20), two_class([0.0] * 4, [1, 0] * 2)):
        found = binary.measures(few)
        assert list(found) == ["observed", "expected", "brier"]
        assert found.joint_p is None
