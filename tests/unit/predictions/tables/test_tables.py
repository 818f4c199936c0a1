"""What pyarrow would take amiss in a table, or say in other words."""

import json
import tracemalloc

import numpy as np
import pytest

from fedlas.errors import InputError, MissingExtraError
from fedlas.predictions import Columns, open_table, read_predictions

TWO = Columns(logits="a,b", target="y")
LISTS = Columns(logits="l", target="y")


@pytest.fixture
def table(tmp_path):
    """Writes a table, and reads it."""

    def read(name, content, columns=TWO):
        (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
        return read_predictions(tmp_path / name, columns)

    return read


def targets(read):
    return read.predictions.target.tolist()


def test_text_keeps_its_meaning(table):
    """Labels are not turned into numbers, dates or nothing on the way."""
    names = ("007", "nan")
    columns = Columns(logits="a,b", target="y", classes=names)
    assert targets(table("t.csv", "a,b,y\n1,2,nan\n1,2,007\n", columns)) == [1, 0]
    dates = Columns(logits="a,b", target="y", classes=("2020-01-01", "true"))
    lines = '{"a": 1, "b": 2, "y": "true"}\n{"a": 1.5, "b": 2, "y": "2020-01-01"}\n'
    assert targets(table("t.jsonl", lines, dates)) == [1, 0]


def test_what_people_write_in_a_csv(table):
    # BOM, empty lines
    assert targets(table("t.csv", b"\xef\xbb\xbfa,b,y\r\n\r\n1, 2,0\r\n\r\n+1,2e0,1\r\n")) == [0, 1]
    assert targets(
        table("t.csv", 'y,"a",b,said\n1,"1",2,"so, ""she"" said\nyesterday"\n0,1,2,5" by 4"\n')
    ) == [1, 0]
    assert targets(table("t.tsv", "a\tb\ty\tsaid\n1\t2\t1\ta, b\n")) == [1]
    assert targets(table("t.csv", "a,b,y,caf\xe9\n1,2,1,\xe9\n".encode())) == [1]


def test_thousands_of_columns(table, monkeypatch):
    monkeypatch.setattr("fedlas.predictions.tables.formats.lines.BYTES", 1000)  # less than a row
    names = [f"z_{number}" for number in range(3000)]
    rows = [",".join(map(str, range(start, start + 3000))) for start in range(3)]
    content = "\n".join([",".join([*names, "y"]), *(f"{row},2999" for row in rows)])
    read = table("wide.csv", content, Columns(logits="z_*", target="y"))
    assert read.predictions.tensors().logits[:, 2999].tolist() == [2999, 3000, 3001]
    assert targets(read) == [2999] * 3
    lines = [json.dumps({"l": list(range(start, start + 3000)), "y": 2999}) for start in range(3)]
    assert targets(table("wide.jsonl", "\n".join(lines), LISTS)) == [2999] * 3


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("a,b,y\n1,2,0\n\n1,2,0\n1,2,1,7\n", r"3 cells, like the header; got 4 in row 3 of t.csv\. Quote"),
        ("a,b,y\n1,2,0\n1,NA,0\n", r"scores must be numbers; got 'NA' in row 2, column 'b' of t.csv\. Write"),
        ("a,b,y\n1,2,x\n1,2,caf\xe9\n".encode("latin-1"), r"text must be UTF-8; got .* row 2, column 'y' of t.csv"),
        ("caf\xe9,b,y\n1,2,x\n".encode("latin-1"), r"must be a readable \.csv file; got .*must be UTF-8"),
        ("a,b,y\n1,2,0\n".encode("utf-16"), "must be UTF-8 text; got text in UTF-16, .*t.csv"),
        ('a,b,y,said\n1,2,0,"open\n1,2,1,this is lost\n', "every quote must be closed; got an open quote in t.csv"),
        ('a,b,y,said\n1,2,0,"open\n1,2,1,"lost"\n', "every quote must be closed; got an open quote in t.csv"),
        ('a,b,"y\n', r"must be a readable \.csv file"),
        ("a,b,y\n", "at least one row"),
        ("a,b,y", "at least one row"),
        ("a,b,y\n1,2,0\n1,inf,0\n", r"finite numbers; got inf in row 2, column 'b' of t.csv"),
    ],
)  # fmt: skip
def test_refusals_of_csv(content, message, table):
    with pytest.raises(InputError, match=message):
        table("t.csv", content)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (['{"a": 1, "b": 2, "y": 0}', "", '{"a": 1, "b": NaN, "y": 0}'], "no number in row 2, column 'b' of t.jsonl"),
        (['{"a": 1, "b": "2", "y": 0}', '{"a": 1, "b": "x", "y": 0}'], "no number in row 2, column 'b' of t.jsonl"),
        (['{"a": 1, "b": 2, "y": 0}', '{"a": 1, "b": 2, "y": 7}'], r"or a number from 0 to 1; got 7 in row 2"),
        (['{"a": 1, "b": 2, "y": 0}', '{"a": 1, "b": 2, "y": "u"}'], "a number from 0 to 1; got 'u' in row 2"),
        (['{"a": 1, "b": 2, "y": 0}', '{"a": 1, "b": 2}'], r"must have a label in column 'y'; got none in row 2"),
        (['{"a": 1, "b": 2, "y": null}', '{"a": 1, "b": 2, "y": "u"}'], "a label in column 'y'; got none in row 1"),
        (['{"a": null, "b": 2, "y": 0}', '{"a": "u", "b": 2, "y": 0}'], "no number in row 1, column 'a' of t.jsonl"),
        (['{"a": "1_1", "b": 2, "y": 0}'], "no number in row 1, column 'a' of t.jsonl"),
        (['{"a": 1, "b": true, "y": 0}'], "column 'b' must hold numbers; got bool in t.jsonl"),
        (['{"a": 1, "b": {"c": 1}, "y": 0}'], r"'b' must hold numbers; .* in row 1 .* inside the object: b\.c"),
        (['{"a": 1, "b": 2, "y": 0}', '{"a": 1, "b": '], r"must be a JSON object; got .* in row 2 of t.jsonl\. Write"),
        (['{"a": 1, "b": 2, "y": 0}', "[1, 2, 0]"], "must be a JSON object; got list in row 2"),
        (["[1, 2, 0]"], "must be a JSON object; got list in row 1"),
        (["a,b,y"], "must be a JSON object; got Expecting value.* in row 1"),
        ([""], "the first object must have keys; got none in row 1"),
    ],
)  # fmt: skip
def test_refusals_of_json_lines(lines, message, table):
    with pytest.raises(InputError, match=message):
        table("t.jsonl", "\n".join(lines) + "\n")


