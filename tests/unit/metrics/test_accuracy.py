import pytest
import torch

from fedlas import Predictions
from fedlas.metrics import METRICS, accuracy, top_k_accuracy

P = Predictions([[3.0, 2.0, 1.0], [3.0, 2.0, 1.0], [3.0, 2.0, 1.0], [1.0, 1.0, 1.0]], [0, 1, 2, 2])


@pytest.mark.parametrize(("k", "expected"), [(1, 0.25), (2, 0.5), (3, 1.0), (5, 1.0)])
def test_top_k(k, expected):
    assert top_k_accuracy(P, k=k) == expected


def test_accuracy_is_top_one():
    assert accuracy(P) == top_k_accuracy(P, k=1)


def test_top_five_of_fewer_classes_is_one():
    assert METRICS["top5"].value(P) == 1.0


@pytest.mark.parametrize("k", [0, -1, 1.5, True])
def test_k_must_be_a_count(k):
    with pytest.raises(ValueError, match=r"top_k_accuracy: k .*whole number"):
        top_k_accuracy(P, k=k)


def test_against_scikit_learn():
    from sklearn.metrics import top_k_accuracy_score

    torch.manual_seed(0)
    p = Predictions(torch.randn(300, 12), torch.randint(12, (300,)))
    for k in (1, 3, 5):
        expected = top_k_accuracy_score(p.target, p.logits, k=k, labels=range(12))
        assert top_k_accuracy(p, k=k) == pytest.approx(expected, abs=1e-12)
