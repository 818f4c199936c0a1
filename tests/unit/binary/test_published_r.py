"""Numbers that R printed: ``rms::val.prob`` of data that its generator gives for a seed.

Source: README of the R package pmcalibration (Rhodes), binary outcome: ``set.seed(2345)``,
``sim_dat(1000, a1 = -3, a3 = .3)``, a model of risks with log-odds ``-3 + x1 + x2``; outputs of ``rms::val.prob`` and
of ``logistic_cal``.
"""

import numpy as np
import pytest
import torch
from scipy.stats import norm

from fedlas import Predictions, binary
from fedlas.stats import spiegelhalter_test

ROWS = 1000


def r_uniform(seed):
    """Uniform numbers of R: the Mersenne twister, seeded by a linear congruential generator after 50 warm-up steps."""
    state = []
    for _ in range(50 + 625):
        seed = (69069 * seed + 1) % 2**32
        state.append(seed)
    random = np.random.RandomState()
    random.set_state(("MT19937", np.array(state[51:], dtype=np.uint32), 624))
    return lambda size: (
        random.randint(0, 2**32, size=size, dtype=np.uint32) * 2.3283064365386963e-10
    )


def r_normal(uniform, size):
    """Normal numbers of R: the inverse distribution function of two uniform numbers joined to one of 59 bits."""
    high, low = uniform(2 * size).reshape(size, 2).T
    return norm.ppf((np.floor(2**27 * high) + low) / 2**27)


@pytest.fixture(scope="module")
def validation():
    uniform = r_uniform(2345)
    x1, x2 = r_normal(uniform, ROWS), r_normal(uniform, ROWS)
    np.testing.assert_allclose(x1[:3], [-1.19142464, 0.54930055, -0.06240514], atol=1e-8)
    risk = 1 / (1 + np.exp(3 - x1 - x2 - 0.3 * x1 * x2))
    drawn = uniform(ROWS)
    # rbinom inverts the rarer outcome
    happened = np.where(risk <= 0.5, drawn >= 1 - risk, drawn < risk)
    log_odds = torch.from_numpy(-3 + x1 + x2)
    return Predictions(
        torch.stack([torch.zeros(ROWS), log_odds], dim=1), torch.from_numpy(happened).long()
    )


def test_val_prob_has_the_same_numbers(validation):
    found = binary.measures(validation, replicates=0)
    published = {
        "auroc": 0.862783323,
        "brier": 0.057594793,
        "intercept": 0.528823286,
        "slope": 1.336388397,
    }
    for name, value in published.items():
        assert found[name].value == pytest.approx(value, abs=1e-9), name
    # U:p
    assert binary.logistic_recalibration(validation).p_value == pytest.approx(0.019149612, abs=1e-9)
    z, p = spiegelhalter_test(validation)
    assert z == pytest.approx(-1.684470284, abs=1e-8)
    assert p == pytest.approx(0.092090818, abs=1e-8)
    assert found["in_the_large"].value == pytest.approx(-0.044, abs=5e-4)  # of logistic_cal


def test_its_smoother_is_lowess_and_ours_loess(validation):
    """Eavg 0.0201, E90 0.0297, Emax 0.3502 there: lines over 2/3 of the samples, parabolas over 3/4 here."""
    found = binary.measures(validation, replicates=0)
    assert found["ici"].value == pytest.approx(0.0201, abs=1e-3)
    assert found["e90"].value == pytest.approx(0.0297, abs=1e-2)
    assert found["emax"].value == pytest.approx(0.3502, abs=3e-2)