@pytest.mark.parametrize(
    ("lists", "message"),
    [
        (["[1, 2]", "[1]"], r"lists of column 'l' must all hold 2 numbers; got 1 in row 2 of t.jsonl"),
        (["[1, 2]", "null"], r"finite numbers; got no number in row 2, column 'l' of t.jsonl"),
        (["[1, 2]", "[1, null]"], r"finite numbers; got no number in row 2, column 'l', number 1 of t.jsonl"),
        (["[1, 2]", '[1, "x"]'], r"column 'l' must hold numbers; got 'x' in row 2"),
        (["[1, 2]", '[1, "NA"]'], r"got no number in row 2, column 'l', number 1"),
        (["[[1, 2]]"], r"column 'l' must hold numbers"),
    ],
)  # fmt: skip
def test_refusals_of_lists(lists, message, table):
    with pytest.raises(InputError, match=message):
        table("t.jsonl", "".join(f'{{"l": {one}, "y": 0}}\n' for one in lists), LISTS)


def test_rows_are_counted_over_blocks(table, monkeypatch):
    monkeypatch.setattr("fedlas.predictions.tables.formats.lines.BYTES", 200)
    with pytest.raises(InputError, match=r"must all hold 2 numbers; got 0 in row 41"):
        table("t.jsonl", '{"l": [1, 2], "y": 0}\n' * 40 + '{"l": 1, "y": 0}\n', LISTS)
    with pytest.raises(InputError, match="got 'x' in row 41, column 'b'"):
        table("t.csv", "a,b,y\n" + "1,2,0\n" * 40 + "1,x,0\n")
    with pytest.raises(InputError, match="got 2 in row 41"):
        table("t.csv", "a,b,y\n" + "1,2,0\n" * 40 + "1,2\n")
    # A column that holds whole numbers in the first block is not one of whole numbers.
    read = table("t.jsonl", '{"a": 1, "b": 2, "y": 0}\n' * 40 + '{"a": 1.5, "b": 2.5, "y": 1}\n')
    assert read.predictions.tensors().logits[-1].tolist() == [1.5, 2.5]


