import json

import pytest
import torch
from torch import nn

from fedlas import Predictions
from fedlas.diagnose import find_gated_loss, make_monitors
from fedlas.errors import InputError
from fedlas.losses import LOSSES, FedLAS

CLASSES, FEATURES = 4, 6


def monitor_of(loss):
    return next(iter(make_monitors(loss)), None)


def criterion(**options):
    torch.manual_seed(0)
    loss = FedLAS(num_classes=CLASSES, **options)
    loss(torch.randn(64, CLASSES), torch.randint(CLASSES, (64,)), features=torch.rand(64, FEATURES))
    return loss


def epoch(monitor, *, seed=0, flip=False, shift=0.0, samples=40):
    """Two training batches and two held-out ones."""
    generator = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(samples, CLASSES, generator=generator)
    features = torch.rand(samples, FEATURES, generator=generator) + shift
    target = torch.randint(CLASSES, (samples,), generator=generator)
    for part in torch.arange(samples).chunk(2):
        monitor.on_batch(-logits[part] if flip else logits[part], part)
        monitor.on_held_out(logits[part], features[part])
    return monitor.on_epoch(Predictions(logits, target))


def test_only_losses_with_gate_and_indicator_are_watched():
    watched = set()
    for entry in LOSSES.entries():
        loss = LOSSES.build(entry.name, {}, num_classes=CLASSES, num_samples=100, num_epochs=100)
        if monitor_of(loss) is not None:
            watched.add(entry.name)
    assert watched == {"fedlas", "fedlas+", "modulated", "fedlas-ablation"}
    assert monitor_of(nn.CrossEntropyLoss()) is None


def test_watching_changes_nothing():
    loss = criterion()
    before = {key: value.clone() for key, value in loss.state_dict().items()}
    random = torch.get_rng_state()
    loss.train()
    epoch(monitor_of(loss))
    assert loss.training
    assert all(torch.equal(value, before[key]) for key, value in loss.state_dict().items())
    assert torch.equal(random, torch.get_rng_state())


def test_record_is_json_and_agrees_with_the_loss():
    loss = criterion()
    record = epoch(monitor_of(loss), seed=3)
    again = json.loads(json.dumps(record, allow_nan=False))
    assert again["indicator"]["mean"] == float(loss.nci.mean)
    generator = torch.Generator().manual_seed(3)
    logits = 3 * torch.randn(40, CLASSES, generator=generator)
    features = torch.rand(40, FEATURES, generator=generator)
    assert again["gate"]["alpha"] == pytest.approx(
        float(loss.smoothing(logits, features).mean()), rel=1e-5
    )
    assert again["gate"]["plus"] == pytest.approx(float((loss.gate(logits) > 0).float().mean()))
    assert again["gate"]["flips"] is None
    assert again["gate"]["train_flips"] is None


def test_flips_are_counted_from_the_second_epoch_on():
    loss = criterion()
    monitor = monitor_of(loss)
    epoch(monitor)
    same = epoch(monitor)
    assert same["gate"]["flips"] == same["gate"]["train_flips"] == 0
    with torch.no_grad():
        loss.gate.out.weight.neg_()
        loss.gate.out.bias.neg_()
    turned = epoch(monitor)
    assert turned["gate"]["flips"] == turned["gate"]["train_flips"] == 1


def test_an_epoch_without_a_batch_is_refused():
    with pytest.raises(InputError, match="held-out batch"):
        monitor_of(criterion()).on_epoch(Predictions(torch.zeros(2, 3), torch.tensor([0, 1])))


def test_goes_on_from_its_state():
    loss = criterion()
    whole, first = monitor_of(loss), monitor_of(loss)
    epoch(whole)
    epoch(first)
    second = monitor_of(loss)
    second.load_state_dict(first.state_dict())
    assert epoch(whole, flip=True) == epoch(second, flip=True)


def test_alarm_for_a_gate_that_learns_nothing_new():
    loss = criterion()
    with torch.no_grad():
        loss.gate.out.weight.zero_()
        loss.gate.out.bias.copy_(torch.tensor([0.0, 1.0]))
    monitor = monitor_of(loss)
    alarms = [epoch(monitor)["alarms"] for _ in range(4)]
    assert [any("stuck on +1" in alarm for alarm in found) for found in alarms] == [
        False,
        False,
        True,
        True,
    ]


def test_fixed_gate_raises_no_alarm():
    loss = LOSSES.build(
        "fedlas-ablation", {"direction": "plus"}, num_classes=CLASSES, num_samples=10
    )
    monitor = monitor_of(loss)
    for _ in range(4):
        assert not any("stuck" in alarm for alarm in epoch(monitor)["alarms"])


def test_gate_with_changing_sign_is_not_stuck():
    loss = criterion()
    monitor = monitor_of(loss)
    for bias in (1.0, -1.0, 1.0, -1.0):
        with torch.no_grad():
            loss.gate.out.weight.zero_()
            loss.gate.out.bias.copy_(torch.tensor([0.0, bias]))
        record = epoch(monitor)
        assert {record["gate"]["plus"], record["gate"]["minus"]} == {0.0, 1.0}
        assert not record["alarms"]


