import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedlas.errors import InputError
from fedlas.stats import risk_threshold


def sample(seed, size=400):
    """Confidences of a calibrated model of two classes: above ``t`` its risk is ``(1 - t) / 2``."""
    rng = np.random.default_rng(seed)
    confidence = rng.uniform(0.5, 1, size)
    return confidence, rng.random(size) < confidence


def test_the_risk_is_kept_as_often_as_promised():
    wanted, confidence_level, repeats = 0.1, 0.8, 300
    found = [
        risk_threshold(
            *sample(seed, 2000), risk=wanted, num_classes=2, confidence_level=confidence_level
        )
        for seed in range(repeats)
    ]
    broken = sum(f.threshold is not None and (1 - f.threshold) / 2 > wanted for f in found)
    assert broken <= repeats * 0.2 + 3 * math.sqrt(repeats * 0.2 * 0.8)
    # it does not refuse everything
    assert sum(f.threshold is not None for f in found) > 0.9 * repeats


def test_the_risk_is_kept_where_confidence_says_nothing():
    """The hardest case: every threshold has a risk just above the wanted one, so that any that is given is wrong."""
    wanted, repeats = 0.1, 400
    given_out = 0
    for seed in range(repeats):
        rng = np.random.default_rng(seed)
        confidence, correct = rng.uniform(0.5, 1, 300), rng.random(300) >= wanted * 1.0001
        given_out += (
            risk_threshold(
                confidence, correct, risk=wanted, num_classes=2, confidence_level=0.8
            ).threshold
            is not None
        )
    assert given_out <= repeats * 0.2 + 3 * math.sqrt(repeats * 0.2 * 0.8)


@given(
    seed=st.integers(0, 10**6),
    size=st.integers(1, 600),
    risks=st.tuples(st.floats(0.01, 0.4), st.floats(0.01, 0.4)),
)
def test_counts_match_and_smaller_risk_accepts_no_more(seed, size, risks):
    confidence, correct = sample(seed, size)
    small, large = (
        risk_threshold(confidence, correct, risk=risk, num_classes=2) for risk in sorted(risks)
    )
    for found in (small, large):
        if found.threshold is not None:
            chosen = confidence >= found.threshold
            assert (found.selected, found.wrong) == (chosen.sum(), (chosen & ~correct).sum())
            assert found.wrong / found.selected <= found.risk
            assert found.coverage == found.selected / size
    assert small.selected <= large.selected


def test_how_many_samples_are_needed_is_exact():
    # the level is shared by ten places where the search for a threshold starts
    needed = risk_threshold(np.ones(1), np.ones(1), risk=0.02, num_classes=10).needed
    assert needed == math.ceil(math.log(0.05 / 10) / math.log(0.98))
    for size, known in ((needed - 1, False), (needed, True)):
        found = risk_threshold(np.ones(size), np.ones(size), risk=0.02, num_classes=10)
        assert (found.threshold is not None) is known
    assert found.threshold == pytest.approx(0.1)  # nothing speaks against accepting all there is
    assert found.selected == needed


def test_all_is_accepted_where_nothing_speaks_against_it():
    for num_classes in (2, 4, 1000):
        found = risk_threshold(np.ones(2000), np.ones(2000), risk=0.1, num_classes=num_classes)
        assert found.threshold == 1 / num_classes
    # float32 uniform probabilities lie below a third
    below = np.full(2000, np.float32(1 / 3), dtype=np.float64) - 1e-8
    assert risk_threshold(below, np.ones(2000), risk=0.1, num_classes=3).selected == 2000


def test_invalid_input_raises():
    for confidence, correct in (
        (np.ones(3), np.ones(2)),
        (np.ones((2, 2)), np.ones((2, 2))),
        ([], []),
    ):
        with pytest.raises(InputError, match="confidence and correct"):
            risk_threshold(np.array(confidence), np.array(correct), risk=0.1, num_classes=2)
    for risk in (0.0, 1.0, float("nan")):
        with pytest.raises(InputError, match="risk"):
            risk_threshold(np.ones(3), np.ones(3), risk=risk, num_classes=2)
