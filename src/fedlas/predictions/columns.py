"""Columns of a table, by meaning: scores, labels, outcomes, weights and groups."""

from __future__ import annotations

import csv
import re
from collections import Counter
from collections.abc import Container, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, fields, replace
from fnmatch import fnmatchcase
from typing import Any, Literal, get_args

from fedlas._core.check import Argument, InputError, check_choice, describe, suggestion
from fedlas.predictions.cells import dotted, few
from fedlas.predictions.names import check_increasing, check_order, matched_parts, name_numbers

_DEFAULTS = (
    ("logits", "target", "label_probs", "weights"),
    ("confidence", "correct", "weights"),
    ("confidence", "predicted", "target", "weights"),
)
"""Arrays of an ``.npz`` that need no naming, in sets of which some are optional."""
_OPTIONAL = {"target", "label_probs", "weights"}
_SCORES = ("logits", "probs", "confidence")
_SINGLE = ("target", "correct", "predicted", "weights", "groups", "clusters")
_PARTNERS = {
    "correct": ("confidence",),
    "predicted": ("confidence",),
    "normalize": ("probs", "label_probs"),
    "percent": ("probs", "confidence"),
    "classes": ("logits", "probs"),
    "label_probs": ("logits", "probs"),
    "event": ("logits", "probs"),
}
"""Columns that an option needs one of."""
_INDEX = re.compile(r"|Unnamed: \d+|__index_level_\d+__")
"""Columns that pandas writes for the index of a frame."""

Names = str | Sequence[str] | None
ConfidenceForm = Literal["number", "words", "sum", "mean", "min", "p-true"]
CONFIDENCE_FORMS: tuple[ConfidenceForm, ...] = get_args(ConfidenceForm)


