"""Files of a history: what one period is, several writers, a stopped one, and what somebody else has changed in it."""

import copy
import gzip
import json
import multiprocessing
import os
import random
import sys
from dataclasses import replace

import numpy as np
import pytest

from fedlas.deploy.monitor import monitor
from fedlas.deploy.monitor.history import PeriodHistory, read_history
from fedlas.deploy.monitor.state import lock_files
from fedlas.errors import InputError
from fedlas.predictions import Columns
from fedlas.present.history_page import history_page
from fedlas.present.monitor_page import explanatory_notes
from periods import add_period, write_card

COLUMNS = Columns(probs="p", target="y")
COVARIATES = replace(COLUMNS, covariates="age,site")


def month(path, seed, *, moved=0.0, rows=300):
    generator = np.random.default_rng(seed)
    p = generator.uniform(0.05, 0.95, rows)
    cells = zip(
        p, generator.random(rows) < p, generator.normal(50 + 10 * moved, 10, rows), strict=True
    )
    lines = [f"{s:.4f},{int(y)},{age:.1f},{'north' if s > 0.5 else 'south'}" for s, y, age in cells]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(["p,y,age,site", *lines, ""]))
    return path


@pytest.fixture(scope="module")
def card(tmp_path_factory):
    folder = tmp_path_factory.mktemp("card")
    files = [month(folder / f"{part}.csv", seed, rows=1500) for seed, part in enumerate("vt")]
    return write_card(folder / "card.json", *files, COVARIATES)


@pytest.fixture
def add(card, tmp_path):
    """``add(file, ...)``: add files as a period to the history ``h.json``."""
    return lambda *files, columns=COLUMNS, **options: add_period(
        card, tmp_path / "h.json", files, columns, **options
    )


def periods(tmp_path):
    return [period.period for period in read_history(tmp_path / "h.json")]


def test_other_rows_under_one_name_are_refused(add, tmp_path):
    """Months in folders, a file that each month overwrites, and a pattern replaced the month before."""
    add(month(tmp_path / "a" / "x.csv", 1))
    before = (tmp_path / "h.json").read_bytes()
    for file in (tmp_path / "b" / "x.csv", tmp_path / "a" / "x.csv"):
        with pytest.raises(InputError, match="Pass --period with a new name"):
            add(month(file, 2))
    assert (tmp_path / "h.json").read_bytes() == before
    add(tmp_path / "b" / "x.csv", name="2026-02")
    month(tmp_path / "c" / "1.csv", 3)
    add(tmp_path / "c" / "*.csv", name="2026-03")
    month(tmp_path / "c" / "2.csv", 4)
    with pytest.raises(InputError, match="with the same content as a file of '2026-03'"):
        add(tmp_path / "c" / "*.csv")
    # By its name a month is replaced.
    add(tmp_path / "c" / "*.csv", name="2026-03")
    assert periods(tmp_path) == ["x", "2026-02", "2026-03"]


def test_same_content_is_one_period_in_any_storage(add, tmp_path):
    first = month(tmp_path / "2026-01.csv", 1)
    text = first.read_bytes()
    add(first)
    add(month(tmp_path / "2026-02.csv", 2))
    copies = {
        "packed.csv.gz": gzip.compress(text),
        "dos.csv": text.replace(b"\n", b"\r\n"),
        "marked.csv": b"\xef\xbb\xbf" + text.rstrip(b"\n"),
        "mac.csv": text.replace(b"\n", b"\r"),
    }
    for name, content in copies.items():
        (tmp_path / name).write_bytes(content)
        add(tmp_path / name)
        with pytest.raises(InputError, match="with the same content as a file of '2026-01'"):
            add(tmp_path / name, name="2026-03")
    assert periods(tmp_path) == ["2026-01", "2026-02"]
    with pytest.raises(InputError, match="in only one period of a history, and only once"):
        add(tmp_path / "dos.csv", tmp_path / "packed.csv.gz")


def test_a_state_counts_no_copy_of_a_file(card, tmp_path):
    text = month(tmp_path / "a.csv", 1).read_bytes()
    (tmp_path / "b.csv.gz").write_bytes(gzip.compress(text.replace(b"\n", b"\r\n")))
    options = {"columns": COLUMNS, "state": tmp_path / "s.json"}
    monitor(card, [tmp_path / "a.csv"], **options)
    with pytest.raises(InputError, match="each file must be new to the state"):
        monitor(card, [tmp_path / "b.csv.gz"], **options)


def test_standard_input_needs_a_name(tmp_path):
    file = month(tmp_path / "in.csv", 1)
    with pytest.raises(InputError, match="Pass --period"):
        PeriodHistory(tmp_path / "h.json", ["-"], [file])


def test_a_history_of_before_is_not_replaced_unasked(add, tmp_path):
    """It holds paths alone, which say nothing of the rows."""
    file = month(tmp_path / "2026-01.csv", 1)
    add(file)
    content = json.loads((tmp_path / "h.json").read_text())
    del content["periods"][0]["contents"]
    (tmp_path / "h.json").write_text(json.dumps(content))
    with pytest.raises(
        InputError, match="the name of a period must be new, because its files differ"
    ):
        add(file)
    add(file, name="2026-01")
    add(file)
    assert periods(tmp_path) == ["2026-01"]


