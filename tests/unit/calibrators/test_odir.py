import json
import re
from dataclasses import replace

import numpy as np
import pytest
import torch

from fedlas import Predictions
from fedlas.calibrators import (
    CalibrationWarning,
    DirichletCalibration,
    MatrixScaling,
    TemperatureScaling,
)
from fedlas.calibrators import matrix as odir
from fedlas.calibrators._fit.folds import make_folds
from fedlas.calibrators._fit.softmax_regression import FREEDOMS, SoftmaxRegression
from fedlas.calibrators.affine import temperature_start
from fedlas.calibrators.matrix import Penalties, penalty_grids
from fedlas.metrics import nll as negative_log_likelihood

LEAK = torch.tensor([[1.0, 0.6, 0, 0], [0, 1, 0.6, 0], [0, 0, 1, 0.6], [0, 0, 0, 1]]).double()

both = pytest.mark.parametrize("kind", [MatrixScaling, DirichletCalibration])


def inputs_of(kind, val):
    return val.tensors().logits if kind is MatrixScaling else val.tensors().logits.log_softmax(1)


@both
@pytest.mark.parametrize(("off_diagonal", "intercept"), [(0.0, 0.0), (1.0, 0.5), (100.0, 3.0)])
def test_the_paper_s_objective_against_scipy(kind, off_diagonal, intercept, generated):
    from scipy.optimize import minimize

    val = generated(300, classes=3, distort=lambda z: 2 * z + z.roll(1, dims=1))
    inputs = inputs_of(kind, val)

    def objective(x):
        weight, bias = x[:9].view(3, 3), x[9:]
        nll = torch.nn.functional.cross_entropy(inputs @ weight.T + bias, val.tensors().target)
        off = (weight.square().sum() - weight.diagonal().square().sum()) / (3 * 2)
        return nll + off_diagonal * off + intercept * bias.square().sum() / 3

    best = minimize(
        lambda x: float(objective(torch.from_numpy(x))),
        np.r_[np.eye(3).ravel(), np.zeros(3)],
        jac=lambda x: torch.autograd.functional.jacobian(objective, torch.from_numpy(x)).numpy(),
        method="BFGS",
        options={"gtol": 1e-8, "maxiter": 5000},
    )
    fitted = kind(off_diagonal, intercept).fit(val)
    ours = torch.cat([fitted.weight.flatten(), fitted.bias])
    assert float(objective(ours)) <= best.fun + 1e-5  # what the hold costs
    theirs = torch.from_numpy(best.x)
    probs = (inputs @ theirs[:9].view(3, 3).T + theirs[9:]).softmax(1)
    torch.testing.assert_close(fitted.transform(val).tensors().probs, probs, rtol=0, atol=2e-3)


def test_the_chosen_penalties_predict_held_out_labels_best(generated):
    """Recomputed with folds drawn here, fits from scratch and all the grid."""
    val = generated(300, distort=lambda z: 2 * z @ LEAK)
    start = temperature_start(val)
    folds = make_folds(val, 5).number

    def held_out(penalties):
        total = 0.0
        for fold in range(5):
            train, held = folds != fold, folds == fold
            rows, target = val.tensors().logits[train], val.tensors().target[train]
            weights = torch.ones(len(target), dtype=rows.dtype)
            kind = {"diagonal": False, "scale": start.scale, "width": start.width}
            fit = SoftmaxRegression(rows, target, weights, penalties, **kind).solve()
            probs = fit(val.tensors().logits[held]).softmax(1)
            total -= float(
                probs[torch.arange(int(held.sum())), val.tensors().target[held]].log().sum()
            )
        return total

    off_diagonal, intercept = penalty_grids(300, 4, start.width)
    best = min(
        (Penalties(off_diagonal[0], intercept[2], freedom) for freedom in FREEDOMS), key=held_out
    )
    assert best.freedom < FREEDOMS[-1]  # there is something to choose
    best = min((replace(best, off_diagonal=value) for value in off_diagonal), key=held_out)
    assert best.off_diagonal not in (off_diagonal[0], off_diagonal[-1])
    best = min((replace(best, intercept=value) for value in intercept), key=held_out)
    chosen = MatrixScaling().fit(val).penalties
    assert chosen.off_diagonal == pytest.approx(best.off_diagonal)
    assert (chosen.intercept, chosen.freedom) == (best.intercept, best.freedom)


