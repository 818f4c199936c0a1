import copy
import csv
import json

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import fedlas
from fedlas import Predictions, TopLabel
from fedlas.calibrators import TemperatureScaling
from fedlas.errors import InputError
from fedlas.plots import reliability_diagram
from fedlas.predictions import Columns, PredictionTable, open_table, read_predictions

NAMES = ("cat", "dog", "owl")


def scores(samples=50, classes=3, seed=0):
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(samples, classes)) * 2
    return logits, rng.integers(0, classes, samples)


def softmax(logits):
    powers = np.exp(logits - logits.max(1, keepdims=True))
    return powers / powers.sum(1, keepdims=True)


def write_csv(path, values, labels, *, prefix="p_", names=NAMES, label="label", delimiter=","):
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, delimiter=delimiter)
        writer.writerow(["id", *(f"{prefix}{name}" for name in names), label])
        writer.writerows(
            [i, *map(repr, map(float, row)), y]
            for i, (row, y) in enumerate(zip(values, labels, strict=True))
        )
    return path


def write(form, folder, values, labels):
    """The same table in every form; labels are names."""
    path = folder / f"preds.{form}"
    if form in ("csv", "tsv"):
        return write_csv(path, values, labels, delimiter="," if form == "csv" else "\t")
    rows = [{f"p_{n}": float(v) for n, v in zip(NAMES, row, strict=True)} | {"label": y}
            for row, y in zip(values, labels, strict=True)]  # fmt: skip
    if form == "jsonl":
        path.write_text("\n".join(map(json.dumps, rows)) + "\n")
    elif form == "parquet":
        pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
        parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    else:
        np.savez(
            path, **{f"p_{n}": values[:, i] for i, n in enumerate(NAMES)}, label=np.array(labels)
        )
    return path


@pytest.mark.parametrize("form", ["csv", "tsv", "jsonl", "parquet", "npz"])
def test_every_form_holds_the_same(form, tmp_path, monkeypatch):
    # several blocks, the last a short one
    monkeypatch.setattr("fedlas.predictions.tables.formats.format.ROWS", 16)
    monkeypatch.setattr("fedlas.predictions.tables.formats.lines.BYTES", 1024)
    logits, target = scores()
    path = write(form, tmp_path, softmax(logits), [NAMES[y] for y in target])
    read = read_predictions(path, Columns(probs="p_*", target="label"))
    assert read.classes == NAMES
    assert read.predictions.target.tolist() == target.tolist()
    np.testing.assert_allclose(read.predictions.probs, softmax(logits), rtol=1e-12)
    assert read.notes == ()  # names that are the columns' own decide nothing
    listed = read_predictions(
        path, Columns(probs="p_owl, p_cat,p_dog", target="label", classes=("owl", "cat", "dog"))
    )
    assert listed.predictions.target.tolist() == [(y + 1) % 3 for y in target]
    assert torch.equal(
        listed.predictions.tensors().logits[:, [1, 2, 0]], read.predictions.tensors().logits
    )


@pytest.mark.parametrize("form", ["csv", "jsonl", "parquet", "npz"])
def test_unlabeled_table_is_read_if_allowed(form, tmp_path):
    logits, target = scores()
    path = write(form, tmp_path, softmax(logits), [NAMES[y] for y in target])
    columns = Columns(probs="p_*")
    with pytest.raises(InputError, match="target must name a column of labels"):
        read_predictions(path, columns)
    read = read_predictions(path, columns, labeled=False)
    assert not read.predictions.has_target
    np.testing.assert_allclose(read.predictions.probs, softmax(logits), atol=1e-6)
    assert read.classes == NAMES
    assert read_predictions(
        path, Columns(probs="p_*", target="label"), labeled=False
    ).predictions.has_target


def test_saved_logits_are_read_without_columns_named(tmp_path):
    logits, _ = scores()
    np.savez(tmp_path / "new.npz", logits=logits, features=logits[:, :2])
    with pytest.raises(InputError, match="target must name"):
        read_predictions(tmp_path / "new.npz")
    found = read_predictions(tmp_path / "new.npz", labeled=False).predictions
    assert not found.has_target
    assert found.features.shape == (50, 2)


