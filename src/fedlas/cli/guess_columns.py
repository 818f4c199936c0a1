"""Guesses which columns of a table hold scores, labels, clusters, times and weights, from names and first rows."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from fedlas._core.check import InputError, truncated_list
from fedlas._core.text import quote_path
from fedlas.cli.arguments import format_column_options, format_role
from fedlas.cli.table_sample import TableSample
from fedlas.predictions.tables.columns import join_names
from fedlas.predictions.tables.roles import Columns

_LABELS_PATTERN = re.compile(
    r"(y|y_?true|target|true_?label|labels?|truth|gold|class|outcome)", re.I
)
_CONFIDENCE_PATTERN = re.compile(r"(.*_)?conf(idence)?", re.I | re.S)
_CORRECT_PATTERN = re.compile(r"(is_?)?(correct|right)|exact_match|acc", re.I)
_PREDICTED_PATTERN = re.compile(
    r"(predicted|prediction|pred|y_?pred|answer)(_?(class|label))?", re.I
)
# A column weight may be that of a body.
_WEIGHTS_PATTERN = re.compile(r"sample_?weights?|weights", re.I)
_CLUSTERS_PATTERN = re.compile(
    r"(patient|subject|user|customer|client|person|image|document|question|prompt|problem)([ _-]?id)?",
    re.I,
)
_QUESTIONS_PATTERN = re.compile(r"(question|prompt|problem|task|doc|query)([ _-]?(id|text))?", re.I)
_PREFIX_PATTERN = re.compile(r"([^_.\- ]+[_.\- ])(.+)", re.S)
"""Beginning of a name, such as p_ of p_edema, and what follows it."""
_WORDS = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")
_SCORE_WORDS = re.compile(
    r"p|pd|prob|probs|proba|probability|probabilities|score|scores|risk|pred|preds|predicted|"
    r"prediction|yhat|propensity|likelihood|chance"
)
"""Words in the name of a score, which wins over other numbers from 0 to 1, such as a ratio."""
_OUTCOME_WORDS = re.compile(
    r"y|label|target|truth|outcome|event|default|defaulted|bad|churn|churned|left|fraud|death|"
    r"died|dead|mortality|survived|readmitted|relapse|positive|case|converted|conversion|"
    r"clicked|click|response|bought|purchase|paid"
)
"""Words in the name of a label, which wins over other columns of two values."""
_VERSION_WORDS = re.compile(
    r"v|ver|version|old|new|current|candidate|champion|challenger|baseline|prod|next|before|"
    r"after|a|b"
)
"""Words that differ between the names of two versions of a score."""
_ANSWER_WORDS = re.compile(
    r"answer|answers|response|output|completion|generation|reply|text|sample|said|stated|"
    r"prediction|confidence"
)
_SEPARATORS = "_.- "
_PERCENT_TOTAL = 100.0
_MAX_CATEGORIES = 256
_LABEL_CELLS = {"0", "1", "0.0", "1.0", "-1", "-1.0", "true", "false"}


@dataclass(frozen=True)
class GuessedColumns:
    """Guessed roles of the columns of a table.

    Attributes:
        columns: The roles.
        reasons: For each role a column or a pattern, and why.
        others: Columns without a role that a calibration may use.
        versions: Score columns of further versions of the model, to be compared with the first.
        unread_dates: Columns of dates of which it is unclear whether the day or the month comes first.
    """

    columns: Columns
    reasons: Mapping[str, str]
    others: tuple[str, ...] = ()
    versions: tuple[str, ...] = ()
    unread_dates: tuple[str, ...] = ()

    def without(self, role: str) -> GuessedColumns:
        """Return the guess without a role."""
        reasons = {name: reason for name, reason in self.reasons.items() if name != role}
        return replace(self, columns=replace(self.columns, **{role: None}), reasons=reasons)


def guess_columns(path: Path, given: Columns | None = None) -> GuessedColumns:
    """Guess the columns of scores, labels, clusters, times and weights from names and first rows.

    Args:
        path: The table.
        given: Roles that the user named; they are kept, and only what they leave open is guessed.

    Raises:
        InputError: If the scores or the labels cannot be known; it names the candidates and the options to pass.
    """
    given = given or Columns()
    content = TableSample(path, given)
    guess = _Guess(content, given)
    guess.find_scores_and_labels()
    guess.find_clusters()
    guess.find_weights()
    guess.find_time()
    columns = Columns(**guess.roles)
    used = {*guess.scores, *guess.versions, *content.dates}
    used |= {name for value in guess.roles.values() if isinstance(value, str) for name in [value]}
    # a calibration of several labels, or of confidences, reads no covariates of the other kind
    is_open = columns.labels is None and columns.confidence_as != "vote" and not given.covariates
    others = [name for name in content.texts if name not in used and _is_covariate(content, name)]
    unread = tuple(name for name, is_read in content.dates.items() if not is_read)
    return GuessedColumns(
        columns,
        guess.reasons,
        tuple(others) if is_open else (),
        tuple(guess.versions),
        () if given.time else unread,
    )


@dataclass
class _Guess:
    """Roles found so far.

    State:
        The roles by name, the reason for each, the columns of the scores, and those of further versions of a score.
    """

    content: TableSample
    given: Columns
    roles: dict[str, Any] = field(default_factory=dict)
    reasons: dict[str, str] = field(default_factory=dict)
    scores: list[str] = field(default_factory=list)
    versions: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        # an error for a column that the table lacks
        found, _ = self.given.find_scores(self.content.names, where=self.content.label)
        self.scores = [*found]
        for each in fields(Columns):
            value = getattr(self.given, each.name)
            if value != each.default:
                self.add(each.name, value, "as given")

    def add(self, role: str, value: object, reason: str) -> None:
        """Give a role to a column or a pattern, unless the user did."""
        if role not in self.roles:
            self.roles[role] = value
            self.reasons[role] = reason

    def find_scores_and_labels(self) -> None:
        """Find several labels, else confidences of answers, else the scores of classes, and their labels."""
        content, given = self.content, self.given
        if pair := _find_label_pair(content, given):
            self._add_several_labels(*pair)
            return
        if given.kind is None and not self._find_answers():
            self.scores = self._find_scores()
        if given.labels is not None or "correct" in self.roles:
            return
        if self._is_confidence and given.target is None and self._find_outcome():
            return
        if "target" not in self.roles:
            labels = _find_labels(content, self.scores, given.event)
            self.add("target", labels, f"{len(content.values(labels)):,} different labels")
        if len(self.scores) == 1 and not self._is_confidence:
            self._check_event_is_known(str(self.roles["target"]))

    @property
    def _is_confidence(self) -> bool:
        return "confidence" in self.roles

    def _find_outcome(self) -> bool:
        """Find the column that says which answers are right."""
        if "predicted" in self.roles:
            return False
        for role, pattern in (("correct", _CORRECT_PATTERN), ("predicted", _PREDICTED_PATTERN)):
            for name in self.content.columns_matching(pattern)[:1]:
                if name not in self.roles.values():
                    self.add(role, name, "by its name")
                    return role == "correct"
        return False

    def _check_event_is_known(self, labels: str) -> None:
        """Raise InputError if neither name nor event says which class a single column of scores is about."""
        words = sorted(self.content.values(labels))
        if self.given.event is not None or self.given.classes:
            return
        if not _identifies_event(self.scores[0], words, None):
            columns = replace(self.given, probs=join_names(self.scores), target=labels)
            raise InputError(
                "the name of a single score column must contain its class",
                f"{self.scores[0]!r} in {self.content.label}, labels {','.join(words)}",
                f"Name the positive class: fedlas init {quote_path(self.content.path)}"
                f"{format_column_options(columns)} {' or '.join(format_role('event', word) for word in words)}.",
            )

    def _add_several_labels(self, scores: str, labels: str, count: int) -> None:
        """Add the roles of columns of several labels, by their prefixes."""
        self.scores = [name for name in self.content.texts if name.startswith((scores, labels))]
        self.add("probs", f"{scores}*", f"{count} labels; numbers from 0 to 1, each of its own")
        self.add(
            "labels",
            f"{labels}*",
            f"0 and 1, or empty; each belongs to the column of {scores}* that ends alike",
        )

    def _find_answers(self) -> bool:
        """Find the confidence of answers: a number, stated in text, log-probabilities, or votes."""
        content = self.content
        for name in content.columns_matching(_CONFIDENCE_PATTERN):
            if content.is_probability(name):
                return self._add_confidence(name, "number", "by its name, from 0 to 1")
        for path, form in content.log_probabilities().items():
            how = "of True and False" if form == "p-true" else "of the tokens; their mean"
            return self._add_confidence(path, form, f"log-probabilities {how}")
        named = [name for name in content.texts if _has_word(name, _ANSWER_WORDS)]
        for name in sorted(named, key=lambda name: not _CONFIDENCE_PATTERN.fullmatch(name)):
            if share := content.stated_share(name):
                reason = f"text that states it, in {share:.0%} of the first rows"
                return self._add_confidence(name, "words", reason)
        return self._find_votes(named)

    def _add_confidence(self, name: str, form: str, reason: str) -> bool:
        self.scores = [name]
        self.add("confidence", name, reason)
        if form != "number":
            self.add("confidence_as", form, "by the cells")
        return True

    def _find_votes(self, answers: Sequence[str]) -> bool:
        """Find several answers to each question, and the true one."""
        content = self.content
        questions = [
            name
            for name in content.columns_matching(_QUESTIONS_PATTERN)
            if 1 < len(content.values(name)) <= content.rows / 2
        ]
        truths = content.columns_matching(_LABELS_PATTERN) + content.columns_matching(
            re.compile(r"(true|correct|expected|reference)_?answer|reference|solution", re.I)
        )
        answers = [name for name in answers if name not in truths]
        for question in questions[:1]:
            # the true answer is one for each question, the others differ
            constant = [name for name in truths if content.is_constant_within(name, question)]
            differing = [name for name in answers if not content.is_constant_within(name, question)]
            if constant and differing:
                self._add_confidence(differing[0], "vote", "several answers to each question")
                self.add("clusters", question, f"{len(content.values(question)):,} questions")
                self.add("target", constant[0], "the true answer")
                return True
        return False

    def _find_scores(self) -> list[str]:
        """Add the role of the score columns; return the names of the columns."""
        content = self.content
        for stem, names in _score_families(content).items():
            rows = list(zip(*(content.numbers[name] for name in names), strict=True))
            sums = [sum(row) for row in rows]
            option = _name_family(stem, names)
            classes = f"{len(names)} classes"
            for total in (1.0, _PERCENT_TOTAL):
                is_total = all(abs(each - total) < 0.02 * total for each in sums)
                if is_total and min(map(min, rows)) >= 0:
                    self.add("probs", option, f"{classes}; each row sums to {total:.0f}")
                    if total != 1.0:
                        self.add("percent", True, "rows sum to 100")
                    return names
            is_named = (stem or "").lower().startswith("logit")
            if is_named or (stem is None and min(map(min, rows)) < 0):
                self.add("logits", option, f"{classes}; numbers of any sign")
                return names
        shares = [name for name in content.numbers if content.is_probability(name)]
        named = [name for name in shares if _has_word(name, _SCORE_WORDS)]
        likely = named or [name for name in shares if _ends_in_class(content, name)]
        if len({_without_version(name) for name in likely}) == 1:
            likely, self.versions = likely[:1], likely[1:]
        if len(likely) != 1:
            raise _scores_error(content, likely, self.given)
        reason = "numbers from 0 to 1: the probability of one of two classes"
        self.add("probs", join_names(likely), reason)
        return likely

    def find_clusters(self) -> None:
        """Find a column of clusters, such as patients, of which some have several rows."""
        content = self.content
        for name in content.columns_matching(_CLUSTERS_PATTERN):
            count = len(content.values(name))
            if name not in self.roles.values() and 1 < count < content.rows:
                self.add(
                    "clusters", name, f"{count:,} of them in {content.rows:,} rows: held out whole"
                )
                return

    def find_weights(self) -> None:
        """Find a column of sample weights."""
        for name in self.content.columns_matching(_WEIGHTS_PATTERN)[:1]:
            if min(self.content.numbers.get(name, [-1])) >= 0:
                self.add("weights", name, "by its name")

    def find_time(self) -> None:
        """Find a column of dates without gaps, by which later rows are held out."""
        content = self.content
        if self._is_confidence and self.roles.get("confidence_as") == "vote":
            return
        for name, is_read in content.dates.items():
            is_free = name not in self.roles.values() and name not in self.scores
            if is_free and is_read and len(content.values(name)) > 1 and all(content.texts[name]):
                self.add("time", name, "dates: no row is judged by a fit on later ones")
                return


def split_words(name: str) -> list[str]:
    """Return the words of a column name in lower case: ``["credit", "score", "v", "2"]`` of ``creditScore_v2``."""
    return [word.lower() for word in _WORDS.findall(name)]


def _has_word(name: str, words: re.Pattern[str]) -> bool:
    return any(map(words.fullmatch, split_words(name)))


def split_stem(name: str) -> tuple[str, str]:
    """Return what score columns share and the class at the end of a name: ``("p_", "yes")``, ``("p", "1")``.

    The end is what follows the last ``_ . -`` or space, or else the digits at the end; it may be empty.
    """
    start = max(map(name.rfind, _SEPARATORS)) + 1
    if not start:
        start = len(name)
        while start and name[start - 1].isdecimal():
            start -= 1
    return name[:start], name[start:]


def _without_version(name: str) -> tuple[str, ...]:
    """Return the words of a name without those of a version: score_v1 and score_v2 have the same."""
    words = split_words(name)
    kept = [word for word in words if not (_VERSION_WORDS.fullmatch(word) or word.isdecimal())]
    return tuple(kept) if len(kept) < len(words) else (name,)


def _find_label_pair(content: TableSample, given: Columns) -> tuple[str, str, int] | None:
    """Return the prefixes of probability and label columns with equal suffixes, and their count; None if no pair."""
    if given.has_outcomes and given.labels is None:
        return None
    families: dict[str, set[str]] = {}
    for name in content.texts:
        if match := _PREFIX_PATTERN.fullmatch(name):
            families.setdefault(match[1], set()).add(match[2])
    for scores, ends in families.items():
        names = [scores + end for end in ends]
        if len(ends) < 2 or not all(map(content.is_probability, names)):
            continue
        if given.kind is not None and given.probs != f"{scores}*":
            continue
        for labels, others in families.items():
            cells = {each.lower() for end in others for each in content.values(labels + end)}
            is_pair = labels != scores and others == ends and cells <= _LABEL_CELLS
            if is_pair and given.labels in (None, f"{labels}*"):
                return scores, labels, len(ends)
    return None


def _ends_in_class(content: TableSample, name: str) -> bool:
    """Return whether a name ends in a value of a column of two values, other than a number: prediction_yes."""
    from fedlas.predictions.event import ends_in_word

    words = {
        word
        for other in content.texts
        if len(content.values(other)) == 2
        for word in content.values(other)
    }
    return any(ends_in_word(name, word) for word in words if not word.isdecimal())


def _scores_error(content: TableSample, named: Sequence[str], given: Columns) -> InputError:
    """Return the error for several possible columns of scores, for none in range, or for none: what to do."""
    command = f"fedlas init {quote_path(content.path)}{format_column_options(given)}"
    if named:
        return InputError(
            "one column, or columns with a common prefix, must look like scores",
            f"{truncated_list(named)} in {content.label}",
            f"Name it: {command} {format_role('probs', named[0])}; or --probs p_yes,p_no for one column per class, "
            "with --percent for percentages, --logits for log-odds.",
        )
    scores = [name for name in content.numbers if _has_word(name, _SCORE_WORDS)]
    for name in scores:
        low, high = min(content.numbers[name]), max(content.numbers[name])
        if low < 0 or high > 1:
            option = format_role("logits" if low < 0 else "probs", name)
            option += " for log-odds" if low < 0 else " --percent"
            return InputError(
                "scores must be probabilities, from 0 to 1",
                f"{name} in {content.label}, from {low:g} to {high:g}",
                f"Say what they are: {command} {option}."
                if high <= _PERCENT_TOTAL
                else "Points need a model first: a logistic regression of the labels on them gives probabilities.",
            )
    shares = [name for name in content.numbers if content.is_probability(name)]
    example = format_role("probs", shares[0]) if shares else "--probs NAME"
    return InputError(
        "the table must have a column of scores, which a model gave to its rows",
        f"{truncated_list(list(content.texts))} in {content.label}, of which none is named like one",
        "Let the model score rows that it was not trained on, and write its probabilities beside the labels: "
        'frame["p_1"] = model.predict_proba(features)[:, 1], or a column p_CLASS for each class. If they are there, '
        f"name them: {command} {example}, or a nested field of JSON by its path, --confidence answer.conf.",
    )


def _name_family(stem: str | None, names: Sequence[str]) -> str | list[str]:
    """Return columns as a pattern, or one by one where their beginning is no plain text in a pattern."""
    pattern = f"{stem}*"
    if stem is None or set(stem) & set("*?[") or join_names([pattern]) != pattern:
        return join_names(names)
    return pattern


def _score_families(content: TableSample) -> dict[str | None, list[str]]:
    """Return numeric columns grouped by a shared prefix; under None, columns named after the labels."""
    families: dict[str | None, list[str]] = {}
    whole = [name for name, each in content.numbers.items() if len(each) == content.rows]
    for name in whole:
        stem, end = split_stem(name)
        if end:
            families.setdefault(stem, []).append(name)
    for labels in content.texts:
        values = content.values(labels)
        if len(values) > 1 and values <= {*whole} and labels not in values:
            # classes that no row of the labels shows stand next to those that some row shows
            first, last = (ends(map(whole.index, values)) for ends in (min, max))
            families[None] = whole[first : last + 1]
    return {stem: names for stem, names in families.items() if stem != "" and len(names) > 1}


def _find_labels(content: TableSample, scores: Sequence[str], event: object) -> str:
    """Return the column of the labels.

    Raises:
        InputError: If no column, or several, look like labels.
    """
    ends = {split_stem(name)[1] for name in scores} | {*scores}
    others = [name for name in content.texts if name not in scores and name not in content.dates]
    named = [name for name in others if _LABELS_PATTERN.fullmatch(name)]
    most = max(2, len(scores))
    fitting = [name for name in others if 1 < len(content.values(name)) <= most]
    if len(scores) == 1:
        fitting = [
            name for name in fitting if _identifies_event(scores[0], content.values(name), event)
        ]
    by_value = [name for name in fitting if content.values(name) <= ends]
    outcomes = [name for name in fitting if _has_word(name, _OUTCOME_WORDS)]
    candidates = next(filter(None, (named, by_value, outcomes, fitting)), [])
    if len(candidates) == 1:
        return candidates[0]
    example = format_role("target", (candidates or ["NAME"])[-1])
    raise InputError(
        "exactly one column must look like labels",
        f"{truncated_list(candidates or others)} in {content.label}",
        f"Name the column: fedlas init {quote_path(content.path)} {example}.",
    )


def _identifies_event(column: str, labels: Collection[str], event: Any) -> bool:
    """Return whether name or event show which of two labels a single score column is the probability of."""
    from fedlas.predictions.event import classes_from_column

    try:
        classes_from_column(column, sorted(labels), event)
    except InputError:
        return False
    return True


def _is_covariate(content: TableSample, name: str) -> bool:
    differ = len(content.values(name))
    return differ > 1 and (name in content.numbers or differ <= _MAX_CATEGORIES)
