"""Predictions in the forms that people have them: spreadsheets, frames, percent, words, other labels."""

import numpy as np
import pandas
import pytest
import torch

from fedlas import Predictions, TopLabel
from fedlas.errors import CalibrationWarning, InputError
from fedlas.predictions import Columns, read_predictions

PROBS = [[0.9, 0.1], [0.3, 0.7], [0.56, 0.44]]


def read(tmp_path, text, name="t.csv", **columns):
    (tmp_path / name).write_text(text)
    return read_predictions(tmp_path / name, Columns(**columns))


@pytest.mark.parametrize(
    "text",
    [
        "cat,dog,y\n90%,10%,cat\n30%,70 %,dog\n56%,44%,cat\n",
        "cat;dog;y\n0,9;0,1;cat\n0,3;0,7;dog\n0,56;0,44;cat\n",
        "cat;dog;y\n90,0%;10%;cat\n30%;70%;dog\n56%;44%;cat\n",
        "cat\tdog\ty\n.9\t.1\tcat\n.3\t.7\tdog\n.56\t.44\tcat\n",
        "cat|dog|y\n0.9|0.1|cat\n0.3|0.7|dog\n0.56|0.44|cat\n",
    ],
)
def test_what_spreadsheets_write_is_noticed_and_said(tmp_path, text):
    table = read(tmp_path, text, probs="cat,dog", target="y")
    np.testing.assert_allclose(table.predictions.probs, PROBS, atol=1e-12)
    assert table.predictions.target.tolist() == [0, 1, 0]
    notes = " ".join(table.notes)
    assert ("percent sign" in notes) == ("%" in text)
    assert ("decimal comma" in notes) == ("0,9" in text or "90,0" in text)
    assert ("separated by ';'" in notes) == (";" in text)


def test_each_column_has_its_decimal_mark(tmp_path):
    text = "cat;dog;y;ltv\n0,9;0.1;cat;1,234\n0,3;0.7;dog;22\n0,56;0.44;cat;\n"
    columns = {"probs": "cat,dog", "target": "y"}
    table = read(tmp_path, text, **columns)
    np.testing.assert_allclose(table.predictions.probs, PROBS, atol=1e-12)
    assert "Numbers of cat have a decimal comma, others a point." in table.notes
    # a thousand, or one and a bit: it stays text
    both = read(tmp_path, text, covariates="cat,ltv", drop_missing=True, probs="dog", target="y")
    assert both.covariates.numbers == ("cat",)
    assert both.covariates.categories["ltv"] == ("1,234", "22")


def test_a_separator_and_percent_may_be_named(tmp_path):
    text = "a,1;b;y\n90;10;0\n30;70;1\n"
    table = read(tmp_path, text, probs=["a,1", "b"], target="y", percent=True, separator=";")
    np.testing.assert_allclose(table.predictions.probs, PROBS[:2])
    with pytest.raises(InputError, match="percent="):
        read(tmp_path, text, probs=["a,1", "b"], target="y")
    with pytest.raises(InputError, match="one character"):
        Columns(probs="a,b", separator=";;")
    confidence = read(
        tmp_path, "c,ok\n90,1\n30,0\n", confidence="c", correct="ok", percent=True
    ).predictions
    assert confidence.confidence.tolist() == pytest.approx([0.9, 0.3])


@pytest.mark.parametrize(
    "words",
    [
        ("yes", "No"),
        ("Y", "n"),
        ("Correct", "incorrect"),
        ("TRUE", "F"),
        ("right", "wrong"),
        ("1.0", "0"),
    ],
)
def test_words_for_right_and_wrong(tmp_path, words):
    right, wrong = words
    table = read(tmp_path, f"c,ok\n0.9,{right}\n0.6,{wrong}\n", confidence="c", correct="ok")
    assert table.predictions.correct.tolist() == [True, False]


def test_names_with_commas(tmp_path):
    text = '"a, b",c,y\n0.9,0.1,0\n0.3,0.7,1\n'
    for names in ('"a, b",c', ["a, b", "c"], ["a*", "c"]):
        if names == ["a*", "c"]:
            with pytest.raises(InputError, match="at least two"):
                read(tmp_path, text, probs=names, target="y")
            continue
        assert read(tmp_path, text, probs=names, target="y").predictions.num_classes == 2
    assert read(
        tmp_path, "p_a,p_b,last,y\n0.5,0.2,0.3,last\n", probs="p_*,last", target="y"
    ).classes == (
        "a",
        "b",
        "last",
    )
    # one column of two classes
    assert read(tmp_path, text, probs="a, b", target="y").predictions.num_classes == 2


