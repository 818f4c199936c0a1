import json
import os
from dataclasses import replace
from types import SimpleNamespace

import filelock
import numpy as np
import pytest
import torch
import yaml

from fedlas.errors import InputError
from fedlas.lab.recipes import load_recipe, plan_runs
from fedlas.lab.runs import (
    BusyError,
    acquire_folder,
    build_objective,
    execute,
    prepare_data,
    read_metrics_if_finished,
)
from fedlas.lab.runs import begin as ownership
from fedlas.lab.runs.train import training_batches
from fedlas.losses import LOSSES
from fedlas.predictions import Predictions

TINY = [
    "train.epochs=2", "train.batch_size=50", "data.train_size=100", "data.val_size=50", "data.test_size=50",
    "model.hidden=[8]",
]  # fmt: skip


def planned(out, *overrides, loss="fedlas", seed=0):
    return plan_runs(
        load_recipe("synthetic", [*TINY, *overrides]), losses=[loss], seeds=[seed], out=out
    )[0]


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    run = planned(tmp_path_factory.mktemp("done"))
    return run, execute(run)


def test_what_a_run_leaves(done):
    run, metrics = done
    names = {str(path.relative_to(run.folder)) for path in run.folder.rglob("*") if path.is_file()}
    assert names - {".lock"} == {
        "config.yaml", "environment.json", "log.jsonl", "checkpoint.pt", "splits.npz", "metrics.json", "data.json",
        "predictions/val.npz", "predictions/test.npz",
    }  # fmt: skip
    assert json.loads((run.folder / "metrics.json").read_text()) == metrics
    assert yaml.safe_load((run.folder / "config.yaml").read_text()) == run.config()
    assert metrics["epochs"] == 2
    assert metrics["seconds"] > 0
    assert metrics["test"]["accuracy"] == metrics["test_calibrated"]["accuracy"]
    test = Predictions.load(run.folder / "predictions" / "test.npz")
    assert test.tensors().logits.dtype == torch.float32
    assert test.num_samples == 50
    # synthetic: so the true calibration error is among the metrics
    assert test.label_probs is not None
    assert "true_ece" in metrics["test"]


def test_finished_run_is_read_without_writing(done):
    run, metrics = done
    before = {path: path.stat().st_mtime_ns for path in run.folder.rglob("*")}
    lock = filelock.FileLock(run.folder / ".lock")
    with lock:  # not even the lock is needed
        assert execute(run) == metrics
    del before[run.folder / ".lock"]
    assert (
        before.items() <= {path: path.stat().st_mtime_ns for path in run.folder.rglob("*")}.items()
    )


def test_another_configuration_is_refused_by_name(done):
    run, _ = done
    other = replace(
        run, recipe=load_recipe("synthetic", [*TINY, "optimizer.lr=0.5", "train.epochs=3"])
    )
    with pytest.raises(InputError) as caught:
        execute(other)
    assert "optimizer.lr: 0.05 before, 0.5 now; train.epochs: 2 before, 3 now" in str(caught.value)
    assert not (run.folder / "error.txt").exists()


def test_one_split_for_all_seeds_if_asked_for(tmp_path):
    shared = [
        prepare_data(planned(tmp_path, "data.split_seed=5", seed=seed)).indices
        for seed in (0, 1, 5)
    ]
    own = [prepare_data(planned(tmp_path, seed=seed)).indices for seed in (0, 1, 5)]
    for part in ("train", "val", "test"):
        assert all(np.array_equal(indices[part], own[2][part]) for indices in shared)
        assert not np.array_equal(own[0][part], own[1][part])
    weights = [
        build_objective(run, prepare_data(run)).model.fc.weight
        for run in (planned(tmp_path, "data.split_seed=5", seed=seed) for seed in (0, 1))
    ]
    assert not torch.equal(*weights)


def test_data_path_is_not_part_of_configuration(done):
    run, metrics = done
    assert (
        read_metrics_if_finished(replace(run, recipe=run.recipe.with_data_root("/elsewhere")))
        == metrics
    )


def test_busy_folder(tmp_path):
    run = planned(tmp_path)
    run.folder.mkdir(parents=True)
    with (
        filelock.FileLock(run.folder / ".lock"),
        pytest.raises(BusyError, match="another process is using"),
    ):
        execute(run)
    assert [path.name for path in run.folder.iterdir()] in ([".lock"], [])


def test_leftovers_of_a_killed_process_do_no_harm(tmp_path):
    run = planned(tmp_path)
    (run.folder / "predictions").mkdir(parents=True)
    (run.folder / ".lock").write_text("")
    (run.folder / "config.yaml").write_text(json.dumps(run.config()))
    (run.folder / ".checkpoint.pt.abcd0123.fedlas.part").write_bytes(b"half")
    (run.folder / "predictions" / ".val.npz.abcd0123.fedlas.part").write_bytes(b"half")
    (run.folder / "error.txt").write_text("an earlier failure")
    execute(run)
    assert not list(run.folder.rglob("*.part"))
    assert not (run.folder / "error.txt").exists()


