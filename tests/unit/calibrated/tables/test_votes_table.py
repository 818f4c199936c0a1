"""Calibrations of votes: fitted to questions, applied to answers."""

import csv
import json

import numpy as np
import pytest

import fedlas
from fedlas.calibrated import TableCalibration
from fedlas.cli import main
from fedlas.errors import InputError
from fedlas.predictions import self_consistency

OPTIONS = {"confidence": "answer", "confidence_as": "vote", "clusters": "q"}


def sampled(questions=200, seed=0, votes=5, first=0):
    draw = np.random.default_rng(seed)
    knows = 0.9 * draw.random(questions) ** 0.5
    right = draw.random((questions, votes)) < knows[:, None]
    wrong = draw.choice([17, 19], (questions, votes), p=[0.8, 0.2])
    answers = np.where(right, 18, wrong).ravel()
    return {
        "q": [f"q{first + n}" for n in np.repeat(np.arange(questions), votes)],
        "answer": [f"The answer is {answer}." for answer in answers],
        "truth": [18] * questions * votes,
    }


@pytest.fixture(scope="module")
def fit():
    return fedlas.calibrate(sampled(), **OPTIONS, target="truth", method="temperature")


def by_hand(table, votes=5):
    """The calibration of one row a question, as self-consistency gives them."""
    answers = np.array(table["answer"]).reshape(-1, votes).tolist()
    counted = self_consistency(answers)
    return {"c": counted.confidence, "ok": counted.matches([18] * len(answers))}


def test_fit_and_application_are_those_of_questions(fit, tmp_path):
    """The rows of a question need not stand together, and labels are not needed."""
    plain = fedlas.calibrate(by_hand(sampled()), confidence="c", correct="ok", method="temperature")
    assert fit.rows == plain.rows == 200
    # An NLL of a confidence alone is NaN, which equals nothing but in its text.
    assert repr(fit.cross_fitted.to_dict()) == repr(plain.cross_fitted.to_dict())
    new = sampled(40, seed=1, first=1000)
    expected = np.repeat(plain.apply({"c": by_hand(new)["c"]})["calibrated_c"], 5)
    order = np.random.default_rng(2).permutation(200)
    live = {name: [new[name][row] for row in order] for name in ("q", "answer")}
    saved = TableCalibration.load(fit.save(tmp_path / "cal.json"))
    for calibration in (fit, saved):
        # the order of answers decides ties alone, and not the share of those who agree
        assert calibration.apply(live)["calibrated_answer"].tolist() == expected[order].tolist()
    assert saved.columns.clusters == "q"


def test_metrics_of_another_table_are_those_of_questions(fit):
    other = sampled(100, seed=3)
    plain = fedlas.calibrate(by_hand(sampled()), confidence="c", correct="ok", method="temperature")
    one, same = fit.before_after(other), plain.before_after(by_hand(other))
    assert repr(one.to_dict()) == repr(same.to_dict())


def test_answer_without_question_gets_no_confidence(fit):
    new = sampled(10, seed=1)
    new["q"][3] = None
    new["answer"][9] = None
    with pytest.warns(fedlas.errors.CalibrationWarning, match="1 of 50 rows has no score"):
        after = fit.apply({"q": new["q"], "answer": new["answer"]})["calibrated_answer"]
    assert np.flatnonzero(np.isnan(after)).tolist() == [3]
    with pytest.raises(InputError, match="a value in column 'q'"):
        fit.apply(new, missing="error")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"q": None}, "must have the columns of the fit.*no 'q'"),
        ({"answer": None}, "no 'answer'"),
        ({"calibrated_answer": [0.5] * 50}, "calibrated column already"),
        ({"q": [str(n) for n in range(50)]}, "several answers per question"),
        ({"q": [], "answer": []}, "at least one row"),
    ],
)
def test_table_without_votes_is_refused(fit, change, message):
    table = {name: value for name, value in (sampled(10) | change).items() if value is not None}
    if not table.get("q", [0]):
        del table["truth"]
    with pytest.raises(InputError, match=message):
        fit.apply(table)


def test_groups_of_questions_are_read_again():
    table, new = sampled(), sampled(40, seed=1)
    for each in (table, new):
        each["topic"] = [["law", "art"][int(name[1:]) % 2] for name in each["q"]]
    fit = fedlas.calibrate(table, **OPTIONS, target="truth", groups="topic")
    del new["truth"]
    assert np.isfinite(fit.apply(new)["calibrated_answer"]).all()
    assert fit.columns.groups == "topic"


def log_samples(path, count, seed):
    draw = np.random.default_rng(seed)
    samples = [
        {
            "doc_id": number,
            "target": "18",
            "resps": [[f"I think so. #### {each}" for each in draw.choice([17, 18], 5)]],
            "filtered_resps": ["18"],
            "filter": "take-first",
            "exact_match": 1.0,
        }
        for number in range(count)
    ]
    path.write_text("".join(json.dumps(sample) + "\n" for sample in samples))
    return path


def test_repeats_of_the_harness_are_calibrated_and_applied(tmp_path):
    val = log_samples(tmp_path / "samples_val.jsonl", 100, 0)
    fit = fedlas.calibrate(val, confidence_as="vote", method="temperature")
    saved = TableCalibration.load(fit.save(tmp_path / "cal.json"))
    new = log_samples(tmp_path / "samples_new.jsonl", 20, 1)
    assert main(["apply", str(tmp_path / "cal.json"), str(new)]) == 0
    lines = (tmp_path / "samples_new.calibrated.jsonl").read_text().splitlines()
    after = [json.loads(line)["calibrated_confidence"] for line in lines]
    shares = fedlas.read_predictions(new, confidence_as="vote").predictions.tensors().confidence
    expected = saved.fitted.transform(fedlas.TopLabel(shares, [True] * 20)).tensors().confidence
    assert after == pytest.approx(expected.tolist(), abs=1e-6)


def test_votes_on_the_command_line(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for name, table in (("val.csv", sampled()), ("new.csv", sampled(10, seed=1))):
        names = ["q", "answer"] + ["truth"] * (name == "val.csv")
        with (tmp_path / name).open("w", newline="") as file:
            rows = zip(*(table[each] for each in names), strict=True)
            csv.writer(file).writerows([names, *rows])
    words = ["--confidence", "answer", "--confidence-as", "vote", "--clusters", "q"]
    fast = ["--method", "temperature"]
    calibrate = ["calibrate", "val.csv", *words, "--target", "truth", *fast]
    assert main([*calibrate, "--out", "cal.json"]) == 0
    assert "200 rows left out of the fit" in capsys.readouterr().out
    assert main(["apply", "cal.json", "new.csv", "--out", "out.csv"]) == 0
    with (tmp_path / "out.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 50
    assert len({(row["q"], row["calibrated_answer"]) for row in rows}) == 10
    assert all(0 < float(row["calibrated_answer"]) <= 1 for row in rows)