@both
def test_leaking_classes_get_weak_penalties(kind, generated):
    shift = torch.tensor([1.0, -1, 0, 0])
    leaking, clean = (
        generated(3000, distort=lambda z: 2 * z @ LEAK),
        generated(3000, distort=lambda z: 2 * z + shift),
    )
    assert (
        kind().fit(leaking).penalties.off_diagonal < 0.05 * kind().fit(clean).penalties.off_diagonal
    )


@both
def test_better_than_temperature_scaling_on_other_samples(kind, generated):
    distort = lambda z: 2 * z @ LEAK + torch.tensor([1.0, -1, 0, 0])  # noqa: E731
    val, test = generated(2000, distort=distort), generated(5000, distort=distort, seed=1)
    scaled, temperature = (
        negative_log_likelihood(c.fit(val).transform(test)) for c in (kind(), TemperatureScaling())
    )
    assert scaled < temperature - 0.05


@both
def test_never_behind_temperature_scaling_where_it_was_fitted(kind, generated):
    for seed in range(3):
        val = generated(100, seed=seed)
        scaled, temperature = (
            negative_log_likelihood(c.fit(val).transform(val))
            for c in (kind(1.0, 1.0), TemperatureScaling())
        )
        assert scaled <= temperature + 1e-12


def test_the_grid_fits_logits_of_any_size(generated):
    """Scaled logits: the same probabilities, from penalties scaled to match."""
    val = generated(300, distort=lambda z: 2 * z @ LEAK)
    scaled = Predictions(val.tensors().logits * 1000, val.tensors().target)
    one, other = MatrixScaling().fit(val), MatrixScaling().fit(scaled)
    torch.testing.assert_close(
        other.transform(scaled).tensors().probs,
        one.transform(val).tensors().probs,
        rtol=1e-5,
        atol=1e-6,
    )
    assert other.penalties.off_diagonal == pytest.approx(one.penalties.off_diagonal * 1e6)


def test_penalties_are_priors_of_the_documented_width():
    samples, classes, scale = 500, 7, 0.25
    off_diagonal, intercept = penalty_grids(samples, classes, scale)
    # exp(-N penalty w^2) is a Gaussian of variance 1 / (2 N penalty)
    widths = [
        (1 / (2 * samples * value / (classes * (classes - 1)))) ** 0.5 / scale
        for value in off_diagonal
    ]
    np.testing.assert_allclose(widths, odir.OFF_DIAGONAL_FREEDOM)
    np.testing.assert_allclose(
        [(classes / (2 * samples * value)) ** 0.5 for value in intercept], odir.INTERCEPT_FREEDOM
    )


def test_given_penalties_are_taken_without_a_search(generated, monkeypatch):
    monkeypatch.setattr(odir, "HeldOutLoss", None)
    assert MatrixScaling(2.0, 3.0).fit(generated(100)).penalties == Penalties(2.0, 3.0)


def test_one_given_penalty_is_kept(generated):
    val = generated(300, distort=lambda z: 2 * z @ LEAK)
    assert MatrixScaling(off_diagonal=2.0).fit(val).penalties.off_diagonal == 2.0
    assert MatrixScaling(intercept=3.0).fit(val).penalties.intercept == 3.0


