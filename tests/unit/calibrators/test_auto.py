import json
import warnings

import pytest
import torch

from fedlas import Predictions
from fedlas.calibrators import (
    CALIBRATORS,
    AutoCalibration,
    CalibrationWarning,
    Calibrator,
    SplineCalibration,
    TemperatureScaling,
)
from fedlas.metrics import nll as negative_log_likelihood

LEAK = torch.tensor([[1.0, 0.6, 0], [0, 1, 0.6], [0, 0, 1]]).double()


def test_mixture_beats_its_members_on_complex_miscalibration(generated):
    val, test = (
        generated(2000, classes=3, distort=lambda z: 2 * z @ LEAK, seed=seed) for seed in (0, 1)
    )
    mixture = AutoCalibration().fit(val)
    assert mixture.weights["matrix"] > 0.5
    assert sum(mixture.weights.values()) == pytest.approx(1)
    nll = negative_log_likelihood(mixture.transform(test))
    assert nll < negative_log_likelihood(TemperatureScaling().fit(val).transform(test)) - 0.05


@pytest.mark.parametrize("keep_class", [False, True])
def test_saved_and_as_a_layer(keep_class, generated, tmp_path):
    val = generated(300, classes=3, distort=lambda z: 2 * z @ LEAK)
    mixture = AutoCalibration(keep_class=keep_class).fit(val)
    loaded = Calibrator.load(mixture.save(tmp_path / "a.json"))
    assert repr(loaded) == repr(mixture)
    after = mixture.transform(val)
    torch.testing.assert_close(loaded.transform(val).tensors().logits, after.tensors().logits)
    torch.testing.assert_close(
        mixture.module()(val.tensors().logits).softmax(1), after.tensors().probs, rtol=0, atol=1e-5
    )
    assert torch.equal(after.tensors().predicted, val.tensors().predicted) is keep_class
    half = mixture.module().half()(val.tensors().logits.half()).double()
    torch.testing.assert_close(half.softmax(1), after.tensors().probs, rtol=0, atol=5e-3)


def test_one_line_names_members_and_weights(generated):
    text = repr(AutoCalibration().fit(generated(500, classes=2)))
    assert text.startswith("AutoCalibration(keep_class=False, num_folds=5)  # ")
    assert "temperature 0." in text
    assert repr(AutoCalibration()) == "AutoCalibration(keep_class=False, num_folds=5)"


def test_failed_member_is_dropped_and_named(generated, monkeypatch):
    def fails(*_, **__):
        raise RuntimeError("no minimum")

    monkeypatch.setattr(SplineCalibration, "fit_map", fails)
    with pytest.warns(CalibrationWarning, match=r"their fit failed: spline \(no minimum\)"):
        mixture = AutoCalibration().fit(generated(300))
    assert "spline" not in mixture.weights


@pytest.mark.parametrize(("samples", "classes"), [(1, 2), (2, 2), (5, 3), (7, 10), (3, 1)])
def test_very_few_samples(samples, classes, generated):
    val = generated(samples, classes=classes)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CalibrationWarning)
        after = AutoCalibration().fit(val).transform(val)
    assert bool(after.tensors().logits.isfinite().all())


def test_the_order_of_the_samples_does_not_matter(generated):
    val = generated(200, classes=3)
    order = torch.randperm(200, generator=torch.Generator().manual_seed(0))
    other = AutoCalibration().fit(
        Predictions(val.tensors().logits[order], val.tensors().target[order])
    )
    torch.testing.assert_close(
        other.transform(val).tensors().probs,
        AutoCalibration().fit(val).transform(val).tensors().probs,
    )


