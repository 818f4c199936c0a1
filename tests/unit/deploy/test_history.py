"""Months of a service in one history: drift of a column without labels, alarms, and when it was calibrated again."""

import json
from dataclasses import replace

import numpy as np
import pytest

from fedlas.deploy import Card
from fedlas.deploy.monitor.columns import (
    card_column_statistics,
    category_limits,
    check_comparable_columns,
    column_statistics,
    find_drift,
)
from fedlas.deploy.monitor.history import read_history
from fedlas.errors import InputError
from fedlas.predictions import Columns
from fedlas.present.history_page import history_page
from periods import add_period, write_card


def write(path, seed, rows=1500, *, moved=0.0, missing=0.0, factor=1.0):
    random = np.random.default_rng(seed)
    score = random.normal(size=rows)
    happens = random.random(rows) < 1 / (1 + np.exp(-factor * score))
    age = random.normal(50 + 10 * moved, 10, size=rows)
    lines = ["p,y,age,site"]
    for s, y, a in zip(score, happens, age, strict=True):
        cell = "" if random.random() < missing else f"{a:.1f}"
        lines.append(f"{1 / (1 + np.exp(-s)):.6f},{int(y)},{cell},{'north' if s > 0 else 'south'}")
    path.write_text("\n".join(lines) + "\n")
    return path


COLUMNS = Columns(probs="p", target="y")
COVARIATES = replace(COLUMNS, covariates="age,site")


@pytest.fixture(scope="module")
def card(tmp_path_factory):
    folder = tmp_path_factory.mktemp("card")
    files = [write(folder / f"{part}.csv", at) for at, part in enumerate(("val", "test"))]
    return write_card(folder / "card.json", *files, COLUMNS, "temperature")


def test_a_year_of_months(card, tmp_path):
    content = json.loads(card.read_text())
    content["model"]["run"] = "second"
    second, history = tmp_path / "second.json", tmp_path / "history.json"
    second.write_text(json.dumps(content))

    def month(name, card, **change):
        file = write(tmp_path / f"{name}.csv", 20 + int(name[-2:]), **change)
        return add_period(card, history, [file], COVARIATES)

    assert month("2026-01", card) == ([], [])
    assert month("2026-02", card) == ([], [])
    assert month("2026-03", card, moved=2.0)[0][0].startswith("age moved by +")
    assert month("2026-04", card, missing=0.2)[0][0].startswith("age is missing in 2")
    drifts, alarms = month("2026-05", card, factor=0.2)
    assert not drifts
    assert alarms
    # The new card starts its own reference; a period that is repeated takes its own place.
    assert month("2026-06", second, moved=2.0) == ([], [])
    assert month("2026-06", second, moved=2.0) == ([], [])
    periods = json.loads(history.read_text())["periods"]
    assert [row["period"][-2:] for row in periods] == ["01", "02", "03", "04", "05", "06"]
    assert periods[4]["alarms"]
    assert abs(periods[0]["columns"]["age"]["mean"] - 50) < 1
    assert "mean" not in periods[0]["columns"]["site"]
    gap = periods[4]["means"]["calibration"]
    assert gap["low"] < gap["mean"] < gap["high"]
    page = history_page(read_history(history))
    for text in (
        "6 periods",
        "Recalibrated: 2026-06.",
        "Quiet in 2026-06",
        "age moved by +",
    ):
        assert text in page


def test_what_is_no_history_is_left_alone(card, tmp_path):
    other = tmp_path / "history.json"
    other.write_text('{"mine": 1}')
    with pytest.raises(InputError, match="--history must be a new file, or a history written by"):
        add_period(card, other, [write(tmp_path / "a.csv", 3)], COLUMNS)
    assert other.read_text() == '{"mine": 1}'


