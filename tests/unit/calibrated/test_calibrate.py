"""fedlas.calibrate and before_after: the numbers, the loaders, dense outputs and memory."""

import sys

import pytest
import torch
from torch import nn

import fedlas.losses
from fedlas import CalibratedModel, Predictions, calibrate, estimates
from fedlas.calibrators import (
    CALIBRATORS,
    AutoCalibration,
    CalibrationWarning,
    Calibrator,
    MultiLabelCalibration,
    TemperatureScaling,
    VectorScaling,
)
from fedlas.errors import InputError
from fedlas.stats import noise_floor

module = sys.modules["fedlas.calibrated.fit_model"]


class Pixels(nn.Module):
    """A map of classes that is twice too sure."""

    def forward(self, images):
        return 2 * images


def images(seed=0, count=6):
    torch.manual_seed(seed)
    logits = 2 * torch.randn(count, 3, 8, 5)
    target = torch.distributions.Categorical(logits=logits.movedim(1, -1)).sample()
    target[:, :2] = 255
    return [(logits[i : i + 2], target[i : i + 2]) for i in range(0, count, 2)]


def flat(batches, factor=2.0):
    logits = torch.cat([factor * part.movedim(1, -1)[:, 2:].reshape(-1, 3) for part, _ in batches])
    return Predictions(logits, torch.cat([part[:, 2:].reshape(-1) for _, part in batches]))


@pytest.mark.parametrize("method", [TemperatureScaling, lambda: VectorScaling(num_folds=None)])
def test_dense_outputs(method):
    fitted = calibrate(Pixels(), images(), method(), ignore_index=255)
    wanted = method().fit(flat(images()))
    test = images(1)
    inputs = torch.cat([part for part, _ in test])
    after = fitted(inputs)
    assert after.shape == inputs.shape
    rows = wanted.transform(flat(test)).tensors().logits
    torch.testing.assert_close(
        after.movedim(1, -1)[:, 2:].reshape(-1, 3), rows, rtol=1e-5, atol=1e-5
    )
    last = fitted(inputs.contiguous(memory_format=torch.channels_last))
    torch.testing.assert_close(last, after)
    measured = fitted.before_after(test)
    assert measured.samples == 6 * 6 * 5
    assert measured.after.nll == pytest.approx(
        estimates(wanted.transform(flat(test)), ["nll"])["nll"].value, rel=1e-5
    )
    assert measured.after.floor is None
    assert measured.after.nll < measured.before.nll


def test_labels_255_without_ignore_index_explain_the_fix():
    message = r"got 255 for \d+ of \d+ labels. Pass ignore_index=255"
    with pytest.raises(InputError, match=message):
        calibrate(Pixels(), images(), "temperature")
    tidy = [(logits, target % 3) for logits, target in images()]
    fitted = calibrate(Pixels(), tidy, "temperature")
    with pytest.raises(InputError, match=message):
        fitted.before_after(images(1))
    assert fitted.before_after(images(1), ignore_index=255).samples == 6 * 6 * 5
    with pytest.raises(InputError, match="Pass ignore_index=255"):
        fedlas.losses.FocalLoss()(*images()[0])


def test_a_generator_is_read_once():
    once = calibrate(Pixels(), (batch for batch in images()), "temperature", ignore_index=255)
    assert once.calibrator.temperature == pytest.approx(
        calibrate(Pixels(), images(), "temperature", ignore_index=255).calibrator.temperature
    )
    with pytest.raises(InputError, match="at least one labeled sample"):
        calibrate(Pixels(), iter(()))


def test_loader_is_iterated_once_without_random_draws():
    """An iterator of a DataLoader starts workers and takes a number from the generator of all."""
    calls = []

    class Loader(list):
        def __iter__(self):
            calls.append(1)
            return super().__iter__()

    calibrate(Pixels(), Loader(images()), ignore_index=255)
    assert len(calls) == 1


