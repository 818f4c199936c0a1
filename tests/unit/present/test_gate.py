"""The gate in Python: rules on an evaluation and on a comparison, at their borders, for the event."""

import math

import pytest
import torch

import fedlas
from fedlas.errors import InputError
from fedlas.metrics.metric import event_measures, value_range
from fedlas.present.gate import Check, GateResult, apply_row_limits, to_junit_xml
from fedlas.present.table import metric_column


@pytest.fixture(scope="module")
def rare():
    """Predictions of 3.5 % events, once calibrated and once with every risk halved."""
    random = torch.Generator().manual_seed(3)
    log_odds = torch.randn(12_000, generator=random).double() - 3.7
    target = torch.bernoulli(log_odds.sigmoid(), generator=random).long()
    halved = (log_odds.sigmoid() / 2).logit()
    tables = {}
    for name, odds in {"good": log_odds, "halved": halved}.items():
        logits = torch.stack([torch.zeros_like(odds), odds], dim=1)
        tables[name] = fedlas.Predictions(logits, target)
    return tables


@pytest.fixture(scope="module")
def evaluations(rare):
    names = ("no", "yes")
    return {name: fedlas.report(each, replicates=99, classes=names) for name, each in rare.items()}


def test_bound_that_halved_risks_pass_gets_warning(evaluations):
    """The bound of the documented gate holds, and the line says what the verdict says."""
    gate = evaluations["halved"].require("ece<=0.03")
    assert gate.status == 0
    assert "ECE of 'yes'" in str(gate)
    assert "the joint test rejects calibration (joint p" in str(gate)
    assert "a model that halves every risk has ECE" in str(gate)


@pytest.mark.parametrize(
    ("rule", "good", "halved"),
    [
        ("calibrated", 0, 3),
        ("observed_to_expected<=1.5", 0, 3),
        ("observed_to_expected>=0.5", 0, 0),
        ("slope>=0.5", 0, 0),
        ("event_ece<=0.005", 0, 3),
        ("event_ece <= 0.5 %", 0, 3),
        ("ici<=0.005", 0, 3),
        ("auroc>=0.6", 0, 0),
        ("brier<=0.1", 0, 0),
    ],
)
def test_rules_of_the_event(evaluations, rule, good, halved):
    assert evaluations["good"].require(rule).status == good
    assert evaluations["halved"].require(rule).status == halved


def test_rule_is_decided_by_the_interval_end(evaluations):
    for name in ("ece", "observed_to_expected", "brier", "top_label_ece"):
        evaluation = evaluations["halved"]
        stage = "as predicted"
        table = {**evaluation.estimates[stage], **evaluation.positive[stage]}
        low, high = table[name].low, table[name].high
        gates = [
            evaluation.require(f"{name}<={bound:.12f}", strict=True).status
            for bound in (low * (1 - 1e-6), (low + high) / 2, high * (1 + 1e-6))
            if bound > 0
        ]
        assert gates == [3, 4, 0][-len(gates) :], name


def test_one_ece_and_one_brier_score_everywhere(rare, evaluations):
    evaluation = evaluations["halved"]
    stage = "as predicted"
    event = evaluation.positive[stage]
    compared = fedlas.compare(rare["halved"], rare["good"], replicates=99)
    assert compared["ece"].a == pytest.approx(event["ece"].value)
    assert compared["brier"].a == pytest.approx(event["brier"].value)
    assert evaluation.measured[stage]["ece"] == event["ece"].value
    assert evaluation.estimates[stage]["brier"] == event["brier"]
    probability = rare["halved"].tensors().probs[:, 1]
    assert event["brier"].value == pytest.approx(
        float((probability - rare["halved"].tensors().target).square().mean())
    )
    top = fedlas.metrics.ece(rare["halved"])
    assert evaluation.measured[stage]["top_label_ece"] == pytest.approx(top)
    alone = fedlas.compare(rare["halved"], rare["good"], ["top_label_ece", "ece"], replicates=99)
    assert alone["top_label_ece"].a == pytest.approx(top)
    assert alone["ece"].a == compared["ece"].a


def test_worse_model_fails_in_displayed_ece(rare):
    compared = fedlas.compare(rare["halved"], rare["good"], ["ece", "nll"], replicates=99)
    gate = compared.fail_if_worse("ece", "nll")
    assert gate.status == 3
    assert not gate
    assert "in ECE of class 1" in str(gate)
    assert compared.fail_if_worse("ece", margin=0.9).status == 0
    with pytest.raises(InputError, match="among the compared metrics"):
        compared.fail_if_worse("brier")
    with pytest.raises(InputError, match="margin must be less than 1"):
        compared.fail_if_worse("ece", margin=1.0)


def test_predictions_are_not_compared_with_themselves(rare):
    with pytest.raises(InputError, match="the same object twice"):
        fedlas.compare(rare["good"], rare["good"])


@pytest.mark.parametrize(
    ("rules", "match"),
    [
        ((), "requires at least one rule"),
        (("ece",), "a rule must be"),
        (("slope<=x",), "a rule must be"),
        (("auroc<=0.9",), "larger is better"),
        (("ici<=1",), "always holds"),
        (("observed_to_expected>=0",), "always holds"),
        (("brier<=2",), "always holds"),
        (("eec<=0.1",), "'eec'"),
        *(
            ((f"{name}>=0.1",), f"'{name}', which has no interval")
            for name in ("r2", "d", "u", "q")
        ),
    ],
)
def test_rules_that_decide_nothing_are_refused(evaluations, rules, match):
    with pytest.raises(InputError, match=match):
        evaluations["good"].require(*rules)


def test_without_replicates_there_is_no_gate(rare):
    with pytest.raises(InputError, match="requires at least one rule, and a report with intervals"):
        fedlas.report(rare["good"], replicates=0).require("ece<=0.1")


def test_a_gate_needs_rows():
    holds = [Check("ece<=0.1", "holds", "Holds.")]
    assert GateResult(tuple(apply_row_limits(holds, samples=30, dropped=30))).status == 0
    assert GateResult(tuple(apply_row_limits(holds, samples=30, dropped=31))).status == 3
    assert (
        GateResult(tuple(apply_row_limits(holds, samples=29, dropped=0)), strict=True).status == 4
    )
    assert 'failures="0"' in to_junit_xml(holds, suite="x", strict=True)


def test_each_measure_of_the_event_has_a_record(evaluations):
    event = evaluations["good"].positive["as predicted"]
    assert set(event) <= set(event_measures())
    for name, record in event_measures().items():
        low, high = value_range(record)
        if name in event:
            assert low <= event[name].value <= high, name
            assert record.has_interval == math.isfinite(event[name].low), name
        assert metric_column(name, event=True).about
