"""Clusters: copies of samples add nothing, single samples change nothing, and every statistic knows of them."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from fedlas import Predictions, TopLabel, binary, compare
from fedlas.errors import InputError
from fedlas.metrics import METRICS
from fedlas.stats import (
    bootstrap_interval,
    estimates,
    group_estimates,
    noise_floor,
    spiegelhalter_test,
)


def drawn(samples=300, classes=3, copies=1, clusters=True, sharpness=1.0):
    """Predictions of which each sample occurs several times; its copies are a cluster."""
    generator = torch.Generator().manual_seed(0)
    logits = 2 * torch.randn(samples, classes, generator=generator)
    target = torch.multinomial(logits.softmax(1), 1, generator=generator)[:, 0]
    index = torch.arange(samples).repeat_interleave(copies)
    names = index if clusters else None
    return Predictions(sharpness * logits[index], target[index], clusters=names)


NAMES = [entry.name for entry in METRICS.entries() if not entry.needs and entry.subject != "event"]
SCORES = {  # of which a calibrated model has no 0, and so no floor
    "accuracy", "top5", "nll", "brier", "brier_refinement", "aurc", "e_aurc", "augrc", "auroc", "average_precision",
}  # fmt: skip


def test_copies_in_a_cluster_add_nothing():
    plain = estimates(
        drawn(clusters=False), ["accuracy", "nll", "ece", "classwise_ece"], replicates=399
    )
    copied = estimates(drawn(copies=5), ["accuracy", "nll", "ece", "classwise_ece"], replicates=399)
    for name, each in copied.items():
        one = plain[name]
        assert each.value == pytest.approx(one.value)
        assert each.high - each.low == pytest.approx(one.high - one.low, rel=0.2), name
        if each.floor is not None:
            assert each.floor == pytest.approx(one.floor, rel=0.15), name
    independent = estimates(drawn(copies=5, clusters=False), ["nll"], replicates=399)["nll"]
    assert independent.high - independent.low < 0.6 * (plain["nll"].high - plain["nll"].low)


def test_clusters_allow_intervals_and_floors_of_every_metric():
    found = estimates(drawn(60, copies=3, sharpness=2.0), NAMES, replicates=39)
    for name, each in found.items():
        assert each.low <= each.high, name
        assert (each.floor is None) == (name in SCORES), name
    assert found.joint_p is not None


def test_sign_flipped_gaps_spread_like_drawn_labels():
    """Of single samples both are the noise of a calibrated model."""
    alone = drawn(800)
    turned = noise_floor(alone, metric="ece", replicates=399)
    redrawn = noise_floor(replace(alone, clusters=None), metric="ece", replicates=399)
    assert turned.mean == pytest.approx(redrawn.mean, rel=0.1)
    assert turned.p_value > 0.05


def test_copies_do_not_make_a_calibrated_model_miscalibrated():
    copied = drawn(200, copies=10)
    assert spiegelhalter_test(copied).p_value == pytest.approx(
        spiegelhalter_test(drawn(200)).p_value
    )
    assert noise_floor(copied, metric="ece", replicates=199).p_value > 0.05
    assert noise_floor(replace(copied, clusters=None), metric="ece", replicates=199).p_value < 0.05


def test_pairs_and_groups():
    a = drawn(200, copies=4)
    b = a.with_logits(1.05 * a.tensors().logits)
    with_clusters = compare(a, b, ["nll"], replicates=199)["nll"]
    without = compare(
        replace(a, clusters=None), replace(b, clusters=None), ["nll"], replicates=199
    )["nll"]
    assert with_clusters.high - with_clusters.low > 1.5 * (without.high - without.low)
    with pytest.raises(InputError, match="the same clusters"):
        compare(a, replace(b, clusters=None), ["nll"])
    groups = np.arange(800) // 4 % 2
    wide = group_estimates(a, groups, replicates=99)[0].accuracy
    narrow = group_estimates(replace(a, clusters=None), groups, replicates=99)[0].accuracy
    assert wide.high - wide.low > 1.5 * (narrow.high - narrow.low)


def test_all_right_in_few_clusters_is_no_certainty():
    right = TopLabel([0.9] * 100, [True] * 100, clusters=np.arange(100) // 20)
    found = bootstrap_interval(right, metric="accuracy", replicates=99)
    assert found.low < 0.7  # five clusters, not a hundred samples


def test_the_event_with_copies():
    plain = binary.measures(drawn(400, 2, clusters=False), replicates=199)
    copied = binary.measures(drawn(400, 2, copies=4), replicates=199)
    for name in (
        "slope",
        "intercept",
        "in_the_large",
        "brier",
        "brier_skill",
        "expected",
        "observed",
        "ici",
    ):
        one, each = plain[name], copied[name]
        assert each.value == pytest.approx(one.value, rel=1e-2, abs=1e-9), name
        assert each.high - each.low == pytest.approx(one.high - one.low, rel=0.25), name
    assert copied.joint_p > 0.05
    assert binary.measures(drawn(400, 2, copies=20, clusters=False), replicates=199).joint_p < 0.05


def test_curves_with_copies():
    plain, copied = drawn(400, 2, clusters=False), drawn(400, 2, copies=4)
    one, four = (binary.net_benefit(each, thresholds=[0.2, 0.5]) for each in (plain, copied))
    np.testing.assert_allclose(four.model, one.model)
    np.testing.assert_allclose(four.high - four.low, one.high - one.low, rtol=0.01)
    one, four = (binary.positive_bins(each) for each in (plain, copied))
    np.testing.assert_allclose(four.frequency, one.frequency)
    np.testing.assert_allclose(four.count, 4 * one.count)
    wide = one.high - one.low
    assert (four.high - four.low > 0.8 * wide).all()


def test_weighted_curves_are_those_of_copies():
    p = drawn(200, 2, clusters=False)
    times = torch.arange(200) % 3
    weighted = replace(p, weights=times)
    copies = p.rows(torch.arange(200).repeat_interleave(times))
    a, b = (binary.net_benefit(each, thresholds=[0.1, 0.4]) for each in (weighted, copies))
    np.testing.assert_allclose(a.model, b.model)
    np.testing.assert_allclose(a.gain, b.gain)
    a, b = (binary.positive_bins(each) for each in (weighted, copies))
    np.testing.assert_allclose(a.frequency, b.frequency)
