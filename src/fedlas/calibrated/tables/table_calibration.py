"""The calibration of a table of scores, and its file."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from fedlas._core.check import Argument, InputError, error_reason, truncated_list, warn_user
from fedlas._core.files import read_json, write_json
from fedlas._core.outputs import check_output_path, json_kind
from fedlas._core.threads import single_thread_if_small
from fedlas.calibrated.before_after import BeforeAfter
from fedlas.calibrated.calibration import Calibration, unfitted_calibrator
from fedlas.calibrated.tables.apply import apply_to_frame, live_table, open_table_source
from fedlas.calibrated.tables.missing import Missing, MissingPolicy
from fedlas.calibrated.tables.questions import calibration_of_rows
from fedlas.calibrated.tables.table_fit import FitScores, TableFit
from fedlas.predictions import Columns, Predictions, ScoreTable
from fedlas.predictions.any_predictions import drop_zero_weights, zero_weight_note
from fedlas.predictions.covariates import Covariates
from fedlas.predictions.event import event_note
from fedlas.predictions.tables.read import (
    check_not_probabilities,
    open_source,
    predictions_from_values,
    resolve_scores,
)
from fedlas.predictions.tables.units import Units

if TYPE_CHECKING:
    from fedlas.calibrators import Calibrator, MultiLabelCalibration

FORMAT = "fedlas.table/1"
CALIBRATION = json_kind("a calibration of fedlas calibrate", FORMAT)


@dataclass(frozen=True, eq=False, repr=False)
class TableCalibration(TableFit):
    """A fitted calibration of a table of scores, as :func:`fedlas.calibrate` returns it.

    Attributes:
        fitted: The fitted calibrator, with sentences on the table and the fit.
        columns: The columns as the user named them.
        scores: Columns of the scores, in the order of the classes.
        classes: Names of the classes, or of several labels a sample; empty if they have none.
        in_lists: Whether one column holds the scores of all classes, as lists.
        covariates: Columns that the calibrator reads in addition; None if there are none.
        cross_fitted: Metrics of rows that the fit did not see; None for too few.
        rows: Rows of the fit.
        units: Units of the columns, which other tables must have too.
        fit_scores: Scores of the fit, of two classes; None otherwise.
        words: Confidence of each phrase that the fit has learned; empty if answers state numbers and known words.

    Example:
        >>> frame = {"p": [0.99, 0.99, 0.01, 0.99] * 50, "y": [1, 0, 0, 1] * 50}
        >>> calibration = TableCalibration.fit(frame, Columns(probs="p", target="y"), "temperature")
        >>> [round(float(p), 2) for p in calibration.apply({"p": [0.99, 0.01]})["calibrated_p"]]
        [0.75, 0.25]
    """

    def __repr__(self) -> str:
        fit = "" if self.cross_fitted is None else f"\n{self.cross_fitted}"
        return f"TableCalibration of {truncated_list(self.scores, 6)}: {self.fitted}{fit}"

    @classmethod
    def fit(
        cls,
        source: object,
        columns: Columns,
        method: str | Calibrator | MultiLabelCalibration = "auto",
    ) -> Self:
        """Fit a calibration to a labeled table; see :func:`fedlas.calibrate`."""
        # Words are learned in a fit alone: what applies a calibration does not load it.
        from fedlas.binary.discrimination import check_score_direction
        from fedlas.calibrated.tables.cross_fit import fit_and_check
        from fedlas.calibrated.tables.word_shares import find_phrases, learn_phrases
        from fedlas.predictions.tables.encoder import infer_covariates

        source, columns = open_source(source, columns)
        columns_of_rows = columns
        if columns.cell_form == "vote":  # whose questions are the rows of the fit
            from fedlas.predictions.language.votes import majority_vote_table

            source, columns = majority_vote_table(source, columns)
        columns = resolve_scores(columns, source)
        columns = replace(_with_effect(columns), covariates=_covariates(columns))
        source.expand_paths(columns.paths)
        covariates = infer_covariates(source, columns)
        table = ScoreTable(
            source,
            replace(columns, groups=None),
            covariates or Covariates(),
            learned=find_phrases(source, columns),
        )
        if not columns.has_outcomes:
            raise InputError(
                "the table must have labels",
                "no column of labels",
                (
                    "Name the column of the labels: ",
                    Argument("target", "y"),
                    ", or ",
                    Argument("correct", "ok"),
                    " for confidences.",
                ),
            )
        values = table.read_all()
        check_not_probabilities(columns, values["scores"], table.label)
        val, counts = drop_zero_weights(
            predictions_from_values(values, columns, covariates, table.classes, table.label_names)
        )
        remarks = [] if counts is None else [zero_weight_note(counts)]
        val, phrases, words = learn_phrases(val, values, counts)
        remarks += [] if phrases is None else [phrases.note(words)]
        if isinstance(val, Predictions) and val.num_classes == 2:
            remarks += [note] if (note := event_note(val)) else []
            check_score_direction(val, truncated_list(table.scores), table.classes)
        unfitted = unfitted_calibrator(method, multi_label=table.label_names is not None)
        with single_thread_if_small(val.num_samples * max(1, len(table.scores))):
            calibrator, doubts, cross_fitted = fit_and_check(unfitted, val, phrases)
        if covariates is not None and calibrator.num_features is None:
            names = truncated_list(covariates.columns, 6)
            unread = f"The calibrator uses no covariates, so `apply` does not need {names}."
            doubts = (*doubts, unread)
            covariates = None
        if covariates is not None:  # without the counts of this table
            covariates = replace(covariates, unknown=Counter())
        notes = (*table.notes(), *columns.already_calibrated_notes(), *remarks, *doubts)
        of_questions = columns_of_rows.cell_form == "vote"
        return cls(
            Calibration(calibrator, notes),
            columns_of_rows if of_questions else columns,
            (str(columns_of_rows.confidence),) if of_questions else table.scores,
            table.classes if table.label_names is None else table.label_names,
            table.in_lists,
            covariates,
            cross_fitted,
            val.num_samples,
            table.units.as_fit_units(),
            FitScores.from_predictions(val),
            words,
        )

    def apply(
        self,
        frame: object,
        *,
        missing: MissingPolicy | None = None,
        max_missing: float | None = None,
    ) -> Any:
        """Return a frame with the calibrated columns added; no labels are needed.

        Args:
            frame: A pandas or polars ``DataFrame``, an Arrow table, or a mapping from names to columns; also a polars
                ``LazyFrame`` or a relation of DuckDB.
            missing: ``"error"`` refuses rows without a score, ``"empty"`` gives them NaN and warns of their number;
                None is ``"empty"`` for answers of language models, else ``"error"``.
            max_missing: Largest share of such rows, from 0 to 1; None for any.

        Returns:
            A frame of the same kind; an Arrow table for a relation.

        Warns:
            CalibrationWarning: If values are unlike those of the fit or cannot be compared, or rows lack a score.

        Raises:
            InputError: If the table lacks a column of the fit, or holds values that are no scores of its kind; row and
                column are named.
        """
        lacking = Missing(missing or self.missing, max_missing)
        after, done = apply_to_frame(self, frame, lacking)
        lacking.check(done.rows, "the frame")
        for note in (*done.notes, *lacking.notes(done.rows)):
            warn_user(note)
        return after

    def before_after(self, table: object) -> BeforeAfter:
        """Return accuracy, NLL and ECE of another labeled table before and after calibration.

        Args:
            table: A frame or files with the columns of the fit, those of labels, weights and clusters among them.

        Returns:
            The metrics; print them to see a table.

        Warns:
            CalibrationWarning: If values are unlike those of the fit, or the NLL rises by more than chance.

        Raises:
            InputError: If the table lacks a column of the fit, or holds values that are no scores of its kind; row and
                column are named.

        Example:
            >>> frame = {"p": [0.99, 0.99, 0.01, 0.99] * 50, "y": [1, 0, 0, 1] * 50}
            >>> fit = TableCalibration.fit(frame, Columns(probs="p", target="y"), "temperature")
            >>> print(fit.before_after(frame))
                          before     after   200 samples
            accuracy     75.00 %   75.00 %
            NLL           1.1588    0.5623
            ECE          24.50 %   12.50 %   (of a perfectly calibrated model: 3.40 %)
        """
        from fedlas.calibrated.before_after import measure_before_after

        source = open_table_source(self, table, self.columns.format)
        calibration, source = calibration_of_rows(self, source, labels=True)
        other = live_table(calibration, source, Missing(self.missing), labels=True)
        try:
            values = other.read_all()
        except InputError as error:
            # The columns are those of the fit.
            error.without(*(each.name for each in fields(Columns)))
            raise
        check_not_probabilities(self.columns, values["scores"], other.label)
        rows = predictions_from_values(
            values, calibration.columns, self.covariates, self.classes, self.label_names
        )
        before, _ = drop_zero_weights(rows)
        for note in other.fit_notes():
            warn_user(note)
        return measure_before_after(before, self.fitted.transform(before))

    def save(self, path: str | Path) -> Path:
        """Save the calibration as JSON, atomically, and return the path.

        Raises:
            InputError: If another file is there, or the folder is not writable.
        """
        return write_json(
            check_output_path("path", path, CALIBRATION.with_any_suffix), self.to_dict()
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the calibration as a dict of plain values for JSON."""
        columns = {
            name: value
            for name, value in asdict(self.columns).items()
            if value not in (None, False, ())
        }
        return {
            "format": FORMAT,
            "columns": columns,
            "scores": list(self.scores),
            "classes": list(self.classes),
            "in_lists": self.in_lists,
            "covariates": None if self.covariates is None else self.covariates.to_dict(),
            "adds": list(self.added),
            "units": self.units.to_dict(),
            "fit_scores": None if self.fit_scores is None else asdict(self.fit_scores),
            "rows": self.rows,
            "cross_fitted": None if self.cross_fitted is None else self.cross_fitted.to_dict(),
            "words": dict(self.words),
            "notes": list(self.notes),
            "calibrator": self.fitted.saved_parameters(),
        }

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Load a calibration that :meth:`save` wrote, from JSON that cannot run code.

        Raises:
            InputError: If it cannot be read or is something else.
        """
        try:
            return cls._read(read_json(path), path)
        except FileNotFoundError as error:
            raise InputError("the file must exist", path, "Check the path.") from error
        except (AttributeError, InputError, KeyError, OSError, TypeError, ValueError) as error:
            raise InputError(
                "the file must be a calibration of a table",
                f"{path} ({error_reason(error)})",
                "Write one with fedlas calibrate VAL --probs 'p_*' --target y --out cal.json.",
            ) from error

    @classmethod
    def _read(cls, content: object, path: object) -> Self:
        if not isinstance(content, dict) or content.get("format") != FORMAT:
            raise ValueError(f"its format is not {FORMAT!r}")
        names = {each.name for each in fields(Columns)}
        columns = Columns(
            **{name: value for name, value in content["columns"].items() if name in names}
        )
        scores, classes, notes = (_texts(content, name) for name in ("scores", "classes", "notes"))
        fitted = Calibration.from_dict(content["calibrator"], source=path, notes=notes)
        if not scores or len(scores) not in (1, fitted.num_classes) or columns.kind is None:
            raise ValueError(f"{len(scores)} score columns do not fit the calibrator")
        if fitted.multi_label != (columns.labels is not None):
            raise ValueError("calibrator and columns must both be for several labels, or neither")
        if (fitted.num_classes == 0) != (columns.kind == "confidence"):
            raise ValueError(f"the calibrator does not fit scores of kind {columns.kind}")
        covariates, cross_fitted = content["covariates"], content["cross_fitted"]
        try:
            encoded = None if covariates is None else Covariates.from_dict(covariates)
            measured = None if cross_fitted is None else BeforeAfter.from_dict(cross_fitted)
        except InputError as error:  # it does not name the file
            raise ValueError(error_reason(error)) from error
        return cls(
            fitted,
            columns,
            scores,
            classes,
            content["in_lists"] is True,
            encoded,
            measured,
            int(content["rows"]),
            Units.from_dict(content.get("units")),
            FitScores.from_dict(content.get("fit_scores")),
            _read_words(content.get("words"), columns),
        )


def _with_effect(columns: Columns) -> Columns:
    """Return the columns, or raise InputError if one would have no effect on a calibration."""
    if columns.label_probs is not None:
        raise InputError(
            (Argument("label_probs"), " has no effect on a calibration"),
            "a column for it",
            "Leave it out; fedlas.report and fedlas evaluate use it.",
        )
    if columns.labels is not None and columns.groups is not None:
        raise InputError(
            "cannot be used with several labels, whose calibration has no covariates",
            Argument("labels"),
            "Leave it out: fedlas.report and fedlas evaluate measure each group.",
            argument="groups",
        )
    return columns


def _covariates(columns: Columns) -> tuple[str, ...] | None:
    """Return the names of the covariates and of the groups, with patterns unexpanded; None without any."""
    names = columns.split_option("covariates")
    if columns.groups is not None and columns.groups not in names:
        names.append(columns.groups)
    return tuple(names) or None


def _read_words(content: object, columns: Columns) -> dict[str, float]:
    """Return the learned words of a file; a file of before has none."""
    from fedlas.predictions.tables.words import parse_words

    if not isinstance(content, dict | None):
        raise TypeError("words must be a JSON object")
    words = parse_words(content)
    if words and columns.confidence_as != "words":
        raise ValueError("words require the form of confidence 'words'")
    return words


def _texts(content: Mapping[str, Any], name: str) -> tuple[str, ...]:
    texts = content[name]
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise ValueError(f"{name} must be names")
    return tuple(texts)
