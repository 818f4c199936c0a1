import math

import pytest
import torch

from fedlas import Predictions
from fedlas.calibrators._fit.one_vs_rest import (
    class_and_rest,
    floored_log,
    log_odds,
    separated_classes,
)
from fedlas.calibrators._fit.rowwise import smallest_probability


def test_logarithms_of_p_and_of_the_rest():
    logits = torch.randn(50, 6, dtype=torch.float64) * 3
    probs = logits.softmax(1)
    own, rest = class_and_rest(logits)
    torch.testing.assert_close(own, probs.log())
    torch.testing.assert_close(rest, (1 - probs).log())
    torch.testing.assert_close(log_odds(logits), torch.logit(probs))


def test_the_rest_by_leaving_one_class_out():
    logits = torch.tensor(
        [[40.0, 0.0, -3.0], [-700.0, 20.0, 20.0], [1e30, 0.0, 1e29], [0.0, 0.0, 0.0]]
    ).double()
    _, rest = class_and_rest(logits)
    for label in range(3):
        others = logits[:, [k for k in range(3) if k != label]].logsumexp(1)
        by_hand = -torch.nn.functional.softplus(logits[:, label] - others)
        torch.testing.assert_close(rest[:, label], by_hand, rtol=1e-14, atol=1e-300)


def test_two_classes_are_mirror_images():
    logits = torch.tensor([[800.0, 0.0], [0.0, 3.0], [1.0, 1.0]]).double()
    scores = log_odds(logits)
    torch.testing.assert_close(scores[:, 0], logits[:, 0] - logits[:, 1])
    torch.testing.assert_close(scores[:, 0], -scores[:, 1])


def test_one_class_has_no_rest_and_finite_numbers():
    own, rest = class_and_rest(torch.randn(3, 1).double())
    assert own.tolist() == [[0.0]] * 3
    assert bool(torch.isfinite(rest).all())
    assert bool((rest < -1e29).all())


def test_the_floor_replaces_zeros_only():
    floor = smallest_probability(samples=99, classes=10)
    assert floor == pytest.approx(0.001)
    probs = torch.tensor([[0.0, 1 / 99, 1.0]]).double()
    torch.testing.assert_close(
        floored_log(probs, floor), torch.tensor([[math.log(0.001), math.log(1 / 99), 0.0]]).double()
    )
    assert floored_log(torch.zeros(2, 3).double(), floor).softmax(1).unique().numel() == 1


def test_separated_classes():
    logits = torch.tensor([[5.0, 0, 0], [4, 0, 0], [3, 0, 0], [0, 2, 0], [0, 1, 2], [0, 1, 1.5]])
    val = Predictions(logits, [0, 0, 1, 1, 2, 2])
    assert separated_classes(val) == [0, 2]
    assert separated_classes(Predictions(logits[:, :2], [0] * 6)) == []  # nothing to separate from
    assert separated_classes(Predictions(torch.zeros(4, 2), [0, 1, 0, 1])) == []


@pytest.mark.parametrize("logits", [[17.0, 0.0, 0.0], [800.0, 0.0, -5.0], [40.0, 40.0, 0.0], [5.0]])
def test_gradients_are_finite(logits):
    rows = torch.tensor([logits], dtype=torch.float64, requires_grad=True)
    log_odds(rows).clamp(min=-1e3, max=1e3).sum().backward()
    assert bool(rows.grad.isfinite().all())
