"""Roles of columns that contradict each other."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fedlas._core.check import Argument, InputError
from fedlas.predictions.tables.columns import join_arguments

_OF_ONE_LABEL = ("target", "classes", "event", "normalize", "label_probs", "confidence_as")  # fmt: skip
"""Roles that do not apply to several labels per sample."""
_ONE_BY_ONE = (
    "Leave it out, measure each of its values by ", Argument("groups"), ", or calibrate one label: its column by ",
    Argument("probs"), ", its labels by ", Argument("target"), ".",
)  # fmt: skip


def check_combinations(columns: Any, roles: Mapping[str, Any]) -> None:
    """Raise InputError if roles contradict each other.

    Args:
        columns: A ``Columns``.
        roles: The ``Role`` of each of its fields.

    Raises:
        InputError: Then.
    """
    scores = [name for name, each in roles.items() if each.kind == "score"]
    kinds = [Argument(name) for name in scores if getattr(columns, name) is not None]
    if len(kinds) > 1:
        raise InputError(
            ("only one of ", *join_arguments(scores, " and "), " may be set"),
            tuple(join_arguments([kind.name for kind in kinds], " and ")),
            "Keep the option that matches the content of the score columns.",
        )
    for option, each in roles.items():
        has_partner = any(getattr(columns, name) for name in each.beside)
        is_there = getattr(columns, option) != getattr(type(columns), option)
        if each.beside and is_there and kinds and not has_partner:
            raise InputError(
                "does not apply to these score columns",
                kinds[0],
                [
                    "leave it out",
                    *(("name score columns by ", Argument(n)) for n in each.beside),
                ],
                argument=option,
            )
    _check_row_options(columns)
    if columns.words is not None:
        from fedlas.predictions.tables.words import parse_words

        parse_words(columns.words)
    if columns.words is not None and columns.confidence_as != "words":
        raise InputError(
            ("requires ", Argument("confidence_as", "words")),
            Argument("confidence_as", columns.confidence_as),
            "Add it, or leave the words out.",
            argument="words",
        )
    for option in _OF_ONE_LABEL if columns.labels is not None else ():
        if getattr(columns, option) not in (None, False, (), "number"):
            got, fix = Argument("labels"), "Leave it out."
            raise InputError("is for one label per sample", got, fix, argument=option)
    if columns.labels is not None and columns.covariates is not None:
        raise InputError(
            "is for one label per sample: curves of several labels use their probabilities only",
            Argument("labels"),
            _ONE_BY_ONE,
            argument="covariates",
        )
    if columns.correct is not None and (
        columns.predicted is not None or columns.target is not None
    ):
        raise InputError(
            (
                "outcomes must be given only once, by ",
                Argument("correct"),
                " or by ",
                *join_arguments(("predicted", "target"), " and "),
            ),
            (Argument("correct"), " and one of the others"),
            "Leave one of them out.",
        )


def _check_row_options(columns: Any) -> None:
    """Raise InputError if options conflict with votes (one row per answer) or with one row per cluster."""
    if columns.one_per_cluster and (columns.clusters is None or columns.confidence_as == "vote"):
        raise InputError(
            "requires a column of clusters, and cannot be combined with votes",
            "votes" if columns.clusters else "no clusters",
            ("Name the column by ", Argument("clusters"), ", or leave it out."),
            argument="one_per_cluster",
        )
    if columns.confidence_as != "vote":
        return
    others = [
        Argument(name)
        for name in ("logits", "probs", "predicted", "covariates", "percent")
        if getattr(columns, name)
    ]
    # of lm-evaluation-harness, which says what a question is
    is_log = columns.kind is None or columns.format == "lm-eval"
    if others or (not is_log and columns.clusters is None):
        raise InputError(
            (
                Argument("confidence_as", "vote"),
                " requires one row per answer and a column of questions",
            ),
            others[0] if others else ("no ", Argument("clusters")),
            (
                "Name the column of questions by ",
                Argument("clusters"),
                ", and leave the other columns out.",
            ),
        )
