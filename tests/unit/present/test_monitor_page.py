"""What a monitor shows: a row a watch, why one alarms, and a page with a figure of each."""

import pytest
import torch

import fedlas
from fedlas import Predictions
from fedlas.deploy import Monitor
from fedlas.present.monitor_page import (
    alarm_sentences,
    explanatory_notes,
    monitor_page,
    statistics_table,
    watches_table,
)
from fedlas.present.table import DASH


def drawn(seed, samples, factor=1.0):
    """Logits of three classes that are ``factor`` times too large."""
    random = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(samples, 3, generator=random)
    target = torch.multinomial((logits / factor).softmax(1), 1, generator=random)[:, 0]
    return Predictions(logits, target)


@pytest.fixture(scope="module")
def card():
    return fedlas.card(drawn(0, 800), drawn(1, 800), "none", name="mine", replicates=0).card


@pytest.fixture(scope="module")
def alarmed(card):
    monitor = Monitor(card)
    monitor.update(drawn(2, 1500, factor=4.0))
    return monitor


def cells(table):
    return {row[0].value: [cell.value for cell in row[1:]] for row in table.rows}


def test_a_row_a_watch_says_its_state(card, alarmed):
    rows = cells(watches_table(alarmed.content))
    assert [*rows] == ["calibration", "accuracy", "confidence", "classes"]
    assert rows["calibration"][0] == "ALARM"
    assert rows["calibration"][1].startswith("-")  # of calibration with its sign
    assert rows["confidence"][0] == "quiet"
    unlabeled = Monitor(card)
    unlabeled.update(drawn(2, 200).without_target())
    rows = cells(watches_table(unlabeled.content))
    assert rows["accuracy"][0] == "no labels"
    assert rows["accuracy"][1] == rows["accuracy"][3] == DASH


def test_watch_missing_on_card_has_no_statistics(alarmed):
    content = alarmed.content
    content["watches"]["classes"] = {"watched": False, "why": "not on card", "alarm": False}
    assert cells(watches_table(content))["classes"] == ["not on card", DASH, DASH, DASH]
    assert not any(name.startswith("predicted as") for name in cells(statistics_table(content)))


def test_reasons_name_the_mean_that_moved_and_when(alarmed):
    content = alarmed.content
    lines = alarm_sentences(content)
    assert len(lines) == len(content["alarms"]) >= 1
    accuracy = next(line for line in lines if line.startswith("Accuracy"))
    live = content["watches"]["accuracy"]["statistics"][0]["live"]
    assert f"{100 * live:.2f} % now" in accuracy
    assert f"alarm after sample {content['watches']['accuracy']['alarm_after']:,}." in accuracy


def test_explanations_name_bound_and_quiet_outside_watches(alarmed):
    content = alarmed.content
    told = explanatory_notes(content)
    assert "False alarms: at most 1 % over the whole stream" in told[-1]
    assert not told[0].startswith("Quiet")
    leading = content["watches"]["confidence"]["statistics"][0]
    leading["live"] = leading["low"] - 0.01
    assert explanatory_notes(content)[0].startswith("Quiet, though outside: confidence.")


def test_the_evidence_is_short_whatever_its_size(alarmed):
    content = alarmed.content
    shown = []
    for evidence in (0.5, 1234.0, 1e6, 1e12):
        content["watches"]["calibration"]["evidence"] = evidence
        shown.append(cells(watches_table(content))["calibration"][-1])
    assert shown == ["0.5", "1.2e+03", "10^6", "> 10^9"]


def test_page_draws_each_watch_and_the_evidence(alarmed):
    page = monitor_page(alarmed, title="Ward 3", period="May 2026", drifts=["age moved by +2.0 sd"])
    for said in (
        "Ward 3",
        "May 2026",
        "DRIFT of a column: age moved by +2.0 sd.",
        "ALARM after sample",
        "1 look.",
    ):
        assert said in page
    assert page.count("<svg") == len(alarmed.content["watches"]) + 1
    assert "calibration: ALARM" in page
