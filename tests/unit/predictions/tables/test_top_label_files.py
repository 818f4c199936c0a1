"""Files that hold the confidence in the predicted class alone."""

import json

import numpy as np
import pandas
import pytest

from fedlas import Predictions, TopLabel
from fedlas.errors import InputError
from fedlas.predictions import Columns, open_table, read_predictions

CONFIDENCE = [0.9, 0.75, 0.5, 1.0]
PREDICTED, TARGET = ["cat", "dog", "owl", "cat"], ["cat", "cat", "owl", "dog"]
RIGHT = [True, False, True, False]
NAMED = Columns(confidence="c", predicted="p", target="y")


def write(folder, form, columns):
    path = folder / f"top.{form}"
    if form == "csv":
        rows = zip(*columns.values(), strict=True)
        path.write_text(
            "\n".join([",".join(columns), *(",".join(map(str, row)) for row in rows)]) + "\n"
        )
    elif form == "jsonl":
        rows = (dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True))
        path.write_text("\n".join(map(json.dumps, rows)))
    elif form == "parquet":
        pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
        parquet.write_table(pyarrow.table(columns), path)
    else:
        np.savez(path, **{name: np.array(values) for name, values in columns.items()})
    return path


@pytest.mark.parametrize("form", ["csv", "jsonl", "parquet", "npz"])
def test_every_form_holds_the_same(form, tmp_path, monkeypatch):
    monkeypatch.setattr("fedlas.predictions.tables.formats.format.ROWS", 3)
    path = write(
        tmp_path,
        form,
        {"c": CONFIDENCE, "p": PREDICTED, "y": TARGET, "ok": RIGHT, "site": [1, 2, 1, 2]},
    )
    named = read_predictions(path, NAMED)
    assert isinstance(named.predictions, TopLabel)
    assert named.predictions.confidence.tolist() == CONFIDENCE
    assert named.predictions.correct.tolist() == RIGHT
    assert named.labels == tuple(TARGET)
    said = read_predictions(path, Columns(confidence="c", correct="ok", groups="site"))
    assert said.predictions.correct.tolist() == RIGHT
    assert said.groups == ("1", "2", "1", "2")
    blocks = list(open_table(path, Columns(confidence="c")).blocks())  # as a stream without labels
    assert np.concat([confidence for confidence, _ in blocks]).tolist() == CONFIDENCE
    assert {outcome for _, outcome in blocks} == {None}


@pytest.mark.parametrize("words", [["1", "0", "1.0", "0"], ["true", "False", "TRUE", "false"]])
def test_outcomes_as_people_write_them(words, tmp_path):
    path = write(tmp_path, "csv", {"c": CONFIDENCE, "ok": words})
    assert (
        read_predictions(path, Columns(confidence="c", correct="ok")).predictions.correct.tolist()
        == RIGHT
    )


def test_classes_are_compared_as_what_they_say(tmp_path):
    path = write(
        tmp_path, "jsonl", {"c": CONFIDENCE, "p": [3, 7, 10, 1], "y": ["3", "007", "10.0", "one"]}
    )
    assert read_predictions(path, NAMED).predictions.correct.tolist() == [True, False, True, False]


APART = [
    ("1_1", "11"),
    (2**53, 2**53 + 1),
    (str(2**53), str(2**53 + 1)),
    (-(2**63), 1 - 2**63),
    ("1e3", "1000"),
]


@pytest.mark.parametrize("form", ["csv", "jsonl", "parquet", "npz", "frame"])
@pytest.mark.parametrize("names", APART, ids=repr)
def test_names_that_differ_stay_apart(form, names, tmp_path):
    """A float rounds whole numbers above 2^53, and Python reads 1_1 as 11."""
    one, other = names
    columns = {"c": CONFIDENCE, "p": [one, other] * 2, "y": [one] * 4}
    table = pandas.DataFrame(columns) if form == "frame" else write(tmp_path, form, columns)
    read = read_predictions(table, Columns(confidence="c", predicted="p", target="y", groups="p"))
    assert read.predictions.correct.tolist() == [True, False, True, False]
    assert read.groups == (str(one), str(other)) * 2


@pytest.mark.parametrize("form", ["jsonl", "npz"])
def test_integers_rounded_by_float_are_refused(form, tmp_path):
    path = write(tmp_path, form, {"c": CONFIDENCE, "ok": RIGHT, "g": [1.5, 2.0, 2.0**53, 2.0**53]})
    with pytest.raises(
        InputError, match=r"column 'g' must be integers or text.*; got 9007199254740992.0 in row 3"
    ):
        read_predictions(path, Columns(confidence="c", correct="ok", groups="g"))


