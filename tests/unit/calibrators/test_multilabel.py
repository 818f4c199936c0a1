import numpy as np
import pytest
import torch

from fedlas.calibrators import (
    AutoCalibration,
    CalibrationWarning,
    IsotonicCalibration,
    MultiLabelCalibration,
    PartialPooling,
)
from fedlas.errors import InputError


def labels(samples=2000, seed=0):
    random = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(samples, 3, generator=random, dtype=torch.float64)
    return logits * torch.tensor([3.0, 1.0, 0.5]).double(), torch.bernoulli(
        logits.sigmoid(), generator=random
    )


def loss(logits, target):
    return float(torch.nn.functional.binary_cross_entropy_with_logits(logits, target))


@pytest.mark.parametrize(
    "method",
    [
        "temperature",
        *(pytest.param(m, marks=pytest.mark.system) for m in ("auto", IsotonicCalibration())),
    ],
)
def test_each_label_has_a_calibrator_of_its_own(method, tmp_path):
    (logits, target), (test, test_target) = labels(), labels(seed=1)
    calibration = MultiLabelCalibration(method).fit(logits, target)
    after = calibration.transform(test)
    shared = MultiLabelCalibration(method, shared=True).fit(logits, target)
    assert loss(after, test_target) < loss(shared.transform(test), test_target) - 0.01
    assert len(set(map(id, shared.calibrators))) == 1
    loaded = MultiLabelCalibration.load(calibration.save(tmp_path / "labels.json"))
    torch.testing.assert_close(loaded.transform(test), after)
    exported = torch.export.export(calibration.module(), (test[:5],)).module()
    torch.testing.assert_close(exported(test[:5]), after[:5])


def test_what_is_loaded_fits_alike(tmp_path):
    for shared in (True, False):
        calibration = MultiLabelCalibration("temperature", shared=shared).fit(*labels())
        loaded = MultiLabelCalibration.load(calibration.save(tmp_path / "labels.json"))
        first, second = (each.fit(*labels(seed=1)).calibrators for each in (calibration, loaded))
        assert [each.temperature for each in first] == [each.temperature for each in second]
    path = tmp_path / "labels.json"
    # as they were written at first
    path.write_text(path.read_text().replace('"shared": false,', ""))
    assert not MultiLabelCalibration.load(path).shared


@pytest.mark.filterwarnings("ignore::fedlas.calibrators.CalibrationWarning")
def test_the_default_uses_features_of_enough_samples():
    (logits, target), features = labels(1000), torch.randn(1000, 2)
    few = slice(0, 500)
    for samples, values, kind in (
        (slice(None), None, PartialPooling),
        (few, features[few], PartialPooling),
        (slice(None), features, AutoCalibration),
    ):
        fit = MultiLabelCalibration().fit(logits[samples], target[samples], values)
        assert type(fit.calibrators[0]) is kind
    assert MultiLabelCalibration().wants == {"features"}
    assert not MultiLabelCalibration("partial-pooling").wants


def test_a_temperature_of_each_label():
    calibration = MultiLabelCalibration("temperature").fit(*labels(20_000))
    found = [calibrator.temperature for calibrator in calibration.calibrators]
    assert found == pytest.approx([3.0, 1.0, 0.5], rel=0.1)


@pytest.mark.filterwarnings("ignore::fedlas.calibrators.CalibrationWarning")
def test_invalid_arguments_raise(tmp_path):
    logits, target = labels(50)
    for wrong in (target[:, :2], target + 0.5, target.long().argmax(1), None, "x"):
        with pytest.raises(InputError, match="target"):
            MultiLabelCalibration().fit(logits, wrong)
    with pytest.raises(InputError, match="fitted"):
        MultiLabelCalibration().transform(logits)
    with pytest.raises(InputError, match="method must be one of"):
        MultiLabelCalibration("no")
    calibration = MultiLabelCalibration("platt").fit(logits, target)
    with pytest.raises(InputError, match=r"\(N, 3\)"):
        calibration.transform(logits[:, :2])
    (tmp_path / "x.json").write_text("[]")
    for path in (tmp_path / "x.json", tmp_path / "none.json"):
        with pytest.raises(InputError, match="MultiLabelCalibration"):
            MultiLabelCalibration.load(path)
    with pytest.warns(CalibrationWarning, match="few"):
        MultiLabelCalibration("platt").fit(logits, target)


@pytest.mark.parametrize("method", [np.zeros(3), torch.zeros(2, 2), [], 0, False, ""])
def test_a_method_that_is_no_name_is_refused(method):
    for build in (MultiLabelCalibration, MultiLabelCalibration.from_method):
        with pytest.raises(InputError, match="method must be one of"):
            build(method)
