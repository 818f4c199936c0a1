"""Verbalized confidences: "Confidence: 85 %", "8 out of 10", "very likely"; unclear statements are not read."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedlas._core.check import InputError, describe
from fedlas.predictions.tables.words import parse_words

WORDS = {
    "certain": 1.0, "almost certain": 0.93, "almost certainly": 0.93, "very likely": 0.93, "highly likely": 0.93,
    "probable": 0.75, "probably": 0.75, "likely": 0.75, "about even": 0.5, "even chance": 0.5, "fifty-fifty": 0.5,
    "probably not": 0.3, "unlikely": 0.3, "almost certainly not": 0.07, "very unlikely": 0.07, "highly unlikely": 0.07,
    "impossible": 0.0,
}  # fmt: skip
"""Probabilities of words: those of S. Kent, Words of Estimative Probability (1964), with common synonyms."""
_ANNOUNCED = (
    r"(?:(?<!un)(?:confidence|probability|likelihood|certainty|credence)|\bconf(?![a-z])"
    r"|p\((?:true|correct)\))"
)
LABEL = re.compile(_ANNOUNCED, re.IGNORECASE)
"""Announces a confidence."""
_LEFT = 120
"""Characters before a number in which its label is looked for."""
_RIGHT = 60
PLAIN = str.maketrans(
    {
        "\uff05": "%",
        "\uff1a": ":",
        "\u2212": "-",
        "\u2010": "-",
        "\u2011": "-",
        "\u2013": "-",
        "\u2014": "-",
        "\u2019": "'",
        "\u00a0": " ",
        "\u202f": " ",
    }
)
"""Characters that have the meaning of another."""

# Numbers.
_DIGITS = r"(?:[1-9]\d{0,2}(?:,\d{3})+(?:\.\d+)?|\d+(?:[.,]\d+)?|(?<!\.)[.,]\d+)(?:e[+-]?\d{1,3})?"
_UNIT = r"(?:%|percent\b|per\s?cent\b|pct\b)"
_NUMBER = re.compile(
    rf"(?<![\w,^$#/])(?<!\d\.)(?P<first>{_DIGITS})(?P<unit>\s*{_UNIT})?"
    rf"(?:\s*(?P<range>->?|\u2192|\bto\b|\band\b)\s*(?P<second>{_DIGITS})(?P<unit2>\s*{_UNIT})?"
    rf"|[\s(\[]*(?:times\s+)?(?P<ratio>/|\bout\s+of\b|\bof\b|\bin(?:\s+every)?\b)\s*(?P<whole>{_DIGITS})\s*%?[)\]]?"
    r"|[\s,(\[]*on\s+(?:a|the)\s+scale\s+(?:of|from)\s+(?:\d+\s*(?:-|to)\s*)?(?P<high>\d+)"
    rf")?(?![\w^]|[.,:]\d|\*\*\d|\s*[/:]\s*\d|\s*(?:x|\u00d7)\s*10|\s*{_UNIT}|\s+or\s+[\d.]|\s+(?:CI|nats?|bits?)\b)",
    re.IGNORECASE,
)
_SCALE = re.compile(
    r"(?:[\d.]+\s*%?\s*(?:-|to|and)|out\s+of|/)\s*(\d+(?:\.\d+)?)\s*%?[)\]]?", re.IGNORECASE
)
"""The largest number that there may be, where it is announced: "(0-100)", "on a scale from 1 to 10"."""
_IN_PERCENT = re.compile(
    rf"^\W*(?:in\s+)?(?:%|percent(?:age)?\b|pct\b)|[(\[]\s*(?:in\s+)?{_UNIT}\s*[)\]]", re.IGNORECASE
)
"""Behind a label: all its numbers are in percent."""
_ITEM = re.compile(
    r"^\W*[(\[]\d[)\]]\s+(?:is|at)\b|\b(?P<before>in|answer|option|choice|that)\s*[(\[]\d[)\]](?=\s+\w)"
    r"|[(\[]\d[)\]](?P<after>\s+(?:is|at)\b)",
    re.IGNORECASE,
)
"""A number that an answer goes by, such as (1): no confidence."""
_SCALES = {1.0, 4.0, 5.0, 6.0, 7.0, 10.0, 20.0, 100.0}

# The text between a label and its number.
# Each character goes one way only, and is never given back: a row of dots was read in 2 ** dots ways.
_TIES = r"(?:[^\w.<>]|\.(?!\d)|(?<=\.)\.(?=\d))*+"
_FILLER = (
    r"(?:is|was|of|level|score|rating|value|estimate|percentage|in|my|this|the|answer|response|prediction|that|it|"
    r"being|correct|right|true|about|around|roughly|approximately|approx|at|would|be|say|i|am|i'd|overall|final|"
    r"just|nearly|almost|equals|between|_?score|_?level)"
)
_BEHIND_COLON = re.compile(
    rf"{_ANNOUNCED}(?P<filler>[^.:=\n;]{{0,60}}|[^:=\n;]{{0,60}}[)\]]\W{{0,4}})[:=]{_TIES}$",
    re.IGNORECASE,
)
_BEHIND_WORDS = re.compile(
    rf"{_ANNOUNCED}(?P<filler>(?:\s*[(\[][^()\[\]]{{0,20}}[)\]])?{_TIES}(?:\b{_FILLER}\b{_TIES}){{0,8}})$",
    re.IGNORECASE,
)
_BEHIND_LEVEL = re.compile(
    rf"{_ANNOUNCED}[\s:*_=]*(?:is\s+)?(?:(?:very|fairly|extremely|high|low|medium|moderate)\b[\s,(*:-]*){{1,3}}(?:about\s+)?$",
    re.IGNORECASE,
)
_BEHIND_TAG = re.compile(rf"<\W*(?:\w+[_-])?{_ANNOUNCED}\W*>\s*$", re.IGNORECASE)
_NO_TIE = re.compile(r"\b(?:in|that|the|this|my)\s*$", re.IGNORECASE)
_OPPOSITE = re.compile(
    r"\b(?:wrong|incorrect|mistaken|error|errors|false|fail|failure|not|never|no|don't|doesn't|isn't|won't|can't|"
    r"cannot|less|more|fewer|most|least|under|over|below|above|up\s+to|minus|negative|exceeds?|beyond|interval|"
    r"rather\s+than|unless|versus|vs|if|far\s+from)\b",
    re.IGNORECASE,
)
"""A number that one of these goes with is a bound, or the probability of something else."""
_BOUND = re.compile(r"(?:[<>\u2264\u2265]=?\s?|-)$")
_SURE = re.compile(
    rf"\s*(?:-\s*)?(?:sure|certain|confident|chance|likely|probable|{_ANNOUNCED})\b(?!\s+(?:interval|band|bound|level\b))",
    re.IGNORECASE,
)
_PUT = re.compile(
    r"\bi(?:'d|'ll|\s+would)\s+(?:put|place|rate|estimate)\s+(?:this|that|it)\s+at\s+(?:(?:about|around|roughly)\s+)?$",
    re.IGNORECASE,
)
_SAY = re.compile(
    r"\bi(?:'d|\s+would)\s+(?:say|guess)\s+(?:(?:it(?:'s|\s+is)|about|around|roughly|maybe)\s+){0,2}$",
    re.IGNORECASE,
)
_AT_HALVES = re.compile(
    r"\b(?:it|that|this|i)(?:'s|'m|\s+is|\s+am)\s+(?:(?:about|around|roughly)\s+)?$", re.IGNORECASE
)
_BEHIND_ANSWER = re.compile(r"(?:[,;.\n]\s*|\s[(\[-]\s*)(?P<about>~\s*)?$")
_END = re.compile(r"\s*(?:[.,;!?)\"'*]|$|on\s+(?:this|that|it)\b)", re.IGNORECASE)
_ALONE = re.compile(
    r"[\s\W]*(?:(?:about|around|roughly|approximately|approx|maybe|perhaps)\W*)?", re.IGNORECASE
)
_SENTENCE = re.compile(r"[.!?](?=\s|$)|[\n;]")

# Numbers written out, in front of "percent".
_ONES = ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
_TENS = ("twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")
_WRITTEN = (
    {"zero": 0, "ten": 10, "fifteen": 15, "hundred": 100, "a hundred": 100, "one hundred": 100}
    | {word: number for number, word in enumerate(_ONES, 1)}
    | {word: 10 * number for number, word in enumerate(_TENS, 2)}
    | {
        f"{ten} {one}": 10 * i + j
        for i, ten in enumerate(_TENS, 2)
        for j, one in enumerate(_ONES, 1)
    }
)
_NUMBER_WORDS = "|".join((*_ONES, *_TENS, "zero", "ten", "fifteen", "hundred", "thousand", "point"))
_NUMBER_WORD = rf"(?:(?:a\s+)?(?:{_NUMBER_WORDS}))\b"
_WORDY = rf"\b{_NUMBER_WORD}(?:[\s-]{_NUMBER_WORD}){{0,5}}"
_WORDY_PERCENT = re.compile(
    rf"{_WORDY}(?=(?:\s+(?:to|and|or)\s+{_WORDY})?\s*{_UNIT})", re.IGNORECASE
)

# Words.
_NEGATED = re.compile(
    r"(?:\b(?:not|never|no|hardly|neither|nor|cannot|without|less|more|how|as|equally|if|whether|far|doubt|unless|"
    r"a|the|of|under|in|nothing|nobody|barely|scarcely)|n't)\b(?:\W+\w+){0,3}\W*$",
    re.IGNORECASE,
)
_HEDGED = re.compile(
    r"\b(?:(?P<absolute>absolutely|completely|totally|fully|entirely)|\w+ly|very|quite|rather|pretty|somewhat|so|too|more|"
    r"less|most|least|almost|near|about|but|super|semi|kinda|sorta|perhaps|maybe|"
    r"(?:seem|appear|look|sound|feel|might|may|could|would|should)s?(?:\s+to)?(?:\s+be)?)(?:[\s*_\"']+|-)$",
    re.IGNORECASE,
)
"""Grades the word behind it: a degree that only a longer phrase of the table gives."""
_UNDONE = re.compile(
    r"\s+enough\b|\W*(?:\w+\W+){0,4}(?:wrong|incorrect|mistaken|false|error|not|than\s+not|n't)\b"
    r"|\s+(?:to\s+(?:say|tell|know|determine|judge|be|predict|answer|verify)|as\s+not|candidates?|story)\b",
    re.IGNORECASE,
)
_CERTAIN = re.compile(
    r"\s*(?:[.,;:!?)\"'*]|$|that\b|of\s+(?:it|this|that|my)\b|about\b)", re.IGNORECASE
)
_REFUSAL = re.compile(
    r"\b(?:(?:do\s+not|don't|cannot|can't|can\s+not|could\s+not|couldn't|unable\s+to|not\s+able\s+to)\s+(?:\w+\s+)?"
    r"(?:know|answer|say|tell|determine|provide|help|assist|comply|verify)|no\s+idea|as\s+an\s+ai\b|unanswerable|"
    r"(?:insufficient|not\s+enough)\s+information|(?:impossible|not\s+possible)\s+to\s+(?:say|tell|know|determine))",
    re.IGNORECASE,
)


def is_refusal(text: object) -> bool:
    """Return whether a text declines to answer, as in "I don't know".

    Example:
        >>> is_refusal("I don't know."), is_refusal("Paris")
        (True, False)
    """
    return isinstance(text, str) and _REFUSAL.search(text.translate(PLAIN)) is not None


def stated_confidence(
    answers: Sequence[Any], words: Mapping[str, float] | None = None
) -> NDArray[np.float64]:
    """Return the confidence stated in each answer ``(N,)``; NaN if there is none or it is unclear.

    A number counts if it stands alone, if a word such as "confidence" or "probability" announces it, if "sure",
    "certain" or "chance" follows it, in "I'd put this at 72%" or "I would say 90 percent", and behind an answer as
    "~60%", "80-90%" or "7 out of 10"; the last such number of an answer counts. It is a
    share (0.85), in percent (85 %, ninety percent, or above 10 without a unit), of another (8/10, 9 of 10), or of a
    scale that is named: "(1-10): 8", "(%): 1". The middle of a range counts. Bounds ("more than 90%"), negations, odds
    and negative numbers are unclear, and so is 8 without a unit. Without a number the longest of ``words`` counts,
    unless it is negated or contradicted, or a hedge that ``words`` does not have precedes it ("fairly certain").

    Args:
        answers: Texts, or numbers.
        words: Probability of each word; None for those of Kent (1964), :data:`WORDS`.

    Raises:
        InputError: If ``answers`` is a single text, or ``words`` are no probabilities of different words.

    Source:
        S. Lin et al., TMLR 2022, arXiv 2205.14334; K. Tian et al., "Just Ask for Calibration", EMNLP 2023.

    Example:
        >>> stated_confidence(["Paris. Confidence: 85%", "8/10", "very likely", 0.7, "no idea"]).tolist()
        [0.85, 0.8, 0.93, 0.7, nan]
    """
    if (
        isinstance(answers, str)
        or not isinstance(answers, Sequence | np.ndarray)
        or getattr(answers, "ndim", 1) != 1
    ):
        raise InputError(
            "answers must be a sequence of texts", describe(answers), "Pass a list of texts."
        )
    if not isinstance(words, Mapping | None):
        raise InputError(
            "words must map texts to probabilities",
            describe(words),
            "Pass for instance {'likely': 0.7}.",
        )
    table = {word.translate(PLAIN): share for word, share in (parse_words(words) or WORDS).items()}
    longest_first = sorted(table, key=len, reverse=True)
    pattern = re.compile(rf"(?<![\w-])(?:{'|'.join(map(re.escape, longest_first))})(?![\w-])")
    cache: dict[str, float] = {}
    for answer in answers:
        text = str(answer)
        if text not in cache:
            cache[text] = _parse_confidence(
                _normalize_numbers(text.translate(PLAIN)), table, pattern
            )
    return np.array([cache[str(answer)] for answer in answers], dtype=np.float64)


def _normalize_numbers(text: str) -> str:
    """Return a text with number words in digits (ninety percent), and without numbers that label answers."""

    def digits(match: re.Match[str]) -> str:
        written = re.sub(r"[\s-]+", " ", match[0]).lower()
        return str(_WRITTEN.get(written, match[0]))

    def item(match: re.Match[str]) -> str:
        if match["before"]:
            return f"{match['before']} it"
        return f"it{match['after']}" if match["after"] else ""

    return _ITEM.sub(item, _WORDY_PERCENT.sub(digits, text))


def _parse_confidence(text: str, words: Mapping[str, float], pattern: re.Pattern[str]) -> float:
    """Return the last confidence stated as a number, else as a word."""
    numbers = [value for value in _iter_stated_values(text) if value is not None]
    return numbers[-1] if numbers else _word_probability(text, words, pattern)


def _iter_stated_values(text: str) -> Iterator[float | None]:
    """Yield the confidence that each number states, NaN if unclear, or None if it states none."""
    for number, match in enumerate(_NUMBER.finditer(text)):
        before = text[max(0, match.start() - _LEFT) : match.start()]
        after = text[match.end() : match.end() + _RIGHT]
        patterns = (_BEHIND_COLON, _BEHIND_TAG, _BEHIND_WORDS, _BEHIND_LEVEL)
        announced = next(
            (tie for tie in (pattern.search(before) for pattern in patterns) if tie), None
        )
        sure = _SURE.match(after) or _is_estimate(match, before, after)
        is_first = not number and _ALONE.fullmatch(text, 0, match.start())
        alone = is_first and not after.strip(" \n\t.!*_)]}\"'`")
        if announced:
            filler = announced.groupdict().get("filler") or ""
            if _is_scale_template(match) or _NO_TIE.search(filler):
                yield None
            elif (
                _OPPOSITE.search(filler)
                or _OPPOSITE.search(_clause_before(before))
                or _is_bound(before, announced)
            ):
                yield math.nan
            else:
                scales = _SCALE.findall(filler)
                in_percent = not scales and _IN_PERCENT.search(filler) is not None
                scale = 100.0 if in_percent else float(scales[-1]) if scales else None
                fraction = (
                    in_percent
                    and not match["unit"]
                    and 0 < float(_normalize_digits(match["first"])) < 1
                )
                yield math.nan if fraction else _to_probability(match, scale=scale)
        elif sure and (
            match["unit"]
            or match["unit2"]
            or match["ratio"]
            or match["high"]
            or float(_normalize_digits(match["first"])) <= 1
            or match["first"] == match["second"]
        ):
            unclear = _OPPOSITE.search(_clause_before(before)) or _OPPOSITE.search(
                _clause_after(after)
            )
            yield (
                math.nan if unclear or _BOUND.search(before) else _to_probability(match, scale=None)
            )
        elif alone:
            signed = _BOUND.search(before) is not None
            halves = match["first"] == match["second"]
            is_date = match["range"] and not (halves or match["unit2"] or "." in match["first"])
            yield math.nan if signed or is_date else _to_probability(match, scale=None)
        else:
            yield None


def _is_estimate(match: re.Match[str], before: str, after: str) -> bool:
    """Return whether a number estimates the answer, as in "I'd put this at 72%" or "Rome, 7 out of 10"."""
    if not _END.match(after):
        return False
    halves = match["first"] == "50" and "50" in (match["second"], match["whole"])
    of_100 = match["ratio"] == "/" and match["whole"] == "100"
    of_scale = (match["ratio"] or "").lower().startswith("out") and float(match["whole"]) in _SCALES
    behind = None if after.strip(" \n\t.!*_)]}") else _BEHIND_ANSWER.search(before)
    is_percent = match["unit2"] or (match["unit"] and behind and behind["about"])
    return bool(
        _PUT.search(before)
        or (_SAY.search(before) and (match["unit"] or match["unit2"] or match["ratio"]))
        or (halves and _AT_HALVES.search(before))
        or (behind and (of_100 or of_scale or match["high"] or is_percent))
    )


def _is_scale_template(match: re.Match[str]) -> bool:
    """Return whether a range is the scale of a confidence, as in "Confidence (0-100):"."""
    low = match["first"]
    high = match["second"]
    return (
        high is not None and low in ("0", "0.0", "1") and float(_normalize_digits(high)) in _SCALES
    )


def _is_bound(before: str, announced: re.Match[str]) -> bool:
    """Return whether a sign or comparison precedes a number, other than the end of a tag."""
    is_tag = announced.re is _BEHIND_TAG or re.search(r"<[^<>]*>\s*$", before)
    return not is_tag and _BOUND.search(before) is not None


def _clause_before(text: str) -> str:
    """Return the last words before a number, back to a label or the start of the clause."""
    clause = re.split(rf"[.!?;:,\n](?=\s|$)|{_ANNOUNCED}", text, flags=re.IGNORECASE)[-1]
    return " ".join(clause.split()[-4:])


def _clause_after(text: str) -> str:
    """Return the rest of the sentence after a number."""
    return _SENTENCE.split(text, maxsplit=1)[0]


def _normalize_digits(digits: str) -> str:
    """Return digits in Python notation: 1,000 is a thousand, and 0,85 has a decimal comma."""
    if re.match(r"[1-9]\d{0,2}(,\d{3})+", digits):
        return digits.replace(",", "")
    return digits.replace(",", ".")


def _to_probability(match: re.Match[str], scale: float | None) -> float:
    """Return the probability that a matched number states, or NaN if it is unclear."""
    first = float(_normalize_digits(match["first"]))
    of = scale
    if match["high"]:
        of = float(match["high"])
    if match["whole"]:
        of = float(_normalize_digits(match["whole"]))
        if match["ratio"] == "/" and first + of == 100:  # 50/50
            of = 100.0
        if match["unit"] and of != 100:
            return math.nan
    if match["second"]:
        second = float(_normalize_digits(match["second"]))
        if first + second == 100 and match["range"] == "-" and not match["unit2"]:  # 50-50
            second = first
        if second < first or (match["unit"] and not match["unit2"]):
            return math.nan
        first = (first + second) / 2
    if match["unit"] or match["unit2"]:
        of = 100.0
    if of is None:
        if 1 < first <= 10:  # of 10, or in percent
            return math.nan
        of = 100.0 if first > 1 else 1.0
    share = first / of if of else math.nan
    return round(share, 12) if 0 <= share <= 1 else math.nan


def _word_probability(text: str, words: Mapping[str, float], pattern: re.Pattern[str]) -> float:
    """Return the probability of the only confidence word in an answer, or of the one after the last label."""
    # A pattern without regard to case takes letters that lower() does not make alike, such as a long s.
    text = text.lower()
    by_label: dict[int, set[float]] = {}
    labels = [label.end() for label in LABEL.finditer(text)]
    place = 0
    for match in pattern.finditer(text):
        while place < len(labels) and labels[place] <= match.start():
            place += 1
        start = labels[place - 1] if place else 0
        before = _SENTENCE.split(text[max(start, match.start() - _LEFT) : match.start()])
        if labels and (not place or len(before) > 1):  # not in the sentence of a label
            continue
        after = _clause_after(text[match.end() : match.end() + _RIGHT])
        word = match[0]
        unclear = bool(_NEGATED.search(before[-1]) or _UNDONE.match(after))
        if hedge := _HEDGED.search(before[-1]):
            # A rough half is a half, and nothing is beyond certain or impossible.
            is_absolute = hedge["absolute"] and words[word] in (0, 1)
            unclear = unclear or not (is_absolute or words[word] == 0.5)
        if word == "certain" and not _CERTAIN.match(text[match.end() : match.end() + 12]):
            continue  # a certain person
        by_label.setdefault(start, set()).add(math.nan if unclear else words[word])
    if not by_label:
        return math.nan
    values = by_label[max(by_label)]
    return values.pop() if len(values) == 1 else math.nan
