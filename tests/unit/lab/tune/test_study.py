"""A study from start to end: budget, resuming, refused folders, and a test part that is never used."""

import functools
import random
from dataclasses import replace
from pathlib import Path

import filelock
import pytest
import torch
import yaml
from rich.console import Console

from fakes_tuning import TINY, Touchy, params, result
from fedlas._core.check import InputError
from fedlas.cli.tune import tune
from fedlas.lab.runs import execute as bench_run
from fedlas.lab.runs.data import prepare_data
from fedlas.lab.runs.execute import execute
from fedlas.lab.runs.folder import RunFolder
from fedlas.lab.train import loop, read_log
from fedlas.lab.tune import trial as trial_room
from fedlas.lab.tune.plan import plan_tuning
from fedlas.lab.tune.record import load_trials
from fedlas.lab.tune.report import write_numbers
from fedlas.lab.tune.sampler import draw
from fedlas.lab.tune.study import run_study
from fedlas.lab.tune.trial import without_test

optuna = pytest.importorskip("optuna")  # in CI every extra is there: tests/integration/test_package.py sees to it
THREE = {"losses": ["ls", "fedlas+", "ce"], "trials": 3}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """Six trials, so that the last one is drawn from those before it."""
    out = tmp_path_factory.mktemp("undisturbed")
    tuning = plan_tuning("synthetic", TINY, losses=["ls", "fedlas+", "ce"], trials=6, seeds=[0, 3], out=out)
    assert tune(tuning) == 0
    return tuning


def numbers(tuning):
    """All of a study but its page, which takes longer to draw than the study itself."""
    run_study(tuning, console=Console(quiet=True), after_round=functools.partial(write_numbers, tuning))
    write_numbers(tuning)


def test_every_method_has_its_budget_and_its_preset_first(undisturbed):
    found = result(undisturbed.folder)
    assert {name: len(method["trials"]) for name, method in found["methods"].items()} == {
        "ls": 6,
        "fedlas+": 6,
        "ce": 1,
    }
    assert found["finished"]
    for method in undisturbed.methods:
        trials = found["methods"][method.name]["trials"]
        assert trials[0]["params"] == dict(method.preset)
        assert found["methods"][method.name]["best_value"] == min(trial["value"] for trial in trials)
        assert found["methods"][method.name]["best_value"] <= found["methods"][method.name]["preset"]
        drawn = [tuple(trial["params"].values()) for trial in trials]
        assert len(set(drawn)) == len(drawn)
        for trial in trials[1:]:
            assert all(method.space[key].contains(value) for key, value in trial["params"].items())
    assert any("ce has nothing to tune" in note for note in found["notes"])


def test_the_objective_is_the_validation_metric_at_the_selected_epoch_over_the_seeds(undisturbed):
    for method in undisturbed.methods:
        for trial in load_trials(undisturbed, method):
            values = []
            for seed in (0, 3):
                log = read_log(undisturbed.trial_folder(method, trial.number) / f"s{seed}" / "log.jsonl")
                best = max(log, key=lambda record: (record["val"]["accuracy"], record["epoch"]))
                assert trial.seeds[str(seed)]["epoch"] == best["epoch"]
                values.append(best["val"]["nll"])
            assert trial.value == sum(values) / 2


def test_a_run_is_the_one_a_bench_would_do(undisturbed, tmp_path):
    """Same seed, same options: the same log, but that a bench also predicts."""
    run = undisturbed.runs(undisturbed.methods[1], 0, {})[0]
    execute(replace(run, folder=tmp_path / "run"))
    logs = [read_log(folder / "log.jsonl") for folder in (run.folder, tmp_path / "run")]
    for log in logs:
        for record in log:
            del record["seconds"]
    assert logs[0] == logs[1]
    assert not list(run.folder.rglob("*.npz"))[1:]  # splits.npz, and no predictions
    assert not (run.folder / "metrics.json").exists()


