"""``fedlas evaluate`` of two classes: a few lines on the positive class, and everything with ``--details``."""

import json
from dataclasses import fields

import pytest
import torch

from fedlas import Predictions, binary
from fedlas.cli import main
from fedlas.cli.arguments import parse_decision_rules
from fedlas.cli.main import parse
from fedlas.errors import InputError
from fedlas.present.positive_class import measures_by_stage
from unit.cli.test_commands import evaluate_file


@pytest.fixture(scope="module")
def predictions():
    generator = torch.Generator().manual_seed(0)
    logits = 2 * torch.randn(300, 2, generator=generator)
    return Predictions(
        1.6 * logits, torch.bernoulli(logits.softmax(1)[:, 1], generator=generator).long()
    )


@pytest.fixture(scope="module")
def file(predictions, tmp_path_factory):
    return predictions.save(tmp_path_factory.mktemp("two") / "test.npz")


def rows(text):
    lines = text.split("\n event ")[1].splitlines()[2:]
    return {
        line[:25].strip(): line[25:].split()
        for line in lines
        if line.strip() and "within noise" not in line
    }


def test_the_main_measures(file, predictions, capsys):
    evaluate_file(file, replicates=60)
    text = capsys.readouterr().out
    shown = rows(text)
    found = binary.measures(predictions, replicates=60)
    assert text.startswith("Expects class 1 in ")
    assert list(shown)[:5] == [
        "observed %",
        "expected %",
        "observed / expected → 1",
        "calibration slope → 1",
        "ICI (loess) % ↓",
    ]
    slope = found["slope"]
    ici = found["ici"]
    value, low, high, *p = shown["calibration slope → 1"]
    assert [value, low, high] == [f"{slope.value:.3f}", f"[{slope.low:.3f},", f"{slope.high:.3f}]"]
    assert p[-1] in ("0.0001", f"{slope.p:.2g}", f"{slope.p:.1g}")
    assert shown["ICI (loess) % ↓"][0].strip("~") == f"{100 * ici.value:.2f}"
    assert shown["ICI (loess) % ↓"][3] == f"{100 * ici.floor:.2f}"
    assert max(map(len, text.splitlines())) <= 80


def test_details_show_all_measures_or_top_label(file, capsys):
    evaluate_file(file, replicates=0, details=True)
    text = capsys.readouterr().out
    for name in ("intercept", "observed / expected", "E50 %", "E90 %", "Emax %"):
        assert name in text
    evaluate_file(file, replicates=0, top_label=True)
    assert capsys.readouterr().out.startswith("It claims ")


def test_column_header_shows_confidence_level(file, capsys):
    evaluate_file(file, replicates=60, confidence_level=0.9)
    assert "90 % interval" in capsys.readouterr().out


def test_json_has_them_exactly_and_without_nan(file, predictions, capsys):
    evaluate_file(file, as_json=True, replicates=0)
    content = json.loads(capsys.readouterr().out)
    found = content["positive class"]["as predicted"]
    expected = binary.measures(predictions, replicates=0)
    values = {name: each["value"] for name, each in found.items()}
    assert values == {k: v.value for k, v in expected.items()} | {
        name: content["as predicted"][name] for name in ("nll", "ece")
    }
    assert values["brier"] == pytest.approx(content["as predicted"]["brier"])
    assert found["slope"]["low"] == expected["slope"].low
    assert "low" not in found["ici"]
    assert "joint_p" not in content
    evaluate_file(file, as_json=True, replicates=60)
    joint = json.loads(capsys.readouterr().out)["joint_p"]
    assert joint == {"as predicted": binary.measures(predictions, replicates=60).joint_p}


def test_json_omits_undefined_intervals(tmp_path, capsys):
    # one mistake of a model that is never in doubt
    logits = torch.tensor([[0.0, 1e9], [0.0, -1e9]] * 20)
    evaluate_file(
        Predictions(logits, [1, 0] * 19 + [0, 1]).save(tmp_path / "sure.npz"),
        as_json=True,
        replicates=0,
    )
    text = capsys.readouterr().out
    assert "Infinity" not in text
    assert "low" not in json.loads(text)["positive class"]["as predicted"]["in_the_large"]


def test_other_classes_and_one_outcome_alone(tmp_path, capsys):
    four = Predictions(torch.randn(50, 4), torch.randint(4, (50,))).save(tmp_path / "four.npz")
    evaluate_file(four, replicates=0)
    assert "class 1" not in capsys.readouterr().out
    evaluate_file(four, as_json=True, replicates=0)
    assert "positive class" not in json.loads(capsys.readouterr().out)
    one = Predictions(torch.randn(50, 2), torch.ones(50, dtype=torch.long)).save(
        tmp_path / "one.npz"
    )
    evaluate_file(one, replicates=60)
    assert "and 100.0 % occur" in capsys.readouterr().out