def test_before_and_after():
    torch.manual_seed(0)
    logits = 2 * torch.randn(900, 3)
    target = torch.multinomial(logits.softmax(1), 1).squeeze(1)
    found = calibrate(Pixels(), [(logits[:400], target[:400])])
    measured = found.before_after(
        [(logits[400:600], target[400:600]), (logits[600:], target[600:])]
    )
    raw = Predictions(2 * logits[400:], target[400:])
    for stage, said in ((measured.before, raw), (measured.after, found.calibrator.transform(raw))):
        wanted = estimates(said, ["accuracy", "nll", "ece"])
        for name, estimate in wanted.items():
            assert getattr(stage, name) == pytest.approx(estimate.value, abs=1e-6)
        assert stage.floor == pytest.approx(noise_floor(said).mean, rel=1e-4)
    lines = str(measured).splitlines()
    assert lines[0].split() == ["before", "after", "500", "samples"]
    assert [line.split()[0] for line in lines[1:]] == ["accuracy", "NLL", "ECE"]
    assert lines[3].endswith(
        f"(of a perfectly calibrated model: {100 * measured.after.floor:.2f} %)"
    )
    assert max(map(len, lines)) < 80
    assert repr(measured) == str(measured)


def test_modes_come_back_and_weights_stay():
    model = nn.Sequential(nn.Linear(3, 3), nn.Dropout())
    model[1].eval()
    with pytest.raises(InputError, match=r"labels of a batch must be integers of shape \(4,\)"):
        calibrate(model, [(torch.randn(4, 3), torch.zeros(5, dtype=torch.int64))])
    assert [part.training for part in (model, *model)] == [True, True, False]
    before = {name: value.clone() for name, value in model.state_dict().items()}
    fitted = calibrate(model, [(torch.randn(90, 3), torch.randint(0, 3, (90,)))])
    assert all(
        torch.equal(value, before[name]) for name, value in fitted.model.state_dict().items()
    )
    assert not any(part.training for part in fitted.modules())


@pytest.mark.filterwarnings("ignore::fedlas.errors.CalibrationWarning")
@pytest.mark.parametrize("method", sorted(CALIBRATORS))
def test_every_method_or_the_reason_why_not(method):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 3))
    loader = [(torch.randn(300, 3), torch.randint(0, 3, (300,)))]
    for package in CALIBRATORS[method].metadata.get("packages", ()):
        pytest.importorskip(package)
    if method in ("multicalibration", "drift-temperature"):
        with pytest.raises(InputError, match=r"(depends on logits|fitted on)"):
            calibrate(model, loader, method)
        return
    assert calibrate(model, loader, method)(loader[0][0]).shape == (300, 3)


def test_a_fit_that_warns_warns():
    logits = 4 * torch.randn(200, 3)
    with pytest.warns(CalibrationWarning, match="are mistakes"):
        calibrate(Pixels(), [(logits, logits.argmax(1))], "temperature")


def test_refused():
    good = [(torch.randn(20, 3), torch.randint(0, 3, (20,)))]
    model = Pixels()
    for loader, options, message in (
        (good, {"method": "temprature"}, "Did you mean 'temperature'"),
        (good, {"method": TemperatureScaling}, r"Pass TemperatureScaling\(\)"),
        ([], {}, "at least one labeled sample"),
        (
            [torch.randn(20, 3)],
            {},
            r"each batch must be \(inputs, target\).*got a batch without labels",
        ),
        ([{"x": torch.randn(2, 3)}], {}, "got a batch without labels"),
        (
            [(torch.randn(20, 3), torch.zeros(20, 2))],
            {},
            r"labels of a batch must be integers of shape \(20,\)",
        ),
        ([(torch.randn(2, 5, 3), torch.zeros(2, 5).long())], {}, "puts the classes second"),
        ([(torch.randn(20, 3), torch.full((20,), 7))], {}, r"target must be in \[0, 3\)"),
        ([(torch.full((20, 3), torch.nan), torch.zeros(20).long())], {}, "NaN"),
    ):
        with pytest.raises(InputError, match=message):
            calibrate(model, loader, **options)
    with pytest.raises(InputError, match=r"must be an nn\.Module"):
        calibrate(lambda x: x, good)
    with pytest.raises(InputError, match="must return logits"):
        calibrate(nn.LSTM(3, 3), good)


