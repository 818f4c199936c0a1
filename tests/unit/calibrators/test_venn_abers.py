import numpy as np
import pytest
import torch
from sklearn.isotonic import IsotonicRegression

from fedlas import TopLabel
from fedlas.calibrators import Calibrator, VennAbers
from fedlas.errors import InputError


def slow(confidence, correct, new, label):
    """Isotonic regression of all samples and the new one, at the new one."""
    at, event = np.append(confidence, new), np.append(correct, label)
    return IsotonicRegression().fit(at, event.astype(float)).predict([new])[0]


@pytest.mark.parametrize("seed", range(5))
def test_both_bounds_against_the_definition(seed):
    random = np.random.default_rng(seed)
    confidence = random.integers(1, 12, 60) / 12
    correct = random.random(60) < confidence
    fitted = VennAbers().fit(TopLabel(confidence, correct))
    places = np.unique(confidence)
    new = np.array([*places, *((places[1:] + places[:-1]) / 2), 0.01, 0.99])
    interval = fitted.interval(TopLabel(new, np.zeros(len(new), dtype=bool)))
    for (low, high), at in zip(interval.tolist(), new, strict=True):
        assert low == pytest.approx(slow(confidence, correct, at, False), abs=1e-9)
        assert high == pytest.approx(slow(confidence, correct, at, True), abs=1e-9)


def test_interval_for_two_classes_and_top_label(generated, tmp_path):
    val = generated(400, classes=2)
    calibrator = VennAbers().fit(val)
    low, high = calibrator.interval(val).T
    middle = calibrator.transform(val).tensors().probs[:, 1]
    assert bool((low <= high).all())
    torch.testing.assert_close(middle, high / (1 - low + high), rtol=0, atol=0.02)
    loaded = Calibrator.load(calibrator.save(tmp_path / "v.json"))
    assert torch.equal(loaded.interval(val), calibrator.interval(val))
    top = TopLabel(val.tensors().confidence, val.tensors().correct)
    assert VennAbers().fit(top).interval(top).shape == (400, 2)
    with pytest.raises(ValueError, match="predictions with two classes"):
        VennAbers().fit(generated(100)).interval(generated(100))


def test_event_of_many_classes_is_top_label(generated):
    val, test = generated(500), generated(100, seed=1)
    fitted = VennAbers().fit_event(val)
    interval = fitted.interval(test.without_target())
    torch.testing.assert_close(
        interval, fitted.interval(TopLabel(test.tensors().confidence, test.tensors().correct))
    )
    assert 0 < float(interval.diff(dim=1).mean()) < 0.2
    with pytest.raises(InputError, match="two classes"):
        VennAbers().fit(val).interval(test)


def test_two_class_interval_follows_the_fitted_event(generated):
    val = generated(400, classes=2)
    top = TopLabel(val.tensors().confidence, val.tensors().correct)
    right = VennAbers().fit(top)
    torch.testing.assert_close(right.interval(val), right.interval(top))
    with pytest.raises(InputError, match="needs the probabilities of all classes"):
        VennAbers().fit(val).interval(top)
