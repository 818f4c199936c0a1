"""Logs of language models' answers as servers write them: paths into JSON, log-probabilities, answers without any."""

import json
import math

import numpy as np
import pytest

import fedlas
from fedlas.errors import InputError
from fedlas.predictions import p_true, read_predictions, token_confidence

TOKENS = [-0.1, -0.3]
CONTENT = [
    {
        "token": "Par",
        "logprob": -0.1,
        "bytes": [80],
        "top_logprobs": [{"token": "Par", "logprob": -0.1}],
    },
    {"token": "is", "logprob": -0.3, "bytes": [105], "top_logprobs": []},
]
CHAT = {
    "choices": [
        {"message": {"content": "Paris"}, "logprobs": {"content": CONTENT, "refusal": None}}
    ]
}
LEGACY = {
    "choices": [{"text": "Paris", "logprobs": {"tokens": ["Par", "is"], "token_logprobs": TOKENS}}]
}
POSITIONS = [
    {
        "464": {"logprob": -0.1, "rank": 1, "decoded_token": "Par"},
        "9": {"logprob": -2.5, "rank": 2},
    },
    {
        "11": {"logprob": -0.05, "rank": 1},
        "12": {"logprob": -0.3, "rank": 2, "decoded_token": "is"},
    },
]
VLLM = {
    "outputs": [
        {"text": "Paris", "token_ids": [464, 12], "cumulative_logprob": -0.4, "logprobs": POSITIONS}
    ]
}
ONE_EACH = [{"464": {"logprob": -0.1, "rank": 1}}, {"12": {"logprob": -0.3, "rank": 2}}]


