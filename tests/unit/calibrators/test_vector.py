import json

import numpy as np
import pytest
import torch

from fedlas import Predictions
from fedlas.calibrators import CalibrationWarning, TemperatureScaling, VectorScaling
from fedlas.metrics import nll as negative_log_likelihood

FACTOR, SHIFT = (
    torch.tensor([1.0, 2.0, 3.0, 4.0]).double(),
    torch.tensor([0.5, -0.5, 1.0, -1.0]).double(),
)


def distort(logits):
    return (logits - SHIFT) * FACTOR


def test_the_map_that_made_the_logits_is_undone(generated):
    val = generated(20_000, distort=distort)
    vector = VectorScaling(num_folds=None).fit(val)
    torch.testing.assert_close(vector.weight, 1 / FACTOR, rtol=0.1, atol=0)
    bias = vector.bias - vector.bias.mean()
    torch.testing.assert_close(bias, SHIFT - SHIFT.mean(), rtol=0, atol=0.1)
    torch.testing.assert_close(
        vector.transform(val).tensors().probs, val.tensors().label_probs, rtol=0, atol=0.05
    )


def test_against_scipy(generated):
    from scipy.optimize import minimize

    val = generated(500, distort=distort)

    def nll(x):
        logits = val.tensors().logits * torch.from_numpy(x[:4]) + torch.from_numpy(x[4:])
        return float(torch.nn.functional.cross_entropy(logits, val.tensors().target))

    best = minimize(nll, np.r_[np.full(4, 0.5), np.zeros(4)], method="BFGS", options={"gtol": 1e-7})
    vector = VectorScaling(num_folds=None).fit(val)
    ours = np.r_[vector.weight.numpy(), vector.bias.numpy()]
    assert nll(ours) <= best.fun + 1e-6  # what the hold costs
    np.testing.assert_allclose(ours[:4], best.x[:4], rtol=5e-3)


def test_never_behind_temperature_scaling_where_it_was_fitted(generated):
    for seed in range(5):
        val = generated(100, seed=seed)
        one, other = (
            negative_log_likelihood(c.fit(val).transform(val))
            for c in (VectorScaling(num_folds=None), TemperatureScaling())
        )
        assert one <= other + 1e-12


def test_transform_is_the_map(generated):
    val = generated(200, distort=distort, dtype=torch.float32)
    vector = VectorScaling(num_folds=None).fit(val)
    wanted = (val.tensors().logits.double() * vector.weight + vector.bias).float()
    assert torch.equal(vector.transform(val).tensors().logits, wanted)
    assert vector.weight.shape == vector.bias.shape == (4,)


@pytest.mark.parametrize("factor", [1e-4, 1e4])
def test_the_size_of_the_logits_does_not_matter(generated, factor):
    val = generated(500, distort=distort)
    scaled = Predictions(val.tensors().logits * factor, val.tensors().target)
    torch.testing.assert_close(
        VectorScaling(num_folds=None).fit(scaled).transform(scaled).tensors().probs,
        VectorScaling(num_folds=None).fit(val).transform(val).tensors().probs,
    )


def test_second_fit_warns_of_no_change(generated):
    val = generated()
    once = VectorScaling(num_folds=None).fit(val).transform(val)
    with pytest.warns(
        CalibrationWarning, match="VectorScaling: the fit changes no validation probability"
    ):
        VectorScaling(num_folds=None).fit(once)


def test_a_class_without_a_sample(generated):
    val = generated(500)
    wider = Predictions(
        torch.cat([val.tensors().logits, torch.zeros(500, 1)], dim=1), val.tensors().target
    )
    with pytest.warns(CalibrationWarning, match="class 4 of 5 without a validation sample"):
        calibrated = VectorScaling(num_folds=None).fit(wider).transform(wider)
    share = float(calibrated.tensors().probs[:, 4].mean())
    assert 1e-7 < share < 1e-2


@pytest.mark.parametrize("before", [True, False])
def test_labels_that_can_all_be_predicted(before):
    target = torch.arange(3).repeat(10)
    logits = torch.nn.functional.one_hot(target, 3).double() * 4
    if not before:
        logits[:, 0] += 10  # always the first class, until the bias is right
    with pytest.warns(CalibrationWarning, match="label is predicted"):
        vector = VectorScaling(num_folds=None).fit(Predictions(logits, target))
    calibrated = vector.transform(Predictions(logits, target))
    assert bool(calibrated.tensors().correct.all())
    assert 0.99 < float(calibrated.tensors().confidence.min()) < 1 - 1e-6


def test_cross_validation_chooses_freedom_with_a_gain(generated):
    val, test = generated(2000, distort=distort), generated(2000, distort=distort, seed=1)
    # warnings are errors
    vector, free = VectorScaling().fit(val), VectorScaling(num_folds=None).fit(val)
    torch.testing.assert_close(vector.weight, free.weight, rtol=0.02, atol=0)
    plain = negative_log_likelihood(TemperatureScaling().fit(val).transform(test))
    assert negative_log_likelihood(vector.transform(test)) < plain - 0.05


def test_a_wrong_number_of_folds():
    with pytest.raises(ValueError, match=r"num_folds .*whole number"):
        VectorScaling(num_folds=1)


def test_no_warning_where_nothing_is_wrong(generated):
    VectorScaling(num_folds=None).fit(generated())  # warnings are errors


def test_unfitted():
    for name in ("weight", "bias"):
        with pytest.raises(ValueError, match=rf"VectorScaling\.{name}: .*fitted first"):
            getattr(VectorScaling(), name)


@pytest.mark.parametrize(
    "weight", [[1.0, 2], [1.0, 2, 3, 4, 5], [[1.0] * 4] * 4, None, [1.0, 2, 3, float("nan")]]
)
def test_a_file_that_does_not_fit_is_refused(generated, tmp_path, weight):
    path = VectorScaling(num_folds=None).fit(generated()).save(tmp_path / "v.json")
    content = json.loads(path.read_text())
    content["state"]["weight"] = weight
    path.write_text(json.dumps(content))
    message = (
        "NaN is not JSON" if "nan" in str(weight) else "must hold the state of a VectorScaling"
    )
    with pytest.raises(ValueError, match=message):
        VectorScaling.load(path)


@pytest.mark.system
def test_a_thousand_classes():
    random = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(2000, 1000, generator=random)
    target = torch.multinomial(logits.softmax(1), 1, generator=random).squeeze(1)
    val = Predictions(2 * logits, target)
    with pytest.warns(CalibrationWarning, match="without a validation sample"):
        vector = VectorScaling(num_folds=None).fit(val)
    assert negative_log_likelihood(vector.transform(val)) < negative_log_likelihood(
        TemperatureScaling().fit(val).transform(val)
    )
