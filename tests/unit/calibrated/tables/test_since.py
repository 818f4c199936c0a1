"""A monthly job calibrates on the files of a date or later."""

import pytest

from fedlas.calibrated import files_since
from fedlas.errors import InputError


def test_files_by_the_date_in_their_names(tmp_path):
    for name in ("2026-04.csv", "2026-05.csv", "20260601.csv", "year=2026/month=7/part-0.csv"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("")
    late = files_since([str(tmp_path)], "2026-05")
    assert [str(file.path.relative_to(tmp_path)) for file in late] == [
        "2026-05.csv", "20260601.csv", "year=2026/month=7/part-0.csv",
    ]  # fmt: skip
    assert late[2].partition == {"year": "2026", "month": "7"}
    late = files_since([f"{tmp_path}/2026-*.csv"], "2026")
    assert [file.path.name for file in late] == ["2026-04.csv", "2026-05.csv"]
    for since, match in (("May", "a valid year, quarter, month or day"), ("2027", "2027 or later")):
        with pytest.raises(InputError, match=match):
            files_since([str(tmp_path)], since)
    (tmp_path / "val.csv").write_text("")
    with pytest.raises(InputError, match="a valid date in its name"):
        files_since([f"{tmp_path}/val.csv"], "2026")


def test_date_in_file_name_precedes_folder_date(tmp_path):
    (tmp_path / "export-2026-11-30").mkdir()
    (tmp_path / "export-2026-11-30" / "2025-03.csv").write_text("")
    assert len(files_since([str(tmp_path)], "2025-03")) == 1
    with pytest.raises(InputError, match="2025-04 or later"):
        files_since([str(tmp_path)], "2025-04")


@pytest.mark.parametrize(
    "name",
    [
        "scores_2026_07.csv",
        "2026.08.csv",
        "2026-9.csv",
        "2026Q4.csv",
        "2026-q3.csv",
        "x_2026_6_1.csv.gz",
        "2027.csv",
        "year=2026/month=5/part-20250101.parquet",
        "year=2026/2026-06.csv",
    ],
)
def test_a_later_date_counts_however_it_is_written(tmp_path, name):
    """Months of one digit, other separators and quarters were left out without a word."""
    for each in (name, "2026-04.csv", "2025.csv", "2026Q1.csv"):
        (tmp_path / each).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / each).write_text("")
    late = files_since([str(tmp_path)], "2026-05")
    assert [str(file.path.relative_to(tmp_path)) for file in late] == [name]


@pytest.mark.parametrize(
    ("name", "since", "message"),
    [
        (
            "2026.csv",
            "2026-05",
            "must be as precise as --since; got .*2026.csv, whose period contains 2026-05",
        ),
        ("2026Q2.csv", "2026-05", "as precise"),
        ("2026-05.csv", "2026-05-02", "as precise"),
        ("2026-13.csv", "2026-05", "as precise"),
        ("2026-02-30.csv", "2026", "a valid date in its name"),
        ("year=2026/month=13/a.csv", "2026", "a valid date in its name"),
        ("2026-05.csv", "2026-02-30", "--since must be a valid .*; got '2026-02-30'"),
        ("2026-05.csv", "2026-05.csv", "--since must be"),
    ],
)
def test_a_file_of_unclear_date_is_refused(tmp_path, name, since, message):
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / name).write_text("")
    with pytest.raises(InputError, match=message):
        files_since([str(tmp_path)], since)
