"""An own calibrator is one method and the class of its map; plain arrays go in and come out."""

import numpy as np
import pytest
import torch

from fedlas import report
from fedlas.calibrators import CALIBRATORS, AutoCalibration, Calibrator
from fedlas.errors import CalibrationWarning, InputError


class Shifted(torch.nn.Module):
    def __init__(self, offset):
        super().__init__()
        self.register_buffer("offset", offset)

    def forward(self, rows):
        return rows + self.offset


class ShiftCalibration(Calibrator):
    """Adds the logarithm of each class's share."""

    map_type = Shifted

    def fit_map(self, val, start=None):
        count = torch.bincount(val.tensors().target, minlength=val.num_classes).double() + 1
        return Shifted((count / count.sum()).log())


@pytest.fixture
def registered(changeable):
    changeable(CALIBRATORS)
    CALIBRATORS.register("share-shift")(ShiftCalibration)


def test_one_method_is_enough(registered, generated, tmp_path):
    val = generated(300)
    calibrator = ShiftCalibration().fit(val)
    after = calibrator.transform(val)
    loaded = Calibrator.load(calibrator.save(tmp_path / "own.json"))
    assert torch.equal(loaded.transform(val).tensors().logits, after.tensors().logits)
    torch.testing.assert_close(calibrator.module()(val.tensors().logits), after.tensors().logits)
    auto = AutoCalibration(members=["share-shift", "temperature"]).fit(val)
    assert set(auto.weights) <= {"as predicted", "share-shift", "temperature"}
    loaded = Calibrator.load(auto.save(tmp_path / "auto.json"))
    assert torch.equal(loaded.transform(val).tensors().logits, auto.transform(val).tensors().logits)


def test_it_has_a_title_and_reports_take_it(registered, generated):
    assert CALIBRATORS["share-shift"].metadata["title"] == "Share shift"
    assert not ShiftCalibration.keeps_argmax
    text = str(report(generated(300, seed=1), method="share-shift", on=generated(300)))
    assert "Share shift" in text or "share-shift" in text


@pytest.mark.parametrize(
    "state", [{}, {"offset": [0.0, 1.0]}, {"offset": ["a"]}, {"other": [0.0] * 4}]
)
def test_buffers_that_make_no_map_are_refused(state, registered, generated):
    content = ShiftCalibration().fit(generated(300)).to_dict()
    content["state"] = state
    with pytest.raises(InputError, match="state of a ShiftCalibration"):
        Calibrator.from_dict(content)


@pytest.mark.parametrize("make", [lambda x: x, lambda x: x.numpy(), lambda x: x.float().numpy()])
def test_arrays_in_and_out(make, generated, tmp_path):
    val = generated(500)
    temperature = CALIBRATORS["temperature"].value()
    wanted = temperature.fit(val).transform(val)
    for array, result in (
        (val.tensors().probs, wanted.tensors().probs),
        (val.tensors().logits, wanted.tensors().logits),
    ):
        calibrator = CALIBRATORS["temperature"].value().fit(make(array), val.tensors().target)
        calibrator = Calibrator.load(calibrator.save(tmp_path / "t.json"))
        after = calibrator.transform(make(array))
        assert type(after) is type(make(array))
        np.testing.assert_allclose(np.asarray(after), np.asarray(result), atol=1e-4)
    two = generated(500, classes=2)
    after = CALIBRATORS["auto"].value().fit(make(two.tensors().probs[:, 1]), two.tensors().target)
    assert after.transform(make(two.tensors().probs[:, 1])).shape == (500,)
    with pytest.raises(InputError, match="Predictions; got"):
        temperature.transform(make(val.tensors().logits))


class NoConstructor(torch.nn.Module):
    """Forgets the constructor of ``nn.Module``."""

    def __init__(self, offset):
        self.offset = offset

    def forward(self, rows):
        return rows + self.offset


class NoConstructorOfBuffers(torch.nn.Module):
    """Forgets it, and registers a buffer."""

    def __init__(self, offset):
        self.register_buffer("offset", offset)


class Columns(torch.nn.Module):
    """Returns other columns."""

    def __init__(self, change):
        super().__init__()
        self.change = change

    def forward(self, rows):
        return self.change(rows)


def of_map(make):
    class Own(Calibrator):
        map_type = Columns

        def fit_map(self, val, start=None):
            return make(torch.zeros(val.num_classes, dtype=torch.float64))

    return Own


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda _: Columns(lambda rows: rows[:, :1]),
            r"one column per class, \(2, 4\).*got .*\(2, 1\)",
        ),
        (lambda _: Columns(lambda rows: rows[:, :3]), r"got .*\(2, 3\)"),
        (lambda _: Columns(lambda rows: rows.sum(dim=1)), r"got .*\(2,\)"),
        (lambda _: Columns(lambda rows: rows.tolist()), "got .*list"),
        (
            lambda offset: lambda rows: rows + offset,
            "fit_map of Own must return a module.*function",
        ),
        (lambda offset: offset, "fit_map of Own must return a module"),
        (NoConstructor, r"constructor of NoConstructor must call .*super\(\)\.__init__\(\)"),
        (NoConstructorOfBuffers, r"must call super\(\)\.__init__\(\)"),
    ],
)
def test_another_map_is_refused(make, message, generated):
    calibrator = of_map(make)()
    with pytest.raises(InputError, match=message):
        calibrator.fit(generated(300))
    assert calibrator.num_classes is None


def test_auto_drops_and_names_invalid_custom_member(changeable, generated):
    changeable(CALIBRATORS)
    CALIBRATORS.register("own")(of_map(lambda _: Columns(lambda rows: rows[:, :1])))
    with pytest.warns(CalibrationWarning, match="their fit failed: own .*one column per class"):
        auto = AutoCalibration(members=["own", "temperature"]).fit(generated(300))
    assert "own" not in auto.weights


def test_skipped_base_constructor_raises(generated):
    class Own(AutoCalibration):
        def __init__(self, grid=3):
            self.grid = grid

    class Unkept(ShiftCalibration):
        def __init__(self, grid=3):
            pass

    with pytest.raises(InputError, match=r"constructor of Own must call .*super\(\)\.__init__\(\)"):
        Own().fit(generated(300))
    with pytest.raises(InputError, match=r"constructor of Unkept .*'grid'.*self\.NAME = NAME"):
        repr(Unkept())
    assert not hasattr(Unkept(), "grid")


def test_other_fit_errors_pass_unchanged(generated):
    class Own(Calibrator):
        def fit_map(self, val, start=None):
            return val.no_such_attribute

    with pytest.raises(AttributeError, match="no_such_attribute"):
        Own().fit(generated(300))
