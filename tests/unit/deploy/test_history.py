"""Months of a service in one history: drift of a column without labels, alarms, and when it was calibrated again."""

import json

import numpy as np
import pytest

from fedlas.cli import main


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
    return str(path)


COLUMNS = ["--probs", "p", "--target", "y"]


@pytest.fixture
def card(tmp_path, capsys):
    def make(name, seed):
        files = [
            write(tmp_path / f"{part}{seed}.csv", seed + at)
            for at, part in enumerate(("val", "test"))
        ]
        out = str(tmp_path / name)
        assert (
            main(
                [
                    "card",
                    *files,
                    *COLUMNS,
                    "--calibrate",
                    "temperature",
                    "--replicates",
                    "0",
                    "--out",
                    out,
                ]
            )
            == 0
        )
        capsys.readouterr()
        return out

    return make


def test_a_year_of_months(card, tmp_path, capsys):
    first, second = card("a.json", 0), card("b.json", 10)
    history = tmp_path / "history.json"

    def month(name, card_file, **change):
        file = write(tmp_path / f"{name}.csv", 20 + int(name[-2:]), **change)
        columns = [*COLUMNS, "--covariates", "age,site"]
        status = main(["monitor", card_file, file, *columns, "--history", str(history)])
        return status, capsys.readouterr().out

    assert month("2026-01", first)[0] == 0
    assert month("2026-02", first)[0] == 0
    status, shown = month("2026-03", first, moved=2.0)
    assert (status, "DRIFT of a column: age moved by +" in shown) == (3, True)
    status, shown = month("2026-04", first, missing=0.2)
    assert (status, "age is missing in 2" in shown) == (3, True)
    status, shown = month("2026-05", first, factor=0.2)
    assert (status, "DRIFT" in shown) == (3, False)
    # The new card starts its own reference; a period that is repeated takes its own place.
    assert month("2026-06", second, moved=2.0)[0] == 0
    assert month("2026-06", second, moved=2.0)[0] == 0
    periods = json.loads(history.read_text())["periods"]
    assert [row["period"][-2:] for row in periods] == ["01", "02", "03", "04", "05", "06"]
    assert periods[4]["alarms"]
    assert abs(periods[0]["columns"]["age"]["mean"] - 50) < 1
    assert "mean" not in periods[0]["columns"]["site"]
    gap = periods[4]["means"]["calibration"]
    assert gap["low"] < gap["mean"] < gap["high"]
    page = history.with_suffix(".html").read_text()
    for text in (
        "6 periods",
        "Calibrated again: 2026-06.",
        "Quiet in 2026-06",
        "age moved by +",
    ):
        assert text in page


def test_what_is_no_history_is_left_alone(card, tmp_path, capsys):
    other = tmp_path / "history.json"
    other.write_text('{"mine": 1}')
    file = write(tmp_path / "a.csv", 3)
    assert main(["monitor", card("a.json", 0), file, *COLUMNS, "--history", str(other)]) == 2
    assert "--history must be new, or a history of fedlas monitor" in capsys.readouterr().err
    assert other.read_text() == '{"mine": 1}'


def test_a_month_that_is_run_again_stays_the_reference_of_later_ones(card, tmp_path, capsys):
    """It moved to the end, so that the months after it were compared with one another."""
    card_file = card("a.json", 0)
    history = tmp_path / "history.json"

    def month(name, moved, *words):
        file = write(tmp_path / f"{name}.csv", int(name[-1]), moved=moved)
        options = [*COLUMNS, "--covariates", "age", "--history", str(history), *words]
        status = main(["monitor", card_file, file, *options])
        return status, " ".join(capsys.readouterr().out.split())

    assert month("2026-01", 0.0)[0] == 0
    assert month("2026-02", 2.0)[0] == 3
    status, shown = month("2026-01", 0.1, "--period", "2026-01")
    assert (status, "DRIFT" in shown) == (0, False)
    status, shown = month("2026-03", 2.0)
    assert (status, "age moved by +1.9 sd" in shown) == (3, True)
    periods = json.loads(history.read_text())["periods"]
    assert [row["period"] for row in periods] == ["2026-01", "2026-02", "2026-03"]


