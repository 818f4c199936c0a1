"""A study from start to end: budget, resuming, refused folders, and a test part that has no say."""

from dataclasses import replace

import filelock
import pytest
import torch
import yaml

from fakes_tuning import Touchy
from fedlas import Predictions
from fedlas._core.check import InputError
from fedlas.lab.bench.suite import load_group
from fedlas.lab.runs.folder import RunFolder
from fedlas.lab.train import loop
from fedlas.lab.train.log import read_log
from fedlas.lab.tune import study as study_module
from fedlas.lab.tune.best import outcomes_of, write_best
from fedlas.lab.tune.study import load_studies, run_study

pytest.importorskip("optuna")  # in CI every extra is installed: tests/integration/test_package.py checks it

LOGITS, TARGET = torch.eye(3).repeat(20, 1), torch.arange(60) % 3


def params(tuning, loss):
    return [trial.user_attrs["params"] for trial in load_studies(tuning)[loss].trials]


def values(tuning, loss):
    return [trial.value for trial in load_studies(tuning)[loss].trials]


def test_every_method_has_its_budget_and_its_preset_first(study):
    tuning = study(losses=["ls", "ce"], trials=6, seeds=[0, 3], objective="nll")
    run_study(tuning)
    for method, trials in zip(tuning.methods, (6, 1), strict=True):
        settings = params(tuning, method.name)
        assert len(settings) == trials
        assert settings[0] == dict(method.preset)
        assert all(domain.contains(s[key]) for s in settings for key, domain in method.space.items())
        assert len({tuple(setting.values()) for setting in settings}) == trials
    ls, ce = outcomes_of(tuning)
    assert ls.value == min(values(tuning, "ls")) <= ls.preset == values(tuning, "ls")[0]
    # The objective is the metric of the selected epoch, averaged over the seeds.
    logs = [read_log(run.folder / "log.jsonl") for run in tuning.runs(ce.method, 0, {})]
    best = [max(log, key=lambda record: (record["val"]["accuracy"], record["epoch"]))["val"]["nll"] for log in logs]
    assert ce.value == pytest.approx(sum(best) / 2)
    assert not list(tuning.folder.rglob("checkpoint.pt"))

    # The same study again trains nothing; a larger budget adds trials.
    run_study(tuning)
    assert len(values(tuning, "ls")) == 6
    run_study(study(losses=["ls", "ce"], trials=7, seeds=[0, 3], objective="nll"))
    assert len(values(tuning, "ls")) == 7


def test_the_best_settings_are_a_recipe_with_other_seeds(study):
    tuning = study(losses=["ls", "ce"], trials=2, space=["alpha=0.9,0.8"], objective="ece")
    run_study(tuning)
    ls, ce = outcomes_of(tuning)
    content = yaml.safe_load(write_best(tuning, [replace(ls, params={"alpha": 0.9}), ce]).read_text())
    assert content["methods"] == ["ls", "ce", "ls-preset"]
    assert content["losses"]["ls"]["alpha"] == 0.9
    assert content["losses"]["ls-preset"]["loss"] == "ls"
    assert 0 not in content["seeds"]
    (recipe,) = load_group(str(tuning.folder / "best.yaml")).recipes
    assert recipe.train.epochs == 2


def test_tuned_keys_of_the_recipe_make_a_group(study):
    tuning = study(losses=["ls", "ce"], trials=2, space=["optimizer.lr=0.05,0.2"])
    run_study(tuning)
    write_best(tuning, outcomes_of(tuning))
    recipes = load_group(str(tuning.folder / "best.yaml")).recipes
    assert [recipe.methods for recipe in recipes] == [["ls"], ["ce"]]
    assert recipes[1].optimizer.lr == outcomes_of(tuning)[1].params["optimizer.lr"]


def test_a_few_values_are_each_tried_once(study):
    tuning = study(losses=["ls"], trials=20, space=["alpha=0.1,0.2,0.3"])
    run_study(tuning)
    assert [setting["alpha"] for setting in params(tuning, "ls")] == [0.05, 0.1, 0.2, 0.3]  # the preset lies outside


class Killed(BaseException):
    """Nothing catches this."""


def test_a_killed_trial_is_run_again(study, monkeypatch):
    tuning, append, count = study(losses=["ls"], trials=2), loop.append_log, []

    def killed(*args):
        count.append(1)
        if len(count) == 2:  # in the second epoch of the first trial, which is the preset's
            raise Killed
        append(*args)

    monkeypatch.setattr(loop, "append_log", killed)
    with pytest.raises(Killed):
        run_study(tuning)
    run_study(tuning)
    finished = [t.user_attrs["params"] for t in load_studies(tuning)["ls"].trials if t.value is not None]
    assert len(finished) == 2
    assert finished[0] == tuning.methods[0].preset


@pytest.mark.system
def test_workers_share_the_trials(study):
    tuning = study(losses=["ls", "mbls"], trials=2)
    run_study(tuning, workers=2)
    assert [len(values(tuning, loss)) for loss in ("ls", "mbls")] == [2, 2]
    assert None not in values(tuning, "ls")


def test_the_objective_reads_the_validation_part_alone(study, monkeypatch):
    tuning = study(losses=["ls"], trials=1)
    read = []
    monkeypatch.setattr(RunFolder, "predictions", lambda self, part: read.append(part) or Predictions(LOGITS, TARGET))
    run_study(tuning)
    assert read == ["val"]


def test_a_trial_that_diverges_ends_alone_and_is_not_repeated(study, touchy, monkeypatch):
    tuning = study(losses=["touchy", "ce"], trials=6)
    run_study(tuning)
    for setting, value in zip(params(tuning, "touchy"), values(tuning, "touchy"), strict=True):
        assert (value is None) == (setting["alpha"] > 0.5)
    assert outcomes_of(tuning)[0].diverged > 0
    monkeypatch.setattr(study_module, "execute", None)
    run_study(tuning)


def test_another_error_stops_the_study_and_the_same_command_resumes(study, touchy, monkeypatch):
    tuning = study(losses=["touchy", "ce"], trials=2, space=["touchy.alpha=-1"])
    with pytest.raises(RuntimeError, match="no luck"):
        run_study(tuning)
    monkeypatch.setattr(Touchy, "per_sample", lambda self, batch: batch.logits.square().sum(1))
    run_study(tuning)
    assert None not in [outcome.value for outcome in outcomes_of(tuning)]


def test_another_study_in_the_folder_is_refused(study, tmp_path):
    tuning = study(losses=["ls"], trials=1)
    run_study(tuning)
    for options, message in (
        ({"objective": "ece"}, "objective: 'refined_nll' before, 'ece' now"),
        ({"space": ["ls.alpha=0.1:0.2"]}, "space.alpha"),
        ({"overrides": ["optimizer.lr=0.01"]}, "optimizer.lr: .* before, 0.01 now"),
    ):
        with pytest.raises(InputError, match=message):
            run_study(study(**{"losses": ["ls"], "trials": 2, **options}))
    with filelock.FileLock(tuning.folder / ".lock"), pytest.raises(InputError, match="in use"):
        run_study(tuning)
    (tmp_path / "else").mkdir()
    (tmp_path / "else" / "config.yaml").write_text("recipe: x")
    with pytest.raises(InputError, match="output folder"):
        run_study(study(losses=["ls"], trials=1, out=tmp_path / "else"))
    (tuning.folder / "optuna.log").write_text('{"\n')
    with pytest.raises(InputError, match="journal"):
        run_study(tuning)
