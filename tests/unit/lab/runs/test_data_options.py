"""What a recipe can say about data, and runs on images that stay on disk."""

import argparse
import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from fakes_data import FAKES, picture
from fedlas.cli.shift import add_shift
from fedlas.errors import InputError
from fedlas.lab.data.shift import Corruption, corrupt_part
from fedlas.lab.recipes import Run, load_recipe, plan_runs, recipe_from_content
from fedlas.lab.runs import data_fingerprint, execute, load_trained_run, prepare_data
from fedlas.lab.runs.data import split_fingerprint
from fedlas.lab.studies import measure_shift
from fedlas.lab.train.log import append_log
from fedlas.predictions import Predictions

BIRDS = {
    "title": "birds",
    "data": {"name": "cub", "val_size": 6, "resize": 20, "crop": 16, "workers": 0},
    "model": {"name": "mlp", "hidden": [8]},
    "train": {"epochs": 3, "batch_size": 4},
}
SMALL = [
    "train.epochs=1",
    "model.hidden=[8]",
    "data.train_size=100",
    "data.val_size=50",
    "data.test_size=40",
]


@pytest.fixture(scope="module")
def birds(tmp_path_factory):
    return str(FAKES["cub"](tmp_path_factory.mktemp("birds")))


def on_birds(root, folder, **data):
    recipe = recipe_from_content(
        "birds", {**BIRDS, "data": {**BIRDS["data"], **data}}
    ).with_data_root(root)
    return Run(recipe, "fedlas", 0, folder)


def synthetic(folder, *overrides):
    return plan_runs(
        load_recipe("synthetic", [*SMALL, *overrides]), losses=["ce"], seeds=[0], out=folder
    )[0]


@pytest.fixture(scope="module")
def done(birds, tmp_path_factory):
    run = on_birds(birds, tmp_path_factory.mktemp("done"))
    return run, execute(run)


def logits(folder):
    return Predictions.load(folder / "predictions" / "test.npz").logits


@pytest.mark.system
def test_workers_change_neither_results_nor_folder_identity(done, birds, tmp_path):
    run, _ = done
    other = on_birds(birds, tmp_path, workers=1)
    assert other.config() == run.config()
    execute(other)
    assert np.array_equal(logits(run.folder), logits(tmp_path))


@pytest.mark.system
def test_stopped_run_on_disk_images_resumes_exactly(done, birds, tmp_path, monkeypatch):
    def stop(path, record):
        append_log(path, record)
        if record["epoch"] == 2:
            raise KeyboardInterrupt

    run = on_birds(birds, tmp_path)
    monkeypatch.setattr("fedlas.lab.train.loop.append_log", stop)
    with pytest.raises(KeyboardInterrupt):
        execute(run)
    monkeypatch.setattr("fedlas.lab.train.loop.append_log", append_log)
    execute(run)
    assert np.array_equal(logits(tmp_path), logits(done[0].folder))


def test_run_on_disk_images_reloads_from_folder(done, birds, tmp_path):
    run, metrics = done
    trained = load_trained_run(run.folder, data=birds)
    assert trained.metrics == metrics
    assert trained.splits.classes[0] == "Black footed Albatross"
    other = FAKES["cub"](tmp_path)
    picture(next((other / "CUB_200_2011" / "images").rglob("*_1.jpg")), seed=99, width=80)
    with pytest.raises(InputError, match="same data"):
        load_trained_run(run.folder, data=str(other))


def test_disk_fingerprint_uses_names_sizes_and_labels(done, birds, tmp_path):
    found = data_fingerprint(done[0])
    assert found["train"]["samples"] == 18
    assert found["train"]["shape"] == [3, 16, 16]
    moved = on_birds(str(FAKES["cub"](tmp_path)), tmp_path / "run")
    assert data_fingerprint(moved) == found


