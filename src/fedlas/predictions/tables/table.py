"""Tables with roles of columns: validated scores and labels, or confidences and outcomes, read in chunks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fedlas._core.check import InputError, truncated_list
from fedlas._core.ops import Floats
from fedlas.predictions.covariates import Covariates
from fedlas.predictions.event import (
    classes_from_column,
    classes_from_column_pair,
    classes_from_labels,
    ends_in_word,
)
from fedlas.predictions.multi_label import to_log_odds
from fedlas.predictions.probabilities import (
    SUM_TOLERANCE,
    TABLE_FIXES,
    ProbabilityChecker,
    binary_logits,
    safe_log,
)
from fedlas.predictions.sample_values import SAMPLE_VALUES
from fedlas.predictions.tables.cells import (
    MISSING,
    FirstRowPerCluster,
    LabelReader,
    TableChunk,
    cell_to_text,
)
from fedlas.predictions.tables.certainty import certainty_notes
from fedlas.predictions.tables.columns import ONE_CONFIDENCE
from fedlas.predictions.tables.encoder import encode_rows, infer_covariates
from fedlas.predictions.tables.formats.format import Format
from fedlas.predictions.tables.formats.frame import Frame
from fedlas.predictions.tables.growing_array import GrowingArray
from fedlas.predictions.tables.label_cells import multi_label_reader
from fedlas.predictions.tables.names import NameAgreement, normalize_name, numeric_parts
from fedlas.predictions.tables.roles import ROLES, Columns
from fedlas.predictions.tables.units import Units

if TYPE_CHECKING:
    from fedlas.predictions.language.log_probabilities import AnswerCounter

NO_GROUP = "(no group)"
"""Group of rows whose group is missing, where incomplete rows are dropped; no real group may have this name."""


_TEXTS = tuple(name for name in SAMPLE_VALUES if name in ROLES and ROLES[name].is_text)
"""Fields with one value per sample whose cells are read as text."""
Values = dict[str, Any]
"""Values of rows by name: ``scores`` (logits or probabilities ``(n, C)``, or confidences ``(n,)``), ``outcome``
(labels ``(n,)`` int64, or correctness of confidences, bool), ``labels`` of confidences as text, and the fields of
samples: ``label_probs (n, C)``, ``weights (n,)``, ``features (n, D)``, and as text ``groups``, ``clusters`` and
others of ``sample_values.py``. Values without a column are absent."""


class ScoreTable:
    """Table whose columns have roles, validated and read in chunks of rows.

    Args:
        source: What holds its cells: a format of files, or a frame.
        columns: Meaning of its columns.
        covariates: What the columns of covariates hold; None reads them to learn it.
        units: Units that the columns must have, those of a fit; None learns them.
        label_names: Names of several labels a sample, where the table needs none of their columns, or none for those of
            the scores; None: as the columns say.
        learned: Phrases that may state a confidence: a mapping to the probabilities that a fit has learned; else a fit
            is to learn them, rows have a value ``phrases``, and the confidence of a row with a phrase is .5.

    Raises:
        InputError: If a column does not exist, or labels and scores do not belong together.

    State:
        Sentences of :meth:`notes`, which :meth:`rows` fills.
    """

    def __init__(
        self,
        source: Format | Any,
        columns: Columns,
        covariates: Covariates | None = None,
        units: Units | None = None,
        label_names: tuple[str, ...] | None = None,
        learned: Collection[str] = (),
    ) -> None:
        source = source if isinstance(source, Format) else Frame(source)
        self.columns = columns
        self._source = source
        self.label = source.label
        if columns.drop_missing:
            source.missing = MISSING
        self._text = (
            [columns.confidence] if columns.confidence and columns.cell_form != "number" else []
        )
        source.expand_paths(columns.paths, self._text)
        source.reject_late_columns(columns.patterns(source.names, covariates=covariates is None))
        scores, self._vote_columns = columns.find_scores(source.names, where=source.label)
        self.scores = tuple(scores)
        """Columns of the scores, in the order of the classes."""
        self._parts = tuple(scores.values())
        self.label_names, self._label_cells = multi_label_reader(
            columns, scores, source, label_names
        )
        """Names of several labels a sample, in the order of the scores; None for one label a sample."""
        self.covariates = infer_covariates(source, columns) if covariates is None else covariates
        self.answers: AnswerCounter | None = getattr(source, "answers", None)
        """What answers of language models state; None for a table of numbers."""
        if self._text and self.answers is None:
            from fedlas.predictions.language.log_probabilities import AnswerCounter

            self.answers = AnswerCounter(
                in_words=columns.confidence_as == "words", learns=bool(learned)
            )
        self._learned = learned
        self.optional: frozenset[str] = frozenset()
        """Columns that a row may lack."""
        self.file = source.label
        """Name of the file of the last rows."""
        self.score_type: np.dtype[Any] = np.dtype(np.float64)
        """Type of their scores in that file; float64 where text states them."""
        self.keeps_rows = False
        """Whether rows without a value stay in the table, where another note counts them."""
        self.classes: tuple[str, ...] = ()
        """Names of the classes, set by the first chunk; empty if they have none."""
        self._dropped = Counter[str]()
        self._no_group_cells: set[bool] = set()
        self._first = FirstRowPerCluster(columns.clusters if columns.one_per_cluster else None)
        self._rows = 0
        self._zeros = self._ones = 0
        self._zero_labels = 0
        self._labels: LabelReader | None = None
        self._agreement = NameAgreement()
        self._binary = False
        self._num_classes = 0
        self._kind = columns.kind
        self._is_probs = self._kind == "probs"
        self._probs, self._votes = (
            ProbabilityChecker(normalize=columns.normalize, fixes=TABLE_FIXES, file=source.label)
            for _ in range(2)
        )
        self.units = Units() if units is None else units
        """Units of the columns, known once rows have been read."""
        self.units.learn_decimal_mark(source.decimal_mark, source.label)

    @property
    def dropped(self) -> int:
        """Number of rows dropped so far because a value is missing."""
        return self._dropped[""] + (len(self.answers.rows) if self.answers else 0)

    @property
    def in_lists(self) -> bool:
        """Whether a single column holds the scores of all classes as lists; known after the first chunk."""
        return len(self.scores) == 1 and self._labels is not None and not self._binary

    def blocks(self) -> Iterator[tuple[Floats, NDArray[Any] | None]]:
        """Yield logits ``(n, C)`` and labels ``(n,)`` of each chunk; labels are None if there is no label column.

        Of several labels a sample: both ``(n, L)``. For confidences: they ``(n,)``, and whether they came true ``(n,)``
        bool.

        Raises:
            InputError: For the first row that cannot be used; row and column are named.
        """
        for values in self.samples():
            scores = values["scores"]
            logits = safe_log if self.label_names is None else to_log_odds
            yield logits(scores) if self._is_probs else scores, values.get("outcome")

    def samples(self) -> Iterator[Values]:
        """Yield the values of each chunk by name, as :data:`Values`.

        Raises:
            InputError: As :meth:`blocks`.
        """
        for _, _, values in self.rows():
            if values:
                yield values

    def read_all(self) -> Values:
        """Return the values of all rows by name, as :data:`Values`.

        Raises:
            InputError: As :meth:`blocks`, or if there are none.
        """
        arrays: dict[str, GrowingArray] = {}
        texts: dict[str, list[tuple[str, ...]]] = {}
        for values in self.samples():
            for name, value in values.items():
                if isinstance(value, np.ndarray):
                    arrays.setdefault(name, GrowingArray()).append(value)
                else:
                    texts.setdefault(name, []).append(value)
        if not arrays:
            raise InputError(
                "there must be at least one row", f"none in {self.label}", "Check the file."
            )
        columns: Values = {name: rows.array() for name, rows in arrays.items()}
        return columns | {name: tuple(chain.from_iterable(lists)) for name, lists in texts.items()}

    def rows(self) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64], Values]]:
        """Yield row numbers of each chunk in its file, the indices of the rows used, and their values.

        ``file`` and ``score_type`` are then of these rows.

        Raises:
            InputError: As :meth:`blocks`.
        """
        columns = self.columns
        votes = self._vote_columns
        weights = () if columns.weights is None else (columns.weights,)
        scores = self.scores if columns.cell_form == "number" else ()
        optional = (
            None
            if columns.groups in (columns.target, columns.correct, columns.predicted)
            else columns.groups
        )
        missing = NO_GROUP if columns.drop_missing and optional is not None else None
        more = self.covariates or Covariates()
        names = [*scores, *votes, *weights, *more.numbers]
        is_top = self._kind == "confidence"
        alone = {"clusters"} if columns.one_per_cluster else set()
        named = {name: getattr(columns, name) for name in _TEXTS if name not in alone}
        labels = () if self._label_cells is None else self._label_cells.columns
        others = [*dict.fromkeys([*columns.text_columns, *labels, *more.categories])]
        for whole in self._source.chunks(names, others):
            chunk = whole
            self.file = whole.file
            if scores:
                self.score_type = whole.numbers[scores[0]].dtype
            if columns.drop_missing:
                chunk, lacking = whole.drop_incomplete(
                    optional={optional, *labels, *self._text, *self.optional}
                )
                self._dropped += lacking + Counter({"": len(whole.rows) - len(chunk.rows)})
            confidence = None
            if self.answers is not None and self._text and len(chunk.rows):
                chunk, confidence = self._read_answers(chunk, self.answers)
            if columns.one_per_cluster:
                chunk, confidence = self._first.keep_first_rows(chunk, confidence)
            if not len(chunk.rows):
                yield whole.rows, np.zeros(0, np.int64), {}
                continue
            self._rows += len(chunk.rows)
            self._add_units(chunk, more.numbers)
            if self.label_names is not None:
                values = self._read_multi_label(chunk)
            else:
                values = (
                    self._read_top_label(chunk, confidence)
                    if is_top
                    else self._read_all_classes(chunk)
                )
            if votes:
                shares = chunk.stack_finite(votes, "label probabilities")
                values["label_probs"] = self._check_probs(self._votes, shares, chunk, votes)
            if weights:
                values["weights"] = chunk.stack_finite(weights, "weights")[:, 0]
            if columns.groups is not None:
                values["groups"] = self._read_groups(chunk, missing)
            if self._learned and not isinstance(self._learned, Mapping):
                values["phrases"] = tuple(self._read_stated(chunk)[1])
            if more.columns:
                values["features"] = encode_rows(more, chunk)
            texts = {name: chunk.text_values(column) for name, column in named.items() if column}
            values |= {name: tuple(column) for name, column in texts.items()}
            yield whole.rows, np.searchsorted(whole.rows, chunk.rows), values
        self.units.finish(self.label)
        if self._label_cells is not None:
            self._label_cells.check(self.label)
        if self.answers is not None:
            self.answers.check("".join(self._text), self.label, drop=columns.drop_missing)
        self._agreement.check(self.label)

    def _read_groups(self, chunk: TableChunk, missing: str | None) -> tuple[str, ...]:
        """Return the group of each row; raise InputError if the name for missing groups is also a group."""
        column = str(self.columns.groups)
        names = chunk.text_values(column, missing=missing)
        if missing is not None and missing in names:
            cells = zip(names, chunk.values[column], strict=True)
            self._no_group_cells |= {
                not cell_to_text(cell) for name, cell in cells if name == missing
            }
            if len(self._no_group_cells) == 2:
                raise InputError(
                    f"no group may be named {missing!r}, the name for rows without a group",
                    f"cells {missing!r} and empty cells in column {column!r} of {self.label}",
                    "Rename that group, or fill in the empty cells.",
                )
        return tuple(names)

    def notes(self) -> tuple[str, ...]:
        """Return notes on how the rows so far were read."""
        lines = list(self._source.notes)
        dropped = self._dropped[""]
        if dropped and not self.keeps_rows:
            columns = [
                f"{name!r} ({count:,})" for name, count in self._dropped.most_common() if name
            ]
            rows = f"{dropped:,} of {self._rows + dropped:,} rows"
            lines.append(f"{rows} lack a value and were left out: {truncated_list(columns)}.")
        lines += self._first.notes()
        names_event = self._binary and not (
            self.classes and ends_in_word(self.scores[0], self.classes[1])
        )
        # The note on a single column names label 1, which says that labels are numbers.
        if self.columns.target is not None and self._labels is not None:
            lines += [] if names_event and not self.classes else self._labels.notes()
        if self.answers is not None:
            lines += self.answers.notes(dropped=not self.keeps_rows)
        lines += [] if self._label_cells is None else self._label_cells.notes()
        lines += self._agreement.notes()
        if self._has_percent_signs:
            lines.append("Numbers with a percent sign were divided by 100.")
        if names_event:
            kind = "probability" if self._is_probs else "logit"
            event = repr(self.classes[1]) if self.classes else "label 1"
            lines.append(f"{self.scores[0]} is the {kind} of {event}.")
        lines += self._probs.notes() + [
            f"Label distributions: {note}" for note in self._votes.notes()
        ]
        lines += certainty_notes(self._zeros, self._ones, self._zero_labels)
        return (*lines, *self.fit_notes())

    def fit_notes(self) -> tuple[str, ...]:
        """Return notes on covariates and units that differ from the fit."""
        covariates = [] if self.covariates is None else self.covariates.notes()
        return (*covariates, *self.units.notes())

    @property
    def _has_percent_signs(self) -> bool:
        """Whether scores have percent signs."""
        return any(self.units.percent.get(name) for name in self.scores)

    def _add_units(self, chunk: TableChunk, covariates: Sequence[str]) -> None:
        """Record or check the units of a chunk; logits and covariates also have a range."""
        logits = self.scores if self._kind == "logits" else ()
        self.units.add(chunk, (*logits, *covariates))

    def _to_fractions(self, scores: Floats) -> Floats:
        """Return scores as fractions if they are percentages by option; unchanged if they have percent signs."""
        if not self.columns.percent or self._has_percent_signs:
            return scores
        if not self.columns.normalize:
            self.units.count_percentages(scores)
        return scores * 0.01

    def _read_answers(self, chunk: TableChunk, answers: AnswerCounter) -> tuple[TableChunk, Floats]:
        """Return the rows whose answers state a confidence, and the confidences ``(n, 1)``."""
        column = self.scores[0]
        form = self.columns.confidence_as
        if form == "words":
            values = self._read_stated(chunk)[0]
        else:
            from fedlas.predictions.language.log_probabilities import read_confidences

            values = read_confidences(form, chunk, column)
        unread = np.isnan(values)
        for row, answer in enumerate(chunk.map_values(column, lambda value, _: value)):
            answers.add(int(chunk.rows[row]), answer, unread=bool(unread[row]))
        return chunk.select_rows(~unread), values[~unread][:, None]

    def _read_stated(self, chunk: TableChunk) -> tuple[NDArray[np.float64], list[str]]:
        """Return the confidence that each answer of a chunk states, and the phrase that states it, if it is learned."""
        from fedlas.predictions.language.phrases import read_stated

        answers = chunk.map_values(self.scores[0], lambda value, _: value)
        return read_stated(answers, self.columns.words, self._learned)

    def _read_top_label(self, chunk: TableChunk, confidence: Floats | None) -> Values:
        """Return the confidences, correctness and labels of a chunk."""
        columns = self.columns
        names = self.scores
        if confidence is None:
            confidence = self._to_fractions(chunk.stack_finite(names, "confidences"))
        if confidence.shape[1] > 1:
            raise InputError(
                "must hold one number per row",
                f"{confidence.shape[1]} numbers",
                ONE_CONFIDENCE,
                argument="confidence",
            )
        most = 1.0 + SUM_TOLERANCE
        confidence = self._probs.check_range(
            confidence, chunk.row_name, chunk.column_namer(names), "confidences", most
        )
        scores = np.minimum(confidence[:, 0], 1.0)
        if columns.correct is not None:
            return {"scores": scores, "outcome": chunk.read_outcomes(columns.correct)}
        if columns.predicted is None or columns.target is None:
            return {"scores": scores}
        labels = chunk.text_values(columns.target)
        predicted = chunk.text_values(columns.predicted)
        self._agreement.add((predicted, labels))
        right = [
            normalize_name(one) == normalize_name(other)
            for one, other in zip(predicted, labels, strict=True)
        ]
        outcome = np.array(right, dtype=bool)
        return {"scores": scores, "outcome": outcome, "labels": tuple(labels)}

    def _read_multi_label(self, chunk: TableChunk) -> Values:
        """Return the scores ``(n, L)`` and targets of a multi-label chunk."""
        scores = chunk.stack_finite(self.scores, "scores")
        if self._is_probs:
            most = 1.0 + SUM_TOLERANCE
            shares = self._to_fractions(scores)
            self._probs.file = chunk.file
            column = chunk.column_namer(self.scores)
            scores = self._probs.check_range(shares, chunk.row_name, column, "probabilities", most)
            scores = np.minimum(scores, 1.0)
        if self._label_cells is None:
            return {"scores": scores}
        return {"scores": scores, "outcome": self._label_cells.numbers(chunk)}

    def _read_all_classes(self, chunk: TableChunk) -> Values:
        """Return the logits or probabilities and the class indices of a chunk."""
        names = self.scores
        scores = chunk.stack_finite(names, "scores")
        width = scores.shape[1]
        first = self._labels is None
        if first:
            self._binary = width == 1
        elif width != (1 if self._binary else self._num_classes):
            raise InputError(
                f"every row must have as many scores as the first, {1 if self._binary else self._num_classes}",
                f"{width} in {chunk.row_name(0)}",
                "Check the file.",
            )
        if self._is_probs:
            scores = self._check_probs(self._probs, self._to_fractions(scores), chunk, names)
        elif self._binary:
            scores = binary_logits(scores[:, 0])
        if self._labels is None:
            self._labels = self._create_label_reader(scores.shape[1], chunk)
        target = None if self.columns.target is None else self._labels.numbers(chunk)
        if self._is_probs:
            # A single column holds no 0 where it holds a 1, whose complement is none of its numbers.
            self._ones += int((scores[:, 0] <= 0).sum()) if self._binary else 0
            self._zeros += int((scores[:, int(self._binary) :] <= 0).sum())
            if target is not None:
                self._zero_labels += int((scores[np.arange(len(target)), target] <= 0).sum())
        return {"scores": scores} | ({} if target is None else {"outcome": target})

    def _create_label_reader(self, num_classes: int, chunk: TableChunk) -> LabelReader:
        """Return the reader of labels for the classes that the first chunk shows."""
        lists = chunk.numbers[self.scores[0]].ndim > 1
        names = self.columns.classes
        parts = () if self._binary or lists else self._parts
        if names and len(names) != num_classes:
            raise InputError(
                "must name every class, in the order of the columns",
                f"{len(names)} for {num_classes} classes",
                "Name all classes.",
                argument="classes",
            )
        if num_classes == 2 and not names and self.columns.target is not None:
            texts = chunk.map_values(self.columns.target, lambda value, _: cell_to_text(value))
            labels = [label for label in texts if label]
            if self._binary:
                names = classes_from_column(self.scores[0], labels, self.columns.event)
            elif lists:
                names = classes_from_labels(labels)
            else:
                parts = classes_from_column_pair(parts, labels)
        self.classes = names or parts
        self._num_classes = num_classes
        numbers = numeric_parts(self.scores) if self.classes == parts else ()
        return LabelReader(num_classes, self.classes, self.columns.target or "", numbers)

    @staticmethod
    def _check_probs(
        check: ProbabilityChecker, values: Floats, chunk: TableChunk, names: tuple[str, ...]
    ) -> Floats:
        """Return validated class probabilities ``(n, C)``; a single column is the second of two classes."""
        check.file = chunk.file
        checked = check.complete_pairs if values.shape[1] == 1 else check.normalize_rows
        return checked(values, chunk.row_name, chunk.column_namer(names))
