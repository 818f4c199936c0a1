import pytest
import torch
from torchmetrics.functional.classification import multiclass_calibration_error

from fedlas import Predictions
from fedlas.metrics import (
    adaptive_ece,
    ece,
    mce,
    top_label_ece,
)


def generated(samples, classes, scale=3.0, seed=0):
    torch.manual_seed(seed)
    logits = torch.randn(samples, classes) * scale
    return Predictions(logits, torch.multinomial((logits / 2).softmax(1), 1).squeeze(1))


@pytest.mark.parametrize("classes", [2, 3, 10, 100])
@pytest.mark.parametrize("num_bins", [1, 2, 10, 15])
def test_against_torchmetrics(classes, num_bins):
    p = generated(700, classes)
    # torchmetrics gives a confidence of exactly 1 a bin of its own, which changes both numbers.
    keep = p.tensors().confidence < 1
    p = Predictions(p.tensors().logits[keep], p.tensors().target[keep])
    for norm, metric in (("l1", top_label_ece), ("max", mce)):
        expected = multiclass_calibration_error(
            p.tensors().logits, p.tensors().target, classes, n_bins=num_bins, norm=norm
        )
        assert metric(p, num_bins=num_bins) == pytest.approx(float(expected), rel=1e-4, abs=1e-6), (
            norm
        )


def test_confidence_one_is_in_last_bin_unlike_torchmetrics():
    p = Predictions([[200.0, 0.0], [3.0, 0.0]], [1, 0])
    assert p.tensors().confidence[0] == 1
    both = abs(float(p.tensors().confidence.sum()) - 1) / 2
    assert top_label_ece(p) == pytest.approx(both, rel=1e-6)
    separate = float(
        multiclass_calibration_error(p.tensors().logits, p.tensors().target, 2, n_bins=15)
    )
    assert separate > top_label_ece(p)


def test_a_handful_of_samples_by_hand():
    # Confidences 0.9 and 0.8 in different bins of 10, one right, one wrong.
    p = Predictions(torch.tensor([[0.9, 0.1], [0.8, 0.2]]).log(), [0, 1])
    assert ece(p, num_bins=10) == pytest.approx((0.1 + 0.8) / 2, rel=1e-6)
    assert mce(p, num_bins=10) == pytest.approx(0.8, rel=1e-6)
    assert ece(p, num_bins=1) == pytest.approx(abs(0.85 - 0.5), rel=1e-6)
    assert adaptive_ece(p, num_bins=2) == pytest.approx((0.1 + 0.8) / 2, rel=1e-6)


def test_one_sample():
    p = Predictions([[2.0, 0.0, 0.0]], [0])
    expected = 1 - float(p.tensors().confidence)
    for metric in (ece, mce, adaptive_ece):
        assert metric(p) == pytest.approx(expected, rel=1e-6)


def test_a_single_class_is_always_right_and_sure():
    p = Predictions(torch.randn(5, 1), torch.zeros(5, dtype=torch.long))
    for metric in (ece, mce, adaptive_ece):
        assert metric(p) == 0.0


def test_reference_convention_drops_the_least_confident():
    p = Predictions(torch.tensor([[0.6, 0.4], [0.9, 0.1], [0.8, 0.2]]).log(), [1, 0, 0])
    exact, reference = (adaptive_ece(p, num_bins=1, variant=c) for c in ("exact", "reference"))
    assert exact == pytest.approx(abs(2.3 - 2) / 3, rel=1e-6)
    assert reference == pytest.approx(abs(1.7 - 2) / 3, rel=1e-6)


def test_reference_convention_of_nothing_but_ties_counts_nobody():
    p = Predictions(torch.zeros(4, 2), [1, 1, 1, 1])
    assert adaptive_ece(p, variant="reference") == 0.0
    assert adaptive_ece(p) == 0.5


def test_order_in_the_file_does_not_separate_ties():
    # Half of the equal confidences are right: the one bin they share says so, however they are sorted.
    target = torch.tensor([0] * 10 + [1] * 10)
    for order in (torch.arange(20), torch.arange(20).flip(0)):
        assert adaptive_ece(Predictions(torch.zeros(20, 2), target[order])) == 0.0


def test_a_misspelt_convention():
    p = generated(5, 3)
    with pytest.raises(ValueError, match=r"adaptive_ece: variant .*exact, reference"):
        adaptive_ece(p, variant="refernce")


@pytest.mark.parametrize("wrong", [torch.zeros(3, 2), None, {"logits": 1}])
def test_anything_but_predictions_is_refused(wrong):
    with pytest.raises(ValueError, match=r"ece: .*(be Predictions|with labels); got"):
        ece(wrong)