class Killed(BaseException):
    """What nothing catches."""


@pytest.mark.parametrize("what", ["files", "epochs"])
def test_killed_again_and_again_equals_no_interruption(undisturbed, tmp_path, monkeypatch, what):
    """Before any file gets its name, or in the middle of training."""
    moments, starts = random.Random(what), 0
    room, name = (Path, "replace") if what == "files" else (loop, "append_log")
    original = getattr(room, name)
    again = replace(undisturbed, folder=tmp_path)
    while True:
        starts += 1
        left = [moments.randint(2, 60 if what == "files" else 15)]

        @functools.wraps(original)
        def counted(*args, left=left):
            left[0] -= 1
            if not left[0]:
                raise Killed
            return original(*args)

        with monkeypatch.context() as patch:
            patch.setattr(room, name, counted)
            try:
                numbers(again)
                break
            except Killed:
                continue
    assert starts > 3
    assert result(tmp_path) == result(undisturbed.folder)
    assert sorted(p.relative_to(tmp_path) for p in tmp_path.rglob("*.pt")) == sorted(
        p.relative_to(undisturbed.folder) for p in undisturbed.folder.rglob("*.pt")
    )
    assert not list(tmp_path.rglob("*.part"))


def test_more_trials_and_losses_later_equal_all_at_once(undisturbed, study):
    first = study(losses=["ls", "ce"], trials=2, seeds=[0, 3], run=False)
    numbers(first)
    assert result(first.folder)["budget"] == 2
    numbers(study(losses=["ls", "ce"], trials=4, seeds=[0, 3], run=False))
    numbers(study(losses=["ls", "fedlas+", "ce"], trials=6, seeds=[0, 3], run=False))
    assert result(first.folder) == result(undisturbed.folder)


def test_a_finished_study_trains_nothing_and_is_reported_again(undisturbed, monkeypatch):
    before = {p: p.stat().st_mtime_ns for p in (undisturbed.folder / "trials").rglob("*") if p.is_file()}
    monkeypatch.setattr(trial_room, "train_as_planned", None)
    starts = (undisturbed.folder / "environment.json").read_text()
    assert tune(undisturbed) == 0
    assert before == {p: p.stat().st_mtime_ns for p in (undisturbed.folder / "trials").rglob("*") if p.is_file()}
    assert (undisturbed.folder / "environment.json").read_text() == starts


def test_draws_depend_on_seed_method_number_and_history_alone(undisturbed):
    ls, fedlas, _ = undisturbed.methods
    trials = load_trials(undisturbed, ls)
    for number in range(1, 6):
        assert draw(undisturbed, ls, trials[:number]) == trials[number].params
    assert draw(replace(undisturbed, draws=1), ls, trials[:2]) != trials[2].params
    # The sixth is drawn from what the first five showed, those before are not.
    for number, learned in ((4, False), (5, True)):
        real, other = trials[:number], [replace(trial, value=1 / trial.value) for trial in trials[:number]]
        studies = [replace(undisturbed, draws=seed) for seed in range(5)]
        found = [[draw(study, ls, history) for study in studies] for history in (real, other)]
        assert (found[0] != found[1]) == learned
    assert draw(undisturbed, fedlas, load_trials(undisturbed, fedlas)[:1])["alpha"] != trials[1].params["alpha"]


def test_optuna_can_read_what_is_left(undisturbed):
    storage = optuna.storages.JournalStorage(
        optuna.storages.journal.JournalFileBackend(str(undisturbed.folder / "optuna.log"))
    )
    loaded = optuna.load_study(study_name="fedlas+", storage=storage)
    trials = load_trials(undisturbed, undisturbed.methods[1])
    assert [trial.value for trial in loaded.trials] == [trial.value for trial in trials]
    assert loaded.best_params == result(undisturbed.folder)["methods"]["fedlas+"]["best_params"]


