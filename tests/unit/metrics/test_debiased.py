import pytest
import torch

from fedlas import Predictions
from fedlas.metrics import debiased_squared_calibration_error, root_mean_square_calibration_error


def drawn(confidence, accuracy, samples, seed):
    generator = torch.Generator().manual_seed(seed)
    right = torch.rand(samples, generator=generator) < accuracy
    return Predictions(
        torch.tensor([[confidence, 1 - confidence]] * samples, dtype=torch.float64).log(), (~right).long()
    )


def test_by_hand():
    # One bin of four with accuracy 3/4 and confidence 0.9, one of two, and one of one, which counts as 0.
    rows = [[0.9, 0.1]] * 4 + [[0.7, 0.3]] * 2 + [[0.6, 0.4]]
    p = Predictions(torch.tensor(rows, dtype=torch.float64).log(), [0, 0, 0, 1, 0, 1, 1])
    expected = 4 / 7 * ((0.9 - 0.75) ** 2 - 0.75 * 0.25 / 3) + 2 / 7 * ((0.7 - 0.5) ** 2 - 0.25)
    assert debiased_squared_calibration_error(p) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(("confidence", "accuracy"), [(0.8, 0.8), (0.9, 0.7)])
def test_is_unbiased_where_the_square_is_not(confidence, accuracy):
    """Over many small data sets: the mean is the true square within 4 standard errors; the plain square is far off."""
    sets = [drawn(confidence, accuracy, 10, seed) for seed in range(1000)]
    values = torch.tensor([debiased_squared_calibration_error(p) for p in sets])
    plain = torch.tensor([root_mean_square_calibration_error(p) ** 2 for p in sets])
    true = (confidence - accuracy) ** 2
    error = float(values.std()) / 1000**0.5
    assert float(values.mean()) == pytest.approx(true, abs=4 * error)
    assert float(plain.mean()) > true + 5 * error
    assert float(values.min()) < 0


def test_bins_of_equal_mass():
    torch.manual_seed(0)
    p = Predictions(torch.randn(300, 4), torch.randint(4, (300,)))
    one = [debiased_squared_calibration_error(p, num_bins=1, scheme=s) for s in ("equal-width", "equal-mass")]
    assert one[0] == one[1]
    confidence, correct = p.confidence.double().sort().values, p.correct[p.confidence.argsort()].double()
    parts = zip(confidence.split(100), correct.split(100), strict=True)
    expected = sum(((c.mean() - a.mean()) ** 2 - a.var() / 100) / 3 for c, a in parts)
    value = debiased_squared_calibration_error(p, num_bins=3, scheme="equal-mass")
    assert value == pytest.approx(float(expected), rel=1e-9)


def test_a_misspelt_scheme():
    with pytest.raises(ValueError, match="Did you mean 'equal-mass'"):
        debiased_squared_calibration_error(drawn(0.8, 0.8, 3, 0), scheme="equal_mass")
