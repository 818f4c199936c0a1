"""The page of periods: what the last one says, when it was calibrated again, and a figure of each mean and column."""

from dataclasses import replace

import pytest

from fedlas.deploy.monitor.period import Period
from fedlas.present.history_page import history_page

AGE = {"rows": 100, "missing": 0.0, "texts": 0.0, "mean": 50.0, "sd": 10.0, "numbers": 100}
AGE |= {"most": 50.0, "share_of_most": 0.1}
MEANS = {"name": "gap", "samples": 100, "mean": 0.01, "low": -0.02, "high": 0.04, "card": 0.0}


@pytest.fixture
def period():
    content = {"period": "2026-01", "files": ["a.csv"], "contents": ["a"], "card": "ward 3"}
    content |= {"digest": "first", "made": "2026-01-01", "samples": 100, "labeled": 60}
    content |= {"means": {"calibration": MEANS}, "alarms": []}
    return Period.from_dict(content | {"columns": {"age": AGE}, "columns_of_card": {}})


def moved(period, by):
    return replace(period, columns={"age": {**AGE, "mean": 50.0 + by}})


def test_a_quiet_period(period):
    page = history_page([period, replace(period, period="2026-02")])
    for said in (
        "ward 3: 2 periods",
        "200 samples, 120 with labels.",
        "Quiet in 2026-02: no alarm and no column drift.",
        "Recalibrated: never.",
        "-2.00 to +4.00",
        "calibration by period",
        "mean of age by period",
    ):
        assert said in page, said
    assert page.count("<svg") == 2


def test_the_last_period_is_the_verdict(period):
    later = replace(moved(period, 20.0), period="2026-02", alarms=("accuracy", "classes"))
    page = history_page([period, later])
    assert "ALARM in 2026-02: accuracy, classes changed." in page
    assert "DRIFT in 2026-02: age moved by +2.0 sd." in page
    assert "Quiet" not in page
    page = history_page([period, later, replace(period, period="2026-03")])
    assert "Quiet in 2026-03" in page


def test_new_card_is_named_and_starts_new_reference(period):
    again = replace(moved(period, 20.0), period="2026-02", digest="second")
    page = history_page([period, again])
    assert "Recalibrated: 2026-02." in page
    assert "Quiet in 2026-02" in page


def test_a_period_without_labels_has_no_gap(period):
    page = history_page([replace(period, means={}, labeled=0)])
    assert "100 samples, 0 with labels." in page
    assert page.count("<svg") == 1  # of the column
