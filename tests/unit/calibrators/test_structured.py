import json

import numpy as np
import pytest
import torch

from fedlas import Predictions
from fedlas.calibrators import CalibrationWarning, StructuredScaling, structured
from fedlas.metrics import nll as negative_log_likelihood

LEAK = torch.tensor([[1.0, 0.6, 0, 0], [0, 1, 0.6, 0], [0, 0, 1, 0.6], [0, 0, 0, 1]]).double()

both = pytest.mark.parametrize("form", ["matrix", "vector"])


@pytest.fixture
def probmetrics():
    pytest.importorskip("numba")
    return pytest.importorskip("probmetrics.calibrators")


@both
def test_new_samples_against_probmetrics_itself(form, generated, probmetrics):
    val, test = (generated(500, distort=lambda z: 2 * z @ LEAK, seed=seed) for seed in (0, 1))
    theirs = {"matrix": probmetrics.SMSCalibrator, "vector": probmetrics.SVSCalibrator}[form]()
    theirs.fit(val.probs.copy(), val.target.copy())
    ours = StructuredScaling(form).fit(val).transform(test)
    # Both fits end in float32, in another order of the samples.
    np.testing.assert_allclose(ours.probs, theirs.predict_proba(test.probs.copy()), atol=5e-4)


def test_the_order_of_the_samples_does_not_show(generated):
    val = generated(300, dtype=torch.float32)
    shuffle = torch.randperm(300, generator=torch.Generator().manual_seed(0))
    other = StructuredScaling().fit(
        Predictions(val.tensors().logits[shuffle], val.tensors().target[shuffle])
    )
    ours = StructuredScaling().fit(val).transform(val)
    torch.testing.assert_close(other.transform(val).tensors().logits, ours.tensors().logits)


@both
def test_the_documented_objective(form, generated):
    """The same minimum from another solver: as the docstring says."""
    val = generated(500, distort=lambda z: 2 * z @ LEAK)
    fitted = StructuredScaling(form).fit(val)
    uniform = 1 / 501
    scaled = (1 - uniform) * (val.tensors().logits / fitted.map.temperature).softmax(
        1
    ) + uniform / 4
    inputs = scaled.log()

    def objective(weight, bias):
        full = torch.diag(weight) if weight.ndim == 1 else weight
        nll = torch.nn.functional.cross_entropy(inputs @ full.T + bias, val.tensors().target)
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
    assert objective(fitted.map.weight, fitted.map.bias) == pytest.approx(best.fun, abs=1e-5)


@both
def test_better_on_other_samples(form, generated):
    val, test = (generated(2000, distort=lambda z: 2 * z @ LEAK, seed=seed) for seed in (0, 1))
    assert (
        negative_log_likelihood(StructuredScaling(form).fit(val).transform(test))
        < negative_log_likelihood(test) - 0.1
    )


@both
def test_saved_numbers_are_the_same(form, generated, tmp_path):
    val = generated(200)
    fitted = StructuredScaling(form).fit(val)
    path = fitted.save(tmp_path / "s.json")
    loaded = StructuredScaling.load(path)
    assert repr(loaded) == f"StructuredScaling(form={form!r})"
    assert torch.equal(
        loaded.transform(val).tensors().logits, fitted.transform(val).tensors().logits
    )


def test_a_class_without_a_sample(generated):
    val = generated(200)
    wider = Predictions(
        torch.cat([val.tensors().logits, torch.randn(200, 1)], dim=1), val.tensors().target
    )
    with pytest.warns(CalibrationWarning, match="class 4 of 5 without a validation sample"):
        StructuredScaling().fit(wider)


def test_no_warning_where_nothing_is_wrong(generated):
    StructuredScaling().fit(generated())  # warnings are errors


@pytest.mark.parametrize(
    ("samples", "classes", "form"),
    [
        (500, 10, "matrix"),
        (499, 10, "vector"),
        (2897, 200, "vector"),
        (10_000, 200, "matrix"),
        (50_000, 201, "vector"),
    ],
)
def test_the_form_follows_from_samples_and_classes(samples, classes, form):
    assert structured.choose_form(samples, classes) == form


@pytest.mark.parametrize(("samples", "form"), [(200, "matrix"), (199, "vector")])
def test_a_chosen_form_is_that_form(samples, form, generated, tmp_path):
    val = generated(samples)
    chosen = StructuredScaling().fit(val)
    assert torch.equal(chosen.map.weight, StructuredScaling(form).fit(val).map.weight)
    loaded = StructuredScaling.load(chosen.save(tmp_path / "s.json"))
    assert torch.equal(
        loaded.transform(val).tensors().logits, chosen.transform(val).tensors().logits
    )


def test_wrong_form_and_unfitted():
    with pytest.raises(ValueError, match=r"form .*matrix, vector; got 'matrx'"):
        StructuredScaling("matrx")
    with pytest.raises(ValueError, match=r"StructuredScaling\.map: .*fitted first"):
        _ = StructuredScaling().map


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("temperature", 0),
        ("num_samples", 0),
        ("weight", [1.0] * 3),
        ("bias", [0.0] * 3),
        ("weight", None),
    ],
)
def test_a_file_that_does_not_fit_is_refused(generated, tmp_path, name, value):
    path = StructuredScaling("matrix").fit(generated(50)).save(tmp_path / "s.json")
    content = json.loads(path.read_text())
    content["state"][name] = value
    path.write_text(json.dumps(content))
    with pytest.raises(ValueError, match="state of a StructuredScaling"):
        StructuredScaling.load(path)


def test_a_sample_of_weight_two_counts_as_two(generated):
    val = generated(300, 10)
    twice = Predictions(
        torch.cat([val.tensors().logits] * 2), torch.cat([val.tensors().target] * 2)
    )
    weighted = Predictions(
        val.tensors().logits, val.tensors().target, weights=torch.full((300,), 2.0)
    )
    one, other = StructuredScaling().fit(weighted), StructuredScaling().fit(twice)
    assert one.map.weight.shape == other.map.weight.shape == (10, 10)
    torch.testing.assert_close(
        one.transform(val).tensors().logits, other.transform(val).tensors().logits
    )
