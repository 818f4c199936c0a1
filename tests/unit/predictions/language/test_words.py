"""Words of confidence: given by the user, or phrases that a fit can learn."""

import json
import math

import pytest

from fedlas.errors import InputError
from fedlas.predictions import Columns, read_predictions, stated_confidence, stated_phrase

LEVELS = "high=.9,medium=.7,low=.4"
OPTIONS = {"confidence": "said", "confidence_as": "words", "correct": "right"}


def table_of(*answers):
    return {"said": list(answers), "right": [n % 2 for n in range(len(answers))]}


@pytest.mark.parametrize(
    "words", [LEVELS, ["high=.9", "medium=70%, low=.4"], {"High": 0.9, "medium": 0.7, "low": 0.4}]
)
def test_given_words_join_those_of_the_table(words):
    answers = ["Paris. Confidence: High", "medium", "Confidence: low.", "very likely", "85 %"]
    table = read_predictions(table_of(*answers), **OPTIONS, words=words)
    assert table.predictions.confidence.tolist() == pytest.approx([0.9, 0.7, 0.4, 0.93, 0.85])


def test_a_given_word_replaces_that_of_the_table():
    table = read_predictions(table_of("likely", "unlikely"), **OPTIONS, words="likely=.6")
    assert table.predictions.confidence.tolist() == pytest.approx([0.6, 0.3])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("high=2", "probabilities from 0 to 1; got 2.0 for 'high'"), ("high=-.1", "from 0 to 1"),
        ("high", "a probability as WORD=X; got 'high'"), ("high=", "from 0 to 1; got ''"),
        ("high=nan", "from 0 to 1"), ("high=x", "got 'x' for 'high'"), ("high=.9,HIGH=.8", "'high' twice"),
        ("", "as WORD=X"), ("=.5", "1 to 100 characters"), (" =.5", "1 to 100 characters"), (",", "as WORD=X"),
        (f"{'a' * 101}=.5", "1 to 100 characters"), ({"high": True}, "from 0 to 1"), ({3: 0.5}, "1 to 100 characters"),
        ({f"w{n}": 0.5 for n in range(257)}, "at most 256 words"), (5, "must be text"), ([3], "must be text"),
    ],
)  # fmt: skip
def test_words_without_a_probability_are_refused(words, message):
    with pytest.raises(InputError, match=message):
        Columns(**OPTIONS, words=words)


@pytest.mark.parametrize(
    "more",
    [{"confidence": "c"}, {"probs": "a,b"}, {"confidence": "c", "confidence_as": "mean"}],
)
def test_words_require_that_words_are_read(more):
    with pytest.raises(InputError, match=r"words (requires|does not apply)"):
        Columns(**more, words=LEVELS)


@pytest.mark.parametrize("word", ["(a+)+", ".*", "c++", "[low", "a|b", "\\d", "so $o", "^"])
def test_characters_of_patterns_are_taken_literally(word):
    answers = [f"Confidence: {word}", "Confidence: aaab", "Confidence: c", "low"]
    stated = stated_confidence(answers, {word: 0.25})
    assert stated[0] == 0.25
    assert all(map(math.isnan, stated[1:]))


def test_letters_that_no_case_maps_are_no_word():
    """ "almo\u017ft certain" was a KeyError: a pattern without regard to case takes the long s for an s."""
    assert math.isnan(stated_confidence(["almo\u017ft certain"])[0])
    assert stated_confidence(["Almost CERTAIN"]).tolist() == [0.93]


PHRASES = {
    "Paris. Confidence: High": "high", "**Confidence:** Medium-high.": "medium-high", "**Confidence**: Low": "low",
    "<confidence>high</confidence>": "high", '{"answer": "4", "confidence": "very high"}': "very high",
    "Confidence in my answer: low": "low", "My confidence is high.": "high", "confidence is low because I guess": "low",
    "Confidence: high - I remember": "high", "Confidence - low": "low", "Paris (high confidence)": "high",
    "with very high confidence": "very high", "Confidence:\nHigh": "high", "Confidence: low to medium": "low to medium",
    "Certainty: hoch": "hoch", "high": "high", "**Medium**": "medium", "fairly certain": "fairly certain",
    "Confidence: low. I see no probability of error.": "low",
}  # fmt: skip
NO_PHRASES = ("I have no confidence", "Confidence: N/A", "Confidence: none", "Confidence: 8", "Confidence: not 90%",
              "42", "The tower is high", "", "I don't know", None, 0.5, "I have confidence in 42", "no")  # fmt: skip


@pytest.mark.parametrize("text", PHRASES)
def test_phrase_states_the_confidence(text):
    assert stated_phrase(text) == PHRASES[text]


@pytest.mark.parametrize("text", NO_PHRASES, ids=str)
def test_no_phrase_states_a_confidence(text):
    assert stated_phrase(text) == ""


def test_unread_words_name_both_remedies():
    answers = ["Confidence: high"] * 3 + ["Confidence: low"] * 2
    with pytest.raises(
        InputError, match=r"high' \(3\).*words='high=X,low=X'; let fedlas calibrate learn it"
    ):
        read_predictions(table_of(*answers), **OPTIONS)
    notes = read_predictions(table_of(*answers, "80 %"), **OPTIONS, drop_missing=True).notes
    assert "`words` (high=X,low=X) gives words a probability" in " ".join(notes)


def test_a_log_of_the_harness_takes_words(tmp_path):
    samples = [
        {"doc_id": n, "target": "4", "filtered_resps": [f"4. Confidence: {word}"], "filter": "none", "exact_match": 1.0}
        for n, word in enumerate(("high", "low"))
    ]  # fmt: skip
    path = tmp_path / "samples_sums.jsonl"
    path.write_text("".join(json.dumps(sample) + "\n" for sample in samples))
    table = read_predictions(path, confidence_as="words", words=LEVELS)
    assert table.predictions.confidence.tolist() == pytest.approx([0.9, 0.4])


def test_words_of_an_empty_mapping_are_none():
    assert stated_confidence(["likely"], {}).tolist() == [0.75]
