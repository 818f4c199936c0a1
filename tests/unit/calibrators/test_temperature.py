import math
import warnings

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fedlas import Predictions
from fedlas.calibrators import CalibrationWarning, TemperatureScaling, temperature
from fedlas.calibrators.temperature import ECE_GRID, MAX_TEMPERATURE, MIN_TEMPERATURE, ece_temperature, nll_temperature
from fedlas.metrics import accuracy, expected_calibration_error, negative_log_likelihood


def generated(true_temperature, samples=20_000, classes=10, dtype=torch.float32, seed=0):
    torch.manual_seed(seed)
    logits = torch.randn(samples, classes, dtype=torch.float64) * 3 * true_temperature
    target = torch.multinomial((logits / true_temperature).softmax(1), 1).squeeze(1)
    return Predictions(logits.to(dtype), target)


@pytest.mark.parametrize("known", [0.3, 0.9, 1.7, 5.0, 40.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_temperature_that_made_the_labels_is_recovered(known, dtype):
    # One standard error of the fitted temperature is below 1 % here.
    assert TemperatureScaling().fit(generated(known, dtype=dtype)).temperature == pytest.approx(known, rel=0.03)


@pytest.mark.parametrize("known", [0.5, 2.0])
def test_the_ece_objective_is_near_it(known):
    assert TemperatureScaling("ece").fit(generated(known)).temperature == pytest.approx(known, abs=0.15)


@given(st.integers(0, 10_000), st.integers(2, 60), st.integers(2, 6), st.sampled_from([0.05, 1.0, 4.0, 30.0]))
def test_it_is_the_minimum(seed, samples, classes, scale):
    rng = np.random.default_rng(seed)
    p = Predictions(rng.normal(size=(samples, classes)) * scale, rng.integers(0, classes, samples))

    def nll(value):
        return float(torch.nn.functional.cross_entropy(p.logits / value, p.target))

    fitted = nll_temperature(p)
    assert MIN_TEMPERATURE <= fitted <= MAX_TEMPERATURE
    for factor in (0.5, 0.9, 0.99, 1.01, 1.1, 2.0):
        other = min(max(fitted * factor, MIN_TEMPERATURE), MAX_TEMPERATURE)
        assert nll(fitted) <= nll(other) + 1e-12


def test_against_scipy():
    from scipy.optimize import minimize_scalar

    p = generated(1.6, samples=500, dtype=torch.float64)
    best = minimize_scalar(
        lambda scale: float(torch.nn.functional.cross_entropy(p.logits * scale, p.target)),
        bounds=(0.01, 100),
        method="bounded",
        options={"xatol": 1e-12},
    )
    # The minimizer sees function values only, so it is good to the square root of the machine precision.
    assert nll_temperature(p) == pytest.approx(1 / best.x, rel=1e-6)


@given(st.floats(0.05, 20))
def test_calibrated_logits_have_a_scaled_temperature(factor):
    p = generated(1.5, samples=300, classes=4, dtype=torch.float64)
    scaled = Predictions(p.logits * factor, p.target)
    assert nll_temperature(scaled) == pytest.approx(factor * nll_temperature(p), rel=1e-8)


def test_a_second_fit_finds_nothing_left_and_says_so():
    p = generated(2.5, dtype=torch.float64)
    once = TemperatureScaling().fit(p).transform(p)
    again = TemperatureScaling()
    with pytest.warns(CalibrationWarning, match="TemperatureScaling: the fitted temperature is 1, so predictions stay"):
        again.fit(once)
    assert again.temperature == pytest.approx(1, abs=1e-8)


def test_few_passes_over_the_data(monkeypatch):
    calls = []
    slope = temperature._slope
    monkeypatch.setattr(temperature, "_slope", lambda *a: calls.append(a) or slope(*a))
    for known in (0.1, 0.5, 1.0, 3.0, 30.0):
        calls.clear()
        nll_temperature(generated(known, samples=500))
        assert len(calls) <= 15


@pytest.mark.parametrize("margin", [1e-3, 1.0, 50.0, 1e4, 1e30])
def test_all_correct_ends_at_the_lower_bound_with_a_warning(margin):
    target = torch.arange(5).repeat(4)
    p = Predictions(torch.nn.functional.one_hot(target, 5).float() * margin, target)
    with pytest.warns(CalibrationWarning, match=r"NLL is lowest at a bound of the search, temperature 0\.01"):
        scaling = TemperatureScaling().fit(p)
    assert scaling.temperature == MIN_TEMPERATURE


def test_worse_than_chance_ends_at_the_upper_bound_with_a_warning():
    target = torch.arange(5).repeat(4)
    p = Predictions(-3 * torch.nn.functional.one_hot(target, 5).float(), target)
    for objective, bound in (("nll", MAX_TEMPERATURE), ("ece", ECE_GRID[-1])):
        with pytest.warns(CalibrationWarning, match="bound"):
            assert TemperatureScaling(objective).fit(p).temperature == bound


@pytest.mark.parametrize("logits", [torch.zeros(6, 3), torch.full((6, 3), 1e4), torch.randn(6, 1), torch.zeros(1, 1)])
def test_nothing_to_scale_gives_one_and_a_warning(logits):
    with pytest.warns(CalibrationWarning, match="stay as they are"):
        scaling = TemperatureScaling().fit(Predictions(logits, torch.zeros(len(logits), dtype=torch.long)))
    assert scaling.temperature == 1.0


def test_a_large_offset_of_the_logits_does_not_matter():
    p = generated(2.0, samples=500, dtype=torch.float64)
    assert nll_temperature(Predictions(p.logits + 1e6, p.target)) == pytest.approx(nll_temperature(p), rel=1e-7)


def test_ece_objective_is_the_best_of_the_grid():
    p = generated(2.0, samples=300)
    errors = {t: expected_calibration_error(p.with_logits(p.logits / t), num_bins=10) for t in ECE_GRID}
    assert len(ECE_GRID) == 100
    assert (ECE_GRID[0], ECE_GRID[9], ECE_GRID[-1]) == (0.1, 1.0, 10.0)
    assert ece_temperature(p, num_bins=10) == min(ECE_GRID, key=errors.__getitem__)


def test_transform_keeps_accuracy_dtype_and_the_other_arrays():
    p = generated(3.0, samples=200)
    p = Predictions(p.logits, p.target, features=torch.ones(200, 2), label_probs=p.probs)
    scaling = TemperatureScaling().fit(p)
    q = scaling.transform(p)
    assert accuracy(q) == accuracy(p)
    assert q.logits.dtype == p.logits.dtype
    assert torch.equal(q.features, p.features)
    assert torch.equal(q.label_probs, p.label_probs)
    assert negative_log_likelihood(q) < negative_log_likelihood(p)
    torch.testing.assert_close(q.logits * scaling.temperature, p.logits)


def test_a_warning_made_an_error_leaves_a_fitted_calibrator():
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
    with pytest.raises(ValueError, match=r"TemperatureScaling.temperature: the calibrator must be fitted first"):
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
    message = "is not JSON" if str(value) in ("nan", "inf") else "must hold the state of a TemperatureScaling"
    with pytest.raises(ValueError, match=rf"TemperatureScaling.load: the file .*{message}"):
        TemperatureScaling.load(path)


def test_log_of_the_temperature_decides_what_counts_as_unchanged():
    assert math.log(1 + 5e-5) < temperature._UNCHANGED < math.log(1.001)