def test_numbers_of_both_kinds_in_json_lines(tmp_path, monkeypatch):
    monkeypatch.setattr("fedlas.predictions.tables.formats.lines.BYTES", 100)
    rows = [{"c": 0.5, "ok": 1, "g": group} for group in [1] * 40 + [2.0, 2.5, 2]]
    (tmp_path / "t.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    read = read_predictions(tmp_path / "t.jsonl", Columns(confidence="c", correct="ok", groups="g"))
    assert read.groups == ("1",) * 40 + ("2", "2.5", "2")


def test_numbers_as_numpy_writes_them(tmp_path):
    text = "c,p,y\n" + "".join(f"{0.5:.18e},{number:.18e},{number}\n" for number in (0, 7, 1000))
    (tmp_path / "t.csv").write_text(text)
    assert read_predictions(tmp_path / "t.csv", NAMED).predictions.tensors().correct.all()


def test_arrays_that_need_no_naming(tmp_path):
    path = write(tmp_path, "npz", {"confidence": CONFIDENCE, "correct": RIGHT})
    assert read_predictions(path).predictions.correct.tolist() == RIGHT
    path = write(
        tmp_path,
        "npz",
        {"confidence": CONFIDENCE, "predicted": [1, 2, 3, 4], "target": [1, 2, 3, 0], "g": TARGET},
    )
    found = read_predictions(path, Columns(groups="g"))
    assert found.predictions.correct.tolist() == [True, True, True, False]
    assert found.groups == tuple(TARGET)
    path = write(tmp_path, "npz", {"logits": np.eye(4), "target": [0, 1, 2, 0], "g": TARGET})
    found = read_predictions(path, Columns(groups="g"))
    assert isinstance(found.predictions, Predictions)
    assert found.groups == tuple(TARGET)


@pytest.mark.parametrize("form", ["csv", "jsonl", "parquet", "npz"])
def test_weights_are_read(form, tmp_path):
    columns = {
        "c": CONFIDENCE,
        "ok": RIGHT,
        "l": [0.5, -1.0, 2.0, 0.0],
        "y": [0, 1, 1, 0],
        "weight": [1, 0, 2.5, 3],
    }
    path = write(tmp_path, form, columns)
    for named in (
        Columns(confidence="c", correct="ok", weights="weight"),
        Columns(logits="l", target="y", weights="weight"),
    ):
        assert read_predictions(path, named).predictions.weights.tolist() == [1, 0, 2.5, 3]
    with pytest.raises(InputError, match=r"weights .*column of top"):
        read_predictions(path, Columns(confidence="c", correct="ok", weights="mass"))


def test_annotators_distributions(tmp_path):
    votes = np.array([[8, 2], [0, 10], [5, 5]])
    columns = {
        "a": [1.0, 0.0, 0.5],
        "b": [0.0, 1.0, 0.5],
        "y": [0, 1, 1],
        "v_0": votes[:, 0],
        "v_1": votes[:, 1],
    }
    named = Columns(probs="a,b", target="y", label_probs="v_*", normalize=True)
    found = read_predictions(write(tmp_path, "csv", columns), named)
    assert found.predictions.label_probs.tolist() == (votes / 10).tolist()
    assert any("Label distributions: 3 of 3 rows were divided" in note for note in found.notes)
    np.savez(tmp_path / "a.npz", probs=[[1.0, 0.0]], y=[0], human=[[0.75, 0.25]])
    found = read_predictions(
        tmp_path / "a.npz", Columns(probs="probs", target="y", label_probs="human")
    )
    assert found.predictions.label_probs.tolist() == [[0.75, 0.25]]


@pytest.mark.parametrize(
    ("columns", "named", "message"),
    [
        ({"c": [90, 75], "ok": [1, 0]}, {"correct": "ok"}, r"got 90 in row 1, column 'c'.*percent="),
        ({"c": [0.5, -3], "ok": [1, 0]}, {"correct": "ok"}, r"in \[0, 1\]; got -3 in row 2.*look like logits"),
        ({"c": [0.5, 0.6], "ok": [1, 7]}, {"correct": "ok"}, r"yes and no, .*; got '7' in row 2"),
        ({"c": [0.5, 0.6], "ok": [1, ""]}, {"correct": "ok"}, "column 'ok' must hold .*; got none in row 2"),
        ({"c": [0.5, ""], "ok": [1, 0]}, {"correct": "ok"}, "must be finite numbers; got no number in row 2"),
        ({"c": [0.5], "y": [1]}, {"target": "y"}, "name a column of outcomes; got none. Pass correct="),
        ({"c": [0.5], "y": [1]}, {"correct": "yes"}, r"correct must name a column of top.csv; got 'yes'"),
        ({"c": [0.5], "y": [1]}, {"correct": "c"}, "named once; got 'c' 2 times"),
    ],
)  # fmt: skip
def test_refusals_name_row_and_column(columns, named, message, tmp_path):
    with pytest.raises(InputError, match=message):
        read_predictions(write(tmp_path, "csv", columns), Columns(confidence="c", **named))


@pytest.mark.parametrize(
    ("named", "message"),
    [
        ({"confidence": "c", "probs": "p"}, "only one of logits=, probs= and confidence="),
        ({"confidence": "c", "correct": "k", "target": "y"}, "outcomes must be given only once"),
        (
            {"confidence": "c", "classes": ("a", "b")},
            "classes does not apply to these score columns; got confidence=",
        ),
        (
            {"confidence": "c", "label_probs": "v"},
            "label_probs does not apply to these score columns",
        ),
        (
            {"logits": "l", "correct": "k"},
            "correct does not apply to these score columns; got logits=",
        ),
        (
            {"probs": "p", "predicted": "k"},
            "predicted does not apply to these score columns; got probs=",
        ),
        (
            {"logits": "l", "normalize": True},
            "normalize does not apply to these score columns; got logits=",
        ),
    ],
)
def test_columns_that_contradict_each_other(named, message):
    with pytest.raises(InputError, match=message):
        Columns(**named)


def test_one_confidence_a_row(tmp_path):
    np.savez(tmp_path / "top.npz", c=np.ones((3, 2)), ok=[1, 1, 1])
    with pytest.raises(InputError, match=r"confidence .*one number .*got 2"):
        read_predictions(tmp_path / "top.npz", Columns(confidence="c", correct="ok"))
    path = write(tmp_path, "csv", {"c_a": [0.5], "c_b": [0.5], "ok": [1]})
    with pytest.raises(InputError, match=r"confidence .*one column; got c_a, c_b"):
        read_predictions(path, Columns(confidence="c_*", correct="ok"))
