"""Calibration and ranking by cluster, their random-effects means, and what a report shows of them."""

import json

import numpy as np
import pytest
import torch

import fedlas
from fedlas import Predictions
from fedlas.binary import auroc, group_measures, heterogeneity
from fedlas.errors import InputError


def hospitals(spread, *, count=12, rows=250, seed=0, **options):
    """Draw predictions of hospitals whose log-odds are shifted, with this standard deviation."""
    draw = np.random.default_rng(seed)
    number = np.arange(count).repeat(rows)
    log_odds = draw.normal(-1.0, 1.2, len(number))
    shift = spread * draw.normal(size=count)[number]
    happened = draw.random(len(number)) < 1 / (1 + np.exp(-log_odds - shift))
    scores = np.stack([0 * log_odds, log_odds], axis=1)
    return Predictions(scores, happened.astype(int), clusters=number, **options)


@pytest.mark.parametrize("weighted", [False, True])
def test_cluster_measures_equal_measures_of_its_samples(weighted):
    weights = np.random.default_rng(1).exponential(size=3000) + 0.1 if weighted else None
    predictions = hospitals(0.5, weights=weights)
    found = heterogeneity(predictions, [f"h{number}" for number in range(12)]).clusters
    assert list(found) == [f"h{number}" for number in range(12)]
    rows = torch.arange(500, 750)
    one = Predictions(
        predictions.tensors().logits[rows],
        predictions.tensors().target[rows],
        weights=None if weights is None else weights[rows],
    )
    group = group_measures(one, [0] * 250)[0]
    measures = found["h2"]
    assert measures.num_samples == 250
    for expected, estimate in (
        (group.slope, measures.slope),
        (group.ratio, measures.observed_to_expected),
        (auroc(one), measures.auroc),
    ):
        assert (estimate.value, estimate.low, estimate.high) == pytest.approx(
            (expected.value, expected.low, expected.high), rel=1e-6
        )


def test_shifts_of_hospitals_move_events_alone():
    equal, shifted = (heterogeneity(hospitals(spread)).summary for spread in (0.0, 0.6))
    assert equal["observed_to_expected"].tau < 0.15
    assert shifted["observed_to_expected"].tau > 0.2
    assert shifted["observed_to_expected"].i_squared > 0.6
    assert shifted["observed_to_expected"].p < 0.001
    assert shifted["slope"].p > 0.01
    for each in shifted.values():
        assert each.prediction_low < each.low < each.mean < each.high < each.prediction_high
    assert shifted["auroc"].high < 1


@pytest.mark.parametrize(("happens", "ratio"), [(0, 0.0), (1, None)])
def test_hospitals_with_one_outcome_count_as_any(happens, ratio):
    predictions = hospitals(0.0)
    target = predictions.tensors().target.clone()
    target[:250] = happens
    found = heterogeneity(
        Predictions(predictions.tensors().logits, target, clusters=predictions.tensors().clusters)
    )
    first = found.clusters[0]
    ratio = 250 / float(predictions.tensors().probs[:250, 1].sum()) if ratio is None else ratio
    assert first.observed_to_expected.value == pytest.approx(ratio, rel=1e-6)
    assert first.slope is first.auroc is None
    assert found.summary["observed_to_expected"].count == 12
    assert found.summary["observed_to_expected"].tau > 0.2
    assert found.summary["slope"].count == found.summary["auroc"].count == 11


@pytest.mark.parametrize(("count", "rows", "mean"), [(100, 200, -4.3), (30, 80, -3.8)])
def test_few_events_leave_the_mean_ratio_unbiased(count, rows, mean):
    """3.5 and 2.3 events a hospital, calibrated: a normal model of log O/E gives 1.15 and 1.21, and holds 1 in 19 %."""
    found = []
    for seed in range(12):
        draw = np.random.default_rng(seed)
        log_odds = draw.normal(mean, 0.8, count * rows)
        happened = draw.random(len(log_odds)) < 1 / (1 + np.exp(-log_odds))
        scores = np.stack([0 * log_odds, log_odds], axis=1)
        clusters = np.arange(count).repeat(rows)
        summary = heterogeneity(
            Predictions(scores, happened.astype(int), clusters=clusters)
        ).summary
        assert summary.keys() == {"observed_to_expected"}, "ten events have no hospital"
        found.append(summary["observed_to_expected"])
    assert np.mean([each.mean for each in found]) == pytest.approx(1.0, abs=0.04)
    assert np.mean([each.low <= 1.0 <= each.high for each in found]) > 0.8
    assert np.mean([each.p <= 0.05 for each in found]) < 0.25