def test_stages_and_page_keep_their_intervals(file, tmp_path, capsys):
    val = Predictions(torch.randn(200, 2), torch.randint(2, (200,))).save(tmp_path / "val.npz")
    evaluate_file(file, method="temperature", on=val, replicates=60, html=tmp_path / "page.html")
    text = capsys.readouterr().out
    # two values, each with both ends of its interval
    assert len(rows(text)["calibration slope → 1"]) == 6
    page = (tmp_path / "page.html").read_text()
    assert page.count("Reliability diagram of class 1") == 2


def test_weights_keep_the_event(predictions):
    weighted = Predictions(
        predictions.tensors().logits,
        predictions.tensors().target,
        weights=1.0 + torch.arange(300) % 2,
    )
    found = measures_by_stage({"as predicted": weighted}, replicates=60, confidence_level=0.95)
    assert (
        found["as predicted"]["slope"].value
        != binary.measures(predictions, replicates=0)["slope"].value
    )
    many = dict.fromkeys("abcd", predictions)
    assert list(measures_by_stage(many, replicates=0, confidence_level=0.95)) == ["a"]


def test_decision_threshold_from_val_counts_on_test(file, predictions, tmp_path, capsys):
    generator = torch.Generator().manual_seed(5)
    logits = 2 * torch.randn(300, 2, generator=generator)
    val = Predictions(
        1.6 * logits, torch.bernoulli(logits.softmax(1)[:, 1], generator=generator).long()
    )
    path = val.save(tmp_path / "val.npz")
    options = {
        "replicates": 0,
        "on": path,
        "method": "temperature",
        "recall": 0.8,
        "cost_ratio": 3,
    }
    evaluate_file(file, as_json=True, **options)
    found = json.loads(capsys.readouterr().out)["decisions"]
    assert list(found) == ["as predicted", "after temperature"]
    rules = binary.Rule(cost_ratio=3), binary.Rule(recall=0.8)
    assert found["as predicted"] == [
        binary.decide(val, predictions, rule).to_dict() for rule in rules
    ]
    evaluate_file(file, html=tmp_path / "page.html", **options)
    text = capsys.readouterr().out
    assert (
        "Decision (a missed event is as bad as 3 false alarms): act from 25.00 % on: "
        in " ".join(text.split())
    )
    wrapped = [line for line in text.splitlines() if not line.startswith(("next:", "report:"))]
    assert max(map(len, wrapped)) <= 80
    assert "Decision curve of class 1" in (tmp_path / "page.html").read_text()
    with pytest.raises(
        InputError,
        match=r"--threshold budget requires held-out predictions; got no --on\. Pass --on",
    ):
        evaluate_file(file, budget=10)


def test_compare_uses_event_probability(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    random = torch.Generator().manual_seed(0)
    log_odds = torch.randn(2000, generator=random) - 2
    happened = torch.bernoulli(log_odds.sigmoid(), generator=random).long()
    for name, factor in (("good", 1.0), ("sharp", 2.0)):
        logits = torch.stack([torch.zeros(2000), factor * log_odds], dim=1)
        Predictions(logits, happened).save(f"{name}.npz")
    words = ["compare", "good.npz", "sharp.npz", "--replicates", "99"]
    assert main(words) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "good.npz is better than sharp.npz in NLL" in said
    assert "ECE of class 1 by" in said
    assert "The event is class 1" in said
    assert main([*words, "--top-label"]) == 0
    said = capsys.readouterr().out
    assert "Accuracy" in said
    assert "class 1" not in said


@pytest.mark.parametrize("rule", ["recall", "recall=", "recall=x", "recal=0.8", "0.8", ""])
def test_threshold_rule_without_name_or_number_is_refused(rule, tmp_path, capsys):
    with pytest.raises(SystemExit):
        main(["evaluate", str(tmp_path / "test.csv"), "--threshold", rule])
    must = "each must be cost-ratio=X, budget=X, recall=X or precision=X, with a number X"
    assert f"argument --threshold: {must}; got {rule!r}" in capsys.readouterr().err


def test_threshold_takes_several_rules_and_the_last_of_a_name():
    words = [
        "evaluate",
        "test.csv",
        "--threshold",
        "recall=0.8",
        "cost-ratio=3",
        "--threshold",
        "recall=0.9",
    ]
    args = parse(words)
    assert parse_decision_rules(args) == {"cost_ratio": 3.0, "recall": 0.9}


def test_card_of_a_run_refuses_thresholds_by_their_option(tmp_path, capsys):
    words = ["card", str(tmp_path), "--threshold", "recall=0", "--top-label"]
    assert main(words) == 2
    assert "--threshold recall and --top-label must come with" in capsys.readouterr().err


def test_threshold_has_every_decision_rule():
    words = [f"{each.name.replace('_', '-')}=1" for each in fields(binary.Rule)]
    given = parse_decision_rules(parse(["evaluate", "test.csv", "--threshold", *words]))
    assert list(given) == [each.name for each in fields(binary.Rule)]
