"""Phrases that state a confidence without a number or a known word: "Confidence: high", "low confidence", "medium"."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedlas.predictions.language.stated import LABEL, PLAIN, WORDS, is_refusal, stated_confidence
from fedlas.predictions.tables.words import Words, parse_words

FEWEST_ROWS = 5
"""Rows of a fit that must state a phrase, so that it is learned."""
_MOST_PHRASES = 256
_WINDOW = 80
"""Characters about a label in which its phrase is looked for."""
_WORD = r"[^\W\d_]++(?:['/-][^\W\d_]++)*+"
_TIE = re.compile(
    r"(?:[\s_*]*+(?:level|score|rating|estimate)\b)?"
    r"(?:\s++(?:in|of|for)\s++(?:\w++\s++){0,2}(?:answer|response|prediction)\b)?"
    r"[ \t_*\"')]*+(?:[:=>\n]|->?(?=\s)|\bis\b|\bwas\b)[\s_*\"'(]*+"
)
"""Between a label and its phrase."""
_PHRASE = re.compile(
    rf"(?P<phrase>{_WORD}(?:\s{_WORD}){{0,3}}?)"
    r"(?=\s*+(?:$|[^\w\s%'/-])|\s++(?:[-(]|because|since|as|given|that|but|due|based|about|in|on|for|of|and)\b|\s++[-(]|\n)"
)
_BEFORE = re.compile(
    rf"(?<![\w'/-])(?P<phrase>(?:(?:very|quite|fairly|rather|pretty|extremely|relatively|moderately|somewhat)\s)?{_WORD})"
    r"[ *_]{1,4}$"
)
_ONLY_LETTERS = re.compile(_WORD)
_NO_STATEMENT = frozenset([
    "a", "an", "and", "any", "at", "have", "in", "is", "my", "n", "n/a", "na", "nan", "no",
    "none", "null", "of", "or", "our", "some", "that", "the", "their", "this", "true", "false", "with", "your",
])  # fmt: skip
"""Words before or behind a label that say nothing of how high the confidence is."""


def stated_phrase(answer: object) -> str:
    """Return the phrase in which an answer states its confidence, in lower case; empty if there is none.

    It is what follows the last label that announces one ("Confidence: high"), the word in front of it ("low
    confidence"), or the whole answer of at most three words. It has no digits, and a refusal states nothing.

    Example:
        >>> [stated_phrase(text) for text in ("Paris. **Confidence:** High.", "low confidence", "Confidence: 8")]
        ['high', 'low', '']
    """
    if not isinstance(answer, str) or is_refusal(answer):
        return ""
    text = answer.translate(PLAIN).lower()
    labels = [*LABEL.finditer(text)]
    for label in reversed(labels):
        behind = text[label.end() : label.end() + _WINDOW]
        tie = _TIE.match(behind)
        phrase = _PHRASE.match(behind, tie.end()) if tie else None
        if phrase is None:
            before = text[max(0, label.start() - _WINDOW) : label.start()]
            phrase = None if tie else _BEFORE.search(before)
        if phrase and phrase["phrase"] not in _NO_STATEMENT:
            return " ".join(phrase["phrase"].split())
    words = text.strip(" \t\r\n.!*_\"'()[]").split() if not labels and len(text) <= _WINDOW else []
    is_phrase = 0 < len(words) <= 3 and all(map(_ONLY_LETTERS.fullmatch, words))
    return " ".join(words) if is_phrase and words[0] not in _NO_STATEMENT else ""


def read_stated(
    answers: Sequence[Any], words: Words = None, learned: Collection[str] = ()
) -> tuple[NDArray[np.float64], list[str]]:
    """Return the confidence that each answer states ``(n,)``, and its phrase where no number or known word states it.

    Args:
        answers: Texts.
        words: Probabilities of words besides those of Kent (1964).
        learned: Phrases that may state a confidence, with their probabilities where it is a mapping.

    Returns:
        The confidences, NaN where none is stated, .5 where ``learned`` says no probability; the phrases among
        ``learned``, empty where a number or word states the confidence.
    """
    values = stated_confidence(answers, {**WORDS, **parse_words(words)})
    phrases = [""] * len(values)
    for row in np.flatnonzero(np.isnan(values)).tolist() if learned else ():
        phrase = stated_phrase(answers[row])
        if phrase in learned:
            phrases[row] = phrase
            values[row] = learned[phrase] if isinstance(learned, Mapping) else 0.5
    return values, phrases


def count_phrases(answers: Iterable[Sequence[Any]], words: Words = None) -> list[str]:
    """Return the phrases that at least five answers state, the commonest first, where no number or known word does.

    Args:
        answers: Answers in blocks.
        words: Probabilities of words besides those of Kent (1964).
    """
    counts = Counter[str]()
    for block in answers:
        values = stated_confidence(block, {**WORDS, **parse_words(words)})
        unread = np.flatnonzero(np.isnan(values)).tolist()
        counts.update(filter(None, (stated_phrase(block[row]) for row in unread)))
    return [phrase for phrase, rows in counts.most_common(_MOST_PHRASES) if rows >= FEWEST_ROWS]