@pytest.mark.parametrize("beta", [0.1, 4.0, 50.0])
def test_saturation_alarm_ignores_beta(beta):
    assert not epoch(monitor_of(criterion(beta=beta)))["alarms"]
    found = epoch(monitor_of(criterion(beta=beta)), shift=5.0)
    assert found["indicator"]["z_far"] == 1.0
    saturated, off = found["alarms"]
    assert saturated.startswith("indicator saturated:")
    assert off.startswith("held-out norms off the running mean by")


def test_alarms_for_drift():
    loss = criterion()
    monitor = monitor_of(loss)
    assert not epoch(monitor)["alarms"]
    loss.nci.mean += 3 * loss.nci.std
    assert any("running mean moved by 3.0" in alarm for alarm in epoch(monitor)["alarms"])


def test_slow_drift_alarm_survives_checkpoint():
    loss = criterion()
    whole = monitor_of(loss)
    found = []
    for number in range(1, 14):
        if number == 6:  # as after a restart
            whole, before = monitor_of(loss), whole
            whole.load_state_dict(before.state_dict())
        found.append([alarm for alarm in epoch(whole, shift=0.0)["alarms"] if "drifts" in alarm])
        loss.nci.mean += 0.4 * loss.nci.std
    assert [bool(alarms) for alarms in found] == [False] * 10 + [True] * 3
    assert found[-1] == ["running mean drifts: 4.0 standard deviations in 10 epochs"]


@pytest.mark.parametrize("factor", [0.01, 100.0])
def test_wrong_indicator_spread_raises_alarm(factor):
    loss = criterion()
    loss.nci.std *= factor
    alarms = epoch(monitor_of(loss))["alarms"]
    assert any(alarm.startswith("held-out norms spread") for alarm in alarms)


@pytest.mark.parametrize("options", [{"score": "constant"}, {"score": "noise"}, {"alpha": 0.0}])
def test_what_is_fixed_on_purpose_raises_no_alarm(options):
    torch.manual_seed(0)
    loss = LOSSES.build("fedlas-ablation", options, num_classes=CLASSES, num_samples=10)
    loss(torch.randn(64, CLASSES), torch.randint(CLASSES, (64,)), features=torch.rand(64, FEATURES))
    assert not epoch(monitor_of(loss))["alarms"]


def test_the_direction_is_the_one_that_acts():
    """Not the gate's, where the score alone decides."""
    torch.manual_seed(0)
    loss = LOSSES.build(
        "fedlas-ablation", {"direction": "against"}, num_classes=CLASSES, num_samples=10
    )
    loss(torch.randn(64, CLASSES), torch.randint(CLASSES, (64,)), features=torch.rand(64, FEATURES))
    monitor = monitor_of(loss)
    first, second = epoch(monitor), epoch(monitor, seed=1)
    generator = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(40, CLASSES, generator=generator)
    features = torch.rand(40, FEATURES, generator=generator)
    score = loss.nci(features)
    psi, alpha_i = (
        loss.sample_directions(score, loss.gate(logits)),
        loss.smoothing(logits, features),
    )
    assert torch.equal(psi, -score.sign())
    assert (alpha_i <= loss.alpha + 1e-6).all()
    assert first["gate"]["plus"] == pytest.approx(float((score < 0).double().mean()))
    assert 0 < first["gate"]["plus"] < 1
    assert first["gate"]["train_flips"] is second["gate"]["train_flips"] is None
    assert second["gate"]["flips"] > 0


@pytest.mark.parametrize("outer", ["mdca", "mixup"])
def test_a_gate_inside_another_loss_is_watched(outer):
    loss = LOSSES.build(
        outer, {"base": {"name": "fedlas", "alpha": 0.1}}, num_classes=CLASSES, num_samples=10
    )
    monitor = monitor_of(loss)
    assert monitor.criterion is find_gated_loss(loss) is loss.base
    assert epoch(monitor)["gate"]["alpha"] > 0


def test_a_replaced_indicator_without_moments_is_watched_too():
    loss = LOSSES.build(
        "fedlas-ablation", {"score": "constant"}, num_classes=CLASSES, num_samples=10
    )
    record = epoch(monitor_of(loss))
    assert record["indicator"]["mean"] is None
    assert record["indicator"]["pearson_confidence"] is None


@pytest.mark.parametrize("samples", [1, 2])
def test_few_held_out_samples_do_not_raise(samples):
    record = epoch(monitor_of(criterion()), samples=samples)
    assert record["indicator"]["pearson_confidence"] is None
    assert record["indicator"]["auroc_correct"] is None
    assert record["gate"]["plus"] is not None


def test_an_overflowing_norm_does_not_end_a_run():
    loss = criterion()
    monitor = monitor_of(loss)
    logits, features = torch.randn(8, CLASSES), torch.rand(8, FEATURES)
    features[0] = torch.finfo(torch.float32).max
    monitor.on_held_out(logits, features)
    record = monitor.on_epoch(Predictions(logits, torch.randint(CLASSES, (8,))))
    assert json.dumps(record, allow_nan=False)
    assert record["indicator"]["pearson_confidence"] is not None
