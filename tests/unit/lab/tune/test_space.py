import pytest

from fedlas._core.check import InputError
from fedlas.lab.recipes.plan import build_loss
from fedlas.lab.recipes.recipe import load_recipe
from fedlas.lab.tune.space import methods_of, parse_domain
from fedlas.lab.tune.study import plan_tuning

DIGITS = load_recipe("digits")


def spaces(losses, *specs, recipe=DIGITS):
    return {m.name: {key: d.text for key, d in m.space.items()} for m in methods_of(recipe, losses, specs)}


def test_what_is_declared_at_registration_is_searched():
    tuned = spaces(["ls", "mbls", "ce", "fedlas+"])
    assert list(tuned["mbls"]) == ["alpha", "margin"]
    assert list(tuned["fedlas+"]) == ["alpha", "beta", "margin", "momentum"]
    assert tuned["ce"] == {}


def test_presets_are_the_recipes_and_else_the_defaults():
    (fedlas,) = methods_of(DIGITS, ["fedlas"], [])
    assert fedlas.preset == {"alpha": 0.05, "beta": 4, "momentum": 0.95}
    assert all(domain.contains(fedlas.preset[key]) for key, domain in fedlas.space.items())


def test_a_variant_keeps_what_is_no_number():
    recipe = load_recipe("fashion-mnist")
    tuned = spaces(["acls-reference", "fedlas-mean"], recipe=recipe)
    assert list(tuned["acls-reference"]) == ["alpha", "margin"]
    tuning = plan_tuning("fashion-mnist", losses=["acls-reference", "fedlas-mean"])
    run = tuning.runs(tuning.methods[1], 1, {"beta": 2.0})[0]
    assert run.loss_options == {"spread": "mean", "alpha": 0.05, "beta": 2.0}
    assert build_loss(run, num_classes=3, num_samples=9).spread == "mean"


def test_the_loss_inside_a_loss_is_tuned_with_it():
    tuned = spaces(["modulated", "mdca"])
    assert list(tuned["modulated"]) == ["beta", "momentum", "base.alpha", "base.margin"]
    assert list(tuned["mdca"]) == ["alpha"]  # on cross-entropy
    tuning = plan_tuning("digits", ["losses.mdca.base={name: focal, gamma: 2}"], losses=["modulated", "mdca"])
    modulated, mdca = tuning.methods
    assert mdca.preset == {"alpha": 1.0, "base.gamma": 2}
    run = tuning.runs(modulated, 1, {"base.alpha": 0.3, "beta": 1.0})[0]
    assert run.loss_options == {"base": {"name": "acls", "alpha": 0.3}, "beta": 1.0}
    run = tuning.runs(mdca, 1, {"base.gamma": 5.0})[0]
    assert run.loss_options == {"base": {"name": "focal", "gamma": 5.0}}
    assert tuning.recipe.losses["mdca"] == {"base": {"name": "focal", "gamma": 2}}


def test_specs_change_narrow_and_add():
    tuned = spaces(["ls", "mbls", "ce"], "mbls.alpha=0.1,0.2", "alpha=0.05:0.1", "optimizer.lr=0.01:0.3:log")
    assert tuned["ls"] == {"alpha": "0.05:0.1", "optimizer.lr": "0.01:0.3:log"}
    assert tuned["mbls"]["alpha"] == "0.1,0.2"  # a spec that names a loss wins, wherever it stands
    assert tuned["ce"] == {"optimizer.lr": "0.01:0.3:log"}
    assert spaces(["ls", "ce"], "ce.optimizer.lr=0.1,0.2")["ls"].keys() == {"alpha"}
    tuning = plan_tuning("digits", losses=["ce"], space=["optimizer.lr=0.01:0.3:log"])
    assert tuning.methods[0].preset == {"optimizer.lr": 0.1}
    assert tuning.runs(tuning.methods[0], 1, {"optimizer.lr": 0.2})[0].recipe.optimizer.lr == 0.2


def test_the_longest_name_of_a_loss_owns_a_spec():
    recipe = load_recipe("paper/sensitivity-cifar10")
    tuned = spaces(["fedlas", "fedlas-alpha-0.01"], "fedlas-alpha-0.01.beta=1,2", recipe=recipe)
    assert tuned["fedlas-alpha-0.01"]["beta"] == "1,2"
    assert tuned["fedlas"]["beta"] != "1,2"


