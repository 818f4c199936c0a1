"""Names of classes and columns: what is the same name, what is not, and where a position must not stand in for one."""

import numpy as np
import pandas
import pytest

from fedlas import Predictions
from fedlas.errors import InputError
from fedlas.predictions import Columns, read_predictions

TRUTH = {"p_true": [0.9, 0.2, 0.7], "p_false": [0.1, 0.8, 0.3]}


def read(frame, **columns):
    return read_predictions(frame, Columns(target="y", **columns)).predictions


@pytest.mark.parametrize(
    "labels",
    [
        ["TRUE", "FALSE", "TRUE"],
        [True, False, True],
        ["True", "False", "true"],
        np.array([True, False, True]),
    ],
)
def test_truth_values_name_classes_without_case(labels):
    """Position 1 stood for "True", which inverted columns p_true, p_false."""
    for names in ("p_true,p_false", "p_false,p_true", "p_*"):
        assert read(TRUTH | {"y": labels}, probs=names).tensors().correct.all()
    assert read(TRUTH | {"y": labels}, probs="p_*", classes=("Yes", "No")).tensors().correct.all()
    upper = {"p_TRUE": TRUTH["p_true"], "p_FALSE": TRUTH["p_false"], "y": labels}
    assert read(upper, probs="p_*").tensors().correct.all()
    listed = [TRUTH["p_true"], TRUTH["p_false"]]
    assert Predictions.from_probs(
        np.array(listed).T, labels, classes=["true", "false"]
    ).correct.all()


def test_json_booleans_name_classes(tmp_path):
    lines = [
        '{"p_true": 0.9, "p_false": 0.1, "y": true}',
        '{"p_true": 0.2, "p_false": 0.8, "y": false}',
    ]
    (tmp_path / "t.jsonl").write_text("\n".join(lines))
    assert (
        read_predictions(tmp_path / "t.jsonl", probs="p_*", target="y")
        .predictions.tensors()
        .correct.all()
    )


@pytest.mark.parametrize(
    ("frame", "columns", "got"),
    [
        (TRUTH | {"y": [1, 0, 1]}, {"probs": "p_*"}, "1 in row 1"),  # position 1 is p_false
        (TRUTH | {"y": ["1", "0", "1"]}, {"probs": "p_*"}, "'1' in row 1"),
        ({"p_0": [0.9], "p_1": [0.1], "y": ["True"]}, {"probs": "p_*"}, "'True' in row 1"),
        ({"p_0": [0.9], "p_1": [0.1], "y": ["01"]}, {"probs": "p_*"}, "'01' in row 1"),
        ({"p_cat": [0.9], "p_dog": [0.1], "y": [True]}, {"probs": "p_*"}, "True in row 1"),
        ({"p": [0.9], "y": ["01"]}, {"probs": "p"}, "'01' in row 1"),
    ],
)
def test_position_does_not_replace_class_name(frame, columns, got):
    with pytest.raises(InputError, match=f"got {got} of the frame"):
        read(frame, **columns)


def sorted_by_name(prefix, start=0, stop=12):
    names = sorted(f"{prefix}{number}" for number in range(start, stop))
    rows = np.eye(stop)[start:, start:] * 0.9 + 0.1 / (stop - start)
    rows = rows / rows.sum(1, keepdims=True)
    return {name: rows[:, int(name.removeprefix(prefix)) - start] for name in names} | {
        "y": np.arange(start, stop)
    }


@pytest.mark.parametrize("prefix", ["p_class_", "p_"])
@pytest.mark.parametrize("form", ["p_*", "*", list])
def test_columns_sorted_by_name_are_refused(prefix, form):
    """0, 1, 10, 11, 2: accuracy was 0.17 where all are right."""
    frame = sorted_by_name(prefix)
    names = [name for name in frame if name != "y"] if form is list else form
    with pytest.raises(
        InputError, match=r"must be (in the order of the|numbered consecutively).*0, 1, 10, 11, 2"
    ):
        read(frame, probs=names)
    in_order = [f"{prefix}{number}" for number in range(12)]
    assert read(frame, probs=in_order).tensors().correct.all()
    named = tuple(name.removeprefix(prefix) for name in frame if name != "y")
    if form is list:
        assert read(frame, probs=names, classes=named).tensors().correct.all()


