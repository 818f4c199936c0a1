"""Self-consistency: the most frequent of several answers to a question, and the share of answers that agree."""

from __future__ import annotations

import re
import string
import unicodedata
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from decimal import Decimal, InvalidOperation
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fedlas._core.check import Argument, InputError, describe
from fedlas._core.kinds import check_argument_types
from fedlas._core.text import truncate
from fedlas.predictions.language.stated import PLAIN
from fedlas.predictions.tables.cells import cell_to_text
from fedlas.predictions.tables.formats.frame import Frame

if TYPE_CHECKING:
    from fedlas.predictions.tables.formats.format import Format
    from fedlas.predictions.tables.roles import Columns

_MARKS = (
    re.compile(r"####\s*([^\n]+)"),
    re.compile(r"\\boxed\s*\{((?:[^{}]|\{[^{}]*\})*)\}"),
    re.compile(r"\banswer(?:\s+is|\s*[:=])[\s:*]*+", re.IGNORECASE),
)
"""Markers of a final answer: those of GSM8K and MATH, and "the answer is", behind which its sentence is."""
_SENTENCE_END = re.compile(
    r"\n|(?<!\bDr)(?<!\bMr)(?<!\bSt)(?<!\bMrs)[.!?](?:\s+[A-Z]|\s*$)", re.IGNORECASE
)
_EDGES = "".join(each for each in string.punctuation if each not in "-+%#{}\\")
_THOUSANDS = re.compile(r"[+-]?\d{1,3}(,\d{3})+(\.\d+)?")
_ARTICLES = {"a", "an", "the"}
_BEHIND_LETTER = {"and", "or", "nor", "is", "are", "but", "because"}
"""Words before which "a" is the letter, such as that of an answer."""
_CONFIDENCE = "self-consistency"
_CORRECT = "majority is right"


def normalize_answer(answer: object) -> str:
    r"""Return an answer normalized for comparison; empty if there is none.

    Of a long answer the text behind ``####``, in ``\boxed{}`` or behind "the answer is" counts, the last of them.
    Numbers are compared by value (``1,000.0`` is ``$1000``), other answers without case, articles, spaces and
    punctuation around words. A first "a" is an article, another a letter, as in "B, A" and "Hepatitis A". Of text
    of several lines, such as a program, all but white space counts.

    Source:
        P. Rajpurkar et al., "SQuAD", EMNLP 2016, for case, articles and punctuation.

    Example:
        >>> normalize_answer("Six times three. The answer is $18.00."), normalize_answer("the  Eiffel Tower!")
        ('18', 'eiffel tower')
    """
    text = unicodedata.normalize("NFKC", cell_to_text(answer)).translate(PLAIN).strip()
    marked = [match for mark in _MARKS for match in mark.finditer(text)]
    if marked:
        last = max(marked, key=lambda match: match.start())
        behind = _SENTENCE_END.split(text[last.end() :], maxsplit=1)[0]
        text = (last[1] if last.re.groups else behind).strip()
    if "\n" in text:
        return " ".join(text.split())
    number = text.strip(f"{_EDGES} ")
    with suppress(InvalidOperation):
        value = Decimal(number.replace(",", "") if _THOUSANDS.fullmatch(number) else number)
        if value.is_finite() and abs(value.adjusted()) < 30:
            return f"{value.normalize() + 0:f}"
    written = [word for word in text.casefold().split() if word.strip(_EDGES)]
    tokens = [word.strip(_EDGES) for word in written]
    following = [*tokens[1:], ""]
    return " ".join(
        token
        for place, token in enumerate(tokens)
        if not _is_article(written[place], following[place], is_first=place == 0)
    )


def _is_article(word: str, following: str, *, is_first: bool) -> bool:
    """Return whether a word is an article of the following one; "a" must begin the answer, or it is a letter."""
    if word not in _ARTICLES or not following:
        return False
    is_noun = len(following) > 1 and following not in _BEHIND_LETTER
    return word != "a" or (is_first and is_noun)


