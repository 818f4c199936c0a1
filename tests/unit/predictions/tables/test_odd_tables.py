"""Tables that are hostile, damaged or in another form than their name says: refused in words that help."""

import gzip
import json

import numpy as np
import pytest
import torch

from fedlas import Predictions
from fedlas.errors import InputError
from fedlas.predictions import Columns, read_predictions
from fedlas.stats import group_estimates

TWO = {"logits": "a,b", "target": "y"}
ROWS = {"a": [1.0, 2.0], "b": [2.0, 1.0], "y": [1, 0]}


@pytest.fixture
def arrow():
    return pytest.importorskip("pyarrow")


@pytest.fixture
def written(tmp_path, arrow):
    """Writes a Parquet file that lacks hints for readers."""
    parquet = pytest.importorskip("pyarrow.parquet")
    path = tmp_path / "t.parquet"
    options = {"compression": "zstd", "write_statistics": False, "dictionary_pagesize_limit": 2**30}

    def write(columns, **others):
        parquet.write_table(arrow.table(columns), path, store_schema=False, **options, **others)
        return path

    return write


def test_list_column_with_dotted_name_is_read(written, arrow):
    """900 bytes took 3.6 GB: the parts of a path were compared with the name."""
    zeros = arrow.array(np.zeros(2 * 10**7, dtype=np.float32))
    path = written(
        {"a.b": arrow.ListArray.from_arrays([0, len(zeros)], zeros), "y": ["u"]},
        data_page_size=2**30,
    )
    with pytest.raises(InputError, match="at most 1,000 times"):
        read_predictions(path, logits="a.b", target="y")


@pytest.mark.parametrize(
    "columns", [{"logits": "a,b", "target": "y"}, {"logits": "a,y", "target": "b"}]
)
def test_a_long_text_of_a_dictionary_is_refused(written, arrow, columns):
    """As a score it was repeated in every row: 8 GB of a file of 2 kB."""
    text = arrow.DictionaryArray.from_arrays(np.zeros(4096, dtype=np.int32), ["x" * 2_000_000])
    path = written({"a": np.zeros(4096), "b": np.zeros(4096), "y": text})
    with pytest.raises(InputError, match="at most 1 MiB; got 2,000,000 bytes"):
        read_predictions(path, **columns)


def test_a_name_has_a_thousand_characters_at_most(written, arrow):
    """NumPy padded 4,096 names of 300 kB to 5 GB."""
    names = arrow.DictionaryArray.from_arrays(np.zeros(4096, dtype=np.int32), ["x" * 1001])
    path = written({"c": np.zeros(4096), "ok": np.zeros(4096, dtype=int), "g": names})
    with pytest.raises(
        InputError, match=r"column 'g' must have at most 1,000 characters; got 1,001 in row 1"
    ):
        read_predictions(path, confidence="c", correct="ok", groups="g")


def test_names_of_groups_are_not_padded(monkeypatch):
    """One long name among many short ones would take the memory of as many long ones."""
    dtypes = []
    unique = np.unique
    monkeypatch.setattr(
        np,
        "unique",
        lambda values, **options: dtypes.append(values.dtype) or unique(values, **options),
    )
    groups = ["a" * 1000, "b", "b", "b"]
    top = Predictions(np.eye(4)[:, :2], [0, 1, 0, 0])
    assert set(group_estimates(top, groups, replicates=0)) == set(groups)
    assert set(dtypes) == {np.dtype(object)}


def test_a_damaged_footer_does_not_end_the_process(written):
    """pyarrow aborts where it is asked for the sizes of a column whose histogram of levels has a wrong length."""
    path = written({"l": np.ones((50, 3)).tolist(), "y": [0] * 50})
    content = path.read_bytes()
    outcomes = set()
    for place in range(
        len(content) - 8 - int.from_bytes(content[-8:-4], "little"), len(content), 3
    ):
        path.write_bytes(content[:place] + bytes([content[place] ^ 24]) + content[place + 1 :])
        try:
            outcomes.add(read_predictions(path, logits="l", target="y").predictions.num_samples)
        except InputError:
            outcomes.add("refused")
    assert "refused" in outcomes


@pytest.mark.parametrize("labels", [[[1], [0]], [{"u": 1}, {"u": 0}]])
def test_parquet_labels_that_are_no_values(written, labels):
    with pytest.raises(InputError, match=r"column 'y' must|got \[1\] in row 1"):
        read_predictions(written(ROWS | {"y": labels}), **TWO)


def test_a_lazy_frame_is_collected():
    polars = pytest.importorskip("polars")
    lazy = polars.DataFrame(ROWS).lazy()
    assert read_predictions(lazy, **TWO).predictions.tensors().correct.all()
    assert Predictions.from_frame(lazy, **TWO).tensors().correct.all()


@pytest.mark.parametrize("value", [1.0, 1, np.array(1.0), torch.tensor(1.0), "text"])
@pytest.mark.parametrize("name", ["a", "y"])
def test_a_column_without_rows(value, name):
    with pytest.raises(InputError, match=f"column '{name}' must hold one value per row; got"):
        read_predictions(ROWS | {name: value}, **TWO)


