"""ECE of several labels: that of each label alone, with intervals and noise floors."""

import pytest
import torch

from fedlas import MultiLabel, binary


def several(*, sharpness=1.0, samples=600, **options):
    random = torch.Generator().manual_seed(0)
    logits = 2 * torch.randn(samples, 3, generator=random)
    target = torch.bernoulli(logits.sigmoid(), generator=random)
    return MultiLabel(sharpness * logits, target, names=("a", "b", "c"), **options)


@pytest.mark.parametrize("num_bins", [1, 15])
def test_label_ece_equals_two_class_ece(num_bins):
    labels = several(sharpness=2.0)
    found = binary.label_measures(labels, num_bins=num_bins, replicates=0)
    for name in labels.names:
        alone = binary.ece(labels.label(name), num_bins=num_bins)
        assert found[name].ece.value == pytest.approx(alone.value, abs=1e-6)


@pytest.mark.parametrize(("sharpness", "is_calibrated"), [(1.0, True), (3.0, False)])
def test_floor_and_p_value_detect_overconfident_labels(sharpness, is_calibrated):
    found = binary.label_measures(several(sharpness=sharpness), replicates=199)
    for each in found.values():
        assert each.ece.low <= each.ece.value <= each.ece.high
        assert 0 < each.ece.floor < 0.1
        assert (each.ece.p > 0.01) == is_calibrated


def test_clusters_of_copies_leave_the_interval_wide():
    """Twenty copies of each sample in a cluster of its own say no more than the samples."""
    one = several(sharpness=2.0, samples=100)
    copies = [
        each.repeat_interleave(20, dim=0) for each in (one.tensors().logits, one.tensors().target)
    ]
    clusters = torch.arange(100).repeat_interleave(20)
    many = MultiLabel(*copies, names=one.names, clusters=clusters)
    widths = [
        each.high - each.low
        for each in (binary.label_measures(part, replicates=199)["a"].ece for part in (one, many))
    ]
    assert 0.6 < widths[1] / widths[0] < 1.7