@pytest.mark.parametrize("order", ["C", "F"])
def test_arrays_and_lists_are_all_classes_at_once(order, tmp_path):
    logits, target = scores()
    np.savez(
        tmp_path / "a.npz",
        probs=np.asarray(softmax(logits), order=order),
        y=np.array(NAMES)[target],
    )
    read = read_predictions(tmp_path / "a.npz", Columns(probs="probs", target="y", classes=NAMES))
    np.testing.assert_allclose(read.predictions.probs, softmax(logits))
    assert read.predictions.target.tolist() == target.tolist()
    lines = [
        json.dumps({"logits": row.tolist(), "y": int(y)})
        for row, y in zip(logits, target, strict=True)
    ]
    (tmp_path / "a.jsonl").write_text("\n".join(lines))
    from_lines = read_predictions(tmp_path / "a.jsonl", Columns(logits="logits", target="y"))
    assert torch.equal(from_lines.predictions.tensors().logits, torch.from_numpy(logits))
    pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    parquet.write_table(
        pyarrow.table({"logits": logits.tolist(), "y": target}), tmp_path / "a.parquet"
    )
    from_parquet = read_predictions(tmp_path / "a.parquet", Columns(logits="logits", target="y"))
    assert torch.equal(
        from_parquet.predictions.tensors().logits, from_lines.predictions.tensors().logits
    )
    assert torch.equal(
        from_parquet.predictions.tensors().target, from_lines.predictions.tensors().target
    )


def test_scikit_learn_itself(tmp_path):
    linear = pytest.importorskip("sklearn.linear_model")
    metrics = pytest.importorskip("sklearn.metrics")
    inputs, target = scores(200)
    model = linear.LogisticRegression().fit(inputs, np.array(NAMES)[target])
    probs = model.predict_proba(inputs)
    np.savez(tmp_path / "sk.npz", probs=probs, y=np.array(NAMES)[target])
    columns = Columns(probs="probs", target="y", classes=tuple(model.classes_))
    predictions = read_predictions(tmp_path / "sk.npz", columns).predictions
    nll = torch.nn.functional.cross_entropy(
        predictions.tensors().logits, predictions.tensors().target
    )
    assert float(nll) == pytest.approx(metrics.log_loss(np.array(NAMES)[target], probs), rel=1e-12)


@pytest.mark.parametrize(
    ("kind", "labels"), [("probs", [0, 1, 1]), ("logits", ["False", "True", "true"])]
)
def test_one_column_is_the_second_of_two_classes(kind, labels, tmp_path):
    values = np.array([0.2, 0.9, 0.5])
    raw = values if kind == "probs" else np.log(values / (1 - values))
    write_csv(tmp_path / "b.csv", raw[:, None], labels, names=["one"])
    read = read_predictions(tmp_path / "b.csv", Columns(**{kind: "p_one", "target": "label"}))
    np.testing.assert_allclose(read.predictions.probs[:, 1], values)
    assert read.predictions.target.tolist() == [0, 1, 1]
    assert any("of label 1." in note for note in read.notes)


def test_exact_zeros_are_floored_and_said(tmp_path):
    write_csv(tmp_path / "z.csv", [[1, 0, 0], [0, 0.5, 0.5]], ["cat", "cat"])
    read = read_predictions(tmp_path / "z.csv", Columns(probs="p_*", target="label"))
    assert torch.isfinite(read.predictions.tensors().logits).all()
    np.testing.assert_allclose(read.predictions.probs, [[1, 0, 0], [0, 0.5, 0.5]], atol=1e-30)
    nll = torch.nn.functional.cross_entropy(
        read.predictions.tensors().logits, read.predictions.tensors().target, reduction="sum"
    )
    assert float(nll) == pytest.approx(-np.log(torch.finfo(torch.float32).tiny), rel=1e-6)
    assert any(
        "3 probabilities are exactly 0" in note and "for 1 row " in note for note in read.notes
    )


def test_note_names_ones_of_one_column(tmp_path):
    write_csv(tmp_path / "o.csv", [[1.0], [0.5], [0.0], [0.0]], [0, 1, 0, 0], names=["ill"])
    read = read_predictions(tmp_path / "o.csv", Columns(probs="p_ill", target="label"))
    note = next(note for note in read.notes if "exactly" in note)
    assert note.startswith("2 probabilities are exactly 0 and 1 probability is exactly 1;")
    assert "for 1 row the label has a probability of 0" in note


