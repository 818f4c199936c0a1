"""Sample sizes of a development against published examples.

Sources: the example of ``pmsampsize`` for a binary outcome (24 parameters, prevalence .174, R2 .288: 623, 662 and 221);
Riley et al., Statistics in Medicine 40 (2021), for R2 of a C statistic.
"""

import math

import numpy as np
import pytest

from fedlas.binary import development_size
from fedlas.errors import InputError


def test_published_example_has_same_sizes():
    size = development_size(0.174, parameters=24, r2=0.288)
    assert list(size.by_criterion.values()) == [623, 662, 221]
    assert size.samples == 662
    assert size.events_per_parameter == pytest.approx(0.174 * 662 / 24)


def test_r2_of_auroc_is_that_of_a_fit():
    """The likelihood ratio of the true model on drawn samples, as the paper simulates it."""
    auroc, prevalence, samples = 0.8, 0.2, 400_000
    random = np.random.default_rng(0)
    happened = random.random(samples) < prevalence
    shift = (
        math.sqrt(2) * 0.8416212335729143
    )  # Phi^-1(.8): the distance of both groups in standard deviations
    values = random.normal(size=samples) + shift * happened
    log_odds = shift * values - shift**2 / 2 + math.log(prevalence / (1 - prevalence))
    gained = (happened * log_odds - np.logaddexp(0, log_odds)).mean()
    null = prevalence * math.log(prevalence) + (1 - prevalence) * math.log(1 - prevalence)
    size = development_size(prevalence, auroc, parameters=5)
    assert size.r2 == pytest.approx(1 - math.exp(2 * (null - gained)), rel=0.02)
    assert size.max_r2 == pytest.approx(1 - math.exp(2 * null))


def test_stricter_goals_take_more_samples():
    plain = development_size(0.1, 0.75, parameters=10)
    for options in ({"shrinkage": 0.95}, {"optimism": 0.02}, {"margin": 0.02}):
        strict = development_size(0.1, 0.75, parameters=10, **options)
        more = [strict.by_criterion[name] > plain.by_criterion[name] for name in plain.by_criterion]
        assert sum(more) == 1
    assert development_size(0.001, 0.99, parameters=1).samples >= 1000


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"auroc": 0.8, "parameters": 3}, "prevalence is required"),
        ({"prevalence": 0.1, "parameters": 3}, "exactly one of auroc and r2"),
        ({"prevalence": 0.1, "auroc": 0.8, "r2": 0.1, "parameters": 3}, "exactly one of auroc and"),
        ({"prevalence": 0.1, "auroc": 0.8, "parameters": 0}, "parameters must be"),
        ({"prevalence": 0.1, "r2": 0.9, "parameters": 3}, r"r2 must be .*\(0, 0\.478041"),
        ({"prevalence": 0.1, "auroc": 0.8, "shrinkage": 1.0, "parameters": 3}, "shrinkage must"),
        ({"prevalence": 0.1, "auroc": 0.8, "margin": 0, "parameters": 3}, "margin must"),
    ],
)
def test_impossible_development_is_refused(options, message):
    with pytest.raises(InputError, match=message):
        development_size(**options)
