"""Predictions of language models: logs of lm-evaluation-harness, stated confidences, token log-probabilities."""

import json
import math

import numpy as np
import pytest

import fedlas
from fedlas import Predictions, TopLabel
from fedlas.calibrated import apply_to_files
from fedlas.errors import InputError
from fedlas.predictions import p_true, read_predictions, stated_confidence, token_confidence

CHOICES = [" A", " B", " C"]


def sample(
    number, logliks, target, *, correct=None, subject="law", text=False, choices=CHOICES, **others
):
    """A line as lm-evaluation-harness writes it for multiple choice."""
    requests = {f"gen_args_{n}": {"arg_0": "Q", "arg_1": choices[n]} for n in range(len(logliks))}
    answers = [[str(value), str(value == max(logliks))] for value in logliks]
    target = choices[target].strip() if text else str(target)
    line = {
        "doc_id": number,
        "doc": {"subject": subject, "q": "?"},
        "target": target,
        "arguments": requests,
    }
    line |= {
        "resps": [[each] for each in answers],
        "filtered_resps": answers,
        "filter": "none",
        "metrics": ["acc"],
    }
    return line | ({} if correct is None else {"acc": float(correct)}) | others


def write(tmp_path, samples, name="samples.jsonl"):
    (tmp_path / name).write_text("".join(json.dumps(each) + "\n" for each in samples))
    return tmp_path / name


@pytest.mark.parametrize("text", [False, True])
def test_multiple_choice_has_logits(tmp_path, text):
    rows = [([-1.0, -2.0, -3.0], 0, True), ([-4.0, -1.5, -2.0], 2, False)]
    samples = [sample(n, *row[:2], correct=row[2], text=text) for n, row in enumerate(rows)]
    table = read_predictions(write(tmp_path, samples), groups="subject")
    assert isinstance(table.predictions, Predictions)
    assert table.predictions.logits.tolist() == [row[0] for row in rows]
    assert table.predictions.target.tolist() == [0, 2]
    assert table.groups == ("law", "law")


def test_mixed_choice_counts_are_read_as_confidences(tmp_path):
    several = [
        sample(0, [-1.0, -2.0, -3.0], 0, correct=True),
        sample(1, [-1.0, -3.0], 1, correct=False),
    ]
    renumbered = [
        sample(0, [-1.0, -2.0, -3.0], 1, correct=True),
        sample(1, [-1.0, -2.0, -3.0], 2, correct=False),
    ]
    unnamed = [
        sample(0, [-1.0, -2.0], 0, correct=True) | {"target": "Z"},
        sample(1, [-1.0, -3.0], 1, correct=False),
    ]
    unnamed[1]["target"] = "Z"
    assert read_predictions(write(tmp_path, unnamed)).predictions.correct.tolist() == [True, False]
    for samples in (several, renumbered):
        table = read_predictions(write(tmp_path, samples))
        assert isinstance(table.predictions, TopLabel)
        assert table.predictions.correct.tolist() == [True, False]
        assert table.predictions.tensors().confidence[0] == pytest.approx(
            np.exp(-1) / np.exp([-1, -2, -3]).sum()
        )
    without_outcome = [sample(0, [-1.0, -2.0], 0), sample(1, [-1.0, -2.0, -3.0], 1)]
    assert read_predictions(write(tmp_path, without_outcome)).predictions.correct.tolist() == [
        True,
        False,
    ]


@pytest.mark.parametrize(
    ("target", "best", "correct", "right"),
    [
        (1, 0, None, 1),  # the number of the choice 2
        (1, 0, False, 1),
        ("1", 1, True, 1),  # written as text, it may also be the choice 1, which has the number 2
        ("1", 2, True, 2),
        ("1", 1, False, 2),
        ("1", 2, False, 1),
        ("1", 0, False, None),
        ("0", 3, True, 3),
    ],
)
def test_choices_that_are_numbers_are_not_their_places(tmp_path, target, best, correct, right):
    line = sample(
        0,
        [0.0 if n == best else -2.0 - n for n in range(4)],
        0,
        correct=correct,
        choices=[" 3", " 2", " 1", " 0"],
    )
    predictions = read_predictions(write(tmp_path, [line | {"target": target}])).predictions
    assert (
        predictions.target.tolist() == [right]
        if right is not None
        else isinstance(predictions, TopLabel)
    )
    assert predictions.correct.tolist() == [best == right]


def free(number, answer, right, name="strict-match"):
    line = sample(number, [0.0, 0.0], 0, exact_match=float(right))
    return line | {"resps": [[answer]], "filtered_resps": ["42"], "filter": name}


