"""Fine-tuning: layers that rest, layers with a share of the rate, the head before the others."""

import pytest
import torch
from torch import nn

from fedlas import Objective
from fedlas.errors import InputError
from fedlas.lab.models import build_model
from fedlas.lab.train import (
    OptimizerConfig,
    ScheduleConfig,
    TrainConfig,
    build_optimizer,
    build_schedule,
    freeze,
)
from fedlas.losses import FedLAS


def resnet():
    return build_model("resnet8", num_classes=4, in_channels=3, width=4)


def layer_shares(model, **options):
    """Share of the learning rate of each parameter, by name."""
    objective = Objective(model, nn.CrossEntropyLoss())
    optimizer = build_optimizer(objective, OptimizerConfig(name="sgd", lr=1.0, **options))
    shares = {id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]}
    return {name: shares[id(p)] for name, p in model.named_parameters()}


def test_layers_are_numbered_blocks_and_modules_between():
    shares = layer_shares(resnet(), layer_decay=0.5)
    assert (shares["conv1.weight"], shares["bn1.bias"]) == (1 / 16, 1 / 16)
    assert shares["stages.0.0.conv1.weight"] == shares["stages.0.0.bn2.bias"] == 1 / 8
    assert shares["stages.2.0.conv2.weight"] == 1 / 2
    assert shares["fc.bias"] == 1


def test_last_norm_of_transformer_belongs_to_head():
    model = build_model("timm:test_vit", num_classes=4, in_channels=3, image_size=160)
    shares = layer_shares(model, layer_decay=0.5)
    blocks = len(model.blocks)
    assert shares["pos_embed"] == shares["patch_embed.proj.weight"] == 0.5 ** (blocks + 1)
    assert shares["blocks.0.attn.qkv.weight"] == 0.5**blocks
    assert shares["norm.weight"] == shares["head.weight"] == 1


def test_the_longest_name_has_its_own_share():
    shares = layer_shares(resnet(), layer_rates={"stages": 0.1, "stages.2": 0.3, "fc": 10.0})
    assert shares["stages.1.0.conv1.weight"] == 0.1
    assert shares["stages.2.0.conv1.weight"] == 0.3
    assert (shares["fc.weight"], shares["conv1.weight"]) == (10, 1)


@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_one_optimizer_group_per_factor_without_frozen_layers(name):
    model = resnet()
    freeze(model, ["conv1", "bn1"])
    config = OptimizerConfig(
        name=name, lr=0.2, layer_rates={"stages": 0.5, "fc": 2.0}, criterion_lr=0.03
    )
    optimizer = build_optimizer(Objective(model, FedLAS(num_classes=4)), config)
    groups = {group["name"]: group for group in optimizer.param_groups}
    assert {key: group["lr"] for key, group in groups.items()} == {
        "model x 2": 0.4, "model x 0.5": 0.1, "criterion": 0.03,
    }  # fmt: skip
    assert list(map(id, groups["model x 2"]["params"])) == list(map(id, model.fc.parameters()))
    trained = {id(p) for group in optimizer.param_groups[:2] for p in group["params"]}
    assert trained == {id(p) for p in model.parameters() if p.requires_grad}
    assert not any(p.requires_grad for p in [*model.conv1.parameters(), *model.bn1.parameters()])


def test_the_schedule_begins_after_the_probe():
    optimizer = torch.optim.SGD(nn.Linear(1, 1).parameters(), lr=1.0)
    config = ScheduleConfig(milestones=[0.5], warmup_epochs=1)
    schedule = build_schedule(optimizer, config, epochs=4, probe_epochs=2)
    rates = []
    for _ in range(6):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    assert rates == pytest.approx([1, 1, 0.5, 1, 0.1, 0.1])


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (lambda: freeze(resnet(), ["stage.0"]), "model.freeze must name layers .*'stages.0'"),
        (
            lambda: freeze(resnet(), ["conv1", "bn1", "stages", "fc"]),
            "leave at least one parameter trainable",
        ),
        (
            lambda: layer_shares(resnet(), layer_rates={"head": 2}),
            "optimizer.layer_rates must name",
        ),
        (lambda: OptimizerConfig(layer_rates={"fc": 0}), r"model.freeze=\[fc\]"),
        (lambda: OptimizerConfig(layer_decay=0), "optimizer.layer_decay must be"),
        (lambda: TrainConfig(epochs=3, probe_epochs=3), "model.tune=head"),
    ],
)
def test_what_no_model_can_train_is_refused(wrong, words):
    with pytest.raises(InputError, match=words):
        wrong()


def test_a_refused_freeze_changes_nothing():
    model = resnet()
    with pytest.raises(InputError):
        freeze(model, ["conv1", "nothing"])
    assert all(parameter.requires_grad for parameter in model.parameters())
