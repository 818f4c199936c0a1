"""Confidences of language models from token log-probabilities, P(True), or stated confidences."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from fedlas._core.check import Argument, InputError, Text, check_choice, describe, is_tensor
from fedlas._core.files import parse_json
from fedlas._core.text import truncate
from fedlas.predictions.language.phrases import stated_phrase
from fedlas.predictions.language.stated import is_refusal

if TYPE_CHECKING:
    from fedlas.predictions.tables.cells import TableChunk

Reduce = Literal["sum", "mean", "min"]
_SHOWN = 5
"""Number of phrases that a message lists."""
_MAX_PHRASES = 10_000
"""Maximum number of distinct phrases that are counted."""


def token_confidence(logprobs: Sequence[Any], reduce: Reduce = "mean") -> NDArray[np.float64]:
    """Return one confidence per answer ``(N,)`` from the log-probabilities of its tokens.

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
    answers = _require_sequence(logprobs, "Pass a list of lists.")
    return np.array(
        [_token_probability(each, reduce, f"answer {n}") for n, each in enumerate(answers, 1)]
    )


def p_true(logprobs: Sequence[Any]) -> NDArray[np.float64]:
    """Return P(True) per answer ``(N,)``: the probability that the model gives to its answer being true.

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
    answers = _require_sequence(logprobs, "Pass [[log p(True), log p(False)], ...].")
    return np.array([_true_probability(each, f"answer {n}") for n, each in enumerate(answers, 1)])


def _require_sequence(logprobs: object, fix: str) -> Sequence[Any] | NDArray[Any]:
    """Return ``logprobs``; raise InputError unless they are a nonempty sequence."""
    if (
        not isinstance(logprobs, list | tuple | np.ndarray)
        or getattr(logprobs, "ndim", 2) < 1
        or not len(logprobs)
    ):
        raise InputError(
            "logprobs must be a nonempty sequence with one entry per answer",
            describe(logprobs),
            fix,
        )
    return logprobs


def _token_probability(answer: object, reduce: str, place: str) -> float:
    """Return the confidence of one answer from its token log-probabilities."""
    fix = "Pass natural logarithms of the tokens' probabilities."
    expected = "log-probabilities must be finite and at most 0"
    try:
        values = np.array(token_logprobs(answer) or [], dtype=np.float64)
    except (ValueError, LookupError, TypeError, RecursionError) as error:
        raise InputError(expected, f"{truncate(str(error), 200)} in {place}", fix) from error
    if not len(values) or not (values <= 1e-6).all() or not np.isfinite(values).all():
        got = f"{values[~(values <= 1e-6)][0]:.6g}" if (values > 1e-6).any() else describe(answer)
        raise InputError(expected, f"{got} in {place}", fix)
    return math.exp(min(0.0, float(getattr(values, reduce)())))


def _true_probability(answer: object, place: str) -> float:
    """Return P(True) of one answer."""
    fix = "Pass [[log p(True), log p(False)], ...], or responses with top_logprobs."
    expected = "each answer must have two finite log-probabilities"
    try:
        pair = true_false_logprobs(answer)
    except (ValueError, LookupError, TypeError, RecursionError) as error:
        raise InputError(expected, f"{truncate(str(error), 200)} in {place}", fix) from error
    if pair is None or not np.isfinite(pair).all():
        raise InputError(expected, f"{describe(answer)} in {place}", fix)
    return float(1 / (1 + math.exp(min(700.0, max(-700.0, pair[1] - pair[0])))))


def read_confidences(form: str, chunk: TableChunk, column: str) -> NDArray[np.float64]:
    """Return the confidences ``(n,)`` in a column of log-probabilities; NaN if missing.

    Raises:
        InputError: If a cell holds something else; row and column are named.
    """

    def confidence(cell: object, place: str) -> float:
        if isinstance(cell, str):
            try:
                cell = parse_json(cell, finite=False) if cell.strip() else None
            except ValueError as error:
                raise InputError(
                    f"column {column!r} must hold log-probabilities",
                    f"{truncate(repr(cell), 60)} in {place}",
                    "Write lists such as [-0.1, -0.3].",
                ) from error
        if lacks_logprobs(cell, form):
            return math.nan
        return (
            _true_probability(cell, place)
            if form == "p-true"
            else _token_probability(cell, form, place)
        )

    return np.array(chunk.map_values(column, confidence))


def lacks_logprobs(cell: object, form: str) -> bool:
    """Return whether an answer has no log-probabilities, for instance because none were requested."""
    try:
        return (true_false_logprobs(cell) if form == "p-true" else token_logprobs(cell)) is None
    except (ValueError, LookupError, TypeError, RecursionError):
        return False  # something else, which an error names


class AnswerCounter:
    """Counter of answers without a readable confidence, and of refusals.

    Args:
        in_words: Whether words may state a confidence, which can be given probabilities.
        learns: Whether words have been learned from these answers; those left are too rare.

    State:
        The counts so far.
    """

    def __init__(self, *, in_words: bool = False, learns: bool = False) -> None:
        self._in_words = in_words
        self._learns = learns
        self.rows: list[int] = []
        self.counts = Counter[str]()
        self._unread = Counter[str]()
        self._words = Counter[str]()

    def add(self, row: int, answer: object, *, unread: bool) -> None:
        """Count the answer in a row; ``unread`` means that no confidence could be read."""
        self.counts["answers"] += 1
        refusal = is_refusal(answer)
        self.counts["refusals"] += refusal
        self.counts["empty"] += answer is None
        if unread:
            self.rows.append(row)
            phrase = _last_sentence(answer)
            if phrase in self._unread or len(self._unread) < _MAX_PHRASES:
                self._unread[phrase] += 1
            self.counts["silent refusals"] += refusal
            if self._in_words and (words := stated_phrase(answer)):
                self._words[words] += 1

    def check(self, column: str, where: str, *, drop: bool) -> None:
        """Raise InputError if answers lack a confidence, unless they may be dropped and others remain.

        Raises:
            InputError: Then; they are counted and listed.
        """
        count = self.counts["answers"]
        refusals = self.counts["silent refusals"]
        if not self.rows or (drop and len(self.rows) < count):
            return
        kind = ""
        if refusals:
            kind = f', {refusals:,} of them {"a refusal" if refusals == 1 else "refusals"} ("I don\'t know")'
        fix: list[Text] = [
            "remove these rows",
            ("pass ", Argument("drop_missing", True), " to leave them out"),
        ]
        if self.counts["empty"] == count:
            fix = ["check the path, which leads to no value"]
        elif len(self.rows) == count:
            fix = ["ask the model for 'Confidence: ... %'", "ask the server for logprobs"]
        if shares := self._example_words():
            give = ("give words a probability by ", Argument("words", shares))
            learn = [] if self._learns else ["let fedlas calibrate learn it from the rows"]
            fix = [give, *learn, *(fix if len(self.rows) < count else [])]
        raise InputError(
            f"each answer in column {column!r} must state a confidence",
            f"none in {len(self.rows):,} of {count:,} answers{kind}, in {where}: {self._unread_summary()}",
            [*fix, "name another column"],
        )

    def notes(self, *, dropped: bool = True) -> list[str]:
        """Return notes that count dropped answers and refusals."""
        lines = []
        if self.rows and dropped:
            count = f"{len(self.rows):,} of {self.counts['answers']:,} answers"
            lines.append(
                f"{count} state no readable confidence and were left out: {self._unread_summary()}."
            )
            if shares := self._example_words():
                learn = "" if self._learns else ", and fedlas calibrate learns it"
                lines.append(f"`words` ({shares}) gives words a probability{learn}.")
        if refusals := self.counts["refusals"]:
            stated = refusals - self.counts["silent refusals"]
            count = (
                "1 answer is a refusal" if refusals == 1 else f"{refusals:,} answers are refusals"
            )
            verbs = ("states", "is") if stated == 1 else ("state", "are")
            counts = f"; {stated:,} of them {verbs[0]} a confidence and {verbs[1]} used"
            lines.append(f'{count} ("I don\'t know"){counts if stated else ""}.')
        return lines

    def _example_words(self) -> str:
        """Return the three commonest unread words with probabilities to be filled in; empty if no answer has any."""
        return ",".join(f"{truncate(word, 40)}=X" for word, _ in self._words.most_common(3))

    def _unread_summary(self) -> str:
        """Return the most common last sentences of answers without a confidence, and their first row."""
        ways = [
            f"{phrase} ({count:,})" if count > 1 else phrase
            for phrase, count in self._unread.most_common(_SHOWN)
        ]
        more = len(self._unread) - len(ways)
        return (
            ", ".join(ways)
            + (f" and {more:,} more" if more > 0 else "")
            + f"; first in row {self.rows[0]:,}"
        )


def _last_sentence(answer: object) -> str:
    """Return the last sentence of an answer in quotes, where a confidence is usually stated."""
    text = "" if answer is None else " ".join(str(answer).split())
    sentences = [part for part in re.split(r"(?<=[.!?;])\s+", text) if part]
    return repr(truncate(sentences[-1], 60)) if sentences else "nothing"


_INSIDE = ("choices", "outputs", "logprobs", "content", "token_logprobs")
"""Keys of an object that hold its log-probabilities, the outermost first."""
_SIDES = ({"true", "yes"}, {"false", "no"})


def token_logprobs(value: object) -> list[float] | None:
    """Return the log-probability of each token of an answer, or None if there are none.

    Args:
        value: A list of numbers, of ``{"token": ..., "logprob": ...}`` (OpenAI) or of ``{token_id: {"logprob": ...}}``
            (vLLM); or an object that holds one: a response, a choice, an output.

    Raises:
        ValueError: If it is something else, or does not say which of several tokens is the answer's.
    """
    if isinstance(value, Mapping):
        if "token_ids" in value and isinstance(value.get("logprobs"), list):
            ids = value["token_ids"]
            return [
                _token_logprob(each, token)
                for each, token in zip(value["logprobs"], ids, strict=True)
            ]
        if "logprob" in value:
            return [_to_float(value["logprob"])]
        key = next((key for key in _INSIDE if key in value), None)
        if key is None:
            raise ValueError(f"an object with none of the keys {', '.join(_INSIDE)}")
        inside = value[key]
        if key in ("choices", "outputs") and isinstance(inside, list):
            inside = inside[0] if inside else None
        return token_logprobs(inside)
    if isinstance(value, np.ndarray) or is_tensor(value):
        value = value.tolist()
    if value is None:
        return None
    if not isinstance(value, list | tuple):
        raise ValueError(f"{type(value).__name__} instead of a list")
    # choices
    if (
        value
        and isinstance(value[0], Mapping)
        and ("logprobs" in value[0] or "message" in value[0])
    ):
        return token_logprobs(value[0])
    tokens = value[1:] if value and value[0] is None else value  # the first of a prompt has none
    return [_token_logprob(token) for token in tokens] or None


def true_false_logprobs(value: object) -> tuple[float, float] | None:
    """Return the log-probabilities of True and False as first token, or None if either is missing.

    Raises:
        ValueError: If it is neither two numbers nor an object with the alternatives of the first token.
    """
    if isinstance(value, np.ndarray) or is_tensor(value):
        value = value.tolist()
    if isinstance(value, list | tuple) and len(value) == 2 and not isinstance(value[0], Mapping):
        return _to_float(value[0]), _to_float(value[1])
    alternatives = _first_token_logprobs(value)
    if alternatives is None:
        return None
    sums = [0.0, 0.0]
    for token, logprob in alternatives:
        for side, texts in enumerate(_SIDES):
            if token.strip(" \n\"'().*").lower() in texts:
                sums[side] += math.exp(min(logprob, 0.0))
    return (math.log(sums[0]), math.log(sums[1])) if min(sums) > 0 else None


def _first_token_logprobs(value: object) -> list[tuple[str, float]] | None:
    """Return the most likely first tokens with their log-probabilities, or None."""
    if value is None or value == []:
        return None
    if isinstance(value, list | tuple):
        return _first_token_logprobs(value[0])
    if not isinstance(value, Mapping):
        raise ValueError(f"{type(value).__name__} instead of top_logprobs")
    key = next(
        (
            key
            for key in ("choices", "outputs", "logprobs", "content", "top_logprobs")
            if key in value
        ),
        None,
    )
    if key is not None:
        inside = value[key]
        if key == "top_logprobs" and isinstance(inside, list) and inside and "logprob" in inside[0]:
            return [(str(each["token"]), _to_float(each["logprob"])) for each in inside]
        return _first_token_logprobs(inside)
    if all(isinstance(each, Mapping) for each in value.values()):  # vLLM
        return [
            (str(each.get("decoded_token", token)), _to_float(each["logprob"]))
            for token, each in value.items()
        ]
    return [(str(token), _to_float(logprob)) for token, logprob in value.items()]


def _token_logprob(token: object, token_id: object = None) -> float:
    """Return the log-probability of one token of a response."""
    if not isinstance(token, Mapping):
        return _to_float(token)
    if "logprob" in token:
        return _to_float(token["logprob"])
    if token_id is not None:
        token = {token_id: token[token_id] if token_id in token else token[str(token_id)]}
    if len(token) != 1:
        raise ValueError(
            f"{len(token)} tokens without saying which is the answer's; name the object that includes token_ids"
        )
    (only,) = token.values()
    return _token_logprob(only)


def _to_float(value: object) -> float:
    """Return a number as float; raise ValueError for any other type."""
    if isinstance(value, bool) or not isinstance(value, int | float | np.number):
        raise ValueError(f"{type(value).__name__} instead of a number")
    return float(value)
