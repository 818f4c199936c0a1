import numpy as np
import pytest
import torch

from fedlas import Predictions, TopLabel
from fedlas.stats import estimates, group_estimates, holm


def made(samples=900, seed=0):
    """Calibrated in all groups but "b", whose confidences are 0.15 too high."""
    rng = np.random.default_rng(seed)
    confidence = rng.uniform(0.5, 1.0, samples)
    groups = np.array(["a", "b", "c"])[np.arange(samples) % 3]
    correct = rng.random(samples) < confidence - np.where(groups == "b", 0.15, 0.0)
    return TopLabel(confidence, correct), groups


def test_every_number_is_that_of_the_group_alone():
    top, groups = made()
    found = group_estimates(top, groups, replicates=199, num_bins=10, seed=4)
    assert next(iter(found)) == "b"
    for name, each in found.items():
        rows = np.flatnonzero(groups == name)
        alone = TopLabel(top.tensors().confidence[rows], top.tensors().correct[rows])
        known = estimates(alone, ["accuracy", "ece"], replicates=199, num_bins=10, seed=4)
        assert (each.accuracy, each.ece) == (known["accuracy"], known["ece"])
        assert each.num_samples == len(rows)
        assert each.confidence == pytest.approx(float(alone.tensors().confidence.mean()))
        assert each.excess == each.ece.value - each.ece.floor
    assert [each.p for each in found.values()] == holm([each.ece.p for each in found.values()])
    assert found["b"].p <= 0.05 < found["a"].p


def test_predictions_are_the_same_as_their_top_label():
    logits = torch.randn(300, 4, generator=torch.Generator().manual_seed(0)) * 2
    p = Predictions(logits, torch.arange(300) % 4)
    groups = (torch.arange(300) % 2).tolist()
    assert group_estimates(p, groups, replicates=60) == group_estimates(
        TopLabel(p.tensors().confidence, p.tensors().correct), groups, replicates=60
    )


def test_weights_count_within_groups():
    top, groups = made()
    weighted = TopLabel(top.tensors().confidence, top.tensors().correct, np.arange(900) % 2 + 1)
    found = group_estimates(weighted, groups, replicates=60)["b"]
    rows = np.flatnonzero(groups == "b")
    alone = TopLabel(
        top.tensors().confidence[rows],
        top.tensors().correct[rows],
        weighted.tensors().weights[rows],
    )
    # 40 for each of three groups
    assert found.ece == estimates(alone, ["ece"], replicates=120)["ece"]


@pytest.mark.parametrize("replicates", [0, 60])
def test_samples_of_weight_0_are_absent(replicates):
    top, groups = made()
    weights = torch.ones(900)
    weights[groups == "a"] = 0
    weights[np.flatnonzero(groups == "c")[1:]] = 0
    counted = np.flatnonzero(weights > 0)
    wanted = group_estimates(
        TopLabel(
            top.tensors().confidence[counted], top.tensors().correct[counted], weights[counted]
        ),
        groups[counted],
        replicates=replicates,
    )
    assert set(wanted) == {"b", "c"}
    weighted = TopLabel(top.tensors().confidence, top.tensors().correct, weights)
    assert group_estimates(weighted, groups, replicates=replicates) == wanted


def test_many_groups_have_replicates_enough_for_the_correction():
    top, _ = made()
    found = group_estimates(top, np.arange(900) % 30, replicates=60)
    assert {each.ece.replicates for each in found.values()} == {1200}
    assert min(each.ece.least_p for each in found.values()) * 30 < 0.05


def test_single_samples_and_no_replicates_are_not_tested():
    top, groups = made()
    groups = groups.astype("U5")
    groups[7] = "alone"
    found = group_estimates(top, groups, replicates=60)
    assert list(found)[-1] == "alone"
    assert found["alone"].p is None
    assert found["alone"].ece.floor is None
    plain = group_estimates(top, groups, replicates=0)
    assert {each.p for each in plain.values()} == {None}
    assert plain["b"].ece.value == found["b"].ece.value


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        (
            np.arange(900).astype(str),
            "two samples on average; got 900 groups of 900 samples. Cut measurements",
        ),
        (np.linspace(0, 1, 900), "groups must be labels"),
        (["a", "b"], r"groups must have shape \(900,\)"),
    ],
)
def test_refusals(groups, message):
    with pytest.raises(ValueError, match=message):
        group_estimates(made()[0], groups)


def test_replicates_are_a_count():
    with pytest.raises(ValueError, match="replicates must be a whole number"):
        group_estimates(TopLabel([0.6, 0.7], [True, False]), ["a", "a"], replicates="many")


def test_many_groups_test_only_largest_excess(monkeypatch):
    draw = torch.Generator().manual_seed(0)
    confidence = 0.5 + 0.5 * torch.rand(400, generator=draw)
    correct = torch.bernoulli(confidence, generator=draw).bool()
    groups = [f"g{number:02}" for number in (torch.arange(400) % 20).tolist()]
    correct[torch.arange(400) % 20 == 7] = False
    top = TopLabel(confidence, correct)
    every = group_estimates(top, groups, replicates=99)
    monkeypatch.setitem(group_estimates.__globals__, "MAX_TESTED", 8)
    some = group_estimates(top, groups, replicates=99)
    assert every.keys() == some.keys()
    assert next(iter(some)) == next(iter(every)) == "g07"
    tested = [name for name, each in some.items() if each.p is not None]
    assert len(tested) == 8 == len(set(tested) & set(list(every)[:11]))
    # Of those numbers and corrections are as before.
    assert some["g07"] == every["g07"]
    assert all(some[name].ece.value == every[name].ece.value for name in every)
