import json

import numpy as np
import pytest
import torch
from scipy.optimize import minimize

from fedlas import Predictions
from fedlas.calibrators import BetaCalibration, CalibrationWarning, TemperatureScaling


def test_each_class_against_scikit_learn(generated):
    from sklearn.linear_model import LogisticRegression

    val = generated(3000, distort=lambda z: 1.5 * z)
    beta = BetaCalibration().fit(val)
    probs = val.probs
    for label in range(4):
        features = np.stack([np.log(probs[:, label]), -np.log1p(-probs[:, label])], axis=1)
        theirs = LogisticRegression(C=1e8, tol=1e-10, max_iter=10_000).fit(
            features, val.target == label
        )
        assert (theirs.coef_ > 0).all()
        ours = [
            float(values[label])
            for values in (beta.parameters["a"], beta.parameters["b"], beta.parameters["c"])
        ]
        # One sample of prior beside 3,000.
        np.testing.assert_allclose(
            ours, [*theirs.coef_[0], *theirs.intercept_], rtol=0.03, atol=0.03
        )


def test_the_map_that_made_the_probabilities_is_undone():
    """Scores of the positives and negatives drawn from two beta distributions: the paper's derivation."""
    torch.manual_seed(0)
    beta_of = torch.distributions.Beta
    target = torch.randint(2, (40_000,))
    score = torch.where(
        target == 1, beta_of(5.0, 2.0).sample((40_000,)), beta_of(2.0, 3.0).sample((40_000,))
    ).double()
    val = Predictions(torch.stack([(1 - score).log(), score.log()], dim=1), target)
    beta = BetaCalibration().fit(val)
    # the likelihood ratio is s^(5-2) (1-s)^(2-3) times a constant
    assert float(beta.parameters["a"][1]) == pytest.approx(3, abs=0.1)
    assert float(beta.parameters["b"][1]) == pytest.approx(1, abs=0.1)
    assert float(beta.parameters["c"][1]) == pytest.approx(np.log(30 / 12), abs=0.15)
    torch.testing.assert_close(
        beta.parameters["a"].flip(0), beta.parameters["b"], rtol=1e-5, atol=1e-6
    )  # the other class, mirrored


def test_rows_are_divided_by_their_sum(generated):
    val = generated(500)
    beta = BetaCalibration().fit(val)
    p = val.tensors().probs
    maps = 1 / (
        1
        + 1
        / (
            torch.exp(beta.parameters["c"])
            * p ** beta.parameters["a"]
            / (1 - p) ** beta.parameters["b"]
        )
    )  # the paper's form
    torch.testing.assert_close(
        beta.transform(val).tensors().probs, maps / maps.sum(1, keepdim=True)
    )


def test_calibrated_predictions_are_nearly_left_alone(generated):
    val = generated(50_000, distort=lambda z: z)
    beta = BetaCalibration().fit(val)
    for values, identity in (
        (beta.parameters["a"], 1.0),
        (beta.parameters["b"], 1.0),
        (beta.parameters["c"], 0.0),
    ):
        torch.testing.assert_close(values, torch.full((4,), identity).double(), rtol=0, atol=0.12)


def test_a_factor_at_its_bound():
    """Probabilities that say nothing below one half: the fit without bounds makes ``a`` negative."""
    torch.manual_seed(0)
    p = torch.rand(4000).double() * 0.98 + 0.01
    true = torch.where(p < 0.5, 0.55 - 0.3 * p, 0.4 + 0.58 * (p - 0.5) / 0.5)
    target = (torch.rand(4000) < true).long()
    val = Predictions(torch.stack([(1 - p).log(), p.log()], dim=1), target)
    with pytest.warns(CalibrationWarning, match="at its bound 0 for 2"):
        beta = BetaCalibration().fit(val)
    assert float(beta.parameters["a"][1]) == 0.0
    assert float(beta.parameters["b"][1]) > 0
    assert float(beta.parameters["b"][0]) == 0.0
    after = beta.transform(val).tensors().probs[:, 1][p.argsort()]
    assert bool((after.diff() >= -1e-12).all())  # rising, as bounds promise


