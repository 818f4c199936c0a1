"""ICI, E50 and E90 against loess as its authors wrote it, and their chance against models that are known."""

import numpy as np
import pytest

from fedlas.binary import integrated_calibration


@pytest.mark.parametrize(
    ("span", "expected"),
    [
        (0.75, (0.11038014421849124, 0.08519047207573183, 0.20448196577175845)),
        (0.4, (0.1163709683925181, 0.11174387096792934, 0.20593510863768488)),
    ],
)
def test_cleveland_s_loess_has_the_same_numbers(predictions, span, expected):
    """p, y from sample; skmisc.loess.loess(p, y, span=span, degree=2, surface="direct"), scikit-misc 0.5.3; then
    mean, median and 0.9 quantile of abs(fitted_values - p)."""
    found = integrated_calibration(predictions, span=span, replicates=0)
    # The curve is a line between 200 places, and theirs is computed at every sample.
    assert (found.ici.value, found.e50.value, found.e90.value) == pytest.approx(expected, rel=3e-3)
    assert np.isnan([*found.low, *found.high, found.ici.low, found.e90.high]).all()
    assert found.ici.floor is None
    shown = f"Distances from the loess curve, in points: ICI {100 * found.ici.value:.2f}, E50 "
    assert str(found).startswith(shown)
    assert len(repr(found)) < 120


def test_loess_equals_weighted_regression_for_few_samples(two_class):
    log_odds = np.linspace(-3, 2, 60)
    outcome = (np.arange(60) * 7 % 11 < 4 + np.arange(60) / 12).astype(int)
    found = integrated_calibration(two_class(log_odds, outcome), replicates=0)
    p = 1 / (1 + np.exp(-log_odds))
    fitted = []
    for place in p:
        away = np.abs(p - place)
        # 0.75 of 60 samples
        root = np.sqrt(np.clip(1 - (away / np.sort(away)[44]) ** 3, 0, 1) ** 3)
        fitted.append(np.polynomial.Polynomial.fit(p, outcome, 2, w=root)(place))
    np.testing.assert_allclose(found.frequency, fitted, atol=1e-6)
    distance = np.abs(np.array(fitted) - p)
    expected = (distance.mean(), np.median(distance), np.quantile(distance, 0.9))
    assert (found.ici.value, found.e50.value, found.e90.value) == pytest.approx(expected, abs=1e-6)


def test_many_samples_are_put_together_without_harm(draw):
    p = draw(30_000, factor=1.5)
    found = integrated_calibration(p, replicates=0)
    log_odds = p.tensors().logits[:, 1].numpy()
    truth = np.abs(1 / (1 + np.exp(-log_odds)) - 1 / (1 + np.exp(-log_odds / 1.5)))
    assert found.ici.value == pytest.approx(truth.mean(), abs=0.01)
    assert found.e50.value == pytest.approx(np.median(truth), abs=0.01)


@pytest.mark.parametrize("factor", [1.0, 1.8])
def test_floor_interval_and_test(draw, factor):
    p = draw(2000, factor=factor)
    found = integrated_calibration(p)
    log_odds = p.tensors().logits[:, 1].numpy()
    truth = np.abs(1 / (1 + np.exp(-log_odds)) - 1 / (1 + np.exp(-log_odds / factor)))
    assert found.ici.low <= truth.mean() <= found.ici.high
    assert found.e90.low <= np.quantile(truth, 0.9) <= found.e90.high
    assert 0.002 < found.ici.floor < 0.03
    assert (found.ici.p < 0.05) == (factor > 1)
    if factor == 1:  # the curve of the frequencies is then the diagonal
        inside = (found.low <= found.probability) & (found.probability <= found.high)
        assert inside.mean() > 0.8


def test_the_seed_decides(predictions):
    first, again = (integrated_calibration(predictions, replicates=39, seed=3) for _ in range(2))
    assert first.ici == again.ici
    assert first.ici != integrated_calibration(predictions, replicates=39, seed=4).ici


@pytest.mark.parametrize(
    "log_odds", [[0.0] * 20, [0.0] * 18 + [1.0, 2.0], [-800.0] * 10 + [800.0] * 10]
)
def test_equal_probabilities_have_their_share_of_positives(two_class, log_odds):
    found = integrated_calibration(two_class(log_odds, [0, 1] * 10), replicates=39)
    assert found.frequency[0] == pytest.approx(0.5, abs=1e-6)
    assert np.isfinite([found.ici.high, found.e90.high]).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"span": 0.0}, r"span must be a finite number in \(0, 1\]"),
        ({"span": 1.5}, r"span must be a finite number in \(0, 1\]"),
        ({"replicates": 10}, "replicates must be 0 or at least 39 for 95 % intervals; got 10"),
        ({"replicates": -1}, "replicates must be a whole number of at least 0"),
        ({"confidence_level": 0.0}, "confidence_level must be a finite number"),
        ({"seed": -1}, "seed must be a whole number of at least 0"),
    ],
)
def test_options_out_of_range(predictions, options, message):
    with pytest.raises(ValueError, match=f"integrated_calibration: {message}"):
        integrated_calibration(predictions, **options)


def test_too_few_samples(two_class):
    with pytest.raises(ValueError, match="at least 10 samples for a calibration curve; got 3"):
        integrated_calibration(two_class([0.0, 1.0, 2.0], [0, 1, 0]))
