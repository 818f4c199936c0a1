"""Covariates of a table: numbers as they are, the number of the value of the others, and what cannot be one."""

import numpy as np
import pandas as pd
import pytest

import fedlas
from fedlas.errors import CalibrationWarning, InputError
from fedlas.predictions import Columns, Covariates, ScoreTable, open_table

TABLE = {
    "p": [0.1, 0.5, 0.9, 0.4],
    "y": [0, 1, 1, 0],
    "x_age": [20, 30.5, 40, 50],
    "x_zip": ["007", "7", "7.0", None],
    "region": [1, 2, 1, 2],
}


def read(content, **names):
    columns = Columns(probs="p", target="y", **names)
    table = open_table(content, columns)
    return table, list(table.samples())


def test_numbers_stay_and_values_become_codes():
    reader, (part,) = read(TABLE, covariates="x_*,region", groups="region")
    assert reader.covariates.names == ("x_age", "x_zip", "region")
    assert reader.covariates.levels == (0, 3, 2)
    assert reader.covariates.categories["x_zip"] == ("007", "7", "")
    expected = [[20, 0, 0], [30.5, 1, 1], [40, 1, 0], [50, 2, 1]]
    assert part["features"].tolist() == expected


def test_a_file_gives_what_a_frame_gives(tmp_path):
    frame = pd.DataFrame(TABLE | {"x_zip": ["007", "7", "8", "9"]})
    _, (whole,) = read(dict(frame.items()), covariates="x_*")
    frame.to_csv(tmp_path / "a.csv", index=False)
    frame.to_parquet(tmp_path / "a.parquet", index=False)
    frame.to_json(tmp_path / "a.jsonl", orient="records", lines=True)
    for suffix in (".csv", ".parquet", ".jsonl"):
        _, (part,) = read(tmp_path / f"a{suffix}", covariates="x_*")
        assert part["features"].tolist() == whole["features"].tolist(), suffix


@pytest.mark.parametrize(
    ("names", "match"),
    [
        ("x_agee", "x_age"),
        ("z_*", "must match a column"),
        ("y", "must not include score or label columns"),
        ("p", "must not include score or label columns"),
    ],
)
def test_what_cannot_be_a_covariate(names, match):
    with pytest.raises(InputError, match=match):
        read(TABLE, covariates=names)


def test_names_of_samples_are_no_categories():
    many = {"p": np.full(300, 0.5), "y": np.arange(300) % 2, "id": [f"c{k}" for k in range(300)]}
    with pytest.raises(InputError, match="more in column 'id'"):
        read(many, covariates="id")


def test_missing_numbers_are_imputed_and_flagged():
    """As scikit-learn's ``SimpleImputer(add_indicator=True)`` has it."""
    table = TABLE | {"x_age": [1, np.nan, 2, 3]}
    reader, (part,) = read(table, covariates="x_age,x_zip")
    assert reader.covariates.names == ("x_age", "x_age missing", "x_zip")
    assert part["features"].tolist() == [[1, 0, 0], [2, 1, 1], [2, 0, 1], [3, 0, 2]]
    assert reader.covariates.levels == (0, 0, 3)
    # A column that was whole in the fit: the mean, and a note.
    whole, _ = read(TABLE, covariates="x_age")
    later = ScoreTable(table, Columns(probs="p", target="y"), whole.covariates)
    (part,) = later.samples()
    assert part["features"][:, 0].tolist() == [1, 35.125, 2, 3]
    assert "1 rows lack a number in 'x_age'" in " ".join(later.notes())
    # Rows are left out instead where that is asked for.
    reader, (part,) = read(table, covariates="x_age", drop_missing=True)
    assert part["features"].tolist() == [[1], [2], [3]]


def test_plain_values_bring_them_back():
    reader, _ = read(TABLE, covariates="x_*")
    assert Covariates.from_dict(reader.covariates.to_dict()) == reader.covariates
    with pytest.raises(ValueError, match="lists of text"):
        Covariates.from_dict({"numbers": "x", "categories": {}})


