"""``fedlas monitor`` and the columns of ``fedlas card``: exit status, options, and files that a stopped call leaves."""

import io
import json
import re
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from fedlas.cli import main
from fedlas.predictions import Columns
from periods import write_card

COLUMNS = ["--probs", "p", "--target", "y"]
COVARIATES = ["--covariates", "age,site"]
STOP = Path(__file__).parents[2] / "stop_by_count.py"


def month(path, seed, *, rows=300, moved=0.0, factor=1.0):
    """Write probabilities whose log-odds are ``factor`` times too large, labels, and two columns to watch."""
    generator = np.random.default_rng(seed)
    logit = generator.normal(size=rows)
    happens = generator.random(rows) < 1 / (1 + np.exp(-logit / factor))
    age = generator.normal(50 + 10 * moved, 10, rows)
    cells = zip(1 / (1 + np.exp(-logit)), happens, age, strict=True)
    lines = [f"{p:.6f},{int(y)},{a:.1f},{'north' if p > 0.5 else 'south'}" for p, y, a in cells]
    path.write_text("\n".join(["p,y,age,site", *lines, ""]))
    return str(path)


@pytest.fixture(scope="module")
def card(tmp_path_factory):
    folder = tmp_path_factory.mktemp("card")
    files = [month(folder / f"{part}.csv", seed, rows=1500) for seed, part in enumerate("vt")]
    columns = Columns(probs="p", target="y", covariates="age,site")
    return str(write_card(folder / "card.json", *map(Path, files), columns))


@pytest.fixture
def say(capsys):
    """``say(words, status)``: output and errors of a command that ends with the status, in one line each."""

    def run(words, status=0):
        capsys.readouterr()
        assert main(list(map(str, words))) == status
        return [" ".join(text.split()) for text in capsys.readouterr()]

    return run


def test_the_status_says_it(card, tmp_path, say):
    good = month(tmp_path / "good.csv", 2, rows=2000)
    bad = month(tmp_path / "bad.csv", 2, rows=2000, factor=4.0)
    monitor = ["monitor", card, *COLUMNS, "--false-alarm", "0.05"]
    quiet = "No alarm: no change detected in calibration, events, probability and actions."
    assert quiet in say([*monitor, good])[0]
    alarm = re.search(r"ALARM after sample ([\d,]+):", say([*monitor, good, bad], 3)[0])
    assert int(alarm[1].replace(",", "")) > 2000  # in the second file
    content = json.loads(say([*monitor, bad, "--json", "--details"], 3)[0])
    assert content["alarms"]
    said = say(["monitor", card, good, "--probs", "p", "--details"])[0]
    assert "no labels" in said
    assert "No alarm: no change detected in probability and actions." in said
    assert "event rate" in said
    said = say(["monitor", card, good, "--target", "y"], 2)[1]
    assert "the columns of scores and labels must be named" in said


def test_the_page_shows_each_watch_and_its_history(card, tmp_path, say):
    bad, page = month(tmp_path / "a.csv", 2, rows=2000, factor=4.0), tmp_path / "monitor.html"
    state = tmp_path / "state.json"
    words = ["monitor", card, *COLUMNS, bad, "--page", page]
    assert f"page: {page}".replace(" ", "") in say([*words, "--state", state], 3)[0].replace(
        " ", ""
    )
    text = page.read_text()
    assert "ALARM after sample" in text
    assert text.count("<svg") == 5  # a figure of each watch, and one of the evidence
    assert "http" not in text.replace("http-equiv", "").replace("http://www.w3.org", "")
    before = state.read_text()
    other = [*words[:-1], tmp_path / "page.txt", "--state", state]
    assert "must end in .html, .htm or .pdf" in say(other, 2)[1]
    assert state.read_text() == before


