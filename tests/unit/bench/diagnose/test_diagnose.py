import json
import re
import shutil
from dataclasses import replace

import pytest
import torch

from fedlas.bench.diagnose import study_run
from fedlas.bench.diagnose.command import summary_table
from fedlas.bench.load import load_trained
from fedlas.cli import main

SHORT = ["--set", "train.epochs=3", "--set", "model.width=4"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    out = tmp_path_factory.mktemp("diagnose") / "bench"
    arguments = ["bench", "digits", "--losses", "ce", "fedlas", "--seeds", "0", "1", *SHORT, "--out", str(out)]
    assert main(arguments) == 0
    return out


def test_numbers_are_those_of_the_trained_loss(folder):
    study = study_run(folder / "fedlas-s1", replicates=50)
    trained = load_trained(folder / "fedlas-s1")
    test = study.predictions
    with torch.no_grad():
        expected = trained.objective.criterion.nci(test.features)
        psi = trained.objective.criterion.gate(test.logits)
    assert torch.equal(study.score, expected)
    assert study.gate.plus == pytest.approx(float((psi > 0).double().mean()))
    assert study.alpha == 0.05
    assert float(study.alpha_i.max()) <= 0.1 + 1e-6


def test_a_loss_without_indicator_is_studied_by_its_norms(folder):
    study = study_run(folder / "ce-s0", replicates=50)
    assert study.gate is None
    assert study.psi is None
    norms = study.predictions.features.abs().sum(1)
    assert torch.equal(study.score.argsort(), norms.argsort())
    assert abs(float(study.score.mean())) < 1


def test_the_log_has_a_record_an_epoch(folder):
    study = study_run(folder / "fedlas-s0", replicates=50)
    assert [set(record) >= {"indicator", "gate", "alarms"} for record in study.history] == [True] * 3
    assert study.history[0]["gate"]["train_flips"] is None
    assert 0 <= study.history[1]["gate"]["train_flips"] <= 1
    assert "gate" not in study_run(folder / "ce-s0", replicates=50).history[0]


def test_command_writes_page_and_numbers(folder, capsys):
    assert main(["diagnose", str(folder), "--replicates", "60"]) == 0
    printed = capsys.readouterr().out
    assert "fedlas x 2" in printed
    content = json.loads((folder / "diagnose.json").read_text())
    assert [entry["run"] for entry in content] == ["ce-s0", "ce-s1", "fedlas-s0", "fedlas-s1"]
    spearman = content[2]["indicator"]["confidence"]["spearman"]
    assert spearman["low"] <= spearman["value"] <= spearman["high"]
    page = (folder / "diagnose.html").read_text()
    assert page.count('alt="test image') > 10
    assert not re.findall(r'(?:src|href)="(?!data:|#)', page)


def test_no_mean_is_taken_over_recipes(folder):
    study = study_run(folder / "ce-s0", replicates=50)
    other = replace(study, run=replace(study.run, recipe=replace(study.run.recipe, name="other")))
    names = list(summary_table([study, other, study]).columns[0].cells)
    assert names == ["digits ce-s0", "digits ce-s0", "digits ce x 2", "other ce-s0"]


def test_one_run_has_its_page_in_its_own_folder(folder, tmp_path):
    run = tmp_path / "fedlas-s0"
    shutil.copytree(folder / "fedlas-s0", run)
    assert main(["diagnose", str(run), "--replicates", "60"]) == 0
    assert (run / "diagnose.html").is_file()


def test_the_page_does_without_images_and_says_why(folder, tmp_path, monkeypatch):
    from fedlas.bench.diagnose import page

    monkeypatch.setattr(page, "splits_at_hand", lambda folder, data: (None, "digits: data must be there"))
    out = tmp_path / "out"
    out.mkdir()
    assert main(["diagnose", str(folder / "fedlas-s0"), "--replicates", "60", "--out", str(out)]) == 0
    text = (out / "diagnose.html").read_text()
    assert "No images: digits: data must be there" in text
    assert 'alt="test image' not in text


def test_errors_say_what_to_do(folder, tmp_path, capsys):
    for arguments, words in (
        ([str(tmp_path)], "a folder must be a run, or hold finished runs"),
        ([str(tmp_path / "none")], "it must be the folder of a run"),
        ([str(folder), "--replicates", "3"], "at least 39"),
    ):
        assert main(["diagnose", *arguments]) == 2
        assert words in capsys.readouterr().err
    run = tmp_path / "bare"
    shutil.copytree(folder / "ce-s0", run)
    (run / "predictions" / "val.npz").unlink()
    assert main(["diagnose", str(run)]) == 2
    assert "it must have its val predictions" in " ".join(
        capsys.readouterr().err.replace("the run must", "it must").split()
    )


def test_images_of_another_test_set_are_not_shown(folder, tmp_path, monkeypatch):
    from dataclasses import replace

    from fedlas.bench.diagnose import page
    from fedlas.bench.load import splits_at_hand

    def other(run, data):
        splits, _ = splits_at_hand(run, data=data)
        return replace(splits, test=splits.test.take(torch.arange(len(splits.test)).flip(0))), ""

    monkeypatch.setattr(page, "splits_at_hand", other)
    assert main(["diagnose", str(folder / "ce-s0"), "--replicates", "60", "--out", str(tmp_path)]) == 0
    text = (tmp_path / "diagnose.html").read_text()
    assert "not the one that was predicted" in text
    assert 'alt="test image' not in text
