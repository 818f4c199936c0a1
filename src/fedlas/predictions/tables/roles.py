"""Roles of table columns, from which tables, frames, JSON, archives and command-line options derive.

A new role is a field of :class:`Columns`, declared by :func:`role` in one line, and what uses it: a field of
``Predictions``, if it says something of a sample, with its check in ``sample_values.py``.
"""

# ruff: noqa: RUF009 (`role` returns a field of a dataclass)
from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from fedlas._core.check import (
    Argument,
    InputError,
    check_choice,
    describe,
    suggestion,
    truncated_list,
)
from fedlas.predictions.tables.columns import (
    ONE_CONFIDENCE,
    Names,
    check_column_exists,
    check_unique,
    match_columns,
    split_names,
    to_dotted_path,
)
from fedlas.predictions.tables.contradictions import check_combinations
from fedlas.predictions.tables.names import check_increasing_numbers, pair_names

if TYPE_CHECKING:
    from fedlas.predictions.tables.words import Words

ADDED = "calibrated_"
"""Prefix of the columns that ``fedlas apply`` adds."""
_DEFAULTS = (
    ("logits", "target", "label_probs", "weights"),
    ("confidence", "correct", "weights"),
    ("confidence", "predicted", "target", "weights"),
)
"""Standard array names of an ``.npz``, in sets of which some names are optional."""
_OPTIONAL = {"target", "label_probs", "weights"}

ConfidenceForm = Literal["number", "words", "sum", "mean", "min", "p-true", "vote"]
CONFIDENCE_FORMS: tuple[ConfidenceForm, ...] = get_args(ConfidenceForm)
RoleKind = Literal["score", "label", "sample", "reading"]


@dataclass(frozen=True)
class Role:
    """Role of a field of :class:`Columns`: kind, help text, and how the option is written.

    Attributes:
        kind: ``"score"`` or ``"label"`` column; ``"sample"``: one value per sample; ``"reading"``: how columns
            are read.
        text: Help text of the option.
        metavar: Placeholder in the help; ``"COLUMN"`` names one column, ``"COLUMNS"`` several, None is a switch.
        option: Name of the option, if it differs from the field name.
        choices: Allowed values.
        beside: Kinds of scores of which one is required.
        is_text: Whether cells are read as text, whatever they hold.
        is_shared: Whether the column may have a second role.
        of_live: Whether it determines how scores are read, and so also applies to tables without labels.
        of_fit: Whether only cross-fitting uses it: commands and functions without cross-fitting refuse it.
    """

    kind: RoleKind
    text: str
    metavar: str | None = "COLUMN"
    option: str = ""
    choices: tuple[str, ...] = ()
    beside: tuple[str, ...] = ()
    is_text: bool = False
    is_shared: bool = False
    of_live: bool = False
    of_fit: bool = False


def role(kind: RoleKind, text: str, default: object = None, **properties: Any) -> Any:
    """Return a dataclass field of :class:`Columns` with its role as metadata."""
    return field(default=default, metadata={"role": Role(kind, text, **properties)})


