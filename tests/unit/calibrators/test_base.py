import json

import pytest
import torch

from fedlas import Predictions
from fedlas.calibrators import CALIBRATORS, Calibrator, TemperatureScaling

VAL = Predictions([[3.0, 0.0], [3.0, 0.0], [0.0, 3.0], [3.0, 0.0]], [0, 0, 1, 1])


class Shift(Calibrator):
    """Adds the class index."""

    keeps_argmax = False

    def _fit(self, val):
        return None

    def _transform(self, logits):
        return logits + torch.arange(logits.shape[1])

    def _options(self):
        return {}

    def _state(self):
        return {}

    def _restore(self, state):
        pass


@pytest.fixture
def registered(monkeypatch):
    monkeypatch.setattr(CALIBRATORS, "_entries", dict(CALIBRATORS._entries))
    CALIBRATORS.register("shift", title="Shift", paper="none")(Shift)


def test_a_calibrator_is_a_few_lines(registered, tmp_path):
    path = Shift().fit(VAL).save(tmp_path / "deep" / "er" / "shift.json")
    loaded = Calibrator.load(path)
    assert type(loaded) is Shift
    assert loaded.transform(VAL).logits[0].tolist() == [3.0, 1.0]


def test_a_subclass_loads_only_its_own_kind(registered, tmp_path):
    path = Shift().fit(VAL).save(tmp_path / "shift.json")
    with pytest.raises(ValueError, match=r"TemperatureScaling.load: .* must hold a TemperatureScaling; got Shift in"):
        TemperatureScaling.load(path)


def test_an_unregistered_class_cannot_be_saved(tmp_path):
    with pytest.raises(ValueError, match=r"Shift.save: the class must be registered"):
        Shift().fit(VAL).save(tmp_path / "shift.json")
    assert list(tmp_path.iterdir()) == []


def test_an_unregistered_calibrator_in_a_file(registered, tmp_path):
    path = TemperatureScaling().fit(VAL).save(tmp_path / "t.json")
    path.write_text(path.read_text().replace('"temperature",', '"temprature",'))
    with pytest.raises(ValueError, match="Did you mean 'temperature'"):
        Calibrator.load(path)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "null",
        "3",
        '{"format": "other"}',
        '{"format": "fedlas.calibrator/1", "calibrator": "temperature"}',
    ],
)
def test_other_files_are_refused(tmp_path, text):
    path = tmp_path / "x.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"Calibrator.load: the file must (be JSON|have format)"):
        Calibrator.load(path)


def test_a_binary_file_a_folder_and_nothing_at_all(tmp_path):
    (tmp_path / "b").write_bytes(b"PK\x03\x04\xff\xfe\x00")
    for path in (tmp_path / "b", tmp_path):
        with pytest.raises(ValueError, match="the file must be JSON"):
            Calibrator.load(path)
    with pytest.raises(ValueError, match=r"the file must exist; got .*none\.json"):
        Calibrator.load(tmp_path / "none.json")


@pytest.mark.parametrize("options", [{"objectiv": "nll"}, {"objective": "x"}, {"num_bins": 0}])
def test_unknown_options_in_a_file(tmp_path, options):
    path = TemperatureScaling().fit(VAL).save(tmp_path / "t.json")
    content = json.loads(path.read_text()) | {"options": options}
    path.write_text(json.dumps(content))
    with pytest.raises(ValueError, match="must hold the state of a TemperatureScaling"):
        Calibrator.load(path)


def test_where_nothing_can_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    scaling = TemperatureScaling().fit(VAL)
    with pytest.raises(ValueError, match=r"folder that can be written to; got .* Choose another"):
        scaling.save(tmp_path / "file" / "t.json")
    with pytest.raises(ValueError, match=r"must .*; got .* Choose another"):
        scaling.save(tmp_path)  # a folder
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_failed_fit_changes_nothing():
    scaling = TemperatureScaling().fit(VAL)
    before = scaling.temperature
    with pytest.raises(ValueError, match=r"TemperatureScaling.fit: predictions must be Predictions; got \(2, 2\)"):
        scaling.fit(torch.zeros(2, 2))
    assert scaling.temperature == before
    assert scaling.num_classes == 2
