import copy
from functools import partial

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from fedlas import Objective
from fedlas._core.ranks import new_accelerator
from fedlas.errors import InputError
from fedlas.lab.data import Batches, load_dataset, split
from fedlas.lab.models import build_model
from fedlas.lab.train import (
    OptimizerConfig,
    ScheduleConfig,
    TrainConfig,
    TrainingJob,
    build_optimizer,
    fit,
)
from fedlas.lab.train.engine import Engine
from fedlas.losses import FedLAS
from runs import FIXED

SPLITS = split(
    load_dataset("synthetic", num_train=60, num_test=20, num_classes=3), seed=0, val_size=20
)
ACCELERATOR = new_accelerator()


def linear(criterion=None):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3))
    return Objective(model, criterion or nn.CrossEntropyLoss(), head="3")


def gradients(module, batch, **config):
    """Gradients of one step, before the step."""
    engine = Engine(module, TrainConfig(**config), ACCELERATOR)
    engine.start(torch.optim.SGD(module.parameters(), lr=0.0))
    module.train()
    parts = list(engine.parts(*batch))
    for inputs, target, index, share in parts:
        loss, _ = engine.wrapped(inputs, target, index=index)
        engine.backward(loss, share)
    found = [parameter.grad.clone() for parameter in module.parameters()]
    engine.step(None)
    assert all(parameter.grad is None for parameter in module.parameters())
    return found, parts


@given(st.integers(1, 24), st.integers(1, 30), st.booleans())
def test_accumulated_gradient_equals_whole_batch_gradient(samples, pieces, indexed):
    module = linear().double()
    torch.manual_seed(samples)
    batch = (
        torch.randn(samples, 2, 3, dtype=torch.float64),
        torch.randint(0, 3, (samples,)),
        torch.arange(samples) if indexed else None,
    )
    whole, (only,) = gradients(module, batch)
    assert only[3] is None
    cut, parts = gradients(module, batch, accumulate=pieces, batch_size=30)
    torch.testing.assert_close(cut, whole, rtol=1e-12, atol=1e-14)
    assert len(parts) == min(pieces, samples)
    assert torch.equal(torch.cat([part[0] for part in parts]), batch[0])
    assert torch.equal(torch.cat([part[1] for part in parts]), batch[1])
    assert not indexed or torch.equal(torch.cat([part[2] for part in parts]), batch[2])
    assert max(len(part[1]) for part in parts) - min(len(part[1]) for part in parts) <= 1


def test_the_indicator_moves_once_a_part():
    torch.manual_seed(0)
    batch = torch.randn(12, 6), torch.randint(0, 3, (12,)), None
    module = linear(FedLAS(num_classes=3, momentum=0.9))
    by_hand = linear(FedLAS(num_classes=3, momentum=0.9)).train()
    gradients(module, batch, accumulate=3)
    for part in range(3):
        by_hand(*(tensor[4 * part : 4 * part + 4] for tensor in batch[:2]))
    assert int(module.criterion.nci.num_batches_tracked) == 3
    torch.testing.assert_close(module.criterion.nci.mean, by_hand.criterion.nci.mean)
    torch.testing.assert_close(module.criterion.nci.std, by_hand.criterion.nci.std)


def test_inputs_that_cannot_be_cut():
    engine = Engine(linear(), TrainConfig(accumulate=2), ACCELERATOR)
    with pytest.raises(InputError, match=r"inputs must be a single tensor .*got dict"):
        list(engine.parts({"pixels": torch.zeros(4, 6)}, torch.zeros(4, dtype=torch.long), None))
    whole = Engine(linear(), TrainConfig(), ACCELERATOR)
    assert (
        len(
            list(whole.parts({"pixels": torch.zeros(4, 6)}, torch.zeros(4, dtype=torch.long), None))
        )
        == 1
    )
    with pytest.raises(InputError, match=r"accumulate .*\(4\); got 5"):
        TrainConfig(accumulate=5, batch_size=4)


