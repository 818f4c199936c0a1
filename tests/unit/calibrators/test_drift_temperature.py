import pytest
import torch

from fedlas import Predictions
from fedlas.calibrators import CalibrationWarning, Calibrator, DriftTemperature, TemperatureScaling
from fedlas.errors import InputError
from fedlas.metrics import ece


def test_fit_on_drift_is_calibrated_on_average(generated):
    clean = generated(distort=lambda logits: 1.5 * logits)
    lost = Predictions(
        clean.tensors().logits, clean.tensors().target.flip(0)
    )  # as sure as ever, and wrong
    union = Predictions(
        torch.cat([clean.tensors().logits, lost.tensors().logits]),
        torch.cat([clean.tensors().target, lost.tensors().target]),
    )
    drift, plain = DriftTemperature().fit(union), TemperatureScaling().fit(clean)
    assert drift.temperature > plain.temperature > 1
    assert ece(drift.transform(lost)) < ece(plain.transform(lost))
    assert ece(drift.transform(clean)) > ece(plain.transform(clean))


def test_on_clean_predictions_it_is_temperature_scaling(generated):
    val = generated()
    assert DriftTemperature().fit(val).temperature == TemperatureScaling().fit(val).temperature


def test_no_mistake_and_nothing_to_do(generated):
    val = generated()
    with pytest.warns(CalibrationWarning, match=r"DriftTemperature: 0 of 2000 .* held at "):
        DriftTemperature().fit(Predictions(val.tensors().logits, val.tensors().predicted))
    once = DriftTemperature().fit(val).transform(val)
    with pytest.warns(CalibrationWarning, match="changes no validation probability"):
        DriftTemperature().fit(once)


def test_file_and_unfitted(tmp_path, generated):
    with pytest.raises(InputError, match=r"DriftTemperature.temperature: .*fitted first"):
        _ = DriftTemperature().temperature
    assert repr(DriftTemperature()) == "DriftTemperature()"
    path = DriftTemperature().fit(generated()).save(tmp_path / "d.json")
    assert type(Calibrator.load(path)) is DriftTemperature
    with pytest.raises(InputError, match="must hold a TemperatureScaling"):
        TemperatureScaling.load(path)
    path.write_text(path.read_text().replace('"temperature": ', '"temperature": -'))
    with pytest.raises(InputError, match="state of a DriftTemperature"):
        DriftTemperature.load(path)
