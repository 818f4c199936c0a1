import math

import pytest
import torch
from torch import nn

from fedlas import Objective
from fedlas.errors import InputError
from fedlas.lab.train import OptimizerConfig, ScheduleConfig, build_optimizer, build_schedule
from fedlas.losses import FedLAS


def objective(criterion=None):
    torch.manual_seed(0)
    return Objective(
        nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3)),
        criterion or FedLAS(num_classes=3),
        head="2",
    )


def rates(schedule, epochs, lr=1.0, **optimizer):
    built = build_optimizer(objective(), OptimizerConfig(lr=lr, **optimizer))
    scheduler = build_schedule(built, schedule, epochs=epochs)
    seen = []
    for _ in range(epochs):
        seen.append([group["lr"] for group in built.param_groups])
        built.step()
        scheduler.step()
    return seen


def first(*args, **kwargs):
    return [pair[0] for pair in rates(*args, **kwargs)]


def test_milestones_as_fractions_and_as_epochs():
    by_hand = [1, 1, 1, 1, 0.1, 0.1, 0.01, 0.01]
    assert first(ScheduleConfig(milestones=[0.5, 0.75]), 8) == pytest.approx(by_hand)
    assert first(ScheduleConfig(milestones=[4, 6]), 8) == pytest.approx(by_hand)
    assert first(ScheduleConfig(milestones=[2], factor=0.5), 3, lr=0.2) == pytest.approx(
        [0.2, 0.2, 0.1]
    )
    assert first(ScheduleConfig(), 1) == [1]


def test_cosine_constant_and_warm_up():
    assert first(ScheduleConfig(name="cosine"), 4) == pytest.approx(
        [1, (1 + math.sqrt(0.5)) / 2, 0.5, (1 - math.sqrt(0.5)) / 2]
    )
    assert first(ScheduleConfig(name="constant"), 3, lr=0.3) == pytest.approx([0.3] * 3)
    assert first(ScheduleConfig(name="constant", warmup_epochs=3), 5) == pytest.approx(
        [0.25, 0.5, 0.75, 1, 1]
    )
    assert first(ScheduleConfig(name="cosine", warmup_epochs=1), 2) == pytest.approx([0.5, 0.5])


def test_loss_has_own_rate_and_shared_schedule():
    seen = rates(ScheduleConfig(milestones=[1]), 2, criterion_lr=0.5)
    assert seen == [[1.0, 0.5], [pytest.approx(0.1), pytest.approx(0.05)]]


def test_milestone_after_the_last_epoch():
    with pytest.raises(InputError, match="milestones"):
        rates(ScheduleConfig(milestones=[5]), 5)


@pytest.mark.parametrize("name", ["sgd", "adamw"])
@pytest.mark.parametrize("decay_criterion", [False, True])
def test_groups(name, decay_criterion):
    model = objective()
    built = build_optimizer(
        model, OptimizerConfig(name=name, weight_decay=0.3, decay_criterion=decay_criterion)
    )
    assert isinstance(built, torch.optim.SGD if name == "sgd" else torch.optim.AdamW)
    assert [group["name"] for group in built.param_groups] == ["model", "criterion"]
    assert [group["weight_decay"] for group in built.param_groups] == [
        0.3,
        0.3 if decay_criterion else 0.0,
    ]
    trained = {id(p) for group in built.param_groups for p in group["params"]}
    assert trained == {id(p) for p in model.parameters()}


def test_one_cycle_rises_for_a_quarter_then_falls():
    rates = first(ScheduleConfig(name="one-cycle"), 8)
    assert rates == pytest.approx([0.25, 0.75, 11 / 12, 9 / 12, 7 / 12, 5 / 12, 3 / 12, 1 / 12])