def test_deep_nesting_does_no_harm(table):
    deep = "[" * 50_000 + "]" * 50_000
    row = '{"a": 1, "b": 2, "y": 1}\n'
    assert targets(table("t.jsonl", row + row.replace("}", f', "z": {deep}}}'))) == [1, 1]
    with pytest.raises(InputError, match="nested too deeply in row 1"):
        table("t.jsonl", row.replace("}", f', "z": {deep}}}'))


def test_json_lines_that_pyarrow_does_not_read(table):
    """Python reads the block then: it takes labels of two kinds, and names the row of an error."""
    rows = ['{"a": 2, "b": 1, "y": 0}', '{"a": 1, "b": "2", "y": "1"}']
    read = table("t.jsonl", "\n".join([*rows, "  ", rows[0]]) + "\n")
    assert read.predictions.tensors().logits[1].tolist() == [1, 2]
    assert targets(read) == [0, 1, 0]
    with pytest.raises(InputError, match=r"JSON object; got 'utf-8' codec.* in row 2 of t.jsonl"):
        table("t.jsonl", f'{rows[0]}\n{rows[1][:-2]}\xe9"}}\n'.encode("latin-1"))


def test_parquet_of_other_types(table, tmp_path):
    pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    scores = pyarrow.array([[1.0, 2.0], [3.0, 4.0]], pyarrow.list_(pyarrow.float32(), 2))
    labels = pyarrow.array(["u", "v"]).dictionary_encode()
    parquet.write_table(
        pyarrow.table({"l": scores, "y": labels, "a.b": [1, None]}), tmp_path / "t.parquet"
    )
    read = read_predictions(
        tmp_path / "t.parquet", Columns(logits="l", target="y", classes=("v", "u"))
    )
    assert read.predictions.logits.tolist() == [[1, 2], [3, 4]]
    assert str(read.predictions.tensors().logits.dtype) == "torch.float32"
    assert targets(read) == [1, 0]
    with pytest.raises(InputError, match=r"no number in row 2, column 'a.b'"):
        list(open_table(tmp_path / "t.parquet", Columns(logits="a.b")).blocks())


