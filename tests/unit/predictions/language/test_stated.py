"""Phrases in which language models state a confidence: each is read right, or not at all."""

import json

import numpy as np
import pytest

from fedlas.predictions import read_predictions, stated_confidence

RIGHT = {
    # a number alone
    "85%": 0.85, "85 %": 0.85, "85 percent": 0.85, "85 per cent": 0.85, "85pct": 0.85, "0.85": 0.85, ".5": 0.5,
    "0,85": 0.85, "85": 0.85, "1": 1.0, "0": 0.0, "100": 1.0, "100%": 1.0, "0%": 0.0, "99.9%": 0.999, "1.0": 1.0,
    "1e-3": 0.001, "1E-3": 0.001, "5e-1": 0.5, "2.5e-2": 0.025, "about 85%": 0.85, "~85%": 0.85, "(85%)": 0.85,
    "85%.": 0.85, "**85%**": 0.85, "roughly 0.7": 0.7, "maybe 60%": 0.6, "85\uff05": 0.85, "+0.5": 0.5,
    # of another
    "8/10": 0.8, "8 / 10": 0.8, "85/100": 0.85, "4.5/5": 0.9, "1/2": 0.5, "9 of 10": 0.9, "9 out of 10": 0.9,
    "8 (out of 10)": 0.8, "8 [of 10]": 0.8, "1 in 10": 0.1, "9 times out of 10": 0.9, "9 in every 10": 0.9,
    "8 on a scale of 1 to 10": 0.8, "8 on a scale from 0 to 10": 0.8,
    # halves
    "50/50": 0.5, "50-50": 0.5, "fifty-fifty": 0.5, "60/40": 0.6,
    # ranges
    "80-90%": 0.85, "80% to 90%": 0.85, "80%-90%": 0.85, "80 to 90%": 0.85, "0.8-0.9": 0.85, "80\u201390 %": 0.85,
    "Confidence: 80-90": 0.85, "Confidence: between 80 and 90%": 0.85, "Confidence: 0.8 to 0.9": 0.85,
    # announced
    "Paris. Confidence: 85%": 0.85, "Confidence: 85": 0.85, "Confidence = 0.85": 0.85, "Confidence 0.85": 0.85,
    "confidence is 85%": 0.85, "My confidence in this answer is about 85%": 0.85, "Confidence level: 85%": 0.85,
    "Confidence: **85%**": 0.85, "**Confidence:** 0.9.": 0.9, '{"answer": "42", "confidence": 0.85}': 0.85,
    '{"confidence_score": 0.85}': 0.85, "<confidence>0.85</confidence>": 0.85, "Confidence - 0.85": 0.85,
    "Confidence:\n90%": 0.9, "Confidence: .9": 0.9, "Confidence ... .05": 0.05, "Confidence...90%": 0.9,
    "Confidence\uff1a70%": 0.7, "Probability: 0.3": 0.3, "Probability 0.3 that it is 17": 0.3, "Certainty: 90%": 0.9,
    "probability of 0.3": 0.3, "Likelihood: 1 in 10": 0.1, "Confidence: 8 out of 10": 0.8, "Confidence: 9 of 10": 0.9,
    "Confidence: 1e-3": 0.001, "Confidence: 85% (out of 100)": 0.85, "Confidence: 8/10": 0.8, "Confidence: 1": 1.0,
    "Confidence: 0.85 (0.8-0.9): narrow.": 0.85, "Confidence: 85% \u00b1 5%": 0.85, "Confidence: 50/50": 0.5,
    "In 1990, I think. Confidence: 70%": 0.7, "Confidence: low. Probability: 30%": 0.3,
    "Probability 0.3. Confidence: 0.8": 0.8, "Confidence: 80%. The likelihood that I am wrong is low.": 0.8,
    "Confidence: 0.9. There is a small probability of error.": 0.9, "Confidence in 9/11: 80%": 0.8,
    "Confidence that the answer is correct: 85%": 0.85, "The answer is 42. Confidence: 85": 0.85,
    "I will not guess. Confidence: 30%": 0.3, "It is not Rome, confidence: 90%": 0.9,
    "Confidence: high (85%)": 0.85, "Confidence: High - 85%": 0.85, "My confidence is high (about 90%).": 0.9,
    "P(True): 0.8": 0.8, "[85%]": 0.85, "Guess: Paris\nProbability: 0.85": 0.85, "confidence of 85% in this": 0.85,
    # with a scale
    "Confidence (0-100): 85": 0.85, "Confidence [0 to 1]: 0.85": 0.85, "Confidence score (1-10): 8": 0.8,
    "**Confidence (0-100%)**: 85%": 0.85, "Confidence on a scale from 0 to 100: 85": 0.85,
    "Confidence level (out of 100): 85": 0.85, "Confidence (1-5): 4": 0.8, "Confidence (0.0-1.0): 0.85": 0.85,
    # followed by a word
    "I am 90% sure": 0.9, "I'm 90% confident that it is Paris": 0.9, "I'm 8/10 sure": 0.8, "a 30% chance": 0.3,
    "Paris, with 85% confidence": 0.85, "70% likely": 0.7, "with probability 0.7": 0.7, "0.9 probability": 0.9,
    "It is Paris (90% certain).": 0.9,
    # written out, put, of 100, of an item
    "ninety percent": 0.9, "I'm ninety percent sure": 0.9, "Confidence: ninety-five per cent": 0.95,
    "one hundred percent": 1.0, "eighty to ninety percent": 0.85, "ninety-nine %": 0.99, "ten percent": 0.1,
    "80/100": 0.8, "Paris (80/100)": 0.8, "Paris, 80/100.": 0.8, "It's 50-50": 0.5, "I'm about 50/50 on this.": 0.5,
    "conf=0.63": 0.63, "conf: 90%": 0.9, "Rome (conf. 0.8)": 0.8, "I would say 90 percent.": 0.9,
    "I'd say about 75%": 0.75,
    "I'd say 8/10.": 0.8, "8 on a scale of 10": 0.8, "Rome. 8 on a scale of 10.": 0.8, "Rome, 7 out of 10": 0.7,
    "Rome (7 out of 10).": 0.7, "The answer is 12. ~60%": 0.6, "Rome (~ 60 %)": 0.6, "Rome, 80-90%": 0.85,
    "Rome - 80% to 90%.": 0.85,
    "P(correct) = 0.62": 0.62, "Paris. P(correct): 62%": 0.62, "I'd put this at 72%": 0.72,
    "I would put it at about 72%.": 0.72, "I'd rate that at 8/10": 0.8,
    "Confidence (%): 1": 0.01, "Confidence (in percent): 85": 0.85, "Confidence percentage: 7": 0.07,
    "Confidence level (%): 0": 0.0, "Confidence (%): 0.5%": 0.005, "Confidence that 10% is right: 0.9": 0.9,
    "Confidence in (1) is 85%": 0.85, "My confidence in answer (2) is 0.7": 0.7, "(1) is 85%": 0.85,
    "Confidence: (1) is 85%": 0.85, "Confidence: (1)": 1.0,
    "70%\u219280%": 0.75, "Confidence: 70%->80%": 0.75, "Confidence \u2192 80%": 0.8,
    # words
    "very likely": 0.93, "Very likely.": 0.93, "That is unlikely": 0.3, "almost certainly not": 0.07, "likely": 0.75,
    "Probably 1912": 0.75, "probably not": 0.3, "I am certain.": 1.0, "I am certain that it is Paris": 1.0,
    "Confidence: very likely": 0.93, "Confidence: very likely. I see no probability of error.": 0.93,
    "impossible": 0.0, "highly unlikely": 0.07,
}  # fmt: skip
UNCLEAR = [
    # numbers that are no probabilities
    "-0.5", "-50%", "Confidence: -0.5", "\u22120.5", "1,000 %", "1,000", "300%", "Confidence: 300%", "101%", "8/0",
    "11/10", "1.5/1", "10^-3", "10**-3", "1 x 10^-3", "1.2.3", "3 to 1", "9:1", "9:1 odds", "1990-1995", "90%-80%",
    # a unit or scale is missing
    "Confidence: 8", "7", "Confidence: 2.5", "9-11", "80% or 90%",
    # bounds and negations
    "not 90%", "not 90% sure", "I am not 90% sure", "Confidence: not 90%", "less than 10%", "Confidence: > 90%",
    "Confidence: <10%", "Confidence: at least 90%", "more than 90% sure", "Confidence: over 90%", "up to 90% sure",
    "Confidence: at most 20%", "I'm less than 50% confident", "Confidence is below 20%",
    # the probability of something else
    "There is a 20% chance that I am wrong", "probability of error: 5%", "The likelihood that I am wrong is 20%",
    "a 10% chance of error", "Confidence that I am wrong: 20%", "95% confidence interval", "I have confidence in 42",
    "Confidence: high. Answer: 42", "Confidence (0-100)", "Confidence (1-10):", "Confidence: high",
    "The probability is 0.5 or 0.6", "Confidence: 95% CI", "Confidence: None", "Confidence: N/A",
    "I would say 85 years",
    "0.3 nats", "Confidence: 0.3 nats", "Confidence: 2 bits", "Confidence (%): 0.85", "80%\u219270%",
    "one hundred and ten percent sure", "ninety point five percent", "ninety", "Confidence: two hundred percent",
    "I'd put this at 72% of the total", "I would not put this at 72%", "I'd put this at less than 72%",
    # answers, not confidences
    "I would say 85.", "I'd say 20% of them", "I would not say 90%", "Rome, 7 out of 12", "confer 0.9", "configure 3",
    "We saw 7 out of 10", "It rose by 80-90%", "about 7 out of 10 who came",
    "He scored 80/100", "Ten percent of it", "It's a 50-50 split", "It's not 50-50", "I'd put taxes at 20%",
    "It is 42", "9/11 was a Tuesday", "The attacks of 9/11", "on 9/11", "The tax is 20%", "Score 3/4 at half time",
    "Interest rose by 5% to 10%", "In 1990", "$85", "#85", "85th", "24/7", "the 8 of 10 who came", "v0.9",
    "It is 0.85 m",
    # words that say nothing, or the opposite
    "impossible to say", "It is impossible to tell", "impossible to know", "not certain", "I am not certain",
    "It is not unlikely", "Confidence: not very likely", "not very likely", "less likely", "more likely than not",
    "as likely as not", "How likely is it?", "equally likely", "It isn't likely", "likely not", "very likely not",
    "unlikely to be wrong", "very unlikely that this is wrong", "a certain person", "Under certain conditions",
    "certain types of cancer", "uncertain", "It is likely rain and unlikely snow", "I doubt that it is likely",
    "if it is likely", "the likely cause", "hm", "", None, "no idea", "I don't know", "nan", float("nan"), True,
]  # fmt: skip