@dataclass(frozen=True)
class SelfConsistency:
    """Majority answer to each question, and the share of answers that agree with it.

    Attributes:
        answer: That answer as it was given first ``(Q,)``; empty if a question has none.
        confidence: Share of the question's answers that agree with it after normalization ``(Q,)``, in ``[0, 1]``.
        tied: Whether another answer was given as often ``(Q,)``; the one given first counts.
        counts: Number of answers of each question ``(Q,)``.
        normalize: How answers are compared.

    Example:
        >>> votes = self_consistency([["4", "4.0", "5"]])
        >>> votes.answer, votes.confidence.round(2).tolist(), votes.matches([4]).tolist()
        (('4',), [0.67], [True])
    """

    answer: tuple[str, ...]
    confidence: NDArray[np.float64]
    tied: NDArray[np.bool_]
    counts: NDArray[np.int64]
    normalize: Callable[[object], str] = normalize_answer

    @check_argument_types
    def matches(self, truth: Sequence[Any]) -> NDArray[np.bool_]:
        """Return whether each majority answer is correct ``(Q,)``; a list of true answers accepts any of them.

        Raises:
            InputError: If there is not a truth for each question.
        """
        if len(truth) != len(self.answer):
            raise InputError(
                f"truth must be a sequence of {len(self.answer)} answers",
                describe(truth),
                "Pass one true answer per question.",
            )
        pairs = zip(self.answer, truth, strict=True)
        return np.array([self._matches_any(answer, each) for answer, each in pairs])

    def _matches_any(self, answer: str, truth: Any) -> bool:
        several = truth if isinstance(truth, list | tuple) else [truth]
        key = self.normalize(answer)
        return bool(key) and key in map(self.normalize, several)

    def notes(self, right: Sequence[bool] | NDArray[np.bool_] = ()) -> list[str]:
        """Return notes on how answers were counted, and on whether none is correct."""
        low = int(self.counts.min())
        high = int(self.counts.max())
        each = f"{low:,}" if low == high else f"{low:,} to {high:,}"
        lines = [
            f"Each confidence is the share of the {each} answers to a question that agree with the most frequent one."
        ]
        if number := int(self.tied.sum()):
            lines.append(
                f"{number:,} of {len(self.tied):,} questions have a tie: the answer given first is used."
            )
        if len(right) and not any(right):
            lines.append(
                f"No answer matches its target: compare {truncate(repr(self.answer[0]), 60)} with the first target."
            )
        return lines


@check_argument_types
def self_consistency(
    answers: Sequence[Sequence[Any]], normalize: Callable[[object], str] = normalize_answer
) -> SelfConsistency:
    """Return the majority answer to each question and the share of answers that agree.

    Args:
        answers: Answers that were sampled for each question ``(Q,)``, each a list of texts; lengths may differ.
        normalize: Returns the form in which two answers are compared; empty for no answer, which agrees with none.

    Raises:
        InputError: If it is no list of lists, a question has no answers, or no question has several.

    Source:
        X. Wang et al., "Self-consistency improves chain of thought reasoning in language models", ICLR 2023; as a
        confidence: C. Si et al., "Prompting GPT-3 to be reliable", ICLR 2023.

    Example:
        >>> votes = self_consistency([["Paris", "paris.", "Lyon"], ["The answer is 4", "5"]])
        >>> votes.confidence.round(2).tolist(), votes.answer, votes.tied.tolist()
        ([0.67, 0.5], ('Paris', 'The answer is 4'), [False, True])
        >>> votes.matches(["Paris", "5"]).tolist()
        [True, False]
    """
    is_nested = isinstance(answers, list | tuple) and all(
        isinstance(each, list | tuple | np.ndarray) and len(each) for each in answers
    )
    if not is_nested or not answers:
        raise InputError(
            "answers must be a list of nonempty lists, one per question",
            describe(answers),
            "Pass [['Paris', 'Lyon'], ...].",
        )
    counts = np.array([len(each) for each in answers])
    if counts.max() < 2:
        raise InputError(
            "self-consistency requires several answers per question",
            f"one answer to each of {len(answers):,} questions",
            "Sample more answers at a temperature above 0.",
        )
    firsts: list[str] = []
    shares: list[float] = []
    tied: list[bool] = []
    for each in answers:
        votes: dict[str, int] = {}
        texts: dict[str, str] = {}
        for answer in each:
            if key := normalize(answer):
                votes[key] = votes.get(key, 0) + 1
                texts.setdefault(key, str(answer))
        most = max(votes.values(), default=0)
        winners = [key for key, count in votes.items() if count == most]
        firsts.append(texts[winners[0]] if winners else "")
        shares.append(most / len(each))
        tied.append(len(winners) > 1)
    return SelfConsistency(tuple(firsts), np.array(shares), np.array(tied), counts, normalize)