def test_tensors_that_require_gradients():
    frame = {
        name: torch.tensor(values, dtype=torch.float64, requires_grad=True)
        for name, values in ROWS.items()
    }
    assert read_predictions(frame, **TWO).predictions.tensors().correct.all()
    half = {
        "a": torch.tensor([1.0, 2.0], dtype=torch.bfloat16),
        "b": torch.tensor([2.0, 1.0]),
        "y": [1, 0],
    }
    assert read_predictions(half, **TWO).predictions.tensors().correct.all()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("a,b,y\n1,2,0\n".encode("utf-16"), "text in UTF-16.*Save it as UTF-8"),
        ("a,b,y\n1,2,0\n".encode("utf-16-le"), "text in UTF-16.*Save it as UTF-8"),
        (gzip.compress(b"a,b,y\n1,2,0\n", mtime=0), "a gzip archive.*Unpack it"),
        (b"PK\x03\x04" + bytes(100), "a zip archive or a spreadsheet.*Unpack it"),
        (b"PAR1" + bytes(100), r"a Parquet file.*Name it \.parquet"),
    ],
)
@pytest.mark.parametrize("name", ["t.csv", "t.jsonl"])
def test_another_form_than_the_name_says(tmp_path, content, words, name):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=rf"must be UTF-8 text; got {words}") as caught:
        read_predictions(tmp_path / name, **TWO)
    assert "Latin-1" not in str(caught.value)
    (tmp_path / f"{name}.bz2").write_bytes(b"")
    with pytest.raises(InputError, match="Unpack it"):
        read_predictions(tmp_path / f"{name}.bz2", **TWO)
    (tmp_path / f"{name}.gz").write_bytes(b"a,b,y\n1,2,0\n")
    with pytest.raises(InputError, match="must be a readable"):
        read_predictions(tmp_path / f"{name}.gz", **TWO)


def test_blanks_behind_the_commas_of_a_header(tmp_path):
    (tmp_path / "t.csv").write_text("id, a, b, y\n1, 2, 1, 0\n2, 1, 2, 1\n")
    for columns in (TWO, {"logits": " a, b", "target": "y"}, {"logits": "?", "target": "y"}):
        assert read_predictions(tmp_path / "t.csv", **columns).predictions.tensors().correct.all()
    (tmp_path / "t.csv").write_text("a,b, a,y\n2,1,5,0\n")  # two names by their blanks alone
    assert read_predictions(tmp_path / "t.csv", **TWO).predictions.logits.tolist() == [[2, 1]]


@pytest.mark.parametrize(
    ("predicted", "target"),
    [(["CAT", "DOG"], ["cat", "dog"]), (["new york", "rome"], ["new_york", " Rome"])],
)
def test_names_differing_in_case_or_blanks_are_refused(predicted, target):
    frame = {"c": [0.9, 0.8], "p": predicted, "y": target}
    with pytest.raises(
        InputError, match=r"and labels must have the same spelling; got '.*' as a prediction and '"
    ):
        read_predictions(frame, confidence="c", predicted="p", target="y")


def test_names_that_never_agree_are_said():
    frame = {"c": [0.9, 0.8, 0.7], "p": ["cat", "dog", "cat"], "y": ["1", "2", "1"]}
    notes = read_predictions(frame, confidence="c", predicted="p", target="y").notes
    assert "No prediction equals a label: predictions are cat, dog, labels are 1, 2." in notes
    frame |= {"p": ["cat", "1", "Dog"], "y": ["1", "1", "dog"]}
    notes = read_predictions(frame, confidence="c", predicted="p", target="y").notes
    assert "'Dog' and 'dog' are treated as different classes." in notes
    one = read_predictions(
        {"c": [0.9], "p": ["cat"], "y": ["dog"]}, confidence="c", predicted="p", target="y"
    )
    # a single wrong answer is common
    assert not any("never" in note or "equals a label" in note for note in one.notes)
    truths = {"c": [0.9, 0.8], "p": ["True", "false"], "y": [True, False]}
    assert read_predictions(
        truths, Columns(confidence="c", predicted="p", target="y")
    ).predictions.correct.all()


def test_eight_bit_labels_and_clusters_are_accepted():
    eight = torch.tensor([0.0, 1.0, 1.0]).to(torch.float8_e4m3fn)
    predictions = Predictions(torch.eye(3), eight, clusters=eight)
    assert predictions.target.tolist() == [0, 1, 1]
    assert predictions.clusters.tolist() == [0, 1, 1]


@pytest.mark.parametrize(
    ("named", "late"),
    [
        ({"probs": "p", "covariates": "x*"}, {"x2": 1.0}),
        ({"probs": "p", "covariates": "x?"}, {"x2": [{"a": 1}]}),
        ({"probs": "p_*"}, {"p_c": 0.0}),
        ({"probs": "p_*"}, {"p_gr\u00f6\u00dfe": 0.0}),
        ({"probs": "p_*", "groups": "g.h"}, {"p_c": 0.0, "g": {"h": "b"}}),
    ],
)
def test_late_key_matching_pattern_is_refused(tmp_path, named, late):
    """Only keys of the first rows are columns: it was left out without a word."""
    row = {"p": 0.5, "p_a": 0.5, "p_b": 0.5, "x1": 1.0, "y": 1, "text": '"p_z": 3', "g": {"h": "a"}}
    rows = [{**row, "y": place % 2} for place in range(1200)]
    path = tmp_path / "late.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    if "groups" not in named and named["probs"] == "p_*":
        rows = [{key: value for key, value in row.items() if key != "g"} for row in rows]
    target = {"target": "y"} | ({"classes": "0,1"} if named["probs"] == "p_*" else {})
    assert len(read_predictions(path, **named, **target).predictions.target) == 1200
    rows[1100] |= late
    path.write_text("\n".join(map(json.dumps, rows)))
    name = next(iter(late))
    with pytest.raises(
        InputError, match=f"{named.get('covariates', 'p_')[:1]}.*'{name}' in row 1,?101"
    ):
        read_predictions(path, **named, **target)
