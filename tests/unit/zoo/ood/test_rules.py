"""Rules against counts by hand: a forest whose trees are all the same, and have three leaves."""

import math
from itertools import combinations

import pytest
import torch

from fedlas.errors import InputError
from fedlas.predictions import Predictions
from fedlas.zoo.ood import rule_shift, rules_score


def known(values, target=None):
    x = torch.tensor(values, dtype=torch.float32)[:, None]
    target = torch.tensor(values if target is None else target)
    return Predictions(torch.zeros(len(x), 3), target, features=x)


# Values 0, 1 and 2 are classes, so the rules of every tree are x <= 0.5, 0.5 < x <= 1.5 and x > 1.5.
TRAIN = known([0] * 60 + [1] * 30 + [2] * 30)
HELD_OUT, BATCH = [0] * 4 + [1] * 2 + [2] * 2, [0, 2, 2, 2]


def column(values):
    return torch.tensor(values, dtype=torch.float32)[:, None]


def test_score_is_share_of_samples_missing_rule():
    # 60 of 120 training samples hit the first rule, and 30 each of the others.
    assert rules_score(column([0.2, 0.8, 9]), train=TRAIN, trees=7).tolist() == [0.5, 0.75, 0.75]
    # Of 120 samples drawn with replacement, 76 differ: about 38, 19 and 19. So only the first class can have a rule of
    # at least 25, and the other two share one.
    assert rules_score(column([0, 1, 2]), train=TRAIN, trees=7, leaf=25).tolist() == [0.5, 0.5, 0.5]


def test_the_distance_of_two_sets():
    # Shares of the rules are 1/2, 1/4, 1/4 and 1/4, 0, 3/4: the differences add up to 1, half of which is 1/2.
    found = rule_shift(TRAIN, column(BATCH), held_out=column(HELD_OUT), trees=7, permutations=4999)
    assert found.statistic == pytest.approx(0.5)
    # The 495 divisions of the 12 samples, each counted by hand.
    values, as_far = BATCH + HELD_OUT, 0
    for chosen in combinations(range(12), 4):
        mine = [values[i] for i in chosen]
        rest = [values[i] for i in range(12) if i not in chosen]
        as_far += (
            sum(abs(mine.count(v) / 4 - rest.count(v) / 8) for v in (0, 1, 2)) / 2 > 0.5 - 1e-9
        )
    exact = as_far / 495
    assert 0.05 < exact < 0.5
    assert found.p_value == pytest.approx(exact, abs=4 * math.sqrt(exact * (1 - exact) / 4999))


def test_a_single_sample_is_a_set_of_one():
    sample = column([1])
    shift = rule_shift(TRAIN, sample, held_out=TRAIN.tensors().features, trees=7, permutations=19)
    assert shift.statistic == pytest.approx(rules_score(sample, train=TRAIN, trees=7).item())


def test_the_information_of_two_sets():
    # Over rules, the shares (1/2, 1/4, 1/4) take two values and (1/4, 0, 3/4) three, which determine the former. So
    # the information is the entropy of the former: one rule of three, and two of three.
    found = rule_shift(
        TRAIN, column(BATCH), held_out=column(HELD_OUT), trees=50, statistic="information"
    )
    assert found.statistic == pytest.approx(math.log(3) / 3 + 2 / 3 * math.log(1.5))


def drawn(samples, noise, seed):
    random = torch.Generator().manual_seed(seed)
    target = torch.randint(3, (samples,), generator=random)
    x = torch.eye(3)[target].repeat(1, 2) + noise * torch.randn(samples, 6, generator=random)
    return Predictions(torch.zeros(samples, 3), target, features=x)


@pytest.mark.parametrize("statistic", ["distance", "information"])
def test_a_shifted_set_is_found(statistic):
    train, other = drawn(600, 0.5, 0), drawn(200, 1.0, 1).tensors().features
    found = rule_shift(train, other, statistic=statistic, trees=30, permutations=99)
    assert found.p_value == 0.01
    assert found == rule_shift(train, other, statistic=statistic, trees=30, permutations=99)


@pytest.mark.parametrize("statistic", ["distance", "information"])
def test_p_is_uniform_without_a_shift(statistic):
    options = {"statistic": statistic, "trees": 8, "permutations": 39}
    found = [
        rule_shift(drawn(80, 0.5, seed), drawn(30, 0.5, 99 + seed).tensors().features, **options)
        for seed in range(60)
    ]
    small = sum(shift.p_value <= 0.25 for shift in found)
    # 15 expected; a binomial of 60 lies in this range in 999 of 1000 cases.
    assert 5 <= small <= 26


def test_what_cannot_have_rules_is_refused():
    with pytest.raises(InputError, match="separate classes"):
        rules_score(column([0]), train=known([0, 1, 2], [1, 1, 1]))
    with pytest.raises(InputError, match="separate classes"):
        rules_score(column([0]), train=known([1, 1, 1], [0, 1, 2]))
    with pytest.raises(InputError, match=r"\(N, 1\)"):
        rule_shift(TRAIN, column([0]), held_out=torch.zeros(3, 2))
    with pytest.raises(InputError, match="at least 4 samples"):
        rule_shift(known([0, 1, 2]), column([0]))
    with pytest.raises(InputError, match="distance, information"):
        rule_shift(TRAIN, column([0]), statistic="l1")
    with pytest.raises(InputError, match="at least 19"):
        rule_shift(TRAIN, column([0]), permutations=5)
    without = Predictions(TRAIN.tensors().logits, TRAIN.tensors().target)
    with pytest.raises(InputError, match="train must have features"):
        rule_shift(without, column([0]))