def majority_vote_table(
    source: Format, columns: Columns, carried: Sequence[str] = ()
) -> tuple[Frame, Columns]:
    """Return a table with one row per question from a table with one row per answer, and its columns.

    What reads, fits and applies votes takes the confidence of a question from here.

    Args:
        source: A row an answer.
        columns: Its columns, with labels or not.
        carried: Further columns that have one value a question, which may be missing.

    Raises:
        InputError: If the columns do not name questions and answers, or a question has two labels, weights or groups.
    """
    source.expand_paths(columns.paths, [columns.confidence or ""])
    columns.find_scores(source.names, where=source.label)
    answer = str(columns.confidence)
    question = str(columns.clusters)
    shared = [columns.target, columns.weights, columns.groups, columns.time]
    columns_of_question = [name for name in dict.fromkeys((*shared, *carried)) if name is not None]
    rows: dict[str, list[int]] = {}
    cells: dict[str, list[Any]] = {name: [] for name in {answer, *columns_of_question}}
    outcomes: list[bool] = []
    skipped = 0
    for chunk in source.chunks(
        [],
        [*dict.fromkeys([answer, question, *columns_of_question, *_outcome_columns(columns)])],
    ):
        part = (
            chunk.drop_incomplete(optional={answer, *carried})[0] if columns.drop_missing else chunk
        )
        skipped += len(chunk.rows) - len(part.rows)
        start = len(cells[answer])
        for place, name in enumerate(part.text_values(question), start):
            rows.setdefault(name, []).append(place)
        for name, values in cells.items():
            values += part.map_values(name, lambda value, _: value)
        outcomes += part.read_outcomes(columns.correct).tolist() if columns.correct else []
    if not rows:
        raise InputError(
            "there must be at least one row", f"none in {source.label}", "Check the file."
        )
    votes = self_consistency([[cells[answer][place] for place in each] for each in rows.values()])
    table: dict[str, Any] = {question: list(rows), _CONFIDENCE: votes.confidence}
    for name in columns_of_question:
        table[name] = [
            _unique_value(cells[name], each, name, label) for label, each in rows.items()
        ]
    named: dict[str, Any] = {"confidence": _CONFIDENCE, "clusters": None, "confidence_as": "number"}
    if columns.target is not None:
        table[_CORRECT] = votes.matches(table[columns.target])
        named |= {"target": None, "correct": _CORRECT}
    elif columns.correct is not None:
        table[_CORRECT] = [
            _majority_outcome(
                votes, n, [(cells[answer][place], outcomes[place]) for place in each], label
            )
            for n, (label, each) in enumerate(rows.items())
        ]
        named["correct"] = _CORRECT
    if columns.weights is not None:
        table[columns.weights] = np.array(table[columns.weights], dtype=np.float64)
    frame = Frame(table)
    frame.label = source.label
    frame.notes = [*source.notes, *votes.notes(table.get(_CORRECT, ()))]
    frame.notes += [f"{skipped:,} answers lack a value and were left out."] if skipped else []
    return frame, replace(columns, **named)


def _outcome_columns(columns: Columns) -> list[str]:
    """Return the column of outcomes in a list; empty if there is none."""
    return [] if columns.correct is None else [columns.correct]


def _unique_value(values: Sequence[Any], rows: Sequence[int], column: str, question: str) -> Any:
    """Return the value that all rows of a question share."""
    different = {str(values[row]): values[row] for row in rows}
    if len(different) > 1:
        raise InputError(
            f"column {column!r} must have the same value in all rows of a question",
            f"{truncate(', '.join(different), 60)} in question {truncate(question, 40)}",
            ("Name the column of the questions by ", Argument("clusters"), "."),
        )
    return values[rows[0]]


def _majority_outcome(
    votes: SelfConsistency, index: int, pairs: Sequence[tuple[Any, bool]], question: str
) -> bool:
    """Return whether the majority answer is correct; all rows that give it must agree on that."""
    key = votes.normalize(votes.answer[index])
    right = {outcome for answer, outcome in pairs if votes.normalize(answer) == key}
    if key and len(right) > 1:
        raise InputError(
            "equal answers to a question must be all correct or all wrong",
            f"both for {truncate(votes.answer[index], 40)!r} in question {truncate(question, 40)}",
            ("Name the column of true answers by ", Argument("target"), " instead."),
        )
    return bool(key) and right == {True}
