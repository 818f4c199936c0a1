import pytest
import torch
from scipy.stats import beta

from fedlas import Predictions, TopLabel
from fedlas.errors import InputError
from fedlas.stats import reject_option, risk_threshold


def drawn(samples, seed=0):
    """Predictions that are right as often as they say."""
    random = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(samples, 3, generator=random, dtype=torch.float64)
    return Predictions(logits, torch.multinomial(logits.softmax(1), 1, generator=random)[:, 0])


def test_the_threshold_is_of_validation_and_the_numbers_are_of_test():
    val, test = drawn(3000), drawn(2000, seed=1)
    found = reject_option(val, test, risk=0.1, confidence_level=0.9)
    chosen = risk_threshold(
        val.confidence.numpy(), val.correct.numpy(), risk=0.1, num_classes=3, confidence_level=0.9
    )
    assert found.chosen == chosen
    accepted = test.confidence >= chosen.threshold
    wrong = int((accepted & ~test.correct).sum())
    assert (found.samples, found.accepted, found.wrong) == (2000, int(accepted.sum()), wrong)
    assert found.coverage == found.accepted / 2000
    assert found.risk == wrong / found.accepted < found.upper
    assert found.upper == pytest.approx(beta.ppf(0.9, wrong + 1, found.accepted - wrong))
    assert found.plain()["test"]["upper"] == found.upper


def test_without_a_threshold_nothing_is_accepted():
    found = reject_option(drawn(20), drawn(20, seed=1), risk=0.001)
    assert (found.threshold, found.accepted, found.coverage, found.risk, found.upper) == (
        None,
        0,
        0.0,
        None,
        1.0,
    )
    assert "test" not in found.plain()


def test_the_wanted_risk_is_kept_as_often_as_promised():
    population = drawn(20000, seed=99)
    broken = 0
    for seed in range(100):
        found = reject_option(drawn(400, seed), population, risk=0.2, confidence_level=0.9)
        broken += found.risk is not None and found.risk > 0.2
    assert broken <= 10


def test_top_labels_are_enough():
    top = TopLabel(drawn(500).confidence, drawn(500).correct)
    assert reject_option(top, top, risk=0.9).coverage == 1.0  # everything may be accepted


@pytest.mark.parametrize("other", [None, 3, torch.zeros(3), Predictions(torch.zeros(2, 3))])
def test_anything_else_is_refused(other):
    for parts in ((other, drawn(50)), (drawn(50), other)):
        with pytest.raises(InputError, match="reject_option: predictions must"):
            reject_option(*parts, risk=0.1)


def test_weights_are_refused_since_no_bound_holds_with_them():
    weighted = TopLabel(drawn(50).confidence, drawn(50).correct, weights=torch.ones(50))
    for parts in ((weighted, drawn(50)), (drawn(50), weighted)):
        with pytest.raises(InputError, match="predictions must have no weights"):
            reject_option(*parts, risk=0.5)
