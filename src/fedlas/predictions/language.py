"""Confidences of language models from their words, their token log-probabilities, or P(True)."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedlas._core.check import InputError, as_numbers, check_choice, describe, reason
from fedlas._core.files import parse_json
from fedlas.predictions.cells import OWNER, TableChunk

WORDS = {
    "certain": 1.0, "almost certain": 0.93, "very likely": 0.93, "highly likely": 0.93, "probable": 0.75,
    "probably": 0.75, "likely": 0.75, "about even": 0.5, "even chance": 0.5, "probably not": 0.3, "unlikely": 0.3,
    "almost certainly not": 0.07, "very unlikely": 0.07, "highly unlikely": 0.07, "impossible": 0.0,
}  # fmt: skip
"""Probabilities of words: those of S. Kent, Words of Estimative Probability (1964), with common synonyms."""
_NUMBER = re.compile(r"(?<![\w.,-])(\d*[.,]?\d+)\s*(%|percent|(?:/|out of|in(?=\s+\d{1,3}\b))\s*(\d+))?", re.IGNORECASE)
_ANNOUNCED = r"confidence|probability|likelihood"
LABEL = re.compile(rf"(?:{_ANNOUNCED})(?:[^\w.]|\.(?!\d)|(?<=\.)\.)*", re.IGNORECASE)
"""Announces the number of a confidence, whose decimal point may come first."""
_SCALE = re.compile(
    rf"({_ANNOUNCED})[^:=.\n]{{0,40}}?\b(?:[\d.]+\s*%?\s*(?:-|\u2013|to|and)|out of)"
    r"\s*(\d+(?:\.\d+)?)\s*%?[)\]]?(?=[\s*]*[:=])",
    re.IGNORECASE,
)
"""Announces the largest number that it may have too: "Confidence (0-100):", "confidence on a scale from 1 to 10:"."""
Reduce = Literal["sum", "mean", "min"]


def stated_confidence(answers: Sequence[Any], words: Mapping[str, float] | None = None) -> NDArray[np.float64]:
    """Return the confidence that each answer states ``(N,)``; NaN where it states none.

    A number counts as a share (0.85), in percent (85 %, or above 1), or of another (8/10): the first behind the last
    word "confidence", "probability" or "likelihood" that has one; without such a word the last percentage or ratio, or
    a number that stands alone. A scale that is named before it, as in "(1-10): 8", is what it is of. Without a number
    the longest of ``words`` counts, unless it is negated.

    Args:
        answers: Texts, or numbers.
        words: Probability of each word; None for those of Kent (1964), :data:`WORDS`.

    Raises:
        InputError: If ``answers`` is a single text.

    Source:
        S. Lin et al., TMLR 2022, arXiv 2205.14334; K. Tian et al., "Just Ask for Calibration", EMNLP 2023.

    Example:
        >>> stated_confidence(["Paris. Confidence: 85%", "8/10", "very likely", 0.7, "no idea"]).tolist()
        [0.85, 0.8, 0.93, 0.7, nan]
    """
    if isinstance(answers, str) or not isinstance(answers, Sequence | np.ndarray) or getattr(answers, "ndim", 1) != 1:
        raise InputError("stated_confidence", "answers must be a sequence", describe(answers), "Pass a list of texts.")
    if not isinstance(words, Mapping | None) or not set(map(type, words or ())) <= {str}:
        fix = "Pass {'likely': 0.7}."
        raise InputError("stated_confidence", "words must be a mapping from text", describe(words), fix)
    table = sorted((words or WORDS).items(), key=lambda entry: -len(entry[0]))
    return np.array([_stated(str(answer), table) for answer in answers], dtype=np.float64)


def _stated(answer: str, table: Sequence[tuple[str, float]]) -> float:
    scale = float([0, *(largest for _, largest in _SCALE.findall(answer))][-1])
    _, *behind = LABEL.split(_SCALE.sub(r"\1", answer))
    texts = behind[::-1] or [answer]
    for text in texts:
        # Without such a word, 42 may be the answer: only a percentage, a ratio or a number alone is a confidence.
        numbers = [each for each in _NUMBER.finditer(text) if behind or each[2] or each[0].strip() == text.strip()]
        if numbers:
            number, unit, whole = numbers[0 if behind else -1].groups()
            value, of = float(number.replace(",", ".")), float(whole or (not unit and scale) or 100)
            share = value / of if of and (unit or scale or value > 1) else math.nan if not of else value
            return share if 0 <= share <= 1 else math.nan
    patterns = [(rf"(\bnot\s+(?:\w+\s+)?)?\b{re.escape(word)}\b", share) for word, share in table]
    matches = ((re.search(pattern, text, re.IGNORECASE), share) for text in texts for pattern, share in patterns)
    return next((math.nan if match[1] else share for match, share in matches if match), math.nan)


def token_confidence(logprobs: Sequence[Sequence[float]], reduce: Reduce = "mean") -> NDArray[np.float64]:
    """Return one confidence an answer ``(N,)`` from the log-probabilities of its tokens.

    Args:
        logprobs: Natural logarithms, at most 0, of the tokens of each answer; lengths may differ.
        reduce: ``"sum"`` is the probability of the whole answer, which falls with its length; ``"mean"`` that of a
            token, the geometric mean; ``"min"`` that of the least likely token.

    Raises:
        InputError: For an answer without tokens, or a number that is no log-probability.

    Example:
        >>> token_confidence([[-0.1, -0.3], [-2.0]], "sum").round(3).tolist()
        [0.67, 0.135]
    """
    check_choice("token_confidence", "reduce", reduce, ["sum", "mean", "min"])
    if not isinstance(logprobs, list | tuple | np.ndarray) or getattr(logprobs, "ndim", 2) < 1:
        fix = "Pass a list of lists."
        raise InputError("token_confidence", "logprobs must be a sequence of sequences", describe(logprobs), fix)
    confidence = []
    for number, tokens in enumerate(logprobs, 1):
        values = as_numbers(tokens)
        if values.ndim != 1 or not len(values) or not (values <= 1e-6).all() or not np.isfinite(values).all():
            fix = "Pass natural logarithms of the tokens' probabilities."
            got = f"{describe(tokens)} in answer {number}"
            raise InputError("token_confidence", "log-probabilities must be finite and at most 0", got, fix)
        confidence.append(math.exp(min(0.0, float(getattr(values, reduce)()))))
    return np.array(confidence)


def p_true(logprobs: Sequence[Sequence[float]]) -> NDArray[np.float64]:
    """Return P(True) of each answer ``(N,)``, where a model was asked whether its answer is true.

    Args:
        logprobs: Log-probabilities of the answers "True" and "False" ``(N, 2)``; other answers are left out.

    Raises:
        InputError: If there are not two finite numbers for each answer.

    Source:
        S. Kadavath et al., "Language Models (Mostly) Know What They Know", arXiv 2207.05221.

    Example:
        >>> p_true([[-0.2, -1.8]]).round(3).tolist()
        [0.832]
    """
    values = as_numbers(logprobs)
    if values.ndim != 2 or values.shape[1] != 2 or not np.isfinite(values).all():
        fix = "Pass [[log p(True), log p(False)], ...]."
        raise InputError("p_true", "log-probabilities must be finite, two an answer", describe(logprobs), fix)
    margin: NDArray[np.float64] = values[:, 1] - values[:, 0]
    return 1 / (1 + np.exp(margin.clip(-700, 700)))


def confidences_as(form: str, chunk: TableChunk, column: str) -> Tensor:
    """Return confidences ``(n, 1)`` from a column of texts, or of lists of log-probabilities, in JSON perhaps.

    Raises:
        InputError: If a cell holds something else.
    """
    cells = chunk.each(column, lambda value, _: value)
    if form == "words":
        values = stated_confidence(cells)
        for row in np.flatnonzero(np.isnan(values))[:1]:
            fix = "Remove the row, or write a number, a percentage or a word such as 'likely'."
            expected, got = f"column {column!r} must state a confidence", f"none in {chunk.where(row)} of {chunk.file}"
            raise InputError(OWNER, expected, got, fix)
        return torch.from_numpy(values).unsqueeze(1)
    try:
        lists = [parse_json(cell) if isinstance(cell, str) else cell for cell in cells]
        read = p_true(lists) if form == "p-true" else token_confidence(lists, form)  # type: ignore[arg-type]  # checked
    except ValueError as error:
        got = f"{reason(error)} among the rows from {chunk.rows[0]} of {chunk.file}"
        fix = "Write lists such as [-0.1, -0.3]."
        raise InputError(OWNER, f"column {column!r} must hold lists of log-probabilities", got, fix) from error
    return torch.from_numpy(read).unsqueeze(1)
