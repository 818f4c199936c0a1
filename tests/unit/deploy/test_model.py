import pytest
import torch
from torch import nn

from fedlas._core.check import InputError
from fedlas.calibrated import CalibratedModel
from fedlas.calibrators import IsotonicCalibration, MatrixScaling, TemperatureScaling, VectorScaling
from fedlas.deploy.calibration import Calibration, fit_calibration, read_calibration
from fedlas.deploy.model import EXTRA_LAYER, Deployed, fold
from fedlas.predictions import Predictions

CLASSES = 5


def val(samples=200):
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(samples, CLASSES, generator=generator)
    target = torch.multinomial(logits.softmax(1), 1, generator=generator).squeeze(1)
    return Predictions(3 * logits + torch.tensor([1.0, -1.0] + [0.0] * (CLASSES - 2)), target)


class Scaled(nn.Module):
    """A model whose logits are not its head's output."""

    def __init__(self):
        super().__init__()
        self.body, self.fc = nn.Flatten(), nn.Linear(16, CLASSES)

    def forward(self, images):
        return 2.0 * self.fc(self.body(images)).tanh()


def plain(*, bias=True):
    return nn.Sequential(nn.Flatten(), nn.Linear(16, 8), nn.ReLU(), nn.Linear(8, CLASSES, bias=bias))


class Named(nn.Module):
    def __init__(self, fc):
        super().__init__()
        self.body, self.fc = nn.Sequential(nn.Flatten(), nn.Linear(16, 8), nn.ReLU()), fc

    def forward(self, images):
        return self.fc(self.body(images))


@pytest.mark.parametrize("method", ["temperature", "vector", "matrix", "none"])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.filterwarnings("ignore::fedlas.errors.CalibrationWarning")  # of the few samples
def test_folded_into_the_head_the_logits_are_the_calibrators(method, bias):
    torch.manual_seed(0)
    model, images = Named(nn.Linear(8, CLASSES, bias=bias)), torch.randn(7, 1, 4, 4)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    calibration = fit_calibration(method, val())
    found, name = fold(model, calibration, images)
    calibrator = {"temperature": TemperatureScaling, "vector": VectorScaling, "matrix": MatrixScaling}.get(method)
    expected = Predictions(model(images), torch.zeros(7, dtype=torch.int64))
    expected = expected if calibrator is None else calibrator().fit(val()).transform(expected)
    torch.testing.assert_close(found(images), expected.logits, rtol=1e-5, atol=1e-5)
    assert not isinstance(found, CalibratedModel)
    assert name == ("nothing" if method == "none" else "fc")
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())  # a copy was changed
    if method == "vector":
        assert found.fc.bias is not None


@pytest.mark.parametrize(
    "model",
    [
        Scaled(),
        Named(nn.Sequential(nn.Linear(8, CLASSES), nn.Softplus())),
        nn.Sequential(nn.Conv2d(1, CLASSES, 4), nn.Flatten()),
        nn.Linear(16, CLASSES),
    ],
    ids=["scaled", "activated", "convolution", "bare"],
)
def test_where_no_head_makes_the_logits_a_layer_follows(model):
    images = torch.randn(7, 16) if isinstance(model, nn.Linear) else torch.randn(7, 1, 4, 4)
    calibration = fit_calibration("vector", val())
    found, name = fold(model, calibration, images)
    assert name == EXTRA_LAYER
    torch.testing.assert_close(found(images), calibration(model(images)))


def test_a_shared_weight_is_left_alone():
    fc = nn.Linear(8, CLASSES)
    model = Named(fc)
    model.twin = nn.Linear(8, CLASSES)
    model.twin.weight = fc.weight
    found, _ = fold(model, fit_calibration("temperature", val()), torch.randn(3, 1, 4, 4))
    assert isinstance(found, CalibratedModel)


def test_what_is_no_affine_map_follows_the_model():
    pytest.importorskip("sklearn")
    model, images = Named(nn.Linear(8, CLASSES)), torch.randn(7, 1, 4, 4)
    calibration = fit_calibration("isotonic", val())
    assert isinstance(calibration.calibrator, IsotonicCalibration)
    found, name = fold(model, calibration, images)
    assert name == EXTRA_LAYER
    torch.testing.assert_close(found(images), calibration(model(images)))
    with pytest.raises(InputError, match=r"Multicalibration.module: the calibrator must be a function of logits"):
        fold(model, fit_calibration("multicalibration", val()), images)


def test_deployed_takes_bytes():
    model = Named(nn.Linear(8, CLASSES))
    deployed = Deployed(model, mean=(0.3,), std=(0.2,)).eval()
    pixels = torch.randint(0, 256, (4, 1, 4, 4), dtype=torch.uint8)
    logits, probs = deployed(pixels)
    torch.testing.assert_close(logits, model((pixels.float() / 255 - 0.3) / 0.2))
    torch.testing.assert_close(probs, logits.softmax(1))


@pytest.mark.parametrize("method", ["temperature", "vector", "histogram-binning", "none"])
def test_a_calibration_comes_back_from_its_card(method):
    calibration = fit_calibration(method, val())
    again = read_calibration(calibration.plain(), CLASSES)
    logits = torch.randn(6, CLASSES)
    torch.testing.assert_close(again(logits), calibration(logits))
    assert again.temperature == calibration.temperature


def test_nonsense():
    with pytest.raises(InputError, match="Did you mean 'temperature'"):
        fit_calibration("temprature", val())
    for content in ({}, {"method": "temperature"}, {"method": "temperature", "temperature": -1},
                    {"method": "vector", "calibrator": {"weight": [1.0], "bias": [0.0]}},
                    fit_calibration("vector", Predictions(torch.randn(60, 3), torch.arange(60) % 3)).plain(),
                    ):  # fmt: skip
        with pytest.raises(InputError, match="must hold a calibration"):
            read_calibration(content, CLASSES)
    assert Calibration(None).plain() == {"method": "none", "temperature": None}
