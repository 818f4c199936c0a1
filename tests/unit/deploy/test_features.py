"""A card of a calibration that uses features, and the monitor behind it."""

import pytest
import torch

import fedlas
from fedlas import Predictions, TopLabel
from fedlas.calibrators import CALIBRATORS
from fedlas.deploy import Calibration, Monitor, make_card
from fedlas.deploy.monitor import monitor
from fedlas.errors import InputError
from wants_features import NormTemperature


@pytest.fixture
def _registered(changeable):
    changeable(CALIBRATORS)
    CALIBRATORS.add("norm-temperature", NormTemperature)


def predictions(seed, samples=800):
    random = torch.Generator().manual_seed(seed)
    logits = torch.randn(samples, 3, generator=random)
    target = torch.multinomial(logits.softmax(1), 1, generator=random)[:, 0]
    features = torch.rand(samples, 4, generator=random)
    return Predictions(3 * logits, target, features=features)


def top_label(p):
    return TopLabel(p.tensors().confidence, p.tensors().correct, features=p.tensors().features)


@pytest.mark.usefixtures("_registered")
@pytest.mark.parametrize("kind", [lambda p: p, top_label], ids=["classes", "top label"])
def test_raw_predictions_bring_their_features(kind, tmp_path):
    val, test, live = (kind(predictions(seed)) for seed in range(3))
    calibration = Calibration(NormTemperature().fit(val))
    assert calibration.uses_features
    card = tmp_path / "card.json"
    make_card(val, test, calibration, model={"run": "m"}, data={"name": "d"}).save(card)
    calibrated, raw, bare = (Monitor(card) for _ in range(3))
    calibrated.update(calibration.transform(live), raw=False)
    raw.update(live, raw=True)
    assert raw.content["watches"] == calibrated.content["watches"]
    file = live.save(tmp_path / "live.npz")
    assert monitor(card, [file], raw=True).content["watches"] == calibrated.content["watches"]
    if isinstance(live, Predictions):
        without = live.with_logits(live.tensors().logits)._replace_fields(features=None)
    else:
        without = TopLabel(live.tensors().confidence, live.tensors().correct)
    with pytest.raises(
        InputError,
        match="must have features, which the card's calibration uses; got no features in update",
    ):
        bare.update(without, raw=True)
    with pytest.raises(InputError, match=r"got no features in bare\.npz"):
        monitor(card, [without.save(tmp_path / "bare.npz")], raw=True)


def test_a_card_of_auto_with_features(tmp_path):
    val, test = predictions(0), predictions(1)
    card = fedlas.card(val, test, name="m", replicates=0)
    path = card.save(tmp_path / "m.json")
    watcher = Monitor(path if str(path).endswith(".json") else tmp_path / "m.json")
    assert watcher.card.calibration.uses_features
    assert watcher.update(test, raw=True) is False
