"""Files of a history: what one period is, several writers, a stopped one, and what somebody else has changed in it."""

import copy
import gzip
import io
import json
import multiprocessing
import os
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from fedlas.cli import main
from fedlas.present.monitor_page import explanations

COLUMNS = ["--probs", "p", "--target", "y"]
COVARIATES = [*COLUMNS, "--covariates", "age,site"]
STOP = Path(__file__).parents[2] / "stop_by_count.py"


def month(path, seed, *, moved=0.0, rows=300):
    generator = np.random.default_rng(seed)
    p = generator.uniform(0.05, 0.95, rows)
    cells = zip(
        p, generator.random(rows) < p, generator.normal(50 + 10 * moved, 10, rows), strict=True
    )
    lines = [f"{s:.4f},{int(y)},{age:.1f},{'north' if s > 0.5 else 'south'}" for s, y, age in cells]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(["p,y,age,site", *lines, ""]))
    return str(path)


@pytest.fixture(scope="module")
def card(tmp_path_factory):
    folder = tmp_path_factory.mktemp("card")
    files = [month(folder / f"{part}.csv", seed, rows=1500) for seed, part in enumerate("vt")]
    out = str(folder / "card.json")
    options = ["--method", "none", "--replicates", "0", "--out", out]
    assert main(["card", *files, *COVARIATES, *options]) == 0
    return out


@pytest.fixture
def run(card, tmp_path, capsys):
    def add(*words, columns=COLUMNS, state=None):
        words = [*words, *columns, "--history", str(tmp_path / "h.json")]
        capsys.readouterr()
        status = main(["monitor", card, *words, *(["--state", str(state)] if state else [])])
        streams = capsys.readouterr()
        return status, " ".join((streams.out + streams.err).split())

    return add


def periods(tmp_path):
    return [row["period"] for row in json.loads((tmp_path / "h.json").read_text())["periods"]]


def test_other_rows_under_one_name_are_refused(run, tmp_path):
    """Months in folders, a file that each month overwrites, and a pattern replaced the month before."""
    assert run(month(tmp_path / "a" / "x.csv", 1))[0] == 0
    before = (tmp_path / "h.json").read_bytes()
    for file in (tmp_path / "b" / "x.csv", tmp_path / "a" / "x.csv"):
        status, shown = run(month(file, 2))
        assert (status, "Name this one by --period" in shown) == (2, True)
    assert (tmp_path / "h.json").read_bytes() == before
    assert run(str(tmp_path / "b" / "x.csv"), "--period", "2026-02")[0] == 0
    month(tmp_path / "c" / "1.csv", 3)
    assert run(f"{tmp_path}/c/*.csv", "--period", "2026-03")[0] == 0
    month(tmp_path / "c" / "2.csv", 4)
    status, shown = run(f"{tmp_path}/c/*.csv")
    assert (status, "of the same content as one of '2026-03'" in shown) == (2, True)
    # By its name a month is replaced.
    assert run(f"{tmp_path}/c/*.csv", "--period", "2026-03")[0] == 0
    assert periods(tmp_path) == ["x", "2026-02", "2026-03"]


def test_the_same_rows_are_one_period_however_they_are_stored(run, tmp_path):
    text = Path(month(tmp_path / "2026-01.csv", 1)).read_bytes()
    assert run(str(tmp_path / "2026-01.csv"))[0] == 0
    assert run(month(tmp_path / "2026-02.csv", 2))[0] == 0
    copies = {
        "packed.csv.gz": gzip.compress(text),
        "dos.csv": text.replace(b"\n", b"\r\n"),
        "marked.csv": b"\xef\xbb\xbf" + text.rstrip(b"\n"),
        "mac.csv": text.replace(b"\n", b"\r"),
    }
    for name, content in copies.items():
        (tmp_path / name).write_bytes(content)
        assert run(str(tmp_path / name))[0] == 0, name
        assert run(str(tmp_path / name), "--period", "2026-03")[0] == 2
    assert periods(tmp_path) == ["2026-01", "2026-02"]
    status, shown = run(str(tmp_path / "dos.csv"), str(tmp_path / "packed.csv.gz"))
    assert (status, "in one period of a history, and once" in shown) == (2, True)


def test_a_state_counts_no_copy_of_a_file(card, tmp_path, capsys):
    text = Path(month(tmp_path / "a.csv", 1)).read_bytes()
    (tmp_path / "b.csv.gz").write_bytes(gzip.compress(text.replace(b"\n", b"\r\n")))
    words = [*COLUMNS, "--state", str(tmp_path / "s.json")]
    assert main(["monitor", card, str(tmp_path / "a.csv"), *words]) == 0
    assert main(["monitor", card, str(tmp_path / "b.csv.gz"), *words]) == 2
    assert "a file must be new to the state" in capsys.readouterr().err