def test_rows_that_lack_a_group_alone_stay(tmp_path):
    text = "c,ok,g\n0.9,1,a\n,1,a\n0.6,0,\n0.7,,b\n0.8,1,missing\n"
    table = read(tmp_path, text, confidence="c", correct="ok", groups="g", drop_missing=True)
    assert table.groups == ("a", "(no group)", "missing")
    assert table.notes[0].endswith("2 of 5 rows lack a value and were left out: 'c' (1), 'ok' (1).")
    with pytest.raises(InputError, match="column 'g'"):
        read(tmp_path, "c,ok,g\n0.9,1,a\n0.6,0,\n", confidence="c", correct="ok", groups="g")


def test_group_named_no_group_is_refused(tmp_path):
    named = {"confidence": "c", "correct": "ok", "groups": "g", "drop_missing": True}
    text = "c,ok,g\n0.9,1,(no group)\n0.6,0,a\n"
    assert read(tmp_path, text, **named).groups == ("(no group)", "a")
    with pytest.raises(InputError, match=r"got cells '\(no group\)' and empty cells in column 'g'"):
        read(tmp_path, text + "0.8,1,\n", **named)


def test_json_lines_whose_first_lacks_values(tmp_path):
    rows = '{"c": null, "ok": null, "g": null, "w": null}\n{"c": 0.3, "ok": 0, "g": "a", "w": 1}\n'
    last = '{"c": 1, "ok": 1, "g": "b", "w": 2.5}\n{"c": 0.5, "ok": 1, "g": null, "w": null}\n'
    named = {
        "confidence": "c",
        "correct": "ok",
        "groups": "g",
        "weights": "w",
        "drop_missing": True,
    }
    table = read(tmp_path, rows + last, "t.jsonl", **named)
    assert table.predictions.confidence.tolist() == [0.3, 1]
    assert table.predictions.weights.tolist() == [1, 2.5]
    assert table.groups == ("a", "b")
    assert "2 of 4 rows lack a value" in table.notes[0]
    with pytest.raises(InputError, match="no number in row 1, column 'c'"):
        read(tmp_path, '{"c": null, "ok": 1}\n' * 2, "t.jsonl", confidence="c", correct="ok")


@pytest.mark.parametrize(
    ("name", "fix"), [("t.xlsx", "Save it as CSV"), ("t.json", ".jsonl"), ("t.pt", "savez")]
)
def test_other_files_say_what_to_do(tmp_path, name, fix):
    with pytest.raises(InputError, match=fix):
        read(tmp_path, "", name, probs="a,b")
    with pytest.raises(InputError, match="must exist"):
        read_predictions("x" * 300 + ".csv", Columns(probs="a,b"))
    with pytest.raises(InputError, match="columns"):
        read_predictions(5)


def frames():
    frame = pandas.DataFrame(
        {"p_cat": [0.9, 0.3, 0.56], "p_dog": [0.1, 0.7, 0.44], "y": ["cat", "dog", "cat"]}
    )
    yield frame
    yield frame.set_index(np.array([7, 3, 9]))
    yield frame.astype({"p_cat": "Float64", "y": "category"})
    yield {name: frame[name].tolist() for name in frame}
    polars = pytest.importorskip("polars")
    yield polars.DataFrame({name: frame[name].tolist() for name in frame})


def test_frames_give_predictions_and_get_results():
    for frame in frames():
        predictions = Predictions.from_frame(frame, probs="p_*", target="y", classes=("cat", "dog"))
        np.testing.assert_allclose(predictions.probs, PROBS, atol=1e-12)
        assert predictions.target.tolist() == [0, 1, 0]
    result = predictions.to_frame()
    assert list(result) == ["predicted", "confidence", "target", "correct", "prob_0", "prob_1"]
    np.testing.assert_allclose(result[["prob_0", "prob_1"]], PROBS)
    lists = pandas.DataFrame({"l": [[1.0, 2.0, 0.0], [0.0, 1.0, 3.0]], "g": ["a", None]})
    assert Predictions.from_frame(lists, logits="l").predicted.tolist() == [1, 2]
    table = read_predictions(
        pandas.DataFrame({"c": [0.9, 0.2], "ok": [True, False], "g": [1, 2]}),
        confidence="c",
        correct="ok",
        groups="g",
    )
    assert isinstance(table.predictions, TopLabel)
    assert table.groups == ("1", "2")