def test_repr_names_model_members_samples_and_errors():
    torch.manual_seed(0)
    inputs = torch.randn(300, 3)
    text = repr(
        calibrate(nn.Identity(), [(3 * inputs, torch.multinomial(inputs.softmax(1), 1)[:, 0])])
    )
    assert text.startswith("CalibratedModel(Identity, AutoCalibration(")
    assert "temperature 0." in text
    assert "300 samples, ECE " in text
    assert text.count("\n") == 0


def test_too_many_logits_are_subsampled_for_the_fit(monkeypatch):
    monkeypatch.setattr(module, "MAX_LOGITS", 300)
    monkeypatch.setattr(module, "_HELD", 0)
    some = calibrate(Pixels(), images(count=60), ignore_index=255)
    assert "; a random sample of 1,800: " in some.fitted_on
    assert 50 <= int(some.fitted_on.split(": ")[1].split()[0]) <= 100
    assert isinstance(some.calibrator, AutoCalibration)


def test_features_count_too_where_rows_are_sampled(monkeypatch):
    monkeypatch.setattr(module, "MAX_LOGITS", 2000)
    batches = [(torch.randn(100, 7), torch.randint(0, 3, (100,))) for _ in range(4)]
    calibrated = calibrate(nn.Linear(7, 3), batches)
    assert calibrated.fitted_on.startswith("a random sample of 400: ")
    assert calibrate(nn.Linear(7, 3), batches, features=False).fitted_on.startswith("400 samples")


def test_sklearn_classifier_error_names_the_right_class():
    from sklearn.naive_bayes import GaussianNB

    with pytest.raises(ValueError, match=r"CalibratedClassifier\(model\)"):
        calibrate(GaussianNB(), [])


def test_a_calibration_that_raises_the_nll_warns():
    torch.manual_seed(0)
    logits = torch.randn(1000, 3)
    batches = [(logits, torch.multinomial(logits.softmax(1), 1)[:, 0])]
    other = calibrate(nn.Identity(), [(3 * batches[0][0], batches[0][1])], "temperature")
    with pytest.warns(CalibrationWarning, match=r"raises the NLL .*0\.\d+ \(standard error"):
        other.before_after(batches)


WRONG = [
    True,
    1.5,
    "",
    b"x",
    [1, 2],
    {"a": 1},
    object(),
    torch.zeros(3),
    torch.zeros(2, 2).to_sparse(),
    nn.Linear(2, 2),
]


@pytest.mark.parametrize("wrong", WRONG, ids=lambda value: type(value).__name__)
def test_wrong_types_raise_input_error(wrong, tmp_path):
    batches = [(torch.randn(200, 3), torch.randint(3, (200,)))]
    calls = [
        lambda: (
            calibrate(wrong, batches) if not isinstance(wrong, nn.Module) else calibrate(1, batches)
        ),
        lambda: calibrate(nn.Identity(), wrong),
        lambda: calibrate(nn.Identity(), batches, wrong),
        lambda: calibrate(nn.Identity(), batches, device=wrong),
        lambda: calibrate(nn.Identity(), batches, ignore_index=wrong),
        lambda: Calibrator.load(wrong),
        lambda: CalibratedModel.load(wrong, nn.Identity()),
        lambda: TemperatureScaling().fit(wrong),
        lambda: TemperatureScaling().fit(batches[0][0], wrong),
        lambda: Calibrator.from_dict(wrong),
        lambda: MultiLabelCalibration().fit(wrong, wrong),
    ]
    if not isinstance(wrong, str):
        calls.append(lambda: TemperatureScaling().fit(*batches[0]).save(wrong))
    for call in calls:
        with pytest.raises(InputError):
            call()
