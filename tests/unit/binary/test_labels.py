"""Measures of several labels a sample agree with those of each label alone, and intervals hold their means."""

import numpy as np
import pytest
import torch
from torch.nn.functional import binary_cross_entropy_with_logits

import fedlas
from fedlas import MultiLabel, Predictions
from fedlas.binary import auroc, group_measures, label_measures
from fedlas.errors import InputError

LABELS = 4


def drawn(samples=800, seed=0, scale=1.0, together=0.0, **roles):
    random = torch.Generator().manual_seed(seed)
    shared = together * torch.randn(samples, 1, generator=random)
    logits = torch.randn(samples, LABELS, generator=random) + shared - torch.arange(LABELS) / 2
    target = torch.bernoulli(logits.sigmoid(), generator=random).long()
    return MultiLabel(scale * logits.double(), target, names=tuple("abcd"), **roles)


def own(several, name):
    """One label as predictions of two classes, of independent samples where no clusters are named."""
    one = several.label(name)
    clusters = None if several.clusters is None else one.tensors().clusters
    return Predictions(
        one.tensors().logits, one.tensors().target, weights=one.tensors().weights, clusters=clusters
    )


@pytest.mark.parametrize("roles", ["none", "weights", "clusters", "unknown"])
def test_each_line_is_what_its_label_alone_has(roles):
    values = {"weights": torch.arange(800) % 3, "clusters": torch.arange(800) // 4}
    several = drawn(scale=1.5, **{name: values[name] for name in values if name == roles})
    if roles == "unknown":
        several = MultiLabel(
            several.tensors().logits,
            several.tensors().target.where(torch.arange(3200).view(800, 4) % 5 > 0, -100),
            names=several.names,
        )
    found = label_measures(several, replicates=199)
    for name in "abcd":
        one, line = own(several, name), found[name]
        alone = fedlas.estimates(one, ["ece"], replicates=199)["ece"]
        assert line.ece.value == pytest.approx(alone.value, abs=1e-9)
        assert line.ece.floor == pytest.approx(alone.floor, rel=0.15)
        assert line.ece.high - line.ece.value == pytest.approx(alone.high - alone.value, rel=0.35)
        expected = auroc(one)
        assert line.auroc.value == pytest.approx(expected.value, abs=1e-12)
        assert line.auroc.low == pytest.approx(expected.low, abs=1e-9)
        kept = one.weights is None or one.tensors().weights > 0
        samples = one.num_samples if one.weights is None else int(kept.sum())
        half = ["x", "y"] * (one.num_samples // 2) + ["x"] * (one.num_samples % 2)
        both = group_measures(one, half)
        assert sum(each.num_samples for each in both.values()) == line.num_samples == samples


def test_means_are_those_of_the_metrics():
    several = drawn(scale=2.0)
    found = label_measures(several, replicates=99).overall
    each = [fedlas.evaluate(own(several, name)) for name in "abcd"]
    for name in ("nll", "ece"):
        mean = np.mean([one[name] for one in each])
        assert found[f"macro_{name}"].value == pytest.approx(mean, abs=1e-7)
    assert found["worst_label_ece"].value == pytest.approx(max(one["ece"] for one in each))
    whole = several.pooled()
    pooled = fedlas.evaluate(whole)
    assert found["micro_nll"].value == pytest.approx(pooled["nll"], abs=1e-7)
    assert found["micro_ece"].value == pytest.approx(pooled["ece"], abs=1e-7)
    assert found["macro_ece"].floor < found["worst_label_ece"].floor


def test_interval_of_mean_allows_for_dependent_labels():
    apart, together = drawn(seed=3), drawn(seed=3, together=3.0)
    reach = [label_measures(each, replicates=99).overall["macro_nll"] for each in (apart, together)]
    values = [
        # The labels have as many samples each: the macro mean is that of all.
        binary_cross_entropy_with_logits(
            each.tensors().logits, each.tensors().target.double()
        ).item()
        for each in (drawn(seed=seed, together=3.0) for seed in range(25))
    ]
    assert reach[1].value == pytest.approx(values[3])
    assert reach[1].high - reach[1].value == pytest.approx(1.96 * np.std(values), rel=0.4)
    assert reach[0].high - reach[0].low > 0


def test_calibrated_labels_are_rarely_called_miscalibrated():
    """At most one in twenty sets of labels, but for chance: 60 sets, of which 8 or more come by chance in 1 of 100."""
    called = sum(
        min(each.p for each in label_measures(drawn(300, seed), replicates=0).values()) <= 0.05
        for seed in range(60)
    )
    assert called < 8


def test_macro_ece_interval_covers_large_sample_value():
    truth = label_measures(drawn(100_000, 99, scale=2.0), replicates=0).overall["macro_ece"].value
    held = 0
    for seed in range(20):
        found = label_measures(drawn(400, seed, scale=2.0), replicates=199).overall["macro_ece"]
        held += found.low <= truth <= found.high
    assert held >= 16


def test_table_starts_with_worst_label_and_omits_unknown():
    several = drawn()
    logits = several.tensors().logits.clone()
    logits[:, 2] *= 4
    target = several.tensors().target.clone()
    target[:, 3] = -100
    found = label_measures(MultiLabel(logits, target, names=tuple("abcd")), replicates=99)
    assert next(iter(found)) == "c"
    assert found.unknown == ("d",)
    assert [line.p for line in found.values()] == sorted(line.p for line in found.values())
    assert found["c"].p < 0.001 < found["a"].p
    with pytest.raises(InputError, match="at least one label must be known"):
        label_measures(MultiLabel(logits, torch.full_like(target, -100)))
    with pytest.raises(InputError, match="replicates"):
        label_measures(several, replicates=3)


def test_many_samples_are_drawn_in_blocks():
    """Blocks of rows have intervals like rows."""
    few = label_measures(drawn(1000), replicates=199).overall["macro_ece"]
    many = label_measures(drawn(4000), replicates=199).overall["macro_ece"]
    assert few.high - few.value == pytest.approx(2 * (many.high - many.value), rel=0.4)


def test_bootstrap_difference_equals_difference_of_single_label():
    """With five clusters the interval of an ECE was as narrow as with many, and its p-value as small."""
    several = drawn(200, scale=1.5, clusters=torch.arange(200) // 40)
    one = MultiLabel(
        several.tensors().logits[:, :1],
        several.tensors().target[:, :1],
        clusters=several.tensors().clusters,
    )
    other = MultiLabel(
        2.0 * one.tensors().logits, one.tensors().target, clusters=one.tensors().clusters
    )
    found = fedlas.compare(one, other, metrics=["macro_ece"], replicates=999)["macro_ece"]
    pair = (own(each, "0") for each in (one, other))
    expected = fedlas.compare(*pair, metrics=["ece"], replicates=999)["ece"]
    assert found.difference == pytest.approx(expected.difference, abs=1e-9)
    assert found.high - found.low == pytest.approx(expected.high - expected.low, rel=0.1)
    assert found.p_value == pytest.approx(expected.p_value, rel=0.2)
