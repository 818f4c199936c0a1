import json
import sys
import types

import numpy as np
import pytest
import torch

from fedlas import Predictions
from fedlas._core.extras import MissingExtraError
from fedlas.calibrators import CalibrationWarning, StructuredScaling, structured
from fedlas.metrics import negative_log_likelihood

LEAK = torch.tensor([[1.0, 0.6, 0, 0], [0, 1, 0.6, 0], [0, 0, 1, 0.6], [0, 0, 0, 1]]).double()

both = pytest.mark.parametrize("form", ["matrix", "vector"])


@pytest.fixture
def probmetrics():
    pytest.importorskip("probmetrics")
    pytest.importorskip("numba")
    return structured._probmetrics()


@both
def test_new_samples_against_probmetrics_itself(form, generated, probmetrics):
    val, test = (generated(500, distort=lambda z: 2 * z @ LEAK, seed=seed) for seed in (0, 1))
    theirs = {"matrix": probmetrics.SMSCalibrator, "vector": probmetrics.SVSCalibrator}[form]()
    theirs.fit(val.probs.numpy(), val.target.numpy())
    ours = StructuredScaling(form).fit(val).transform(test)
    # Both fits end in float32, in another order of the samples.
    np.testing.assert_allclose(ours.probs.numpy(), theirs.predict_proba(test.probs.numpy()), atol=5e-4)


def test_probabilities_too_small_for_probmetrics(generated, probmetrics):
    """It takes the logarithm of the smallest normal float32 for theirs, when it fits and so also afterward."""
    val = generated(300, distort=lambda z: 60 * z)
    theirs = probmetrics.SMSCalibrator().fit(val.probs.numpy(), val.target.numpy())
    ours = StructuredScaling().fit(val).transform(val)
    np.testing.assert_allclose(ours.probs.numpy(), theirs.predict_proba(val.probs.numpy()), atol=5e-4)


def test_the_order_of_the_samples_does_not_show(generated, probmetrics):
    val = generated(300, dtype=torch.float32)
    shuffle = torch.randperm(300, generator=torch.Generator().manual_seed(0))
    other = StructuredScaling().fit(Predictions(val.logits[shuffle], val.target[shuffle]))
    assert torch.equal(other.transform(val).logits, StructuredScaling().fit(val).transform(val).logits)


@both
def test_the_documented_objective(form, generated, probmetrics):
    """The same minimum from another solver: what the docstring says is what probmetrics does."""
    val = generated(500, distort=lambda z: 2 * z @ LEAK)
    fitted = StructuredScaling(form).fit(val)
    uniform = 1 / 501
    scaled = (1 - uniform) * (val.logits / fitted.map.temperature).softmax(1) + uniform / 4
    inputs = scaled.log()

    def objective(weight, bias):
        full = torch.diag(weight) if weight.ndim == 1 else weight
        nll = torch.nn.functional.cross_entropy(inputs @ full.T + bias, val.target)
        diagonal = (full.diagonal() - 1).square().sum()
        off = full.square().sum() - full.diagonal().square().sum()
        return float(nll + 4 / 500 * (diagonal + bias.square().sum()) + 4 * 3 / 500 * off)

    from scipy.optimize import minimize

    size = 16 if form == "matrix" else 4
    shape = (4, 4) if form == "matrix" else (4,)
    start = np.r_[np.eye(4).ravel() if form == "matrix" else np.ones(4), np.zeros(4)]
    best = minimize(
        lambda x: objective(torch.from_numpy(x[:size]).view(shape), torch.from_numpy(x[size:])), start, method="BFGS",
        options={"gtol": 1e-6},
    )  # fmt: skip
    assert objective(fitted.map.affine.weight, fitted.map.affine.bias) == pytest.approx(best.fun, abs=1e-5)


@both
def test_better_on_other_samples(form, generated, probmetrics):
    val, test = (generated(2000, distort=lambda z: 2 * z @ LEAK, seed=seed) for seed in (0, 1))
    assert (
        negative_log_likelihood(StructuredScaling(form).fit(val).transform(test)) < negative_log_likelihood(test) - 0.1
    )


@both
def test_saved_numbers_need_no_probmetrics(form, generated, probmetrics, tmp_path, monkeypatch):
    val = generated(200)
    fitted = StructuredScaling(form).fit(val)
    path = fitted.save(tmp_path / "s.json")
    monkeypatch.setitem(sys.modules, "probmetrics", None)
    monkeypatch.setattr(structured, "require", None)
    loaded = StructuredScaling.load(path)
    assert repr(loaded) == f"StructuredScaling(form={form!r})"
    assert torch.equal(loaded.transform(val).logits, fitted.transform(val).logits)


