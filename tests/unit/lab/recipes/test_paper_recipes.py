"""The paper's recipes hold the paper's settings, and each runs two steps on small substitutes of its data."""

import json
import logging

import pytest
import torch
from safetensors.torch import save_file

from fakes_data import FAKES
from fedlas.errors import InputError
from fedlas.lab.models import build_model
from fedlas.lab.recipes import build_loss, load_recipe, plan_runs, recipe_names
from fedlas.lab.runs import build_objective, execute, load_trained_run, prepare_data
from fedlas.lab.train import warn_once

CELLS = [name for name in recipe_names() if name.startswith("paper/") and "sensitivity" not in name]
FAST = {
    "paper/cifar10-resnet50", "paper/cifar100-resnet50-published", "paper/tiny-imagenet-resnet50-published",
    "paper/cub-vit-published", "paper/aircraft-vit",
}  # fmt: skip
SIZE = 32


def fakes_and_overrides(name, folder):
    """Fewer images and smaller models of the same families; everything else is the recipe's."""
    recipe = load_recipe(name)
    root = FAKES[recipe.data.name](folder)
    data = {"cifar100": (100, 100, 100)}.get(recipe.data.name, (6, 12, 6))
    sizes = [
        f"data.{key}={value}"
        for key, value in zip(("val_size", "train_size", "test_size"), data, strict=True)
    ]
    few = [*sizes, f"train.batch_size={data[1]}", "train.epochs=2", "schedule.milestones=[1]"]
    if recipe.model.weights is None:
        return root, [*few, "model={name: resnet8, width: 4}"]
    small = "timm:test_vit"
    save_file(
        build_model(small, num_classes=7, in_channels=3, image_size=SIZE).state_dict(),
        folder / "weights.safetensors",
    )
    return root, [
        *few, f"model.name={small}", f"model.weights={folder / 'weights.safetensors'}", f"data.crop={SIZE}",
        "data.resize=40", "data.workers=0",
    ]  # fmt: skip


@pytest.mark.system
@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=() if n in FAST else pytest.mark.long) for n in CELLS]
)
def test_two_steps_on_fakes(name, tmp_path):
    (tmp_path / "data").mkdir()
    root, overrides = fakes_and_overrides(name, tmp_path / "data")
    recipe = load_recipe(name, overrides).with_data_root(str(root))
    (run,) = plan_runs(recipe, losses=["fedlas"], seeds=[0], out=tmp_path / "runs")
    metrics = execute(run)
    assert (metrics["recipe"], metrics["epochs"]) == (name, 2)
    log = [json.loads(line) for line in (run.folder / "log.jsonl").read_text().splitlines()]
    assert log[1]["lr"] == pytest.approx(0.1 * recipe.optimizer.lr)
    assert load_trained_run(run.folder, data=str(root)).metrics == metrics


@pytest.mark.parametrize(
    ("name", "fedlas", "plus", "training"),
    [  # alpha, beta, momentum; alpha, beta, margin, momentum; optimizer, batch, epochs, milestones
        ("cifar10", (0.05, 4, 0.95), (0.1, 0.5, 6, 0.95), ("sgd", 0.1, 128, 350, [150, 250])),
        ("cifar100", (0.1, 4, 0.5), (0.1, 1, 6, 0.5), ("sgd", 0.1, 128, 350, [150, 250])),
        ("tiny-imagenet", (0.05, 4, 0.5), (0.05, 0.5, 10, 0.5), ("sgd", 0.1, 64, 100, [40, 60])),
        ("cub", (0.05, 4, 0.001), (0.05, 0.5, 10, 0.001), ("adamw", 1e-4, 16, 200, [80, 160])),
        ("aircraft", (0.05, 4, 0.001), (0.05, 0.5, 10, 0.001), ("adamw", 1e-4, 16, 200, [80, 160])),
    ],
)
def test_published_hyper_parameters(name, fedlas, plus, training):
    of_data = [load_recipe(cell) for cell in CELLS if cell.startswith(f"paper/{name}-")]
    assert len(of_data) == (2 if name in ("cub", "aircraft") else 4)
    for recipe in of_data:
        losses = recipe.losses
        assert tuple(losses["fedlas"][k] for k in ("alpha", "beta", "momentum")) == fedlas
        assert tuple(losses["fedlas+"][k] for k in ("alpha", "beta", "margin", "momentum")) == plus
        optimizer, train = recipe.optimizer, recipe.train
        assert (
            optimizer.name,
            optimizer.lr,
            train.batch_size,
            train.epochs,
            recipe.schedule.milestones,
        ) == training
        assert (optimizer.weight_decay, optimizer.clip_norm, recipe.schedule.factor) == (
            5e-4,
            2,
            0.1,
        )
        assert train.select == "accuracy"


def test_the_published_variant_is_the_reference_behavior():
    published = load_recipe("paper/cifar10-resnet50-published")
    for name in ("fedlas", "fedlas+"):
        (run,) = plan_runs(published, losses=[name], seeds=[0])
        loss = build_loss(run, num_classes=10, num_samples=10)
        assert loss.nci.init == (20.0, 100.0)
        assert (loss.nci.momentum, loss.alpha) == (0.95, published.losses[name]["alpha"])
        (run,) = plan_runs(load_recipe("paper/cifar10-resnet50"), losses=[name], seeds=[0])
        assert build_loss(run, num_classes=10, num_samples=10).nci.init is None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("{variant: referenc}", "variant"),
        ("{variant: reference, alhpa: 1}", "Did you mean 'alpha'"),
        ("{loss: focal, variant: reference}", "variant"),
    ],
)
def test_reference_of_what_has_none(options, message):
    name = "x" if "loss" in options else "fedlas"
    with pytest.raises(InputError, match=message):
        plan_runs(load_recipe("digits", [f"losses.{name}={options}"]))