def test_repeated_first_period_remains_the_reference(card, tmp_path):
    """It moved to the end, so that the months after it were compared with one another."""
    history = tmp_path / "history.json"

    def month(file, moved, name=""):
        file = write(tmp_path / f"{file}.csv", int(file[-1]), moved=moved)
        return add_period(card, history, [file], replace(COLUMNS, covariates="age"), name=name)

    assert month("2026-01", 0.0) == ([], [])
    assert month("2026-02", 2.0)[0] == ["age moved by +2.0 sd"]
    assert month("2026-01", 0.1, "2026-01") == ([], [])
    assert month("2026-03", 2.0)[0] == ["age moved by +1.9 sd"]
    assert [period.period for period in read_history(history)] == ["2026-01", "2026-02", "2026-03"]


def test_period_counted_by_state_is_refused(card, tmp_path):
    """The history replaced it, and the state counted its samples twice."""
    files = [write(tmp_path / "2026-01.csv", 3)]
    history, state = tmp_path / "history.json", tmp_path / "state.json"
    add_period(card, history, files, COLUMNS, state=state)
    before = state.read_bytes(), history.read_bytes()
    with pytest.raises(InputError, match="with --state, the period must be new"):
        add_period(card, history, files, COLUMNS, state=state)
    assert (state.read_bytes(), history.read_bytes()) == before
    add_period(card, history, files, COLUMNS)