def test_inputs_of_any_layout_pass_as_they_are():
    inputs = torch.zeros(4, 3, 5, 5).permute(0, 1, 3, 2)[:, :, ::2]
    engine = Engine(linear(), TrainConfig(channels_last=False), ACCELERATOR)
    ((found, *_),) = engine.parts(inputs, torch.zeros(4, dtype=torch.long), None)
    assert found is inputs


def train(module, folder, **config):
    normalization = {"mean": SPLITS.mean, "std": SPLITS.std}
    return fit(
        TrainingJob(
            module,
            Batches(SPLITS.train, batch_size=20, shuffle=True, seed=1, **normalization),
            Batches(SPLITS.val, batch_size=20, **normalization),
            folder=folder,
            config=TrainConfig(epochs=2, batch_size=20, **FIXED | config),
            optimizer=OptimizerConfig(lr=0.05),
            schedule=ScheduleConfig(name="constant"),
            identity={},
        )
    )


def convolutional():
    torch.manual_seed(0)
    return Objective(
        build_model("resnet8", num_classes=3, in_channels=1, image_size=8, width=4),
        FedLAS(num_classes=3),
    )


def test_channels_last_does_not_change_results(tmp_path):
    plain, last = convolutional(), convolutional()
    layouts = []
    last.model.register_forward_pre_hook(
        lambda module, args: layouts.append(
            (module.training, args[0].is_contiguous(memory_format=torch.channels_last))
        )
    )
    train(plain, tmp_path / "plain")
    train(last, tmp_path / "last", channels_last=True)
    assert (True, True) in layouts
    assert (True, False) not in layouts
    kernels = [
        p for p in last.model.parameters() if p.ndim == 4 and p.shape[1] > 1 and p.shape[2] > 1
    ]
    assert kernels
    assert all(
        p.is_contiguous(memory_format=torch.channels_last) and not p.is_contiguous()
        for p in kernels
    )
    for key, value in plain.state_dict().items():
        torch.testing.assert_close(last.state_dict()[key], value, rtol=1e-3, atol=1e-4)


@pytest.mark.filterwarnings("ignore::DeprecationWarning:torch")  # the compiler's own imports
def test_every_run_of_a_process_is_compiled(tmp_path, monkeypatch):
    """If compiled modules were not forgotten, torch would stop compiling after as many runs as it allows modules."""
    compiled = []

    def backend(graph, _):
        compiled.append(graph)
        return graph.forward

    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=backend))
    limit = (
        "recompile_limit"
        if hasattr(torch._dynamo.config, "recompile_limit")
        else "cache_size_limit"
    )
    counts = []
    with torch._dynamo.config.patch({limit: 2}):
        for number in range(4):
            compiled.clear()
            train(linear_images(), tmp_path / str(number), compile=True)
            counts.append(len(compiled))
    torch._dynamo.reset()
    assert counts[0] > 0
    assert len(set(counts)) == 1


def linear_images():
    torch.manual_seed(0)
    return Objective(nn.Sequential(nn.Flatten(), nn.Linear(64, 3)), nn.CrossEntropyLoss())


def test_the_step_is_the_optimizers_and_clips_all(tmp_path):
    module = linear()
    engine = Engine(module, TrainConfig(), ACCELERATOR)
    engine.start(build_optimizer(module, OptimizerConfig(lr=1.0, momentum=0, weight_decay=0)))
    before = copy.deepcopy(module.state_dict())
    loss, _ = engine.wrapped(torch.randn(4, 6), torch.tensor([0, 1, 2, 0]))
    engine.backward(loss * 1000, None)
    engine.step(0.01)
    moved = torch.cat(
        [(value - before[key]).flatten() for key, value in module.state_dict().items()]
    )
    assert float(moved.norm()) == pytest.approx(0.01, rel=1e-3)