@pytest.mark.parametrize(
    ("frame", "columns", "message"),
    [
        ({"a": [0.5], "b": [0.5]}, {"probs": "a,c"}, "must name a column of the frame"),
        ({"a": ["x"], "b": [0.5]}, {"probs": "a,b"}, "must hold numbers"),
        ({"a": [0.5, None], "b": [0.5, 1]}, {"probs": "a,b"}, "no number in row 2"),
        ({"a": [0.5], "b": [0.5, 0.5]}, {"probs": "a,b"}, "with equal N"),
        ({"a": [[1, 2], [3]]}, {"logits": "a"}, "must hold numbers"),
        ({"a": [0.5]}, {"confidence": "a"}, "TopLabel"),
        ({"a": [0.5]}, {}, "must name the score columns"),
        ([0.5], {"probs": "a"}, "must have columns"),
        ({"a": [], "b": []}, {"probs": "a,b"}, "at least one row"),
    ],
)
def test_frames_that_cannot_be_used(frame, columns, message):
    with pytest.raises(InputError, match=message):
        Predictions.from_frame(frame, **columns)


@pytest.mark.parametrize(
    "target", [[0, 1, 0], [0.0, 1.0, 0.0], [False, True, False], torch.tensor([0, 1, 0]).int()]
)
def test_labels_of_other_types(target):
    assert Predictions.from_probs(PROBS, target).target.tolist() == [0, 1, 0]
    assert Predictions(np.log(PROBS), target).target.tolist() == [0, 1, 0]


def test_labels_may_be_names_of_classes():
    assert Predictions.from_probs(
        PROBS, ["cat", "dog", "cat"], classes=["cat", "dog"]
    ).target.tolist() == [0, 1, 0]
    with pytest.raises(InputError, match="classes="):
        Predictions(PROBS, ["cat", "dog", "cat"])
    for target, classes, message in (
        ("cd", "cd", "shape"),
        (["cat"] * 3, ["cat"], "different names"),
        (["cow"] * 3, ["cat", "dog"], "cow"),
    ):
        with pytest.raises(InputError, match=message):
            Predictions.from_probs(PROBS, list(target), classes=list(classes))


def test_probabilities_stay_as_they_are():
    probs = np.array([[0.1, 0.3, 0.6], [0.0, 0.5, 0.5]])
    predictions = Predictions.from_probs(probs)
    assert not predictions.has_target
    assert predictions.probs.tolist() == probs.tolist()
    assert predictions.confidence.tolist() == [0.6, 0.5]
    assert "logits" not in vars(predictions)  # their logarithm is taken when something reads it
    assert torch.isfinite(predictions.tensors().logits).all()
    assert predictions.rows(torch.tensor([0])).probs.tolist() == [probs[0].tolist()]
    assert predictions.without_target().are_probs
    assert not predictions.with_logits(predictions.tensors().logits).are_probs
    with pytest.raises(InputError, match="must be fields of Predictions"):
        Predictions.from_probs(probs, colour=probs)


@pytest.mark.parametrize("decimals", [2, 3, 4, 6])
@pytest.mark.parametrize("classes", [2, 10])
def test_rounded_probabilities_given_as_logits_are_noticed(decimals, classes):
    probs = torch.randn(
        50, classes, generator=torch.Generator().manual_seed(0), dtype=torch.float64
    ).softmax(1)
    with pytest.warns(CalibrationWarning, match="from_probs") as caught:
        Predictions(probs.numpy().round(decimals))
    assert caught[0].filename == __file__  # the user's line


def test_error_on_invalid_arrays_suggests_predictions():
    import fedlas

    with pytest.raises(InputError, match="each row must sum to 1; got a sum of 0 in row 0"):
        fedlas.evaluate(np.zeros((3, 2)), [0, 1, 0])


@pytest.mark.parametrize(
    "wrong", [None, True, 1.5, b"x", {"a": 1}, object(), torch.zeros(2), pandas.Series(["a"])]
)
def test_wrong_types_are_refused_with_a_remedy(wrong, tmp_path):
    predictions = Predictions(np.log(PROBS), [0, 1, 0])
    (tmp_path / "t.csv").write_text("a,b,y\n0.5,0.5,0\n")
    calls = [
        lambda: predictions.rows(wrong),
        lambda: predictions.save(wrong),
        lambda: Predictions.load(wrong),
        lambda: Columns(logits=[]),
        lambda: Predictions.from_probs(np.array(PROBS)).rows(torch.zeros(3, dtype=torch.bool)),
    ]
    calls += [] if wrong is None else [lambda: read_predictions(tmp_path / "t.csv", wrong)]
    for call in calls:
        with pytest.raises(InputError):
            call()