def test_settings_are_counted():
    ls, ce = methods_of(DIGITS, ["ls", "ce"], ["alpha=0.1,0.2"])
    assert (ls.trials(10), ls.trials(2), ce.trials(10)) == (3, 2, 1)  # the preset is a third setting of ls
    (free,) = methods_of(DIGITS, ["ls"], [])
    assert free.trials(10) == 10


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("alpha", "KEY=RANGE"), ("=1:2", "KEY=RANGE"), ("alpha=", "KEY=RANGE"),
        ("margin=1:2", "margin must be an option of ls or ce.*alpha"),
        ("ls.margin=1:2", "margin must be an option of ls.*alpha"),
        ("ce.alpha=0:1", "alpha must be an option of ce.*there are none"),
        ("reduction=mean,sum", "reduction must be an option"),
        ("alpha=0.5:1.5", r"ls's ranges must be accepted.*alpha must be a finite number in \[0, 1\]"),
        ("alpha=low,high", "alpha must be a finite number"),
        ("data.val_size=10,20", "same data and methods"),
        ("train.epochs=1,2", "leave budget and objective the same"),
        ("train.select=nll,ece", "leave budget and objective the same"),
        ("train.epoch=1,2", "leave budget"),
        ("optimizer.lrr=0.1,0.2", "known.*optimizer.lr"),
        ("optimizer=0.1,0.2", "optimizer.lr"),
        ("optimizer.lr=-1:1", "lr must be a finite number"),
        ("optimizer.momentum=0,1.5", "momentum must be a finite number"),
        ("model.widht=8,16", "every key must be known.*width"),
    ],
)  # fmt: skip
def test_what_cannot_be_searched_is_refused_before_anything_starts(spec, message, tmp_path):
    with pytest.raises(InputError, match=message):
        plan_tuning("digits", losses=["ls", "ce"], space=[spec], out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_ranges_that_only_together_are_too_much_are_refused():
    with pytest.raises(InputError, match=r"every .*whole number.*:int"):
        plan_tuning("digits", losses=["cals-alm"], space=["every=1:3"])
    with pytest.raises(InputError, match="rho_max must be"):
        plan_tuning("digits", losses=["cals-alm"], space=["rho_max=0.5:5"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"losses": ["lss"]}, "Did you mean 'ls'"), ({"objective": "nlll"}, "--objective.*Did you mean 'nll'"),
        ({"objective": "true_ece"}, "--objective.*logits and target alone"), ({"trials": 0}, "trials"),
        ({"seeds": [0, 0]}, "seeds must differ"), ({"seeds": [-1]}, "seeds"),
        ({"losses": ["ls", "ls"]}, "losses must differ"),
    ],
)  # fmt: skip
def test_other_nonsense_is_refused(options, message):
    with pytest.raises(InputError, match=message):
        plan_tuning("digits", **options)


def test_a_group_is_refused():
    with pytest.raises(InputError, match="must be one recipe"):
        plan_tuning("paper/table-1")


def test_members_and_settings():
    whole = parse_domain("1:4:int", "x")
    assert list(whole.settings) == [1, 2, 3, 4]
    assert [whole.contains(value) for value in (2, 2.5, True)] == [True, False, False]
    assert not parse_domain("0,1", "x").contains(True)
    assert not parse_domain("0:1", "x").contains("0.5")
    assert parse_domain("2,sgd,true", "x").settings == (2, "sgd", True)


@pytest.mark.parametrize("text", ["0.01:0.3:log", "0:20", "1:4:int", "1:100:log:int", "0.5,1,2", "true,false"])
def test_optuna_suggests_from_the_domain(text):
    optuna = pytest.importorskip("optuna")
    domain = parse_domain(text, text)
    assert all(domain.contains(value) for value in domain.probes)
    trial = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0)).ask()
    assert domain.contains(domain.suggest(trial, "x"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1:", "two finite"), (":1", "two finite"), ("a:b", "two finite"), ("0:.inf", "two finite"),
        ("true:2", "two finite"), ("2:1", "lower"), ("1:1", "lower"), ("0:1:log", "above 0"), ("0:1:lin", ":log"),
        ("1:2:log:log", ":log"), ("0.5:2:int", "whole"), ("1,,2", "finite"), ("1,.nan", "finite"), ("1,1.0", "once"),
        ("[1]", "finite"),
    ],
)  # fmt: skip
def test_what_is_no_domain_is_refused(text, message):
    with pytest.raises(InputError, match=message):
        parse_domain(text, f"alpha={text}")