def watch(card, folder, number, together):
    """Add a month at the same time as others do."""
    history, state = folder / "h.json", folder / "s.json"
    together.wait()
    with lock_files(state, history):
        add_period(card, history, [folder / f"{number}.csv"], COLUMNS, state=state)


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


def test_an_error_leaves_history_and_state(add, tmp_path, monkeypatch):
    """The state had moved on, so that the month could never be added."""
    state, history = tmp_path / "s.json", tmp_path / "h.json"
    add(month(tmp_path / "1.csv", 1), state=state)
    before = state.read_bytes(), history.read_bytes()

    second = month(tmp_path / "2.csv", 2)
    fsync, calls = os.fsync, []

    def fail_at_second(handle):
        calls.append(handle)
        if len(calls) == 2:
            raise OSError(28, "No space left on device")
        return fsync(handle)

    monkeypatch.setattr("os.fsync", fail_at_second)
    with pytest.raises(InputError, match="No space left"):
        add(second, state=state)
    monkeypatch.undo()
    assert (state.read_bytes(), history.read_bytes()) == before
    add(second, state=state)
    assert periods(tmp_path) == ["1", "2"]


def test_card_statistics_override_those_in_history(add, tmp_path):
    """A history with another first month silenced the drift that the card shows."""
    add(month(tmp_path / "1.csv", 1), columns=COVARIATES)
    moved = month(tmp_path / "2.csv", 2, moved=2.0)
    content = json.loads((tmp_path / "h.json").read_text())
    for part in ("columns", "columns_of_card"):
        content["periods"][0][part]["age"]["mean"] = 70.0
    (tmp_path / "h.json").write_text(json.dumps(content))
    assert add(moved, columns=COVARIATES)[0][0].startswith("age moved by +")
    del content["periods"][0]["columns_of_card"]
    (tmp_path / "h.json").write_text(json.dumps(content))
    assert add(moved, columns=COVARIATES)[0]


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no such names")
def test_no_name_of_a_file_controls_a_page(add, tmp_path):
    names = [os.fsdecode(b"a\x1b[2J\xff.csv"), "b\u202e<b>.csv"]
    for seed, name in enumerate(names):
        add(month(tmp_path / name, seed))
    add(month(tmp_path / "c.csv", 3), name="\x1b[31m2026")
    assert periods(tmp_path) == ["a\\x1b[2J\\udcff", "b\\u202e<b>", "\\x1b[31m2026"]
    page = history_page(read_history(tmp_path / "h.json"))
    assert "a\\x1b[2J\\udcff" in page
    assert [text for text in ("\x1b", "\u202e", "<b>") if text in page] == []


def test_a_quiet_mean_outside_its_interval_is_explained(card, tmp_path):
    """Classes were quiet at 24.50 %, and 24.83 to 35.33 % on the card."""
    content = monitor(card, [month(tmp_path / "1.csv", 1)], columns=COLUMNS).content
    leading = content["watches"]["events"]["statistics"][0]
    leading["live"] = leading["low"] - 0.003
    assert explanatory_notes(content)[0].startswith(
        "Quiet, though outside: events. So few live samples"
    )
    leading["live"] = leading["low"]
    assert not explanatory_notes(content)[0].startswith("Quiet")


def test_wide_history_plots_only_drifted_columns(add, tmp_path):
    """A page of 1,000 columns took 43 seconds."""
    add(month(tmp_path / "1.csv", 1), columns=COVARIATES)
    (period,) = read_history(tmp_path / "h.json")
    age = period.columns["age"]
    many = {f"x{k}": age for k in range(40)}
    moved = {**many, "x30": {**age, "mean": age["mean"] + 2 * age["sd"]}}
    page = history_page([replace(period, columns=moved, columns_of_card=many)])
    assert page.count("mean of x") == 24
    assert "mean of x30 by period" in page
    assert "16 more are watched and not drawn" in page


def places(content, path=()):
    """Yield the place of every value in JSON."""
    inner = content.items() if isinstance(content, dict) else enumerate(content)
    for key, value in inner:
        yield (*path, key)
        if isinstance(value, dict | list):
            yield from places(value, (*path, key))


VALUES = [None, "x", "", -1, 0.5, 1e300, 2**70, True, [], {}, [None], {"a": 1}, ...]


MUTATIONS = int(os.environ.get("FEDLAS_MUTATIONS", "24"))


def test_a_damaged_history_is_refused_or_read(add, tmp_path):
    """Three of ten mutations were a traceback, and one more could silence the drift."""
    add(month(tmp_path / "1.csv", 1), columns=COVARIATES)
    text = (tmp_path / "h.json").read_text()
    moved = month(tmp_path / "2.csv", 2, moved=2.0)
    chosen = random.Random(0)
    answers = set()
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
        try:
            drifts, _ = add(moved, columns=COVARIATES)
        except InputError:
            answers.add("refused")
        else:
            assert drifts, (place, value)
            answers.add("read")
    assert answers == {"read", "refused"}
