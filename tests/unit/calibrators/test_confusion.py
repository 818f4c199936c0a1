"""What the labels are where the model says a class, and what auto does with many classes and absent ones."""

import numpy as np
import pytest
import torch

from fedlas import Predictions
from fedlas.calibrators import (
    AutoCalibration,
    Calibrator,
    ConfusionCalibration,
    TemperatureScaling,
    confusion,
)
from fedlas.calibrators._fit.absent_share import AbsentShare
from fedlas.errors import InputError
from fedlas.metrics import accuracy, ece, nll

pytestmark = pytest.mark.filterwarnings("ignore::fedlas.errors.CalibrationWarning")


def drawn(samples, classes, seed, called=None, factor=1.0):
    """Calibrated predictions, times a factor; ``called`` renames the labels of classes."""
    random = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(samples, classes, generator=random, dtype=torch.float64)
    target = torch.multinomial(logits.softmax(1), 1, generator=random)[:, 0]
    names = torch.arange(classes) if called is None else torch.tensor(called)
    return Predictions(factor * logits, names[target])


CALLED = [*range(20), *range(5)]
"""Of 25 classes, labels call the last five like the first."""


@pytest.fixture(scope="module")
def many():
    """``auto`` on 25 classes of which five are called otherwise, with samples of test."""
    val, test = (drawn(1500, 25, seed, CALLED, 1.5) for seed in (0, 1))
    return AutoCalibration().fit(val), val, test


def test_matrix_rows_are_label_distributions():
    fit = ConfusionCalibration(base="none").fit(drawn(3000, 25, 0, CALLED))
    matrix = fit.confusion
    assert matrix.sum(1) == pytest.approx(torch.ones(25).double())
    assert all(float(matrix[20 + k, k]) > 0.8 for k in range(5))
    assert all(float(matrix[k, k]) > 0.9 for k in range(20))


def test_confusion_is_the_maximum_of_the_posterior():
    """Of two classes, sure predictions: counts and prior alone."""
    rows = torch.tensor([[50.0, 0.0]]).double().repeat(10, 1)
    val = Predictions(rows, torch.tensor([0] * 6 + [1] * 4))
    share = torch.tensor([6.01, 4.01]).double() / 10.02
    matrix = ConfusionCalibration(2.0, "none").fit(val).confusion
    prior = torch.tensor([2.0, 0.0]).double() + share
    assert matrix[0] == pytest.approx((torch.tensor([6.0, 4.0]) + prior) / 13)
    assert matrix[1] == pytest.approx((torch.tensor([0.0, 2.0]) + share) / 3)


def test_sparse_and_dense_forms_agree(monkeypatch, many):
    _, val, test = many
    dense = ConfusionCalibration().fit(val).transform(test)
    monkeypatch.setattr(confusion, "_MAX_DENSE_CLASSES", 4)
    assert torch.allclose(
        ConfusionCalibration().fit(val).transform(test).tensors().probs,
        dense.tensors().probs,
        atol=1e-12,
    )


@pytest.mark.parametrize("options", [{"strength": 0}, {"strength": -1.0}, {"base": "vector"}])
def test_refuses(options):
    with pytest.raises(InputError):
        ConfusionCalibration(**options)


def test_auto_repairs_what_no_map_of_logits_repairs(many):
    auto, val, test = many
    scaled = TemperatureScaling().fit(val).transform(test)
    after = auto.transform(test)
    assert auto.weights["confusion"] + auto.weights.get("held confusion", 0) > 0.5
    assert nll(after) < 0.8 * nll(scaled)
    assert accuracy(after) > accuracy(scaled) + 0.05
    assert ece(after) < 0.06


def test_many_classes_survive_saving_and_layer(many, tmp_path):
    auto, _, test = many
    loaded = Calibrator.load(auto.save(tmp_path / "auto.json"))
    expected = auto.transform(test).tensors().logits
    assert torch.equal(loaded.transform(test).tensors().logits, expected)
    assert loaded.notes == auto.notes
    layer = auto.module()
    assert torch.allclose(layer(test.tensors().logits).softmax(1), expected.softmax(1), atol=1e-5)


@pytest.mark.system
@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
def test_many_classes_export_to_onnx(many, tmp_path):
    runtime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    auto, _, test = many
    rows = test.tensors().logits[:50].float()
    torch.onnx.export(auto.module(), (rows,), tmp_path / "auto.onnx", dynamo=True, verbose=False)
    session = runtime.InferenceSession(tmp_path / "auto.onnx", providers=["CPUExecutionProvider"])
    (logits,) = session.run(None, {session.get_inputs()[0].name: rows.numpy()})
    expected = auto.transform(Predictions(rows)).probs
    np.testing.assert_allclose(torch.from_numpy(logits).softmax(1), expected, atol=1e-5)


