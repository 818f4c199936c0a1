import json
import warnings

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fedlas import Predictions
from fedlas.calibrators import CalibrationWarning, EnsembleTemperatureScaling, TemperatureScaling
from fedlas.calibrators._fit import minimize
from fedlas.calibrators.temperature import MAX_UNIFORM, Mixture
from fedlas.metrics import nll


def mixed(logits, temperature, weights):
    """The paper's formula in probabilities."""
    uniform = torch.full_like(logits, 1 / logits.shape[1])
    parts = (logits / temperature).softmax(1), logits.softmax(1), uniform
    return sum(weight * part for weight, part in zip(weights, parts, strict=True))


def drawn_from(temperature, weights, samples=20_000, classes=5):
    """Predictions whose labels follow a known mixture."""
    random = torch.Generator().manual_seed(0)
    logits = 6 * torch.randn(samples, classes, generator=random, dtype=torch.float64)
    probs = mixed(logits, temperature, weights)
    return Predictions(
        logits, torch.multinomial(probs, 1, generator=random).squeeze(1), label_probs=probs
    )


@pytest.mark.parametrize(
    ("temperature", "weights"),
    [
        (3.0, (1.0, 0.0, 0.0)),
        (1.0, (1.0, 0.0, 0.0)),
        (1.0, (0.9, 0.0, 0.1)),
        (1.0, (0.0, 0.7, 0.3)),
    ],
)
def test_the_mixture_that_made_the_labels_is_found(temperature, weights):
    val = drawn_from(temperature, weights)
    calibrated = EnsembleTemperatureScaling().fit(val).transform(val)
    # Temperature and weights can trade places; the probabilities cannot.
    assert float((calibrated.tensors().probs - val.tensors().label_probs).abs().mean()) < 0.006


def test_never_behind_temperature_scaling_where_it_was_fitted(generated):
    for seed in range(3):
        val = generated(60, seed=seed)
        ensemble, temperature = (
            nll(c.fit(val).transform(val))
            for c in (EnsembleTemperatureScaling(), TemperatureScaling())
        )
        assert ensemble <= temperature + 0.01 / 60


def test_transform_is_the_formula(generated):
    val = generated(300, distort=lambda z: 4 * z)
    ensemble = EnsembleTemperatureScaling().fit(val)
    wanted = mixed(val.tensors().logits, ensemble.map.temperature, ensemble.map.weights)
    torch.testing.assert_close(ensemble.transform(val).tensors().probs, wanted)


@given(st.floats(0.01, 100), st.floats(0, 1), st.floats(0, MAX_UNIFORM), st.integers(0, 1000))
def test_the_order_of_the_classes_is_kept(temperature, share, uniform, seed):
    rng = np.random.default_rng(seed)
    # Distances of 0.01 and more: closer ones may round to equal.
    logits = torch.from_numpy(
        rng.permuted(np.arange(50) * 0.01 * rng.integers(1, 20), axis=0)
    ).reshape(5, 10)
    weights = torch.tensor([(1 - uniform) * share, (1 - uniform) * (1 - share), uniform])
    mixture = Mixture(temperature=torch.tensor(temperature).double(), weights=weights.double())
    assert torch.equal(mixture(logits).argmax(1), logits.argmax(1))


def test_extreme_logits_stay_finite():
    logits = torch.tensor([[1e30, 0.0, -1e30], [-1e4, 1e4, 0.0]]).double()
    for weights in ((1.0, 0.0, 0.0), (0.5, 0.3, 0.2), (0.0, 1.0, 0.0)):
        mixture = Mixture(temperature=torch.tensor(2.0), weights=torch.tensor(weights).double())
        assert bool(torch.isfinite(mixture(logits)).all())


def test_worse_than_chance_keeps_the_class(tmp_path):
    target = torch.arange(5).repeat(4)
    val = Predictions(-3.0 * torch.nn.functional.one_hot(target, 5) + 0.1 * torch.arange(5), target)
    with pytest.warns(CalibrationWarning, match="lowest at a bound"):
        ensemble = EnsembleTemperatureScaling().fit(val)
    assert 0 <= ensemble.map.weights[2] <= MAX_UNIFORM
    assert float(ensemble.map.weights.sum()) == pytest.approx(1)
    assert torch.equal(ensemble.transform(val).tensors().predicted, val.tensors().predicted)
    loaded = EnsembleTemperatureScaling.load(ensemble.save(tmp_path / "e.json")).map
    assert torch.equal(loaded.temperature, ensemble.map.temperature)
    assert torch.equal(loaded.weights, ensemble.map.weights)


def test_a_uniform_part_of_weight_1_is_bounded(monkeypatch, generated):
    monkeypatch.setattr(
        minimize, "fit_mixture_weights", lambda *_: (torch.tensor([0.0, 0.0, 1.0]), True)
    )
    with pytest.warns(CalibrationWarning, match=r"weight 0\.99"):
        weights = EnsembleTemperatureScaling().fit(generated(50)).map.weights
    assert weights.tolist() == pytest.approx([0.01, 0.0, 0.99])


def test_all_correct_is_no_surer_than_temperature_scaling():
    target = torch.arange(5).repeat(4)
    val = Predictions(3.0 * torch.nn.functional.one_hot(target, 5), target)
    with pytest.warns(CalibrationWarning, match=r"0 of 20 .*mistakes.*0\.8372"):
        ensemble = EnsembleTemperatureScaling().fit(val)
    with pytest.warns(CalibrationWarning):
        assert ensemble.map.temperature == TemperatureScaling().fit(val).temperature


@pytest.mark.parametrize("factor", [1e-30, 1e-3, 1e3, 1e28])
def test_logits_of_any_size(generated, factor):
    val = generated(500)
    scaled = Predictions(val.tensors().logits * factor, val.tensors().target)
    plain = TemperatureScaling().fit(scaled)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CalibrationWarning)
        ensemble = EnsembleTemperatureScaling().fit(scaled)
    assert nll(ensemble.transform(scaled)) <= nll(plain.transform(scaled))


def test_no_warning_where_nothing_is_wrong(generated):
    EnsembleTemperatureScaling().fit(generated())  # warnings are errors


@pytest.mark.parametrize(
    ("name", "value"),
    [("temperature", 0), ("temperature", None), ("weights", [0.5, 0.5]), ("weights", [0.5, 0.6, 0.1]),
     ("weights", [1.5, -0.5, 0.0]), ("weights", [0.0, 0.0, 1.0])],
)  # fmt: skip
def test_a_file_that_does_not_fit_is_refused(generated, tmp_path, name, value):
    path = EnsembleTemperatureScaling().fit(generated(100)).save(tmp_path / "e.json")
    content = json.loads(path.read_text())
    content["state"][name] = value
    path.write_text(json.dumps(content))
    with pytest.raises(ValueError, match="state of a EnsembleTemperatureScaling"):
        EnsembleTemperatureScaling.load(path)