def test_free_answers_state_their_confidence(tmp_path):
    samples = [
        free(0, "It is 42. Confidence: 90%", True),
        free(1, "7, probability 0.2", False),
        free(2, "It is 42. Confidence: .9. There is a small probability of error.", True),
        free(3, "It is 42.\nConfidence:\n90%", True),
        free(4, "Confidence\uff1a70%", False),
        free(1, "", 1, "flexible"),
    ]
    table = read_predictions(write(tmp_path, samples))
    assert table.predictions.confidence.tolist() == [0.9, 0.2, 0.9, 0.9, 0.7]
    assert table.predictions.correct.tolist() == [True, False, True, True, False]
    assert "'strict-match'" in table.notes[0]


def repeated(number, answers, passed, right):
    return free(number, "", right) | {"resps": [answers], "filtered_resps": [passed]}


@pytest.mark.parametrize(
    ("answers", "passed", "confidence"),
    [
        # the last one counted
        (["It is 42. Confidence: 90%", "It is 7. Confidence: 20%"], "42", 0.9),
        # as where a majority decides
        (["It is 42. Confidence: 90%", "It is 7. Confidence: 20%"], "7", 0.2),
        (["It is 42. Confidence: 90%", "It is 4. Confidence: 20%"], "4", 0.2),  # 4 is a part of 42
        (["It is 42. Confidence: 90%", "It is 7. Confidence: 20%"], "[invalid]", 0.9),
        (
            ["It is 42. Confidence: 90%", "It is 7. Confidence: 20%"],
            "It is 7. Confidence: 20%",
            0.2,
        ),
    ],
)
def test_repeated_answers_use_confidence_of_scored_answer(tmp_path, answers, passed, confidence):
    table = read_predictions(write(tmp_path, [repeated(0, answers, passed, True)]))
    assert table.predictions.confidence.tolist() == [confidence]


def test_free_answers_without_a_confidence_are_counted(tmp_path):
    samples = [
        free(0, "It is 42. Confidence: 90%", True),
        free(1, "I don't know.", False),
        free(2, "42", True),
    ]
    path = write(tmp_path, samples)
    with pytest.raises(
        InputError,
        match=r"none in 2 of 3 answers, 1 of them a refusal .*, in samples.*; first in row 2",
    ):
        read_predictions(path)
    table = read_predictions(path, drop_missing=True)
    assert (table.predictions.confidence.tolist(), table.unread, table.refusals) == ([0.9], 2, 1)


def fitted(tmp_path, samples, method="temperature", **options):
    """The place of a log, and a calibration that was fitted on it."""
    path = write(tmp_path, samples, "samples_t_2026-01-02T03-04-05.678.jsonl")
    return path, fedlas.calibrate(path, method=method, **options)


def applied(fit, path):
    """The lines of a log with calibrated confidences, and what was done."""
    done = apply_to_files(fit, [path], path.with_name("out.jsonl"))
    return path.with_name("out.jsonl").read_text().splitlines(), done


def test_calibrated_confidence_belongs_to_scored_answer(tmp_path):
    random = np.random.default_rng(1)
    target = random.integers(3, size=200)
    scores = random.normal(size=(200, 3)) + np.eye(3)[target]
    scores[:, 0] += 2.0  # the first is chosen too often
    samples = [sample(n, scores[n].tolist(), int(target[n])) for n in range(200)]
    path, fit = fitted(tmp_path, samples, method="vector")
    after, _ = applied(fit, path)
    others = 0
    for line, answer in zip(after, scores.argmax(axis=1), strict=True):
        new = json.loads(line)
        probs = new["calibrated_probs"]
        assert new["calibrated_confidence"] == probs["ABC"[answer]]
        others += new["calibrated_confidence"] < max(probs.values())
    assert others > 20


def test_task_with_wrong_answers_is_calibrated(tmp_path):
    """The first of two choices is no class: a task below chance is not a column of the other class."""
    random = np.random.default_rng(2)
    target = random.integers(2, size=300)
    for name, sign in (("good", 1), ("bad", -1)):
        scores = random.normal(size=(300, 2)) + 2 * sign * np.eye(2)[target]
        samples = [sample(n, scores[n].tolist(), int(target[n])) for n in range(300)]
        write(tmp_path, samples, f"{name}.jsonl")
    fit = fedlas.calibrate(tmp_path / "good.jsonl", method="temperature")
    assert applied(fit, tmp_path / "bad.jsonl")[1].rows == 300


