"""The files of a study, and the recipe that a bench runs next."""

import json
import re

import pytest

from fakes_tuning import TINY, result
from fedlas.cli import main
from fedlas.lab.bench.suite import load_group
from fedlas.lab.recipes.plan import plan
from fedlas.lab.recipes.recipe import load_recipe
from fedlas.lab.tune.best import other_seeds
from fedlas.lab.tune.goal import goal_named
from fedlas.lab.tune.plan import plan_tuning

pytest.importorskip("optuna")  # in CI every extra is there: tests/integration/test_package.py sees to it
LOSSES = ["ls", "fedlas+", "ce"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    out = tmp_path_factory.mktemp("tuned")
    words = [word for override in TINY for word in ("--set", override)]
    assert main(["tune", "synthetic", "--losses", *LOSSES, "--trials", "3", *words, "--out", str(out)]) == 0
    return out


def test_the_best_recipe_runs_the_best_settings_with_other_seeds(folder):
    found = result(folder)["methods"]
    recipe = load_recipe(str(folder / "best.yaml"))
    assert recipe.methods == LOSSES
    assert 0 not in recipe.seeds
    assert recipe.train.epochs == 2  # what was overridden stays so
    runs = {run.loss: run for run in plan(recipe, seeds=[1])}
    for name in LOSSES:
        assert runs[name].loss_options.items() >= found[name]["best_params"].items()
    for name in LOSSES:
        variant = f"{name}-preset"
        assert (variant in recipe.losses) == bool(found[name]["space"])
        if variant in recipe.losses:
            (run,) = plan(recipe, losses=[variant], seeds=[1])
            assert run.registered_loss == name
            assert run.loss_options == load_recipe("synthetic").losses.get(name, {})


def test_a_bench_of_it_ends(folder, tmp_path):
    command = ["bench", str(folder / "best.yaml"), "--losses", "ls", "--seeds", "1", "--out", str(tmp_path)]
    assert main(command) == 0
    assert (tmp_path / "ls-s1" / "metrics.json").is_file()


def test_tuned_keys_of_the_recipe_make_a_recipe_a_method(tmp_path):
    words = [word for override in TINY for word in ("--set", override)]
    out = tmp_path / "lr"
    command = ["tune", "synthetic", "--losses", "ls", "ce", "--trials", "2", *words, "--out", str(out)]
    assert main([*command, "--space", "optimizer.lr=0.01:0.2:log"]) == 0
    found = result(out)["methods"]
    group = load_group(str(out / "best.yaml"))
    planned = group.plan(out=tmp_path / "bench")
    assert [recipe.methods for recipe, _ in planned] == [["ls"], ["ce"]]
    for recipe, runs in planned:
        (name,) = recipe.methods
        assert recipe.optimizer.lr == found[name]["best_params"]["optimizer.lr"]
        assert {run.folder.parent.name for run in runs} == {f"best-{name}"}
    assert load_recipe(str(out / "preset.yaml")).optimizer.lr == load_recipe("synthetic").optimizer.lr


def test_numbers_are_in_full_precision_and_whole(folder):
    found = json.loads((folder / "tune.json").read_text())
    for method in found["methods"].values():
        for trial in method["trials"]:
            assert trial["value"] == trial["seeds"]["0"]["value"]
            assert trial["seconds"] > 0
            assert found["environment"][trial["start"]]["torch"]
    assert found["environment"][0]["command"].startswith("fedlas") or found["environment"][0]["command"]
    assert found["budget"] == 3


@pytest.mark.parametrize("name", ["tune.md", "tune.html"])
def test_the_reports_say_what_may_be_claimed(folder, name):
    text = " ".join(re.sub(r"\\(.)", r"\1", (folder / name).read_text()).split())
    found = result(folder)
    for words in (
        "3 methods, the same budget for each: 3 trials x 1 seed (0) x 2 epochs",
        "ce has nothing to tune: its one setting was run once",
        "never worse than it on validation, by construction".replace("'", "&#39;"),
        "its value here is optimistic",
        "The test part was not looked at",
        "fedlas bench",
    ):
        assert words in text, words
    for method in found["methods"].values():
        assert f"{method['preset']:.4f}" in text
        assert f"{method['best_value']:.4f}" in text


def test_the_page_needs_nothing_else(folder):
    page = (folder / "tune.html").read_text()
    assert "<script" not in page
    assert not re.search(r'(src|href)="(?!data:|#|\./)', page)
    assert page.count("<svg") == 1 + 1 + 4  # all methods, ls, fedlas+


def test_a_dry_run_says_everything_and_starts_nothing(capsys, tmp_path):
    out = tmp_path / "out"
    assert main(["tune", "digits", "--losses", "mbls", "ce", "--trials", "4", "--out", str(out), "--dry-run"]) == 0
    text = capsys.readouterr().out
    assert not out.exists()
    assert re.search(r"mbls +alpha +0.1 +0.01 to 1 \(logarithmic\)", text)
    assert re.search(r"mbls +4 +0 +4 +1,200 +\S*trials/mbls", text)
    assert re.search(r"ce +1 +0 +1 +300", text)
    assert "5 runs, 5 of them left, about 1,500 steps" in text


def test_ctrl_c_says_that_the_same_command_goes_on(monkeypatch, capsys, tmp_path):
    def stop(*_args, **_options):
        raise KeyboardInterrupt

    monkeypatch.setattr("fedlas.lab.tune.trial.train_as_planned", stop)
    assert main(["tune", "synthetic", "--losses", "ce", "--out", str(tmp_path / "out")]) == 130
    assert "The same command resumes" in capsys.readouterr().err


def test_other_seeds_are_as_many_and_none_that_was_used():
    assert other_seeds(plan_tuning("digits", seeds=[0])) == [1, 2, 3]
    assert other_seeds(plan_tuning("digits", seeds=[7, 1])) == [0, 2, 8]


def test_goals():
    nll, accuracy = goal_named("nll"), goal_named("accuracy")
    assert (nll.maximize, accuracy.maximize) == (False, True)
    assert (nll.show(0.12344), accuracy.show(0.12344), nll.show(0.1, sign=True)) == ("0.1234", "12.34", "+0.1000")
    assert nll.show(None) == "—"
