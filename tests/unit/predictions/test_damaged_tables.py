"""Damaged files and ambiguous ones are refused; our own bugs are not shown as a damaged file."""

import json
from contextlib import suppress

import numpy as np
import pytest

import fedlas
from fedlas.calibrated import apply_to_files
from fedlas.errors import InputError

pyarrow = pytest.importorskip("pyarrow")
NAMED = {"probs": "p", "target": "y"}


def read(path):
    return fedlas.read_predictions(path, **NAMED)


@pytest.mark.parametrize("end", [".csv", ".jsonl", ".parquet"])
@pytest.mark.parametrize("kind", [TypeError, KeyError, AttributeError])
def test_our_own_bug_is_no_damaged_file(end, kind, tmp_path, monkeypatch):
    path = tmp_path / f"a{end}"
    if end == ".parquet":
        from pyarrow import parquet

        parquet.write_table(pyarrow.table({"p": [0.9, 0.2], "y": [1, 0]}), path)
    else:
        rows = ["p,y", "0.9,1", "0.2,0"] if end == ".csv" else ['{"p": 0.9, "y": 1}'] * 2
        path.write_text("\n".join(rows))

    def fails(*_):
        raise kind("a bug")

    monkeypatch.setattr("fedlas.predictions.tables.cells.TableChunk.slice_rows", fails)
    with pytest.raises(kind, match="a bug"):
        read(path)


@pytest.mark.parametrize("seed", range(4))
def test_any_damage_of_parquet_is_refused_or_read(seed, tmp_path):
    from pyarrow import parquet

    path = tmp_path / "a.parquet"
    parquet.write_table(pyarrow.table({"p": [0.9, 0.2] * 50, "y": [1, 0] * 50}), path)
    whole = path.read_bytes()
    rng = np.random.default_rng(seed)
    for _ in range(60):
        content = bytearray(whole)
        for place in rng.integers(4, len(whole), 3):
            content[place] = rng.integers(256)
        path.write_bytes(bytes(content))
        with suppress(InputError):
            read(path)


@pytest.mark.parametrize("line", ["[1, 2]", "3", '"text"'])
def test_error_names_type_of_non_object_line(line, tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text(f'{{"p": 0.9, "y": 1}}\n{line}\n')
    kind = type(json.loads(line)).__name__
    with pytest.raises(InputError, match=rf"a JSON object; got {kind} in row 2 of a\.jsonl"):
        read(path)


@pytest.mark.parametrize("name", ["p", "r.q"])
def test_a_field_that_nobody_reads_may_be_nan(name, tmp_path):
    """Python's json writes NaN; only scores must be numbers."""
    path = tmp_path / "a.jsonl"
    path.write_text('{"p": 0.9, "r": {"q": 0.9}, "y": 1, "note": NaN}\n' * 3)
    assert len(fedlas.read_predictions(path, probs=name, target="y").predictions.target) == 3


def test_a_path_that_two_shapes_answer_is_refused(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"r.p": 0.9, "r": {"p": 0.1}, "y": 1}\n' * 4)
    with pytest.raises(InputError, match=r"must lead to one value.*'r\.p'"):
        fedlas.read_predictions(path, probs="r.p", target="y")
    path.write_text('{"r": {"p": 0.9}, "y": 1}\n{"r": {"p": 0.2}, "y": 0}\n')
    assert fedlas.read_predictions(path, probs="r.p", target="y").predictions.num_classes == 2


def test_folders_of_a_pattern_of_csv_are_columns(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for month in ("11", "12"):
        folder = tmp_path / "year=2026" / f"month={month}"
        folder.mkdir(parents=True)
        (folder / "a.csv").write_text("p,y\n" + "0.9,1\n0.3,0\n0.2,0\n0.4,1\n0.6,0\n" * 30)
    pattern = "year=*/*/*.csv"
    fit = fedlas.calibrate(pattern, **NAMED, groups="month")
    apply_to_files(fit, [pattern], "out.csv")
    rows = (tmp_path / "out.csv").read_text().splitlines()
    assert rows[0] == "p,y,year,month,calibrated_p"
    assert [row.split(",")[2:4] for row in rows[1:]] == [["2026", "11"]] * 150 + [
        ["2026", "12"]
    ] * 150
    # a single file's path says nothing of its rows
    with pytest.raises(InputError, match=r"must name a column of a\.csv; got 'month'"):
        fedlas.calibrate("year=2026/month=11/a.csv", **NAMED, groups="month")