COMPLETE = (
    b'{"format": 1, "test": {"ece": 0.5}, "test_calibrated": {}, "temperature": 1.5, "best_epoch": 1, "seconds": 2, '
    b'"notes": ["text"]}'
)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "must be readable JSON"),
        (b"{", "must be readable JSON"),
        (b"\xff", "must be readable JSON"),
        (b"[]", "must hold an object"),
        (b"{}", ".*format is None"),
        (b'{"format": 2}', ".*format is 2"),
        (
            b'{"format": 1, "test": {}}',
            ".*test_calibrated, temperature, best_epoch, seconds, notes missing",
        ),
        (COMPLETE.replace(b"0.5", b'"x"'), ".*test.ece is not a number"),
        (COMPLETE.replace(b"0.5", b"[]"), ".*test.ece is not a number"),
        (COMPLETE.replace(b"1.5", b"{}"), ".*temperature is not a number"),
        (COMPLETE.replace(b'"text"', b"3"), ".*notes is not a list of strings"),
    ],
)
def test_damaged_metrics(tmp_path, content, message):
    run = planned(tmp_path)
    run.folder.mkdir(parents=True)
    (run.folder / "config.yaml").write_text(yaml.safe_dump(run.config()))
    (run.folder / "metrics.json").write_bytes(content)
    with pytest.raises(InputError, match=rf"metrics\.json {message}"):
        execute(run)


@pytest.mark.parametrize("result", ["metrics.json", "checkpoint.pt"])
@pytest.mark.parametrize("config", [None, ""])
def test_results_of_an_unknown_configuration(tmp_path, result, config):
    run = planned(tmp_path)
    run.folder.mkdir(parents=True)
    (run.folder / result).write_text("{}")
    if config is not None:
        (run.folder / "config.yaml").write_text(config)
    with pytest.raises(InputError, match=f"{result} must also have a config"):
        execute(run)
    assert not (run.folder / "splits.npz").exists()


class StopError(Exception):
    pass


def stopped(run, monkeypatch):
    """Start a run and stop it when its only epoch is done."""

    def stop(*_, **__):
        raise StopError

    with monkeypatch.context() as patch:
        patch.setattr("fedlas.lab.runs.execution.measure_predictions", stop)
        with pytest.raises(StopError):
            execute(run)


def npz_run(out, path, seed):
    """A run on the images that ``seed`` draws, saved at ``path``."""
    random = np.random.default_rng(seed)
    arrays = {}
    for part in ("train", "test"):
        arrays[f"{part}_images"] = random.integers(0, 256, (150, 8, 8), dtype=np.uint8)
        arrays[f"{part}_target"] = np.arange(150) % 3
    path.parent.mkdir(exist_ok=True)
    np.savez(path, **arrays)
    recipe = tmp_recipe(out)
    return plan_runs(recipe.with_data_root(str(path)), losses=["ce"], seeds=[0], out=out)[0]


def tmp_recipe(out):
    text = "title: own\ndata: {name: npz, val_size: 50}\nmodel: {name: mlp, hidden: [8]}\ntrain: {epochs: 1}\n"
    path = out.parent / "own.yaml"
    path.write_text(text)
    return load_recipe(str(path))


def test_other_data_is_refused_moved_data_accepted(tmp_path, monkeypatch):
    run = npz_run(tmp_path / "out", tmp_path / "a" / "data.npz", seed=0)
    stopped(run, monkeypatch)
    other = npz_run(tmp_path / "out", tmp_path / "b" / "data.npz", seed=1)
    before = {path: path.read_bytes() for path in run.folder.rglob("*") if path.is_file()}
    with pytest.raises(InputError, match=r"same data; got .*train\.sha256: .*--data"):
        execute(other)
    assert {path: path.read_bytes() for path in run.folder.rglob("*") if path.is_file()} == before
    moved = npz_run(tmp_path / "out", tmp_path / "c" / "data.npz", seed=0)
    assert execute(moved)["run"] == "ce-s0"


def test_every_start_is_kept(tmp_path, monkeypatch):
    run = planned(tmp_path, "train.epochs=1", loss="ce")
    for program in ("first", "second"):
        monkeypatch.setattr("sys.argv", [program])
        stopped(run, monkeypatch)
    (run.folder / "error.txt").write_text("of an earlier start")
    stopped(run, monkeypatch)
    assert not (run.folder / "error.txt").exists()
    starts = json.loads((run.folder / "environment.json").read_text())
    assert [start["command"] for start in starts] == ["first", "second", "second"]


@pytest.mark.parametrize(
    "content", [b"", b"a: [", b"\xff", b"just words", b"loss: {name: ce}\nseed: 4\n"]
)
def test_damaged_or_foreign_config(tmp_path, content):
    run = planned(tmp_path)
    run.folder.mkdir(parents=True)
    (run.folder / "config.yaml").write_bytes(content)
    if not content:  # holds nothing that could differ
        assert read_metrics_if_finished(run) is None
        return
    with pytest.raises(InputError):
        execute(run)
    assert [path.name for path in run.folder.iterdir()] == ["config.yaml"]


