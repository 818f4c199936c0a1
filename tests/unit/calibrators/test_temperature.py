import warnings

import pytest
import torch

from fedlas import Predictions
from fedlas.calibrators import CalibrationWarning, TemperatureScaling
from fedlas.metrics import accuracy, ece, nll


def generated(true_temperature, samples=20_000, classes=10, dtype=torch.float32, seed=0):
    torch.manual_seed(seed)
    logits = torch.randn(samples, classes, dtype=torch.float64) * 3 * true_temperature
    target = torch.multinomial((logits / true_temperature).softmax(1), 1).squeeze(1)
    return Predictions(logits.to(dtype), target)


@pytest.mark.parametrize("known", [0.3, 0.9, 1.7, 5.0, 40.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_temperature_that_made_the_labels_is_recovered(known, dtype):
    # One standard error of the fitted temperature is below 1 % here.
    assert TemperatureScaling().fit(generated(known, dtype=dtype)).temperature == pytest.approx(
        known, rel=0.03
    )


@pytest.mark.parametrize("known", [0.5, 2.0])
def test_the_ece_objective_is_near_it(known):
    assert TemperatureScaling("ece").fit(generated(known)).temperature == pytest.approx(
        known, abs=0.15
    )


def test_second_fit_warns_of_no_change():
    p = generated(2.5, dtype=torch.float64)
    once = TemperatureScaling().fit(p).transform(p)
    again = TemperatureScaling()
    with pytest.warns(CalibrationWarning, match="changes no validation probability"):
        again.fit(once)
    assert again.temperature == pytest.approx(1, abs=1e-8)


@pytest.mark.parametrize("margin", [1.0, 50.0, 1e28])
def test_no_mistakes_keep_temperature_with_warning(margin):
    target = torch.arange(5).repeat(4)
    p = Predictions(torch.nn.functional.one_hot(target, 5).float() * 10 * margin, target)
    with pytest.warns(CalibrationWarning, match=r"0 of 20 .*mistakes.*held at 1,"):
        scaling = TemperatureScaling().fit(p)
    assert scaling.temperature == 1.0


def test_worse_than_chance_warns_of_upper_bound():
    target = torch.arange(5).repeat(4)
    p = Predictions(-3 * torch.nn.functional.one_hot(target, 5).float(), target)
    spread = 3 * 0.4  # root mean square distance of a logit from its row's mean
    for objective, bound in (("nll", pytest.approx(100 * spread)), ("ece", 10.0)):
        with pytest.warns(CalibrationWarning, match="bound"):
            assert TemperatureScaling(objective).fit(p).temperature == bound


@pytest.mark.parametrize(
    "logits", [torch.zeros(6, 3), torch.full((6, 3), 1e4), torch.randn(6, 1), torch.zeros(1, 1)]
)
def test_nothing_to_scale_gives_one_and_a_warning(logits):
    with pytest.warns(CalibrationWarning, match="changes no validation probability"):
        scaling = TemperatureScaling().fit(
            Predictions(logits, torch.zeros(len(logits), dtype=torch.long))
        )
    assert scaling.temperature == 1.0


def test_ece_objective_is_the_best_of_the_grid():
    p = generated(2.0, samples=300)
    errors = {
        t / 10: ece(p.with_logits(p.tensors().logits / (t / 10)), num_bins=10)
        for t in range(1, 101)
    }
    fitted = TemperatureScaling("ece", num_bins=10).fit(p).temperature
    assert fitted == pytest.approx(min(errors, key=errors.__getitem__))


def test_transform_keeps_accuracy_dtype_and_the_other_arrays():
    p = generated(3.0, samples=200)
    p = Predictions(
        p.tensors().logits,
        p.tensors().target,
        features=torch.ones(200, 2),
        label_probs=p.tensors().probs,
    )
    scaling = TemperatureScaling().fit(p)
    q = scaling.transform(p)
    assert accuracy(q) == accuracy(p)
    assert q.tensors().logits.dtype == p.tensors().logits.dtype
    assert torch.equal(q.tensors().features, p.tensors().features)
    assert torch.equal(q.tensors().label_probs, p.tensors().label_probs)
    assert nll(q) < nll(p)
    torch.testing.assert_close(q.tensors().logits * scaling.temperature, p.tensors().logits)


def test_warning_as_error_leaves_calibrator_fitted():
    p = Predictions(torch.zeros(2, 2), [0, 1])
    scaling = TemperatureScaling()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(CalibrationWarning):
            scaling.fit(p)
    assert scaling.transform(p).logits.tolist() == p.logits.tolist()


def test_the_warning_points_at_the_caller():
    with pytest.warns(CalibrationWarning) as caught:
        TemperatureScaling().fit(Predictions(torch.zeros(2, 2), [0, 1]))
    assert caught[0].filename == __file__


def test_unfitted():
    scaling = TemperatureScaling()
    with pytest.raises(ValueError, match=r"TemperatureScaling\.temperature: .*fitted first"):
        _ = scaling.temperature
    assert repr(scaling) == "TemperatureScaling(objective='nll', num_bins=15)"
    with pytest.raises(AttributeError):
        scaling.temperature = 2.0


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"objective": "nl"}, "objective must be one of nll, ece; got 'nl'. Did you mean 'nll'"),
        ({"objective": None}, "objective must be one of nll, ece; got None"),
        ({"num_bins": 0}, "num_bins must be a whole number of at least 1; got int 0"),
    ],
)
def test_wrong_arguments(kwargs, message):
    with pytest.raises(ValueError, match=message):
        TemperatureScaling(**kwargs)


@pytest.mark.parametrize("value", [0, -1, "1", None, float("nan"), float("inf"), True, [1.0]])
def test_a_file_with_an_impossible_temperature_is_refused(tmp_path, value):
    path = TemperatureScaling().fit(generated(2.0, samples=100)).save(tmp_path / "t.json")
    import json

    content = json.loads(path.read_text())
    content["state"]["temperature"] = value
    path.write_text(json.dumps(content))
    message = (
        "is not JSON"
        if str(value) in ("nan", "inf")
        else "must hold the state of a TemperatureScaling"
    )
    with pytest.raises(ValueError, match=rf"TemperatureScaling.load: the file .*{message}"):
        TemperatureScaling.load(path)
