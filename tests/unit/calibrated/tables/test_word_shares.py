"""Words that no table has: a fit learns the share of correct answers of each, drawn toward their mean."""

import json

import numpy as np
import pytest

import fedlas
from fedlas.calibrated import TableCalibration
from fedlas.cli import main
from fedlas.errors import CalibrationWarning, InputError

SHARES = {"high": 0.85, "medium": 0.6, "low": 0.3}
OPTIONS = {"confidence": "said", "confidence_as": "words", "correct": "right"}


def words_table(rows=600, seed=0, shares=SHARES):
    draw = np.random.default_rng(seed)
    words = draw.choice([*shares], rows)
    right = draw.random(rows) < np.array([shares[word] for word in words])
    said = [f"Answer {n}. Confidence: {word}" for n, word in enumerate(words)]
    return {"said": said, "right": right.astype(int), "word": words}


def test_share_of_correct_answers_is_learned_and_applied(tmp_path):
    table = words_table()
    fit = fedlas.calibrate(table, **OPTIONS, method="temperature")
    for word, share in fit.words.items():
        own = table["right"][table["word"] == word].mean()
        assert abs(share - own) < 0.02, word
        assert abs(share - table["right"].mean()) < abs(own - table["right"].mean())
    saved = TableCalibration.load(fit.save(tmp_path / "cal.json"))
    assert saved.words == fit.words
    live = {"said": ["Confidence: low", "Confidence: superb", "low", "It is 300 m high.", "90 %"]}
    with pytest.warns(CalibrationWarning, match="2 of 5 rows have no score"):
        after = saved.apply(live)["calibrated_said"]
    assert np.isnan(after[[1, 3]]).all()
    assert after[0] == after[2] < after[4]


def test_numbers_and_known_words_are_not_learned():
    table = words_table(rows=300)
    table["said"][:100] = ["Confidence: 80 %"] * 50 + ["very likely"] * 50
    fit = fedlas.calibrate(table, **OPTIONS, words="low=.2", method="temperature")
    assert sorted(fit.words) == ["high", "medium"]
    assert fit.columns.words == "low=.2"


def test_rare_words_state_nothing():
    table = words_table(rows=100)
    table["said"][:4] = ["Confidence: superb"] * 4
    with pytest.raises(InputError, match=r"in 4 of 100 answers.*words='superb=X'; remove"):
        fedlas.calibrate(table, **OPTIONS)
    fit = fedlas.calibrate(table, **OPTIONS, drop_missing=True, method="temperature")
    assert sorted(fit.words) == ["high", "low", "medium"]
    assert fit.rows == 96


def test_rows_of_weight_zero_teach_no_word():
    table = words_table(rows=90)
    table["w"] = np.ones(90)
    table["said"] += ["Confidence: superb"] * 10
    table["right"] = np.append(table["right"], np.ones(10, int))
    table["w"] = np.append(table["w"], np.zeros(10))
    del table["word"]
    fit = fedlas.calibrate(table, **OPTIONS, weights="w", method="temperature")
    assert sorted(fit.words) == ["high", "low", "medium"]


@pytest.mark.parametrize("words", [5, {"high": 2}, {"": 0.5}, {"high": "x"}, ["high"]])
def test_damaged_words_of_a_file_are_refused(words, tmp_path):
    fit = fedlas.calibrate(words_table(rows=60), **OPTIONS, method="temperature")
    content = fit.to_dict() | {"words": words}
    (tmp_path / "cal.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match="calibration of a table"):
        TableCalibration.load(tmp_path / "cal.json")


def test_words_on_the_command_line(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    table = words_table(rows=200)
    lines = [f"{said},{right}" for said, right in zip(table["said"], table["right"], strict=True)]
    (tmp_path / "a.csv").write_text("\n".join(["said,right", *lines]) + "\n")
    options = ["--confidence", "said", "--confidence-as", "words", "--correct", "right"]
    levels = ["--words", "high=.9,medium=.7", "--words", "low=.4"]
    assert main(["evaluate", "a.csv", *options]) == 2
    assert "by --words" in " ".join(capsys.readouterr().err.split())
    assert main(["evaluate", "a.csv", *options, *levels, "--replicates", "0"]) == 0
    assert main(["compare", "a.csv", *options, *levels, "--against", "said"]) == 0
    fast = ["--method", "temperature"]
    assert main(["calibrate", "a.csv", *options, *levels, *fast, "--out", "said.json"]) == 0
    assert main(["apply", "said.json", "a.csv", "--out", "b.csv"]) == 0  # nothing said again
    assert main(["calibrate", "a.csv", *options, *fast, "--out", "cal.json"]) == 0
    assert "Words were learned" in capsys.readouterr().err
    assert main(["apply", "cal.json", "a.csv", "--out", "c.csv"]) == 0
    assert main(["evaluate", "a.csv", *options, "--words", "high=2"]) == 2
    assert "--words must hold probabilities" in " ".join(capsys.readouterr().err.split())
    (tmp_path / "d.csv").write_text("\n".join(["said,right", *lines[:150]]) + "\n")
    card = ["card", "d.csv", "a.csv", *options, *levels, *fast, "--replicates", "0"]
    assert main([*card, "--out", "m.json"]) == 0
    assert main(["monitor", "m.json", "a.csv", *options, *levels]) in (0, 3)
