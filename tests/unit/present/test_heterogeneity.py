"""Clusters of an event: tables of means and clusters, forest plots, and numbers for JSON."""

import json

import pytest
import torch

from fedlas import Predictions
from fedlas.binary import heterogeneity
from fedlas.present.heterogeneity import (
    cluster_tables,
    clusters_sentence,
    clusters_to_dict,
    draw_forest_plots,
)
from fedlas.present.table import DASH

HOSPITALS = ("Cairo", "Lima", "Oslo", "Rome", "Tiny")


@pytest.fixture(scope="module")
def clusters():
    random = torch.Generator().manual_seed(0)
    logit = torch.randn(820, generator=random)
    where = torch.cat([torch.arange(4).repeat_interleave(200), torch.full((20,), 4)])
    happened = torch.bernoulli((logit - 0.4 * where).sigmoid(), generator=random).long()
    happened[where == 4] = 0  # no event: neither slope nor AUROC
    logits = torch.stack([torch.zeros(820), logit], dim=1)
    return heterogeneity(Predictions(logits, happened, clusters=where), HOSPITALS)


def test_summary_table_has_prediction_interval_per_measure(clusters):
    table = cluster_tables({"raw": clusters}, max_rows=None)[0]
    assert table.title == "Differences between clusters"
    assert [row[0].value for row in table.rows] == ["O/E", "slope", "AUROC"]
    ratio = clusters.summary["observed_to_expected"]
    row = table.rows[0]
    assert row[1].number == ratio.mean
    assert row[3].value == f"[{ratio.prediction_low:.2f}, {ratio.prediction_high:.2f}]"
    assert [row[-1].value for row in table.rows] == ["5", "4", "4"]
    assert table.notes[1].startswith(
        "The means leave out, of 5 clusters, slope 1, AUROC 1: fewer than 10"
    )
    assert "Poisson" in table.notes[0]
    assert "REML" in table.notes[0]


def test_clusters_table_has_dash_for_unknown_measure(clusters):
    _, table = cluster_tables({"raw": clusters}, max_rows=9)
    last = table.rows[-1]
    assert [cell.value for cell in last[:3]] == ["Tiny", "20", "0"]
    assert [cell.value for cell in last[4:]] == [DASH, DASH]
    slope = clusters.clusters["Lima"].slope
    assert table.rows[1][4].number == slope.value
    assert table.rows[1][4].extra == f"[{slope.low:.2f}, {slope.high:.2f}]"
    assert not table.notes
    _, few = cluster_tables({"raw": clusters}, max_rows=2)
    assert len(few.rows) == 2
    assert few.notes == ("3 further clusters: json(), or --json.",)


def test_the_last_stage_comes_first_and_is_named(clusters):
    tables = cluster_tables({"raw": clusters, "after": clusters}, max_rows=None)
    assert [table.title.partition(", ")[2] for table in tables] == ["after", "raw"]


def test_headline_says_in_what_clusters_differ(clusters):
    ratio = clusters.summary["observed_to_expected"]
    text = clusters_sentence(clusters)
    assert text.startswith(
        f"5 clusters: mean O/E {ratio.mean:.2f} [{ratio.low:.2f}, {ratio.high:.2f}]; a further one"
    )
    differ = [name for name, each in clusters.summary.items() if each.p <= 0.05]
    assert "observed_to_expected" in differ
    assert "they differ in O/E (p < 0.0001)" in text
    assert ("AUROC (p" in text) == ("auroc" in differ)
    alike = heterogeneity(
        Predictions([[0.0, -0.1], [0.0, 0.1]] * 90, [0, 1, 1, 0] * 45, clusters=[0, 1, 2] * 60)
    )
    assert "no difference shows in O/E" in clusters_sentence(alike)


def test_each_measure_has_a_forest_plot(clusters):
    assert draw_forest_plots({}) == []
    pictures = [str(each) for each in draw_forest_plots({"raw": clusters})]
    assert len(pictures) == 3
    assert all("Forest plot of" in each for each in pictures)


def test_clusters_json_omits_unknown_values(clusters):
    plain = json.loads(json.dumps(clusters_to_dict({"raw": clusters}), allow_nan=False))["raw"]
    assert {*plain["summary"]} == {"observed_to_expected", "slope", "auroc"}
    assert {name: each["method"] for name, each in plain["summary"].items()} == {
        "observed_to_expected": "Poisson, adjusted profile likelihood",
        "slope": "REML",
        "auroc": "REML",
    }
    assert {*plain["clusters"]} == {*HOSPITALS}
    assert {"slope", "auroc"} & {*plain["clusters"]["Tiny"]} == set()
    slope = clusters.clusters["Oslo"].slope
    assert plain["clusters"]["Oslo"]["slope"]["value"] == slope.value
