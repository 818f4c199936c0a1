"""Calibrations of votes: the rows of a table are answers, and those of the fit are questions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, TypeVar

from fedlas._core.check import InputError, suggestion, truncated_list
from fedlas.predictions.tables.roles import Columns

if TYPE_CHECKING:
    from fedlas.calibrated.tables.table_fit import TableFit
    from fedlas.predictions.tables.formats.format import Format

    F = TypeVar("F", bound=TableFit)


def calibration_of_rows(
    calibration: F, source: Format, *, labels: bool = False, drop_missing: bool = True
) -> tuple[F, Format]:
    """Return the calibration and the table of what the fit has as rows: of votes the questions, else as they are given.

    Args:
        calibration: The calibration of a table.
        source: A row an answer, where the calibration is one of votes.
        labels: Whether the labels of the questions are read too.
        drop_missing: Whether an answer without a question is left out, not refused.

    Raises:
        InputError: If a column is missing, no question has several answers, or a question has two labels.
    """
    columns = calibration.columns
    if columns.cell_form != "vote":
        return calibration, source
    from fedlas.predictions.language.votes import majority_vote_table

    source.expand_paths(columns.paths, [str(columns.confidence)])
    covariates = calibration.covariates.columns if calibration.covariates else ()
    required = [str(columns.confidence), str(columns.clusters), *covariates]
    check_columns_of_fit(calibration, source, required)
    if labels:
        read = replace(columns, time=None, groups=None)
    else:
        named = {name: getattr(columns, name) for name in ("confidence", "clusters", "separator")}
        read = Columns(**named, confidence_as="vote")
    read = replace(read, drop_missing=drop_missing)
    questions, of_questions = majority_vote_table(source, read, covariates)
    of_fit = replace(calibration, columns=of_questions, scores=(str(of_questions.confidence),))
    return of_fit, questions


def check_columns_of_fit(calibration: TableFit, source: Format, required: Sequence[str]) -> None:
    """Raise InputError if a table lacks a column of the fit, or has a calibrated one already."""
    names, label = source.names, source.label
    if lost := [name for name in required if name not in names]:
        raise InputError(
            f"the table must have the columns of the fit, {truncated_list(required)}",
            f"no {', '.join(map(repr, lost[:6]))} in {label}",
            suggestion(lost[0], names),
        )
    if there := [name for name in calibration.added if name in names]:
        raise InputError(
            "the table must not have a calibrated column already",
            f"{there[0]!r} in {label}",
            "Remove the column, or rename it.",
        )