@given(st.integers(2, 6), st.integers(1, 40), st.integers(0, 999))
def test_rounded_probabilities_stay_the_same_up_to_rounding(classes, samples, seed):
    import tempfile
    from pathlib import Path

    logits, target = scores(samples, classes, seed)
    probs = softmax(logits)
    rounded = np.round(probs, 4)
    names = [str(i) for i in range(classes)]
    with tempfile.TemporaryDirectory() as folder:
        path = write_csv(Path(folder) / "r.csv", rounded, target, names=names)
        read = read_predictions(path, Columns(probs="p_*", target="label"))
    np.testing.assert_allclose(read.predictions.probs, probs, atol=1e-3)
    assert read.predictions.target.tolist() == target.tolist()


def test_labels_match_columns_numbered_from_one(tmp_path):
    logits, target = scores()
    path = write_csv(tmp_path / "n.csv", logits, target + 1, names=["1", "2", "3"])
    read = read_predictions(path, Columns(logits="p_*", target="label"))
    assert read.predictions.target.tolist() == target.tolist()
    write_csv(tmp_path / "n.csv", logits, target, names=["1", "2", "3"])
    with pytest.raises(InputError, match=r"'label' .*1, 2, 3; got '0' in row"):
        read_predictions(tmp_path / "n.csv", Columns(logits="p_*", target="label"))


@pytest.mark.parametrize(
    ("header", "rows", "columns", "message"),
    [
        ("a,b,y", ["0.5,0.5,0", "0.5,0.4,1"], {"probs": "a,b"}, r"must sum to 1; got a sum of 0.9 in row 2"),
        ("a,b,y", ["0.5,0.5,0", "1.5,-0.5,1"], {"probs": "a,b"}, r"\[0, 1\]; got 1.5 in row 2, column 'a'"),
        ("a,b,y", ["0.5,0.5,0", "0.5,,1"], {"logits": "a,b"}, r"finite numbers; got no number in row 2, column 'b'"),
        ("a,b,y", ["0.5,0.5,0", "0.5,nan,1"], {"logits": "a,b"}, r"finite numbers; got no number in row 2, column 'b'"),
        ("a,b,y", ["0.5,0.5,0", "x,1,1"], {"logits": "a,b"}, r"numbers; got 'x' in row 2, column 'a'"),
        ("a,b,y", ["0.5,0.5,0", "1,2,5"], {"logits": "a,b"}, r"labels in column 'y' .* got '5' in row 2"),
        ("a,b,y", ["0.5,0.5,a", "1,2,0"], {"logits": "a,b"}, r"all labels must be class names.* got '0' in row 2"),
        ("a,b,y", ["0.5,0.5,a", "1,2,"], {"logits": "a,b"}, r"must have a label.* got none in row 2"),
        ("a,b,y", ["0.5,0.5,a", "1,2"], {"logits": "a,b"}, r"3 cells, like the header; got 2 in row 2"),
        ("a,b,y,t", ["0.5,0.5,0,u", "x,1,1," + 200_000 * "u"], {"logits": "a,b"}, r"as CSV; got field .* row 2"),
        ("a,a,y", ["0.5,0.5,0"], {"logits": "a,b"}, r"must differ; got 'a' 2 times"),
        ("a,b,y", ["0.5,0.5,0"], {"logits": "a,c"}, r"logits must name a column of t.csv; got 'c'"),
        ("a,b,y", ["0.5,0.5,0"], {"logits": "a,y"}, r"named once; got 'y' 2 times"),
        ("a,b,y", ["0.5,0.5,0"], {"logits": "z*"}, r"match at least two columns; got 0"),
        ("a,b,y", ["0.5,0.5,0"], {"logits": "a,b", "classes": ("u",)}, r"every class.* got 1 for 2"),
        ("p0,p10,p2,y", ["1,1,1,0"], {"logits": "p*"}, r"must be numbered consecutively"),
        ("a,b,y", [], {"logits": "a,b"}, r"at least one row"),
        ("", [], {"logits": "a,b"}, r"must name the columns"),
    ],
)  # fmt: skip
def test_refusals_name_row_and_column(header, rows, columns, message, tmp_path):
    (tmp_path / "t.csv").write_text("\n".join([header, *rows]) + "\n")
    with pytest.raises(InputError, match=message):
        read_predictions(tmp_path / "t.csv", Columns(**columns, target="y"))