def test_two_files_of_one_model_share_their_columns(tmp_path):
    """The first file read decides: a value that the second alone has is none of its columns."""
    for name, regions in (("val", ["a", "b", "a", "b"]), ("test", ["a", "c", "c", "a"])):
        pd.DataFrame(TABLE | {"region": regions}).to_csv(tmp_path / f"{name}.csv", index=False)
    columns = Columns(probs="p", target="y", covariates="region")
    val = fedlas.read_predictions(tmp_path / "val.csv", columns)
    test = fedlas.read_predictions(tmp_path / "test.csv", columns, like=val)
    assert val.predictions.features.tolist() == [[0], [1], [0], [1]]
    assert test.predictions.features.tolist() == [[0], [2], [2], [0]]
    assert "2 rows have a missing or unseen value of 'region'" in " ".join(test.notes)


def test_auto_corrects_groups_and_ignores_unseen_values(tmp_path):
    random = np.random.default_rng(0)
    logit, region = random.normal(size=1500), random.choice(["north", "south"], 1500)
    y = (random.random(1500) < 1 / (1 + np.exp(-logit - 2 * (region == "north") + 1))).astype(int)
    table = {"p": 1 / (1 + np.exp(-logit)), "region": region, "y": y}
    plain = fedlas.calibrate(table, probs="p", target="y")
    cal = fedlas.calibrate(table, probs="p", target="y", groups="region")
    assert cal.cross_fitted.after.nll < plain.cross_fitted.after.nll - 0.05
    assert "features" in str(cal.fitted)
    cal = fedlas.TableCalibration.load(cal.save(tmp_path / "cal.json"))
    live = {"p": [0.5] * 3, "region": ["north", "south", "west"]}
    with pytest.warns(CalibrationWarning, match="unseen value of 'region'"):
        north, south, other = cal.apply(live)["calibrated_p"]
    assert south < other < north
    with pytest.raises(InputError, match="no 'region'"):
        cal.apply({"p": [0.5]})


def test_first_version_file_is_read_one_hot():
    old = Covariates.from_dict({"numbers": ["x_age"], "categories": {"region": ["1", "2"]}})
    assert old.names == ("x_age", "region=1", "region=2")
    reader = ScoreTable(TABLE, Columns(probs="p", target="y"), old)
    (part,) = reader.samples()
    assert part["features"].tolist() == [[20, 1, 0], [30.5, 0, 1], [40, 1, 0], [50, 0, 1]]
    assert Covariates.from_dict(old.to_dict()) == old


def test_predictions_carry_what_their_features_hold(tmp_path):
    table = fedlas.read_predictions(TABLE, probs="p", target="y", covariates="x_zip,region")
    predictions = table.predictions
    assert predictions.covariates.names == ("region", "x_zip")
    assert predictions.covariates.levels == (0, 3)
    saved = fedlas.Predictions.load(predictions.save(tmp_path / "p.npz"))
    assert saved.covariates == predictions.covariates
    assert predictions.rows(np.array([0, 2])).covariates == predictions.covariates
    with pytest.raises(InputError, match="describes each column of features"):
        fedlas.Predictions([[0.0, 1.0]], [0], features=[[1.0]], covariates=saved.covariates)
    columns = {"confidence": "p", "correct": "ok", "covariates": "x_zip"}
    top = fedlas.read_predictions(TABLE | {"ok": [1, 0, 1, 1]}, **columns).predictions
    read = fedlas.TopLabel.load(top.save(tmp_path / "t.npz"))
    assert read.covariates == top.covariates
    assert read.features.tolist() == [[0], [1], [1], [2]]


@pytest.mark.parametrize("missing", ["error", "empty"])
def test_apply_imputes_missing_number_like_fit(missing, tmp_path):
    random = np.random.default_rng(0)
    logit, age = random.normal(size=800), random.normal(50, 10, 800)
    y = (random.random(800) < 1 / (1 + np.exp(-logit - (age - 50) / 5))).astype(int)
    age[::20] = np.nan
    table = {"p": 1 / (1 + np.exp(-logit)), "age": age, "y": y}
    fit = fedlas.calibrate(table, probs="p", target="y", covariates="age")
    fit = fedlas.TableCalibration.load(fit.save(tmp_path / "cal.json"))
    assert fit.covariates.gaps == ("age",)
    rows = {"p": [0.5] * 3, "age": [30, np.nan, 70]}
    young, unknown, old = fit.apply(rows, missing=missing)["calibrated_p"]
    assert young < unknown < old