@pytest.mark.parametrize(
    "override",
    [
        "model.hidden=[0]",
        "data.num_classes=1",
        "data.val_size=1000000",
        "data.no_such=1",
        "model.depth=3",
        "train.select=true_ece",
    ],
)
def test_nothing_is_created_before_all_is_checked(tmp_path, override):
    with pytest.raises(InputError):
        execute(planned(tmp_path / "out", override))
    assert not (tmp_path / "out").exists()


def test_folders_that_cannot_be_written_to(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="output folder"):
        execute(planned(tmp_path / "file"))
    run = planned(tmp_path / "read-only")
    run.folder.mkdir(parents=True)

    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(filelock.FileLock, "acquire", refuse)
    with pytest.raises(InputError, match=r"output folder .*Permission denied"):
        execute(run)


@pytest.mark.parametrize("name", ["checkpoint.pt", "log.jsonl", "test.npz", "metrics.json"])
def test_disk_full_on_the_way(done, tmp_path, monkeypatch, full_disk, name):
    """What was there stays, nothing half-written does, and with room again the run ends as if nothing had been."""
    run, write = planned(tmp_path), os.fsync
    checkpoint = run.folder / "checkpoint.pt"

    def short(descriptor):
        """The disk is full when the file is synced, once there is a checkpoint to be kept."""
        synced = [
            path.name
            for path in run.folder.rglob("*")
            if os.path.samestat(path.stat(), os.fstat(descriptor))
        ]
        if checkpoint.exists() and name in synced[0]:
            before.append(checkpoint.read_bytes())
            raise OSError(28, "No space left on device")
        write(descriptor)

    before = []
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", short)
        with pytest.raises(InputError, match="No space left on device"):
            execute(run)
    assert checkpoint.read_bytes() == before[0]
    assert not list(run.folder.rglob("*.part"))
    assert read_metrics_if_finished(run) is None
    again = execute(run)
    assert {**again, "seconds": 0} == {**done[1], "seconds": 0}


def test_finished_meanwhile(done, monkeypatch):
    run, metrics = done
    monkeypatch.setattr(ownership, "write_text", None)
    monkeypatch.setattr(ownership, "write_json", None)
    assert acquire_folder(run, {}) == metrics
    with pytest.raises(InputError, match="the same data"):
        acquire_folder(run, {"split": "another"})


@pytest.mark.parametrize(
    ("recipe", "losses"), [("synthetic", list(LOSSES)), ("digits", ["ce", "fedlas"])]
)
def test_a_seed_gives_every_loss_the_same_start(tmp_path, recipe, losses):
    loaded = load_recipe(
        recipe, ["data.train_size=60", "data.val_size=50", "data.test_size=50", "data.cross_fit=2"]
    )
    one = SimpleNamespace(num_processes=1, process_index=0)
    seen = {}
    for seed in (0, 1):
        for run in plan_runs(loaded, losses=losses, seeds=[seed], out=tmp_path):
            splits = prepare_data(run)
            objective = build_objective(run, splits)
            batches = training_batches(run, splits, one)
            order = []
            for epoch in range(2):
                batches.set_epoch(epoch)
                order += [index.tolist() for _, _, index in batches]
            weights = torch.cat(
                [value.flatten().double() for value in objective.model.state_dict().values()]
            )
            indices = np.concatenate([splits.indices[part] for part in ("train", "val", "test")])
            noise = torch.rand(3).tolist()  # what dropout would draw first
            seen.setdefault(seed, []).append((weights.tolist(), order, indices.tolist(), noise))
        assert len(seen[seed]) == len(losses)
        assert all(start == seen[seed][0] for start in seen[seed])
    for first, second in zip(seen[0][0], seen[1][0], strict=True):
        assert first != second


def test_processes_share_batches_and_draw_different_noise(tmp_path):
    run = planned(tmp_path)
    splits = prepare_data(run)
    whole = [
        i.tolist()
        for _, _, i in training_batches(
            run, splits, SimpleNamespace(num_processes=1, process_index=0)
        )
    ]
    halves = [
        [
            i.tolist()
            for _, _, i in training_batches(
                run, splits, SimpleNamespace(num_processes=2, process_index=rank)
            )
        ]
        for rank in (0, 1)
    ]
    assert [a + b for a, b in zip(*halves, strict=True)] == whole
    noise = []
    for rank in (0, 1):
        build_objective(run, splits, rank=rank)
        noise.append(torch.rand(1).item())
    assert noise[0] != noise[1]


def test_a_last_batch_with_fewer_samples_than_processes(tmp_path):
    two = SimpleNamespace(num_processes=2, process_index=0)
    run = planned(tmp_path, "train.batch_size=33")  # 100 = 3 * 33 + 1
    with pytest.raises(InputError, match=r"sample for each .*got 1 of 100.*drop_last=true"):
        training_batches(run, prepare_data(run), two)
    run = planned(tmp_path, "train.batch_size=33", "train.drop_last=true")
    assert len(training_batches(run, prepare_data(run), two)) == 3
