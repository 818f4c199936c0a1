"""``fedlas evaluate`` of two classes: a few lines on the positive class, and everything with ``--details``."""

import json

import pytest
import torch

from fedlas import Predictions, binary
from fedlas.present.positive_class import measures_by_stage
from unit.cli.test_commands import evaluate_file


@pytest.fixture(scope="module")
def predictions():
    generator = torch.Generator().manual_seed(0)
    logits = 2 * torch.randn(300, 2, generator=generator)
    return Predictions(1.6 * logits, torch.bernoulli(logits.softmax(1)[:, 1], generator=generator).long())


@pytest.fixture(scope="module")
def file(predictions, tmp_path_factory):
    return predictions.save(tmp_path_factory.mktemp("two") / "test.npz")


def rows(text):
    return {line[:25].strip(): line[25:].split() for line in text.split("Probability of class 1")[1].splitlines()}


def test_the_main_measures(file, predictions, capsys):
    evaluate_file(file, replicates=60)
    text = capsys.readouterr().out
    shown, found = rows(text), binary.measures(predictions, replicates=60)
    assert [name for name in shown if name and "─" not in name and name != "positive class"] == [
        "calibration slope", "calibration in the large", "ICI %", "Brier skill",
    ]  # fmt: skip
    slope, ici = found["slope"], found["ici"]
    assert shown["calibration slope"] == [
        f"{slope.value:.3f}", f"[{slope.low:.3f},", f"{slope.high:.3f}]", "1",
    ]  # fmt: skip
    assert shown["ICI %"][0] == f"{100 * ici.value:.2f}"
    assert shown["ICI %"][3:] == ["floor", f"{100 * ici.floor:.2f}"]
    assert max(map(len, text.splitlines())) <= 80


def test_details_have_every_measure(file, capsys):
    evaluate_file(file, replicates=0, details=True)
    text = capsys.readouterr().out
    for name in ("calibration intercept", "observed / expected", "E50 %", "E90 %"):
        assert name in text


def test_json_has_them_exactly_and_without_nan(file, predictions, capsys):
    evaluate_file(file, as_json=True, replicates=0)
    found = json.loads(capsys.readouterr().out)["positive class"]["as predicted"]
    expected = binary.measures(predictions, replicates=0)
    assert {name: values["value"] for name, values in found.items()} == {k: v.value for k, v in expected.items()}
    assert found["slope"]["low"] == expected["slope"].low
    assert "low" not in found["ici"]


def test_an_interval_without_ends_is_left_out_of_json(tmp_path, capsys):
    logits = torch.tensor([[0.0, 1e9], [0.0, -1e9]] * 20)  # one mistake of a model that is never in doubt
    evaluate_file(Predictions(logits, [1, 0] * 19 + [0, 1]).save(tmp_path / "sure.npz"), as_json=True, replicates=0)
    text = capsys.readouterr().out
    assert "Infinity" not in text
    assert "low" not in json.loads(text)["positive class"]["as predicted"]["in_the_large"]


def test_other_classes_and_one_outcome_alone_have_none(tmp_path, capsys):
    for name, p in (
        ("four", Predictions(torch.randn(50, 4), torch.randint(4, (50,)))),
        ("one", Predictions(torch.randn(50, 2), torch.ones(50, dtype=torch.long))),
    ):
        evaluate_file(p.save(tmp_path / f"{name}.npz"), replicates=0)
        assert "class 1" not in capsys.readouterr().out
        evaluate_file(tmp_path / f"{name}.npz", as_json=True, replicates=0)
        assert "positive class" not in json.loads(capsys.readouterr().out)


def test_stages_and_page(file, tmp_path, capsys):
    val = Predictions(torch.randn(200, 2), torch.randint(2, (200,))).save(tmp_path / "val.npz")
    evaluate_file(file, calibrate="temperature", on=val, replicates=0, html=tmp_path / "page.html")
    assert len(rows(capsys.readouterr().out)["calibration slope"]) == 2
    page = (tmp_path / "page.html").read_text()
    assert "The positive class" in page
    assert page.count("Reliability diagram of class 1") == 2


def test_weighted_predictions_have_none(predictions):
    weighted = Predictions(predictions.logits, predictions.target)
    object.__setattr__(weighted, "weights", torch.ones(300))
    assert measures_by_stage({"as predicted": weighted}, replicates=0) == {}
    assert list(measures_by_stage({"as predicted": predictions}, replicates=0)) == ["as predicted"]
    many = dict.fromkeys("abcd", predictions)
    assert list(measures_by_stage(many, replicates=0)) == ["a"]
