"""Tables of several labels: fitted, checked, saved, applied each night and exported; what is shown is deployed."""

import json
import sqlite3
from dataclasses import replace

import numpy as np
import pytest
import torch

import fedlas
from fedlas import MultiLabel
from fedlas.calibrated import TableCalibration
from fedlas.calibrators import MultiLabelCalibration
from fedlas.deploy import export
from fedlas.errors import InputError

pytestmark = pytest.mark.filterwarnings("ignore::fedlas.errors.CalibrationWarning")
NAMES = ("edema", "mass", "nodule")


def frame(seed=0, samples=300, kind="p", **more):
    random = torch.Generator().manual_seed(seed)
    logits = torch.randn(samples, 3, generator=random, dtype=torch.float64) - 1
    target = torch.bernoulli((0.5 * logits).sigmoid(), generator=random).long()
    scores = logits.sigmoid() if kind == "p" else logits
    columns = {f"{kind}_{name}": scores[:, place].numpy() for place, name in enumerate(NAMES)}
    columns |= {f"y_{name}": target[:, place].tolist() for place, name in enumerate(NAMES)}
    return columns | more


def fitted(seed=1, **more):
    return fedlas.calibrate(frame(seed), probs="p_*", labels="y_*", **more)


def test_what_a_report_shows_is_what_apply_writes():
    calibration = fitted()
    assert isinstance(calibration.calibrator, MultiLabelCalibration)
    assert calibration.classes == NAMES
    live = {name: values for name, values in frame().items() if name.startswith("p_")}
    written = calibration.apply(live)
    val, test = (fedlas.read_predictions(frame(seed), probs="p_*", labels="y_*") for seed in (1, 0))
    shown = fedlas.report(test, on=val.predictions, replicates=0).stages["after partial-pooling"]
    for place, name in enumerate(NAMES):
        np.testing.assert_allclose(
            written[f"calibrated_p_{name}"], shown.tensors().probs[:, place].numpy(), rtol=1e-12
        )


