import math

import pytest
import torch

from fedlas import Predictions
from fedlas.metrics import brier, nll


def test_uniform_predictions():
    p = Predictions(torch.zeros(3, 4), [0, 1, 2])
    assert nll(p) == pytest.approx(math.log(4), rel=1e-7)
    assert brier(p) == pytest.approx(0.75**2 + 3 * 0.25**2, rel=1e-7)


def test_extremes_are_finite():
    p = Predictions([[1e4, -1e4, 0.0], [-1e4, 1e4, 0.0]], [0, 0])
    assert nll(p) == 1e4
    assert brier(p) == 1.0
    assert brier(Predictions([[1e4, 0.0]], [1])) == 1.0


def test_many_equal_rows_do_not_drift():
    # A running float32 sum of so many terms would be off in the fourth digit.
    p = Predictions(
        torch.tensor([[0.1, 0.0]]).expand(2_000_000, 2), torch.zeros(2_000_000, dtype=torch.long)
    )
    assert nll(p) == pytest.approx(math.log1p(math.exp(-0.1)), rel=1e-6)


def test_against_scikit_learn():
    from sklearn.metrics import log_loss

    torch.manual_seed(0)
    p = Predictions(torch.randn(200, 6, dtype=torch.float64) * 3, torch.randint(6, (200,)))
    expected = log_loss(p.target, p.probs, labels=range(6))
    assert nll(p) == pytest.approx(expected, rel=1e-10)