def test_months_of_a_history(card, tmp_path, say):
    history = tmp_path / "h.json"
    options = [*COLUMNS, *COVARIATES, "--history", history]
    said = say(["monitor", card, month(tmp_path / "2026-01.csv", 2), *options])[0]
    assert "1 period" in said
    moved = month(tmp_path / "2026-02.csv", 3, moved=2.0)
    said = say(["monitor", card, moved, *options], 3)[0]
    assert "DRIFT of a column: age moved by +" in said
    assert "2 periods" in history.with_suffix(".html").read_text()
    assert [row["period"] for row in json.loads(history.read_text())["periods"]] == [
        "2026-01",
        "2026-02",
    ]


def test_standard_input_is_a_period_by_its_name(card, tmp_path, say, monkeypatch):
    history = tmp_path / "h.json"
    for seed in (1, 2):
        content = Path(month(tmp_path / "in.csv", seed)).read_bytes()
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))
        options = [*COLUMNS, "--history", history, "--period", f"2026-0{seed}"]
        say(["monitor", card, "-", *options])
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))
    said = say(["monitor", card, "-", *COLUMNS, "--history", history, "--period", "2026-03"], 2)[1]
    assert "with the same content as a file of '2026-02'" in said
    assert [row["files"] for row in json.loads(history.read_text())["periods"]] == [["-"], ["-"]]


def test_rejected_history_leaves_monitor_state_unchanged(card, tmp_path, say):
    state, history, page = (tmp_path / name for name in ("state.json", "h.json", "h.html"))
    words = ["monitor", card, month(tmp_path / "a.csv", 3), *COLUMNS, "--state", state]
    say([*words, "--history", history, "--covariates", "nope"], 2)
    say([*words, "--history", state], 2)
    assert (
        "--page must be another file" in say([*words, "--history", history, "--page", page], 2)[1]
    )
    assert not state.exists()


def test_single_call_compares_columns_with_card(card, tmp_path, say):
    """Only a history watched them."""
    live, page = tmp_path / "live.csv", tmp_path / "page.html"
    words = ["monitor", card, live, "--probs", "p", *COVARIATES]
    month(live, 5)
    assert json.loads(say([*words, "--json"])[0])["drifts"] == []
    month(live, 5, moved=2.0)
    assert "DRIFT of a column: age moved by +" in say([*words, "--page", page], 3)[0]
    assert "age moved by +" in page.read_text()
    bare = tmp_path / "bare.json"
    bare.write_text(json.dumps({**json.loads(Path(card).read_text()), "columns": {}}))
    said = say(["monitor", bare, *words[2:]], 2)[1]
    assert "the card must have statistics of the columns of --covariates" in said


def test_a_drift_is_said_in_the_verdict(card, tmp_path, say, capsys):
    """The first line said "No alarm", and the exit status 3."""
    words = ["monitor", card, month(tmp_path / "l.csv", 5, moved=2.0), "--probs", "p", *COVARIATES]
    assert main(words) == 3
    first = " ".join(capsys.readouterr().out.split("Watch ")[0].split())
    assert first.startswith("DRIFT of a column: age moved by +")
    assert "No alarm" not in first
    assert "no change detected in probability and actions" in first
    content = json.loads(say([*words, "--json"], 3)[0])
    assert content["verdict"].startswith("DRIFT of a column: age moved by +")
    assert "alarm" in content


def test_quiet_prints_only_an_alarm(card, tmp_path, say):
    good = month(tmp_path / "good.csv", 2, rows=2000)
    bad = month(tmp_path / "bad.csv", 2, rows=2000, factor=4.0)
    monitor = ["monitor", card, *COLUMNS, "--quiet"]
    assert say([*monitor, good, "--page", tmp_path / "p.html"]) == ["", ""]
    said = say([*monitor, bad], 3)[0]
    assert said.startswith("ALARM after sample ")
    assert said.count("ALARM") == 1
    assert "live samples" not in said
    assert json.loads(say([*monitor, good, "--json"])[0])["verdict"].startswith("No alarm: ")