def test_relative_path_identifies_the_same_period(card, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    history, file = tmp_path / "history.json", write(tmp_path / "2026-01.csv", 3)
    for path in (file, file.relative_to(tmp_path)):
        add_period(card, history, [path], COLUMNS)
    assert len(read_history(history)) == 1


def test_columns_in_objects_are_watched(tmp_path):
    """A path was no column for card and monitor, and one for calibrate and apply."""
    columns = Columns(probs="out.p", target="y", covariates="meta.age")
    sums = []
    for moved in (0.0, 2.0):
        rows = [
            line.split(",")
            for line in write(tmp_path / "t.csv", 1, moved=moved).read_text().split()
        ]
        objects = [
            {"out": {"p": float(p)}, "y": int(y), "meta": {"age": float(age)}}
            for p, y, age, _ in rows[1:]
        ]
        file = tmp_path / "t.jsonl"
        file.write_text("\n".join(map(json.dumps, objects)))
        sums.append(column_statistics([file], columns))
    assert [*map(str, find_drift(*sums))] == ["meta.age moved by +2.0 sd"]


def test_columns_are_compared_with_those_on_the_card(card, tmp_path):
    """Only a history watched them, and of text only what was missing."""
    usual = write(tmp_path / "test.csv", 1)
    on_card = write_card(tmp_path / "card.json", write(tmp_path / "val.csv", 0), usual, COVARIATES)
    before = card_column_statistics(Card.read(on_card))

    def drifts(text):
        (tmp_path / "live.csv").write_text(text)
        columns = replace(COVARIATES, target=None)
        now = column_statistics([tmp_path / "live.csv"], columns)
        check_comparable_columns(before, now, columns.split_option("covariates"))
        return [*map(str, find_drift(before, now))]

    assert drifts(usual.read_text()) == []
    moved = write(tmp_path / "moved.csv", 5, moved=2.0)
    assert drifts(moved.read_text()) == ["age moved by +2.0 sd"]
    changed = drifts(usual.read_text().replace("south", "west"))
    assert changed[0].startswith("site is 'south' in 0 % of rows, before in 5")
    assert changed[1].startswith("site has new categories in 5")
    assert "west" in changed[1]
    # The history begins with the card's columns too.
    assert add_period(on_card, tmp_path / "history.json", [moved], COVARIATES)[0]
    bare = card_column_statistics(Card.read(card))
    with pytest.raises(
        InputError, match="the card must have statistics of the columns of --covariates"
    ):
        check_comparable_columns(bare, column_statistics([usual], COVARIATES), ["age", "site"])
    content = json.loads(on_card.read_text())
    content["columns"] = {"age": {"mean": "x"}}
    on_card.write_text(json.dumps(content))
    with pytest.raises(InputError, match="the card must have valid column statistics"):
        card_column_statistics(Card.read(on_card))


def test_scores_that_are_missing_are_a_drift(tmp_path):
    rows = write(tmp_path / "test.csv", 1).read_text().splitlines()
    rows[1::8] = [f",{row.partition(',')[2]}" for row in rows[1::8]]
    (tmp_path / "live.csv").write_text("\n".join(rows) + "\n")
    columns = replace(COLUMNS, covariates="site", drop_missing=True)
    sums = [column_statistics([tmp_path / name], columns) for name in ("test.csv", "live.csv")]
    assert [*map(str, find_drift(*sums))] == ["p is missing in 13 % of rows"]


@pytest.mark.parametrize(
    ("before", "now", "change"),
    [
        (range(40), [*range(37), "no", "?", "1,5"], "is no number in 8 % of rows, before in 0 %"),
        (range(40), [*range(37), "inf", "inf", "-inf"], "is no number in 8 % of rows"),
        ([*range(39), "unknown"], [n + 30 for n in range(40)], "moved by +2"),
        ([*range(39), "inf"], [n + 30 for n in range(40)], "moved by +2"),
        (["a", "b"], ["a", "b", *range(8)], "is a number in 80 % of rows, before in 0 %"),
        ([5], [7], "was 5 in every row and is another number in 50 % of rows or more"),
        ([5], [*[5] * 9, 7], "is another number in 10 % of rows or more"),
        ([5], [4, 6], "is another number in 50 % of rows or more"),
        (["a", "b"], ["a", *map("n{}".format, range(1000))], "is 'b' in 0 % of rows, before in 50"),
        (
            ["a", *map("n{}".format, range(300))] * 5,
            ["b", *map("n{}".format, range(300))] * 5,
            "",
        ),
        (
            [*["a"] * 300, *map("n{}".format, range(300))],
            [*["b"] * 300, *map("n{}".format, range(300))],
            "is 'b' in 50 % of rows, before in at most 1 %",
        ),
        (
            [*["a"] * 300, *map("n{}".format, range(300))],
            [*["a"] * 100, *map("m{}".format, range(300))],
            "is one of the rare categories in 72 % of rows, before in 50 %",
        ),
        (
            [*map("n{}".format, range(300))],
            map("m{}".format, range(300)),
            "has other rare categories",
        ),
        # New in every row, as on the card.
        ([*map("n{}".format, range(1800))], map("m{}".format, range(1800)), ""),
        # Other patients, with six rows each.
        (
            [f"n{row // 6}" for row in range(1800)],
            [f"m{row // 6}" for row in range(1800)],
            "",
        ),
    ],
)
def test_no_cell_stops_the_watch_of_a_column(before, now, change, tmp_path):
    """One text among numbers, a constant, or more than 256 categories did, without a word."""

    def sums(values):
        values = list(values)
        cells = [f'0.5,{at % 2},"{values[at % len(values)]}"' for at in range(1800)]
        (tmp_path / "t.csv").write_text("\n".join(["p,y,x", *cells]) + "\n")
        return column_statistics([tmp_path / "t.csv"], replace(COLUMNS, covariates="x"))

    on_card = sums(before)
    limits = " ".join(category_limits(on_card))
    has_many = len({*before}) > 256
    assert ("x has more than 256 categories. Those in less than 2 %" in limits) == has_many
    assert find_drift(on_card, sums(before)) == []
    drifts = " ".join(map(str, find_drift(on_card, sums(now))))
    assert bool(drifts) == bool(change)
    assert change in drifts


def test_a_card_names_no_rare_category(tmp_path):
    """Names of people, one a row, are no business of a card."""
    for part in ("val", "test"):
        score = np.random.default_rng(len(part)).uniform(0.1, 0.9, 1800).round(4)
        cells = [f"{p},{k % 2},{'north' if k % 2 else f'name{k}'}" for k, p in enumerate(score)]
        (tmp_path / f"{part}.csv").write_text("\n".join(["p,y,x", *cells]) + "\n")
    files = [tmp_path / f"{part}.csv" for part in ("val", "test")]
    text = write_card(tmp_path / "card.json", *files, replace(COLUMNS, covariates="x")).read_text()
    assert '"north": 0.5' in text
    assert "name0" not in text
    assert "name1798" not in text
