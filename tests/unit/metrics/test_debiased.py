import pytest
import torch

from fedlas import Predictions
from fedlas.metrics import debiased_ece2, rmsce


def drawn(confidence, accuracy, samples, seed):
    generator = torch.Generator().manual_seed(seed)
    right = torch.rand(samples, generator=generator) < accuracy
    return Predictions(
        torch.tensor([[confidence, 1 - confidence]] * samples, dtype=torch.float64).log(),
        (~right).long(),
    )


def test_by_hand():
    # One bin of four with accuracy 3/4 and confidence 0.9, one of two, and one of one, which counts as 0.
    rows = [[0.9, 0.1]] * 4 + [[0.7, 0.3]] * 2 + [[0.6, 0.4]]
    p = Predictions(torch.tensor(rows, dtype=torch.float64).log(), [0, 0, 0, 1, 0, 1, 1])
    expected = 4 / 7 * ((0.9 - 0.75) ** 2 - 0.75 * 0.25 / 3) + 2 / 7 * ((0.7 - 0.5) ** 2 - 0.25)
    assert debiased_ece2(p) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(("confidence", "accuracy"), [(0.8, 0.8), (0.9, 0.7)])
def test_is_unbiased_where_the_square_is_not(confidence, accuracy):
    """Over many small data sets: the mean is the true square within 4 standard errors; the plain square is far off."""
    sets = [drawn(confidence, accuracy, 10, seed) for seed in range(1000)]
    values = torch.tensor([debiased_ece2(p) for p in sets])
    plain = torch.tensor([rmsce(p) ** 2 for p in sets])
    true = (confidence - accuracy) ** 2
    error = float(values.std()) / 1000**0.5
    assert float(values.mean()) == pytest.approx(true, abs=4 * error)
    assert float(plain.mean()) > true + 5 * error
    assert float(values.min()) < 0