def test_weakest_grid_penalty_warns_of_a_bound(generated, monkeypatch):
    monkeypatch.setattr(odir, "OFF_DIAGONAL_FREEDOM", (0.01, 0.03))
    val = generated(distort=lambda z: 2 * z @ LEAK)
    with pytest.warns(CalibrationWarning, match=r"weakest penalty .*off_diagonal"):
        MatrixScaling().fit(val)
    monkeypatch.setattr(odir, "INTERCEPT_FREEDOM", (0.03, 0.1))
    shifted = generated(distort=lambda z: 2 * z @ LEAK + torch.tensor([4.0, -4, 0, 0]))
    with pytest.warns(CalibrationWarning, match="for off_diagonal and intercept"):
        MatrixScaling().fit(shifted)


def test_too_few_samples_for_the_folds():
    val = Predictions([[1.0, 0.0], [0.0, 1.0], [2.0, 0.0]], [0, 1, 1])
    with pytest.warns(CalibrationWarning, match=r"3 distinct samples .* 5 folds"):
        matrix = MatrixScaling().fit(val)
    off_diagonal, intercept = penalty_grids(3, 2, temperature_start(val).width)
    assert matrix.penalties == Penalties(off_diagonal[0], intercept[0], FREEDOMS[0])
    with pytest.warns(CalibrationWarning, match="so temperature scaling is used"):
        assert MatrixScaling(num_folds=3).fit(val).num_classes == 2


@both
def test_nothing_to_warn_of(kind, generated):
    kind().fit(generated(distort=lambda z: 2 * z @ LEAK))  # warnings are errors


@both
@pytest.mark.filterwarnings("ignore::fedlas.calibrators.CalibrationWarning")
def test_penalties_are_saved(kind, generated, tmp_path):
    fitted = kind(num_folds=3).fit(generated(300, distort=lambda z: 2 * z @ LEAK))
    loaded = kind.load(fitted.save(tmp_path / "c.json"))
    assert loaded.penalties == fitted.penalties
    assert (
        repr(loaded)
        == repr(fitted)
        == f"{kind.__name__}(off_diagonal=None, intercept=None, num_folds=3)"
    )


@both
@pytest.mark.filterwarnings("ignore::fedlas.calibrators.CalibrationWarning")
def test_copies_of_samples_are_no_new_evidence(kind, generated):
    """Without shared folds held-out samples are training samples: the test NLL rises by 0.3 to 0.6."""
    val, test = generated(200, 10), generated(3000, 10, seed=1)
    copied = Predictions(val.tensors().logits.repeat(5, 1), val.tensors().target.repeat(5))
    once, five = (negative_log_likelihood(kind().fit(p).transform(test)) for p in (val, copied))
    assert five < once + 0.05 < negative_log_likelihood(test)


@pytest.mark.parametrize(
    ("name", "value"),
    [("weight", [1.0] * 4), ("weight", [[1.0] * 3] * 3), ("bias", [1.0] * 3), ("penalties", {}), ("penalties", None),
     ("penalties", [-1.0, 1.0, 1.0]), ("penalties", [1.0, 1.0, 0.0]), ("penalties", [1.0, 1.0])],
)  # fmt: skip
def test_a_file_that_does_not_fit_is_refused(generated, tmp_path, name, value):
    path = MatrixScaling(1.0, 1.0).fit(generated(50)).save(tmp_path / "m.json")
    content = json.loads(path.read_text())
    content["state"][name] = value
    path.write_text(json.dumps(content))
    with pytest.raises(ValueError, match="state of a MatrixScaling"):
        MatrixScaling.load(path)


@both
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"off_diagonal": -1}, "off_diagonal must be a finite number in [0, inf)"),
        ({"intercept": "1"}, "intercept must be a finite number in [0, inf)"),
        ({"off_diagonal": False}, "off_diagonal must be a finite number"),
        ({"num_folds": 1}, "num_folds must be a whole number of at least 2"),
    ],
)
def test_wrong_options(kind, options, message):
    with pytest.raises(ValueError, match=f"{kind.__name__}: {re.escape(message)}"):
        kind(**options)


@both
def test_unfitted(kind):
    for name in ("weight", "bias", "penalties"):
        with pytest.raises(ValueError, match=rf"{kind.__name__}\.{name}: .*fitted first"):
            getattr(kind(), name)