def test_log_of_choices_gets_probabilities_by_name(tmp_path):
    random = np.random.default_rng(0)
    samples = [sample(n, random.normal(size=3).tolist(), n % 2, note="“é”") for n in range(60)]
    path, fit = fitted(tmp_path, samples)
    after, done = applied(fit, path)
    before = path.read_text().splitlines()
    logits = [[float(value) for value, _ in each["filtered_resps"]] for each in samples]
    scaled = Predictions(np.array(fit.apply({"logits": np.array(logits)})["calibrated_logits"]))
    for line, more, probs in zip(before, after, scaled.probs.tolist(), strict=True):
        assert more.startswith(line[:-1])
        new = json.loads(more)
        assert new["calibrated_probs"] == pytest.approx(dict(zip("ABC", probs, strict=True)))
        assert new["calibrated_confidence"] == pytest.approx(max(probs))
    assert done.columns == ("calibrated_confidence", "calibrated_probs")
    again = tmp_path / "again.jsonl"
    with pytest.raises(InputError, match="must not contain calibrated scores already"):
        apply_to_files(fit, [tmp_path / "out.jsonl"], again)
    only = [{"calibrated_probs": {"mine": 1}, **each} for each in samples]
    with pytest.raises(InputError, match="got field 'calibrated_probs' in"):
        apply_to_files(fit, [write(tmp_path, only, "mine.jsonl")], again)
    assert not again.exists()


def test_log_of_free_answers_keeps_unstated_samples(tmp_path):
    samples = []
    for number in range(40):
        text = f"It is Rome. Confidence: {50 + number} %" if number else "It is Rome."
        line = {"doc_id": number, "target": "Rome", "resps": [[text]], "filtered_resps": ["Rome"]}
        samples += [line | {"filter": each, "exact_match": float(number % 3 > 0)} for each in "ab"]
    path, fit = fitted(tmp_path, samples, drop_missing=True)
    after, done = applied(fit, path)
    before = path.read_text().splitlines()
    values = [json.loads(more)["calibrated_confidence"] for more in after]
    assert all(more.startswith(line[:-1]) for line, more in zip(before, after, strict=True))
    assert values[0] is None
    assert set(values[1::2]) == {None}
    assert all(0 < value < 1 for value in values[2::2])
    assert "1 of 40 rows has no score and gets empty calibrated cells: row 1." in done.notes


def test_length_ranges_of_another_log_are_refused(tmp_path):
    samples = [sample(n, [1.0 * (n % 5), 1.0], n % 2) for n in range(60)]
    path, fit = fitted(tmp_path, samples, groups="length")
    with pytest.raises(InputError, match="groups must be a column that all logs share"):
        applied(fit, path)


def test_several_logs_are_grouped_by_their_task(tmp_path):
    random = np.random.default_rng(0)
    for task, choices in (("mmlu_law", 3), ("arc", 4)):
        rows = [
            sample(n, random.normal(size=choices).tolist(), n % 2, choices="ABCD")
            for n in range(40)
        ]
        write(tmp_path, rows, f"samples_{task}_2026-01-02T03-04-05.678.jsonl")
    table = read_predictions(str(tmp_path / "samples_*.jsonl"))
    assert sorted(set(table.groups)) == ["arc", "mmlu_law"]
    assert table.predictions.num_samples == 80
    files = sorted(map(str, tmp_path.glob("samples_*")))
    assert read_predictions(files, groups="subject").groups == ("law",) * 80
    assert "mmlu_law" in fedlas.report(read_predictions(files), replicates=0).text()
    live = {"logits": random.normal(size=(9, 4 if "arc" in files[0] else 3))}
    fit = fedlas.calibrate(files[0])
    assert fit.apply(live)["calibrated_logits"].shape == live["logits"].shape
    with pytest.raises(InputError, match="must match at least one file"):
        read_predictions(tmp_path / "none_*.jsonl")
    (tmp_path / "t.csv").write_text("a\n1\n")
    with pytest.raises(InputError, match="all files of a table must have"):
        read_predictions([tmp_path / "t.csv", write(tmp_path, [{"a": 1}], "t.jsonl")], logits="a")


