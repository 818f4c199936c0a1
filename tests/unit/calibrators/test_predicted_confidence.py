import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fedlas.calibrators._fit.confidence_cells import predicted_log_odds, with_log_odds


def rows(samples=200, classes=6, scale=3.0, seed=0):
    return scale * torch.randn(
        samples, classes, generator=torch.Generator().manual_seed(seed), dtype=torch.float64
    )


@pytest.mark.parametrize("temperature", [1.0, 2.5])
def test_log_odds_are_those_of_the_confidence(temperature):
    logits = rows()
    confidence = (logits / temperature).softmax(1).amax(1)
    torch.testing.assert_close(
        predicted_log_odds(logits, temperature), (confidence / (1 - confidence)).log()
    )


def test_log_odds_where_the_confidence_rounds_to_one_and_where_it_is_the_only_class():
    assert predicted_log_odds(torch.tensor([[900.0, 0.0, -900.0]]), 1.0).item() == pytest.approx(
        900
    )
    assert predicted_log_odds(torch.tensor([[3.0]]), 1.0).item() == math.inf


@given(
    st.integers(0, 10_000),
    st.integers(2, 8),
    st.sampled_from([0.1, 1.0, 10.0, 300.0]),
    st.floats(-4, 4),
)
def test_the_confidence_becomes_what_is_asked_and_the_prediction_stays(
    seed, classes, scale, change
):
    logits = rows(20, classes, scale, seed)
    before = predicted_log_odds(logits, 1.0)
    after = before + change
    found = with_log_odds(logits, before, after)
    assert torch.isfinite(found).all()
    assert torch.equal(found.argmax(1), logits.argmax(1))
    least = -math.log(classes - 1)
    torch.testing.assert_close(
        predicted_log_odds(found, 1.0), after.clamp(min=least), atol=1e-4 * scale, rtol=1e-6
    )


def test_raised_in_proportion_lowered_by_a_temperature():
    logits = rows()
    before = predicted_log_odds(logits, 1.0)
    top = logits.argmax(1, keepdim=True)
    others = torch.ones_like(logits).scatter(1, top, 0).bool()
    raised = with_log_odds(logits, before, before + 0.5).softmax(1)
    ratio = raised / logits.softmax(1)
    assert ratio[others].view(200, 5).std(dim=1).max() < 1e-12
    lowered = with_log_odds(logits, before, before - 0.2)
    scale = (lowered - lowered.mean(1, keepdim=True)) / (logits - logits.mean(1, keepdim=True))
    assert scale.std(dim=1).max() < 1e-9
    assert (scale < 1).all()


def test_two_equal_logits_on_top():
    logits = torch.tensor([[2.0, 2.0, 0.0]], dtype=torch.float64)
    before = predicted_log_odds(logits, 1.0)
    raised, lowered = (with_log_odds(logits, before, before + change) for change in (1.0, -0.3))
    torch.testing.assert_close(predicted_log_odds(raised, 1.0), before + 1)
    torch.testing.assert_close(predicted_log_odds(lowered, 1.0), before - 0.3)
    assert lowered.argmax() == 0


def test_equal_logits_cannot_be_flattened():
    logits = torch.ones(1, 4, dtype=torch.float64)
    before = predicted_log_odds(logits, 1.0)
    assert torch.isfinite(with_log_odds(logits, before, before - 1)).all()