def test_a_few_values_are_each_tried_once(study):
    tuning = study(losses=["ls"], trials=20, space=["alpha=0.1,0.2,0.3"], run=False)
    numbers(tuning)
    drawn = [setting["alpha"] for setting in params(tuning.folder, "ls")]
    assert drawn[0] == 0.05  # the preset, which lies outside
    assert sorted(drawn) == [0.05, 0.1, 0.2, 0.3]
    notes = " ".join(result(tuning.folder)["notes"])
    assert "ls has 4 settings: each was run once" in notes
    assert "preset of ls lies outside" in notes


def test_checkpoints_of_the_best_stay_or_all(study, tmp_path):
    tuning = study(losses=["ls"], trials=3, run=False)
    numbers(tuning)
    best = result(tuning.folder)["methods"]["ls"]["best"]
    kept = [path.parent.parent.name for path in tuning.folder.rglob("checkpoint.pt")]
    assert kept == [f"{best:03d}"]
    tuning = study(losses=["ls"], trials=3, run=False, out=tmp_path / "all")
    run_study(tuning, console=Console(quiet=True), keep=True)
    assert len(list(tuning.folder.rglob("checkpoint.pt"))) == 3


# --- the test part


class Exploding:
    """A test part that cannot be looked at."""

    def __getattr__(self, name):
        raise AssertionError(f"the test part was asked for {name}")

    def __len__(self):
        raise AssertionError("the test part was counted")


def test_the_test_part_is_never_used(study, monkeypatch, tmp_path):
    def prepare(run):
        return replace(prepare_data(run), test=Exploding())

    monkeypatch.setattr(trial_room, "prepare_data", prepare)
    tuning = study(**THREE, run=False)
    numbers(tuning)
    assert result(tuning.folder)["finished"]
    monkeypatch.setattr(bench_run, "prepare_data", prepare)  # and a bench, which does use it, would not have ended
    with pytest.raises(AssertionError, match="the test part was"):
        execute(replace(tuning.runs(tuning.methods[0], 0, {})[0], folder=tmp_path / "bench"))


def test_and_is_sealed_where_the_runs_are_done(undisturbed):
    splits = without_test(prepare_data(undisturbed.runs(undisturbed.methods[0], 0, {})[0]), "cpu")
    assert len(splits.val) == 50
    looks = (
        lambda: splits.test.images,
        lambda: splits.to("cpu"),
        lambda: list(splits.batches(splits.test, batch_size=9)),
    )
    for look in looks:
        with pytest.raises(AssertionError, match="must not use the test part"):
            look()


# --- failures


def test_a_trial_that_diverges_ends_alone(study, touchy):
    tuning = study(losses=["touchy", "exploding", "ce"], trials=6, run=False)
    assert tune(tuning) == 1  # of exploding there is nothing
    found = result(tuning.folder)["methods"]
    states = {trial["number"]: trial["state"] for trial in found["touchy"]["trials"]}
    assert states == {
        t["number"]: "failed" if t["params"]["alpha"] > 0.5 else "done" for t in found["touchy"]["trials"]
    }
    assert set(states.values()) == {"failed", "done"}
    assert found["exploding"]["best"] is None
    assert "finite" in found["exploding"]["trials"][0]["reason"]
    notes = " ".join(result(tuning.folder)["notes"])
    assert "failed and counts as done: seed 0: training: loss and logits must stay finite" in notes
    assert "failed" in (tuning.folder / "tune.html").read_text()
    assert yaml.safe_load((tuning.folder / "best.yaml").read_text())["methods"] == ["touchy", "ce"]


def test_what_failed_is_not_done_again(study, touchy, monkeypatch):
    tuning = study(losses=["touchy", "exploding"], trials=2, run=False)
    numbers(tuning)
    monkeypatch.setattr(trial_room, "train_as_planned", None)
    assert tune(tuning) == 1


