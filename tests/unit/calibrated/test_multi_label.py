"""Several labels a sample: measured, calibrated as a model, saved, exported; and named where people meet them."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

import fedlas
from fedlas import CalibratedModel, MultiLabel, Predictions
from fedlas.calibrators import AutoCalibration, MultiLabelCalibration, TemperatureScaling
from fedlas.errors import InputError

L = 3
pytestmark = pytest.mark.filterwarnings("ignore::fedlas.errors.CalibrationWarning")


def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, L))


def batches(seed=1, samples=600):
    torch.manual_seed(seed)
    inputs = torch.randn(samples, 4)
    target = torch.bernoulli((net()(inputs) / torch.tensor([0.3, 1.0, 2.0])).sigmoid().detach())
    target[::7, 1] = -100
    return [
        (part, labels) for part, labels in zip(inputs.split(250), target.split(250), strict=True)
    ]


def test_labels_one_by_one_and_pooled():
    several = fedlas.predict(net(), batches(), multi_label=True, features=True)
    assert repr(several) == "MultiLabel(600 samples, 3 labels)"
    inputs, target = (torch.cat(parts) for parts in zip(*batches(), strict=True))
    torch.testing.assert_close(several.tensors().logits, net()(inputs).detach())
    known = target[:, 1] >= 0
    one = several.label("1")
    torch.testing.assert_close(
        one.tensors().probs[:, 1], several.tensors().logits[known, 1].sigmoid()
    )
    assert torch.equal(one.tensors().target, target[known, 1].long())
    assert torch.equal(one.tensors().features, several.tensors().features[known])
    pooled = several.pooled()
    assert pooled.num_samples == int((target >= 0).sum())
    assert torch.equal(pooled.tensors().clusters, (target >= 0).nonzero()[:, 0])
    assert fedlas.evaluate(pooled)["nll"] == pytest.approx(
        float(
            nn.functional.binary_cross_entropy_with_logits(
                several.tensors().logits[target >= 0], target[target >= 0]
            )
        )
    )
    owned = MultiLabel(
        several.tensors().logits, target, names=("a", "b", "c"), clusters=torch.arange(600) // 2
    )
    assert torch.equal(owned.label("b").tensors().clusters, (torch.arange(600) // 2)[known])
    assert torch.equal(owned.label(1).tensors().target, one.tensors().target)


def test_a_report_has_all_labels_together_and_each():
    several = fedlas.predict(net(), batches(), multi_label=True)
    named = MultiLabel(
        several.tensors().logits, several.tensors().target, names=("cat", "dog", "fox")
    )
    text = fedlas.report(named, replicates=0).text()
    assert all(name in text for name in ("cat", "dog", "fox"))
    assert "600 samples, 3 labels" in text
    first = named.rows(np.arange(300))
    after = fedlas.report(named, on=first, method="temperature", replicates=0)
    assert "after temperature" in after.stages


@pytest.mark.parametrize(
    "method",
    [MultiLabelCalibration("temperature"), MultiLabelCalibration(), MultiLabelCalibration("auto")],
    ids=["t", "default", "auto"],
)
def test_a_calibrated_model_of_independent_labels(method, tmp_path):
    model = net()
    calibrated = fedlas.calibrate(model, batches(), method)
    features = calibrated.calibrator.num_features
    assert features == (6 if method.calibrator.__class__ is AutoCalibration else None)
    inputs = torch.cat([part for part, _ in batches()])
    several = fedlas.predict(model, batches(), multi_label=True, features=True)
    wanted = calibrated.calibrator.transform(several.tensors().logits, several.tensors().features)
    torch.testing.assert_close(calibrated(inputs).detach(), wanted, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(
        calibrated.predict_proba(inputs), wanted.sigmoid(), rtol=1e-4, atol=1e-5
    )
    assert "3 labels of 600, " in repr(calibrated)
    measured = calibrated.before_after(batches(2))
    assert measured.after.nll < measured.before.nll
    loaded = CalibratedModel.load(calibrated.save(tmp_path / "m.safetensors"), net())
    assert torch.equal(loaded(inputs), calibrated(inputs))
    other = CalibratedModel(net(), copy.deepcopy(calibrated.calibrator))
    other.load_state_dict(calibrated.state_dict())
    assert torch.equal(other(inputs), calibrated(inputs))


@pytest.mark.system
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("form", "name"), [("onnx", "m.onnx"), ("torch-export", "m.pt2"), ("torchscript", "m.pt")]
)
def test_it_exports_sigmoids(form, name, tmp_path):
    pytest.importorskip("onnxruntime")
    calibrated = fedlas.calibrate(net(), batches(), MultiLabelCalibration())
    inputs = torch.cat([part for part, _ in batches()])
    report = fedlas.deploy.export(calibrated, tmp_path / name, inputs, form=form)
    assert report.difference < 1e-5
    if form == "onnx":
        several = fedlas.predict(tmp_path / "m.onnx", batches(), multi_label=True)
        torch.testing.assert_close(
            several.tensors().logits.sigmoid(),
            calibrated.predict_proba(inputs),
            rtol=1e-4,
            atol=1e-5,
        )


LOGITS, TARGET = torch.zeros(2, L), [[1, 0, 1], [0, 0, 0]]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Predictions(LOGITS, TARGET), r"fedlas\.MultiLabel\(logits, target\)"),
        (lambda: Predictions(LOGITS, [[0, 1, 0], [1, 0, 0]]), r"target\.argmax\(1\)"),
        (lambda: TemperatureScaling().fit(MultiLabel(LOGITS, TARGET)), r"several\.pooled\(\)"),
        (lambda: MultiLabel(LOGITS, [[1, 2, 0]] * 2), "values 0, 1 or -100"),
        (lambda: MultiLabel(LOGITS, TARGET, names=["a"]), "must hold 3 different names"),
        (
            lambda: MultiLabel(LOGITS.reshape(2, L, 1), TARGET),
            r"logits must be floats of shape \(N, L\) .* any sigmoid",
        ),
        (
            lambda: MultiLabel(LOGITS, TARGET).label("cat"),
            "label must be one of the names; got str 'cat'",
        ),
        (
            lambda: MultiLabel(LOGITS, torch.full((2, L), -100)).label(0),
            "label '0' must have a known target",
        ),
        (
            lambda: fedlas.predict(net(), [(torch.zeros(2, 4), torch.zeros(2))], multi_label=True),
            r"0 or 1 .*\(2, 3\)",
        ),
        (
            lambda: fedlas.predict(net(), [torch.zeros(2, 4)], multi_label=True),
            "got a batch without labels",
        ),
        (lambda: MultiLabel(LOGITS, TARGET, weights=[1.0, -1.0]), "weights"),
    ],
)
def test_named_where_people_meet_them(call, message):
    with pytest.raises(InputError, match=message):
        call()


def test_weights_are_repeated_samples():
    counts = torch.arange(600) % 3
    several = fedlas.predict(net(), batches(), multi_label=True)
    weighted = MultiLabel(several.tensors().logits, several.tensors().target, weights=counts)
    rows = torch.arange(600).repeat_interleave(counts)
    repeated = MultiLabel(several.tensors().logits[rows], several.tensors().target[rows])
    for ours, theirs in (
        (weighted.pooled(), repeated.pooled()),
        (weighted.label(1), repeated.label(1)),
    ):
        fits = [TemperatureScaling().fit(each).temperature for each in (ours, theirs)]
        assert fits[0] == pytest.approx(fits[1], rel=1e-6)
    loader = [(*batch, part) for batch, part in zip(batches(), counts.split(250), strict=True)]
    method = MultiLabelCalibration(TemperatureScaling())
    calibrated = fedlas.calibrate(net(), loader, method, weights=2)
    found = calibrated.calibrator.calibrators[1].temperature
    assert found == pytest.approx(TemperatureScaling().fit(repeated.label(1)).temperature, rel=1e-6)


def test_saved_as_npz(tmp_path):
    several = fedlas.predict(net(), batches(), multi_label=True, features=True)
    labels = MultiLabel(
        several.tensors().logits,
        several.tensors().target,
        names=("cat", "dog", "bird"),
        features=several.tensors().features,
        clusters=torch.arange(600) // 2,
        weights=torch.arange(600) % 3,
    )
    loaded = MultiLabel.load(labels.save(tmp_path / "labels.npz"))
    assert loaded.names == labels.names
    for name in ("logits", "target", "features", "clusters", "weights"):
        assert np.array_equal(getattr(loaded, name), getattr(labels, name))
    Predictions(torch.zeros(2, 3)).save(tmp_path / "classes.npz")
    for path in (tmp_path / "classes.npz", tmp_path / "none.npz"):
        with pytest.raises(InputError, match="must"):
            MultiLabel.load(path)


@pytest.mark.parametrize("dtype", [torch.int64, torch.float32, torch.bool])
def test_rows_not_summing_to_one_are_multi_label(dtype):
    """argmax(1) of them trains and measures a model of one label, wrong, without a word."""
    logits = torch.randn(8, 6, generator=torch.Generator().manual_seed(0))
    several = (logits > 0).to(dtype)
    with pytest.raises(InputError, match=r"do not sum to 1 hold several labels.*MultiLabel\("):
        Predictions(logits, several)
    assert fedlas.evaluate(several, logits) == fedlas.evaluate(MultiLabel(logits, several.long()))
    criterion = fedlas.losses.LabelSmoothing()
    if not several.is_floating_point():
        with pytest.raises(
            InputError, match=r"several labels.*losses\.MultiLabelLoss\(num_labels=6\)"
        ):
            criterion(logits, several)
    one = torch.eye(6).to(dtype)[torch.arange(8) % 6]
    with pytest.raises(InputError, match=r"target\.argmax\(1\)"):
        Predictions(logits, one)
    votes = torch.arange(48).reshape(8, 6) % 4
    with pytest.raises(InputError, match=r"vote counts .pass their shares as label_probs"):
        Predictions(logits, votes)


@pytest.mark.parametrize("shape", [(8, 6), (8, 6, 5)])
def test_labels_of_another_dtype_move_no_classes(shape):
    logits = torch.randn(*shape, generator=torch.Generator().manual_seed(0))
    indices = torch.zeros(shape[:1] + shape[2:])
    criterion = fedlas.losses.LabelSmoothing()
    for target in (indices, indices.bool()):
        with pytest.raises(
            InputError, match=r"must be class indices.*pass target\.long\(\)"
        ) as error:
            criterion(logits, target)
        assert "movedim" not in str(error.value)
    last = torch.zeros(8, 5, dtype=torch.int64)
    with pytest.raises(InputError, match=r"logits\.movedim\(-1, 1\)"):
        criterion(torch.randn(8, 5, 6), last)
