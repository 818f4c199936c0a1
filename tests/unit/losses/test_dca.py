"""DCA by hand."""

import math

import pytest
import torch
import torch.nn.functional as F

from fedlas.errors import InputError
from fedlas.losses import DCA

# Probabilities (0.8, 0.2), (0.6, 0.4), (0.5, 0.5): confidences 0.8, 0.6, 0.5, predictions 0, 0, 0.
LOGITS = torch.tensor([[math.log(4), 0.0], [math.log(1.5), 0.0], [0.0, 0.0]], dtype=torch.float64)


def test_by_hand():
    target = torch.tensor([0, 1, 0])
    gap = abs((0.8 + 0.6 + 0.5) / 3 - 2 / 3)
    expected = F.cross_entropy(LOGITS, target) + 2 * gap
    torch.testing.assert_close(DCA(alpha=2)(LOGITS, target), expected)


def gap(logits, target):
    return (DCA()(logits, target) - DCA(alpha=0)(logits, target)).item()


def test_accuracy_above_confidence_counts_as_much():
    logits = LOGITS[:2]  # confidences 0.8 and 0.6
    assert gap(logits, torch.tensor([0, 0])) == pytest.approx(0.3)
    assert gap(logits, torch.tensor([1, 1])) == pytest.approx(0.7)


def test_gradient_goes_through_confidence_alone():
    """Over-confident on average: the gradient of each confidence is 1 / 3, times d p_0 / d z = p_0 p_1."""
    logits = LOGITS.clone().requires_grad_()
    target = torch.tensor([1, 1, 1])
    (DCA()(logits, target) - F.cross_entropy(logits, target)).backward()
    slope = torch.tensor([0.8 * 0.2, 0.6 * 0.4, 0.25], dtype=torch.float64) / 3
    torch.testing.assert_close(logits.grad, torch.stack((slope, -slope), 1))


def test_masked_mean():
    assert gap(LOGITS, torch.tensor([0, 1, -100])) == pytest.approx(0.2)  # 0.7 - 0.5


def test_soft_targets_are_correct_at_their_argmax():
    soft = torch.tensor([[0.6, 0.4], [0.1, 0.9], [0.7, 0.3]], dtype=torch.float64)
    expected = F.cross_entropy(LOGITS, soft) + abs(1.9 / 3 - 2 / 3)
    torch.testing.assert_close(DCA()(LOGITS, soft), expected)


@pytest.mark.parametrize("options", [{"alpha": -1.0}, {"alpha": "1"}])
def test_invalid_dca_arguments_raise(options):
    with pytest.raises(InputError, match="DCA: alpha"):
        DCA(**options)
