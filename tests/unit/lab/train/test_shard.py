"""Two gloo processes that hold half of a transformer each, against one that holds it all."""

import os
from types import SimpleNamespace

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import nn
from torchvision.models import VisionTransformer

from fedlas import Objective
from fedlas._core.check import InputError
from fedlas._core.ranks import launched_sharded, new_accelerator
from fedlas.diagnose import monitors
from fedlas.lab.data import Batches, load_dataset, split
from fedlas.lab.train import OptimizerConfig, ScheduleConfig, TrainConfig, fit, load_checkpoint
from fedlas.lab.train.engine import Engine
from fedlas.lab.train.shard import blocks_of, engine_of
from fedlas.losses import LOSSES
from fedlas.objective import predict

RANKS = 2


def transformer():
    torch.manual_seed(0)
    model = VisionTransformer(
        image_size=8, patch_size=4, num_layers=2, num_heads=2, hidden_dim=16, mlp_dim=32, num_classes=3
    )
    model.conv_proj = nn.Conv2d(1, 16, 4, 4)
    return model


def objective(loss="fedlas"):
    torch.manual_seed(1)
    return Objective(transformer(), LOSSES.build(loss, num_classes=3))


def parts():
    splits = split(load_dataset("synthetic", num_train=80, num_test=10, num_classes=3), seed=0, val_size=20)
    return splits, {"mean": splits.mean, "std": splits.std}


def train(module, folder, *, epochs=3, optimizer="sgd", accelerator=None, **config):
    splits, normalisation = parts()
    rank, ranks = (0, 1) if accelerator is None else (accelerator.process_index, accelerator.num_processes)
    fit(
        module,
        Batches(splits.train, batch_size=21, shuffle=True, seed=1, rank=rank, world_size=ranks, **normalisation),
        Batches(splits.val, batch_size=20, **normalisation),
        folder=folder,
        config=TrainConfig(epochs=epochs, batch_size=21, select="nll", **{"shard": ranks > 1, **config}),
        optimizer=OptimizerConfig(name=optimizer, lr=0.01, clip_norm=0.5),
        schedule=ScheduleConfig(name="constant"),
        identity={},
        accelerator=accelerator,
        hooks=monitors(module.criterion),
    )


def logits(module):
    splits, normalisation = parts()
    return predict(module, Batches(splits.val, batch_size=20, **normalisation)).logits


def worker(rank, folder):
    torch.set_num_threads(1)
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(RANKS)}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29500"}  # asked for and not used
    dist.init_process_group("gloo", init_method=f"file://{folder}/init", rank=rank, world_size=RANKS)
    accelerator = new_accelerator()
    for loss in ("fedlas", "vmf"):  # the second reads the head's weight
        module = objective(loss)
        train(module, folder / loss, accelerator=accelerator)
        weight = next(module.model.encoder.layers[0].parameters())
        assert weight.to_local().numel() <= -(-weight.numel() // RANKS) < weight.numel()
        assert not any(isinstance(parameter, type(weight)) for parameter in module.criterion.parameters())
        predicted = logits(module)
        if rank == 0:
            torch.save(predicted, folder / f"{loss}.pt")
    train(objective("ce"), folder / "parts", accelerator=accelerator, accumulate=3)
    train(objective("ce"), folder / "copies", accelerator=accelerator, accumulate=11, shard=False)  # slices of 10, 11
    train(objective(), folder / "whole", optimizer="adamw", accelerator=accelerator)
    train(objective(), folder / "cut", optimizer="adamw", epochs=1, accelerator=accelerator)
    train(objective(), folder / "cut", optimizer="adamw", accelerator=accelerator)
    train(objective(), folder / "moved", epochs=1, accelerator=accelerator)
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    if not (dist.is_available() and dist.is_gloo_available()):
        pytest.skip("this PyTorch has no gloo")
    base = tmp_path_factory.mktemp("sharded")
    mp.spawn(worker, args=(base,), nprocs=RANKS)
    return base


def state(folder):
    return load_checkpoint(folder / "checkpoint.pt")


def close(a, b, *, rtol=1e-4, atol=1e-5):
    assert a.keys() == b.keys()
    for key, value in a.items():
        assert type(b[key]) is torch.Tensor
        torch.testing.assert_close(b[key], value, rtol=rtol, atol=atol, msg=lambda text, key=key: f"{key}: {text}")


@pytest.mark.parametrize("loss", ["fedlas", "vmf"])
def test_sharded_equals_one_process(folder, tmp_path, loss):
    one = objective(loss)
    train(one, tmp_path)
    a, b = state(tmp_path), state(folder / loss)
    close(a["objective"], b["objective"])
    assert a["best"]["epoch"] == b["best"]["epoch"]
    for number, values in a["optimizer"]["state"].items():
        close(values, b["optimizer"]["state"][number])
    torch.testing.assert_close(torch.load(folder / f"{loss}.pt"), logits(one), rtol=1e-4, atol=1e-5)


def test_a_sharded_run_goes_on_sharded_or_not(folder):
    whole, cut = state(folder / "whole"), state(folder / "cut")
    assert str(whole["optimizer"]) == str(cut["optimizer"])
    close(whole["objective"], cut["objective"], rtol=0, atol=0)
    train(objective(), folder / "moved")
    close(state(folder / "fedlas")["objective"], state(folder / "moved")["objective"])


@pytest.mark.parametrize("other", ["parts", "copies"])
def test_parts_of_a_batch_make_the_same_step(folder, tmp_path, other):
    train(objective("ce"), tmp_path)
    close(state(tmp_path)["objective"], state(folder / other)["objective"])


def test_blocks_are_the_outermost_lists_of_alike_modules():
    model = transformer()
    assert blocks_of(model) == list(model.encoder.layers)
    assert not blocks_of(nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2)))


@pytest.mark.parametrize(
    ("model", "config", "penalty", "reason"),
    [
        (nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3)), {}, None, "batch norms, such as 1"),
        (nn.Linear(4, 3), {"average": "ema"}, None, "train.average is ema"),
        (nn.Linear(4, 3), {"compile": True}, None, "train.compile is true"),
        (nn.Linear(4, 3), {}, nn.Identity(), "penalty"),
    ],
)
def test_what_cannot_be_sharded_is_refused_before_anything_changes(model, config, penalty, reason):
    module = Objective(model, nn.CrossEntropyLoss(), penalty=penalty)
    before = [type(parameter) for parameter in module.parameters()]
    two = SimpleNamespace(num_processes=2, device=torch.device("cpu"))
    with pytest.raises(InputError, match=rf"train\.shard: .*{reason}.*use_fsdp"):
        engine_of(module, TrainConfig(shard=True, **config), two)
    assert [type(parameter) for parameter in module.parameters()] == before


def test_one_process_is_not_sharded(monkeypatch):
    one = SimpleNamespace(num_processes=1, device=torch.device("cpu"))
    assert type(engine_of(objective(), TrainConfig(shard=True), one)) is Engine
    assert not launched_sharded()
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    assert launched_sharded()
    assert new_accelerator().num_processes == 1  # accelerate itself would refuse to shard on a processor
    assert launched_sharded()