@dataclass(frozen=True)
class Columns:
    """The columns of a table as the user names them; nothing is guessed.

    One of ``logits``, ``probs`` and ``confidence`` says what the scores are. Without any they are the arrays of an
    ``.npz`` that are called ``logits`` (and ``target``), or ``confidence`` and ``correct``.

    Args:
        logits: Column names in the order of the classes: a sequence, or text with commas between them, where a name
            with a comma stands in double quotes. A name with ``*`` or ``?`` stands for all that match, in the order of
            the file. A single name is either one column of lists, or the logit of the positive one of two classes.
        probs: The same for probabilities.
        target: Column of the labels; None if there are none.
        classes: Names of the classes in the order of the columns; none if labels are numbers from 0, or the names of
            the columns.
        confidence: Column of the probability of the predicted class, where the others are unknown.
        correct: Column that says whether the predicted class is the label: 0 and 1, true and false, yes and no, or
            correct and incorrect.
        predicted: Column of the predicted class, in place of ``correct``: it is compared with ``target`` as text.
        label_probs: Columns of the distribution of each label, as annotators voted; named like ``probs``.
        weights: Column of the weights of samples.
        groups: Column of the groups of samples; it may be one of the others.
        covariates: Columns that say more about a sample, named like ``probs``: numbers, or text of at most 256 values.
        clusters: Column of the cluster of each sample, such as its patient; it may be one of the others.
        event: Name of the class, of two, that two-class measures are about, or its number, 0 or 1; None: it is not
            said.
        normalize: Divide each row of ``probs`` and ``label_probs`` by its sum, whatever that is.
        percent: Divide ``probs`` or ``confidence`` by 100. Numbers with a percent sign need no option.
        drop_missing: Leave out rows in which a value is missing; those without a group stay, in a group "(no group)".
        separator: Separator of a CSV file; None notices commas, semicolons, tabs and bars.
        confidence_as: Form of ``confidence``: ``"number"``; ``"words"`` for text that states it; ``"sum"``, ``"mean"``
            or ``"min"`` for lists of token log-probabilities; ``"p-true"`` for those of True and False.
        format: ``"table"``, or ``"lm-eval"`` for samples of lm-evaluation-harness; None notices the latter.

    Raises:
        InputError: If several kinds of scores are named, or what goes with another kind; or for an empty or repeated
            name.

    Example:
        >>> Columns(probs="p_*", target="label").kind
        'probs'
    """

    logits: Names = None
    probs: Names = None
    target: str | None = None
    classes: tuple[str, ...] = ()
    confidence: str | None = None
    correct: str | None = None
    predicted: str | None = None
    label_probs: Names = None
    weights: str | None = None
    groups: str | None = None
    covariates: Names = None
    clusters: str | None = None
    event: str | int | None = None
    normalize: bool = False
    percent: bool = False
    drop_missing: bool = False
    separator: str | None = None
    confidence_as: ConfidenceForm = "number"
    format: Literal["table", "lm-eval"] | None = None

    def __post_init__(self) -> None:
        self._check_types()
        object.__setattr__(self, "classes", tuple(_words(self.classes)))
        self._check_names()
        self._check_together()

    def _check_types(self) -> None:
        for option in (*_SINGLE, "confidence", "separator", "format"):
            if not isinstance(name := getattr(self, option), str | None):
                raise InputError("must be text", describe(name), "Pass one name.", argument=option)
        if not isinstance(self.event, str | int | None) or isinstance(self.event, bool):
            raise InputError(
                "must be a class", describe(self.event), "Pass its name.", argument="event"
            )
        for option in ("normalize", "percent", "drop_missing"):
            if not isinstance(flag := getattr(self, option), bool):
                raise InputError(
                    "must be True or False", describe(flag), "Pass True.", argument=option
                )

    def _check_names(self) -> None:
        for option in ("logits", "probs", "label_probs", "covariates", "classes"):
            words = _words(getattr(self, option))
            none = not words and option != "classes" and getattr(self, option) is not None
            if none or not all(words) or len(set(words)) < len(words):
                raise InputError(
                    "must hold names, each once",
                    describe(getattr(self, option)),
                    "Write a,b,c or 'prefix_*'; quote a name with a comma.",
                    argument=option,
                )
        if self.separator is not None and len(self.separator) != 1:
            raise InputError(
                "the separator must be one character",
                repr(self.separator),
                "Write ';' or ',', or leave it out.",
            )
        check_choice("confidence_as", self.confidence_as, CONFIDENCE_FORMS)
        if self.format is not None:
            check_choice("format", self.format, ["table", "lm-eval"])

    def _check_together(self) -> None:
        """Refuse options that contradict each other."""
        kinds = [Argument(name) for name in _SCORES if getattr(self, name) is not None]
        if len(kinds) > 1:
            raise InputError(
                ("only one of ", *listed(_SCORES, " and "), " can name columns"),
                tuple(listed([kind.name for kind in kinds], " and ")),
                "Say what the columns hold: the file does not show it.",
            )
        for option, partners in _PARTNERS.items():
            has_partner = any(getattr(self, name) for name in partners)
            value = getattr(self, option)
            is_there = value is not None if option == "event" else bool(value)
            if is_there and kinds and not has_partner:
                raise InputError(
                    "is for other columns",
                    kinds[0],
                    ["leave it out", *(("name columns by ", Argument(name)) for name in partners)],
                    argument=option,
                )
        if self.correct is not None and (self.predicted is not None or self.target is not None):
            raise InputError(
                (
                    "outcomes must be named once, by ",
                    Argument("correct"),
                    " or by ",
                    *listed(("predicted", "target"), " and "),
                ),
                (Argument("correct"), " with one of these"),
                "Leave one or the other out.",
            )

    @property
    def kind(self) -> str | None:
        """Kind of the scores: ``"logits"``, ``"probs"``, ``"confidence"``, or None where names of arrays decide."""
        return next((name for name in _SCORES if getattr(self, name) is not None), None)

    @property
    def has_outcomes(self) -> bool:
        """Whether columns say what the label is, or whether the predicted class is it."""
        if self.kind == "confidence":
            return self.correct is not None or (
                self.predicted is not None and self.target is not None
            )
        return self.target is not None

    @property
    def others(self) -> tuple[str, ...]:
        """Columns whose values are text or numbers of any kind, each once."""
        text = None if self.confidence_as == "number" else self.confidence
        named = (self.target, self.correct, self.predicted, self.groups, self.clusters, text)
        return tuple(dict.fromkeys(name for name in named if name is not None))

    @property
    def paths(self) -> list[str]:
        """Names that may be paths into values of JSON, as ``a.b`` is."""
        values = [
            value
            for name, value in vars(self).items()
            if name not in ("classes", "event", "separator")
        ]
        texts = [
            word
            for value in values
            if isinstance(value, str | list | tuple)
            for word in _words(value)
        ]
        plain = {word: dotted(word) for word in texts}
        return [word for word, path in plain.items() if "." in path and not set(path) & set("*?[")]

    def or_default(self, names: Sequence[str]) -> Columns:
        """Return these columns, with the scores of an ``.npz`` that need no naming."""
        arrays = next((line for line in _DEFAULTS if {*line} - _OPTIONAL <= {*names}), ())
        default: dict[str, Any] = {
            name: name for name in arrays if name in names and not getattr(self, name)
        }
        return self if self.kind is not None else replace(self, **default)

    def words(self, option: str) -> list[str]:
        """Return the names and patterns of a field that takes several."""
        return _words(getattr(self, option))

    def covariates_in(self, names: Sequence[str], *, where: str) -> tuple[str, ...]:
        """Return the covariates among the columns of a table; a pattern leaves out columns of other meaning.

        Raises:
            InputError: If one does not exist, or is named as a score or a label too.
        """
        scores = _words(getattr(self, self.kind or "logits"), names)
        patterns = scores + _words(self.label_probs, names)
        others = {self.target, self.correct, self.predicted, self.weights}
        used = {
            name
            for name in names
            if name in others or any(fnmatchcase(name, each) for each in patterns)
        }
        covariates = _words(self.covariates, names)
        columns, _ = _find(covariates, names, used, "covariates", where, fewest=1)
        for name in used.intersection(columns):
            raise InputError(
                "covariates must be other columns than scores and labels",
                repr(name),
                ("Leave it out of ", Argument("covariates"), "."),
            )
        return tuple(dict.fromkeys(columns))

    def find(self, names: Sequence[str], *, where: str) -> NumberColumns:
        """Return the number columns among ``names``.

        Args:
            names: Names of all columns, in the order of the file.
            where: The file, for messages.

        Raises:
            InputError: If one is missing, a pattern matches fewer than two or its matches are numbered out of order, a
                column is named twice (by the file or by the user), or the label is among the scores.
        """
        _check_once(names, f"column names of {where} must differ", "Rename them.")
        options = {option: getattr(self, option) for option in _SINGLE}
        single = {option: name for option, name in options.items() if name is not None}
        for option, name in single.items():
            _check_exists(name, names, option, where)
        kind = self.kind or "logits"
        scores, parts = _find(
            _words(getattr(self, kind), names), names, {*single.values()}, kind, where
        )
        if kind == "confidence" and len(scores) > 1:
            raise InputError(
                "must name one column", ", ".join(scores), ONE_CONFIDENCE, argument="confidence"
            )
        used = {*single.values(), *scores}
        votes, _ = _find(_words(self.label_probs, names), names, used, "label_probs", where)
        for shared in ("groups", "clusters"):  # may be one of the others
            single.pop(shared, None)
        columns = [*scores, *votes, *single.values()]
        _check_once(columns, "a column must be named once", "Name it for one thing.")
        for group in () if self.classes else (scores, votes):
            check_increasing(group, where)
        return NumberColumns(tuple(scores), tuple(parts), tuple(votes), tuple(name_numbers(scores)))


