"""Tables with the meaning of their columns: scores and labels, or confidences and outcomes, checked chunk by chunk."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields
from itertools import chain
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fedlas._core.check import InputError
from fedlas.predictions.chunk import Chunk
from fedlas.predictions.class_labels import OWNER, Labels, few, plain_values
from fedlas.predictions.columns import Columns
from fedlas.predictions.language import confidences_as
from fedlas.predictions.probabilities import FLOOR, SUM_TOLERANCE, Probabilities, logarithm
from fedlas.predictions.sources import Source

MISSING = ("NA", "N/A", "na", "nan", "NaN", "NULL", "null", "None")
"""Texts in a CSV that stand for no number, where rows without a value are left out."""
NO_GROUP = "missing"
"""Group of the rows without one, where rows without a value are left out."""


@dataclass(frozen=True)
class Samples:
    """Samples of a table.

    Attributes:
        scores: Logits or probabilities ``(n, C)``, or confidences ``(n,)``, as ``Columns.kind`` says.
        outcome: Labels ``(n,)`` int64, or for confidences whether they came true, bool; None if no column says so.
        label_probs: Label distributions ``(n, C)``, if columns hold them.
        weights: Weights ``(n,)``, if a column holds them.
        groups: ``n`` names, if a column holds groups.
        labels: Labels of confidences as text, where columns name both what is predicted and the label.
    """

    scores: Tensor
    outcome: Tensor | None = None
    label_probs: Tensor | None = None
    weights: Tensor | None = None
    groups: tuple[str, ...] | None = None
    labels: tuple[str, ...] | None = None

    @classmethod
    def joined(cls, parts: Iterable[Samples], where: str) -> Samples:
        """Return all samples of some parts.

        Raises:
            InputError: If there are none.
        """
        parts = list(parts)
        if not parts:
            raise InputError(OWNER, "there must be at least one row", f"none in {where}", "Check the file.")
        values: dict[str, Any] = {}
        for field in fields(cls):
            columns = [getattr(part, field.name) for part in parts]
            if columns[0] is not None:
                tensors = isinstance(columns[0], Tensor)
                values[field.name] = torch.cat(columns) if tensors else tuple(chain.from_iterable(columns))
        return cls(**values)


class TableReader:
    """Reads a table once, a chunk of rows at a time.

    Args:
        source: The table.
        columns: Meaning of its columns.

    Raises:
        InputError: If a column does not exist.

    State:
        Sentences of :meth:`notes`, which :meth:`samples` and :meth:`blocks` fill.
    """

    def __init__(self, source: Source, columns: Columns) -> None:
        self.columns, self._source, self.label = columns, source, source.label
        if columns.drop_missing:
            source.missing = MISSING
        self._names = columns.find(source.names, where=source.label)
        self.num_rows = 0
        self._dropped, self._zeros, self._zero_labels = Counter[str](), 0, 0
        self._labels: Labels | None = None
        self._binary = False
        self._classes: tuple[str, ...] = ()
        fixes = {
            "logits": "name them with --logits.",
            "percent": "add --percent, or divide by 100.",
            "normalize": "Add --normalize to divide each row by its sum.",
        }
        self._probs, self._votes = (
            Probabilities(OWNER, normalize=columns.normalize, fixes=fixes, file=source.label) for _ in range(2)
        )
        scores = self._names.scores
        self._scale = 0.01 if columns.percent and not source.in_percent.intersection(scores) else 1.0

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes, set by the first chunk; empty if they have none."""
        return self._classes

    def blocks(self) -> Iterator[tuple[Tensor, Tensor | None]]:
        """Yield logits ``(n, C)`` and labels ``(n,)`` of some rows at a time; None if no column holds labels.

        For confidences: they ``(n,)``, and whether they came true ``(n,)`` bool.

        Raises:
            InputError: For the first row that cannot be used; row and column are named.
        """
        for part in self.samples():
            yield logarithm(part.scores) if self._is_probs else part.scores, part.outcome

    def samples(self) -> Iterator[Samples]:
        """Yield the samples of some rows at a time.

        Raises:
            InputError: As :meth:`blocks`.
        """
        columns, names = self.columns, self._names
        groups = [names.scores] if columns.confidence_as == "number" else []
        groups += [names.label_probs] if names.label_probs else []
        groups += [] if columns.weights is None else [(columns.weights,)]
        optional = None if columns.groups in (columns.target, columns.correct, columns.predicted) else columns.groups
        for chunk in self._source.chunks(groups, columns.others):
            if columns.drop_missing:
                before = len(chunk.rows)
                chunk, lacking = chunk.complete(groups, optional=optional)
                self._dropped += lacking + Counter({"": before - len(chunk.rows)})
            if not len(chunk.rows):
                continue
            self.num_rows += len(chunk.rows)
            scores, outcome, labels = self._top_label(chunk) if columns.kind == "confidence" else self._all(chunk)
            missing = NO_GROUP if columns.drop_missing and optional is not None else None
            yield Samples(
                scores,
                outcome,
                self._label_probs(chunk) if names.label_probs else None,
                None if columns.weights is None else chunk.finite(-1, (columns.weights,), "weights")[:, 0],
                None if columns.groups is None else tuple(chunk.names(columns.groups, missing=missing)),
                labels,
            )

    def notes(self) -> tuple[str, ...]:
        """Say how the rows so far were read, as sentences."""
        lines = list(self._source.notes)
        dropped = self._dropped[""]
        if dropped:
            columns = [f"{name!r} ({count:,})" for name, count in self._dropped.most_common() if name]
            lines.append(
                f"{dropped:,} of {self.num_rows + dropped:,} rows lack a value and were left out: {few(columns)}."
            )
        if self.columns.target is not None and self._labels is not None:
            lines.append(self._labels.note())
        if self._source.in_percent.intersection(self._names.scores):
            lines.append("Numbers with a percent sign were divided by 100.")
        if self._binary:
            lines.append(
                f"The one column {self._names.scores[0]!r} is the {'probability' if self._is_probs else 'logit'} "
                "of the second of two classes."
            )
        lines += self._probs.notes() + [f"Label distributions: {note}" for note in self._votes.notes()]
        if self._zeros:
            text = f"{self._zeros:,} probabilities are exactly 0 and count as {FLOOR:.2g} in logarithms"
            if self._zero_labels:
                text += (
                    f"; {self._zero_labels:,} of them are those of the label, where the NLL would be infinite and "
                    f"counts {-np.log(FLOOR):.1f} instead: do not compare it"
                )
            lines.append(f"{text}.")
        return tuple(lines)

    @property
    def _is_probs(self) -> bool:
        return self.columns.kind == "probs"

    def _top_label(self, chunk: Chunk) -> tuple[Tensor, Tensor | None, tuple[str, ...] | None]:
        """Return confidences, whether they came true, and the labels."""
        columns, names = self.columns, self._names.scores
        if columns.confidence_as == "number":
            confidence = chunk.finite(0, names, "confidences") * self._scale
        else:
            confidence = self._converted(chunk, names[0])
        if confidence.shape[1] > 1:
            fix = "Name the column of the predicted class's probability; of all classes name --probs."
            raise InputError(OWNER, "--confidence must hold one number a row", f"{confidence.shape[1]}", fix)
        most = 1.0 + SUM_TOLERANCE
        confidence = self._probs.in_range(confidence, chunk.where, chunk.column_of(names), "confidences", most)
        scores = confidence[:, 0].clamp(max=1.0)
        if columns.correct is not None:
            return scores, chunk.outcomes(columns.correct), None
        if columns.predicted is None or columns.target is None:
            return scores, None, None
        labels = chunk.names(columns.target)
        right = [one == other for one, other in zip(chunk.names(columns.predicted), labels, strict=True)]
        return scores, torch.tensor(right, dtype=torch.bool), tuple(labels)

    def _converted(self, chunk: Chunk, name: str) -> Tensor:
        """Return confidences ``(n, 1)`` from words or log-probabilities."""
        try:
            values = confidences_as(self.columns.confidence_as, plain_values(chunk.values[name]))
        except InputError as error:
            got = f"{error.parts[2]} among the rows from {chunk.rows[0]} of {self.label}"
            raise InputError(OWNER, f"column {name!r}: {error.parts[1]}", got, error.parts[3]) from error
        if np.isnan(values).any():
            where = f"none in {chunk.where(int(np.isnan(values).argmax()))} of {self.label}"
            fix = "Remove the row, or write a number, a percentage or a word such as 'likely'."
            raise InputError(OWNER, f"every cell of column {name!r} must state a confidence", where, fix)
        return torch.from_numpy(values).unsqueeze(1)

    def _all(self, chunk: Chunk) -> tuple[Tensor, Tensor | None, None]:
        """Return logits or probabilities of all classes, and class numbers."""
        scores = self._scores(chunk)
        if self._labels is None:
            self._set_classes(scores.shape[1], chunk)
        if scores.shape[1] != self._num_classes:
            got = f"{scores.shape[1]} in {chunk.where(0)}"
            raise InputError(OWNER, f"all rows must have {self._num_classes} classes", got, "Check the file.")
        target = None
        if self.columns.target is not None and self._labels is not None:
            target = torch.from_numpy(self._labels.numbers(chunk.values[self.columns.target], chunk.rows.tolist()))
        if self._is_probs:
            self._zeros += int((scores <= 0).sum())
            if target is not None:
                self._zero_labels += int((scores.gather(1, target.unsqueeze(1)) <= 0).sum())
        return scores, target, None

    def _set_classes(self, num_classes: int, chunk: Chunk) -> None:
        names, parts = self.columns.classes, () if self._binary or chunk.lists[0] else self._names.parts
        if names and len(names) != num_classes:
            got = f"{len(names)} for {num_classes} classes"
            raise InputError(OWNER, "--classes must name every class, in the order of the columns", got, "Name all.")
        self._classes, self._num_classes = names or parts, num_classes
        column = self.columns.target or ""
        self._labels = Labels(num_classes, self._classes, column=column, where=self._source.label)

    def _scores(self, chunk: Chunk) -> Tensor:
        """Return scores of every class ``(n, C)``, checked; the missing class of two added."""
        scores = chunk.finite(0, self._names.scores, "scores")
        binary, column = scores.shape[1] == 1, chunk.column_of(self._names.scores)
        if self._labels is not None and binary is not self._binary:  # chunks after the first must be of its kind
            raise InputError(
                OWNER,
                f"every row must have as many scores as the first, {'one' if self._binary else self._num_classes}",
                f"{scores.shape[1]} in {chunk.where(0)}",
                "Check the file.",
            )
        self._binary = binary
        if self._is_probs:
            check = self._probs.both if binary else self._probs.checked
            return check(scores if self._scale == 1.0 else scores * self._scale, chunk.where, column)
        return torch.cat([torch.zeros_like(scores), scores], dim=1) if binary else scores

    def _label_probs(self, chunk: Chunk) -> Tensor:
        names = self._names.label_probs
        votes = chunk.finite(1, names, "label probabilities")
        check = self._votes.both if votes.shape[1] == 1 else self._votes.checked
        return check(votes, chunk.where, chunk.column_of(names))
