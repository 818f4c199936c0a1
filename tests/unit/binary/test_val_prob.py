"""The numbers of ``rms::val.prob``, of data without random numbers.

Source: R 4.5.0 with rms 8.0.0, ``val.prob(plogis(lo), y, pl = FALSE)`` of the log-odds ``lo`` and outcomes ``y`` below,
with the same formulas in R.
"""

import numpy as np
import pytest

from fedlas import Predictions, binary, report
from fedlas.stats import spiegelhalter_test

VAL_PROB = {
    "usual": {
        "auroc": 0.826013209632, "r2": 0.286251776447, "d": 0.236651728993, "u": 0.104020385430, "q": 0.132631343564,
        "brier": 0.182272071205, "intercept": -0.492790145178, "slope": 0.664505361184,
        "U:p": 3.39320127551e-10, "S:z": 5.99117168007,
    },
    "rare": {
        "auroc": 0.875720747589, "r2": 0.217389335211, "d": 0.0656049613131, "u": 0.0194789746382, "q": 0.0461259866748,
        "brier": 0.0372126339354, "intercept": 3.45639468618, "slope": 2.38080144964,
        "U:p": 1.27671606620e-09, "S:z": -0.626842101175,
    },
}  # fmt: skip


def validation(case):
    if case == "usual":
        i = np.arange(400)
        log_odds = 3 * np.sin(1.7 * i)
        happened = 0.5 * log_odds + 1.5 * np.sin(2.9 * i + 1) > 0.3
    else:
        i = np.arange(2000)
        log_odds = -3.5 + 1.3 * np.sin(1.7 * i) + 0.4 * np.cos(0.37 * i)
        happened = 1.3 * np.sin(1.7 * i) + 2.1 * np.sin(2.9 * i + 1) > 3.0
    return Predictions(np.stack([0 * log_odds, log_odds], axis=1), happened.astype(int))


@pytest.mark.parametrize("case", list(VAL_PROB))
def test_val_prob_has_the_same_numbers(case):
    predictions = validation(case)
    numbers = {
        name: each.value for name, each in binary.measures(predictions, replicates=0).items()
    }
    numbers["U:p"] = binary.logistic_recalibration(predictions).p_value
    numbers["S:z"] = spiegelhalter_test(predictions)[0]
    expected = VAL_PROB[case]
    assert {name: numbers[name] for name in expected} == pytest.approx(expected, rel=1e-6)


def test_they_are_in_the_details_of_the_report():
    evaluation = report(validation("usual"), replicates=0)
    shown = evaluation.text(details=True)
    assert "R2 (Nagelkerke)" in shown
    assert "0.286" in shown
    assert "Nagelkerke" not in evaluation.text()


def test_weights_are_repeated_rows():
    p = validation("usual")
    twice = Predictions(p.tensors().logits.repeat(2, 1), p.tensors().target.repeat(2))
    weighted = Predictions(p.tensors().logits, p.tensors().target, weights=[2.0] * 400)
    one, other = (binary.likelihood_indices(each) for each in (weighted, p))
    assert one.q == pytest.approx(other.q)
    assert binary.likelihood_indices(twice).r2 == pytest.approx(other.r2)
    assert binary.likelihood_indices(twice).u == pytest.approx(other.u + 1 / 400)