def test_labels_against_the_scores(generated):
    val = generated(distort=lambda z: -z)
    with pytest.warns(CalibrationWarning, match="at its bound 0 for 4 classes"):
        beta = BetaCalibration().fit(val)
    assert bool(((beta.parameters["a"] == 0) | (beta.parameters["b"] == 0)).all())


def test_a_class_without_a_sample(generated):
    val = generated(500)
    wider = Predictions(
        torch.cat([val.tensors().logits, torch.randn(500, 1)], dim=1), val.tensors().target
    )
    with pytest.warns(CalibrationWarning, match="class 4 of 5 without a validation sample"):
        calibrated = BetaCalibration().fit(wider).transform(wider)
    assert 1e-8 < float(calibrated.tensors().probs[:, 4].mean()) < 1e-2


@pytest.mark.parametrize("margin", [20.0, 1e4, 1e30])
def test_separated_classes(margin):
    target = torch.arange(3).repeat(10)
    val = Predictions(torch.nn.functional.one_hot(target, 3) * margin, target)
    with pytest.warns(CalibrationWarning, match=r"3 classes \(0, 1, 2\) perfectly separates"):
        calibrated = BetaCalibration().fit(val).transform(val)
    assert float(calibrated.tensors().confidence.min()) > 0.98


def test_no_warning_where_nothing_is_wrong(generated):
    BetaCalibration().fit(generated())  # warnings are errors


@pytest.mark.parametrize(
    "value", [[[-1.0, 1, 1]] * 4, [[1.0, 1, 1]] * 3, [[1.0, 1]] * 4, [1.0, 1, 1, 1], None]
)
def test_a_file_that_does_not_fit_is_refused(generated, tmp_path, value):
    path = BetaCalibration().fit(generated(2000)).save(tmp_path / "b.json")
    content = json.loads(path.read_text())
    content["state"]["numbers"] = value
    path.write_text(json.dumps(content))
    with pytest.raises(ValueError, match="state of a BetaCalibration"):
        BetaCalibration.load(path)


@pytest.mark.parametrize("seed", [19, 7, 16, 22])
def test_the_minimum_under_the_bounds_against_scipy(seed):
    """``sum of losses + 0.5 |standardized parameters - those of a temperature|^2`` with a, b >= 0."""
    generator = torch.Generator().manual_seed(seed)
    logits = 4 * torch.randn(100, 3, generator=generator, dtype=torch.float64)
    logits += torch.tensor([2.0, 0.0, -2.0]) * (seed % 4)
    drawn = (0.2 * logits + torch.tensor([0.0, 1.0, 2.0]) * (seed % 2)).softmax(1)
    target = torch.multinomial(drawn, 1, generator=generator)[:, 0]
    val = Predictions(logits, target)
    numbers, temperature = (
        BetaCalibration().fit(val).parameters,
        TemperatureScaling().fit(val).temperature,
    )
    probs = logits.softmax(1)
    for label in range(3):
        x = torch.stack([probs[:, label].log(), -torch.log1p(-probs[:, label])], dim=1).numpy()
        right, mean, deviation = (target == label).double().numpy(), x.mean(axis=0), x.std(axis=0)

        def objective(found, x=x, right=right, mean=mean, deviation=deviation):
            scores = x @ found[:2] + found[2]
            standard = np.append(found[:2] * deviation, found[2] + found[:2] @ mean)
            away = standard - np.append(deviation, mean.sum()) / temperature
            return (np.logaddexp(0, scores) - right * scores).sum() + 0.5 * (away**2).sum()

        starts = ([1.0, 1.0, 0.0], [0.0, 1.0, 0.0], [1.0, 0.0, 0.0])
        bounds = [(0, None), (0, None), (None, None)]
        least = min(
            minimize(objective, start, bounds=bounds, method="L-BFGS-B").fun for start in starts
        )
        assert objective([float(numbers[name][label]) for name in "abc"]) < least + 1e-3