def test_without_pyarrow_the_extra_is_named(table, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    for name, content in (
        ("t.csv", "a,b,y\n1,2,0\n"),
        ("t.jsonl", json.dumps({"a": 1, "b": 2, "y": 0})),
    ):
        with pytest.raises(MissingExtraError, match=r"fedlas\[tables\]"):
            table(name, content)


@pytest.mark.parametrize("kind", ["rows", "lists", "texts"])
def test_parquet_decompression_bomb_is_refused(tmp_path, monkeypatch, kind):
    pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    path, rows = tmp_path / "t.parquet", 10**6 if kind == "rows" else 1
    zeros = pyarrow.array(np.zeros(10**6))
    scores = pyarrow.ListArray.from_arrays([0, 10**6], zeros) if kind == "lists" else zeros[:rows]
    target = ["x" * 10**7] if kind == "texts" else np.zeros(rows, dtype=np.int64)
    parquet.write_table(
        pyarrow.table({"a": scores, "b": zeros[:rows], "y": target}), path, compression="zstd"
    )
    monkeypatch.setattr("fedlas.predictions.tables.formats.parquet._FREE", 2**20)
    with pytest.raises(InputError, match=r"1,000 times .*got [\d,]+ bytes"):
        list(open_table(path, TWO if kind != "lists" else Columns(logits="a", target="y")).blocks())


def test_parquet_is_read_in_bounded_memory(tmp_path):
    pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    values = np.random.default_rng(0).normal(size=400_000)
    columns = pyarrow.table({"a": values, "b": values, "y": np.zeros(400_000, dtype=np.int64)})
    parquet.write_table(
        columns, tmp_path / "t.parquet", row_group_size=10_000, use_dictionary=False
    )
    before = pyarrow.total_allocated_bytes()
    most = max(
        pyarrow.total_allocated_bytes() - before
        for _ in open_table(tmp_path / "t.parquet", TWO).blocks()
    )
    assert most < 0.5 * (tmp_path / "t.parquet").stat().st_size


def test_long_dictionary_label_is_shared_and_shortened(tmp_path):
    pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    label = pyarrow.DictionaryArray.from_arrays(np.zeros(5000, dtype=np.int32), ["x" * 10**6])
    numbers = np.random.default_rng(0).normal(size=5000)
    parquet.write_table(
        pyarrow.table({"a": numbers, "b": numbers, "y": label}), tmp_path / "t.parquet"
    )
    tracemalloc.start()
    with pytest.raises(InputError, match="x…") as caught:
        read_predictions(tmp_path / "t.parquet", TWO)
    assert tracemalloc.get_traced_memory()[1] < 10**8
    tracemalloc.stop()
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a,b,y\n1,2," + "x" * 3_000_000 + "\n", "1 MiB.* quote"),
        ("a,b," + "y" * 200_000 + "\n1,2,0\n", "131,072 characters"),
    ],
)
def test_long_cells_name_the_right_remedy(table, text, message):
    with pytest.raises(InputError, match=message):
        table("t.csv", text)


def test_header_of_another_encoding_is_named(tmp_path):
    """It said that the codec cannot encode a surrogate, which the user never wrote."""
    (tmp_path / "t.csv").write_bytes("p,straße,y\n0.5,1,0\n".encode("latin-1"))
    with pytest.raises(InputError, match=r"column names are not UTF-8"):
        read_predictions(tmp_path / "t.csv", Columns(probs="p", target="y"))


@pytest.mark.parametrize("cell", ["1" * 100_000, f"0,1{' ' * 100_000}x", f"0.1{' ' * 100_000}x"])
def test_percent_sign_detection_takes_linear_time(table, cell):
    """Each way to share out the digits or blanks was tried: hours for a file of 26 MB."""
    with pytest.raises(InputError, match="must be"):
        table("t.csv", f"a;b;y\n{cell};0.5;0\n")


def varint(number, length=0):
    """A number as Thrift writes it, padded to a length."""
    out = bytearray()
    while number > 127 or len(out) + 1 < length:
        out.append(number & 127 | 128)
        number >>= 7
    return bytes([*out, number])


@pytest.mark.parametrize("claim", ["values", "pages"])
def test_parquet_footer_with_false_size_is_refused(tmp_path, claim):
    """A list of 30 million equal values takes 900 bytes; its footer says that there are five."""
    pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    path, many = tmp_path / "t.parquet", 3 * 10**7
    scores = pyarrow.ListArray.from_arrays([0, many], pyarrow.array(np.zeros(many)))
    parquet.write_table(
        pyarrow.table({"a": scores, "y": [0]}), path, compression="zstd", data_page_size=2**30
    )
    content = path.read_bytes()
    size = int.from_bytes(content[-8:-4], "little")
    body, footer = content[: -8 - size], content[-8 - size : -8]
    true = varint(2 * many)
    assert true in footer
    if claim == "values":
        footer = footer.replace(true, varint(10, len(true)))
    else:  # a page of a negative size
        body = body.replace(true, varint(2 * many - 1))
    path.write_bytes(body + footer + content[-8:])
    with pytest.raises(InputError, match=r"1,000 times|negative"):
        read_predictions(path, Columns(logits="a", target="y"))