def test_small_hospitals_leave_slope_and_auroc_alone():
    """Areas of two to nine events are not in the mean, and so neither bias it nor claim that hospitals differ."""
    large = hospitals(0.0, count=6, rows=400)
    small = hospitals(0.0, count=60, rows=20, seed=1)
    both = Predictions(
        np.concatenate([large.logits, small.logits]),
        np.concatenate([large.target, small.target]),
        clusters=np.concatenate([large.clusters, 6 + small.clusters]),
    )
    alone, found = (heterogeneity(each) for each in (large, both))
    few = [each for each in found.clusters.values() if not each.has_enough_events]
    assert len(few) > 50
    assert all(each.num_samples == 20 for each in few)
    assert any(each.auroc is not None for each in few)
    assert found.summary["auroc"].count == 66 - len(few)
    assert found.summary["auroc"].mean == pytest.approx(alone.summary["auroc"].mean, abs=0.01)
    assert found.summary["observed_to_expected"].count == 66


def test_weights_of_a_hospital_do_not_matter():
    plain = hospitals(0.5)
    weights = np.arange(1.0, 13.0).repeat(250)
    weighted = Predictions(
        plain.tensors().logits,
        plain.tensors().target,
        clusters=plain.tensors().clusters,
        weights=weights,
    )
    for name, expected in heterogeneity(plain).summary.items():
        each = heterogeneity(weighted).summary[name]
        # Variances of weighted samples are estimated otherwise.
        assert each.mean == pytest.approx(expected.mean, rel=0.01)
        assert each.tau == pytest.approx(expected.tau, abs=0.02)


def test_equal_hospitals_have_the_ratio_of_all_samples():
    found = heterogeneity(hospitals(0.0, seed=3))
    predictions = hospitals(0.0, seed=3)
    summary = found.summary["observed_to_expected"]
    assert summary.tau == 0.0
    whole = float(predictions.tensors().target.sum() / predictions.tensors().probs[:, 1].sum())
    assert summary.mean == pytest.approx(whole, rel=0.005)


def test_no_event_at_all_has_no_mean():
    predictions = hospitals(0.0)
    without = Predictions(
        predictions.tensors().logits,
        0 * predictions.tensors().target,
        clusters=predictions.tensors().clusters,
    )
    found = heterogeneity(without)
    assert not found.summary
    assert found.clusters[0].observed_to_expected.value == 0.0
    report = fedlas.report(without, heterogeneity=True, replicates=0)
    assert "no event occurred" in report.text()
    assert "Differences between clusters" in report.html()


def test_clusters_are_needed():
    predictions = hospitals(0.0, count=1)
    with pytest.raises(InputError, match="two clusters"):
        heterogeneity(predictions)
    with pytest.raises(InputError, match="names must hold"):
        heterogeneity(hospitals(0.0), ["a"])


def test_report_shows_heterogeneity_in_text_json_and_page(tmp_path):
    predictions = hospitals(0.6, count=4)
    place = tmp_path / "scores.csv"
    names = np.array(["North", "South", "West", "East"])[predictions.tensors().clusters]
    lines = [
        f"{risk:.6f},{label},{name}"
        for risk, label, name in zip(
            predictions.tensors().probs[:, 1].tolist(),
            predictions.target.tolist(),
            names,
            strict=True,
        )
    ]
    place.write_text("\n".join(["risk,died,hospital", *lines]))
    found = fedlas.report(
        place, probs="risk", target="died", clusters="hospital", heterogeneity=True, replicates=0
    )
    text = found.text()
    assert "Differences between clusters" in text
    assert "prediction" in text
    assert "I²" in text
    content = json.loads(found.json())["heterogeneity"]["as predicted"]
    assert sorted(content["clusters"]) == ["East", "North", "South", "West"]
    assert content["summary"]["observed_to_expected"]["count"] == 4
    assert "Forest plot" in found.html()
    assert "North" in found.text(details=True)


def test_report_asks_for_clusters_and_an_event():
    predictions = hospitals(0.0)
    with pytest.raises(InputError, match="clusters"):
        fedlas.report(
            Predictions(predictions.tensors().logits, predictions.tensors().target),
            heterogeneity=True,
            replicates=0,
        )
    with pytest.raises(InputError, match="event"):
        fedlas.report(predictions, heterogeneity=True, top_label=True, replicates=0)
