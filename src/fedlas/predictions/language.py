"""Confidences of language models from their token log-probabilities, P(True), or what they state."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from fedlas._core.check import InputError, check_choice, describe
from fedlas._core.files import parse_json
from fedlas._core.text import shortened
from fedlas.predictions.cells import TableChunk
from fedlas.predictions.logprobs import token_logprobs, true_false_logprobs
from fedlas.predictions.stated import is_refusal, stated_confidence

Reduce = Literal["sum", "mean", "min"]
_SHOWN = 20
"""Rows that a message lists."""


def token_confidence(logprobs: Sequence[Any], reduce: Reduce = "mean") -> NDArray[np.float64]:
    """Return one confidence an answer ``(N,)`` from the log-probabilities of its tokens.

    Args:
        logprobs: Natural logarithms, at most 0, of the tokens of each answer; lengths may differ. Each is a list of
            numbers, or what a server returned: OpenAI's or vLLM's response, a choice of it, or its ``logprobs``.
        reduce: ``"sum"`` is the probability of the whole answer, which falls with its length; ``"mean"`` that of a
            token, the geometric mean; ``"min"`` that of the least likely token.

    Raises:
        InputError: For an answer without tokens, or a number that is no log-probability.

    Example:
        >>> token_confidence([[-0.1, -0.3], [-2.0]], "sum").round(3).tolist()
        [0.67, 0.135]
        >>> token_confidence([{"content": [{"token": "Paris", "logprob": -0.1}]}]).round(3).tolist()
        [0.905]
    """
    check_choice("reduce", reduce, ["sum", "mean", "min"])
    answers = _each(logprobs, "Pass a list of lists.")
    return np.array([_of_tokens(each, reduce, f"answer {n}") for n, each in enumerate(answers, 1)])


def p_true(logprobs: Sequence[Any]) -> NDArray[np.float64]:
    """Return P(True) of each answer ``(N,)``, where a model was asked whether its answer is true.

    Args:
        logprobs: Log-probabilities of the answers "True" and "False" ``(N, 2)``; or what a server returned with
            ``top_logprobs``, in which "yes" and "no" count too. Other answers are left out.

    Raises:
        InputError: If there are not two finite numbers for each answer.

    Source:
        S. Kadavath et al., "Language Models (Mostly) Know What They Know", arXiv 2207.05221.

    Example:
        >>> p_true([[-0.2, -1.8]]).round(3).tolist()
        [0.832]
    """
    answers = _each(logprobs, "Pass [[log p(True), log p(False)], ...].")
    return np.array([_of_truth(each, f"answer {n}") for n, each in enumerate(answers, 1)])


def _each(logprobs: Any, fix: str) -> Sequence[Any] | NDArray[Any]:
    if (
        not isinstance(logprobs, list | tuple | np.ndarray)
        or getattr(logprobs, "ndim", 2) < 1
        or not len(logprobs)
    ):
        raise InputError(
            "logprobs must be a sequence, one entry an answer", describe(logprobs), fix
        )
    return logprobs


def _of_tokens(answer: Any, reduce: str, place: str) -> float:
    fix = "Pass natural logarithms of the tokens' probabilities."
    expected = "log-probabilities must be finite and at most 0"
    try:
        values = np.array(token_logprobs(answer) or [], dtype=np.float64)
    except (ValueError, LookupError, TypeError, RecursionError) as error:
        raise InputError(expected, f"{shortened(str(error), 200)} in {place}", fix) from error
    if not len(values) or not (values <= 1e-6).all() or not np.isfinite(values).all():
        got = f"{values[~(values <= 1e-6)][0]:.6g}" if (values > 1e-6).any() else describe(answer)
        raise InputError(expected, f"{got} in {place}", fix)
    return math.exp(min(0.0, float(getattr(values, reduce)())))


def _of_truth(answer: Any, place: str) -> float:
    fix = "Pass [[log p(True), log p(False)], ...], or responses with top_logprobs."
    expected = "log-probabilities must be finite, two an answer"
    try:
        pair = true_false_logprobs(answer)
    except (ValueError, LookupError, TypeError, RecursionError) as error:
        raise InputError(expected, f"{shortened(str(error), 200)} in {place}", fix) from error
    if pair is None or not np.isfinite(pair).all():
        raise InputError(expected, f"{describe(answer)} in {place}", fix)
    return float(1 / (1 + math.exp(min(700.0, max(-700.0, pair[1] - pair[0])))))


def confidences_as(form: str, chunk: TableChunk, column: str) -> NDArray[np.float64]:
    """Return confidences ``(n,)`` from a column of texts, or of log-probabilities, in JSON perhaps; NaN without one.

    Raises:
        InputError: If a cell holds something else; row and column are named.
    """
    cells = chunk.each(column, lambda value, _: value)
    if form == "words":
        return stated_confidence(cells)

    def confidence(cell: Any, place: str) -> float:
        if isinstance(cell, str):
            try:
                cell = parse_json(cell, finite=False) if cell.strip() else None
            except ValueError as error:
                fix = "Write lists such as [-0.1, -0.3]."
                got = f"{shortened(repr(cell), 60)} in {place}"
                raise InputError(
                    f"column {column!r} must hold log-probabilities", got, fix
                ) from error
        if has_no_logprobs(cell, form):
            return math.nan
        return _of_truth(cell, place) if form == "p-true" else _of_tokens(cell, form, place)

    return np.array(chunk.each(column, confidence))


def has_no_logprobs(cell: Any, form: str) -> bool:
    """Return whether an answer has no log-probabilities, as where they were not asked for."""
    try:
        return (true_false_logprobs(cell) if form == "p-true" else token_logprobs(cell)) is None
    except (ValueError, LookupError, TypeError, RecursionError):
        return False  # something else, which an error names


class Answers:
    """Counts answers whose confidence cannot be read, and refusals.

    State:
        The counts so far.
    """

    def __init__(self) -> None:
        self.rows: list[int] = []
        self.counts = Counter[str]()

    def add(self, row: int, answer: object, *, unread: bool) -> None:
        """Count an answer of a row of the file."""
        self.counts["answers"] += 1
        refusal = is_refusal(answer)
        self.counts["refusals"] += refusal
        self.counts["empty"] += answer is None
        if unread:
            self.rows.append(row)
            self.counts["silent refusals"] += refusal

    def check(self, column: str, where: str, *, drop: bool) -> None:
        """Refuse answers without a confidence, unless they may be left out and others remain.

        Raises:
            InputError: Then; they are counted and listed.
        """
        count = self.counts["answers"]
        refusals = self.counts["silent refusals"]
        if not self.rows or (drop and len(self.rows) < count):
            return
        kind = ""
        if refusals:
            kind = f', {refusals:,} of them {"a refusal" if refusals == 1 else "refusals"} ("I don\'t know"),'
        fix = "Pass drop_missing=True to leave them out"
        if self.counts["empty"] == count:
            fix = "Check the path, which leads to nothing"
        elif len(self.rows) == count:
            fix = "Ask the model for 'Confidence: ... %', or the server for logprobs"
        got = (
            f"none in {len(self.rows):,} of {count:,} answers{kind} in {self._listed()} of {where}"
        )
        raise InputError(
            f"each answer in column {column!r} must state a confidence",
            got,
            f"{fix}; or name another column.",
        )

    def notes(self) -> list[str]:
        """Say how many were left out, and how many are refusals, as sentences."""
        lines = []
        if self.rows:
            count = f"{len(self.rows):,} of {self.counts['answers']:,} answers"
            lines.append(
                f"{count} state no confidence that can be read and were left out: {self._listed()}."
            )
        if refusals := self.counts["refusals"]:
            stated = refusals - self.counts["silent refusals"]
            count = (
                "1 answer is a refusal" if refusals == 1 else f"{refusals:,} answers are refusals"
            )
            counts = f"; {stated:,} of them state{'s' * (stated == 1)} a confidence and count{'s' * (stated == 1)}"
            lines.append(f'{count} ("I don\'t know"){counts if stated else ""}.')
        return lines

    def _listed(self) -> str:
        more = len(self.rows) - _SHOWN
        rows = ", ".join(f"{row:,}" for row in self.rows[:_SHOWN])
        return f"row{'s' * (len(self.rows) > 1)} {rows}" + (
            f" and {more:,} more" if more > 0 else ""
        )