def test_standard_input_needs_a_name(run, tmp_path, monkeypatch):
    def pipe(seed):
        content = Path(month(tmp_path / "in.csv", seed)).read_bytes()
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))

    pipe(1)
    status, shown = run("-")
    assert (status, "Name it by --period" in shown) == (2, True)
    for seed in (1, 2):
        pipe(seed)
        assert run("-", "--period", f"2026-0{seed}")[0] == 0
    pipe(1)
    assert run("-", "--period", "2026-03")[0] == 2
    assert periods(tmp_path) == ["2026-01", "2026-02"]


def test_a_history_of_before_is_not_replaced_unasked(run, tmp_path):
    """It holds paths alone, which say nothing of the rows."""
    file = month(tmp_path / "2026-01.csv", 1)
    assert run(file)[0] == 0
    content = json.loads((tmp_path / "h.json").read_text())
    del content["periods"][0]["contents"]
    (tmp_path / "h.json").write_text(json.dumps(content))
    assert run(file)[0] == 2
    assert run(file, "--period", "2026-01")[0] == 0
    assert run(file)[0] == 0
    assert periods(tmp_path) == ["2026-01"]


def watch(card, folder, number, together):
    """Add a month at the same time as others do."""
    together.wait()
    words = [*COLUMNS, "--history", str(folder / "h.json"), "--state", str(folder / "s.json")]
    assert main(["monitor", card, str(folder / f"{number}.csv"), *words]) == 0


@pytest.mark.system
def test_writers_at_the_same_time_lose_no_period(card, tmp_path):
    context = multiprocessing.get_context("spawn")
    together = context.Barrier(3)
    processes = []
    for number in range(3):
        month(tmp_path / f"{number}.csv", number)
        arguments = (card, tmp_path, number, together)
        processes.append(context.Process(target=watch, args=arguments))
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0] * 3
    assert sorted(periods(tmp_path)) == ["0", "1", "2"]
    state = json.loads((tmp_path / "s.json").read_text())
    assert (state["samples"], state["looks"]) == (900, 3)
    assert "pending" not in state


def test_an_error_leaves_history_and_state(run, tmp_path, monkeypatch):
    """The state had moved on, so that the month could never be added."""
    state, history = tmp_path / "s.json", tmp_path / "h.json"
    assert run(month(tmp_path / "1.csv", 1), state=state)[0] == 0
    before = state.read_bytes(), history.read_bytes()

    second = month(tmp_path / "2.csv", 2)
    fsync, calls = os.fsync, []

    def fail_at_second(handle):
        calls.append(handle)
        if len(calls) == 2:
            raise OSError(28, "No space left on device")
        return fsync(handle)

    monkeypatch.setattr("os.fsync", fail_at_second)
    assert run(second, state=state)[0] == 2
    monkeypatch.undo()
    assert (state.read_bytes(), history.read_bytes()) == before
    assert run(second, state=state)[0] == 0
    assert periods(tmp_path) == ["1", "2"]


@pytest.mark.system
@pytest.mark.parametrize(
    ("event", "count"), [("rename", 1), ("torn", 2), ("rename", 2), ("rename", 3), ("rename", 4)]
)
def test_a_call_that_is_killed_at_any_write_loses_no_period(run, card, tmp_path, event, count):
    """Killed at the state, the history, the state once more, the page: both have the month after the next call."""
    state, history = tmp_path / "s.json", tmp_path / "h.json"
    assert run(month(tmp_path / "1.csv", 1), state=state)[0] == 0
    second, third = month(tmp_path / "2.csv", 2), month(tmp_path / "3.csv", 3)
    words = [*COLUMNS, "--history", str(history), "--state", str(state)]
    done = subprocess.run(
        [sys.executable, str(STOP), event, str(count), "SIGKILL", "*", "monitor", card, second, *words],
        capture_output=True, check=False,
    )  # fmt: skip
    assert done.returncode == -9, done.stderr
    assert run(third, state=state)[0] == 0
    status, _ = run(second, state=state)
    counts = json.loads(state.read_text())
    assert status in (0, 2)  # it is added now, or was there
    assert sorted(periods(tmp_path)) == ["1", "2", "3"]
    assert (counts["samples"], len(counts["files"])) == (900, 3)
    assert "pending" not in counts


