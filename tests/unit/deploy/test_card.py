import json
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch

import fedlas
from commands import command
from fedlas.calibrated import CalibratedModel
from fedlas.deploy import Card, fit_calibration, make_card
from fedlas.deploy.build_card import known_limits
from fedlas.errors import InputError
from fedlas.lab.runs.folder import RunFolder
from fedlas.lab.studies.export import run_card
from fedlas.metrics import evaluate
from fedlas.predictions import Predictions
from fedlas.stats.proportion import clopper_pearson

card = partial(command, "card")


def predictions(seed, samples):
    generator = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(samples, 4, generator=generator)
    target = torch.multinomial(logits.softmax(1), 1, generator=generator).squeeze(1)
    return Predictions(2 * logits, target)  # too confident


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """What a finished run leaves, as far as a card needs it."""
    folder = tmp_path_factory.mktemp("runs") / "mine-s0"
    predictions(0, 1500).save(folder / "predictions" / "val.npz")
    predictions(1, 600).save(folder / "predictions" / "test.npz")
    (folder / "config.yaml").write_text(
        "recipe: made\ndata: {name: synthetic, label_noise: 0.2}\nmodel: {name: mlp}\n"
    )
    metrics = {"format": 1, "loss": "ce", "seed": 0, "recipe": "made", "test": {"accuracy": 0.5}}
    (folder / "metrics.json").write_text(json.dumps(metrics))
    np.savez(folder / "splits.npz", train=np.arange(9), val=np.arange(1500), test=np.arange(600))
    return folder


@pytest.fixture(scope="module")
def content(folder):
    val = Predictions.load(folder / "predictions" / "val.npz")
    made = run_card(RunFolder(folder), fit_calibration("temperature", val), replicates=39)
    made.save(folder / "card.json")
    return json.loads((folder / "card.json").read_text())


def calibrated(folder, part):
    val, test = (Predictions.load(folder / "predictions" / f"{name}.npz") for name in ("val", part))
    return fit_calibration("temperature", val).transform(test)


def test_numbers_are_those_of_the_predictions(folder, content):
    test = calibrated(folder, "test")
    values = evaluate(test)
    assert content["metrics"]["calibrated"].keys() == values.keys()
    for name in content["metrics"]["calibrated"]:
        value = values[name]
        assert content["metrics"]["calibrated"][name]["value"] == pytest.approx(value, abs=1e-12), (
            name
        )
    ece = content["metrics"]["calibrated"]["ece"]
    assert ece["low"] <= ece["value"] <= ece["high"]
    assert 0 < ece["p"] <= 1
    assert ece["floor"] > 0
    assert content["metrics"]["as predicted"]["ece"]["p"] < 0.05 < ece["p"]
    assert content["calibration"]["temperature"] == pytest.approx(2, rel=0.2)
    assert content["data"]["samples"] == {"train": 9, "val": 1500, "test": 600}
    assert 0 < content["width"]["mean"] < content["width"]["quantile_95"] < 1


def test_thresholds_are_counted_on_both_parts(folder, content):
    rows = {row["risk"]: row for row in content["selective"]["thresholds"]}
    assert rows[0.1]["threshold"] is not None
    for part in ("val", "test"):
        chosen = calibrated(folder, part)
        accepted = chosen.tensors().confidence.double() >= rows[0.1]["threshold"]
        assert rows[0.1][part]["accepted"] == int(accepted.sum())
        assert rows[0.1][part]["wrong"] == int((accepted & ~chosen.tensors().correct).sum())
    test = rows[0.1]["test"]
    assert test["upper"] == clopper_pearson(test["wrong"], test["accepted"], sides=1)[1]
    assert rows[0.005]["threshold"] is None or rows[0.005]["threshold"] > rows[0.1]["threshold"]


def test_reused_validation_samples_give_an_approximate_guarantee(folder, content):
    assert "the 95% guarantee is approximate" in content["selective"]["method"]
    assert any("the calibration as well as the thresholds" in each for each in content["limits"])
    val, test = predictions(0, 400), predictions(1, 400)
    plain = {"model": {"run": "m"}, "data": {"name": "d"}, "risks": [0.1]}
    for calibration in (
        fit_calibration("none", val),
        replace(fit_calibration("temperature", val), fitted_on="another part"),
    ):
        card = make_card(val, test, calibration, **plain)
        assert "each row holds with probability 95%" in card.selective["method"]
        assert any("samples chose the thresholds" in each for each in card.limits)


