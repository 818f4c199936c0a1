from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from fedlas.errors import InputError
from fedlas.lab.recipes import build_loss, load_recipe, plan_runs
from fedlas.losses import LOSSES

DIGITS = load_recipe("digits")


def test_seed_by_seed():
    runs = plan_runs(DIGITS, losses=["ce", "fedlas+"], seeds=[0, 3], out=Path("x"))
    assert [str(run.folder) for run in runs] == [
        "x/ce-s0",
        "x/fedlas+-s0",
        "x/ce-s3",
        "x/fedlas+-s3",
    ]
    assert runs[1].name == "fedlas+-s0"
    assert runs[1].loss_options == {"alpha": 0.1, "beta": 0.5, "margin": 6}


def test_defaults_and_all():
    assert len(plan_runs(DIGITS)) == 18
    assert plan_runs(DIGITS)[0].folder == Path("runs/digits/ce-s0")
    assert [run.loss for run in plan_runs(DIGITS, losses=["all"], seeds=[0])] == [
        name
        for name in LOSSES
        if not hasattr(LOSSES[name].value, "set_targets")  # its targets must be asked for
    ]
    crossed = replace(DIGITS, data=replace(DIGITS.data, cross_fit=2))
    assert [run.loss for run in plan_runs(crossed, losses=["all"], seeds=[0])] == list(LOSSES)


def test_config_is_plain_and_says_what_matters():
    run = plan_runs(DIGITS, losses=["fedlas"], seeds=[2])[0]
    config = run.config()
    assert yaml.safe_load(yaml.safe_dump(config)) == config
    assert config["loss"] == {"name": "fedlas", "alpha": 0.05, "beta": 4}
    assert config["seed"] == 2
    elsewhere = plan_runs(DIGITS.with_data_root("/elsewhere"), losses=["fedlas"], seeds=[2])[0]
    assert elsewhere.config() == config
    assert (
        plan_runs(load_recipe("digits", ["optimizer.lr=0.2"]), losses=["fedlas"], seeds=[2])[
            0
        ].config()
        != config
    )


def test_a_recipe_can_name_variants():
    overrides = ["losses.acls-reference.loss=acls", "losses.acls-reference.variant=reference"]
    acls, reference = plan_runs(
        load_recipe("digits", overrides), losses=["acls", "acls-reference"], seeds=[0]
    )
    assert (acls.registered_loss_name, reference.registered_loss_name) == ("acls", "acls")
    assert reference.folder.name == "acls-reference-s0"
    assert build_loss(reference, num_classes=10, num_samples=5).variant == "reference"
    assert reference.config()["loss"] == {
        "name": "acls-reference",
        "loss": "acls",
        "variant": "reference",
    }
    assert acls.config()["loss"] == {"name": "acls", "alpha": 0.1, "margin": 6}


@pytest.mark.parametrize("name", ["fashion-mnist", "cifar10", "cifar100"])
def test_the_map_before_the_pool_is_a_variant(name):
    """So that the norm of the map can be compared with that of the pooled features."""
    recipe = load_recipe(name)
    losses = ["fedlas", "fedlas-map-l1", "fedlas-map-l2", "fedlas-map-linf"]
    pooled, *maps = plan_runs(recipe, losses=losses, seeds=[0])
    assert (pooled.features, [run.features for run in maps]) == ("head", ["map"] * 3)
    assert "features" not in pooled.config()["loss"]
    assert all(
        run.config()["loss"]["features"] == "map" and "features" not in run.loss_options
        for run in maps
    )
    built = [build_loss(run, num_classes=10, num_samples=5) for run in maps]
    assert [loss.nci.norm_p for loss in built] == [1, 2, float("inf")]
    assert {(loss.alpha, loss.beta) for loss in built} == {(recipe.losses["fedlas"]["alpha"], 4)}


def test_unused_options_are_not_in_configuration():
    """Folders from before there was an option are taken up again."""
    (run,) = plan_runs(
        load_recipe("digits", ["seeds=[0]", "methods=[ce]", "train.average_decay=0.9"])
    )
    config = run.config()
    assert "split_seed" not in config["data"]
    assert not [key for key in config["train"] if key.startswith("average")]
    assert config["model"].keys() == {"name", "options"}
    (run,) = plan_runs(
        load_recipe(
            "digits", ["seeds=[0]", "methods=[ce]", "data.split_seed=0", "train.average=ema"]
        )
    )
    config = run.config()
    assert config["data"]["split_seed"] == 0
    assert (config["train"]["average"], config["train"]["average_decay"]) == ("ema", 0.999)


@pytest.mark.parametrize(
    ("overrides", "options", "message"),
    [
        (["data.split_seed=-1"], {}, "split_seed must be a whole number of at least 0"),
        ([], {"losses": ["fedlass"]}, "Did you mean 'fedlas'"),
        ([], {"losses": ["ce", "ce"]}, "must be distinct"),
        ([], {"seeds": [1, 1]}, "must be distinct"),
        ([], {"seeds": [-1]}, "seeds must be a whole number of at least 0"),
        ([], {"losses": ["all", "ce"]}, "'all'"),
        (["methods=[cee]"], {}, "Did you mean 'ce'"),
        (["losses.mine.loss=aclss"], {}, "Did you mean 'acls'"),
        (["losses.mine.loss=acls"], {"losses": ["min"]}, "Did you mean 'mine'"),
        (["losses.mine.loss=acls", "losses.mine.alhpa=1"], {}, "Did you mean 'alpha'"),
        (["losses.fedlas.loss=acls"], {}, "a loss variant must have a new name"),
        (["losses.A b.loss=acls"], {}, "a loss variant must have a new name"),
        (["losses.fedlass.alpha=1"], {}, "Did you mean 'fedlas"),
        (["losses.fedlas.alhpa=1"], {}, "Did you mean 'alpha'"),
        (["losses.fedlas.alpha=7"], {}, "FedLAS: alpha"),
        (["losses.fedlas.alhpa=1"], {"losses": ["ce"]}, "Did you mean 'alpha'"),
        (["losses.focl.gamma=1"], {"losses": ["ce"]}, "Did you mean 'focal'"),
        (["losses.ce.reduction=none"], {"losses": ["ce"]}, "reduction must be 'mean' for ce"),
        (
            ["losses.ls.features=map"],
            {"losses": ["ce"]},
            "features must be set only for a loss that uses features, unlike ls",
        ),
        (
            ["losses.fedlas.reduction=sum"],
            {"losses": ["fedlas"]},
            "reduction must be 'mean' for fedlas",
        ),
        (["data.train_siz=100"], {}, "'data.train_siz'. Did you mean 'data.train_size'"),
        (["data.crop_paddin=1"], {}, "Did you mean 'data.crop_padding'"),
        (["model.nam=resnet8"], {}, "Did you mean 'model.name'"),
        (
            ["train.select=true_ece"],
            {},
            "logits and target alone, or refined_nll; got 'true_ece'. Choose one of: acc",
        ),
        (["model.name=resnet9"], {}, "Did you mean 'resnet8'"),
        (["data.name=digts"], {}, "Did you mean 'digits'"),
        (["train.select=acuracy"], {}, "Did you mean 'accuracy'"),
    ],
)
def test_nonsense_is_named(overrides, options, message):
    with pytest.raises(InputError) as caught:
        plan_runs(load_recipe("digits", overrides), **options)
    assert message in str(caught.value)