def write(tmp_path, rows, name="t.jsonl"):
    (tmp_path / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path / name


def read(path, column, form, **columns):
    return read_predictions(path, confidence=column, confidence_as=form, correct="right", **columns)


@pytest.mark.parametrize(
    ("row", "path"),
    [
        (CHAT, "choices.0.logprobs.content"), (CHAT, "choices.0.logprobs"), (CHAT, "choices"),
        (LEGACY, "choices.0.logprobs.token_logprobs"), (LEGACY, "choices.0.logprobs"), (VLLM, "outputs.0"),
        ({"a": {"b.c": TOKENS}}, "a.b.c"), ({"lists": {"tokens": [None, *TOKENS]}}, "lists.tokens"),
        ({"logprobs": ONE_EACH}, "logprobs"), ({"r": {"response": json.dumps(CHAT)}}, "r.response"),
    ],
)  # fmt: skip
def test_logprobs_are_read_as_servers_write_them(tmp_path, row, path):
    file = write(tmp_path, [row | {"right": 1, "meta": {"subject": "law"}}] * 2)
    for form, total in (("sum", -0.4), ("mean", -0.2), ("min", -0.3)):
        table = read(file, path, form, groups="meta.subject")
        assert table.predictions.confidence.tolist() == pytest.approx([math.exp(total)] * 2)
        assert table.groups == ("law", "law")


def test_logprobs_in_python():
    for value in (
        CHAT,
        CHAT["choices"][0],
        LEGACY,
        VLLM,
        CONTENT,
        ONE_EACH,
        TOKENS,
        np.array(TOKENS),
    ):
        assert token_confidence([value], "sum").tolist() == pytest.approx([math.exp(-0.4)])
    with pytest.raises(InputError, match=r"2 tokens without saying which.*token_ids"):
        token_confidence([POSITIONS])
    with pytest.raises(InputError, match=r"at most 0.*answer 1"):
        token_confidence([[{"logprob": 0.4}]])


TOP = [{"token": " True", "logprob": math.log(0.6)}, {"token": "true", "logprob": math.log(0.1)},
       {"token": "False", "logprob": math.log(0.2)}]  # fmt: skip


@pytest.mark.parametrize(
    "value",
    [
        {
            "choices": [
                {"logprobs": {"content": [{"token": "True", "logprob": -0.1, "top_logprobs": TOP}]}}
            ]
        },
        {"top_logprobs": [{" True": math.log(0.6), "true": math.log(0.1), "False": math.log(0.2)}]},
        [math.log(0.7), math.log(0.2)],
    ],
)
def test_p_true_of_the_first_token(tmp_path, value):
    assert p_true([value]).tolist() == pytest.approx([7 / 9])
    file = write(tmp_path, [{"v": value, "right": True}, {"v": value, "right": False}])
    assert read(file, "v", "p-true").predictions.confidence.tolist() == pytest.approx([7 / 9] * 2)


ANSWERS = [
    {"r": {"answer": "Paris. Confidence: 90%"}, "right": 1},
    {"r": {"answer": "I don't know."}, "right": 0},
    {"r": {"answer": "42, surely"}, "right": 1},
    {"r": {"answer": "I don't know. Confidence: 10%"}, "right": 0},
    {"r": {}, "right": 0},
]  # fmt: skip


def test_answers_without_a_confidence_are_counted_and_listed(tmp_path):
    file = write(tmp_path, ANSWERS)
    message = (
        r"3 of 5 answers, 1 of them a refusal .*, in t.jsonl: .*; first in row 2\. .*drop_missing="
    )
    with pytest.raises(InputError, match=f"must state a confidence; got none in {message}"):
        read(file, "r.answer", "words")
    table = read(file, "r.answer", "words", drop_missing=True)
    assert table.predictions.confidence.tolist() == [0.9, 0.1]
    assert table.predictions.correct.tolist() == [True, False]
    assert (table.refusals, table.unread) == (2, 3)
    notes = " ".join(table.notes)
    assert (
        "3 of 5 answers state no readable confidence and were left out: "
        "\"I don't know.\", '42, surely', nothing; first in row 2." in notes
    )
    assert (
        '2 answers are refusals ("I don\'t know"); 1 of them states a confidence and is used.'
        in notes
    )


def test_most_common_unread_phrases_are_listed(tmp_path):
    """Rows of 10,000 answers say nothing about what to read or to ask for; phrases do."""
    ends = (
        ["Pretty sure."] * 4 + ["Rather sure!"] * 3 + ["hm", "so", "it", "is", "that", "hm", None]
    )
    rows = [{"r": end and f"It is {row}. {end}", "right": 1} for row, end in enumerate(ends)]
    rows.append({"r": "It is 1. Confidence: 80%", "right": 1})
    (note, *_) = read(write(tmp_path, rows), "r", "words", drop_missing=True).notes
    listed = (
        "'Pretty sure.' (4), 'Rather sure!' (3), 'hm' (2), 'so', 'it' and 3 more; first in row 1."
    )
    assert note.endswith(
        f"14 of 15 answers state no readable confidence and were left out: {listed}"
    )


def test_all_answers_are_refusals(tmp_path):
    with pytest.raises(InputError, match="got none in 2 of 2 answers, 2 of them refusals"):
        read(write(tmp_path, ANSWERS[1:2] * 2), "r.answer", "words", drop_missing=True)


def test_a_path_that_leads_to_nothing(tmp_path):
    for form, path in (("words", "r.anser"), ("sum", "r.a.0")):
        with pytest.raises(
            InputError, match=r"in 5 of 5 answers.*Check the path, which leads to no value"
        ):
            read(write(tmp_path, ANSWERS), path, form, drop_missing=True)


def test_missing_logprobs_are_counted_and_wrong_ones_named(tmp_path):
    rows = [
        {"v": TOKENS, "right": 1},
        {"v": None, "right": 1},
        {"v": {"content": None, "refusal": []}, "right": 0},
    ]
    table = read(write(tmp_path, rows), "v", "mean", drop_missing=True)
    assert (len(table.predictions.confidence), table.unread) == (1, 2)
    with pytest.raises(InputError, match=r"2 of 3 answers.*first in row 2"):
        read(write(tmp_path, rows), "v", "mean")
    with pytest.raises(InputError, match=r"at most 0; got .*row 2 of t.jsonl"):
        read(write(tmp_path, [rows[0], {"v": [0.9], "right": 1}]), "v", "mean")


@pytest.mark.parametrize(
    ("rows", "columns", "message"),
    [
        ([{"a": {"b": 0.5}, "right": 1}], {"confidence": "a.c"}, "no number in row 1, column 'a.c'"),
        ([{"a": {"b": 0.5}, "right": 1}], {"confidence": "x.c"}, "must name a column of t.jsonl"),
        ([{"a": {"b": 0.5}, "right": 1}], {"confidence": "a"}, r"numbers; got .*row 1.*a\.b"),
        ([CHAT | {"right": 1}], {"confidence": "choices.0.logprobs.content"}, "row 1.*confidence_as="),
        ([{"a": {"b": "x"}, "right": 1}], {"confidence": "a.b"}, r"hold numbers; got 'x' in row 1"),
        ([{"a": {"b": [1, 2]}, "y": 0}, {"a": {"b": [1]}, "y": 0}], {"logits": "a.b", "target": "y"}, "1 in row 2"),
    ],
)  # fmt: skip
def test_paths_that_cannot_be_used(tmp_path, rows, columns, message):
    outcome = {} if "target" in columns else {"correct": "right"}
    with pytest.raises(InputError, match=message):
        read_predictions(write(tmp_path, rows), **columns, **outcome)


def test_paths_to_numbers_and_lists(tmp_path):
    rows = [{"a": {"l": [2.0, 0.5], "w": 2, "y": "u"}}, {"a": {"l": [0.1, 3.0], "w": 1, "y": "v"}}]
    columns = {"logits": "a.l", "target": "a.y", "weights": "a.w", "classes": ("u", "v")}
    predictions = read_predictions(write(tmp_path, rows * 3000), **columns).predictions
    assert predictions.tensors().correct.all()
    assert predictions.weights.tolist() == [2, 1] * 3000


def test_a_log_of_a_server_is_measured(tmp_path):
    file = write(tmp_path, [CHAT | {"right": n % 2} for n in range(20)])
    columns = {"confidence": "choices.0.logprobs.content", "confidence_as": "mean"}
    table = read_predictions(file, **columns, correct="right")
    assert fedlas.evaluate(table)["accuracy"] == 0.5