def test_absent_classes_keep_one_sample_with_a_note(many):
    auto, val, _ = many
    after = auto.transform(val).tensors().probs
    share = float(after[:, 20:].sum(1).mean())
    assert share == pytest.approx(5 / 1500, rel=0.03)
    (note,) = auto.notes
    assert "5 classes (20, 21, 22, 23, 24) without a validation sample" in note
    assert "at most 5/N" in note


def test_many_absent_classes_get_at_most_one_percent():
    """A model of 30 classes, used where twelve never come: one sample each would be 3 %."""
    val = drawn(400, 30, 0, [*range(18), *range(12)])
    auto = AutoCalibration().fit(val)
    share = float(auto.transform(val).tensors().probs[:, 18:].sum(1).mean())
    assert share == pytest.approx(0.01, rel=0.03)
    assert any("at most 4/N" in note for note in auto.notes)


def test_table_copies_do_not_change_absent_share():
    """The hundredth was of the rows: four copies left 4 %, and weights something else than repeated rows."""
    val = drawn(400, 30, 0, [*range(18), *range(12)])
    copies = val.rows(torch.arange(400).repeat(4))
    probs = AutoCalibration().fit(copies).transform(val).tensors().probs
    assert float(probs[:, 18:].sum(1).mean()) == pytest.approx(0.01, rel=0.03)
    weights = torch.arange(400) % 3 + 1
    counted = Predictions(val.tensors().logits, val.tensors().target, weights=weights)
    repeated = val.rows(torch.arange(400).repeat_interleave(weights))
    one, other = (
        AutoCalibration().fit(each).transform(val).tensors().probs for each in (counted, repeated)
    )
    assert torch.allclose(one, other, atol=1e-6)


def test_absent_class_with_zero_probability_keeps_half():
    """Temperature scaling of a forest's zeros alone told its rows from no others: up to 14 % of the NLL."""
    step = AbsentShare(
        absent=torch.tensor([0.0, 0.0, 1.0]),
        temperature=torch.tensor(2.0),
        log_factor_of_both=torch.tensor(0.0),
    )
    zero = torch.tensor([[0.6, 0.4, 1e-30]], dtype=torch.float64).log()
    before = torch.tensor([[0.6, 0.2, 0.2]], dtype=torch.float64)
    after = step(zero, before.log()).exp()
    assert torch.allclose(after, torch.tensor([[0.675, 0.225, 0.1]], dtype=torch.float64))


@pytest.mark.parametrize("classes", [2, 4, 25])
def test_absent_class_costs_about_the_rule_of_three(classes):
    """Where it is as frequent as the model says, the loss is bounded by that of its odds."""
    val, test = (drawn(900, classes, seed) for seed in (2, 3))
    inside = val.tensors().target > 0
    auto = AutoCalibration().fit(val.rows(inside))
    probs = auto.transform(val.rows(inside)).tensors().probs
    assert float(probs[:, 0].mean()) <= 3 / int(inside.sum()) * (1 + 1e-6)
    come = test.rows(test.tensors().target == 0)
    before = come.tensors().logits.log_softmax(1)[:, 0]
    after = auto.transform(come).tensors().logits.log_softmax(1)[:, 0]
    raw = float(val.rows(inside).tensors().probs[:, 0].mean())
    factor = torch.tensor(raw * int(inside.sum()) / 3).log()
    assert float((before - after).mean()) < 1.5 * float(factor) + 0.2


def test_weights_of_many_classes_are_repeated_samples():
    val = drawn(300, 20, 4)
    weights = torch.tensor([1.0, 2.0, 3.0]).repeat(100)
    counted = Predictions(val.tensors().logits, val.tensors().target, weights=weights)
    repeated = val.rows(torch.arange(300).repeat_interleave(weights.long()))
    for calibrator in (ConfusionCalibration, AutoCalibration):
        first, second = (calibrator().fit(each).transform(val) for each in (counted, repeated))
        assert torch.allclose(first.tensors().probs, second.tensors().probs, atol=1e-6)


def test_with_few_samples_auto_is_near_temperature_scaling():
    """Fifty samples of three classes, 2.5 times too sure: held back by raw predictions no more."""
    test = drawn(4000, 3, 99, factor=2.5)
    gaps = []
    for seed in range(5):
        val = drawn(50, 3, seed, factor=2.5)
        pair = (AutoCalibration(), TemperatureScaling())
        auto, scaled = (nll(each.fit(val).transform(test)) for each in pair)
        gaps.append(auto - scaled)
    assert sum(gaps) / 5 < 0.02
