import pytest
import torch
from torch import nn

import fedlas
from fedlas.losses import FedLAS

timm = pytest.importorskip("timm")
from timm.loss import LabelSmoothingCrossEntropy  # noqa: E402

from fedlas.integrations.timm import CriterionTask  # noqa: E402


def network():
    torch.manual_seed(0)
    return timm.create_model("test_resnet", num_classes=3, in_chans=1)


def batch(seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(6, 1, 32, 32, generator=generator), torch.arange(6) % 3


def made(criterion=None):
    torch.manual_seed(1)
    return CriterionTask(network(), criterion or FedLAS(num_classes=3), verbose=False)


def step(task, optimizer, seed=0):
    optimizer.zero_grad()
    result = task(*batch(seed))
    result["loss"].backward()
    optimizer.step()
    task.update_ema()
    return result


def test_loss_and_output_of_an_objective():
    task = made()
    result = task(*batch())
    torch.manual_seed(1)
    loss, logits = fedlas.Objective(network(), FedLAS(num_classes=3))(*batch())
    assert torch.equal(result["loss"], loss)
    assert torch.equal(result["output"], logits)


def test_gate_learns_without_decay_or_clipping():
    task = made()
    optimizer = task.create_optimizer("sgd", lr=0.1, weight_decay=0.3)
    gate = {id(p) for p in task.objective.criterion.gate.parameters()}
    assert {id(p) for p in optimizer.param_groups[-1]["params"]} == gate
    assert optimizer.param_groups[-1]["weight_decay"] == 0
    clipped = {id(p) for p in task.get_clip_parameters()}
    assert clipped == {id(p) for p in task.get_eval_model().parameters()}
    assert not clipped & gate
    before = task.objective.criterion.gate.out.weight.clone()
    step(task, optimizer)
    assert not torch.equal(task.objective.criterion.gate.out.weight, before)


def test_checkpoint_restores_gate_nci_and_ema():
    whole = made()
    whole.setup_ema(decay=0.5)
    optimizer = whole.create_optimizer("adamw", lr=0.01)
    for seed in range(4):
        step(whole, optimizer, seed)
    half = made()
    half.setup_ema(decay=0.5)
    optimizer = half.create_optimizer("adamw", lr=0.01)
    for seed in range(2):
        step(half, optimizer, seed)
    saved = half.get_checkpoint_state() | half.get_checkpoint_state(ema=True)
    assert set(saved["state_dict"]) == set(network().state_dict())  # timm's tools read it
    rest = made()
    rest.setup_ema(decay=0.5)
    for part in (rest.trainable_module, rest.trainable_module_ema):
        for parameter in part.parameters():
            nn.init.zeros_(parameter)
    rest.load_checkpoint_state(saved["state_dict"], saved["task_state"])
    rest.load_checkpoint_state(saved["state_dict_ema"], saved["task_state_ema"], ema=True)
    again = rest.create_optimizer("adamw", lr=0.01)
    again.load_state_dict(optimizer.state_dict())
    for seed in range(2, 4):
        step(rest, again, seed)
    for ema in (False, True):
        expected = whole.get_trainable_module(ema=ema).state_dict()
        found = rest.get_trainable_module(ema=ema).state_dict()
        assert found.keys() == expected.keys()
        for name, value in expected.items():
            assert torch.equal(found[name], value), name
    assert int(rest.objective.criterion.nci.num_batches_tracked) == 4


def test_mixup_soft_targets_and_timm_losses():
    images, target = batch()
    soft = nn.functional.one_hot(target, 3).float() * 0.8 + 0.2 / 3
    assert made()(images, soft)["loss"].isfinite()
    task = made(LabelSmoothingCrossEntropy(0.1))
    assert task(images, target)["loss"].isfinite()
    assert task.get_task_state() == {}
    task.load_task_state(None)
    assert len(task.create_optimizer("sgd", lr=0.1).param_groups) <= 2


def test_eval_model_returns_logits_also_when_compiled():
    task = made()
    task.compile(backend="eager")
    assert task.get_eval_model()(batch()[0]).shape == (6, 3)
    assert set(task.get_checkpoint_state()["state_dict"]) == set(network().state_dict())
    assert task.objective.criterion.num_classes == 3
