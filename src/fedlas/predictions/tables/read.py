"""Reading of predictions from files: a single table, or several files of one model."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fedlas._core.arrays import open_arrays
from fedlas._core.check import Argument, InputError, describe, truncated_list
from fedlas._core.kinds import check_argument_types
from fedlas._core.ops import Floats
from fedlas.predictions.any_predictions import PredictionTable
from fedlas.predictions.event import resolve_event, with_event
from fedlas.predictions.multi_label import MultiLabel
from fedlas.predictions.predictions import Predictions
from fedlas.predictions.probabilities import are_probabilities
from fedlas.predictions.sample_values import SAMPLE_VALUES
from fedlas.predictions.tables.columns import join_arguments
from fedlas.predictions.tables.files import TableFile, find_files, local_table_files, store_address
from fedlas.predictions.tables.formats.by_suffix import open_format
from fedlas.predictions.tables.formats.compression import data_suffix
from fedlas.predictions.tables.formats.format import Format, Joined
from fedlas.predictions.tables.formats.frame import Frame
from fedlas.predictions.tables.roles import LABELS, SCORES, Columns, columns_from_kwargs
from fedlas.predictions.tables.table import ScoreTable, Values
from fedlas.predictions.top_label import TopLabel

if TYPE_CHECKING:
    from fedlas.predictions.covariates import Covariates

_FIXED = (*SCORES, *LABELS, "label_probs")
"""Options that logs of lm-evaluation-harness do not take."""
_ROW_VALUES = ("features", "clusters")
"""Arrays of an ``.npz`` that only whole files have, not tables of columns."""


def open_table(
    path: object,
    columns: Columns | None,
    covariates: Covariates | None = None,
    label_names: tuple[str, ...] | None = None,
) -> ScoreTable:
    """Return the table in a file or frame; an ``.npz`` with standard array names needs no ``columns``.

    Args:
        path: The file, or a frame.
        columns: Meaning of its columns.
        covariates: What another table of the same model showed of the columns of covariates.
        label_names: As in :class:`ScoreTable`.

    Raises:
        InputError: As :class:`ScoreTable`; or if ``columns`` are missing for another file, whose columns are then
            named.
        MissingExtraError: For all but ``.npz`` and frames without pyarrow.
    """
    columns = _require_columns(columns)
    source, columns = open_source(path, columns)
    if columns.cell_form == "vote":
        from fedlas.predictions.language.votes import majority_vote_table

        source, columns = majority_vote_table(source, columns)
    columns = resolve_scores(columns, source)
    return ScoreTable(source, columns, copy.deepcopy(covariates), label_names=label_names)


def resolve_scores(columns: Columns, source: Format) -> Columns:
    """Return columns whose scores are named, by default with the standard names of an ``.npz`` or a log.

    Raises:
        InputError: If they do not say it; the columns of the table are named.
    """
    columns = columns if source.needs_names else columns.with_default_scores(source.names)
    if columns.kind is not None:
        return columns
    hint = "" if source.needs_names else ", unless arrays are named 'logits' and 'target'"
    raise InputError(
        f"the columns of scores and labels must be named{hint}",
        f"{source.label} with columns {truncated_list(source.names)}",
        (
            "Pass ",
            Argument("logits", "PREFIX*"),
            " (or a,b,c) or ",
            Argument("probs"),
            " likewise, and ",
            Argument("target", "NAME"),
            "; or ",
            Argument("confidence", "NAME"),
            " and ",
            Argument("correct", "NAME"),
            ".",
        ),
    )


def open_source(path: Any, columns: Columns, live: str | None = None) -> tuple[Format, Columns]:
    """Return the reader of a frame or of files, and the columns.

    Several files are one table; logs of lm-evaluation-harness are grouped by their tasks, and read for scores of the
    kind ``live`` alone, without labels, if that is named.

    Raises:
        InputError: If a file does not exist or cannot be read, or the files are not alike.
    """
    names = path if isinstance(path, list | tuple) else [path]
    if not names or not all(isinstance(name, str | Path | TableFile) for name in names):
        return Frame(path), columns
    files = find_files(names)
    if all(is_lm_eval_log(file.path, columns) for file in files):
        if len(files) > 1 and columns.groups is None:
            columns = replace(columns, groups="task")
        from fedlas.predictions.language.lm_eval import SampleLog

        log = SampleLog([file.path for file in files], columns, live)
        return log, replace(columns, format="lm-eval")
    sources = [open_format(file, columns.separator) for file in files]
    return sources[0] if len(sources) == 1 else Joined(sources), columns


@check_argument_types
def read_predictions(
    path: object,
    columns: Columns | None = None,
    *,
    labeled: bool = True,
    like: PredictionTable | None = None,
    **names: Any,
) -> PredictionTable:
    """Read all predictions of a table.

    Args:
        path: CSV, TSV, JSON lines (samples of lm-evaluation-harness too), Parquet or ``.npz``, on this machine or at an
            address that fsspec reads, as ``s3://bucket/a.csv``; or a data frame of pandas or polars. Several logs of
            lm-evaluation-harness as a list, or a pattern such as ``samples_*.jsonl``, are one table, with the task as
            group.
        columns: Meaning of the columns; None for an ``.npz`` with arrays ``logits`` and ``target``, or ``confidence``
            and ``correct``.
        labeled: Whether there must be labels; where they are not needed, predictions without target are as good.
        like: Another table of the same model, whose classes it must have, by name in any order, and whose covariates it
            is read by.
        **names: Fields of :class:`Columns`, in place of ``columns``.

    Raises:
        InputError: As :func:`open_table` and :meth:`ScoreTable.samples`; or if there are no rows, no labels where
            there must be some, or other classes than those of ``like``.
        MissingExtraError: For all but ``.npz`` without pyarrow.

    Example:
        >>> table = read_predictions({"a": [0.9, 0.2], "b": [0.1, 0.8], "y": ["a", "b"]}, probs="a,b", target="y")
        >>> table.predictions, table.classes
        (Predictions(2 samples, 2 classes, with target), ('a', 'b'))
    """
    columns = columns_from_kwargs(names) if names else columns
    table = _read_table(path, columns, labeled=labeled, covariates=_table_covariates(like))
    if like is not None and (ordered := _reorder_columns(like, table, columns)) is not None:
        table = _read_table(path, ordered, labeled=labeled, covariates=_table_covariates(like))
    if like is not None and table.classes != like.classes:
        where = (
            truncated_list([str(name) for name in path]) if isinstance(path, list | tuple) else path
        )
        raise InputError(
            "the classes of both tables must be the same, in the same order",
            f"{truncated_list(table.classes)} in {where}, {truncated_list(like.classes)} in the other table",
            "List the score columns in the same order: a,b,c.",
        )
    return table


def _reorder_columns(
    like: PredictionTable, table: PredictionTable, columns: Columns | None
) -> Columns | None:
    """Return the columns with those of scores in the class order of another table, or None if they are, or cannot be.

    Columns of votes have no names to order them by.
    """
    classes, others = _names_of_scores(table), _names_of_scores(like)
    if columns is None or columns.kind not in ("logits", "probs") or not classes or not others:
        return None
    is_ordered = classes == others
    if is_ordered or sorted(classes) != sorted(others) or len(table.scores) != len(classes):
        return None
    if columns.label_probs is not None:
        return None
    by_class = dict(zip(classes, table.scores, strict=True))
    named: dict[str, Any] = {columns.kind: [by_class[name] for name in others]}
    return replace(columns, **named, classes=others if columns.labels is None else ())


def _names_of_scores(table: PredictionTable) -> tuple[str, ...]:
    """Return the names of the classes or labels, in the order of the score columns; empty if they have none."""
    predictions: Any = table.predictions
    names = predictions.names if isinstance(predictions, MultiLabel) else table.classes
    return tuple(names or ())


def _load_saved(path: Any, columns: Columns | None, *, labeled: bool) -> PredictionTable | None:
    """Return the predictions that ``Predictions.save`` or ``MultiLabel.save`` wrote, or None for other arrays."""
    event = None if columns is None else columns.event
    named = columns is not None and replace(columns, event=None) != Columns()
    if named or not _has_arrays(path, {"logits", "target"} if labeled else {"logits"}):
        return None
    if event is None and _has_arrays(path, {"logits", "names"}):
        several: Any = MultiLabel.load(path)
        return PredictionTable(several)
    predictions = with_event(Predictions.load(path), event)
    return PredictionTable(predictions, predictions.classes or ())


def _read_table(
    path: Any,
    columns: Columns | None,
    *,
    labeled: bool = True,
    covariates: Covariates | None = None,
) -> PredictionTable:
    """Read a table; remote files are copied first."""
    names = path if isinstance(path, list | tuple) else [path]
    if any(map(store_address, names)):
        with local_table_files(names) as files:
            copies = [file if file.partition else file.path for file in files]
            return _read_table(copies, columns, labeled=labeled, covariates=covariates)
    columns = None if (columns := _require_columns(columns)) == Columns() else columns
    path = path[0] if isinstance(path, list | tuple) and len(path) == 1 else path
    suffix = Path(path).suffix.lower() if isinstance(path, str | Path) else ""
    if suffix == ".npz" and (saved := _load_saved(path, columns, labeled=labeled)) is not None:
        return saved
    top_label = {"confidence", "correct"}
    if (
        suffix == ".npz"
        and columns is None
        and any(_has_arrays(path, {*top_label, more}) for more in _ROW_VALUES)
    ):
        return PredictionTable(TopLabel.load(path))
    table = open_table(path, columns, covariates)
    of_top_label = table.columns.kind == "confidence"
    if labeled and not table.columns.has_outcomes:
        by_label = Argument("target", "NAME")
        raise InputError(
            "must name a column of outcomes" if of_top_label else "must name a column of labels",
            "none",
            (
                "Pass ",
                Argument("correct", "NAME"),
                ", or ",
                Argument("predicted", "NAME"),
                " and ",
                by_label,
                ".",
            )
            if of_top_label
            else ("Pass ", by_label, "."),
            argument="correct" if of_top_label else "target",
        )
    values = table.read_all()
    return PredictionTable(
        predictions_from_values(
            values, table.columns, table.covariates, table.classes, table.label_names
        ),
        table.classes,
        table.notes(),
        values.get("groups"),
        values.get("labels"),
        covariates=table.covariates,
        unread=len(table.answers.rows) if table.answers else 0,
        refusals=table.answers.counts["refusals"] if table.answers else 0,
        dropped=table.dropped,
        scores=() if table.in_lists else table.scores,
        cluster_names=_cluster_names(values.get("clusters")),
    )


def _cluster_names(clusters: Any) -> tuple[str, ...]:
    """Return the distinct cluster names in the order of their codes; empty if clusters are numbers."""
    if clusters is None or not all(isinstance(name, str) for name in clusters):
        return ()
    return tuple(sorted(set(clusters)))


def predictions_from_values(
    values: Values,
    columns: Columns,
    covariates: Covariates | None = None,
    classes: Sequence[str] = (),
    label_names: Sequence[str] | None = None,
) -> Any:
    """Return Predictions, a TopLabel or a MultiLabel from the values of table rows."""
    others = {name: values.get(name) for name in SAMPLE_VALUES}
    are_probs = columns.kind == "probs"
    if label_names is not None:
        several = MultiLabel.from_probs if are_probs else MultiLabel
        return several(values["scores"], values.get("outcome"), names=label_names, **others)
    others |= {"covariates": covariates}
    if columns.kind == "confidence":
        return TopLabel(values["scores"], values.get("outcome"), **others)
    others |= {"classes": classes or None, "event": resolve_event(classes, columns.event)}
    others |= {"target": values.get("outcome"), "label_probs": values.get("label_probs")}
    return (Predictions._from_checked_probs if are_probs else Predictions)(
        values["scores"], **others
    )


def check_not_probabilities(columns: Columns, scores: Floats, label: str) -> None:
    """Raise InputError if columns named as logits hold probabilities."""
    if columns.kind == "logits" and are_probabilities(scores):
        raise InputError(
            "columns named as logits must hold logits",
            f"probabilities in {label}",
            [
                "write logits, as in the table of the fit",
                ("name the columns by ", Argument("probs")),
            ],
        )


def is_lm_eval_log(path: Path, columns: Columns) -> bool:
    """Return whether a file is read as a log of lm-evaluation-harness.

    Raises:
        InputError: If it is said to, and columns of scores or labels are named too.
    """
    named = [option for option in _FIXED if getattr(columns, option)]
    if columns.format == "lm-eval" and named:
        raise InputError(
            "columns of an lm-evaluation-harness log must not be named",
            tuple(join_arguments(named, ", ")),
            ("Leave these options out, or pass ", Argument("format", "table"), "."),
        )
    if columns.format is not None or named or data_suffix(path) not in (".jsonl", ".ndjson"):
        return columns.format == "lm-eval"
    from fedlas.predictions.language.lm_eval import starts_with_lm_eval_sample

    return starts_with_lm_eval_sample(path)


def _table_covariates(table: object) -> Covariates | None:
    """Return the covariates of another table, or None."""
    if table is None:
        return None
    if isinstance(table, PredictionTable):
        return table.covariates
    fix = "Pass a result of read_predictions."
    raise InputError("must be a PredictionTable", describe(table), fix, argument="like")


def _require_columns(columns: Columns | None) -> Columns:
    if isinstance(columns, Columns | None):
        return columns or Columns()
    raise InputError(
        "columns must be a Columns object",
        describe(columns),
        "Pass Columns(probs='p_*', target='label').",
    )


def _has_arrays(path: str | Path, names: set[str]) -> bool:
    """Return whether a file is an archive that has all these arrays."""
    with suppress(OSError, ValueError), open_arrays(Path(path)) as archive:
        return names <= {*archive.names}
    return False


def merge_notes(tables: Sequence[tuple[str, PredictionTable]]) -> list[str]:
    """Return the notes of several tables, each once, with the name of the first table that has it."""
    notes: dict[str, str] = {}
    for name, table in tables:
        for note in table.notes:
            notes.setdefault(note, f"{name}: {note}")
    return list(notes.values())
