"""Two gloo processes with half of each batch, compared with one process that has the whole batch."""

import os

import pytest
import torch
from accelerate import Accelerator
from torch import nn
from torchvision.models import VisionTransformer

from fedlas import Objective
from fedlas.diagnose import make_monitors
from fedlas.errors import InputError
from fedlas.lab.data import Batches, load_dataset, split
from fedlas.lab.train import (
    OptimizerConfig,
    ScheduleConfig,
    TrainConfig,
    TrainingJob,
    fit,
    freeze,
    load_checkpoint,
)
from fedlas.losses import LOSSES
from fedlas.objective import predict
from gloo import RANKS, in_processes
from runs import FIXED


def transformer():
    torch.manual_seed(0)
    model = VisionTransformer(
        image_size=8,
        patch_size=4,
        num_layers=2,
        num_heads=2,
        hidden_dim=16,
        mlp_dim=32,
        num_classes=3,
    )
    model.conv_proj = nn.Conv2d(1, 16, 4, 4)
    return model


def objective(loss="fedlas"):
    torch.manual_seed(1)
    return Objective(transformer(), LOSSES.build(loss, num_classes=3))


def tuned():
    """An objective whose first layer rests, as in fine-tuning."""
    module = objective()
    freeze(module.model, ["conv_proj"])
    return module


TUNED = {"probe_epochs": 1, "frozen": ["conv_proj"], "layer_decay": 0.5}


def parts():
    splits = split(
        load_dataset("synthetic", num_train=80, num_test=10, num_classes=3), seed=0, val_size=20
    )
    return splits, {"mean": splits.mean, "std": splits.std}


def train(module, folder, *, epochs=3, optimizer="sgd", accelerator=None, **config):
    splits, normalization = parts()
    frozen, decay = config.pop("frozen", ()), config.pop("layer_decay", None)
    rank, ranks = (
        (0, 1) if accelerator is None else (accelerator.process_index, accelerator.num_processes)
    )
    fit(
        TrainingJob(
            module,
            Batches(
                splits.train,
                batch_size=21,
                shuffle=True,
                seed=1,
                rank=rank,
                world_size=ranks,
                **normalization,
            ),
            Batches(splits.val, batch_size=20, **normalization),
            folder=folder,
            config=TrainConfig(epochs=epochs, batch_size=21, select="nll", **FIXED | config),
            optimizer=OptimizerConfig(name=optimizer, lr=0.01, clip_norm=0.5, layer_decay=decay),
            schedule=ScheduleConfig(name="constant"),
            identity={},
            **({} if accelerator is None else {"accelerator": accelerator}),
            hooks=make_monitors(module.criterion),
            frozen=frozen,
        )
    )


def logits(module):
    splits, normalization = parts()
    return predict(module, Batches(splits.val, batch_size=20, **normalization)).tensors().logits


def worker(rank, folder):
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(RANKS)}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29500"}  # asked for and not used
    accelerator = Accelerator(mixed_precision="no", cpu=True)
    for loss in ("fedlas", "vmf"):  # the second reads the head's weight
        module = objective(loss)
        train(module, folder / loss, accelerator=accelerator)
        if rank == 0:
            torch.save(logits(module), folder / f"{loss}.pt")
    train(objective("ce"), folder / "parts", accelerator=accelerator, accumulate=3)
    # slices of 10, 11
    train(objective("ce"), folder / "small parts", accelerator=accelerator, accumulate=11)
    train(objective(), folder / "whole", optimizer="adamw", accelerator=accelerator)
    train(objective(), folder / "cut", optimizer="adamw", epochs=1, accelerator=accelerator)
    train(objective(), folder / "cut", optimizer="adamw", accelerator=accelerator)
    train(objective(), folder / "moved", epochs=1, accelerator=accelerator)
    train(tuned(), folder / "tuned", accelerator=accelerator, **TUNED)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    base = tmp_path_factory.mktemp("processes")
    in_processes(worker, base)
    return base


def state(folder):
    return load_checkpoint(folder / "checkpoint.pt")


def close(a, b, *, rtol=1e-4, atol=1e-5):
    assert a.keys() == b.keys()
    for key, value in a.items():
        assert type(b[key]) is torch.Tensor
        torch.testing.assert_close(
            b[key], value, rtol=rtol, atol=atol, msg=lambda text, key=key: f"{key}: {text}"
        )


@pytest.mark.system
@pytest.mark.parametrize("loss", ["fedlas", "vmf"])
def test_two_processes_equal_one(folder, tmp_path, loss):
    one = objective(loss)
    train(one, tmp_path)
    a, b = state(tmp_path), state(folder / loss)
    close(a["objective"], b["objective"])
    assert a["best"]["epoch"] == b["best"]["epoch"]
    for number, values in a["optimizer"]["state"].items():
        close(values, b["optimizer"]["state"][number])
    torch.testing.assert_close(torch.load(folder / f"{loss}.pt"), logits(one), rtol=1e-4, atol=1e-5)


@pytest.mark.system
def test_fine_tuning_in_two_processes_equals_one(folder, tmp_path):
    """Which gradients the processes exchange changes after the probe; frozen weights stay as they were."""
    one = tuned()
    start = one.model.conv_proj.weight.clone()
    train(one, tmp_path, **TUNED)
    two = state(folder / "tuned")["objective"]
    close(state(tmp_path)["objective"], two)
    assert torch.equal(two["model.conv_proj.weight"], start)


@pytest.mark.system
def test_run_resumes_with_other_process_count(folder):
    whole, cut = state(folder / "whole"), state(folder / "cut")
    assert str(whole["optimizer"]) == str(cut["optimizer"])
    close(whole["objective"], cut["objective"], rtol=0, atol=0)
    train(objective(), folder / "moved")
    close(state(folder / "fedlas")["objective"], state(folder / "moved")["objective"])


@pytest.mark.system
@pytest.mark.parametrize("other", ["parts", "small parts"])
def test_parts_of_a_batch_make_the_same_step(folder, tmp_path, other):
    train(objective("ce"), tmp_path)
    close(state(tmp_path)["objective"], state(folder / other)["objective"])


def test_model_sharding_launcher_is_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    with pytest.raises(InputError, match=r"whole model; got .*--use_fsdp\. Use --multi_gpu"):
        train(objective("ce"), tmp_path)
