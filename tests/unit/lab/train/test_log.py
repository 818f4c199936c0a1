import pytest

from fedlas.errors import InputError
from fedlas.lab.train import read_log
from fedlas.lab.train.log import append_log, truncate_log


def test_round_trip_and_truncation(tmp_path):
    path = tmp_path / "log.jsonl"
    assert read_log(path) == []
    for epoch in (1, 2, 3):
        append_log(path, {"epoch": epoch, "val": {"ece": epoch / 10}})
    assert [r["epoch"] for r in read_log(path)] == [1, 2, 3]
    assert (
        truncate_log(path, 2)
        == read_log(path)
        == [{"epoch": e, "val": {"ece": e / 10}} for e in (1, 2)]
    )
    assert truncate_log(path, 0) == []


@pytest.mark.parametrize(
    "tail",
    [
        b'{"epoch": 2, "val',
        b"\xff\xfe",
        b"[]\n",
        b'{"no": "epoch"}\n',
        b"\n",
        b"[" * 10**5,
        b"1" * 5000,
    ],
)
def test_incomplete_line_is_dropped_and_overwritten(tmp_path, tail):
    path = tmp_path / "log.jsonl"
    append_log(path, {"epoch": 1})
    with path.open("ab") as file:
        file.write(tail)
    assert read_log(path) == [{"epoch": 1}]
    truncate_log(path, 5)
    append_log(path, {"epoch": 2})
    assert read_log(path) == [{"epoch": 1}, {"epoch": 2}]


def test_cannot_be_written(tmp_path):
    with pytest.raises(InputError, match="output folder"):
        append_log(tmp_path, {"epoch": 1})


def test_full_disk_leaves_no_half_line(tmp_path, full_disk):
    path = tmp_path / "log.jsonl"
    append_log(path, {"epoch": 1})
    before = path.read_text()
    with (
        full_disk(len(before) + 10),
        pytest.raises(InputError, match=r"log\.jsonl \(File too large\)"),
    ):
        append_log(path, {"epoch": 2, "val": {"ece": 0.125}})
    assert path.read_text() == before
    with full_disk(5), pytest.raises(InputError, match="File too large"):
        append_log(tmp_path / "new.jsonl", {"epoch": 1})
    assert not (tmp_path / "new.jsonl").exists()
