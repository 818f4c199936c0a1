"""A table with what its columns mean: rows of logits and labels, or of confidences and outcomes, checked one by one."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedlas._core.check import InputError
from fedlas.predictions.class_labels import OWNER, Labels
from fedlas.predictions.columns import Columns
from fedlas.predictions.part import Part
from fedlas.predictions.probabilities import FLOOR, SUM_TOLERANCE, Probabilities
from fedlas.predictions.tables import source_of

MISSING = ("NA", "N/A", "na", "nan", "NaN", "NULL", "null", "None")
"""Texts in a CSV that stand for no number, where rows without a value are left out."""


@dataclass(frozen=True)
class Rows:
    """Some rows of a table.

    Attributes:
        scores: Logits ``(n, C)``, or confidences ``(n,)``.
        outcome: Labels ``(n,)`` int64, or of confidences whether they came true, bool; None if no column says so.
        label_probs: Label distributions ``(n, C)``, if columns hold them.
        weights: Weights ``(n,)``, if a column holds them.
        groups: ``n`` names, if a column holds groups.
        labels: ``n`` labels as text, as in :class:`Read`.
    """

    scores: Tensor
    outcome: Tensor | None
    label_probs: Tensor | None = None
    weights: Tensor | None = None
    groups: tuple[str, ...] | None = None
    labels: tuple[str, ...] | None = None


class Table:
    """A table that is read once, a block of rows at a time.

    Args:
        path: CSV, TSV, JSON lines, Parquet or ``.npz``.
        columns: Which columns hold what.

    Raises:
        InputError: If the file cannot be read, or a column is not there.

    State:
        What :meth:`notes` says: it is filled by :meth:`blocks`.
    """

    def __init__(self, path: Path, columns: Columns) -> None:
        self.path, self.columns = path, columns
        self._source = source_of(path)
        if columns.drop_missing:
            self._source.missing = MISSING
        self._found = columns.find(self._source.names, where=path.name)
        self.num_rows = 0
        self._dropped = self._zero_labels = 0
        self._labels: Labels | None = None
        self._binary = False
        self._classes: tuple[str, ...] = ()
        options: dict[str, Any] = {
            "normalize": columns.normalize,
            "file": path.name,
            "logits_fix": "name them with --logits.",
            "normalize_fix": "Add --normalize to divide each row by its sum.",
        }
        self._probs, self._votes = Probabilities(OWNER, **options), Probabilities(OWNER, **options)

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes, known after the first block; none if they have none."""
        return self._classes

    def blocks(self) -> Iterator[tuple[Tensor, Tensor | None]]:
        """Logits ``(n, C)`` and labels ``(n,)`` of some rows after another; None if no column holds labels.

        Where ``columns.kind`` is ``"confidence"``: confidences ``(n,)``, and whether they came true ``(n,)`` bool.

        Raises:
            InputError: For the first row that cannot be used; row and column are named.
        """
        for rows in self.rows():
            yield rows.scores, rows.outcome

    def rows(self) -> Iterator[Rows]:
        """All that the columns hold, some rows after another.

        Raises:
            InputError: As :meth:`blocks`.
        """
        named, found = self.columns, self._found
        weights = [] if named.weights is None else [(named.weights,)]
        votes = [found.label_probs] if found.label_probs else []
        for whole in self._source.blocks([found.scores, *votes, *weights], named.plain):
            block = Part.of(whole, self.path.name, drop=named.drop_missing)
            self._dropped += len(whole.numbers[0]) - len(block.rows)
            if not len(block.rows):
                continue
            self.num_rows += len(block.rows)
            scores, outcome, labels = self._top_label(block) if named.kind == "confidence" else self._all_classes(block)
            yield Rows(
                scores,
                outcome,
                self._label_probs(block) if votes else None,
                _tensor(block.finite(-1, (str(named.weights),), "weights")[:, 0]) if weights else None,
                tuple(block.names(named.groups)) if named.groups is not None else None,
                labels,
            )

    def notes(self) -> tuple[str, ...]:
        """What was made of the rows so far, as sentences."""
        lines = []
        if self._dropped:
            lines.append(f"{self._dropped:,} of {self.num_rows + self._dropped:,} rows lack a value and were left out.")
        if self.columns.target is not None and self._labels is not None:
            lines.append(self._labels.said())
        if self._binary:
            lines.append(
                f"The one column {self._found.scores[0]!r} is the {'probability' if self._is_probs else 'logit'} "
                "of the second of two classes."
            )
        lines += self._probs.notes() + [f"Label distributions: {note}" for note in self._votes.notes()]
        if self._is_probs:
            lines.append("Probabilities became logits by their logarithm.")
        if self._probs.zeros:
            text = f"{self._probs.zeros:,} probabilities of exactly 0 became {FLOOR:.2g}"
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

    def _top_label(self, block: Part) -> tuple[Tensor, Tensor | None, tuple[str, ...] | None]:
        """Confidences, whether they came true, and the labels."""
        named, name = self.columns, self._found.scores
        confidence = block.finite(0, name, "confidences")
        if confidence.shape[1] > 1:
            fix = "Name the column of the predicted class's probability; of all classes name --probs."
            raise InputError(OWNER, "--confidence must hold one number a row", f"{confidence.shape[1]}", fix)
        self._probs.in_range(confidence, block.where, block.column_of(name), "confidences", 1.0 + SUM_TOLERANCE)
        scores = _tensor(confidence[:, 0].clip(0.0, 1.0))
        if named.correct is not None:
            return scores, _tensor(block.outcomes(named.correct)), None
        if named.predicted is None or named.target is None:
            return scores, None, None
        labels = block.names(named.target)
        right = [one == other for one, other in zip(block.names(named.predicted), labels, strict=True)]
        return scores, torch.tensor(right, dtype=torch.bool), tuple(labels)

    def _all_classes(self, block: Part) -> tuple[Tensor, Tensor | None, None]:
        """Logits and class numbers."""
        scores = self._scores(block)
        if self._labels is None:
            self._set_classes(scores.shape[1], block)
        if scores.shape[1] != self._num_classes:
            got = f"{scores.shape[1]} in {block.where(0)}"
            raise InputError(OWNER, f"all rows must have {self._num_classes} classes", got, "Check the file.")
        target = None
        if self.columns.target is not None and self._labels is not None:
            target = self._labels.numbers(block.plain[self.columns.target], block.rows.tolist())
        if self._is_probs:
            if target is not None:
                self._zero_labels += int((scores[np.arange(len(scores)), target] <= 0).sum())
            scores = self._probs.logits(scores)
        return _tensor(scores), None if target is None else torch.from_numpy(target), None

    def _set_classes(self, num_classes: int, block: Part) -> None:
        given, parts = self.columns.classes, () if self._binary or block.lists[0] else self._found.parts
        if given and len(given) != num_classes:
            got = f"{len(given)} for {num_classes} classes"
            raise InputError(OWNER, "--classes must name every class, in the order of the columns", got, "Name all.")
        self._classes, self._num_classes = given or parts, num_classes
        column = self.columns.target or ""
        self._labels = Labels(num_classes, self._classes, column=column, where=self.path.name)

    def _scores(self, block: Part) -> NDArray[Any]:
        """Scores of every class ``(n, C)``, checked; the missing class of two added."""
        scores = block.finite(0, self._found.scores, "scores")
        binary, column = scores.shape[1] == 1, block.column_of(self._found.scores)
        if self._labels is not None and binary is not self._binary:  # blocks after the first must be of its kind
            raise InputError(
                OWNER,
                f"every row must have as many scores as the first, {'one' if self._binary else self._num_classes}",
                f"{scores.shape[1]} in {block.where(0)}",
                "Check the file.",
            )
        self._binary = binary
        if self._is_probs:
            check = self._probs.both if binary else self._probs.checked
            return check(scores, block.where, column)
        return np.concatenate([np.zeros_like(scores), scores], axis=1) if binary else scores

    def _label_probs(self, block: Part) -> Tensor:
        names = self._found.label_probs
        votes = block.finite(1, names, "label probabilities")
        check = self._votes.both if votes.shape[1] == 1 else self._votes.checked
        return _tensor(check(votes, block.where, block.column_of(names)))


def _tensor(values: NDArray[Any]) -> Tensor:
    return torch.from_numpy(np.require(values, requirements=["C", "W"]))