def test_a_card_comes_back_for_the_monitor(folder, content):
    card = Card.read(folder / "card.json")
    test = calibrated(folder, "test")
    assert (card.name, card.num_classes, card.classes) == ("mine-s0", 4, ())
    assert card.gaps.count[0] == card.bin_counts.sum() == 600
    assert card.gaps.right[0] == int(test.tensors().correct.sum())
    assert card.gaps.confidence[0] == pytest.approx(float(test.tensors().confidence.double().sum()))
    val = Predictions.load(folder / "predictions" / "val.npz")
    torch.testing.assert_close(
        card.calibration(val.tensors().logits), calibrated(folder, "val").tensors().logits
    )


def test_a_card_needs_predictions_alone(tmp_path):
    val, test = predictions(0, 400), predictions(1, 300)
    calibration = fit_calibration("vector", val)
    made = make_card(
        val, test, calibration, model={"run": "mine"}, data={"name": "own"}, risks=[0.2]
    )
    card = Card.read(made.save(tmp_path / "card.json"))
    assert card.to_dict() == made.to_dict()
    assert (card.name, card.num_classes, card.gaps.count[0]) == ("mine", 4, 300)
    assert made.metrics["calibrated"]["ece"] == {
        "value": evaluate(calibration.transform(test))["ece"]
    }
    assert "300 test samples of own" in made.limits[0]


def test_a_card_refuses_weights():
    val, test = predictions(0, 400), predictions(1, 300)
    calibration, weighted = fit_calibration("vector", val), replace(test, weights=torch.ones(300))
    with pytest.raises(InputError, match="no weights"):
        make_card(val, weighted, calibration, model={"run": "mine"}, data={"name": "own"})


def test_limits_say_what_is_known(content):
    limits = " ".join(content["limits"])
    assert "600 test samples of synthetic" in limits
    assert "Label noise was added" in limits
    assert "is not distinguishable from that of a perfectly calibrated model" in limits
    worse = json.loads(json.dumps(content))
    worse["metrics"]["calibrated"]["ece"] |= {"p": 0.001, "least_p": 0.001}
    worse["selective"]["thresholds"][-1]["test"]["risk"] = 0.2
    worse["data"]["settings"] = {}
    known = Card.from_dict(worse)
    doubtful = replace(known, calibration=replace(known.calibration, notes=("A doubt.",)))
    said = " ".join(known_limits(doubtful, [1990, 10, 0, 0]))
    for part in (
        "3 of 4 classes have fewer than 30",
        "is more than chance",
        "(p ≤ 0.001). Confidences",
        "has a risk of 20.00 % on the test part",
        "A doubt.",
    ):
        assert part in said, part
    assert "on purpose" not in said


def test_page_is_self_contained_and_shows_the_numbers(folder, content):
    page = (folder / "card.html").read_text()
    assert f"{100 * content['metrics']['calibrated']['accuracy']['value']:.2f}" in page
    assert f"{content['selective']['thresholds'][-1]['threshold']:.4f}" in page
    assert page.count("<svg") == 2
    assert "http://" not in page.replace("http://www.w3.org", "")
    assert "<script" not in page


def test_the_verb(folder, tmp_path, capsys):
    assert card(folder, out=tmp_path / "c.json", method="vector", risks=[0.2], replicates=0) == 0
    said = capsys.readouterr().out
    assert "Target risk %" in said
    assert "Calibration: vector, fitted on the validation part" in said
    assert (tmp_path / "c.html").is_file()
    again = Card.read(tmp_path / "c.json")
    assert again.calibration.method == "vector"
    for options, message in (
        ({"out": tmp_path / "c.html"}, "must end in .json"),
        ({"risks": [2.0]}, "risk must be"),
        ({"replicates": 3}, "replicates"),
    ):
        with pytest.raises(InputError, match=message):
            card(folder, **{"out": tmp_path / "d.json", "replicates": 0, **options})
    assert not (tmp_path / "d.json").exists()
    with pytest.raises(InputError, match="must exist"):
        card(tmp_path, replicates=0)
    for text in ("no json", "[]", '{"format": "fedlas.card/1"}', '{"format": "fedlas.card/2"}'):
        (tmp_path / "bad.json").write_text(text)
        with pytest.raises(InputError, match="the card must"):
            Card.read(tmp_path / "bad.json")


