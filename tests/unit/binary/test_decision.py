"""A threshold that is chosen on validation samples, and what it does on test samples, by counting."""

import numpy as np
import pytest
import torch

from fedlas import Predictions, binary
from fedlas.binary import Rule, choose_threshold, decide


def counted(p, threshold):
    # a softmax and a sigmoid round differently
    acts = p.tensors().probs[:, 1].numpy() >= threshold * (1 - 1e-9)
    happened = p.target == 1
    return acts, happened


def test_a_cost_ratio_is_a_threshold(draw):
    test = draw(2000)
    found = decide(None, test, Rule(cost_ratio=4))
    acts, happened = counted(test, 0.2)
    assert (found.threshold, found.acted, found.events_found) == (
        0.2,
        acts.sum(),
        (acts & happened).sum(),
    )
    assert found.events == happened.sum()
    assert found.false_alarms == (acts & ~happened).sum()
    curve = binary.net_benefit(test, thresholds=[0.2])
    for estimate, value, low in (
        (found.net_benefit, curve.model, curve.low),
        (found.over_all, curve.model - curve.treat_all, None),
    ):
        assert estimate.value == pytest.approx(value[0])
        assert low is None or estimate.low == pytest.approx(low[0])
    assert found.over_all.low < found.over_all.value < found.over_all.high


@pytest.mark.parametrize("seed", range(3))
def test_threshold_satisfies_rule_and_is_optimal_on_validation(draw, seed):
    val = draw(500, seed=seed)
    ranked = np.unique(val.tensors().probs[:, 1].numpy())

    def share(threshold, kind):
        acts, happened = counted(val, threshold)
        return (acts & happened).sum() / (happened.sum() if kind == "recall" else acts.sum())

    recall = choose_threshold(val, Rule(recall=0.8), num_samples=500)
    assert share(recall, "recall") >= 0.8
    assert all(share(higher, "recall") < 0.8 for higher in ranked[ranked > recall * (1 + 1e-9)])
    precision = choose_threshold(val, Rule(precision=0.6), num_samples=500)
    assert share(precision, "precision") >= 0.6
    assert all(share(lower, "precision") < 0.6 for lower in ranked[ranked < precision * (1 - 1e-9)])
    budget = choose_threshold(val, Rule(budget=100), num_samples=1000)
    assert counted(val, budget)[0].sum() == 50  # as many of 500 as 100 are of 1,000


def test_ties_are_acted_on_together():
    val = Predictions.from_probs([0.5] * 10 + [0.1] * 10, [1] * 5 + [0] * 15)
    assert choose_threshold(val, Rule(budget=5), num_samples=20) is None
    assert choose_threshold(val, Rule(budget=10), num_samples=20) == pytest.approx(0.5)
    found = decide(val, val, Rule(budget=5))
    assert found.to_dict() == {
        "rule": "budget", "value": 5.0, "num_samples": 20, "events": 5,
    }  # fmt: skip


def test_a_precision_that_nothing_reaches(two_class):
    p = two_class([0.0, 1.0, 2.0, 3.0], [1, 0, 1, 0])
    assert choose_threshold(p, Rule(precision=0.9), num_samples=4) is None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "exactly one of cost_ratio, budget, recall and precision must be set; got none"),
        ({"recall": 0.5, "precision": 0.5}, "got recall, precision"),
        ({"recall": 1.5}, r"recall must be a finite number in \(0, 1\]"),
        ({"cost_ratio": -1.0}, "cost_ratio must be a finite number above 0|cost_ratio must be"),
    ],
)
def test_rules_that_cannot_be(options, message):
    with pytest.raises(ValueError, match=message):
        Rule(**options)


def test_choosing_threshold_requires_validation_predictions(draw):
    with pytest.raises(ValueError, match="recall requires validation predictions; got none"):
        decide(None, draw(100), Rule(recall=0.5))


def test_clusters_widen_the_intervals(draw):
    p = draw(300)
    index = torch.arange(300).repeat_interleave(4)
    copied = Predictions(p.tensors().logits[index], p.tensors().target[index], clusters=index)
    one, four = (decide(None, each, Rule(cost_ratio=4)) for each in (p, copied))
    for name in ("net_benefit", "over_all"):
        a, b = getattr(one, name), getattr(four, name)
        assert b.high - b.low == pytest.approx(a.high - a.low, rel=0.02)
    assert four.recall.high - four.recall.low > 0.8 * (one.recall.high - one.recall.low)


def test_a_decision_prints_a_table():
    log_odds = torch.tensor([-3.0, -2.0, -1.0, 0.0, 1.0] * 20)
    test = Predictions(
        torch.stack([0 * log_odds, log_odds], dim=1), torch.tensor([0, 0, 1, 0, 1] * 20)
    )
    shown = str(decide(None, test, Rule(cost_ratio=3)))
    assert repr(decide(None, test, Rule(cost_ratio=3))) == shown
    lines = shown.split("\n")
    assert lines[0] == "A missed event is as bad as 3 false alarms (95 % intervals)"
    assert [line.split("  ")[0] for line in lines[1:4]] == ["act from", "acted on", "events found"]
    assert lines[1].split() == ["act", "from", "25.00", "%"]
    assert lines[2].split() == ["acted", "on", "60", "of", "100"]
    assert lines[5].startswith("recall")
    assert "100.0 %  [91.2, 100.0]" in lines[5]
    assert max(map(len, lines)) < 80


def test_threshold_rounding_to_one_has_finite_gain():
    log_odds = torch.tensor([-50.0, 50.0]).repeat(20)
    separated = Predictions(torch.stack([torch.zeros(40), log_odds], dim=1), torch.arange(40) % 2)
    decision = decide(separated, separated, Rule(recall=0.9))
    assert decision.threshold == 1.0
    assert decision.net_benefit.value == 0.5