def test_the_card_is_the_reference_whatever_the_history_says(run, tmp_path):
    """A history with another first month silenced the drift that the card shows."""
    assert run(month(tmp_path / "1.csv", 1), columns=COVARIATES)[0] == 0
    moved = month(tmp_path / "2.csv", 2, moved=2.0)
    content = json.loads((tmp_path / "h.json").read_text())
    for part in ("columns", "columns_of_card"):
        content["periods"][0][part]["age"]["mean"] = 70.0
    (tmp_path / "h.json").write_text(json.dumps(content))
    status, shown = run(moved, columns=COVARIATES)
    assert (status, "DRIFT of a column: age moved by +" in shown) == (3, True)
    del content["periods"][0]["columns_of_card"]
    (tmp_path / "h.json").write_text(json.dumps(content))
    assert run(moved, columns=COVARIATES)[0] == 3


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no such names")
def test_no_name_of_a_file_controls_a_page_or_terminal(run, tmp_path):
    names = [os.fsdecode(b"a\x1b[2J\xff.csv"), "b\u202e<b>.csv"]
    for seed, name in enumerate(names):
        status, shown = run(month(tmp_path / name, seed))
        assert (status, "\x1b" in shown) == (0, False)
    assert run(month(tmp_path / "c.csv", 3), "--period", "\x1b[31m2026")[0] == 0
    assert periods(tmp_path) == ["a\\x1b[2J\\udcff", "b\\u202e<b>", "\\x1b[31m2026"]
    page = (tmp_path / "h.html").read_text()
    assert "a\\x1b[2J\\udcff" in page
    assert [text for text in ("\x1b", "\u202e", "<b>") if text in page] == []


def test_a_quiet_mean_outside_its_interval_is_explained(card, tmp_path, capsys):
    """Classes were quiet at 24.50 %, and 24.83 to 35.33 % on the card."""
    assert main(["monitor", card, month(tmp_path / "1.csv", 1), *COLUMNS, "--json"]) == 0
    content = json.loads(capsys.readouterr().out)
    leading = content["watches"]["events"]["statistics"][0]
    leading["live"] = leading["low"] - 0.003
    assert explanations(content)[0].startswith("Quiet, though outside: events. As few live samples")
    leading["live"] = leading["low"]
    assert not explanations(content)[0].startswith("Quiet")


def test_a_history_of_many_columns_draws_those_that_drifted(tmp_path, capsys):
    """A page of 1,000 columns took 43 seconds."""

    def table(name, seed, moved):
        values = np.random.default_rng(seed).normal(size=(200, 41))
        p, y = 1 / (1 + np.exp(-values[:, 40])), values[:, 39] > 0
        values[:, 30] += moved
        heads = ",".join(["p", "y", *(f"x{k}" for k in range(40))])
        np.savetxt(
            tmp_path / name, np.c_[p, y, values[:, :40]], "%.5g", ",", header=heads, comments=""
        )
        return str(tmp_path / name)

    words = [*COLUMNS, "--covariates", "x*"]
    card = str(tmp_path / "card.json")
    files = [table("v.csv", 0, 0.0), table("t.csv", 1, 0.0)]
    assert (
        main(["card", *files, *words, "--method", "none", "--replicates", "0", "--out", card]) == 0
    )
    history = tmp_path / "h.json"
    live = table("1.csv", 2, 2.0)
    assert main(["monitor", card, live, *words, "--history", str(history)]) == 3
    assert "x30 moved by +" in " ".join(capsys.readouterr().out.split())
    page = history.with_suffix(".html").read_text()
    assert page.count("mean of x") == 24
    assert "mean of x30 by period" in page
    assert "17 more are watched and not drawn" in page


def places(content, path=()):
    """Yield the place of every value in JSON."""
    inner = content.items() if isinstance(content, dict) else enumerate(content)
    for key, value in inner:
        yield (*path, key)
        if isinstance(value, dict | list):
            yield from places(value, (*path, key))


VALUES = [None, "x", "", -1, 0.5, 1e300, 2**70, True, [], {}, [None], {"a": 1}, ...]


MUTATIONS = int(os.environ.get("FEDLAS_MUTATIONS", "24"))


def test_a_damaged_history_is_refused_or_read(run, tmp_path):
    """Three of ten mutations were a traceback, and one more could silence the drift."""
    assert run(month(tmp_path / "1.csv", 1), columns=COVARIATES)[0] == 0
    text = (tmp_path / "h.json").read_text()
    moved = month(tmp_path / "2.csv", 2, moved=2.0)
    chosen = random.Random(0)
    status_of = {}
    for place in chosen.sample([*places(json.loads(text))], MUTATIONS):
        content = copy.deepcopy(json.loads(text))
        *path, last = place
        inner = content
        for key in path:
            inner = inner[key]
        value = chosen.choice(VALUES)
        if value is ...:
            del inner[last]
        else:
            inner[last] = value
        (tmp_path / "h.json").write_text(json.dumps(content))
        status, shown = run(moved, columns=COVARIATES)
        assert status in (2, 3), (place, value, shown)
        status_of[place] = status
    assert {2, 3} == {*status_of.values()}
