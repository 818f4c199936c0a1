import pytest
import torch

from fedlas import Predictions
from fedlas.metrics import ece, evaluate, true_ece


def calibrated(samples=20_000, classes=5, over=1.0):
    torch.manual_seed(0)
    logits = torch.randn(samples, classes, dtype=torch.float64) * 2
    probs = logits.softmax(1)
    return Predictions(logits * over, torch.multinomial(probs, 1).squeeze(1), label_probs=probs)


def test_zero_for_calibrated_predictions_where_ece_is_not():
    p = calibrated()
    assert true_ece(p) == pytest.approx(0.0, abs=1e-12)
    assert ece(p) > 1e-3


def test_near_ece_where_the_error_is_large():
    p = calibrated(over=2.0)
    assert true_ece(p) == pytest.approx(ece(p), abs=0.01)
    assert true_ece(p) > 0.1


def test_labels_do_not_matter():
    p = calibrated(200, over=1.5)
    other = Predictions(
        p.tensors().logits, p.tensors().target.roll(1), label_probs=p.tensors().label_probs
    )
    assert true_ece(p) == true_ece(other)


def test_evaluate_has_it_only_with_label_probs():
    p = calibrated(100)
    assert evaluate(p)["true_ece"] == true_ece(p)
    assert "true_ece" not in evaluate(Predictions(p.tensors().logits, p.tensors().target))


def test_without_label_probs():
    with pytest.raises(ValueError, match=r"true_ece: .*label_probs; got none"):
        true_ece(Predictions([[0.0, 1.0]], [0]))


@pytest.mark.parametrize("value", [float("nan"), -0.1, 1.1])
def test_label_probs_must_be_probabilities(value):
    with pytest.raises(ValueError, match="label_probs"):
        Predictions([[1.0, 0.0]], [0], label_probs=[[value, 0.0]])
