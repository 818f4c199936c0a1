"""A pipeline that ends in a calibrated classifier, as ONNX with an input for each column that it reads."""

import numpy as np
import pandas as pd
import pytest
from sklearn.compose import make_column_transformer
from sklearn.ensemble import GradientBoostingClassifier, RandomForestClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import (
    FunctionTransformer,
    OneHotEncoder,
    OrdinalEncoder,
    StandardScaler,
)

from fedlas import deploy
from fedlas.errors import InputError
from fedlas.integrations.sklearn import CalibratedClassifier

pytestmark = [
    pytest.mark.system,
    pytest.mark.filterwarnings("ignore"),  # of skl2onnx, of few samples, and of the boosters
]


@pytest.fixture(autouse=True)
def _packages():
    for name in ("skl2onnx", "onnxmltools", "onnxruntime"):
        pytest.importorskip(name)


def frame(rows=300, seed=0):
    random = np.random.default_rng(seed)
    columns = {
        "age": random.normal(50, 12, rows),
        "visits": random.integers(0, 9, rows),
        "the city": random.choice(["Ulm", "Köln", "Bonn"], rows),
        "member": random.random(rows) < 0.4,
        "not used": random.normal(size=rows),
    }
    score = (columns["age"] - 50) / 12 + columns["visits"] / 4 + (columns["the city"] == "Ulm")
    target = np.where(random.random(rows) < 1 / (1 + np.exp(1 - score)), "stays", "goes")
    columns["age"][::7] = np.nan
    return pd.DataFrame(columns), target


def steps(encoder=None, *, scaled=True):
    numbers = make_pipeline(SimpleImputer(), *([StandardScaler()] if scaled else []))
    texts = encoder or OneHotEncoder(handle_unknown="ignore")
    return make_column_transformer(
        (numbers, ["age", "visits"]), (texts, ["the city"]), ("passthrough", ["member"])
    )


def estimator(name):
    if name == "xgboost":
        return pytest.importorskip(name).XGBClassifier(n_estimators=12, n_jobs=1)
    if name == "lightgbm":
        return pytest.importorskip(name).LGBMClassifier(n_estimators=12, verbose=-1, n_jobs=1)
    if name == "catboost":
        options = {"verbose": 0, "thread_count": 1, "allow_writing_files": False}
        return pytest.importorskip(name).CatBoostClassifier(n_estimators=12, **options)
    made = {
        "logistic": LogisticRegression,
        "forest": lambda: RandomForestClassifier(20, max_depth=4, random_state=0),
        "trees": lambda: GradientBoostingClassifier(n_estimators=12, random_state=0),
    }
    return made[name]()


def fed(exported, rows):
    """What the file gives, fed as its inputs say."""
    onnxruntime = pytest.importorskip("onnxruntime")
    session = onnxruntime.InferenceSession(str(exported.path))
    columns = {str(name).replace(" ", "_"): name for name in rows.columns}
    inputs = {}
    for each in exported.inputs:
        column = rows[columns[each["name"]]].to_numpy()
        kind = object if each["dtype"] == "string" else each["dtype"]
        inputs[each["name"]] = column.astype(kind)[:, None]
    return session.run(["probs"], inputs)[0]


@pytest.mark.parametrize("name", ["logistic", "forest", "trees", "xgboost", "lightgbm", "catboost"])
@pytest.mark.parametrize("method", ["temperature", "auto"])
def test_numbers_missing_ones_texts_and_truths(name, method, tmp_path):
    rows, target = frame()
    first = steps(scaled=name == "logistic")  # trees compare rounded numbers
    pipe = make_pipeline(first, CalibratedClassifier(estimator(name), method, cv=3))
    pipe.fit(rows, target == "stays" if name == "xgboost" else target)
    exported = deploy.export(pipe, tmp_path / "net.onnx", rows)
    assert exported.difference < 1e-5
    assert exported.samples == 300
    assert [each["name"] for each in exported.inputs] == ["age", "visits", "the_city", "member"]
    assert exported.inputs[2]["dtype"] == "string"
    live, _ = frame(100, seed=1)
    live.loc[3, "the city"] = "Trier"  # which the fit has not seen
    np.testing.assert_allclose(fed(exported, live), pipe.predict_proba(live), atol=1e-5)


def test_its_lines_run(tmp_path):
    rows, target = frame()
    pipe = make_pipeline(steps(), CalibratedClassifier(LogisticRegression(), "platt", cv=3))
    exported = deploy.export(pipe.fit(rows, target), tmp_path / "net.onnx", rows)
    names = {}
    exec("\n".join(exported.example), names)
    assert names["probs"].shape == (1, 2)


def test_an_array_of_numbers(tmp_path):
    rows, target = frame()
    numbers = rows[["age", "visits"]].to_numpy()
    pipe = make_pipeline(
        SimpleImputer(), StandardScaler(), CalibratedClassifier(LogisticRegression(), "beta", cv=3)
    )
    exported = deploy.export(pipe.fit(numbers, target), tmp_path / "net.onnx", numbers)
    assert exported.difference < 1e-5
    assert [each["name"] for each in exported.inputs] == ["X"]


def test_codes_of_categories_stay_whole(tmp_path):
    rows, target = frame()
    first = make_column_transformer((OneHotEncoder(), ["visits"]), (StandardScaler(), ["not used"]))
    pipe = make_pipeline(first, CalibratedClassifier(LogisticRegression(), "temperature", cv=3))
    exported = deploy.export(pipe.fit(rows, target), tmp_path / "net.onnx", rows)
    assert exported.difference < 1e-5


def test_side_information_of_the_last_step(tmp_path):
    rows, target = frame(600)
    model = CalibratedClassifier(estimator("xgboost"), features=True, cv=3)
    pipe = make_pipeline(steps(OrdinalEncoder(), scaled=False), model).fit(rows, target == "stays")
    exported = deploy.export(pipe, tmp_path / "net.onnx", rows)
    assert exported.difference < 1e-5


@pytest.mark.parametrize("kind", ["a function", "missing texts"])
def test_the_error_is_the_line_that_works(kind, tmp_path):
    rows, target = frame()
    first = steps()
    if kind == "a function":
        first = make_pipeline(steps(), FunctionTransformer(lambda values: values**2))
    else:
        rows.loc[::5, "the city"] = None
    pipe = make_pipeline(first, CalibratedClassifier(LogisticRegression(), "temperature", cv=3))
    pipe.fit(rows, target)
    with pytest.raises(
        InputError, match=r"export\(pipe\[-1\], path, pipe\[:-1\]\.transform\(X\)\)"
    ) as error:
        deploy.export(pipe, tmp_path / "net.onnx", rows)
    assert not list(tmp_path.iterdir())
    line = str(error.value).partition("export(")[2].partition("))")[0]
    scope = {"pipe": pipe, "X": rows, "path": tmp_path / "net.onnx", "export": deploy.export}
    assert eval(f"export({line}))", scope).difference < 1e-5


def test_pipeline_export_rejects_other_inputs_and_formats(tmp_path):
    rows, target = frame()
    pipe = make_pipeline(steps(), CalibratedClassifier(LogisticRegression(), "temperature", cv=3))
    pipe.fit(rows, target)
    with pytest.raises(InputError, match="frame or an array"):
        deploy.export(pipe, tmp_path / "net.onnx", "rows")
    with pytest.raises(InputError, match="frame with named columns"):
        deploy.export(pipe, tmp_path / "net.onnx", rows.to_numpy())
    with pytest.raises(InputError, match="form must be 'onnx'"):
        deploy.export(pipe, tmp_path / "net.pt", rows, form="torchscript")
