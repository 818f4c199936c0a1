"""Published predictions: IMDB reviews (two classes), and the class *cat* of a ResNet-20 for CIFAR-10 against the rest.

The numbers are those of statsmodels 0.15.0 (``Logit(y, add_constant(log_odds))``, ``GLM(y, ones, Binomial(),
offset=log_odds)``) and of scikit-misc 0.5.3 (``loess(p, y, span=0.75, degree=2, surface="direct")``).
"""

from pathlib import Path

import numpy as np
import pytest

from fedlas import Predictions, binary
from fedlas.calibrators import LabelShift, TemperatureScaling
from fedlas.metrics import nll

REAL = Path(__file__).parents[4] / "shared" / "real"
pytestmark = pytest.mark.skipif(not REAL.exists(), reason="needs ../shared/real")


@pytest.fixture(scope="module")
def imdb():
    found = np.load(REAL / "imdb_probs.npz")
    probs = found["probs"] / found["probs"].sum(1, keepdims=True)
    return Predictions(np.log(np.clip(probs, 1e-300, 1)), found["target"].astype(np.int64))


@pytest.fixture(scope="module")
def cifar():
    found = np.load(REAL / "resnet20-cifar10-test.npz")
    return Predictions(found["logits"], found["target"].astype(np.int64))


def take(predictions, rows):
    return Predictions(predictions.logits[rows], predictions.target[rows])


def test_logistic_recalibration(imdb, cifar):
    found = binary.logistic_recalibration(imdb)
    assert found.slope.value == pytest.approx(0.5818135669524522, rel=1e-8)
    assert found.slope.standard_error == pytest.approx(0.007501387986908372, rel=1e-6)
    assert found.intercept.value == pytest.approx(0.017413410643946685, rel=1e-6)
    assert found.in_the_large.value == pytest.approx(-0.02210547952906557, rel=1e-6)
    assert found.in_the_large.standard_error == pytest.approx(0.03828291230152903, rel=1e-6)  # HC0
    assert found.observed_to_expected.value == pytest.approx(0.9979454399372764, rel=1e-8)
    cat = binary.logistic_recalibration(cifar, event=3)
    assert cat.slope.value == pytest.approx(0.35463809104311805, rel=1e-6)
    assert cat.in_the_large.value == pytest.approx(0.10484482385854943, rel=1e-6)


@pytest.mark.parametrize(
    ("name", "positive", "expected"),
    [
        ("imdb", 1, (0.03829412547734919, 0.034788256024779196, 0.05697722581958499)),
        ("cifar", 3, (0.022072990628753793, 0.0007131946867916163, 0.08997227044502043)),
    ],
)
def test_integrated_calibration(name, positive, expected, request):
    found = binary.integrated_calibration(
        request.getfixturevalue(name), event=positive, replicates=0
    )
    assert (found.ici.value, found.e50.value, found.e90.value) == pytest.approx(expected, rel=5e-3)


def test_label_shift_with_five_percent_positive_reviews(imdb):
    random = np.random.default_rng(0)
    order = random.permutation(25_000)
    val, rest = take(imdb, order[:5000]), order[5000:]
    target = imdb.target
    rare = np.concatenate(
        [rest[target[rest] == label][:count] for label, count in ((1, 500), (0, 9500))]
    )
    test = take(imdb, rare)
    shift = LabelShift().fit(val).adapt(test.logits)
    assert float(shift.target_prior[1]) == pytest.approx(0.05, abs=0.005)
    after = shift.transform(test)
    assert nll(after) < 0.5 * nll(TemperatureScaling().fit(val).transform(test))
    assert float(after.correct.mean()) > float(test.correct.mean()) + 0.05
