import pytest
import torch

from fedlas.deploy import Calibration, fit_calibration, read_calibration
from fedlas.errors import InputError
from fedlas.predictions import Predictions

CLASSES = 5


def val(samples=200):
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(samples, CLASSES, generator=generator)
    target = torch.multinomial(logits.softmax(1), 1, generator=generator).squeeze(1)
    return Predictions(3 * logits + torch.tensor([1.0, -1.0] + [0.0] * (CLASSES - 2)), target)


@pytest.mark.parametrize("method", ["temperature", "vector", "histogram-binning", "none"])
def test_a_calibration_comes_back_from_its_card(method):
    calibration = fit_calibration(method, val())
    again = read_calibration(calibration.to_dict(), CLASSES)
    logits = torch.randn(6, CLASSES)
    torch.testing.assert_close(again(logits), calibration(logits))
    assert again.temperature == calibration.temperature


def test_zero_probabilities_are_clamped_as_on_card():
    logits = 6 * torch.randn(
        400, CLASSES, generator=torch.Generator().manual_seed(0), dtype=torch.float64
    )
    probs = logits.softmax(1).where(logits.softmax(1) > 1e-3, 0)
    given = Predictions.from_probs(
        probs / probs.sum(1, keepdim=True), torch.multinomial(probs + 0.1, 1)[:, 0]
    )
    calibration = fit_calibration("temperature", given)
    again = read_calibration(calibration.to_dict(), CLASSES)
    torch.testing.assert_close(
        again.transform(given).tensors().probs, calibration.transform(given).tensors().probs
    )


def test_invalid_card_model_raises():
    with pytest.raises(InputError, match="Did you mean 'temperature'"):
        fit_calibration("temprature", val())
    for content in ({}, {"method": "temperature"}, {"method": "temperature", "temperature": -1},
                    {"method": "vector", "calibrator": {"weight": [1.0], "bias": [0.0]}},
                    fit_calibration("vector", Predictions(torch.randn(60, 3), torch.arange(60) % 3)).to_dict(),
                    ):  # fmt: skip
        with pytest.raises(InputError, match="must contain a valid calibration"):
            read_calibration(content, CLASSES)
    assert Calibration(None).to_dict() == {"method": "none", "temperature": None}