def test_columns_that_end_alike_are_numbered_too():
    frame = {f"{number}_prob": [0.1] for number in sorted(map(str, range(10)))} | {
        "10_prob": [0.0],
        "y": [0],
    }
    order = ["0_prob", "1_prob", "10_prob", *(f"{number}_prob" for number in range(2, 10))]
    with pytest.raises(InputError, match=r"must be (in the order of the|numbered consecutively)"):
        read({name: frame[name] for name in [*order, "y"]}, probs="*_prob")
    with pytest.raises(InputError, match=r"must be (in the order of the|numbered consecutively)"):
        read({name: frame[name] for name in [*order, "y"]}, probs=order)


def test_columns_numbered_from_one_take_labels_from_one():
    frame = sorted_by_name("class_", 1, 4)
    for names in ("class_*", "c*", ["class_1", "class_2", "class_3"]):
        assert read(frame, probs=names).tensors().correct.all()
        with pytest.raises(InputError, match=r"0 in row 1 .*classes="):
            read(frame | {"y": [0, 1, 2]}, probs=names)
    assert read(
        frame | {"y": ["class_1", "class_2", "class_3"]}, probs="class_1,class_2,class_3"
    ).correct.all()


@pytest.mark.parametrize("index", ["", "Unnamed: 0", "__index_level_0__"])
def test_a_pattern_never_takes_an_index(index, tmp_path):
    frame = pandas.DataFrame(
        {index: [0, 1, 2], "a": [2.0, 0.1, 3.0], "b": [0.5, 1.0, 0.2], "y": ["a", "b", "a"]}
    )
    frame.to_csv(tmp_path / "t.csv", index=False)
    for source in (frame, tmp_path / "t.csv"):
        predictions = read_predictions(source, logits="*", target="y").predictions
        assert predictions.num_classes == 2
        assert predictions.tensors().correct.all()


@pytest.mark.parametrize("kind", ["probs", "logits"])
def test_columns_of_another_order_are_matched_by_class(kind):
    """``evaluate --on`` refused them, where ``apply`` matches names."""
    scores = {"p_cat": [0.7, 0.1], "p_dog": [0.2, 0.3], "p_fox": [0.1, 0.6]}
    one = read_predictions({**scores, "y": ["cat", "fox"]}, target="y", **{kind: "p_*"})
    turned = {name: scores[name] for name in ("p_fox", "p_cat", "p_dog")}
    other = read_predictions({**turned, "y": ["cat", "fox"]}, target="y", **{kind: "p_*"}, like=one)
    assert other.classes == one.classes
    assert other.predictions.tensors().logits.equal(one.predictions.tensors().logits)
    assert other.predictions.target.tolist() == [0, 2]
    strange = {"p_cat": [0.7, 0.1], "p_dog": [0.2, 0.3], "p_emu": [0.1, 0.6], "y": ["cat", "emu"]}
    with pytest.raises(InputError, match="classes of both tables"):
        read_predictions(strange, target="y", **{kind: "p_*"}, like=one)
    votes = {f"v{name}": values for name, values in turned.items()}
    with pytest.raises(InputError, match="same order"):
        read_predictions(
            {**turned, **votes, "y": ["cat", "fox"]},
            target="y",
            **{kind: "p_*"},
            label_probs="vp_*",
            like=one,
        )


def test_labels_of_another_order_are_matched_by_name():
    scores = {"p_cat": [0.7, 0.1], "p_dog": [0.2, 0.3]}
    labels = {"y_cat": [1, 0], "y_dog": [0, 1]}
    one = read_predictions({**scores, **labels}, probs="p_*", labels="y_*")
    turned = dict(reversed({**scores, **labels}.items()))
    other = read_predictions(turned, probs="p_*", labels="y_*", like=one)
    assert other.predictions.names == one.predictions.names
    assert other.predictions.tensors().logits.equal(one.predictions.tensors().logits)
    assert other.predictions.tensors().target.equal(one.predictions.tensors().target)