def test_wrong_root_fails_before_writing(tmp_path):
    run = on_birds(str(FAKES["svhn"](tmp_path)), tmp_path / "run")
    with pytest.raises(InputError, match=r"images\.txt"):
        execute(run)
    assert not (tmp_path / "run").exists()


def test_noise_long_tail_and_corruption_match_options(tmp_path):
    plain = prepare_data(synthetic(tmp_path))
    changes = [
        "data.long_tail=5",
        "data.label_noise.rate=0.25",
        "data.corruption={name: contrast, severity: 5}",
    ]
    run = synthetic(tmp_path, *changes)
    splits = prepare_data(run)
    counts = np.bincount(splits.clean_target)
    before = np.bincount(plain.train.target.numpy())
    assert counts.tolist() == [
        min(before[c], max(1, int(before.max() * 5 ** (-c / 9)))) for c in range(10)
    ]
    assert set(splits.indices["train"]) < set(plain.indices["train"])
    assert (splits.train.target.numpy() != splits.clean_target).sum() == sum(
        round(0.25 * count) for count in counts
    )
    assert torch.equal(splits.val.images, plain.val.images)
    assert torch.equal(splits.val.target, plain.val.target)
    assert torch.equal(splits.test.images[3], Corruption("contrast", 5)(plain.test.images[3], 3))
    execute(run)
    with np.load(run.folder / "splits.npz") as saved:
        assert np.array_equal(saved["train_clean_target"], splits.clean_target)
    again = load_trained_run(run.folder)
    assert torch.equal(again.splits.train.target, splits.train.target)
    assert again.run.config() == run.config()


def test_options_that_are_not_used_leave_no_trace(tmp_path):
    data = synthetic(tmp_path).config()["data"]
    assert not {"long_tail", "label_noise", "corruption", "workers", "root"} & data.keys()
    noisy = synthetic(tmp_path, "data.label_noise.rate=0.2").config()["data"]
    assert noisy["label_noise"] == {"rate": 0.2, "kind": "symmetric"}


def test_other_noise_is_other_data(tmp_path):
    found = []
    for rate in (0.1, 0.2):
        run = synthetic(tmp_path / str(rate), f"data.label_noise.rate={rate}")
        found.append(split_fingerprint(prepare_data(run)))
    assert found[0] != found[1]


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("data.label_noise.rate=1.5", r"rate must be a finite number in \(0, 1\)"),
        ("data.label_noise.rat=0.5", r"got 'data\.label_noise\.rat'\. Did you mean"),
        ("data.label_noise=0.2", "data.label_noise must be a section; got 0.2"),
        ("data.label_noise={}", "data.label_noise must hold values of the right types"),
        ("data.label_noise={rate: 0.1, kind: symetric}", "Did you mean 'symmetric'"),
        ("data.corruption={name: foog, severity: 1}", "Did you mean 'fog'"),
        ("data.corruption={name: fog, severity: 9}", "severity must be 1 to 5"),
        ("data.long_tail=0.5", "long_tail must be at least 1"),
        ("data.workers=-2", "workers must be a whole number of at least 0"),
        ("data.longtail=5", "Did you mean"),
    ],
)
def test_invalid_data_options_fail_before_start(tmp_path, override, words):
    with pytest.raises(InputError, match=words):
        synthetic(tmp_path, override)


def shift(*words):
    """Run the subcommand, whose errors are raised."""
    parser = argparse.ArgumentParser()
    add_shift(lambda run, _positional: parser.set_defaults(run=run) or parser)
    parsed = parser.parse_args(map(str, words))
    return parsed.run(parsed)


