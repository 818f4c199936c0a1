import ast
import json
import warnings

import pytest
import torch
from torch import nn

from fedlas import Predictions, TopLabel
from fedlas.calibrators import CALIBRATORS, CalibrationWarning, Calibrator, TemperatureScaling
from fedlas.errors import InputError

VAL = Predictions([[3.0, 0.0], [3.0, 0.0], [0.0, 3.0], [3.0, 0.0]], [0, 0, 1, 1])


class Ranked(nn.Module):
    """Adds the class index, and the sum of the features times it."""

    def forward(self, rows, features=None):
        more = 0 if features is None else features.sum(dim=1, keepdim=True)
        return rows + (1 + more) * torch.arange(rows.shape[1])


class Shift(Calibrator):
    """Adds the class index."""

    map_type = Ranked

    def fit_map(self, val, start=None):
        return Ranked()


@pytest.fixture
def registered(changeable):
    changeable(CALIBRATORS)
    CALIBRATORS.register("shift", title="Shift", paper="none")(Shift)


def test_a_calibrator_is_a_few_lines(registered, tmp_path):
    path = Shift().fit(VAL).save(tmp_path / "deep" / "er" / "shift.json")
    loaded = Calibrator.load(path)
    assert type(loaded) is Shift
    assert loaded.transform(VAL).tensors().logits[0].tolist() == [3.0, 1.0]


def test_a_calibrator_of_one_class_is_loaded(registered):
    with pytest.warns(CalibrationWarning, match="changes no"):
        fitted = Shift().fit(Predictions([[3.0], [2.0]], [0, 0]))
    assert Calibrator.from_dict(fitted.to_dict()).num_classes == 1
    with pytest.raises(InputError, match="num_classes"):
        Calibrator.from_dict(fitted.to_dict() | {"num_classes": 0})


def test_a_subclass_loads_only_its_own_kind(registered, tmp_path):
    path = Shift().fit(VAL).save(tmp_path / "shift.json")
    with pytest.raises(ValueError, match=r"TemperatureScaling\.load: .*got Shift"):
        TemperatureScaling.load(path)


def test_an_unregistered_class_cannot_be_saved(tmp_path):
    with pytest.raises(ValueError, match=r"Shift\.save: .*registered"):
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
    with pytest.raises(ValueError, match=r"Calibrator\.load: .*(be JSON|have format)"):
        Calibrator.load(path)


def test_load_of_binary_file_folder_or_missing_path(tmp_path):
    (tmp_path / "b").write_bytes(b"PK\x03\x04\xff\xfe\x00")
    for path in (tmp_path / "b", tmp_path):
        with pytest.raises(ValueError, match="the file must be JSON"):
            Calibrator.load(path)
    with pytest.raises(ValueError, match=r"must exist; got .*none\.json"):
        Calibrator.load(tmp_path / "none.json")


@pytest.mark.parametrize("options", [{"objectiv": "nll"}, {"objective": "x"}, {"num_bins": 0}])
def test_unknown_options_in_a_file(tmp_path, options):
    path = TemperatureScaling().fit(VAL).save(tmp_path / "t.json")
    content = json.loads(path.read_text()) | {"options": options}
    path.write_text(json.dumps(content))
    with pytest.raises(ValueError, match="state of a TemperatureScaling"):
        Calibrator.load(path)


def test_where_nothing_can_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    scaling = TemperatureScaling().fit(VAL)
    with pytest.raises(ValueError, match="must be writable"):
        scaling.save(tmp_path / "file" / "t.json")
    with pytest.raises(ValueError, match=r"must be a file, not a folder; got .* Name a file in it"):
        scaling.save(tmp_path)  # a folder
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_failed_fit_changes_nothing():
    scaling = TemperatureScaling().fit(VAL)
    before = scaling.temperature
    with pytest.raises(ValueError, match=r"TemperatureScaling\.fit: .*Predictions; got \(2, 2\)"):
        scaling.fit(torch.zeros(2, 2))
    assert scaling.temperature == before
    assert scaling.num_classes == 2


class AddFeatures(Shift):
    """Looks at more than logits."""

    needs = frozenset({"features"})


WITH_FEATURES = Predictions(VAL.tensors().logits, VAL.tensors().target, features=torch.ones(4, 3))


def test_a_calibrator_may_look_at_features(registered, tmp_path):
    CALIBRATORS.register("add-features", title="Add", paper="none")(AddFeatures)
    fitted = AddFeatures().fit(WITH_FEATURES)
    assert (fitted.num_classes, fitted.num_features) == (2, 3)
    assert fitted.transform(WITH_FEATURES).tensors().logits[0].tolist() == [3.0, 4.0]
    loaded = Calibrator.load(fitted.save(tmp_path / "a.json"))
    assert loaded.num_features == 3
    assert loaded.transform(WITH_FEATURES).tensors().logits[0].tolist() == [3.0, 4.0]
    assert Shift().fit(WITH_FEATURES).num_features is None


def test_features_that_are_missing():
    bare = Predictions(VAL.tensors().logits, VAL.tensors().target)
    fitted = AddFeatures().fit(WITH_FEATURES)
    for act in (AddFeatures().fit, fitted.transform):
        with pytest.raises(ValueError, match=r"hold features; got .*save_features=true.*predict\("):
            act(bare)
    with pytest.raises(ValueError, match=r"features .*\(N, 3\) .*got \(4, 1\)"):
        fitted.transform(
            Predictions(VAL.tensors().logits, VAL.tensors().target, features=torch.ones(4, 1))
        )
    assert fitted.num_features == 3


def test_load_without_num_features_raises(registered, tmp_path):
    CALIBRATORS.register("add-features", title="Add", paper="none")(AddFeatures)
    path = AddFeatures().fit(WITH_FEATURES).save(tmp_path / "a.json")
    content = json.loads(path.read_text())
    for value in (None, "3", -1, True):
        broken = {**content, "num_features": value}
        if value is None:
            del broken["num_features"]
        path.write_text(json.dumps(broken))
        with pytest.raises(ValueError, match="state of a AddFeatures"):
            Calibrator.load(path)


@pytest.mark.parametrize(
    ("name", "enough"),
    [("temperature", 100), ("auto", 60), ("platt", 100), ("venn-abers", 200), ("isotonic", 500)],
)
def test_few_samples_warn(generated, name, enough):
    with pytest.warns(CalibrationWarning, match=f"fewer than about {enough} "):
        CALIBRATORS[name].value().fit(generated(enough - 1, classes=2))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        CALIBRATORS[name].value().fit(generated(enough, classes=2))
    assert not any("are few" in str(warning.message) for warning in caught)


@pytest.mark.filterwarnings("ignore::fedlas.errors.CalibrationWarning")
def test_right_and_wrong_are_no_classes(tmp_path):
    calibrator = TemperatureScaling().fit(TopLabel(VAL.tensors().confidence, VAL.tensors().correct))
    for each in (calibrator, Calibrator.load(calibrator.save(tmp_path / "t.json"))):
        with pytest.raises(ValueError, match="must be a TopLabel, as in the fit; got Predictions"):
            each.transform(VAL)


def test_a_missing_attribute_parses_no_source(monkeypatch):
    """Python 3.11.7 fails when two threads parse; the signature of ``object.__init__`` is parsed from text."""
    parsed, parse = [], ast.parse
    with monkeypatch.context() as patch:
        patch.setattr(ast, "parse", lambda *a, **options: parsed.append(a) or parse(*a, **options))
        assert not hasattr(TemperatureScaling(), "num_samples")
    assert parsed == []
