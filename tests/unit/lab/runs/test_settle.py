"""What ``precision: auto`` and ``channels_last: null`` become, and that a run keeps them on another machine."""

import json
import logging
from dataclasses import replace

import pytest
import torch
import yaml

from fedlas.errors import InputError
from fedlas.lab.benches import run_all
from fedlas.lab.recipes import load_recipe, plan_runs
from fedlas.lab.runs import (
    RunFolder,
    execute,
    read_metrics_if_finished,
    resolve_precision,
    with_saved_precision,
)
from fedlas.lab.train import warn_once
from fedlas.predictions import Predictions

TINY = [
    "train.epochs=2", "train.batch_size=50", "data.train_size=100", "data.val_size=50", "data.test_size=50",
    "model.hidden=[8]", "train.precision=auto", "train.channels_last=null",
]  # fmt: skip
CPU = torch.device("cpu")


def planned(folder, *overrides, loss="ce", seed=0):
    return plan_runs(
        load_recipe("synthetic", [*TINY, *overrides]), losses=[loss], seeds=[seed], out=folder
    )[0]


@pytest.fixture
def machine(monkeypatch):
    """``machine(bf16=...)``: go on with a processor that computes bf16, or does not."""

    def change(bf16):
        monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: bf16, raising=False)
        monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False, raising=False)

    warn_once.cache_clear()
    return change


def used(run):
    config = yaml.safe_load((run.folder / "config.yaml").read_text())["train"]
    return config["precision"], config["channels_last"]


@pytest.mark.parametrize("bf16", [True, False])
def test_first_start_resolves_and_reports_precision(machine, tmp_path, capsys, bf16):
    machine(bf16=bf16)
    run = planned(tmp_path)
    execute(run)
    assert used(run) == ("fp32", True)
    assert [record["precision"] for record in RunFolder(run.folder).log] == ["fp32", "fp32"]
    (start,) = RunFolder(run.folder).starts
    assert ("the processor has AMX: with --precision bf16" in start["precision"]) == bf16
    assert f"precision {start['precision']}" in " ".join(capsys.readouterr().err.split())
    assert RunFolder(run.folder).run.config() == yaml.safe_load(
        (run.folder / "config.yaml").read_text()
    )


def test_resume_on_other_machine_keeps_precision_and_warns(machine, tmp_path, caplog, monkeypatch):
    machine(bf16=True)
    run = planned(tmp_path, "train.precision=bf16")

    def stopped(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Predictions, "save", stopped)
        with pytest.raises(KeyboardInterrupt):
            execute(run)
    machine(bf16=False)
    with caplog.at_level(logging.WARNING, "fedlas"):
        execute(planned(tmp_path))
    assert used(run) == ("bf16", True)
    expected = "bf16 (auto: as the run began; emulated here, which is slow)"
    assert RunFolder(run.folder).starts[1]["precision"] == expected
    assert "train.precision=bf16 is emulated here" in caplog.text
    assert "--precision fp32" in caplog.text


def test_bench_reports_its_precision_once(machine, tmp_path, capsys):
    machine(bf16=True)
    first = planned(tmp_path)
    execute(first)
    with pytest.raises(InputError, match=r"train\.precision: 'fp32' before, 'bf16' now"):
        run_all([first, planned(tmp_path, "train.precision=bf16", loss="ls", seed=3)])
    second = planned(tmp_path, "train.precision=fp32", loss="ls", seed=3)
    assert run_all([first, second]).finished == ["ce-s0", "ls-s3"]
    assert used(second) == ("fp32", True)
    assert " ".join(capsys.readouterr().err.split()).count("precision fp32 (of the recipe") == 1


def test_neighbors_decide_nothing(machine, tmp_path):
    machine(bf16=True)
    execute(planned(tmp_path, "train.precision=bf16"))
    other = planned(tmp_path, seed=1)
    assert with_saved_precision(other) == other
    assert resolve_precision(other, CPU).recipe.train.precision == "fp32"


def test_finished_run_is_read_at_any_precision(machine, tmp_path):
    machine(bf16=True)
    old = planned(tmp_path, "train.precision=bf16", "train.channels_last=false")
    execute(old)
    assert used(old) == ("bf16", False)
    machine(bf16=False)
    now = planned(tmp_path)
    assert with_saved_precision(now).config() == old.config()
    assert execute(now) == read_metrics_if_finished(old)
    assert RunFolder(old.folder).run.recipe.train == old.recipe.train


def test_requested_precision_is_kept_or_refused(machine, tmp_path):
    machine(bf16=True)
    run = planned(tmp_path, "train.precision=bf16")
    execute(run)
    asked = planned(tmp_path, "train.precision=fp32")
    assert with_saved_precision(asked).recipe.train.precision == "fp32"
    with pytest.raises(InputError, match=r"precision: 'bf16' before, 'fp32' now"):
        execute(asked)
    log = [json.loads(line) for line in (run.folder / "log.jsonl").read_text().splitlines()]
    assert {record["precision"] for record in log} == {"bf16"}


def test_looking_changes_nothing(machine, tmp_path):
    machine(bf16=True)
    run = planned(tmp_path / "new")
    assert with_saved_precision(run) == run
    assert not run.folder.exists()
    fixed = resolve_precision(run, CPU).recipe.train
    assert fixed == replace(run.recipe.train, precision="fp32", channels_last=True)