def test_of_two_files(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    val, test = predictions(0, 1500), predictions(1, 600)
    val.save("val.npz")
    test.save("test.npz")
    with pytest.raises(InputError, match=r"two prediction files.*got file .*val.npz"):
        card(tmp_path / "val.npz")
    assert card(tmp_path / "val.npz", tmp_path / "test.npz", replicates=0, details=True) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert said.index("is right in") < said.index("What may be accepted")
    assert "For an error rate of " in said
    assert "test: test.npz: 4 classes; 1,500 val, 600 test samples." in said
    assert (
        "chose the calibration as well as the thresholds, so that the bound on their risk is approximate."
        in said
    )
    assert "training run" not in said
    content = json.loads((tmp_path / "test.card.json").read_text())
    wanted = evaluate(fit_calibration("auto", val).transform(test))
    assert content["metrics"]["calibrated"]["ece"]["value"] == pytest.approx(
        wanted["ece"], abs=1e-12
    )
    assert Card.read(tmp_path / "test.card.json").calibration.method == "auto"
    assert (
        "test.npz: 4 classes; 1,500 val, 600 test samples."
        in (tmp_path / "test.card.html").read_text()
    )


def test_of_a_saved_model_and_two_files(tmp_path, capsys):
    val, test = predictions(0, 1500), predictions(1, 600)
    places = [val.save(tmp_path / "val.npz"), test.save(tmp_path / "test.npz")]
    other = fit_calibration("vector", predictions(2, 900)).calibrator
    saved = CalibratedModel(torch.nn.Identity(), other).save(tmp_path / "mine.safetensors")
    assert card(saved, *places, replicates=0, out=tmp_path / "c.json") == 0
    assert "Calibration: vector, fitted on other data, see mine" in " ".join(
        capsys.readouterr().out.split()
    )
    content = json.loads((tmp_path / "c.json").read_text())
    wanted = evaluate(other.transform(test))
    assert content["model"]["run"] == "mine"
    assert any(
        "validation samples chose the thresholds. The test part" in limit
        for limit in content["limits"]
    )
    assert content["metrics"]["calibrated"]["nll"]["value"] == pytest.approx(
        wanted["nll"], abs=1e-12
    )
    logits = torch.randn(5, 4)
    torch.testing.assert_close(
        Card.read(tmp_path / "c.json").calibration(logits), other.module()(logits)
    )
    for wrong, options, message in (
        (places[:1] * 4, {}, "two prediction files"),
        ([saved, *places], {"method": "vector"}, "contains its calibration"),
        ([places[0], *places], {}, "written by CalibratedModel.save"),
        ([places[0], tmp_path], {}, "got file .*, folder"),
        (
            [places[0], Predictions(torch.randn(9, 3), [0] * 9).save(tmp_path / "three.npz")],
            {},
            "the same number of classes",
        ),
    ):
        with pytest.raises(InputError, match=message):
            card(*wrong, out=tmp_path / "no.json", replicates=0, **options)
    assert not (tmp_path / "no.json").exists()


def test_binary_card_states_decision_thresholds(tmp_path):
    """At 3 % prevalence every prediction is 'no', so that all could be accepted: that says nothing."""

    def rare(seed):
        generator = torch.Generator().manual_seed(seed)
        log_odds = 1.2 * torch.randn(3000, generator=generator) - 4
        happened = torch.bernoulli(log_odds.sigmoid(), generator=generator).long()
        return Predictions(torch.stack([torch.zeros(3000), log_odds], dim=1), happened)

    val, test = rare(0), rare(1)
    rules = {"cost_ratio": 9, "recall": 0.8}
    card = fedlas.card(
        val, test, "temperature", replicates=0, name="churn", title="Churn <1>", **rules
    )
    event = card.card.event
    assert [row["rule"] for row in event["decisions"]] == ["cost_ratio", "recall"]
    assert event["decisions"][0]["threshold"] == 0.1
    assert (
        event["measures"]["calibrated"]["observed"]["value"]
        == test.tensors().target.double().mean()
    )
    text = card.text()
    assert text.startswith("Expects class 1 in ")
    assert "accept all" not in text
    assert "events found" in text
    card.save(tmp_path / "churn.json")
    page = (tmp_path / "churn.html").read_text()
    assert "<h1>Churn &lt;1&gt;</h1>" in page
    assert page.index("Expects class 1 in ") < page.index("Decision thresholds")
    assert list(card.to_frame()["rule"]) == ["cost_ratio", "recall"]
    usual = fedlas.card(val, test, "none", replicates=0).card.event["decisions"]
    assert [(row["rule"], row["value"]) for row in usual] == [
        ("recall", 0.5),
        ("recall", 0.8),
        ("recall", 0.9),
    ]
    other = fedlas.card(val, test, "none", replicates=0, top_label=True)
    assert other.card.event is None
    assert "What may be accepted" in other.text()
    with pytest.raises(InputError, match="requires an event of two classes"):
        fedlas.card(val, test, "none", replicates=0, top_label=True, recall=0.8)