@dataclass(frozen=True)
class Columns:
    """Roles of the columns of a table, as named by the user; nothing is guessed.

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
            or ``"min"`` for lists of token log-probabilities; ``"p-true"`` for those of True and False; ``"vote"`` for
            answers, several rows to each question of ``clusters``: the share that agrees with the most frequent one.
        words: With ``confidence_as="words"``: probabilities of words that the table of Kent (1964) lacks or has others
            for, as ``{"high": 0.9, "low": 0.4}`` or ``"high=.9,low=.4"``.
        format: ``"table"``, or ``"lm-eval"`` for samples of lm-evaluation-harness; None notices the latter.
        time: Column of the time of each sample, as numbers or dates; it may be one of the others. No row is judged by a
            fit on later ones.
        one_per_cluster: Keep the first row of each of the ``clusters``, so that rows are independent.
        labels: Columns of several labels a sample, each with a probability of its own, named like ``probs``: 1 where a
            label is present, 0 where it is absent, empty or -1 where that is unknown. What follows the common beginning
            of the names pairs them with the scores, as p_Edema and y_edema; if no names agree, their order does: a note
            then names the pairs.

    Raises:
        InputError: If several kinds of scores are named, or what goes with another kind; or for an empty or repeated
            name.

    Example:
        >>> Columns(probs="p_*", target="label").kind
        'probs'
    """

    # fmt: off
    logits: Names = role("score", "columns of logits in the order of the classes: a,b,c or 'logit_*', or one --logits "
        "for each; a single column is the second of two classes, or holds lists (default: array logits of an .npz)",
        metavar="COLUMNS", of_live=True)
    probs: Names = role("score", "probabilities, named like --logits (default: none)", metavar="COLUMNS",
        of_live=True)
    target: str | None = role("label", "labels: class names or numbers from 0 (default: none)",
        is_text=True)
    classes: tuple[str, ...] = role("reading", "class names in the order of the columns (default: the part of each "
        "name that * matches)", (), metavar="A,B,C", beside=("logits", "probs"), of_live=True)
    confidence: str | None = role("score", "column of the probability of the predicted class, where the others are "
        "unknown (default: array confidence of an .npz)", of_live=True)
    correct: str | None = role("label", "with --confidence: column of 0 and 1, true and false, yes and no, or correct "
        "and incorrect (default: none)", beside=("confidence",), is_text=True)
    predicted: str | None = role("label", "with --confidence and --target: column of the predicted class, written like "
        "the labels (default: none)", beside=("confidence",), is_text=True)
    label_probs: Names = role("sample", "columns with the share of annotators' votes for each class, named like "
        "--logits (default: none)", metavar="COLUMNS", beside=("logits", "probs"))
    weights: str | None = role("sample", "column of the weight of each sample (default: all weights are 1)")
    groups: str | None = role("sample", "column of groups; each is measured (default: none)",
        is_text=True, is_shared=True)
    covariates: Names = role("sample", "columns with further information on a sample: numbers, or text of at most 256 "
        "values; named like --logits (default: none)", metavar="COLUMNS", is_shared=True)
    clusters: str | None = role("sample", "column of the cluster of each sample, such as its patient: samples of a "
        "cluster are resampled together (default: all samples are independent)", is_text=True, is_shared=True)
    event: str | int | None = role("reading", "positive class (default: the affirmative, or the last)",
        metavar="CLASS", beside=("logits", "probs"))
    normalize: bool = role("reading", "divide each row of probabilities by its sum (default: refuse rows whose sum is "
        "not 1)", False, metavar=None, beside=("probs", "label_probs"), of_live=True)
    percent: bool = role("reading", "divide probabilities and confidences by 100; 56%% needs no option (default: take "
        "them as fractions)", False, metavar=None, beside=("probs", "confidence"), of_live=True)
    drop_missing: bool = role("reading", "drop rows in which a value other than the group is missing (default: "
        "refuse them)", False, metavar=None)
    separator: str | None = role("reading", "separator of a CSV file (default: , ; tab or |, as detected)",
        metavar="CHAR", option="--sep", of_live=True)
    confidence_as: ConfidenceForm = role("reading", "form of --confidence: number; words (stated in text); sum, "
        "mean or min of token log-probabilities; p-true (log-probabilities of True and False); vote (one answer per "
        "row, with --clusters as question and --target as true answer) (default: number)", "number", metavar="",
        choices=CONFIDENCE_FORMS, beside=("confidence",), of_live=True)
    words: Words = role("reading", "with --confidence-as words: probabilities of further words, as high=.9,medium=.7,"
        "low=.4 (default: those of S. Kent's table; calibrate learns others)", metavar="WORD=X",
        beside=("confidence",), of_live=True)
    format: Literal["table", "lm-eval"] | None = role("reading", "lm-eval: samples of lm-evaluation-harness (default: "
        "detected)", metavar="", choices=("table", "lm-eval"))
    one_per_cluster: bool = role("reading", "keep only the first row of each cluster, so that rows are independent "
        "(default: keep all)", False, metavar=None)
    time: str | None = role("sample", "column of the time of each sample, numbers or dates: cross-fitting then holds "
        "out later rows (default: rows have no order)", is_text=True, is_shared=True, of_fit=True)
    labels: Names = role("label", "several labels per sample: columns of 0 and 1, empty or -1 if unknown, named like "
        "--logits; names are paired with the scores, as in p_edema and y_edema (default: none)",
        metavar="COLUMNS", beside=("logits", "probs"))
    # fmt: on

    @classmethod
    def from_file(cls, path: str | Path) -> Columns:
        """Return the columns that a file names: TOML with these fields as keys, or JSON of ``fedlas calibrate``.

        Raises:
            InputError: If it cannot be read, has an unknown key, or its values are no columns.
        """
        from fedlas.predictions.tables.columns_file import parse_columns_file

        content = parse_columns_file(path)
        for key in content:
            if key not in ROLES:
                fix = suggestion(key, ROLES)
                raise InputError(f"keys of {path} must be roles of columns", repr(key), fix)
        try:
            return cls(**content)
        except InputError as error:
            expected, got, fix = error.parts
            raise InputError(f"in {path}, {expected}", got, fix) from error

    def __post_init__(self) -> None:
        self._check_types()
        object.__setattr__(self, "classes", tuple(split_names(self.classes)))
        self._check_names()
        check_combinations(self, ROLES)

    def _check_types(self) -> None:
        for option in (*_SINGLE, "confidence", "separator", "format"):
            if not isinstance(name := getattr(self, option), str | None):
                raise InputError("must be text", describe(name), "Pass one name.", argument=option)
        if not isinstance(self.event, str | int | None) or isinstance(self.event, bool):
            raise InputError(
                "must be a class name or index",
                describe(self.event),
                "Pass the name of the positive class.",
                argument="event",
            )
        for option in _SWITCHES:
            if not isinstance(flag := getattr(self, option), bool):
                raise InputError(
                    "must be True or False", describe(flag), "Pass True.", argument=option
                )

    def _check_names(self) -> None:
        for option in (*_SEVERAL, "classes"):
            value = getattr(self, option)
            if value is None or (option == "classes" and not value):
                continue
            words = split_names(value)
            if not words or not all(words) or len(set(words)) < len(words):
                raise InputError(
                    "must hold different, nonempty names",
                    describe(value),
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
            check_choice("format", self.format, ROLES["format"].choices)

    @property
    def kind(self) -> str | None:
        """Kind of the scores: ``"logits"``, ``"probs"``, ``"confidence"``, or None if array names decide."""
        return next((name for name in SCORES if getattr(self, name) is not None), None)

    @property
    def cell_form(self) -> ConfidenceForm:
        """Form of the cells of ``confidence``: of a log of lm-evaluation-harness numbers, whatever answers state."""
        return "number" if self.format == "lm-eval" else self.confidence_as

    @property
    def calibrated_scores(self) -> list[str]:
        """Names of score columns that ``fedlas apply`` has added, which would be calibrated twice."""
        names = self.split_option(self.kind or "logits")
        return [name for name in names if name.rpartition(".")[2].startswith(ADDED)]

    def already_calibrated_notes(self) -> list[str]:
        """Return a warning for a fit on scores that are calibrated already, or none."""
        names = self.calibrated_scores
        text = f"{truncated_list(names)} were calibrated by fedlas apply already; this fit calibrates them again."
        return [text] if names else []

    @property
    def has_outcomes(self) -> bool:
        """Whether columns give the label, or the correctness of the prediction."""
        if self.kind == "confidence":
            return self.correct is not None or (
                self.predicted is not None and self.target is not None
            )
        return self.target is not None or self.labels is not None

    @property
    def text_columns(self) -> tuple[str, ...]:
        """Columns that are read as text or as values of any type, each once."""
        text = None if self.cell_form == "number" else self.confidence
        named = (*(getattr(self, name) for name in _TEXTS), text)
        return tuple(dict.fromkeys(name for name in named if name is not None))

    @property
    def paths(self) -> list[str]:
        """Column names that may be JSON paths, such as ``a.b``."""
        values = [value for name, value in vars(self).items() if ROLES[name].kind != "reading"]
        texts = [
            word
            for value in values
            if isinstance(value, str | list | tuple)
            for word in split_names(value)
        ]
        plain = {word: to_dotted_path(word) for word in texts}
        return [word for word, path in plain.items() if "." in path and not set(path) & set("*?[")]

    def patterns(self, names: Sequence[str], *, covariates: bool) -> list[str]:
        """Return the wildcard patterns of score and vote columns, and optionally of covariates."""
        options = (self.kind or "logits", "label_probs", *["covariates"] * covariates)
        texts = [text for option in options for text in split_names(getattr(self, option), names)]
        return [text for text in texts if text not in names and set(text) & set("*?[")]

    def with_default_scores(self, names: Sequence[str]) -> Columns:
        """Return these columns; if no scores are named, with the standard array names of an ``.npz``."""
        arrays = next((line for line in _DEFAULTS if {*line} - _OPTIONAL <= {*names}), ())
        default: dict[str, Any] = {
            name: name for name in arrays if name in names and not getattr(self, name)
        }
        return self if self.kind is not None else replace(self, **default)

    def split_option(self, option: str) -> list[str]:
        """Return the names and patterns in an option that takes several."""
        return split_names(getattr(self, option))

    def find_covariates(self, names: Sequence[str], *, where: str) -> tuple[str, ...]:
        """Return the covariate columns of a table; patterns skip columns that have another role.

        Raises:
            InputError: If one does not exist, or is named as a score or a label too.
        """
        scores = split_names(getattr(self, self.kind or "logits"), names)
        patterns = scores + split_names(self.label_probs, names)
        others = {getattr(self, name) for name in _SINGLE if not ROLES[name].is_shared}
        # Patterns of score columns skip columns that are named explicitly.
        shared = {getattr(self, name) for name in _SINGLE if ROLES[name].is_shared}
        shared.update(self.split_option("covariates"))
        used = {
            name
            for name in names
            if name in (*others, *patterns)
            or (name not in shared and any(fnmatchcase(name, each) for each in patterns))
        }
        covariates = split_names(self.covariates, names)
        columns, _ = match_columns(covariates, names, used, "covariates", where, min_count=1)
        for name in used.intersection(columns):
            raise InputError(
                "covariates must not include score or label columns",
                repr(name),
                ("Leave it out of ", Argument("covariates"), "."),
            )
        return tuple(dict.fromkeys(columns))

    def pair_labels(
        self, scores: Mapping[str, str], names: Sequence[str], *, where: str
    ) -> tuple[dict[str, str], tuple[str, ...], bool]:
        """Return the label column of each score column, the label names, and whether the columns' order paired them.

        Args:
            scores: Columns of scores, with the part of each name that ``*`` stands for.
            names: Names of all columns, in the order of the file.
            where: The file, for messages.

        Raises:
            InputError: If a column does not exist, or scores and labels do not belong together.
        """
        used = {*scores, *(getattr(self, name) for name in _SINGLE)}
        columns, parts = match_columns(
            split_names(self.labels, names), names, used, "labels", where, min_count=1
        )
        check_unique([*scores, *columns], "a column must be named once", "Name it for one thing.")
        order, titles = pair_names(scores, dict(zip(columns, parts, strict=True)), where)
        places = range(len(columns)) if order is None else order
        paired = {score: columns[place] for score, place in zip(scores, places, strict=True)}
        return paired, titles, order is None

    def find_scores(
        self, names: Sequence[str], *, where: str
    ) -> tuple[dict[str, str], tuple[str, ...]]:
        """Return the score columns mapped to their class names, and the columns of label distributions.

        Both are in the order of the classes; the name as a class is the part that ``*`` stands for, or the whole name.

        Args:
            names: Names of all columns, in the order of the file.
            where: The file, for messages.

        Raises:
            InputError: If one is missing, a pattern matches fewer than two or its matches are numbered out of order, a
                column is named twice (by the file or by the user), or the label is among the scores.
        """
        check_unique(names, f"column names of {where} must differ", "Rename them.")
        options = {option: getattr(self, option) for option in _SINGLE}
        single = {option: name for option, name in options.items() if name is not None}
        for option, name in single.items():
            check_column_exists(name, names, option, where)
        kind = self.kind or "logits"
        scores, parts = match_columns(
            split_names(getattr(self, kind), names),
            names,
            {*single.values(), *self.split_option("covariates")},
            kind,
            where,
            min_count=2 if self.labels is None else 1,  # numbers in names of labels are no classes
        )
        if kind == "confidence" and len(scores) > 1:
            raise InputError(
                "must name one column", ", ".join(scores), ONE_CONFIDENCE, argument="confidence"
            )
        used = {*single.values(), *scores}
        votes, _ = match_columns(
            split_names(self.label_probs, names), names, used, "label_probs", where
        )
        alone = [column for option, column in single.items() if not ROLES[option].is_shared]
        columns = [*scores, *votes, *alone]
        if self.labels is not None:
            check_unique(columns, "a column must be named once", "Name it for one thing.")
            return dict(zip(scores, parts, strict=True)), ()
        check_unique(columns, "a column must be named once", "Name it for one thing.")
        for group in () if self.classes else (scores, votes):
            check_increasing_numbers(group, where)
        return dict(zip(scores, parts, strict=True)), tuple(votes)


ROLES: Mapping[str, Role] = {each.name: each.metadata["role"] for each in fields(Columns)}
"""All roles, by the field of :class:`Columns`."""
SCORES = tuple(name for name, each in ROLES.items() if each.kind == "score")
LABELS = tuple(name for name, each in ROLES.items() if each.kind == "label")
OF_FIT = tuple(name for name, each in ROLES.items() if each.of_fit)
"""Roles without effect where there is no cross-fitting."""
_SINGLE = tuple(
    name for name, each in ROLES.items() if each.metavar == "COLUMN" and each.kind != "score"
)
_SEVERAL = tuple(name for name, each in ROLES.items() if each.metavar == "COLUMNS")
_SWITCHES = tuple(name for name, each in ROLES.items() if each.metavar is None)
_TEXTS = tuple(name for name, each in ROLES.items() if each.is_text)


def columns_from_kwargs(names: Mapping[str, Any]) -> Columns:
    """Return the columns given by keyword arguments.

    Raises:
        InputError: For an unknown one, or as :class:`Columns`.
    """
    for name in names:
        check_choice("an argument of a table", name, ROLES)
    return Columns(**names)
