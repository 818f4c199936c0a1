"""Checkpoints of timm and Hugging Face from local files, all weights trained or the head alone."""

import json

import pytest
import timm
import torch
from torch import nn
from transformers import ConvNextConfig, ConvNextForImageClassification, ViTConfig
from transformers import ViTForImageClassification as ViT

from fedlas.errors import InputError
from fedlas.lab.models import build_model
from fedlas.lab.recipes import load_recipe, plan_runs
from fedlas.lab.runs import build_objective, execute, load_trained_run, prepare_data

TINY = [
    "train.epochs=1", "train.batch_size=50", "train.precision=fp32", "data.train_size=100",
    "data.val_size=50", "data.test_size=50", "data.image_size=16",
]  # fmt: skip
SMALL = {
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 8,
}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A transformer with random weights and three classes, as ``save_pretrained`` writes it."""
    folder = tmp_path_factory.mktemp("vit")
    torch.manual_seed(5)
    config = ViTConfig(**SMALL, image_size=16, patch_size=8, num_channels=1, num_labels=3)
    ViT(config).save_pretrained(folder)
    return folder


def planned(folder, *overrides, loss="ce"):
    recipe = load_recipe("synthetic", [*TINY, *overrides])
    return plan_runs(recipe, losses=[loss], seeds=[0], out=folder)[0]


def of_hf(folder, checkpoint, *overrides, loss="ce"):
    model = f"model={{name: hf, checkpoint: {checkpoint}, weights: {checkpoint}}}"
    return planned(folder, model, *overrides, loss=loss)


def test_run_starts_from_hugging_face_checkpoint(tmp_path, checkpoint, caplog):
    run = of_hf(tmp_path, checkpoint, loss="fedlas")
    start = build_objective(run, prepare_data(run)).model
    theirs = ViT.from_pretrained(checkpoint, local_files_only=True)
    assert torch.equal(start.vit.layernorm.weight, theirs.vit.layernorm.weight)
    key = "vit.embeddings.patch_embeddings.projection.weight"
    assert torch.equal(start.state_dict()[key], theirs.state_dict()[key])
    assert start.classifier.out_features == 10
    assert "the head 'classifier' starts untrained" in caplog.text
    metrics = execute(run)
    assert load_trained_run(run.folder).metrics == metrics
    assert json.loads((run.folder / "data.json").read_text())["weights"]


@pytest.mark.parametrize("tune", ["head", "full"])
def test_a_linear_probe_changes_the_head_alone(tmp_path, tune):
    file = tmp_path / "resnet.pt"
    torch.manual_seed(7)
    source = timm.create_model("test_resnet", num_classes=4, in_chans=1)
    torch.save(source.state_dict(), file)
    run = planned(
        tmp_path / "run",
        "model={name: 'timm:test_resnet'}",
        f"model.weights={file}",
        f"model.tune={tune}",
    )
    start = {
        k: v.clone() for k, v in build_objective(run, prepare_data(run)).model.state_dict().items()
    }
    execute(run)
    end = load_trained_run(run.folder).objective.model.state_dict()
    changed = {key.rpartition(".")[0] for key in start if not torch.equal(start[key], end[key])}
    if tune == "head":
        assert changed == {"fc"}
    else:
        assert {"fc", "conv1.0", "bn1"} <= changed


def test_linear_probe_disables_dropout_before_head(tmp_path):
    run = planned(tmp_path, "model={name: resnet8, width: 4, dropout: 0.5, tune: head}")
    objective = build_objective(run, prepare_data(run))
    trainable = [name for name, p in objective.model.named_parameters() if p.requires_grad]
    assert trainable == ["fc.weight", "fc.bias"]


def test_a_model_without_a_fixed_size_takes_any(tmp_path):
    config = ConvNextConfig(hidden_sizes=[4, 4, 4, 4], depths=[1, 1, 1, 1], num_channels=1)
    del config.image_size
    ConvNextForImageClassification(config).save_pretrained(tmp_path)
    model = build_model(
        "hf", num_classes=5, in_channels=1, image_size=224, checkpoint=str(tmp_path)
    )
    assert model(torch.zeros(1, 1, 224, 224)).logits.shape == (1, 5)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({}, "model.checkpoint must be a folder"),
        ({"checkpoint": "google/vit-base"}, "model.checkpoint must be a folder"),
        ({"in_channels": 3}, "images must match the checkpoint: 1 channels, 16 x 16"),
        ({"image_size": 32}, "got 1 channels, 32 x 32"),
    ],
)
def test_what_does_not_fit_the_checkpoint_is_refused(checkpoint, options, words):
    size = {"num_classes": 3, "in_channels": 1, "image_size": 16}
    given = (
        options
        if "checkpoint" in options or not options
        else {"checkpoint": str(checkpoint), **options}
    )
    with pytest.raises(InputError, match=words):
        build_model("hf", **{**size, **given})


def test_weights_of_another_architecture_are_refused(tmp_path, checkpoint):
    config = ViTConfig(
        **{**SMALL, "num_hidden_layers": 2}, image_size=16, patch_size=8, num_channels=1
    )
    ViT(config).save_pretrained(tmp_path)
    run = of_hf(tmp_path / "run", checkpoint, f"model.weights={tmp_path}")
    with pytest.raises(InputError, match="0 missing and 16 unknown weights"):
        execute(run)
    (tmp_path / "model.safetensors").write_bytes(b"damaged")
    with pytest.raises(InputError, match="must hold the weights of this ViT"):
        execute(run)


def test_another_kind_of_model_is_refused(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(InputError, match="the model takes at most 512 tokens per sequence"):
        build_model("hf", num_classes=2, in_channels=1, image_size=16, checkpoint=str(tmp_path))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (["model.tune=body"], "model.tune must be"),
        (
            ["model.tune=head", "train.average=swa", "schedule.name=swa"],
            "head must not be combined with model.bayesian",
        ),
    ],
)
def test_wrong_fine_tuning_is_refused(tmp_path, change, words):
    with pytest.raises(InputError, match=words):
        planned(tmp_path, *change)


def test_layers_rest_in_each_epoch(tmp_path, monkeypatch):
    modes = []
    forward = nn.BatchNorm2d.forward

    def noted(layer, x):
        modes.append(layer.training)
        return forward(layer, x)

    monkeypatch.setattr(nn.BatchNorm2d, "forward", noted)
    execute(planned(tmp_path, "model={name: resnet8, width: 4, tune: head}"))
    assert set(modes) == {False}
