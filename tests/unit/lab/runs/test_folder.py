"""A run on disk: each file is named once and read once."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from fedlas.errors import InputError
from fedlas.lab.report import read_report, write_report
from fedlas.lab.runs import RunFolder, find_runs, run_folders
from fedlas.lab.runs import folder as room
from fedlas.predictions import Predictions


def test_class_has_file_names_instance_has_paths():
    assert RunFolder.metrics_path == Path("metrics.json")
    assert RunFolder(Path("a/b")).metrics_path == Path("a/b/metrics.json")
    assert RunFolder(Path("a/b")).part_path("test") == Path("a/b/predictions/test.npz")


def test_folder_name_for_every_path_spelling(tmp_path, monkeypatch):
    (tmp_path / "ce-s0" / "below").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "ce-s0")
    for path in (Path(), Path("below/.."), tmp_path / "ce-s0"):
        assert RunFolder(path).name == "ce-s0"
    assert RunFolder(Path(), label="first").name == "first"


def test_contents_are_cached_per_object(tmp_path):
    folder = RunFolder(tmp_path)
    assert (folder.config, folder.data, folder.metrics, folder.log, folder.starts) == (
        None,
        None,
        {},
        [],
        [],
    )
    assert (folder.is_finished, folder.is_derived, folder.num_bins, folder.files) == (
        False,
        False,
        15,
        [],
    )
    assert folder.fingerprint is None
    folder.config_path.write_text("uncertainty: {name: x}\ntrain: {num_bins: 7}\n")
    folder.metrics_path.write_text("{}")
    assert (folder.config, folder.is_finished) == (None, True)
    again = RunFolder(tmp_path)
    assert (again.is_derived, again.num_bins, again.files) == (
        True,
        7,
        ["metrics.json", "config.yaml"],
    )


def test_missing_splits_and_predictions_are_named(tmp_path):
    folder = RunFolder(tmp_path)
    with pytest.raises(InputError, match=r"splits\.npz must be readable"):
        _ = folder.splits
    with pytest.raises(InputError, match=r"test\.npz"):
        folder.predictions("test")
    assert (
        folder.test_predictions_or_reason() == f"{tmp_path.name}: predictions/test.npz is missing"
    )


def test_report_parses_and_hashes_each_file_once(tmp_path, monkeypatch):
    folder = RunFolder(tmp_path / "ce-s0")
    logits = np.random.default_rng(0).normal(size=(50, 3)).astype("f4")
    Predictions(logits, logits.argmax(1)).save(folder.part_path("test"))
    folder.config_path.write_text("recipe: own\nloss: {name: ce}\n")
    folder.metrics_path.write_text(
        '{"format": 1, "loss": "ce", "seed": 0, "test": {"accuracy": 1.0}}'
    )
    counted = Counter()

    def counting(name, function):
        def call(*args, **options):
            counted[name] += 1
            return function(*args, **options)

        return call

    monkeypatch.setattr(room, "parse_yaml", counting("parsed", room.parse_yaml))
    monkeypatch.setattr(room, "file_digest", counting("hashed", room.file_digest))
    write_report(read_report(tmp_path, replicates=39))
    assert counted == {"parsed": 1, "hashed": 1}


def test_bench_runs_are_filtered_named_runs_are_not(tmp_path):
    for name in ("good-s0", "bad-s0", "figures", ".hidden"):
        (tmp_path / "bench" / name).mkdir(parents=True)
    assert [folder.name for folder in run_folders(tmp_path / "bench")] == [
        "bad-s0",
        "figures",
        "good-s0",
    ]
    assert run_folders(tmp_path / "none") == []
    reasons = {"good-s0": "", "bad-s0": "it is not finished", "figures": None}

    def find(*folders):
        return find_runs(folders, lambda folder: reasons[folder.name], content="finished runs")

    found, notes = find(tmp_path / "none", tmp_path / "bench")
    assert [folder.path.name for folder in found] == ["none", "good-s0"]
    assert notes == ["bad-s0 is left out: it is not finished"]
    reasons["good-s0"] = None
    with pytest.raises(InputError, match="bench: bad-s0 is left out"):
        find(tmp_path / "bench")
    reasons["bad-s0"] = None
    with pytest.raises(InputError, match=r"finished runs; got .*bench\."):
        find(tmp_path / "none", tmp_path / "bench")