def test_transformers_get_images_as_their_weights_expect():
    timm = pytest.importorskip("timm")
    for cell in ("cub", "aircraft"):
        recipe = load_recipe(f"paper/{cell}-vit")
        config, options = (
            timm.get_pretrained_cfg(recipe.model.name.removeprefix("timm:")),
            recipe.data.options,
        )
        assert (options["crop"], tuple(options["mean"]), tuple(options["std"])) == (
            config.input_size[-1], config.mean, config.std
        )  # fmt: skip


def test_tiny_imagenet_net_pools_to_four_cells():
    assert load_recipe("paper/tiny-imagenet-resnet101-published").model.options == {"pool_size": 2}
    assert load_recipe("paper/tiny-imagenet-resnet101").model.options == {}


def test_sensitivity_changes_one_thing_at_a_time():
    for data in ("cifar10", "cifar100"):
        losses = load_recipe(f"paper/sensitivity-{data}").losses
        grid = {name: options for name, options in losses.items() if "loss" in options}
        assert len(grid) >= 20
        for name, options in grid.items():
            base = losses[options["loss"]]
            changed = {key for key in base if options[key] != base[key]}
            assert len(changed) == 1, name
            assert name == f"{options['loss']}-{changed.copy().pop()}-{options[changed.pop()]}"


def test_another_normalisation_for_the_test_part(tmp_path):
    overrides = [
        "train.epochs=1",
        "data.train_size=40",
        "data.val_size=40",
        "data.test_size=40",
        "model.width=4",
    ]
    odd = ["data.test_mean=[0.0]", "data.test_std=[0.01]"]
    metrics = []
    for number, more in enumerate(([], odd)):
        (run,) = plan_runs(
            load_recipe("digits", [*overrides, *more]),
            losses=["ce"],
            seeds=[0],
            out=tmp_path / str(number),
        )
        metrics.append(execute(run))
        assert ("test_mean" in run.config()["data"]) == bool(more)
    assert metrics[0]["val"] == metrics[1]["val"]
    assert metrics[0]["test"] != metrics[1]["test"]
    with pytest.raises(InputError, match=r"test_mean and data.test_std .*together"):
        load_recipe("digits", odd[:1])
    wrong = ["data.test_mean=[0.0, 0.1]", "data.test_std=[0.1, 1]"]
    (run,) = plan_runs(
        load_recipe("digits", [*overrides, *wrong]), losses=["ce"], seeds=[0], out=tmp_path / "x"
    )
    with pytest.raises(InputError, match="must each hold 1 finite numbers"):
        execute(run)
    assert not (tmp_path / "x").exists()


def weighed(tmp_path, *overrides, classes=10):
    path = tmp_path / "w.pt"
    if not path.exists():
        torch.save(
            build_model("resnet8", num_classes=classes, in_channels=1, width=4).state_dict(), path
        )
    tiny = [
        "train.epochs=1",
        "data.train_size=40",
        "data.val_size=40",
        "data.test_size=40",
        "model.width=4",
    ]
    recipe = load_recipe("digits", [*tiny, f"model.weights={path}", *overrides])
    return plan_runs(recipe, losses=["ce"], seeds=[0], out=tmp_path / "runs")[0], path


def test_run_starts_from_weights_and_records_digest(tmp_path):
    run, path = weighed(tmp_path)
    objective = build_objective(run, prepare_data(run))
    weights = torch.load(path, weights_only=True)
    assert all(
        torch.equal(value, weights[key]) for key, value in objective.model.state_dict().items()
    )
    execute(run)
    assert len(json.loads((run.folder / "data.json").read_text())["weights"]) == 64
    path.unlink()
    # its own checkpoint is all that it needs
    assert load_trained_run(run.folder).run.recipe.model.weights == str(path)


def test_another_head_is_said_once(tmp_path, caplog):
    run, _ = weighed(tmp_path, classes=4)
    warn_once.cache_clear()
    with caplog.at_level(logging.WARNING, logger="fedlas"):
        for _ in range(2):
            build_objective(run, prepare_data(run))
    assert [record.message for record in caplog.records] == [
        "w.pt: the head 'fc' of 4 classes was left out; the one of 10 classes starts untrained"
    ]


def test_other_weights_cannot_resume_a_folder(tmp_path):
    run, path = weighed(tmp_path)
    execute(run)
    (run.folder / "metrics.json").unlink()
    torch.manual_seed(123)
    torch.save(build_model("resnet8", num_classes=10, in_channels=1, width=4).state_dict(), path)
    with pytest.raises(InputError, match="weights"):
        execute(run)


def test_weights_that_are_not_there(tmp_path):
    run, path = weighed(tmp_path)
    path.unlink()
    with pytest.raises(InputError, match="must exist"):
        execute(run)
    assert not run.folder.exists()


def test_model_without_savable_features_is_refused(tmp_path):
    tiny = ["train.epochs=1", "data.train_size=40", "data.val_size=40", "data.test_size=40"]
    recipe = load_recipe("digits", [*tiny, "model={name: 'timm:deit_tiny_distilled_patch16_224'}"])
    (run,) = plan_runs(recipe, losses=["ce"], seeds=[0], out=tmp_path / "runs")
    with pytest.raises(InputError, match="come from one head"):
        execute(run)
    assert not run.folder.exists()