@pytest.mark.parametrize("phrase", RIGHT)
def test_a_phrase_is_read_right(phrase):
    assert stated_confidence([phrase]).tolist() == pytest.approx([RIGHT[phrase]], abs=1e-12)


@pytest.mark.parametrize("phrase", UNCLEAR, ids=str)
def test_an_unclear_phrase_states_nothing(phrase):
    assert np.isnan(stated_confidence([phrase])).all()


def test_numbers_are_as_good_as_texts():
    assert stated_confidence([0.4, 1e-5, np.float32(0.5), 85, 1]).tolist() == pytest.approx(
        [0.4, 1e-5, 0.5, 0.85, 1.0]
    )


@pytest.mark.parametrize(
    "text",
    ["confidence ", "9/", "likely unlikely ", "confidence 300-", "1,000", "not ", "<", "80% to "],
)
def test_repetitive_text_takes_linear_time(text):
    assert np.isnan(stated_confidence([text * (200_000 // len(text))])).all()


def test_words_may_have_other_probabilities():
    assert stated_confidence(["quite sure", "sure"], {"sure": 0.9, "quite sure": 0.8}).tolist() == [
        0.8,
        0.9,
    ]


@pytest.mark.parametrize(
    ("text", "refuses"),
    [
        ("I don't know.", True), ("I do not know the answer", True), ("Sorry, I cannot answer that", True),
        ("I'm unable to determine this", True), ("I have no idea", True), ("I can\u2019t say", True),
        ("There is not enough information", True), ("As an AI, I ...", True), ("It is impossible to tell", True),
        ("Paris", False), ("I know that it is Paris", False), ("Probably 1912", False), ("", False),
    ],
)  # fmt: skip
def test_refusals(text, refuses, tmp_path):
    row = {"answer": f"{text} Confidence: 30%", "right": 0}
    (tmp_path / "t.jsonl").write_text(json.dumps(row) + "\n")
    options = {"confidence": "answer", "confidence_as": "words", "correct": "right"}
    assert read_predictions(tmp_path / "t.jsonl", **options).refusals == refuses
