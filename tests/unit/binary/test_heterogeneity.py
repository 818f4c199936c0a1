"""Calibration and ranking by cluster, their random-effects means, and what a report shows of them."""

import json

import numpy as np
import pytest
import torch

import fedlas
from fedlas import Predictions
from fedlas.binary import auroc, heterogeneity, logistic_recalibration
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
        predictions.logits[rows],
        predictions.target[rows],
        weights=None if weights is None else weights[rows],
    )
    line = logistic_recalibration(one)
    measures = found["h2"]
    assert measures.num_samples == 250
    for interval, estimate in (
        (line.slope, measures.slope),
        (line.observed_to_expected, measures.observed_to_expected),
    ):
        assert (estimate.value, estimate.low, estimate.high) == pytest.approx(
            (interval.value, interval.low, interval.high), rel=1e-6
        )
    assert measures.auroc.value == pytest.approx(auroc(one).value)


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


def test_hospitals_without_events_count_half_an_event():
    predictions = hospitals(0.0)
    target = predictions.target.clone()
    target[:250] = 0
    found = heterogeneity(Predictions(predictions.logits, target, clusters=predictions.clusters))
    first = found.clusters[0]
    expected = float(predictions.probs[:250, 1].sum())
    assert first.observed_to_expected.value == pytest.approx(0.5 / (expected + 0.5), rel=1e-6)
    assert first.slope is first.auroc is None
    assert found.summary["observed_to_expected"].count == 12
    assert found.summary["slope"].count == found.summary["auroc"].count == 11


def test_clusters_are_needed():
    predictions = hospitals(0.0, count=1)
    with pytest.raises(InputError, match="two clusters"):
        heterogeneity(predictions)
    with pytest.raises(InputError, match="names must hold"):
        heterogeneity(hospitals(0.0), ["a"])


def test_report_shows_heterogeneity_in_text_json_and_page(tmp_path):
    predictions = hospitals(0.6, count=4)
    place = tmp_path / "scores.csv"
    names = np.array(["North", "South", "West", "East"])[predictions.clusters]
    lines = [
        f"{risk:.6f},{label},{name}"
        for risk, label, name in zip(
            predictions.probs[:, 1].tolist(), predictions.target.tolist(), names, strict=True
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
            Predictions(predictions.logits, predictions.target), heterogeneity=True, replicates=0
        )
    with pytest.raises(InputError, match="event"):
        fedlas.report(predictions, heterogeneity=True, top_label=True, replicates=0)
