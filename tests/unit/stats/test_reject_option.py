import numpy as np
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


def test_threshold_is_from_validation_and_numbers_from_test():
    val, test = drawn(3000), drawn(2000, seed=1)
    found = reject_option(val, test, risk=0.1, confidence_level=0.9)
    chosen = risk_threshold(
        val.confidence, val.correct, risk=0.1, num_classes=3, confidence_level=0.9
    )
    assert found.chosen == chosen
    accepted = test.tensors().confidence >= chosen.threshold
    wrong = int((accepted & ~test.tensors().correct).sum())
    assert (found.samples, found.accepted, found.wrong) == (2000, int(accepted.sum()), wrong)
    assert found.coverage == found.accepted / 2000
    assert found.risk == wrong / found.accepted < found.upper
    assert found.upper == pytest.approx(beta.ppf(0.9, wrong + 1, found.accepted - wrong))
    assert found.to_dict()["test"]["upper"] == found.upper


def test_without_a_threshold_nothing_is_accepted():
    found = reject_option(drawn(20), drawn(20, seed=1), risk=0.001)
    assert (found.threshold, found.accepted, found.coverage, found.risk, found.upper) == (
        None,
        0,
        0.0,
        None,
        1.0,
    )
    assert "test" not in found.to_dict()


def test_target_risk_is_kept_with_confidence_level():
    population = drawn(20000, seed=99)
    broken = 0
    for seed in range(100):
        found = reject_option(drawn(400, seed), population, risk=0.2, confidence_level=0.9)
        broken += found.risk is not None and found.risk > 0.2
    assert broken <= 10


def test_top_labels_are_enough():
    top = TopLabel(drawn(500).tensors().confidence, drawn(500).tensors().correct)
    assert reject_option(top, top, risk=0.9).coverage == 1.0  # everything may be accepted


@pytest.mark.parametrize("other", [None, 3, torch.zeros(3), Predictions(torch.zeros(2, 3))])
def test_anything_else_is_refused(other):
    for parts in ((other, drawn(50)), (drawn(50), other)):
        with pytest.raises(InputError, match="reject_option: predictions must"):
            reject_option(*parts, risk=0.1)


def test_weights_raise():
    weighted = TopLabel(
        drawn(50).tensors().confidence, drawn(50).tensors().correct, weights=torch.ones(50)
    )
    for parts in ((weighted, drawn(50)), (drawn(50), weighted)):
        with pytest.raises(InputError, match="predictions must have no weights"):
            reject_option(*parts, risk=0.5)


def broken(draws, *, clusters, sizes=(1, 15), correlation=1.0):
    """In how many draws of 100 questions a risk of 0.22 is taken for 0.2 or less, with confidence 0.9."""
    count = 0
    for seed in range(draws):
        draw = np.random.default_rng(seed)
        code = np.repeat(np.arange(100), draw.choice(sizes, 100))
        fails = draw.random(100)[code]
        alone = draw.random(len(code)) >= correlation
        correct = np.where(alone, draw.random(len(code)), fails) >= 0.22
        found = risk_threshold(
            np.full(len(code), 0.9),
            correct,
            risk=0.2,
            num_classes=2,
            confidence_level=0.9,
            clusters=code if clusters else None,
        )
        count += found.threshold is not None
    return count


def test_clustered_risk_is_kept_with_confidence_level():
    """Answers to a question fail together: the bound of independent samples breaks its promise of one draw in ten."""
    assert broken(100, clusters=True) <= 10
    assert broken(100, clusters=False) >= 15


@pytest.mark.long
@pytest.mark.parametrize("sizes", [(2, 2), (1, 15), (1, 100)])
@pytest.mark.parametrize("correlation", [0.0, 0.5, 1.0])
def test_of_clusters_of_other_sizes_too(sizes, correlation):
    assert broken(1000, clusters=True, sizes=sizes, correlation=correlation) <= 100


def test_of_clusters_each_weighs_the_same():
    """By hand: of one question both answers are accepted, one of them wrong; of the other one of four, right."""
    sure = np.tile([0.9, 0.3], 200)  # in each of 200 clusters one answer is right, the other is not
    val = TopLabel(sure, sure > 0.5, clusters=np.arange(400) // 2)
    test = TopLabel(
        [0.95, 0.95, 0.95, 0.1, 0.1, 0.1], [1, 0, 1, 0, 0, 0], clusters=[7, 7, 3, 3, 3, 3]
    )
    found = reject_option(val, test, risk=0.2)
    assert 0.3 < found.threshold <= 0.9
    assert (found.chosen.coverage, found.to_dict()["clusters"]) == (0.5, 200)
    assert (found.accepted, found.wrong) == (3, 1)
    assert found.coverage == (1 + 1 / 4) / 2
    assert found.risk == pytest.approx((1 / 2) / (1 + 1 / 4))
    assert found.risk < found.upper <= 1


@pytest.mark.parametrize("risk", [0.05, 0.3])
def test_how_many_clusters_are_needed_is_exact(risk):
    def chosen(count):
        code = np.arange(2 * count) // 2
        ones = np.ones(2 * count)
        return risk_threshold(ones, ones, risk=risk, num_classes=2, clusters=code)

    needed = chosen(2).needed
    assert chosen(needed - 1).threshold is None
    assert chosen(needed).threshold is not None


def test_clusters_of_one_sample_each_are_independent_samples():
    val = drawn(600)
    alone = Predictions(val.tensors().logits, val.tensors().target, clusters=torch.arange(600))
    assert reject_option(alone, alone, risk=0.2) == reject_option(val, val, risk=0.2)
    with pytest.raises(InputError, match="both have clusters"):
        reject_option(alone, val, risk=0.2)
