"""A study from start to end: budget, resuming, refused folders, and a test part that is never used."""

import filelock
import pytest
import yaml

from fakes_tuning import Touchy
from fedlas._core.check import InputError
from fedlas.cli.tune import tune
from fedlas.lab.bench.suite import load_group
from fedlas.lab.runs.data import prepare_data
from fedlas.lab.train import loop, read_log
from fedlas.lab.tune import study as study_module
from fedlas.lab.tune.best import outcomes_of
from fedlas.lab.tune.study import load_studies, run_study, without_test

pytest.importorskip("optuna")  # in CI every extra is installed: tests/integration/test_package.py checks it


def params(tuning, loss):
    return [trial.user_attrs["params"] for trial in load_studies(tuning)[loss].trials]


def values(tuning, loss):
    return [trial.value for trial in load_studies(tuning)[loss].trials]


def test_every_method_has_its_budget_and_its_preset_first(study, capsys):
    tuning = study(losses=["ls", "ce"], trials=6, seeds=[0, 3], objective="nll")
    assert tune(tuning) == 0
    for method, trials in zip(tuning.methods, (6, 1), strict=True):
        settings = params(tuning, method.name)
        assert len(settings) == trials
        assert settings[0] == dict(method.preset)
        assert all(domain.contains(s[key]) for s in settings for key, domain in method.space.items())
        assert len({tuple(setting.values()) for setting in settings}) == trials
    ls, ce = outcomes_of(tuning)
    assert ls.value == min(values(tuning, "ls")) <= ls.preset == values(tuning, "ls")[0]
    # The objective is the metric of the selected epoch, averaged over the seeds.
    logs = [read_log(tuning.trial_folder(ce.method, 0) / f"ce-s{seed}" / "log.jsonl") for seed in (0, 3)]
    best = [max(log, key=lambda record: (record["val"]["accuracy"], record["epoch"]))["val"]["nll"] for log in logs]
    assert ce.value == pytest.approx(sum(best) / 2)
    assert not list(tuning.folder.rglob("checkpoint.pt"))
    out = capsys.readouterr().out
    assert "nothing to tune" in out
    assert "optimistic" in out

    # The same command again trains nothing; a larger budget adds trials.
    assert tune(tuning) == 0
    assert len(values(tuning, "ls")) == 6
    tune(study(losses=["ls", "ce"], trials=7, seeds=[0, 3], objective="nll"))
    assert len(values(tuning, "ls")) == 7


def test_the_best_settings_are_a_recipe_with_other_seeds(study):
    tuning = study(losses=["ls", "ce"], trials=2)
    tune(tuning)
    content = yaml.safe_load((tuning.folder / "best.yaml").read_text())
    assert content["methods"] == ["ls", "ce"]
    assert content["losses"]["ls"]["alpha"] == dict(outcomes_of(tuning)[0].params)["alpha"]
    assert content["losses"]["ls-preset"]["loss"] == "ls"
    assert 0 not in content["seeds"]
    (recipe,) = load_group(str(tuning.folder / "best.yaml")).recipes
    assert recipe.train.epochs == 2


def test_tuned_keys_of_the_recipe_make_a_group(study):
    tuning = study(losses=["ls", "ce"], trials=2, space=["optimizer.lr=0.05,0.2"])
    tune(tuning)
    recipes = load_group(str(tuning.folder / "best.yaml")).recipes
    assert [recipe.methods for recipe in recipes] == [["ls"], ["ce"]]
    assert recipes[1].optimizer.lr == outcomes_of(tuning)[1].params["optimizer.lr"]


def test_a_few_values_are_each_tried_once(study):
    tuning = study(losses=["ls"], trials=20, space=["alpha=0.1,0.2,0.3"])
    run_study(tuning)
    assert [setting["alpha"] for setting in params(tuning, "ls")] == [0.05, 0.1, 0.2, 0.3]  # the preset lies outside


class Killed(BaseException):
    """Nothing catches this."""


def test_a_killed_trial_resumes_from_its_checkpoint(study, monkeypatch):
    tuning, append, count = study(losses=["ls"], trials=2), loop.append_log, []

    def killed(*args):
        count.append(1)
        if len(count) == 4:  # in the second epoch of the second trial
            raise Killed
        append(*args)

    monkeypatch.setattr(loop, "append_log", killed)
    with pytest.raises(Killed):
        run_study(tuning)
    run_study(tuning)
    assert len(count) == 5
    assert None not in values(tuning, "ls")


@pytest.mark.system
def test_workers_share_the_trials(study):
    tuning = study(losses=["ls", "mbls"], trials=2)
    run_study(tuning, workers=2)
    assert [len(values(tuning, loss)) for loss in ("ls", "mbls")] == [2, 2]
    assert None not in values(tuning, "ls")


def test_the_test_part_is_sealed(study):
    tuning = study(losses=["ls"], trials=1)
    splits = without_test(prepare_data(tuning.runs(tuning.methods[0], 0, {})[0]), "cpu")
    assert len(splits.val) == 50
    for look in (lambda: splits.test.images, lambda: splits.to("cpu")):
        with pytest.raises(AssertionError, match="test part"):
            look()


def test_a_trial_that_diverges_ends_alone_and_is_not_repeated(study, touchy, monkeypatch):
    tuning = study(losses=["touchy", "ce"], trials=6)
    assert tune(tuning) == 0
    for setting, value in zip(params(tuning, "touchy"), values(tuning, "touchy"), strict=True):
        assert (value is None) == (setting["alpha"] > 0.5)
    assert outcomes_of(tuning)[0].diverged > 0
    monkeypatch.setattr(study_module, "train_run", None)
    assert tune(tuning) == 0


def test_another_error_stops_the_study_and_the_same_command_resumes(study, touchy, monkeypatch):
    tuning = study(losses=["touchy", "ce"], trials=2, space=["touchy.alpha=-1"])
    with pytest.raises(RuntimeError, match="no luck"):
        tune(tuning)
    monkeypatch.setattr(Touchy, "per_sample", lambda self, batch: batch.logits.square().sum(1))
    assert tune(tuning) == 0


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