@pytest.mark.parametrize(
    "change",
    [
        {"members": []},
        {"members": {}},
        {"members": None},
        {"members": {"as predicted": None}},
        {"members": {"as predicted": "nothing"}},
        {"dropped": None},
        {"numbers": None},
        {"numbers": {"share.weights": [1.0]}},
    ],
)
def test_a_file_that_does_not_fit_is_refused(change, generated, tmp_path):
    path = AutoCalibration().fit(generated(100)).save(tmp_path / "a.json")
    content = json.loads(path.read_text())
    content["state"].update(change)
    path.write_text(json.dumps(content))
    with pytest.raises(ValueError, match="state of a AutoCalibration"):
        Calibrator.load(path)


@pytest.mark.parametrize(
    "name", ["auto", "temperature", "vector", "isotonic", "histogram-binning", "beta"]
)
def test_labels_of_probability_zero_do_not_decide(name, generated):
    val = generated(1000, classes=3)
    probs = val.tensors().probs.clone()
    probs[:8, :] = torch.eye(3).double()[(val.tensors().target[:8] + 1) % 3]  # 0.8 % of the labels
    zeros = Predictions.from_probs(probs, val.tensors().target)
    with pytest.warns(CalibrationWarning, match=r"8 of 1,000 labels .*exactly 0"):
        calibrator = CALIBRATORS[name].value().fit(zeros)
    assert calibrator.least_log == pytest.approx(-2 * torch.tensor(3 * 1001.0).log().item())
    # The layer, the file and transform raise the same probabilities.
    after = calibrator.transform(zeros)
    torch.testing.assert_close(
        calibrator.module()(zeros.tensors().logits).softmax(1),
        after.tensors().probs,
        rtol=0,
        atol=1e-5,
    )
    torch.testing.assert_close(
        Calibrator.from_dict(calibrator.to_dict()).transform(zeros).tensors().probs,
        after.tensors().probs,
    )
    assert negative_log_likelihood(after) < 0.8


def test_logits_of_a_network_are_no_zeros(generated):
    val = generated(300, distort=lambda z: 300 * z)
    assert TemperatureScaling().fit(val).least_log is None
    assert (
        TemperatureScaling()
        .fit(Predictions(val.tensors().logits.log_softmax(1), val.tensors().target))
        .least_log
        is None
    )


def far_too_sure(samples, seed, *, scale=3.0, classes=3):
    generator = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(samples, classes, generator=generator, dtype=torch.float64)
    target = torch.multinomial(logits.softmax(1), 1, generator=generator)[:, 0]
    return Predictions(scale * logits, target)


@pytest.mark.parametrize(("samples", "least", "most"), [(100, 0, 0), (150, 1e-3, 1), (400, 0, 9)])
def test_the_last_map_counts_more_with_more_samples(samples, least, most):
    last = AutoCalibration().fit(far_too_sure(samples, 0)).module().map.share.last
    away = max(float((last.weight - 1).abs().max()), float(last.bias.abs().max()))
    assert least <= away <= most


@pytest.mark.parametrize("scale", [0.15, 3.0])
def test_few_labels_lose_nothing_to_a_temperature(scale):
    """Predictions as they are once counted two samples more: +5 % with 20 labels and far too unsure scores."""
    test = far_too_sure(4000, 99, scale=scale, classes=10)
    for samples in (20, 30, 99, 100, 200):
        nll = {AutoCalibration: 0.0, TemperatureScaling: 0.0}
        for seed in range(4):
            val = far_too_sure(samples, seed, scale=scale, classes=10)
            for kind in nll:
                nll[kind] += negative_log_likelihood(kind().fit(val).transform(test))
        most = 1.02 if samples < 99 else 1.01
        assert nll[AutoCalibration] <= most * nll[TemperatureScaling], samples


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_a_kept_class_is_kept_in_half_precision(dtype, generated):
    val = generated(1000, distort=lambda z: 3 * z + torch.tensor([0.0, 1.0, -1.0, 2.0]))
    layer = AutoCalibration(keep_class=True).fit(val).module()
    logits = val.tensors().logits.to(dtype)
    assert torch.equal(layer(logits).argmax(1), logits.argmax(1))