def test_silent_task_is_left_out_by_its_name(tmp_path):
    """A folder with one generative task ended with an error that blamed another file."""
    random = np.random.default_rng(0)
    choices = [sample(n, random.normal(size=3).tolist(), n % 2) for n in range(30)]
    free = [
        {"doc_id": n, "target": "18", "filtered_resps": ["18"], "resps": [["It is 18"]], "exact_match": n % 2}
        for n in range(20)
    ]  # fmt: skip
    for task, rows in (("arc", choices), ("gsm8k", free), ("mmlu", choices)):
        write(tmp_path, rows, f"samples_{task}.jsonl")
    paths = sorted(map(str, tmp_path.glob("*.jsonl")))
    for more in ({}, {"drop_missing": True}):
        table = read_predictions(paths, **more)
        assert set(table.groups) == {"arc", "mmlu"}
        assert table.predictions.logits.shape == (60, 3)
        (note,) = [note for note in table.notes if "left out" in note]
        assert note == (
            "Task gsm8k is left out: its 20 free answers state no confidence (samples_gsm8k.jsonl)."
        )
    out = tmp_path / "out.jsonl"
    apply_to_files(fedlas.calibrate(paths), paths, out)
    written = [
        json.loads(line).get("calibrated_confidence") for line in out.read_text().splitlines()
    ]
    assert [value is None for value in written] == [False] * 30 + [True] * 20 + [False] * 30
    with pytest.raises(InputError, match="none in 20 of 20 answers"):
        read_predictions(paths[1])


def test_length_and_documents_make_groups(tmp_path):
    rows = [sample(n, [-1.0, -2.0], 0) for n in range(40)]
    for n, row in enumerate(rows):
        row["arguments"]["gen_args_0"]["arg_0"] = "word " * (n + 1)
        row["doc"]["meta"] = {"year": 1990 + n % 2}
    path = write(tmp_path, rows)
    assert sorted(set(read_predictions(path, groups="length").groups)) == [
        "1 to 11 words", "12 to 21 words", "22 to 31 words", "32 to 40 words",
    ]  # fmt: skip
    assert set(read_predictions(path, groups="doc.meta.year").groups) == {"1990", "1991"}
    assert set(read_predictions(path, groups="task").groups) == {"samples"}


@pytest.mark.parametrize(
    ("samples", "columns", "message"),
    [
        ([free(0, "It is 42.", True)], {}, "state a confidence.*row 1"),
        (
            [sample(0, [-1.0, -2.0], 0)],
            {"groups": "subjct"},
            "groups must name a column.*subject",
        ),
        ([sample(0, [-1.0, -2.0], 0), {"doc_id": 1}], {}, "row 2 lacks"),
        (
            [sample(0, [-1.0, -2.0], 0), free(1, "42", True, "none")],
            {},
            "either all multiple choice",
        ),
        (
            [sample(0, [-1.0, -2.0], 0, text=True) | {"target": "Z"}],
            {},
            "have the correct choice in target.*row 1",
        ),
        (
            [sample(0, [-1.0, -2.0], 0, choices="10")],
            {},
            "have the correct choice in target.*row 1",
        ),
        (
            [sample(0, [-1.0, -2.0], 0) | {"target": 2}],
            {},
            "have the correct choice in target.*row 1",
        ),
        ([{"a": 1}], {"format": "lm-eval"}, "row 1 lacks"),
        (
            [sample(0, [-1.0, -2.0], 0)],
            {"format": "lm-eval", "target": "none"},
            "must not be named",
        ),
        ([sample(0, [-1.0, -2.0], 0)], {"weights": "none"}, "weights must name a column"),
        ([sample(0, [-1.0, -2.0], 0)], {"format": "table"}, "scores and labels must be named"),
    ],
)
def test_logs_that_cannot_be_used(tmp_path, samples, columns, message):
    with pytest.raises(InputError, match=message):
        read_predictions(write(tmp_path, samples), **columns)


def test_log_probabilities_become_one_confidence():
    tokens = [[-0.1, -0.3], [-2.0]]
    for reduce, total in (("sum", [-0.4, -2.0]), ("mean", [-0.2, -2.0]), ("min", [-0.3, -2.0])):
        assert token_confidence(tokens, reduce) == pytest.approx(np.exp(total))
    assert p_true([[0.0, 0.0], [-1.0, -1000.0]]) == pytest.approx([0.5, 1.0])
    for call in (
        lambda: token_confidence([[]]), lambda: token_confidence([[0.5]]), lambda: token_confidence(["a"]),
        lambda: token_confidence([[float("nan")]]), lambda: token_confidence(tokens, "max"), lambda: p_true([[0.0]]),
        lambda: p_true("a"), lambda: stated_confidence("85%"),
    ):  # fmt: skip
        with pytest.raises(InputError):
            call()


