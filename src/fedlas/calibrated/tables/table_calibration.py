"""The calibration of a table: columns of scores, what was fitted on them, and its file."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Self

from fedlas._core.check import Argument, InputError, few, reason, warn_user
from fedlas._core.files import read_json, write_json
from fedlas._core.outputs import check_place, json_kind
from fedlas._core.threads import one_thread
from fedlas.binary.discrimination import check_direction
from fedlas.calibrated.before_after import BeforeAfter, measured_both
from fedlas.calibrated.calibration import AnyCalibrator, Calibration, unfitted_calibrator
from fedlas.calibrated.tables.apply import frame_applied, live_table, source_of
from fedlas.calibrated.tables.cross_fit import fit_and_check
from fedlas.calibrated.tables.direction import FitScores
from fedlas.calibrated.tables.edge import EdgeCount
from fedlas.calibrated.tables.missing import Missing, MissingPolicy
from fedlas.calibrators import Calibrator, MultiLabelCalibration
from fedlas.predictions import Columns, Predictions, ScoreTable
from fedlas.predictions.any_predictions import note_on_weights, with_some_weight
from fedlas.predictions.covariates import Covariates
from fedlas.predictions.event import event_note
from fedlas.predictions.tables.encoder import learn_covariates
from fedlas.predictions.tables.read import check_logits, open_source, predictions_of, with_scores
from fedlas.predictions.tables.roles import ADDED
from fedlas.predictions.tables.units import Units

FORMAT = "fedlas.table/1"
CALIBRATION = json_kind("a calibration of fedlas calibrate", FORMAT)


@dataclass(frozen=True, eq=False, repr=False)
class TableCalibration:
    """The calibration of a table of scores; :func:`fedlas.calibrate` fits one, ``fedlas apply`` uses its file.

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

    Example:
        >>> frame = {"p": [0.99, 0.99, 0.01, 0.99] * 50, "y": [1, 0, 0, 1] * 50}
        >>> calibration = TableCalibration.fit(frame, Columns(probs="p", target="y"), "temperature")
        >>> [round(float(p), 2) for p in calibration.apply({"p": [0.99, 0.01]})["calibrated_p"]]
        [0.75, 0.25]
    """

    fitted: Calibration
    columns: Columns
    scores: tuple[str, ...]
    classes: tuple[str, ...] = ()
    in_lists: bool = False
    covariates: Covariates | None = None
    cross_fitted: BeforeAfter | None = None
    rows: int = 0
    units: Units = field(default_factory=Units)
    fit_scores: FitScores | None = None

    def __repr__(self) -> str:
        fit = "" if self.cross_fitted is None else f"\n{self.cross_fitted}"
        return f"TableCalibration of {few(self.scores, 6)}: {self.fitted}{fit}"

    @classmethod
    def fit(
        cls,
        source: object,
        columns: Columns,
        method: str | Calibrator | MultiLabelCalibration = "auto",
    ) -> Self:
        """Fit a calibrator on a table with labels; see :func:`fedlas.calibrate`."""
        if columns.confidence_as == "vote":
            raise InputError(
                "a calibration is of one row a question",
                Argument("confidence_as", "vote"),
                "Write confidence and outcome of each question, as fedlas.predictions.self_consistency returns them, "
                "to a table of their own.",
            )
        source, columns = open_source(source, columns)
        columns = with_scores(columns, source)
        columns = replace(_with_effect(columns), covariates=_covariates(columns))
        source.add_paths(columns.paths)
        covariates = learn_covariates(source, columns)
        table = ScoreTable(source, replace(columns, groups=None), covariates or Covariates())
        if not columns.has_outcomes:
            raise InputError(
                "the rows must have labels",
                "no column of them",
                (
                    "Name the column of the labels: ",
                    Argument("target", "y"),
                    ", or ",
                    Argument("correct", "ok"),
                    " for confidences.",
                ),
            )
        values = table.whole()
        check_logits(columns, values["scores"], table.label)
        val, counts = with_some_weight(
            predictions_of(values, columns, covariates, table.classes, table.label_names)
        )
        remarks = [] if counts is None else [note_on_weights(counts)]
        if isinstance(val, Predictions) and val.num_classes == 2:
            remarks += [note] if (note := event_note(val)) else []
            check_direction(val, few(table.scores), table.classes)
        unfitted = unfitted_calibrator(method, multi_label=table.label_names is not None)
        with one_thread(val.num_samples * max(1, len(table.scores))):
            calibrator, doubts, cross_fitted = fit_and_check(unfitted, val)
        if covariates is not None and calibrator.num_features is None:
            names = few(covariates.columns, 6)
            unread = f"The calibrator reads no covariates, so apply needs none of: {names}."
            doubts = (*doubts, unread)
            covariates = None
        if covariates is not None:  # without the counts of this table
            covariates = replace(covariates, unknown=Counter())
        notes = (*table.notes(), *columns.notes_on_calibrated(), *remarks, *doubts)
        return cls(
            Calibration(calibrator, notes),
            columns,
            table.scores,
            table.classes if table.label_names is None else table.label_names,
            table.in_lists,
            covariates,
            cross_fitted,
            val.num_samples,
            table.units.as_fit(),
            FitScores.of(val),
        )

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Take the fields of a pickle, in which earlier versions have ``calibrator`` and ``notes``."""
        if "calibrator" in state:
            fitted = Calibration(state.pop("calibrator"), state.pop("notes"))
            state = {**state, "fitted": fitted}
        self.__dict__.update(state)

    @property
    def calibrator(self) -> AnyCalibrator:
        """The fitted calibrator."""
        calibrator: Any = self.fitted.calibrator
        return calibrator

    @property
    def notes(self) -> tuple[str, ...]:
        """Sentences on the table and the fit."""
        return self.fitted.notes

    @property
    def label_names(self) -> tuple[str, ...] | None:
        """Names of several labels a sample; None for one label a sample."""
        return self.classes if self.fitted.multi_label else None

    @property
    def added(self) -> tuple[str, ...]:
        """Names of the columns that are added: ``calibrated_`` and the name of the score."""
        return tuple(f"{ADDED}{name}" for name in self.scores)

    @property
    def missing(self) -> MissingPolicy:
        """What happens to rows without a score unless it is said: answers of language models may lack one."""
        of_answers = self.columns.confidence_as != "number" or self.columns.format == "lm-eval"
        return "empty" if of_answers else "error"

    def apply(
        self,
        frame: object,
        *,
        missing: MissingPolicy | None = None,
        max_missing: float | None = None,
    ) -> Any:
        """Return the frame with the calibrated columns added; nothing else changes, and no labels are needed.

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
        after, done = frame_applied(self, frame, lacking)
        lacking.check(done.rows, "the frame")
        for note in (*done.notes, *lacking.notes(done.rows)):
            warn_user(note)
        return after

    def before_after(self, table: object) -> BeforeAfter:
        """Measure accuracy, NLL and ECE of other rows with labels without and with the calibration.

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
        source = source_of(self, table, self.columns.format)
        other = live_table(self, source, Missing(self.missing), labels=True)
        try:
            values = other.whole()
        except InputError as error:
            # The columns are those of the fit.
            error.without(*(each.name for each in fields(Columns)))
            raise
        check_logits(self.columns, values["scores"], other.label)
        rows = predictions_of(values, self.columns, self.covariates, self.classes, self.label_names)
        before, _ = with_some_weight(rows)
        for note in other.notes_on_fit():
            warn_user(note)
        return measured_both(before, self.fitted.transform(before))

    def edge_count(self) -> EdgeCount:
        """Return a count of rows with covariates unlike those of the fit, of no rows yet."""
        return EdgeCount(self.calibrator, self.covariates.names if self.covariates else ())

    def save(self, path: str | Path) -> Path:
        """Write the calibration as JSON, atomically, and return the path.

        Raises:
            InputError: If another file is there, or the folder is not writable.
        """
        return write_json(check_place("path", path, CALIBRATION.of_any_name), self.plain())

    def plain(self) -> dict[str, Any]:
        """Return plain values for JSON."""
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
            "covariates": None if self.covariates is None else self.covariates.plain(),
            "adds": list(self.added),
            "units": self.units.plain(),
            "fit_scores": None if self.fit_scores is None else asdict(self.fit_scores),
            "rows": self.rows,
            "cross_fitted": None if self.cross_fitted is None else self.cross_fitted.plain(),
            "notes": list(self.notes),
            "calibrator": self.fitted.saved(),
        }

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read what :meth:`save` wrote; plain JSON, so a file from a stranger cannot run code.

        Raises:
            InputError: If it cannot be read or is something else.
        """
        try:
            return cls._read(read_json(path), path)
        except FileNotFoundError as error:
            raise InputError("the file must exist", path, "Check the path.") from error
        except InputError:
            raise
        except (AttributeError, KeyError, OSError, TypeError, ValueError) as error:
            raise InputError(
                "the file must be the calibration of a table",
                f"{path} ({reason(error)})",
                "Write one with fedlas calibrate VAL --probs 'p_*' --target y --out cal.json.",
            ) from error

    @classmethod
    def _read(cls, content: object, path: object) -> Self:
        if not isinstance(content, dict) or content.get("format") != FORMAT:
            raise ValueError(f"no format {FORMAT!r}")
        names = {each.name for each in fields(Columns)}
        columns = Columns(
            **{name: value for name, value in content["columns"].items() if name in names}
        )
        scores, classes, notes = (_texts(content, name) for name in ("scores", "classes", "notes"))
        fitted = Calibration.read(content["calibrator"], source=path, notes=notes)
        if not scores or len(scores) not in (1, fitted.num_classes) or columns.kind is None:
            raise ValueError(f"{len(scores)} columns of scores")
        if fitted.multi_label != (columns.labels is not None):
            raise ValueError(
                "a calibrator of several labels without their columns, or of one with them"
            )
        if (fitted.num_classes == 0) != (columns.kind == "confidence"):
            raise ValueError(f"a calibrator of other scores than {columns.kind}")
        covariates = content["covariates"]
        cross_fitted = content["cross_fitted"]
        return cls(
            fitted,
            columns,
            scores,
            classes,
            content["in_lists"] is True,
            None if covariates is None else Covariates.read(covariates),
            None if cross_fitted is None else BeforeAfter.read(cross_fitted),
            int(content["rows"]),
            Units.read(content.get("units")),
            FitScores.read(content.get("fit_scores")),
        )


def _with_effect(columns: Columns) -> Columns:
    """Return the columns, or refuse one that would have no effect on a calibration."""
    if columns.label_probs is not None:
        raise InputError(
            ("a calibration must be fitted without ", Argument("label_probs")),
            "one, which would have no effect on it",
            ("Leave it out: it is for ", "fedlas.report and fedlas evaluate."),
        )
    if columns.labels is not None and columns.groups is not None:
        raise InputError(
            "would be a covariate of the fit, and the curves of several labels read their probabilities alone",
            Argument("labels"),
            "Leave it out: fedlas.report and fedlas evaluate measure each group.",
            argument="groups",
        )
    return columns


def _covariates(columns: Columns) -> tuple[str, ...] | None:
    """Return the names of the covariates, the groups among them; a pattern stays one."""
    names = columns.words("covariates")
    if columns.groups is not None and columns.groups not in names:
        names.append(columns.groups)
    return tuple(names) or None


def _texts(content: Mapping[str, Any], name: str) -> tuple[str, ...]:
    texts = content[name]
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise ValueError(f"{name} must be names")
    return tuple(texts)
