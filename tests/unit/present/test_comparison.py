"""Two models or two methods compared: groups, seeds, several labels, and what is no pair."""

import json

import pytest
import torch

import fedlas
from fedlas import MultiLabel, Predictions
from fedlas.errors import InputError
from fedlas.present.comparison import differences_to_dict


def drawn(factor=1.0, *, num_classes=3, samples=240, noise=0, **roles):
    """Predictions of the same samples, ``factor`` times too sure."""
    random = torch.Generator().manual_seed(0)
    logits = torch.randn(samples, num_classes, generator=random)
    target = torch.multinomial(logits.softmax(1), 1, generator=random)[:, 0]
    other = torch.randn(samples, num_classes, generator=torch.Generator().manual_seed(noise))
    return Predictions(factor * (logits + 0.1 * bool(noise) * other), target, **roles)


def two(factor=1.0, names=None, event=None, **roles):
    """The same of two classes."""
    given = drawn(factor, num_classes=2, **roles)
    return Predictions(
        given.tensors().logits, given.tensors().target, classes=names, event=event, **roles
    )


GOOD, SURE = drawn(), drawn(4.0)


def test_groups_are_compared_each_and_corrected_together():
    groups = ["one"] + ["north", "south"] * 119 + ["south"]
    compared = fedlas.compare(GOOD, SURE, ["nll", "ece"], groups=groups, replicates=99)
    assert compared["nll"].better == "a"
    assert compared.samples == 240
    assert {name: each.samples for name, each in compared.groups.items()} == {
        "north": 119,
        "one": 1,
        "south": 120,
    }
    for name in ("north", "south"):
        rows = torch.tensor([place for place, each in enumerate(groups) if each == name])
        alone = fedlas.compare(GOOD.rows(rows), SURE.rows(rows), ["nll", "ece"], replicates=99)
        each = compared.groups[name]["nll"]
        assert each.difference == pytest.approx(alone["nll"].difference)
        assert each.p >= alone["nll"].p
    # A sample alone has a difference and no interval.
    assert compared.groups["one"]["nll"].interval is None
    plain = json.loads(json.dumps(differences_to_dict(compared), allow_nan=False))
    assert plain["groups"]["north"]["nll"]["difference"] == pytest.approx(
        compared.groups["north"]["nll"].difference
    )
    assert "low" not in plain["groups"]["one"]["nll"]


def test_weightless_or_single_class_group_is_partly_compared():
    weights = torch.ones(240, dtype=torch.float64)
    weights[:10] = 0
    models = [two(factor, weights=weights) for factor in (1.0, 4.0)]
    happened = models[0].tensors().target.bool().tolist()
    groups = ["none"] * 10 + ["yes" if each else "no" for each in happened[10:]]
    compared = fedlas.compare(*models, ["auroc", "nll"], groups=groups, replicates=99)
    assert compared.event == "class 1"
    assert "auroc" not in compared.groups["yes"]
    assert compared.groups["yes"]["nll"].interval is not None
    assert compared.groups["none"]["nll"].interval is None


def test_methods_over_seeds_are_tested_over_seeds():
    sides = [[drawn(factor, noise=seed) for seed in (1, 2, 3)] for factor in (1.0, 4.0)]
    compared = fedlas.compare(*sides, ["nll", "accuracy"])
    assert (compared.unit, compared["nll"].unit, compared["nll"].count) == ("seeds", "seeds", 3)
    assert compared["nll"].better == "a"
    assert compared["accuracy"].better is None
    assert compared.samples == 240
    gate = compared.fail_if_worse("nll")
    assert gate.status == 0
    assert fedlas.compare(*sides[::-1]).fail_if_worse("nll").status == 3


@pytest.mark.parametrize(
    ("pair", "options", "said"),
    [
        (([GOOD], [SURE]), {}, "same number of seeds, at least 2"),
        (([GOOD, drawn(noise=1)], SURE), {}, "both be lists of predictions"),
        (([GOOD, GOOD], [SURE, drawn(2.0)]), {}, "must be different; got the same object"),
        (
            ([GOOD, drawn(noise=1)], [SURE, drawn(2.0)]),
            {"seed": 3},
            "must not be passed with lists",
        ),
        ((GOOD, GOOD), {}, "must be different predictions"),
        ((GOOD, SURE), {"groups": ["a"] * 9}, "one entry per sample, 240"),
        (
            (two(names=("no", "yes")), two(4.0, names=("yes", "no"))),
            {},
            "classes in the same order",
        ),
        ((two(event=0), two(4.0, event=1)), {}, "about the same event"),
    ],
)
def test_what_is_no_pair_is_refused(pair, options, said):
    with pytest.raises(InputError, match=said):
        fedlas.compare(*pair, **options)


def test_multi_label_comparison_uses_means_without_event():
    random = torch.Generator().manual_seed(0)
    logits = torch.randn(200, 3, generator=random)
    target = torch.bernoulli(logits.sigmoid(), generator=random).long()
    good, sure = MultiLabel(logits, target), MultiLabel(4 * logits, target)
    compared = fedlas.compare(good, sure, replicates=99)
    assert compared["macro_nll"].better == "a"
    assert (compared.samples, compared.event) == (200, "")
    for option in ({"event": 1}, {"groups": ["a"] * 200}, {"top_label": True}):
        with pytest.raises(InputError, match=f"{next(iter(option))} requires one label"):
            fedlas.compare(good, sure, **option)


def test_gate_names_metrics_and_event():
    compared = fedlas.compare(two(), two(4.0), ["ece"], replicates=99)
    assert compared.fail_if_worse("ece", names=("new", "old")).status == 0
    for names in ((), ("nll",)):
        with pytest.raises(InputError, match="among the compared metrics, ece"):
            compared.fail_if_worse(*names)