def test_card_has_columns_and_lists_unwatchable_ones(tmp_path, say):
    files = [tmp_path / f"{part}.csv" for part in ("val", "test", "live")]
    for seed, file in enumerate(files):
        rows = Path(month(file, seed, rows=400)).read_text().splitlines()
        names = ["who", *(f"n{row}" for row in range(400))]
        file.write_text("\n".join(f"{row},{who}" for row, who in zip(rows, names, strict=True)))
    out = tmp_path / "card.json"
    options = ["--covariates", "site,who", "--method", "none", "--replicates", "0", "--out", out]
    said = say(["card", *files[:2], *COLUMNS, *options])[1]
    assert "note: who has more than 256" in said
    content = json.loads(out.read_text())
    assert {*content["columns"]} == {"p", "site", "who"}
    assert "who has more than 256 categories" in " ".join(content["limits"])
    # The scores may have been calibrated since, and the columns of the card are still watched.
    files[2].write_text(files[2].read_text().replace("p,", "calibrated_p,", 1))
    say(["monitor", out, files[2], "--probs", "calibrated_p", "--covariates", "site"])


@pytest.mark.filterwarnings("default:38 rows")
def test_rows_that_are_left_out_are_told(card, tmp_path, say):
    rows = Path(month(tmp_path / "live.csv", 4)).read_text().splitlines()
    rows[1::8] = [f",{row.partition(',')[2]}" for row in rows[1::8]]
    (tmp_path / "live.csv").write_text("\n".join(rows) + "\n")
    words = ["monitor", card, tmp_path / "live.csv", "--probs", "p", "--covariates", "site"]
    out, err = say([*words, "--drop-missing"], 3)
    assert "p is missing in 13 % of rows" in out
    assert "38 rows of live.csv lack a value and were left out" in err


@pytest.mark.system
@pytest.mark.parametrize(
    ("event", "count"), [("rename", 1), ("torn", 2), ("rename", 2), ("rename", 3), ("rename", 4)]
)
def test_killed_call_loses_no_period(card, tmp_path, say, event, count):
    """Killed at the state, the history, the state once more, the page: both have the month after the next call."""
    files = {number: month(tmp_path / f"{number}.csv", number) for number in (1, 2, 3)}
    state, history = tmp_path / "s.json", tmp_path / "h.json"
    options = [*COLUMNS, "--history", str(history), "--state", str(state)]
    say(["monitor", card, files[1], *options])
    done = subprocess.run(
        [sys.executable, str(STOP), event, str(count), "SIGKILL", "*", "monitor", card, files[2], *options],
        capture_output=True, check=False,
    )  # fmt: skip
    assert done.returncode == -signal.SIGKILL, done.stderr
    say(["monitor", card, files[3], *options])
    assert main(["monitor", card, files[2], *options]) in (0, 2)  # it is added now, or was there
    counts = json.loads(state.read_text())
    periods = [row["period"] for row in json.loads(history.read_text())["periods"]]
    assert sorted(periods) == ["1", "2", "3"]
    assert (counts["samples"], len(counts["files"])) == (900, 3)
    assert "pending" not in counts


@pytest.mark.system
@pytest.mark.parametrize("event", ["torn", "rename"])
def test_killed_call_leaves_state_unchanged(card, tmp_path, say, event):
    """Killed at its first write, and at the last moment before the new state takes the place of the old."""
    state, file = tmp_path / "state.json", month(tmp_path / "a.csv", 1)
    say(["monitor", card, month(tmp_path / "b.csv", 2), *COLUMNS, "--state", state])
    before = state.read_text()
    words = ["monitor", card, file, *COLUMNS, "--state", str(state)]
    done = subprocess.run(
        [sys.executable, str(STOP), event, "1", "SIGKILL", "*", *words],
        capture_output=True,
        check=False,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert state.read_text() == before
    say(words)
    counts = json.loads(state.read_text())
    assert (counts["samples"], counts["looks"]) == (600, 2)
