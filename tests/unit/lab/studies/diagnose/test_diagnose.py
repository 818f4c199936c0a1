import functools
import html
import re
import shutil
from dataclasses import replace

import pytest
import torch

from fedlas.cli.diagnose import summary_table
from fedlas.lab.report import diagnose_page
from fedlas.lab.runs import RunFolder, load_trained_run
from fedlas.lab.studies import diagnose_run, group_by_settings


@pytest.fixture(scope="module")
def folder(runs, tmp_path_factory):
    return shutil.copytree(runs("digits"), tmp_path_factory.mktemp("diagnose") / "bench")


@pytest.fixture(scope="module")
def studied(folder):
    """``studied(name)``: the study of a run, made once; it is for reading."""
    return functools.cache(lambda name: diagnose_run(RunFolder(folder / name)))


def test_numbers_are_those_of_the_trained_loss(folder, studied):
    study = studied("fedlas-s1")
    trained = load_trained_run(folder / "fedlas-s1")
    test = study.predictions
    with torch.no_grad():
        expected = trained.objective.criterion.nci(test.tensors().features)
        psi = trained.objective.criterion.gate(test.tensors().logits)
    assert torch.equal(study.score, expected)
    assert study.gate.plus == pytest.approx(float((psi > 0).double().mean()))
    assert study.alpha == 0.05
    assert float(study.alpha_i.max()) <= 0.1 + 1e-6


def test_loss_without_indicator_is_scored_by_norms(studied):
    study = studied("ce-s0")
    assert study.gate is None
    assert study.psi is None
    norms = study.predictions.tensors().features.abs().sum(1)
    assert torch.equal(study.score.argsort(), norms.argsort())
    assert abs(float(study.score.mean())) < 1


def test_the_log_has_a_record_an_epoch(studied):
    study = studied("fedlas-s0")
    assert [set(record) >= {"indicator", "gate", "alarms"} for record in study.history] == [
        True
    ] * 3
    assert study.history[0]["gate"]["train_flips"] is None
    assert 0 <= study.history[1]["gate"]["train_flips"] <= 1
    assert "gate" not in studied("ce-s0").history[0]


def names(studies):
    return [row[0].value for row in summary_table(group_by_settings(studies)).rows]


def test_only_seeds_of_one_configuration_are_averaged(folder, studied):
    first, second = (studied(f"fedlas-s{seed}") for seed in (0, 1))
    assert names([first, second]) == ["fedlas-s0", "fedlas-s1", "fedlas x 2"]
    recipe = first.run.recipe
    other = replace(first, run=replace(first.run, recipe=replace(recipe, name="other")))
    assert names([first, other, second]) == [
        "digits fedlas-s0",
        "digits fedlas-s1",
        "digits fedlas x 2",
        "other fedlas-s0",
    ]
    longer = replace(recipe, train=replace(recipe.train, epochs=7))
    elsewhere = replace(second.run, recipe=longer, folder=folder.parent / "long" / "fedlas-s1")
    assert names([first, replace(second, run=elsewhere)]) == ["bench fedlas-s0", "long fedlas-s1"]
    assert names([first, first]) == ["#1 fedlas-s0", "#2 fedlas-s0"]


def test_the_page_keeps_them_apart_too(studied):
    first, second = (studied(f"fedlas-s{seed}") for seed in (0, 1))
    other = replace(
        second, run=replace(second.run, recipe=replace(second.run.recipe, name="other"))
    )
    page = diagnose_page(group_by_settings([first, other]))
    assert re.findall(r'<h2 id="([^"]+)"', page) == ["digits-fedlas-s0", "other-fedlas-s1"]


def test_all_kinds_of_alarm_are_told_once(studied):
    study = studied("fedlas-s0")
    told = [
        "gate stuck on -1 for 3 epochs",
        "gate stuck on -1 for 4 epochs",
        "indicator saturated: 22% of the samples",
    ]
    history = [{"epoch": epoch, "alarms": [alarm]} for epoch, alarm in enumerate(told, start=3)]
    history[1]["alarms"].append(told[2])
    raised = replace(study, history=history)
    expected = [f"2 epochs from 3 to 4: {told[1]}", f"2 epochs from 4 to 5: {told[2]}"]
    assert raised.alarms_by_kind == expected
    page = diagnose_page(group_by_settings([raised]))
    assert [html.unescape(text) for text in re.findall(r"Alarm, ([^<]+)<", page)] == expected


def test_the_page_does_without_images_and_says_why(studied, monkeypatch):
    from fedlas.lab.report import diagnosis as page

    monkeypatch.setattr(
        page, "load_splits_if_available", lambda folder, data: (None, "digits: data must be there")
    )
    text = diagnose_page(group_by_settings([studied("fedlas-s0")]))
    assert "No images: digits: data must be there" in text
    assert 'alt="test image' not in text


def test_images_of_another_test_set_are_not_shown(studied, monkeypatch):
    from fedlas.lab.report import diagnosis as page
    from fedlas.lab.runs import load_splits_if_available

    def other(run, data):
        splits, _ = load_splits_if_available(run, data=data)
        return replace(splits, test=splits.test.take(torch.arange(len(splits.test)).flip(0))), ""

    monkeypatch.setattr(page, "load_splits_if_available", other)
    text = diagnose_page(group_by_settings([studied("ce-s0")]))
    assert "not the one that was predicted" in text
    assert 'alt="test image' not in text