def test_rows_left_out_are_measured_by_macro_means():
    checked = fitted().cross_fitted
    assert checked.labels == 3
    assert "3 labels on 300 rows left out of the fit in turn: macro NLL" in str(checked)
    assert checked.after.nll < checked.before.nll
    by_time = fedlas.calibrate(
        frame(1, day=list(range(300))), probs="p_*", labels="y_*", time="day"
    )
    assert by_time.cross_fitted.in_time
    clustered = fedlas.calibrate(
        frame(1, who=[str(row // 3) for row in range(300)]), probs="p_*", labels="y_*", clusters="who"
    )  # fmt: skip
    assert clustered.cross_fitted.clusters == 100


@pytest.mark.parametrize("kind", ["p", "z"])
def test_a_file_gives_the_same_numbers(kind, tmp_path):
    columns = {"probs" if kind == "p" else "logits": f"{kind}_*", "labels": "y_*"}
    calibration = fedlas.calibrate(frame(1, kind=kind), **columns)
    loaded = TableCalibration.load(calibration.save(tmp_path / "cal.json"))
    live = frame(kind=kind)
    one, other = calibration.apply(live), loaded.apply(live)
    for name in calibration.added:
        np.testing.assert_array_equal(one[name], other[name])
    assert str(loaded.cross_fitted) == str(calibration.cross_fitted)
    measured = loaded.before_after(live)
    assert measured.after.nll < measured.before.nll
    assert "macro NLL" in str(measured)
    content = json.loads((tmp_path / "cal.json").read_text())
    del content["columns"]["labels"]
    (tmp_path / "cal.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match="several labels"):
        TableCalibration.load(tmp_path / "cal.json")


def test_methods_weights_and_unknown_labels_are_used():
    plain = fitted().apply(frame())["calibrated_p_mass"]
    cells = frame(1)
    cells["y_mass"] = [None if row % 3 else value for row, value in enumerate(cells["y_mass"])]
    for table, more in (
        (frame(1), {"method": "temperature"}),
        (frame(1, w=list(range(300))), {"weights": "w"}),
        (cells, {}),
    ):
        other = fedlas.calibrate(table, probs="p_*", labels="y_*", **more)
        assert np.abs(other.apply(frame())["calibrated_p_mass"] - plain).max() > 1e-4
    with pytest.raises(InputError, match="covariates is for one label"):
        fitted(covariates="age")
    with pytest.raises(InputError, match="groups cannot be used with several labels"):
        fitted(groups="site")


def run(statement, names, scores):
    """What SQLite computes of a table of scores, NaN where it has NULL."""
    database = sqlite3.connect(":memory:")
    database.execute(f"CREATE TABLE predictions ({', '.join(names)})")
    marks = ", ".join("?" for _ in names)
    rows = [[None if value != value else value for value in row] for row in scores.tolist()]
    database.executemany(f"INSERT INTO predictions VALUES ({marks})", rows)
    found = database.execute(statement).fetchall()
    database.close()
    return np.array([row[len(names) :] for row in found], dtype=float)


def test_sql_gives_what_apply_gives(tmp_path):
    for kind, columns in (("p", {"probs": "p_*"}), ("z", {"logits": "z_*"})):
        calibration = fedlas.calibrate(frame(1, kind=kind), labels="y_*", **columns)
        path = tmp_path / f"{kind}.sql"
        export(calibration, path, form="sql", dialect="sqlite")
        live = frame(kind=kind)
        scores = np.column_stack([live[name] for name in calibration.scores])
        scores[0, 1] = np.nan
        after = run(path.read_text(), calibration.scores, scores)
        applied = calibration.apply(live)
        assert np.isnan(after[0]).all()
        for place, name in enumerate(calibration.added):
            np.testing.assert_allclose(after[1:, place], applied[name][1:], rtol=1e-9, atol=1e-12)
    with pytest.raises(InputError, match="must use the default calibrator"):
        export(fitted(method="temperature"), tmp_path / "t.sql", form="sql")


@pytest.mark.system
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("method", ["auto", "temperature"])
def test_onnx_gives_sigmoids(method, tmp_path):
    pytest.importorskip("onnxruntime")
    exported = export(fitted(method=method), tmp_path / "labels.onnx")
    assert exported.difference < 1e-6


def test_two_models_are_compared_by_means_over_labels():
    old = frame()
    new = {**old, **{n: fitted().apply(old)[f"calibrated_{n}"] for n in old if n[0] == "p"}}
    tables = [fedlas.read_predictions(each, probs="p_*", labels="y_*") for each in (new, old)]
    compared = fedlas.compare(*tables, replicates=99)
    assert compared["macro_nll"].better == "a"
    assert compared["macro_nll"].low < compared["macro_nll"].difference < compared["macro_nll"].high
    several = tables[0].predictions
    pair = [replace(each.predictions, weights=[1] * 299 + [0]) for each in tables]
    without_last = fedlas.compare(*pair, ["macro_nll"])
    assert (without_last.samples, without_last["macro_nll"].count) == (299, 299)
    for other, said in (
        (
            MultiLabel(several.tensors().logits, 1 - several.tensors().target, names=NAMES),
            "different targets in 300 of 300",
        ),
        (MultiLabel(several.tensors().logits, several.tensors().target), "got labels "),
        (
            MultiLabel(
                several.tensors().logits, several.tensors().target, NAMES, weights=[1] * 300
            ),
            "different weights",
        ),
    ):
        with pytest.raises(InputError, match=said):
            fedlas.compare(several, other)
    clustered = replace(several, clusters=[0, 1, 2] * 100)
    with pytest.raises(InputError, match="300 and 90 samples"):
        fedlas.compare(clustered, clustered.rows(torch.arange(90)))
    with pytest.raises(InputError, match="event requires one label"):
        fedlas.compare(*tables, event=1)
    with pytest.raises(InputError, match="metrics"):
        fedlas.compare(*tables, metrics=["ece"])


class Tags(torch.nn.Module):
    def forward(self, inputs):
        return inputs


@pytest.mark.parametrize("function", [fedlas.predict, fedlas.calibrate])
def test_several_labels_are_noticed_by_their_targets(function):
    table = fedlas.read_predictions(frame(1), probs="p_*", labels="y_*").predictions
    batches = [
        (table.tensors().logits[:200], table.tensors().target[:200]),
        (table.tensors().logits[200:], table.tensors().target[200:]),
    ]
    result = function(Tags(), batches)
    if function is fedlas.predict:
        assert isinstance(result, MultiLabel)
        assert result.num_samples == 300
    else:
        assert isinstance(result.calibrator, MultiLabelCalibration)
        wanted = MultiLabelCalibration().fit(table).transform(table)
        torch.testing.assert_close(
            result(table.tensors().logits), wanted.tensors().logits, rtol=1e-4, atol=1e-5
        )
    one_hot = torch.nn.functional.one_hot(torch.arange(60) % 3)
    with pytest.raises(InputError, match="multi_label"):
        function(Tags(), [(table.tensors().logits[:60], one_hot)])
    assert function(Tags(), [(table.tensors().logits[:60], one_hot)], multi_label=True)
    numbers = function(Tags(), [(table.tensors().logits[:60], torch.arange(60) % 3)])
    assert getattr(numbers, "num_classes", 3) == 3
    with pytest.raises(InputError):
        function(Tags(), [(table.tensors().logits[:60], one_hot)], multi_label=False)