def test_another_error_stops_the_study_and_the_same_command_goes_on(study, touchy, monkeypatch):
    tuning = study(losses=["touchy", "ce"], trials=2, space=["touchy.alpha=-1"], run=False)
    with pytest.raises(RuntimeError, match="no luck"):
        tune(tuning)
    assert not (tuning.folder / "tune.html").exists()
    assert result(tuning.folder)["methods"]["ce"]["best"] == 0  # the first round is there
    monkeypatch.setattr(Touchy, "per_sample", lambda self, batch: batch.logits.square().sum(1))
    assert tune(tuning) == 0


# --- what is refused


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"objective": "ece"}, "objective: 'nll' before, 'ece' now"),
        ({"seeds": [1]}, r"seeds: \[0\] before, \[1\] now"),
        ({"space": ["ls.alpha=0.1:0.2"]}, "methods.ls.space.alpha: '0.005:0.3:log' before, '0.1:0.2' now"),
        ({"overrides": ["optimizer.lr=0.01"]}, "optimizer.lr: .* before, 0.01 now"),
        ({"overrides": ["losses.ls.alpha=0.2"]}, "methods.ls.loss.alpha: .* before, 0.2 now|alpha: absent before"),
        ({"draws": 4}, "sampler_seed: 0 before, 4 now"),
        ({"losses": ["ls"]}, "ce: tuned before, left out now"),
        ({"trials": 1}, "--trials must be at least the 2 that ls has had"),
    ],
)  # fmt: skip
def test_another_study_in_the_folder_is_refused_by_name(study, options, message):
    tuning = study(losses=["ls", "ce"], trials=2, run=False)
    numbers(tuning)
    before = {path: path.read_bytes() for path in tuning.folder.rglob("*") if path.is_file()}
    with pytest.raises(InputError, match=message):
        study(**{"losses": ["ls", "ce"], "trials": 2, **options})
    assert before == {path: path.read_bytes() for path in tuning.folder.rglob("*") if path.is_file()}


def test_other_data_are_refused(study):
    numbers(study(losses=["ls"], trials=1, run=False))
    other = study(losses=["ls"], trials=2, run=False)
    path = other.folder / "data.json"
    path.write_text(path.read_text().replace('"sha256": "', '"sha256": "x'))
    with pytest.raises(InputError, match="same data"):
        tune(other)


def test_a_folder_of_a_run_or_in_use_is_refused(study, tmp_path):
    tuning = study(losses=["ls"], trials=1, run=False)
    tuning.folder.mkdir()
    with filelock.FileLock(tuning.folder / ".lock"), pytest.raises(InputError, match="in use"):
        tune(tuning)
    (tuning.folder / "config.yaml").write_text("recipe: x")
    with pytest.raises(InputError, match="folder of a run"):
        tune(tuning)


@pytest.mark.parametrize("content", ["{", "[]", "{}", '{"number": 7}'])
def test_a_damaged_record_is_named(study, content):
    tuning = study(losses=["ls"], trials=1, run=False)
    numbers(tuning)
    (tuning.trial_folder(tuning.methods[0], 0) / "trial.json").write_text(content)
    with pytest.raises(InputError, match=r"trial.json must be what an earlier start wrote.*000"):
        tune(tuning)


def test_all_trials_of_a_study_have_the_precision_it_began_with(study, monkeypatch):
    """Also those that another machine draws."""

    def processor(bf16):
        monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: bf16, raising=False)
        monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False, raising=False)

    undecided = {"losses": ["ls"], "overrides": ["train.precision=auto", "train.channels_last=null"]}
    processor(bf16=True)
    study(**undecided, trials=1)
    processor(bf16=False)
    more = study(**undecided, trials=2)
    assert (more.recipe.train.precision, more.recipe.train.channels_last) == ("bf16", True)
    for number in range(2):
        run = RunFolder(more.trial_folder(more.methods[0], number) / "s0")
        assert run.config["train"]["precision"] == "bf16"