def test_a_misspelled_argument_is_named():
    """It was a TypeError of another class."""
    frame = {"a": [0.5], "b": [0.5], "y": [0]}
    for call in (read_predictions, Predictions.from_frame, fedlas.calibrate):
        with pytest.raises(InputError, match=r"got 'clases'\. Did you mean 'classes'"):
            call(frame, probs="a,b", target="y", clases="u,v")


def test_more_refusals(tmp_path):
    logits, target = scores()
    path = write_csv(tmp_path / "a.csv", logits, target)
    with pytest.raises(InputError, match=r"scores and labels must be named.*id, p_cat"):
        open_table(path, None)
    with pytest.raises(InputError, match="one of logits=, probs= and confidence="):
        Columns(logits="a", probs="b")
    with pytest.raises(InputError, match="different, nonempty names"):
        Columns(logits="a,a")
    with pytest.raises(InputError, match="target="):
        read_predictions(path, Columns(logits="p_*"))
    with pytest.raises(InputError, match=r"must end in \.csv"):
        read_predictions(_touch(tmp_path / "a.xlsx"), Columns(logits="p_*", target="label"))
    (tmp_path / "twice.jsonl").write_text('{"a": 1, "a": 2}\n')
    with pytest.raises(InputError, match=r"the key 'a' occurs twice in row 1"):
        list(open_table(tmp_path / "twice.jsonl", Columns(logits="a")).blocks())
    (tmp_path / "lacks.jsonl").write_text('{"a": 1, "b": 2, "y": 0}\n{"a": 1, "y": 0}\n')
    with pytest.raises(InputError, match="no number in row 2, column 'b'"):
        read_predictions(tmp_path / "lacks.jsonl", Columns(logits="a,b", target="y"))
    (tmp_path / "mixed.jsonl").write_text('{"l": [1, 2], "y": 0}\n{"l": 3, "y": 1}\n')
    with pytest.raises(InputError, match=r"'l' must all hold 2 numbers; got 0 in row 2"):
        read_predictions(tmp_path / "mixed.jsonl", Columns(logits="l", target="y"))
    (tmp_path / "late.jsonl").write_text('{"l": [1, 2], "y": 0}\n' * 4096 + '{"l": [5], "y": 1}\n')
    with pytest.raises(InputError, match="must all hold 2 numbers; got 1 in row 4097"):
        read_predictions(tmp_path / "late.jsonl", Columns(logits="l", target="y"))
    (tmp_path / "bad.parquet").write_bytes(b"PAR1 but no table")
    pytest.importorskip("pyarrow")
    with pytest.raises(InputError, match=r"readable \.parquet"):
        open_table(tmp_path / "bad.parquet", Columns(logits="a,b", target="y"))
    np.savez(tmp_path / "o.npz", a=np.array([None, 1], dtype=object), y=[0, 1])
    with pytest.raises(InputError, match="plain array"):
        read_predictions(tmp_path / "o.npz", Columns(logits="a", target="y"))


def _touch(path):
    path.write_text("")
    return path


def test_files_of_one_model_have_the_same_classes(tmp_path):
    logits, target = scores()
    labels = [NAMES[y] for y in target]
    one = write_csv(tmp_path / "one.csv", logits, labels)
    named = dict(zip(NAMES, [*NAMES[:-1], "other"], strict=True))
    renamed = [named[label] for label in labels]
    other = write_csv(tmp_path / "other.csv", logits, renamed, names=[*named.values()])
    first = read_predictions(one, logits="p_*", target="label")
    assert first.notes == ()
    with pytest.raises(InputError, match=r"same, in the same order.*other\.csv"):
        read_predictions(other, logits="p_*", target="label", like=first)
    with pytest.raises(InputError, match="like must be a PredictionTable"):
        read_predictions(other, logits="p_*", target="label", like=other)


def measured(test, val, **columns):
    """What a report says of one table with a calibrator fitted on another."""
    tables = [read_predictions(file, **columns) for file in (test, val)]
    assert [table.notes for table in tables] == [(), ()]
    return json.loads(fedlas.report(tables[0], on=tables[1], **MEASURED).json())


MEASURED = {"method": "temperature", "replicates": 0}
NAMED = {"logits": "p_*", "target": "label"}