@dataclass(frozen=True)
class NumberColumns:
    """Columns of numbers in a file.

    Attributes:
        scores: Names of the score columns, in the order of the classes.
        parts: Name of each as a class: the part that ``*`` stands for, or the whole name.
        label_probs: Names of the columns of label distributions, in the order of the classes.
        numbers: Numbers by which the names of the score columns differ, class_1 and class_2; empty if other text does.
    """

    scores: tuple[str, ...]
    parts: tuple[str, ...]
    label_probs: tuple[str, ...] = ()
    numbers: tuple[int, ...] = ()


def columns_named(names: Mapping[str, Any]) -> Columns:
    """Return the columns that keyword arguments name.

    Raises:
        InputError: For an unknown one, or as :class:`Columns`.
    """
    arguments = [each.name for each in fields(Columns)]
    for name in names:
        check_choice("an argument of a table", name, arguments)
    return Columns(**names)


ONE_CONFIDENCE = (
    "Name the column of the predicted class's probability; of all classes name ",
    Argument("probs"),
    ".",
)


def listed(names: Sequence[str], last: str) -> list[str | Argument]:
    """Return arguments with commas between them, and ``last`` before the last."""
    words: list[str | Argument] = []
    for name in names:
        words += [", ", Argument(name)]
    return [*words[1:-2], last, words[-1]] if names[1:] else words[1:]


def _words(text: Names, names: Sequence[str] = ()) -> list[str]:
    """Return the names and patterns in ``a,"b, c",p_*``; a text that is one of the ``names`` is that column alone.

    Raises:
        InputError: If it is neither text nor a sequence of texts.
    """
    if isinstance(text, str):
        if text in names:
            return [text]
        with suppress(csv.Error):
            return [word.strip() for word in next(csv.reader([text], skipinitialspace=True), [""])]
    elif text is None or (
        isinstance(text, list | tuple) and all(isinstance(name, str) for name in text)
    ):
        return list(text or ())
    raise InputError(
        "columns and classes must be named by text",
        describe(text),
        "Pass 'a,b,c' or ['a', 'b', 'c'].",
    )


def _find(
    patterns: Sequence[str],
    names: Sequence[str],
    used: Container[str],
    option: str,
    where: str,
    fewest: int = 2,
) -> tuple[list[str], list[str]]:
    """Return the columns that ``patterns`` name, and their names as classes; wildcards leave out ``used`` columns."""
    columns: list[str] = []
    parts: list[str] = []
    for pattern in patterns:
        if pattern in names or not set(pattern) & set("*?["):
            _check_exists(pattern, names, option, where)
            matches = matched = [pattern]
        else:
            matches = [name for name in names if fnmatchcase(name, pattern) and name not in used]
            matches = [name for name in matches if not _INDEX.fullmatch(name)]
            if len(matches) < fewest:
                got = f"{len(matches)} of {few(names)} in {where}"
                fix = "Name the columns"
                fix += "; a single one is the positive class of two." if fewest > 1 else "."
                count = "at least two columns" if fewest > 1 else "a column"
                raise InputError((Argument(option, pattern), f" must match {count}"), got, fix)
            matched = matched_parts(pattern, matches)
            if fewest > 1:  # classes
                check_order(matched, pattern, where)
        columns += matches
        parts += matched
    return columns, parts


def _check_exists(name: str, names: Sequence[str], option: str, where: str) -> None:
    if name not in names:
        raise InputError(
            f"must name a column of {where}", repr(name), suggestion(name, names), argument=option
        )


def _check_once(names: Sequence[str], expected: str, fix: str) -> None:
    for name, times in Counter(names).most_common(1):
        if times > 1:
            raise InputError(expected, f"{name!r} {times} times", fix)
