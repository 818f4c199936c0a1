"""Calibrated scikit-learn models with side information, and boosted trees, as ONNX."""

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import fedlas
from fedlas import deploy
from fedlas.calibrators import CALIBRATORS
from fedlas.errors import InputError
from fedlas.integrations.sklearn import CalibratedClassifier
from wants_features import NormTemperature

pytestmark = [
    pytest.mark.system,
    pytest.mark.filterwarnings("ignore"),  # of skl2onnx, of the few samples, and of the boosters
]


@pytest.fixture(autouse=True)
def _registered(changeable):
    changeable(CALIBRATORS)
    CALIBRATORS.add("norm-temperature", NormTemperature)
    pytest.importorskip("skl2onnx")
    pytest.importorskip("onnxruntime")


def data(classes):
    generator = np.random.default_rng(0)
    rows, target = generator.normal(size=(300, 5)), np.arange(300) % classes
    rows[:, 0] += target
    rows[:, 1] = np.where(generator.random(300) < 0.3, 2.0, 0.0)
    return rows, target


def booster(name):
    if name == "lightgbm":
        return pytest.importorskip(name).LGBMClassifier(n_estimators=12, verbose=-1, n_jobs=1)
    if name == "xgboost":
        return pytest.importorskip(name).XGBClassifier(n_estimators=12, n_jobs=1)
    options = {"n_estimators": 12, "verbose": 0, "thread_count": 1, "allow_writing_files": False}
    return pytest.importorskip(name).CatBoostClassifier(**options)


def check(model, rows, path):
    exported = deploy.export(model, path, rows)
    assert exported.difference < 1e-5
    assert exported.samples == len(rows)
    kind = exported.inputs[0]["dtype"]
    p = fedlas.predict(path, [torch.from_numpy(rows.astype(kind))])
    np.testing.assert_allclose(p.probs, model.predict_proba(rows.astype(kind)), atol=1e-5)


@pytest.mark.parametrize("name", ["lightgbm", "xgboost", "catboost"])
@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("side", [True, False])
def test_boosted_trees(name, classes, side, tmp_path):
    pytest.importorskip("onnxmltools")
    rows, target = data(classes)
    model = CalibratedClassifier(booster(name), NormTemperature(), cv=0.5, features=side).fit(
        rows, target
    )
    assert model.calibrator_.num_features == (5 if side else None)
    check(model, rows, tmp_path / "net.onnx")


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("missing", [False, True])
def test_trees_of_histograms(classes, missing, tmp_path):
    """skl2onnx failed on each: 'Expected an int, got a boolean'."""
    rows, target = data(classes)
    if missing:
        rows[::7, 2] = np.nan
    trees = HistGradientBoostingClassifier(max_iter=12)
    model = CalibratedClassifier(trees, NormTemperature(), cv=0.5)
    check(model.fit(rows, target), rows, tmp_path / "net.onnx")


def test_histograms_of_categories_are_refused(tmp_path):
    """skl2onnx compares the numbers of the categories, by which probabilities were off by 0.4."""
    rows, target = data(2)
    rows[:, 1] = np.arange(300) % 5
    trees = HistGradientBoostingClassifier(max_iter=12, categorical_features=[1])
    model = CalibratedClassifier(trees, NormTemperature(), cv=0.5)
    with pytest.raises(InputError, match=r"categorical_features.*Encode categories"):
        deploy.export(model.fit(rows, target), tmp_path / "net.onnx", rows)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["lightgbm", "xgboost", "catboost"])
def test_auto_behind_boosted_trees(name, tmp_path):
    pytest.importorskip("onnxmltools")
    rows, target = data(3)
    model = CalibratedClassifier(booster(name), features=True, cv=3).fit(rows, target)
    assert model.calibrator_.num_features == 5
    check(model, rows, tmp_path / "net.onnx")


@pytest.mark.parametrize("name", ["lightgbm", "xgboost", "catboost"])
def test_boosted_trees_behind_steps(name, tmp_path):
    pytest.importorskip("onnxmltools")
    rows, target = data(3)
    model = CalibratedClassifier(
        make_pipeline(StandardScaler(), booster(name)), NormTemperature(), features=True, cv=0.5
    )
    check(model.fit(rows, target), rows, tmp_path / "net.onnx")


@pytest.mark.parametrize("name", ["lightgbm", "xgboost", "catboost"])
def test_boosted_trees_of_a_frame(name, tmp_path):
    """The converter for xgboost failed: 'Unable to interpret 'age', feature names should follow pattern 'f%d''."""
    pytest.importorskip("onnxmltools")
    rows, target = data(2)
    frame = pd.DataFrame(rows, columns=["age", "bmi", "visits", "dose", "days"])
    model = CalibratedClassifier(booster(name), NormTemperature(), features=True, cv=0.5)
    model.fit(frame, target)
    exported = deploy.export(model, tmp_path / "net.onnx", frame)
    assert exported.difference < 1e-5
    assert model.predict_proba(frame).shape == (300, 2)  # the model keeps its names


@pytest.mark.parametrize("missing", [False, True])
def test_missing_numbers_are_filled_in_the_file_too(missing, tmp_path):
    pytest.importorskip("onnxmltools")
    rows, target = data(3)
    if missing:
        rows[::7, 2] = np.nan
    model = CalibratedClassifier(booster("xgboost"), NormTemperature(), features=True, cv=0.5)
    model.fit(rows, target)
    assert model.calibrator_.num_features == 5 + missing
    check(model, rows, tmp_path / "net.onnx")


@pytest.mark.parametrize("classes", [2, 3])
def test_a_pipeline_gives_what_its_last_step_takes(classes, tmp_path):
    rows, target = data(classes)
    model = CalibratedClassifier(
        make_pipeline(StandardScaler(), LogisticRegression()),
        NormTemperature(),
        features=True,
        cv=0.5,
    )
    model.fit(rows, target)
    check(model, rows, tmp_path / "net.onnx")


def test_side_information_that_no_file_holds(tmp_path):
    rows, target = data(2)
    model = CalibratedClassifier(
        LogisticRegression(), NormTemperature(), features=lambda X: X[:, :2]
    ).fit(rows, target)
    assert model.calibrator_.num_features == 2
    with pytest.raises(
        InputError, match="must come from numeric columns of X; got a custom function"
    ):
        deploy.export(model, tmp_path / "net.onnx", rows)
    assert not list(tmp_path.iterdir())