@pytest.mark.parametrize(
    ("kind", "cells", "confidence"),
    [
        ("words", ["85%", "likely"], [0.85, 0.75]),
        ("mean", [[-0.1, -0.3], [-2.0]], np.exp([-0.2, -2.0])),
        ("p-true", [[0.0, 0.0], [-1.0, -50.0]], [0.5, 1.0]),
    ],
)
@pytest.mark.parametrize("form", ["jsonl", "csv"])
def test_columns_of_words_and_log_probabilities(tmp_path, kind, cells, confidence, form):
    rows = [{"c": cell, "ok": n % 2} for n, cell in enumerate(cells)]
    path = write(tmp_path, rows)
    if form == "csv":
        path = tmp_path / "t.csv"
        path.write_text("c,ok\n" + "".join(f'"{cell}",{n % 2}\n' for n, cell in enumerate(cells)))
    table = read_predictions(path, confidence="c", correct="ok", confidence_as=kind)
    assert table.predictions.confidence.tolist() == pytest.approx(confidence)
    with pytest.raises(InputError, match=r"column 'c'.*row"):
        read_predictions(
            path, confidence="c", correct="ok", confidence_as="sum" if kind == "words" else "words"
        )


def test_a_report_is_made_of_a_log(tmp_path):
    random = np.random.default_rng(0)
    samples = []
    for number in range(60):
        logliks, target = random.normal(0, 3, 3).tolist(), int(random.integers(3))
        right = int(np.argmax(logliks)) == target
        samples.append(
            sample(number, logliks, target, correct=right, subject="law" if number % 2 else "logic")
        )
    path, val = write(tmp_path, samples[:30]), write(tmp_path, samples[30:], "val.jsonl")
    table = read_predictions(path, groups="subject")
    assert "log-likelihoods of the choices" in " ".join(table.notes)
    assert "logic" in fedlas.report(table, replicates=0).text()
    after = fedlas.report(table, on=read_predictions(val), method="temperature", replicates=0)
    assert {*after.measured} == {"as predicted", "after temperature"}


@pytest.mark.parametrize("kind", ["choices", "sizes", "free"])
def test_apply_reads_logs_without_labels(tmp_path, kind):
    """Logs without labels, or with other numbers of choices, were refused or asked for columns that no log has."""
    random = np.random.default_rng(0)
    sizes = [3 + (kind == "sizes" and n % 2) for n in range(60)]
    lines = [
        sample(n, random.normal(size=size).tolist(), n % 3, choices="ABCD")
        for n, size in enumerate(sizes)
    ]
    if kind == "free":
        lines = [free(n, f"42. Confidence: {50 + n % 40}%", n % 3 > 0) for n in range(60)]
    _, fit = fitted(tmp_path, lines)
    measured = fit.before_after(write(tmp_path, lines, "test.jsonl"))
    assert (measured.samples, math.isnan(measured.after.nll)) == (60, kind != "choices")
    # Three choices in every question, no label in any, and one question that was not scored.
    live = lines if kind == "free" else [sample(n, [-1.0, -2.0, -3.0], 0) for n in range(20)]
    live = [
        {key: value for key, value in line.items() if key not in ("target", "exact_match", "acc")}
        for line in live
    ]
    live[3] |= {"resps": [], "filtered_resps": []}
    after, done = applied(fit, write(tmp_path, live, "live.jsonl"))
    values = [json.loads(line)["calibrated_confidence"] for line in after]
    assert values.index(None) == 3
    assert all(0 < value < 1 for place, value in enumerate(values) if place != 3)
    assert f"1 of {len(live)} rows has no score" in " ".join(done.notes)


@pytest.mark.parametrize(
    ("samples", "message"),
    [
        (
            [[-1.0, -2.0], [-1.0, -2.0, -3.0]],
            "as many choices as the questions of the fit; got 2 choices",
        ),
        ([[-1.0], [-2.0]], "log-likelihoods of two or more choices; got neither in row 1"),
        ([[-1.0, -2.0, -3.0], None], "all multiple choice or all free answers; got both"),
    ],
)
def test_apply_refuses_log_of_another_kind(tmp_path, samples, message):
    random = np.random.default_rng(0)
    known = [sample(n, random.normal(size=3).tolist(), n % 3) for n in range(60)]
    _, fit = fitted(tmp_path, known)
    rows = [
        free(n, "Paris", True, "none") if scores is None else sample(n, scores, 0)
        for n, scores in enumerate(samples)
    ]
    path = write(tmp_path, rows, "live.jsonl")
    with pytest.raises(InputError, match=message):
        applied(fit, path)
    assert not (tmp_path / "out.jsonl").exists()
