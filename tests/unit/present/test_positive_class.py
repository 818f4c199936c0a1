"""The event of two classes: a row a measure, a table a rule, one sentence a decision, and pictures of a page."""

from dataclasses import replace

import pytest
import torch

from fedlas import Predictions
from fedlas.binary import Rule, decide, measures
from fedlas.present.positive_class import (
    decision_sentence,
    decision_tables,
    decisions_to_dict,
    draw_event_plots,
    draw_event_reliability,
    event_table,
    make_rules,
    measures_by_stage,
    measures_to_dict,
    rules_table,
    titled_values,
)
from fedlas.present.table import DASH
from fedlas.stats.estimates import Estimate


def drawn(seed, factor=1.0):
    random = torch.Generator().manual_seed(seed)
    logit = torch.randn(400, generator=random) - 1
    happened = torch.bernoulli(logit.sigmoid(), generator=random).long()
    return Predictions(torch.stack([torch.zeros(400), factor * logit], dim=1), happened)


@pytest.fixture(scope="module")
def stages():
    return {"as predicted": drawn(1, 3.0), "after": drawn(1)}


@pytest.fixture(scope="module")
def by_stage(stages):
    return measures_by_stage(stages, replicates=39, confidence_level=0.95)


@pytest.fixture(scope="module")
def decision():
    return decide(drawn(0), drawn(1), Rule(recall=0.8))


def rows(table):
    return {row[0].value: row[1:] for row in table.rows}


def test_more_than_three_stages_are_measured_once(stages):
    many = {f"after {number}": stages["after"] for number in range(3)}
    found = measures_by_stage(stages | many, replicates=0, confidence_level=0.95)
    assert [*found] == ["as predicted"]


def test_event_table_columns_for_one_and_two_stages(by_stage):
    raw = by_stage["as predicted"]
    alone = event_table({"as predicted": raw}, title="Event", details=False)
    assert [column.head for column in alone.columns][-2:] == ["floor", "p"]
    slope = rows(alone)["calibration slope → 1"]
    assert slope[0].number == raw["slope"].value
    assert slope[1].value == f"[{raw['slope'].low:.3f}, {raw['slope'].high:.3f}]"
    both = event_table(by_stage, title="Event", details=True)
    assert len(both.columns) == 5
    assert len(both.rows) > len(alone.rows)
    assert rows(both)["calibration slope → 1"][2].number == by_stage["after"]["slope"].value


def test_missing_measure_is_a_dash(by_stage):
    lacking = {name: each for name, each in by_stage["after"].items() if name != "slope"}
    table = event_table({**by_stage, "after": lacking}, title="", details=False)
    assert [cell.value for cell in rows(table)["calibration slope → 1"][2:]] == [DASH, ""]


def test_what_is_not_finite_is_not_in_json(by_stage):
    slope = replace(by_stage["after"]["slope"], low=float("nan"))
    plain = measures_to_dict({"after": {"slope": slope}})["after"]["slope"]
    assert plain["value"] == slope.value
    assert "low" not in plain


def test_texts_have_the_interval_where_it_is_known():
    values = measures(drawn(1), replicates=0)
    title, text = titled_values({"slope": values["slope"]})["slope"]
    assert "slope" in title.lower()
    assert text.startswith(f"{values['slope'].value:.3f} [")
    unknown = Estimate(values["slope"].value, float("nan"), float("nan"))
    assert titled_values({"slope": unknown})["slope"][1] == f"{unknown.value:.3f}"


def test_rules_are_those_that_are_given():
    rules = make_rules(9.0, None, 0.8, None)
    assert [(rule.name, rule.value) for rule in rules] == [("cost_ratio", 9.0), ("recall", 0.8)]


def test_a_decision_is_counted_with_its_intervals(decision):
    (table,) = decision_tables({"as predicted": [decision]})
    found = rows(table)
    assert found["acted on"][0].value == f"{decision.acted:,}"
    assert found["acted on"][1].value == "of 400"
    assert found["events found"][0].value == f"{decision.events_found:,}"
    low, high = decision.recall.low * decision.events, decision.recall.high * decision.events
    assert found["events found"][1].value == f"[{low:.0f}, {high:.0f}]"
    assert found["false alarms"][0].value == f"{decision.acted - decision.events_found:,}"
    assert found["net benefit"][0].value == f"{1000 * decision.net_benefit.value:+.1f}"
    assert table.notes
    assert decisions_to_dict({"as predicted": [decision]}) == {"as predicted": [decision.to_dict()]}


def test_a_rule_that_no_threshold_keeps_says_so(decision):
    none = replace(decision, threshold=None)
    (table,) = decision_tables({"raw": [decision], "after": [none]})
    assert all([cell.value for cell in row[3:]] == [DASH, ""] for row in table.rows)
    kept, lacking = rules_table([decision, none]).rows
    assert kept[3].value == f"{decision.events_found:,} of {decision.events:,}"
    assert [cell.value for cell in lacking[1:]] == ["none", *[DASH] * 4]
    assert "no threshold satisfies this" in decision_sentence(none, "yes")
    said = decision_sentence(decision, "yes")
    assert f"{decision.events_found:,} of {decision.events:,} events of yes found" in said


def test_acting_on_nothing_has_no_precision(decision):
    nothing = replace(decision, acted=0, events_found=0, precision=None, net_benefit=None)
    found = rows(decision_tables({"raw": [nothing]})[0])
    for name in ("precision %", "net benefit"):
        assert [cell.value for cell in found[name]] == [DASH, ""]
    assert [cell.value for cell in found["false alarms"]] == ["0", ""]


def test_event_plots_show_decision_curve_and_outcomes(stages, by_stage, decision):
    texts = [str(each) for each in draw_event_plots(stages, {"after": [decision]}, "yes")]
    assert ["Decision curve of yes" in texts[0], len(texts)] == [True, 2]
    assert "Distribution of the probability of yes by outcome" in texts[1]
    happened = Predictions(stages["after"].tensors().logits, torch.ones(400, dtype=torch.int64))
    assert len(draw_event_plots({"model": happened}, {}, "yes")) == 1
    diagrams = draw_event_reliability(stages, {"after": by_stage["after"]}, event="yes")
    assert ["Reliability diagram of yes, after" in str(each) for each in diagrams] == [True]
