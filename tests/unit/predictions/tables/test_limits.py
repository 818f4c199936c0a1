"""Text that unpacks to far more than its size, or has a line without end, takes little memory whatever reads it."""

import gzip
import tracemalloc
from contextlib import suppress

import pytest

import fedlas
from fedlas.cli import main
from fedlas.errors import InputError

pyarrow = pytest.importorskip("pyarrow")
MIB = 2**20
PACK = {
    ".gz": gzip.compress,
    ".zst": lambda text: pyarrow.compress(text, codec="zstd", asbytes=True),
}
CSV = b"p,y\n0.9,1\n0.2,0\n"
JSON = b'{"p": 0.9, "y": 1}\n{"p": 0.2, "y": 0}\n'
# What a file begins with, and a mebibyte that follows again and again.
LONG = {
    ".csv": {
        "rows": (CSV, b"0.5,1\n0.7,0\n" * (MIB // 12)),
        "a cell of the header": (b"", b"a" * MIB),
        "names of the header": (b"", b"a," * (MIB // 2)),
        "a quoted name": (b'"', b"a\n" * (MIB // 2)),
        "a cell": (CSV + b"0.5,", b"1" * MIB),
        "blank lines": (b"", b" \n" * (MIB // 2)),
    },
    ".jsonl": {
        "rows": (JSON, b'{"p":0.5,"y":1}\n' * (MIB // 16)),
        "brackets": (b"", b"[" * MIB),
        "brackets of a later row": (JSON, b"[" * MIB),
        "a key": (b'{"', b"a" * MIB),
        "a text": (JSON + b'{"p":0.5,"y":"', b"a" * MIB),
    },
}
CASES = [(end, what) for end, texts in LONG.items() for what in texts]


def peak_of(read):
    """Bytes that a call takes at most: those of Python, or of Arrow."""
    pool = pyarrow.default_memory_pool()
    before = max(pool.max_memory(), pool.bytes_allocated())
    tracemalloc.start()
    try:
        with suppress(InputError):
            read()
        return max(tracemalloc.get_traced_memory()[1], pool.max_memory() - before)
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("packed", PACK)
@pytest.mark.parametrize(("end", "what"), CASES)
def test_a_packed_file_that_grows_is_refused(end, what, packed, tmp_path):
    """30 kB became 4 GB."""
    head, again = LONG[end][what]
    path = tmp_path / f"bomb{end}{packed}"
    path.write_bytes(PACK[packed](head) + PACK[packed](again) * 40)
    assert path.stat().st_size < 64 * MIB / 100
    limits = "ratio of a file must be at most 100|must be shorter than|must be at most 1 MiB|larger than field limit"
    with pytest.raises(InputError, match=limits):
        fedlas.read_predictions(path, probs="p", target="y")


@pytest.mark.parametrize(
    ("end", "head"),
    [
        (".csv", b"a" * 64),
        (".csv", CSV + b"0.5,"),
        (".csv", CSV * 500 + b"0.5,"),
        (".jsonl", b'{"' + b"a" * 64),
        (".jsonl", JSON + b'{"p": "' + b"a" * 64),
        (".jsonl", JSON * 600 + b"[" * 64),
    ],
)
def test_a_line_without_end_takes_a_bounded_memory(end, head, tmp_path):
    path = tmp_path / f"long{end}"
    path.write_bytes(head)
    with path.open("r+b") as file:
        file.truncate(1024 * MIB)  # a hole, which takes no room on the disk

    def read():
        fedlas.read_predictions(path, probs="p", target="y")

    assert peak_of(read) < 700 * MIB


def test_a_packed_file_of_common_content_is_read(tmp_path):
    text = CSV + b"".join(b"0.%06d,%d\n" % (n * 7919 % 10**6, n % 2) for n in range(2 * 10**5))
    for name, pack in PACK.items():
        path = tmp_path / f"a.csv{name}"
        path.write_bytes(pack(text))
        table = fedlas.read_predictions(path, probs="p", target="y")
        assert len(table.predictions.target) == 2 * 10**5 + 2


def test_apply_refuses_more_columns_than_it_can_write(tmp_path, capsys):
    names = [f"c{number}" for number in range(100_000)]
    (tmp_path / "wide.csv").write_text(f"p,y,{','.join(names)}\n0.9,1{',5' * len(names)}\n")
    frame = {"p": [0.9, 0.8, 0.2, 0.4] * 50, "y": [1, 0, 0, 1] * 50}
    calibration = fedlas.calibrate(frame, probs="p", target="y", method="temperature")
    calibration.save(tmp_path / "cal.json")
    words = ["apply", str(tmp_path / "cal.json"), str(tmp_path / "wide.csv")]
    assert main([*words, "--out", str(tmp_path / "out.csv")]) == 2
    assert "at most 100,000 columns; got 100,002 in wide.csv" in capsys.readouterr().err
    assert not (tmp_path / "out.csv").exists()
