"""A fitted calibrator with its facts, of classes, of confidences and of several labels."""

import numpy as np
import pytest
import torch
from torch import nn

from fedlas import CalibratedModel, MultiLabel, Predictions, TopLabel, calibrate, card
from fedlas.calibrators import TemperatureScaling
from fedlas.deploy import Calibration, fit_calibration, read_calibration
from fedlas.errors import CalibrationWarning, InputError

LOGITS = 4 * torch.randn(400, 3, generator=torch.Generator().manual_seed(0))
TARGET = torch.multinomial((LOGITS / 2).softmax(1), 1, generator=torch.Generator().manual_seed(1))[
    :, 0
]
CLASSES = Predictions(LOGITS, TARGET)
TOP = TopLabel(CLASSES.tensors().confidence, CLASSES.tensors().correct)
LABELS = MultiLabel(
    LOGITS, torch.bernoulli((LOGITS / 2).sigmoid(), generator=torch.Generator().manual_seed(2))
)


@pytest.mark.parametrize(
    ("val", "method", "text", "classes"),
    [
        (CLASSES, "temperature", "temperature 2.0", 3),
        (CLASSES, "vector", "vector", 3),
        (CLASSES, "auto", "auto (", 3),
        (TOP, "temperature", "temperature ", 0),
        (LABELS, "auto", "partial-pooling, 3 labels", 3),
        (LABELS, "platt", "platt, 3 labels", 3),
        (CLASSES, "none", "none", 0),
    ],
)
def test_calibration_properties_and_round_trip_through_card(val, method, text, classes):
    calibration = fit_calibration(method, val)
    assert str(calibration).startswith(text)
    assert calibration.num_classes == classes
    assert calibration.multi_label == (val is LABELS)
    assert not calibration.uses_features
    again = read_calibration(calibration.to_dict(), classes)
    before, after = (
        getattr(each.transform(val), "confidence" if val is TOP else "logits")
        for each in (calibration, again)
    )
    np.testing.assert_allclose(before, after)
    assert str(again) == str(calibration)


@pytest.mark.parametrize("val", [CLASSES, LABELS])
def test_layer_and_probs_match_transformed_predictions(val):
    calibration = fit_calibration("platt", val)
    logits = calibration.module()(LOGITS)
    torch.testing.assert_close(logits, calibration(LOGITS))
    torch.testing.assert_close(
        calibration.probs(logits), calibration.transform(val).tensors().probs
    )


def test_no_calibration_leaves_logits_unchanged():
    nothing = Calibration(None)
    assert nothing(LOGITS) is LOGITS or torch.equal(nothing(LOGITS), LOGITS)
    assert torch.equal(nothing.module()(LOGITS), LOGITS)
    assert nothing.saved_parameters() == {}
    with pytest.raises(InputError, match="must have a calibrator; got none"):
        _ = nothing.required_calibrator
    with pytest.raises(InputError, match="calibrator must be a class-wise or multi-label"):
        CalibratedModel(nn.Identity(), nothing)


def test_model_table_and_file_hold_the_same_calibration(tmp_path):
    calibrator = TemperatureScaling().fit(CLASSES)
    model = CalibratedModel(nn.Identity(), calibrator)
    model.save(tmp_path / "model.safetensors")
    again = CalibratedModel.load(tmp_path / "model.safetensors", nn.Identity())
    assert (
        again.fitted.saved_parameters() == model.fitted.saved_parameters() == calibrator.to_dict()
    )
    frame = {f"z{place}": LOGITS[:, place].numpy() for place in range(3)}
    table = calibrate(
        frame | {"y": TARGET.numpy()}, logits="z*", target="y", method=TemperatureScaling()
    )
    assert str(table.fitted) == str(model.fitted)
    assert table.fitted.to_dict() == model.fitted.to_dict()


class Noted(TemperatureScaling):
    notes = ("A note of the fit.",)


def test_model_and_table_have_the_same_notes_and_each_warning_comes_once():
    few, target = LOGITS[:30], TARGET[:30]
    with pytest.warns(CalibrationWarning) as caught:
        model = calibrate(nn.Identity(), [(few, target)], "isotonic")
    assert "30 samples are few" in model.fitted.notes[0]
    assert [str(each.message) for each in caught] == [*model.fitted.notes]
    assert caught[0].filename == __file__
    frame = {f"z{place}": few[:, place].numpy() for place in range(3)}
    columns = {"logits": "z*", "target": "y", "method": "isotonic"}
    assert calibrate(frame | {"y": target.numpy()}, **columns).notes == model.fitted.notes
    with pytest.warns(CalibrationWarning) as caught:
        several = calibrate(nn.Identity(), [(few, LABELS.tensors().target[:30])])
    assert [str(each.message) for each in caught] == [*several.fitted.notes]
    assert several.fitted.multi_label


def test_notes_of_a_calibrator_are_no_warnings():
    model = calibrate(nn.Identity(), [(LOGITS, TARGET)], Noted())
    assert model.fitted.notes == Noted.notes


def test_a_model_of_a_calibration_and_its_card_keep_the_notes():
    calibration = Calibration(TemperatureScaling().fit(CLASSES), ("Known since May.",), "May")
    model = CalibratedModel(nn.Identity(), calibration)
    assert (model.fitted.notes, model.fitted.fitted_on) == (calibration.notes, "May")
    assert model.calibrator is not calibration.calibrator
    val, test = (CLASSES.rows(torch.arange(400) % 2 == part) for part in (0, 1))
    for method in (model, calibration):
        made = card(val, test, method, name="mine", replicates=0).card
        assert "Known since May." in made.limits
        assert made.calibration.fitted_on == "other data, see mine"