def test_shift_measures_every_corruption_before_and_after_temperature(tmp_path, capsys):
    run = synthetic(tmp_path)
    metrics = execute(run)
    assert (
        shift(run.folder, "--corruptions", "contrast", "fog", "--severities", 1, 5, "--save") == 0
    )
    found = json.loads((run.folder / "shift.json").read_text())
    assert found["clean"]["test"]["nll"] == pytest.approx(metrics["test"]["nll"], rel=1e-6)
    assert found["clean"]["test_calibrated"]["nll"] == pytest.approx(
        metrics["test_calibrated"]["nll"], rel=1e-6
    )
    assert found["temperature"] == pytest.approx(metrics["temperature"])
    assert [(row["corruption"], row["severity"]) for row in found["corrupted"]] == [
        ("contrast", 1), ("contrast", 5), ("fog", 1), ("fog", 5)
    ]  # fmt: skip
    saved = Predictions.load(run.folder / "predictions" / "test-contrast-5.npz")
    corrupted = execute(synthetic(tmp_path / "b", "data.corruption={name: contrast, severity: 5}"))
    assert found["corrupted"][1]["test"]["nll"] == pytest.approx(corrupted["test"]["nll"], rel=1e-6)
    assert saved.num_samples == 40
    printed = " ".join(capsys.readouterr().out.split())
    assert "means over 2 corruptions" in printed
    rows = found["corrupted"]
    for stage in ("test", "test_calibrated"):
        known = [row["noise"][stage]["ece"] for row in (found["clean"], *rows)]
        assert all(
            noise["low"] <= noise["value"] <= noise["high"] and noise["floor"] > 0
            for noise in known
        )
        assert all(
            noise["value"] == pytest.approx(row[stage]["ece"])
            for noise, row in zip(known[1:], rows, strict=True)
        )
        mildest = [
            noise for noise, row in zip(known[1:], rows, strict=True) if row["severity"] == 1
        ]
        assert f"floor {100 * sum(noise['floor'] for noise in mildest) / 2:.2f}" in printed
    assert shift(run.folder, "--corruptions", "fog", "--severities", 1, "--replicates", 0) == 0
    assert "floor" not in capsys.readouterr().out
    assert "noise" not in json.loads((run.folder / "shift.json").read_text())["clean"]
    with pytest.raises(InputError, match="replicates must be 0 or"):
        shift(run.folder, "--corruptions", "fog", "--replicates", 5)


def test_runs_on_equal_images_share_corrupted_images(tmp_path, monkeypatch):
    """Two of three runs have the same test images; each result is that of the run alone."""
    from fedlas.lab.studies import shift as study

    options = {"a": [], "b": ["train.epochs=2"], "c": ["data.test_size=30"]}
    plans = [synthetic(tmp_path / name, *each) for name, each in options.items()]
    for each in plans:
        execute(each)
    runs = [load_trained_run(each.folder) for each in plans]
    alone = [measure_shift([run], [Corruption("fog", 2)])[0] for run in runs]
    made = []
    monkeypatch.setattr(
        study,
        "corrupt_part",
        lambda part, corruption: made.append(part) or corrupt_part(part, corruption),
    )
    assert measure_shift(runs, [Corruption("fog", 2)]) == alone
    assert len(made) == 2


def test_shift_of_images_on_disk(done, birds):
    trained = load_trained_run(done[0].folder, data=birds)
    found, second = measure_shift([trained, trained], [Corruption("contrast", 5)])
    assert found["corrupted"][0]["test"]["nll"] != found["clean"]["test"]["nll"]
    assert second == found
    assert measure_shift([trained], [Corruption("contrast", 5)]) == [found]


def test_shift_refuses_what_cannot_be_measured(tmp_path, done, birds):
    with pytest.raises(InputError, match="Did you mean 'fog'"):
        shift(done[0].folder, "--corruptions", "foog", "--data", birds)
    with pytest.raises(InputError, match="folder must be a run folder"):
        shift(tmp_path, "--corruptions", "fog")
    trained = load_trained_run(done[0].folder, data=birds)
    recipe = replace(
        trained.run.recipe, data=replace(trained.run.recipe.data, corruption=Corruption("fog", 1))
    )
    with pytest.raises(InputError, match="clean test images"):
        measure_shift(
            [replace(trained, run=replace(trained.run, recipe=recipe))], [Corruption("fog", 1)]
        )