def test_what_a_history_refuses_leaves_the_state_of_the_watches(card, tmp_path, capsys):
    file = write(tmp_path / "a.csv", 3)
    state, history = tmp_path / "state.json", str(tmp_path / "h.json")
    run = ["monitor", card("a.json", 0), file, *COLUMNS, "--state", str(state)]
    assert main([*run, "--history", history, "--covariates", "nope"]) == 2
    assert main([*run, "--history", str(state)]) == 2
    page = str(tmp_path / "h.html")
    assert main([*run, "--history", history, "--page", page]) == 2
    assert not state.exists()
    assert "--page must be another file" in capsys.readouterr().err


def test_a_month_that_the_state_counts_is_not_run_again(card, tmp_path, capsys):
    """The history replaced it, and the state counted its samples twice."""
    file = write(tmp_path / "2026-01.csv", 3)
    history, state = tmp_path / "history.json", tmp_path / "state.json"
    run = ["monitor", card("a.json", 0), file, *COLUMNS, "--history", str(history)]
    assert main([*run, "--state", str(state)]) == 0
    before = state.read_bytes(), history.read_bytes()
    assert main([*run, "--state", str(state)]) == 2
    assert "with --state, a period must be new" in capsys.readouterr().err
    assert (state.read_bytes(), history.read_bytes()) == before
    assert main(run) == 0


