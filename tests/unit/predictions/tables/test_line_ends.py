"""Every row of a text file is read, however its lines end: a file of several sources has several ends."""

import csv
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import fedlas
from fedlas.calibrated import apply_to_files
from fedlas.errors import InputError
from fedlas.predictions.tables.formats import lines

COLUMNS = {"probs": "p_*", "target": "y"}
HEADER = "id,p_a,p_b,y"
ENDS = st.sampled_from(["\n", "\r\n", "\r", "\r\r\n", "\n\n", "\r\n\r"])


def rows_of(count):
    random = np.random.default_rng(count)
    probs = random.uniform(0.05, 0.95, count).round(6)
    labels = np.where(random.random(count) < probs, "a", "b")
    return [
        f"{k:03d},{p},{round(1 - p, 6)},{y}"
        for k, (p, y) in enumerate(zip(probs, labels, strict=True))
    ]


def joined(rows, ends):
    return "".join(row + ends[k % len(ends)] for k, row in enumerate(rows)).encode()


@pytest.fixture(scope="module")
def calibration(tmp_path_factory):
    path = tmp_path_factory.mktemp("fit") / "val.csv"
    path.write_bytes(joined([HEADER, *rows_of(400)], "\n"))
    return fedlas.calibrate(path, **COLUMNS, method="temperature")


@settings(max_examples=60, deadline=None)
@given(st.lists(ENDS, min_size=1, max_size=7), st.sampled_from([30, 97, 4096]), st.booleans())
def test_each_line_of_a_csv_is_a_row(calibration, tmp_path_factory, ends, block, is_closed):
    folder = tmp_path_factory.mktemp("ends")
    rows = rows_of(20)
    content = joined([HEADER, *rows], ends)
    (folder / "t.csv").write_bytes(content if is_closed else content.rstrip(b"\r\n"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lines, "BYTES", block)
        predictions = fedlas.read_predictions(folder / "t.csv", **COLUMNS).predictions
        done = apply_to_files(calibration, [folder / "t.csv"], folder / "out.csv")
    wanted = [row.split(",") for row in rows]
    np.testing.assert_allclose(predictions.tensors().probs[:, 0], [float(row[1]) for row in wanted])
    assert done.rows == 20
    with (folder / "out.csv").open(newline="") as file:
        header, *got = (row for row in csv.reader(file) if row)
    assert header == [*HEADER.split(","), "calibrated_p_a", "calibrated_p_b"]
    assert [row[:4] for row in got] == wanted
    order = np.argsort([float(row[1]) for row in wanted], kind="stable")
    assert (np.diff(np.array([float(row[4]) for row in got])[order]) >= 0).all()


@settings(max_examples=30, deadline=None)
@given(st.lists(ENDS, min_size=1, max_size=7), st.sampled_from([30, 97, 4096]))
def test_each_line_of_json_is_a_row(calibration, tmp_path_factory, ends, block):
    folder = tmp_path_factory.mktemp("ends")
    rows = [dict(zip(HEADER.split(","), row.split(","), strict=True)) for row in rows_of(15)]
    rows = [row | {"p_a": float(row["p_a"]), "p_b": float(row["p_b"])} for row in rows]
    (folder / "t.jsonl").write_bytes(joined(map(json.dumps, rows), ends))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lines, "BYTES", block)
        assert fedlas.read_predictions(folder / "t.jsonl", **COLUMNS).predictions.num_samples == 15
        apply_to_files(calibration, [folder / "t.jsonl"], folder / "out.jsonl")
    got = [json.loads(line) for line in (folder / "out.jsonl").read_text().split("\n") if line]
    assert [{name: row[name] for name in rows[0]} for row in got] == rows


def test_a_fit_reads_each_line(tmp_path, monkeypatch):
    monkeypatch.setattr(lines, "BYTES", 30)
    ends = ["\n", "\r\n", "\r", "\r\r\n", "\n\n", "\r\n\r"]
    (tmp_path / "t.csv").write_bytes(joined([HEADER, *rows_of(60)], ends))
    assert fedlas.calibrate(tmp_path / "t.csv", **COLUMNS, method="temperature").rows == 60


def test_two_files_put_together_lose_no_row(tmp_path):
    """``cat mac.csv unix.csv``: the first 500 rows counted as the header."""
    both, rows = tmp_path / "both.csv", rows_of(1000)
    both.write_bytes(joined([HEADER, *rows[:500]], "\r") + joined(rows[500:], "\n"))
    assert fedlas.read_predictions(both, **COLUMNS).predictions.num_samples == 1000
    fit = fedlas.calibrate(both, **COLUMNS, method="temperature")
    assert fit.rows == 1000
    assert apply_to_files(fit, [both], tmp_path / "out.csv").rows == 1000


def test_the_last_row_counts_however_short_it_is(tmp_path):
    (tmp_path / "t.csv").write_text("p\n0.5\n1")
    read = fedlas.read_predictions(tmp_path / "t.csv", probs="p", labeled=False)
    assert read.predictions.num_samples == 2


def test_a_header_in_the_middle_names_its_row(tmp_path):
    (tmp_path / "t.csv").write_bytes(joined([HEADER, *rows_of(3), HEADER, *rows_of(2)], "\r"))
    with pytest.raises(InputError, match="'p_a' in row 4"):
        fedlas.read_predictions(tmp_path / "t.csv", **COLUMNS)
