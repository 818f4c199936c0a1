"""What every registered calibrator must do; a new one needs no line here."""

import copy
import inspect
import pickle

import pytest
import torch

from fedlas import Predictions
from fedlas.calibrators import CALIBRATORS, CalibrationWarning, Calibrator
from fedlas.metrics import evaluate

# A fit that warns is a fit that succeeded; whether it should warn is tested where the calibrator is.
pytestmark = pytest.mark.filterwarnings("ignore::fedlas.calibrators.CalibrationWarning")


@pytest.fixture(params=CALIBRATORS.entries(), ids=lambda entry: entry.name)
def entry(request):
    return request.param


def predictions(samples=200, classes=4, seed=0, dtype=torch.float32):
    torch.manual_seed(seed)
    logits = torch.randn(samples, classes, dtype=torch.float64) * 4
    return Predictions(logits.to(dtype), torch.multinomial((logits / 2).softmax(1), 1).squeeze(1))


def test_metadata(entry):
    assert issubclass(entry.value, Calibrator)
    assert not inspect.isabstract(entry.value)
    assert isinstance(entry.value.keeps_argmax, bool)
    assert entry.summary.endswith(".")
    for name in ("title", "paper"):
        assert isinstance(entry.metadata.get(name), str), name


def test_fit_returns_itself_and_needs_no_arguments(entry):
    calibrator = entry.value()
    assert calibrator.num_classes is None
    assert calibrator.fit(predictions()) is calibrator
    assert calibrator.num_classes == 4


@pytest.mark.parametrize("act", ["transform", "save"])
def test_before_fit(entry, act, tmp_path):
    argument = {"transform": predictions(), "save": tmp_path / "x.json"}[act]
    with pytest.raises(ValueError, match=rf"{entry.value.__name__}.{act}: .* must be fitted first; got .* Call fit"):
        getattr(entry.value(), act)(argument)
    assert list(tmp_path.iterdir()) == []


def test_another_number_of_classes(entry):
    calibrator = entry.value().fit(predictions())
    with pytest.raises(ValueError, match=r"logits must be \(N, 4\) .*; got \(200, 5\)\. Fit it"):
        calibrator.transform(predictions(classes=5))


@pytest.mark.parametrize("wrong", [None, torch.zeros(2, 4), "val.npz"])
def test_anything_but_predictions_is_refused(entry, wrong):
    calibrator = entry.value()
    with pytest.raises(ValueError, match=r"\.fit: predictions must be Predictions; got"):
        calibrator.fit(wrong)
    assert calibrator.num_classes is None
    with pytest.raises(ValueError, match=r"\.transform: predictions must be Predictions; got"):
        calibrator.fit(predictions()).transform(wrong)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_transform_is_pure_and_keeps_everything_but_the_logits(entry, dtype):
    val, test = predictions(dtype=dtype), predictions(seed=1, dtype=dtype)
    test = Predictions(test.logits, test.target, features=torch.ones(200, 3), label_probs=test.probs)
    before = test.logits.clone()
    calibrator = entry.value().fit(val)
    first, second = calibrator.transform(test), calibrator.transform(test)
    assert torch.equal(first.logits, second.logits)
    assert torch.equal(test.logits, before)
    assert first.logits.dtype == dtype
    for name in ("target", "features", "label_probs"):
        assert torch.equal(getattr(first, name), getattr(test, name))


def test_argmax_is_kept_where_claimed(entry):
    if entry.value.keeps_argmax:
        test = predictions(seed=1)
        assert torch.equal(entry.value().fit(predictions()).transform(test).predicted, test.predicted)


def test_calibrates_the_validation_set(entry):
    val = predictions(2000)
    before, after = evaluate(val), evaluate(entry.value().fit(val).transform(val))
    assert after["nll"] <= before["nll"]
    assert after["ece"] < before["ece"]


@pytest.mark.parametrize("through", [Calibrator, None])
def test_saved_and_loaded_it_is_the_same(entry, through, tmp_path):
    test = predictions(seed=1)
    calibrator = entry.value().fit(predictions())
    path = calibrator.save(tmp_path / "new" / "calibrator")
    loaded = (through or entry.value).load(str(path))
    assert type(loaded) is entry.value
    assert torch.equal(loaded.transform(test).logits, calibrator.transform(test).logits)
    assert [p.name for p in path.parent.iterdir()] == ["calibrator"]
    assert b"pickle" not in path.read_bytes()


def test_copies(entry):
    test = predictions(seed=1)
    calibrator = entry.value().fit(predictions())
    for copied in (copy.deepcopy(calibrator), pickle.loads(pickle.dumps(calibrator))):
        assert torch.equal(copied.transform(test).logits, calibrator.transform(test).logits)


def test_fitting_again_forgets(entry):
    test = predictions(seed=1)
    fresh = entry.value().fit(predictions(seed=2, classes=4))
    used = entry.value().fit(predictions(seed=3, classes=7)).fit(predictions(seed=2, classes=4))
    assert torch.equal(used.transform(test).logits, fresh.transform(test).logits)


@pytest.mark.parametrize("shape", [(1, 1), (1, 2), (2, 2), (3, 50)])
def test_tiny_validation_sets(entry, shape):
    val = predictions(*shape)
    assert torch.isfinite(entry.value().fit(val).transform(val).logits).all()


def test_order_of_the_validation_samples(entry):
    val = predictions()
    first = entry.value().fit(val).transform(val).logits
    second = entry.value().fit(Predictions(val.logits.flip(0), val.target.flip(0))).transform(val).logits
    torch.testing.assert_close(first, second, rtol=1e-5, atol=1e-6)


def test_the_warning_is_a_user_warning():
    assert issubclass(CalibrationWarning, UserWarning)
