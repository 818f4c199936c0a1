"""What is searched: declared ranges, --space, presets, and the errors that show before anything starts."""

import pytest

from fedlas.errors import InputError
from fedlas.lab.recipes import build_loss
from fedlas.lab.tune import plan_tuning

# in CI every extra is installed: tests/integration/test_package.py checks it
pytest.importorskip("optuna")


def methods(losses, *specs):
    return plan_tuning("digits", losses=losses, space=specs).methods


def ranges(losses, *specs):
    return {method.name: method.ranges for method in methods(losses, *specs)}


def test_ranges_and_presets_of_registered_losses():
    assert ranges(["mbls", "ce"]) == {"mbls": {"alpha": "0.01:1:log", "margin": "0:20"}, "ce": {}}
    (fedlas,) = methods(["fedlas"])
    assert fedlas.preset == fedlas.preset_in_range == {"alpha": 0.05, "beta": 4, "momentum": 0.95}


def test_a_variant_keeps_what_is_not_tuned():
    tuning = plan_tuning("fashion-mnist", losses=["acls-reference", "fedlas-mean"])
    assert list(tuning.methods[0].ranges) == ["alpha", "margin"]
    (run,) = tuning.runs(tuning.methods[1], 1, {"beta": 2.0})
    assert run.name == "fedlas-mean-trial-1-s0"
    assert run.loss_options == {"spread": "mean", "alpha": 0.05, "beta": 2.0}
    assert build_loss(run, num_classes=3, num_samples=9).spread == "mean"


def test_base_loss_is_tuned_too():
    tuning = plan_tuning(
        "digits", ["losses.mdca.base={name: focal, gamma: 2}"], losses=["modulated", "mdca"]
    )
    modulated, mdca = tuning.methods
    assert list(modulated.ranges) == ["beta", "momentum", "base.alpha", "base.margin"]
    assert mdca.preset == {"alpha": 1.0, "base.gamma": 2}
    (run,) = tuning.runs(modulated, 1, {"base.alpha": 0.3, "beta": 1.0})
    assert run.loss_options == {"base": {"name": "acls", "alpha": 0.3}, "beta": 1.0}
    (run,) = tuning.runs(mdca, 1, {"base.gamma": 5.0})
    assert run.loss_options == {"base": {"name": "focal", "gamma": 5.0}}
    assert tuning.recipe.losses["mdca"] == {"base": {"name": "focal", "gamma": 2}}


def test_specs_change_narrow_and_add():
    tuned = ranges(
        ["ls", "mbls", "ce"], "alpha=0.05:0.1", "mbls.alpha=0.1,0.2", "optimizer.lr=0.01:0.3:log"
    )
    assert tuned["ls"] == {"alpha": "0.05:0.1", "optimizer.lr": "0.01:0.3:log"}
    assert tuned["mbls"]["alpha"] == "0.1,0.2"
    assert ranges(["ls", "ce"], "ce.optimizer.lr=0.1,0.2")["ls"].keys() == {"alpha"}
    tuning = plan_tuning("digits", losses=["ce"], space=["optimizer.lr=0.01:0.3:log"])
    assert tuning.methods[0].preset == {"optimizer.lr": 0.1}
    assert tuning.runs(tuning.methods[0], 1, {"optimizer.lr": 0.2})[0].recipe.optimizer.lr == 0.2


def test_settings_are_counted():
    ls, ce = methods(["ls", "ce"], "alpha=0.1,0.2")
    # the preset is a third setting of ls
    assert (ls.trials(10), ls.trials(2), ce.trials(10)) == (3, 2, 1)
    whole, free = methods(["mbls", "ls"], "mbls.alpha=0.1", "margin=4:7:int")
    assert (whole.trials(10), free.trials(10)) == (4, 10)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("alpha", "missing"), ("=1:2", "must be an option"), ("ls.margin=1:2", "must be an option of ls or ce"),
        ("alphq=0:1", "Did you mean 'alpha'"), ("data.val_size=10,20", "must be an option"),
        ("train.epochs=1,2", "must be an option.*train.batch_size"),
        ("alpha=0.5:1.5", r"in the ranges of ls.*alpha must be a finite number in \[0, 1\]"),
        ("alpha=low,high", "alpha must be a finite number"), ("alpha=0:.inf", "not convert"),
        ("alpha=0:inf", "alpha must be a finite number"), ("reduction=mean,sum", "reduction must be 'mean'"),
        ("optimizer.lrr=0.1,0.2", "known.*optimizer.lr"), ("optimizer.momentum=0,1.5", "momentum must be a finite"),
        ("model.widht=8,16", "known.*width"),
    ],
)  # fmt: skip
def test_invalid_search_space_fails_before_start(spec, message, tmp_path):
    with pytest.raises(InputError, match=message):
        plan_tuning("digits", losses=["ls", "ce"], space=[spec], out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_ranges_invalid_only_jointly_or_inside():
    with pytest.raises(InputError, match=r"every .*whole number.*:int"):
        plan_tuning("digits", losses=["cals-alm"], space=["every=1:3"])
    with pytest.raises(InputError, match="rho_max must be"):
        plan_tuning("digits", losses=["cals-alm"], space=["rho_max=0.5:5"])


@pytest.mark.parametrize(
    ("source", "options", "message"),
    [
        ("digits", {"objective": "nlll"}, "--objective.*Did you mean 'nll'"),
        ("digits", {"objective": "true_ece"}, "--objective.*logits and target alone"),
        ("digits", {"trials": 0}, "trials"), ("paper/table-1", {}, "must be a single recipe"),
    ],
)  # fmt: skip
def test_other_invalid_arguments_are_refused(source, options, message):
    with pytest.raises(InputError, match=message):
        plan_tuning(source, **options)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1:", "could not convert"), ("a:b", "could not convert"),
        ("2:1", "low <= high|low=2.0, high=1.0"), ("0:1:log", "low > 0|low=0.0"),
        ("0:1:lin", "unknown suffix"), ("0.5:2:int", "invalid literal"), ("1,,2", "missing"), ("[1,2", "YAML"),
    ],
)  # fmt: skip
def test_what_is_no_range_is_refused(text, message):
    with pytest.raises(InputError, match=message):
        plan_tuning("digits", losses=["ls"], space=[f"alpha={text}"])
