"""A study from start to end: budget, resuming, refused folders, and a test part that has no say."""

import os

import filelock
import pytest
import yaml

from fakes_tuning import Touchy
from fedlas.errors import InputError
from fedlas.lab.benches import load_recipe_group
from fedlas.lab.benches.executors import LocalExecutor
from fedlas.lab.runs import RunFolder
from fedlas.lab.train import loop, read_log
from fedlas.lab.tune import outcome_table, rank_trials, run_study, write_best_recipe
from fedlas.lab.tune.study import load_studies

pytestmark = pytest.mark.system

# in CI every extra is installed: tests/integration/test_package.py checks it
pytest.importorskip("optuna")


def trials(tuning, loss):
    """The settings and values of the trials of a loss."""
    return [(trial.params, trial.value) for trial in load_studies(tuning)[loss].trials]


def test_every_method_gets_budget_and_preset_first(study, monkeypatch):
    tuning = study(losses=["ls", "ce"], trials=6)
    run_study(tuning)
    ls, ce = trials(tuning, "ls"), trials(tuning, "ce")
    assert (len(ls), len(ce), ls[0][0]) == (6, 1, tuning.methods[0].preset)
    assert len({params["alpha"] for params, _ in ls}) == 6
    assert all(0.005 <= params["alpha"] <= 0.3 for params, _ in ls)
    assert not list(tuning.folder.rglob("checkpoint.pt"))
    ranked = rank_trials(tuning)
    assert ranked["ls"][0].value == min(value for _, value in ls)
    assert [row[0].text for row in outcome_table(tuning, ranked).rows] == ["ls", "ce"]

    # The same study again trains nothing; a larger budget adds trials.
    monkeypatch.setattr(LocalExecutor, "results", None)
    run_study(tuning)
    monkeypatch.undo()
    run_study(study(losses=["ls", "ce"], trials=7))
    assert len(trials(tuning, "ls")) == 7


def test_objective_averages_best_epoch_metric_over_seeds(study, monkeypatch):
    read, predictions = [], RunFolder.predictions
    monkeypatch.setattr(
        RunFolder, "predictions", lambda self, part: read.append(part) or predictions(self, part)
    )
    tuning = study(losses=["ce"], trials=1, seeds=[0, 3], objective="nll")
    run_study(tuning)
    logs = [read_log(run.folder / "log.jsonl") for run in tuning.runs(tuning.methods[0])]
    best = [
        max(log, key=lambda record: (record["val"]["accuracy"], record["epoch"]))["val"]["nll"]
        for log in logs
    ]
    assert trials(tuning, "ce") == [({}, pytest.approx(sum(best) / 2))]
    assert set(read) == {"val"}


def test_best_setting_is_added_with_new_seeds(study):
    tuning = study(losses=["ls", "ce"], trials=2, space=["ls.alpha=0.9"])
    run_study(tuning)
    # the preset lies outside
    assert [params for params, _ in trials(tuning, "ls")] == [{}, {"alpha": 0.9}]
    ranked = rank_trials(tuning)
    ranked["ls"].sort(key=lambda trial: -trial.number)
    content = yaml.safe_load(write_best_recipe(tuning, ranked).read_text())
    assert content["methods"] == ["ls", "ls-tuned", "ce"]
    assert content["losses"]["ls-tuned"] == {"loss": "ls", "alpha": 0.9}
    assert 0 not in content["seeds"]
    (recipe,) = load_recipe_group(str(tuning.folder / "best.yaml")).recipes
    assert recipe.train.epochs == 2


def test_tuned_keys_of_the_recipe_make_a_group(study):
    tuning = study(losses=["ls", "ce"], trials=2, space=["optimizer.lr=0.05,0.2", "ls.alpha=0.05"])
    run_study(tuning)
    write_best_recipe(tuning, rank_trials(tuning))
    recipes = load_recipe_group(str(tuning.folder / "best.yaml")).recipes
    assert [recipe.methods[0].removesuffix("-tuned") for recipe in recipes] == ["ls", "ce"]
    best = rank_trials(tuning)["ce"][0]
    assert recipes[1].optimizer.lr == (best.params["optimizer.lr"] if best.number else 0.1)


