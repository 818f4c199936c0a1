import json

import numpy as np
import pytest
import torch

from fedlas import Predictions
from fedlas.calibrators import CalibrationWarning, PlattScaling


def test_each_class_against_scipy(generated):
    from scipy.optimize import minimize

    val = generated(500, classes=3)
    platt = PlattScaling().fit(val)
    scores = torch.logit(val.tensors().probs).numpy()
    for label in range(3):
        own = (val.tensors().target == label).numpy()
        wanted = np.where(own, (own.sum() + 1) / (own.sum() + 2), 1 / ((~own).sum() + 2))

        def loss(x, label=label, wanted=wanted):
            z = x[0] * scores[:, label] + x[1]
            return (np.logaddexp(0, z) - wanted * z).mean()

        best = minimize(loss, [1.0, 0.0], method="BFGS", options={"gtol": 1e-9})
        np.testing.assert_allclose(
            [platt.parameters["slope"][label], platt.parameters["offset"][label]],
            best.x,
            rtol=1e-3,
            atol=1e-3,
        )


def test_two_classes_against_scikit_learn(generated):
    """Platt's sigmoid of one score, labels included, as scikit-learn fits it."""
    frozen = pytest.importorskip("sklearn.frozen")
    from sklearn.calibration import CalibratedClassifierCV
    from sklearn.linear_model import LogisticRegression

    val = generated(400, classes=2)
    scores = (val.tensors().logits[:, 1] - val.tensors().logits[:, 0]).numpy()[:, None]
    score_itself = LogisticRegression().fit(scores, val.target)
    score_itself.coef_, score_itself.intercept_ = np.ones((1, 1)), np.zeros(1)
    theirs = CalibratedClassifierCV(
        frozen.FrozenEstimator(score_itself), method="sigmoid", ensemble=False
    )
    theirs.fit(scores, val.target)
    ours = PlattScaling().fit(val).transform(val).tensors().probs
    np.testing.assert_allclose(ours.numpy(), theirs.predict_proba(scores), atol=2e-4)


def test_rows_are_divided_by_their_sum(generated):
    val = generated(200)
    platt = PlattScaling().fit(val)
    sigmoids = (
        torch.logit(val.tensors().probs) * platt.parameters["slope"] + platt.parameters["offset"]
    ).sigmoid()
    torch.testing.assert_close(
        platt.transform(val).tensors().probs, sigmoids / sigmoids.sum(1, keepdim=True)
    )


def test_calibrated_predictions_are_nearly_left_alone(generated):
    val = generated(50_000, distort=lambda z: z)
    platt = PlattScaling().fit(val)
    torch.testing.assert_close(platt.parameters["slope"], torch.ones(4).double(), rtol=0, atol=0.05)
    torch.testing.assert_close(
        platt.parameters["offset"], torch.zeros(4).double(), rtol=0, atol=0.05
    )


def test_a_slope_that_is_not_above_0(generated):
    val = generated(distort=lambda z: z * torch.tensor([1.0, 1, 1, -1]))
    with pytest.warns(CalibrationWarning, match=r"slope .*above 0 for class 3"):
        platt = PlattScaling().fit(val)
    assert float(platt.parameters["slope"][3]) < 0


def test_absent_class_has_the_platt_target(generated):
    val = generated(500)
    wider = Predictions(
        torch.cat([val.tensors().logits, torch.randn(500, 1)], dim=1), val.tensors().target
    )
    with pytest.warns(CalibrationWarning, match="class 4 of 5 without a validation sample"):
        platt = PlattScaling().fit(wider)
    sigmoid = (
        torch.logit(wider.tensors().probs)[:, 4] * platt.parameters["slope"][4]
        + platt.parameters["offset"][4]
    ).sigmoid()
    torch.testing.assert_close(sigmoid, torch.full((500,), 1 / 502).double(), rtol=0.1, atol=0)


@pytest.mark.parametrize("margin", [50.0, 1e4, 1e30])
def test_certain_predictions_that_are_all_right(margin):
    target = torch.arange(3).repeat(10)
    val = Predictions(torch.nn.functional.one_hot(target, 3) * margin, target)
    calibrated = PlattScaling().fit(val).transform(val)
    # by symmetry: each class's sigmoid meets its labels 11/12 and 1/22
    torch.testing.assert_close(
        calibrated.tensors().confidence,
        torch.full((30,), (11 / 12) / (11 / 12 + 2 / 22)),
        rtol=1e-2,
        atol=0,
    )


def test_no_warning_where_nothing_is_wrong(generated):
    PlattScaling().fit(generated())  # warnings are errors


def test_unfitted_and_files(generated, tmp_path):
    with pytest.raises(ValueError, match=r"PlattScaling\.parameters: .*fitted first"):
        _ = PlattScaling().parameters
    path = PlattScaling().fit(generated(50)).save(tmp_path / "p.json")
    content = json.loads(path.read_text())
    content["state"]["numbers"] = [[1.0, 2.0]] * 3
    path.write_text(json.dumps(content))
    with pytest.raises(ValueError, match="state of a PlattScaling"):
        PlattScaling.load(path)


@pytest.mark.parametrize("factor", [1e15, 1e28])
def test_logits_of_any_size(factor, generated):
    val = generated(500)
    huge = Predictions(val.tensors().logits * factor, val.tensors().target)
    plain, same = PlattScaling().fit(val).transform(val), PlattScaling().fit(huge).transform(huge)
    # Their log-odds are differences of logits, which those of ordinary logits are nearly.
    assert float((plain.tensors().probs - same.tensors().probs).abs().mean()) < 0.03