def test_a_month_is_the_same_by_a_relative_path(card, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    file = write(tmp_path / "2026-01.csv", 3)
    run = ["monitor", card("a.json", 0), *COLUMNS, "--history", "history.json"]
    assert main([*run, file]) == 0
    assert main([*run, "2026-01.csv"]) == 0
    assert len(json.loads((tmp_path / "history.json").read_text())["periods"]) == 1


def test_columns_in_objects_are_watched(tmp_path, capsys):
    """A path was no column for card and monitor, and one for calibrate and apply."""
    options = ["--probs", "out.p", "--target", "y", "--covariates", "meta.age"]
    files = []
    for seed, part in enumerate(("val", "test", "live")):
        write(tmp_path / f"{part}.csv", seed, moved=2.0 * (part == "live"))
        lines = (tmp_path / f"{part}.csv").read_text().split()[1:]
        rows = [line.split(",") for line in lines]
        objects = [
            {"out": {"p": float(p)}, "y": int(y), "meta": {"age": float(a)}} for p, y, a, _ in rows
        ]
        file = tmp_path / f"{part}.jsonl"
        file.write_text("\n".join(map(json.dumps, objects)))
        files.append(str(file))
    card = str(tmp_path / "card.json")
    run = ["--calibrate", "temperature", "--replicates", "0", "--out", card]
    assert main(["card", *files[:2], *options, *run]) == 0
    capsys.readouterr()
    assert main(["monitor", card, files[2], *options]) == 3
    assert "meta.age moved by +2" in " ".join(capsys.readouterr().out.split())


def test_a_single_report_watches_columns_without_labels(tmp_path, capsys):
    """Only a history watched them, and of text only what was missing."""
    files = [write(tmp_path / f"{part}.csv", at) for at, part in enumerate(("val", "test"))]
    out = str(tmp_path / "card.json")
    options = ["--calibrate", "temperature", "--replicates", "0", "--out", out]
    bare = str(tmp_path / "bare.json")
    assert main(["card", *files, *COLUMNS, *options[:-1], bare]) == 0
    assert main(["card", *files, *COLUMNS, "--covariates", "age,site", *options]) == 0
    capsys.readouterr()
    unlabeled = ["--probs", "p", "--covariates", "age,site"]

    def report(text, card=out, more=()):
        file = tmp_path / "live.csv"
        file.write_text(text)
        status = main(["monitor", card, str(file), *unlabeled, *more])
        streams = capsys.readouterr()
        return status, " ".join((streams.out + streams.err).split())

    usual = (tmp_path / "test.csv").read_text()
    assert report(usual)[0] == 0
    moved = (write(tmp_path / "m.csv", 5, moved=2.0), (tmp_path / "m.csv").read_text())[1]
    status, shown = report(moved)
    assert status == 3
    assert "DRIFT of a column: age moved by +2.0 sd." in shown
    status, shown = report(usual.replace("south", "west"))
    assert status == 3
    assert "site is 'south' in 0 % of rows, before in 5" in shown
    assert "has new categories in 5" in shown
    assert "west" in shown
    status, shown = report(usual, more=["--json"])
    assert json.loads(shown)["drifts"] == []
    page = tmp_path / "page.html"
    assert report(moved, more=["--page", str(page)])[0] == 3
    assert "age moved by +2.0 sd" in page.read_text()
    status, shown = report(usual, card=bare)
    assert status == 2
    assert "the card must hold the columns of --covariates" in shown
    # The history begins with the card's columns too.
    (tmp_path / "first.csv").write_text(moved)
    history = ["--history", str(tmp_path / "history.json")]
    assert main(["monitor", out, str(tmp_path / "first.csv"), *unlabeled, *history]) == 3
    content = json.loads((tmp_path / "card.json").read_text())
    content["columns"] = {"age": {"mean": "x"}}
    (tmp_path / "card.json").write_text(json.dumps(content))
    assert report(usual)[0] == 2


def test_calibrated_scores_are_watched_with_the_covariates_of_a_card(tmp_path, capsys):
    files = [write(tmp_path / f"{part}.csv", at) for at, part in enumerate(("val", "test"))]
    out = str(tmp_path / "card.json")
    options = ["--covariates", "site", "--method", "none", "--replicates", "0", "--out", out]
    assert main(["card", *files, *COLUMNS, *options]) == 0
    live = tmp_path / "live.csv"
    live.write_text((tmp_path / "test.csv").read_text().replace("p,", "calibrated_p,", 1))
    assert main(["monitor", out, str(live), "--probs", "calibrated_p", "--covariates", "site"]) == 0


@pytest.mark.filterwarnings("default:188 rows")
def test_scores_that_are_missing_are_a_drift(tmp_path, capsys):
    files = [write(tmp_path / f"{part}.csv", at) for at, part in enumerate(("val", "test"))]
    out = str(tmp_path / "card.json")
    options = ["--covariates", "site", "--method", "none", "--replicates", "0", "--out", out]
    assert main(["card", *files, *COLUMNS, *options]) == 0
    rows = (tmp_path / "test.csv").read_text().splitlines()
    rows[1::8] = [f",{row.partition(',')[2]}" for row in rows[1::8]]
    (tmp_path / "live.csv").write_text("\n".join(rows) + "\n")
    words = ["--probs", "p", "--covariates", "site", "--drop-missing"]
    assert main(["monitor", out, str(tmp_path / "live.csv"), *words]) == 3
    shown = capsys.readouterr()
    assert "p is missing in 13 % of rows" in " ".join(shown.out.split())
    assert "188 rows of live.csv lack a value and were left out" in shown.err


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
def test_no_cell_stops_the_watch_of_a_column(before, now, change, tmp_path, capsys):
    """One text among numbers, a constant, or more than 256 categories did, without a word."""

    def table(name, values):
        values = list(values)
        score = np.random.default_rng(len(name)).uniform(0.1, 0.9, 1800).round(4)
        cells = [f'{p},{at % 2},"{values[at % len(values)]}"' for at, p in enumerate(score)]
        path = tmp_path / name
        path.write_text("\n".join(["p,y,x", *cells]) + "\n")
        return str(path)

    out, words = str(tmp_path / "card.json"), ["--covariates", "x"]
    files = [table("val.csv", before), table("test.csv", before)]
    options = [*COLUMNS, *words, "--method", "none", "--replicates", "0", "--out", out]
    assert main(["card", *files, *options]) == 0
    has_many = len({*before}) > 256
    limits = " ".join(json.loads((tmp_path / "card.json").read_text())["limits"])
    assert ("x has more than 256 categories. Those in less than 2 %" in limits) == has_many
    assert ("note: x has more than 256" in capsys.readouterr().err) == has_many
    for values, drifts in ((before, ""), (now, change)):
        status = main(["monitor", out, table("live.csv", values), "--probs", "p", *words])
        shown = " ".join(capsys.readouterr().out.split())
        assert (status == 3, "DRIFT" in shown) == (bool(drifts), bool(drifts))
        assert drifts in shown


def test_a_card_names_no_rare_category(tmp_path):
    """Names of people, one a row, are no business of a card."""
    for part in ("val", "test"):
        score = np.random.default_rng(len(part)).uniform(0.1, 0.9, 1800).round(4)
        cells = [f"{p},{k % 2},{'north' if k % 2 else f'name{k}'}" for k, p in enumerate(score)]
        (tmp_path / f"{part}.csv").write_text("\n".join(["p,y,x", *cells]) + "\n")
    files = [str(tmp_path / f"{part}.csv") for part in ("val", "test")]
    options = [*COLUMNS, "--covariates", "x", "--method", "none", "--replicates", "0"]
    assert main(["card", *files, *options, "--out", str(tmp_path / "card.json")]) == 0
    text = (tmp_path / "card.json").read_text()
    assert '"north": 0.5' in text
    assert "name0" not in text
    assert "name1798" not in text