def test_a_few_values_are_each_tried_once(study):
    tuning = study(losses=["ls"], trials=20, space=["alpha=0.1,0.05,0.3"])
    run_study(tuning)
    assert [params["alpha"] for params, _ in trials(tuning, "ls")] == [0.05, 0.1, 0.3]


class Killed(BaseException):
    """Nothing catches this."""


def test_killed_study_ends_like_uninterrupted_one(study, tmp_path, monkeypatch):
    tuning, append, count = study(losses=["ls"], trials=6), loop.append_log, []

    def killed(*args):
        count.append(1)
        if len(count) == 4:  # in the second epoch of the second trial
            raise Killed
        append(*args)

    monkeypatch.setattr(loop, "append_log", killed)
    with pytest.raises(Killed):
        run_study(tuning)
    run_study(tuning)
    whole = study(losses=["ls"], trials=6, out=tmp_path / "whole")
    run_study(whole)
    assert trials(tuning, "ls") == trials(whole, "ls")


def test_study_killed_while_writing_journal_resumes(study):
    """The link by which optuna locks the journal stayed, and the folder was refused as one with links."""
    tuning = study(losses=["ce"], trials=1)
    run_study(tuning)
    link = tuning.folder / "optuna.log.lock"
    link.symlink_to(tuning.folder / "optuna.log")
    run_study(tuning)
    assert not link.is_symlink()
    (tuning.folder / "other.lock").symlink_to("/")
    with pytest.raises(InputError, match="the path must be below"):
        run_study(tuning)


@pytest.mark.system
def test_workers_draw_the_same_settings(study, tmp_path):
    tuning, alone = (
        study(losses=["ls", "mbls"], trials=2, out=tmp_path / name) for name in ("two", "one")
    )
    run_study(tuning, LocalExecutor(workers=2))
    run_study(alone)
    for loss in ("ls", "mbls"):
        assert trials(tuning, loss) == trials(alone, loss)


def test_diverged_trial_ends_alone_without_repeat(study, touchy, monkeypatch):
    tuning = study(losses=["touchy", "ce"], trials=6)
    run_study(tuning)
    assert all(
        (value is None) == (params["alpha"] > 0.5) for params, value in trials(tuning, "touchy")
    )
    ranked = rank_trials(tuning)
    assert (ranked["touchy"][0].value, ranked["touchy"][-1].value) == (
        min(v for _, v in trials(tuning, "touchy") if v),
        None,
    )
    assert "diverged" in str(outcome_table(tuning, ranked))
    monkeypatch.setattr(LocalExecutor, "results", None)
    run_study(tuning)


def test_run_error_stops_study_and_command_resumes(study, touchy, monkeypatch):
    tuning = study(losses=["touchy", "ce"], trials=2, space=["touchy.alpha=-1"])
    with pytest.raises(InputError, match="RuntimeError: no luck"):
        run_study(tuning)
    monkeypatch.setattr(Touchy, "per_sample", lambda self, batch: batch.logits.square().sum(1))
    run_study(tuning)
    assert None not in [value for loss in ("touchy", "ce") for _, value in trials(tuning, loss)]


def test_another_study_in_the_folder_is_refused(study, tmp_path):
    tuning = study(losses=["ls"], trials=1)
    run_study(tuning)
    for options, message in (
        ({"objective": "ece"}, "objective: 'refined_nll' before, 'ece' now"),
        ({"space": ["ls.alpha=0.1:0.2"]}, "space.alpha: .* before, '0.1:0.2' now"),
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
    (tuning.folder / "optuna.log").unlink()
    os.mkfifo(tuning.folder / "optuna.log")
    with pytest.raises(InputError, match=r"optuna journal.*a pipe"):
        run_study(tuning)


class Forgetful(LocalExecutor):
    """Submits its tasks and does not wait for them."""

    def results(self, tasks, events):
        yield from ()


def test_trials_need_one_process_and_waiting_executor(study, monkeypatch):
    with pytest.raises(InputError, match="must wait"):
        run_study(study(losses=["ls"]), Forgetful())
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(InputError, match="--gpus-per-run"):
        run_study(study(losses=["ls"]))