@pytest.mark.parametrize("missing", ["probmetrics", "numba"])
def test_without_the_packages(missing, generated, monkeypatch):
    def require(package, *, extra):
        if package.split(".")[0] == missing:
            raise MissingExtraError(f"fedlas[{extra}]: this needs the package {missing!r}")
        return types.SimpleNamespace()

    monkeypatch.setattr(structured, "require", require)
    scaling = StructuredScaling()
    with pytest.raises(MissingExtraError, match=rf"fedlas\[posthoc\]: this needs the package '{missing}'"):
        scaling.fit(generated(50))
    assert scaling.num_classes is None


def stand_in(**attributes):
    """A package whose fit leaves these attributes."""

    def fit(self, _probs, _target):
        for name, value in attributes.items():
            setattr(self, name, value)
        return self

    kind = type("Fitted", (), {"__init__": lambda self, opt: None, "fit": fit})
    return types.SimpleNamespace(SMSCalibrator=kind)


SCALING = types.SimpleNamespace(cal_=types.SimpleNamespace(invtemp_=0.5), n_samples_=50)


@pytest.mark.parametrize(
    ("attributes", "message"),
    [
        ({"W_": np.eye(4, 5)}, "must keep what it fitted where version 1.3 does; got another version"),
        ({"ts_": SCALING}, "must keep what it fitted where version 1.3 does"),
        ({"ts_": SCALING, "W_": np.full((4, 5), np.nan)}, "must end with finite numbers"),
    ],
)
def test_a_fit_that_cannot_be_used(attributes, message, generated, monkeypatch):
    monkeypatch.setattr(structured, "_probmetrics", lambda: stand_in(**attributes))
    scaling = StructuredScaling("matrix")
    with pytest.raises(ValueError, match=rf"StructuredScaling.fit: .*{message}"):
        scaling.fit(generated(50))
    assert scaling.num_classes is None


def test_a_fit_that_makes_it_worse_warns(generated, monkeypatch):
    monkeypatch.setattr(structured, "_probmetrics", lambda: stand_in(ts_=SCALING, W_=-np.eye(4, 5)))
    with pytest.warns(CalibrationWarning, match="the validation NLL is not below what it was"):
        StructuredScaling("matrix").fit(generated(50))


def test_a_temperature_at_the_bound(probmetrics):
    target = torch.arange(3).repeat(10)
    val = Predictions(torch.nn.functional.one_hot(target, 3) * 9.0, target)
    with pytest.warns(CalibrationWarning, match="temperature scaling in probmetrics ended at a bound, 1.1"):
        StructuredScaling().fit(val)


def test_a_class_without_a_sample(generated, probmetrics):
    val = generated(200)
    wider = Predictions(torch.cat([val.logits, torch.randn(200, 1)], dim=1), val.target)
    with pytest.warns(CalibrationWarning, match="class 4 of 5 without a validation sample"):
        StructuredScaling().fit(wider)


def test_no_warning_where_nothing_is_wrong(generated, probmetrics):
    StructuredScaling().fit(generated())  # warnings are errors


@pytest.mark.parametrize(
    ("samples", "classes", "form"),
    [(500, 10, "matrix"), (499, 10, "vector"), (2897, 200, "vector"), (10_000, 200, "matrix"), (50_000, 201, "vector")],
)
def test_the_form_follows_from_samples_and_classes(samples, classes, form):
    assert structured.chosen_form(samples, classes) == form


@pytest.mark.parametrize(("samples", "form"), [(200, "matrix"), (199, "vector")])
def test_a_chosen_form_is_that_form(samples, form, generated, probmetrics, tmp_path):
    val = generated(samples)
    chosen = StructuredScaling().fit(val)
    assert torch.equal(chosen.map.affine.weight, StructuredScaling(form).fit(val).map.affine.weight)
    loaded = StructuredScaling.load(chosen.save(tmp_path / "s.json"))
    assert torch.equal(loaded.transform(val).logits, chosen.transform(val).logits)


def test_wrong_form_and_unfitted():
    with pytest.raises(
        ValueError, match=r"StructuredScaling: form must be one of matrix, vector; got 'matrx'. Did you"
    ):
        StructuredScaling("matrx")
    with pytest.raises(ValueError, match=r"StructuredScaling.map: the calibrator must be fitted first"):
        _ = StructuredScaling().map


@pytest.mark.parametrize(
    ("name", "value"),
    [("temperature", 0), ("num_samples", 0), ("weight", [1.0] * 4), ("bias", [0.0] * 3), ("weight", None)],
)
def test_a_file_that_does_not_fit_is_refused(generated, tmp_path, monkeypatch, name, value):
    monkeypatch.setattr(structured, "_probmetrics", lambda: stand_in(ts_=SCALING, W_=np.eye(4, 5)))
    path = StructuredScaling("matrix").fit(generated(50)).save(tmp_path / "s.json")
    content = json.loads(path.read_text())
    content["state"][name] = value
    path.write_text(json.dumps(content))
    with pytest.raises(ValueError, match="must hold the state of a StructuredScaling"):
        StructuredScaling.load(path)