def test_table_equals_its_arrays_in_all_measures(tmp_path):
    """A report on a CSV says what it says on the same predictions in an ``.npz``."""
    for name, seed in (("test", 0), ("val", 1)):
        logits, target = scores(200, seed=seed)
        write_csv(tmp_path / f"{name}.csv", logits, [NAMES[y] for y in target])
        np.savez(tmp_path / f"{name}.npz", logits=logits, target=target)
    from_table = measured(tmp_path / "test.csv", tmp_path / "val.csv", **NAMED)
    assert from_table == measured(tmp_path / "test.npz", tmp_path / "val.npz")


def test_a_folder_of_parquet_files_is_a_table(tmp_path):
    pd = pytest.importorskip("pandas")
    pytest.importorskip("pyarrow")
    for name, seed in (("test", 0), ("val", 1)):
        logits, target = scores(200, seed=seed)
        table = pd.read_csv(write_csv(tmp_path / f"{name}.csv", logits, [NAMES[y] for y in target]))
        for place, rows in enumerate((slice(0, 90), slice(90, None))):
            folder = tmp_path / name / f"half={place}"
            folder.mkdir(parents=True)
            table[rows].to_parquet(folder / "rows.parquet")
    of_files = measured(tmp_path / "test.csv", tmp_path / "val.csv", **NAMED)
    assert of_files == measured(tmp_path / "test", tmp_path / "val", **NAMED)


def fitted(table):
    calibrator = TemperatureScaling().fit(table)
    return calibrator.transform(table).logits.tolist()


VERBS = {
    "evaluate": fedlas.evaluate,
    "estimates": lambda table: fedlas.estimates(table, replicates=39),
    "compare": lambda table: fedlas.compare(table, copy.deepcopy(table), replicates=39),
    "report": lambda table: str(fedlas.report(table, replicates=39)),
    "report on": lambda table: str(
        fedlas.report(FLIPPED, on=table, method="temperature", replicates=39)
    ),
    "card": lambda table: str(fedlas.card(table, FLIPPED, "temperature", replicates=39)),
    "calibrator": fitted,
    "metric": fedlas.metrics.ece,
    "reliability diagram": lambda table: len(reliability_diagram(table).patches),
    "reject option": lambda table: str(fedlas.stats.reject_option(table, FLIPPED, risk=0.4)),
    "class table": fedlas.metrics.calibration_by_class,
    "calibration slope": lambda table: repr(fedlas.binary.measures(table)),
    "Spiegelhalter": fedlas.stats.spiegelhalter_test,
}
PLAIN = Predictions(
    torch.tensor([[2.0, 0.0], [0.0, 1.0], [0.5, 0.0], [0.2, 0.9]]).repeat(30, 1), [0, 1, 1, 0] * 30
)
FLIPPED = Predictions(PLAIN.tensors().logits.flip(0) + 0.1, PLAIN.tensors().target.flip(0))


@pytest.mark.parametrize("verb", VERBS)
def test_what_is_read_goes_into_every_function(verb, tmp_path):
    """A PredictionTable was refused by all but report."""
    table = read_predictions(PLAIN.save(tmp_path / "a.npz"))
    assert VERBS[verb](table) == VERBS[verb](PLAIN)


def test_calibrators_accept_top_label_from_table(tmp_path):
    top = TopLabel(PLAIN.tensors().confidence, PLAIN.tensors().correct)
    assert fitted_top(PredictionTable(top)) == fitted_top(top)


def fitted_top(top):
    return TemperatureScaling().fit(top).transform(top).confidence.tolist()


def test_columns_that_are_tensors():
    """A column that requires grad raised NumPy's RuntimeError, and a nested one PyTorch's."""
    scores, labels = torch.tensor([0.9, 0.2], requires_grad=True), torch.tensor([0, 1])
    table = read_predictions({"a": scores, "b": 1 - scores, "y": labels}, probs="a,b", target="y")
    torch.testing.assert_close(
        table.predictions.tensors().probs[:, 0].double(), scores.detach().double()
    )
    nested = torch.nested.nested_tensor([torch.zeros(2), torch.zeros(3)], layout=torch.jagged)
    with pytest.raises(InputError, match="column 'a' must be a dense tensor"):
        read_predictions({"a": nested, "b": scores, "y": labels}, probs="a,b", target="y")
