"""Result of the fit of a table: the calibrator, and how columns of other tables are read for it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from fedlas.calibrated.tables.edge import EdgeCount
from fedlas.predictions import Columns, Predictions
from fedlas.predictions.tables.roles import ADDED
from fedlas.predictions.tables.units import Units

if TYPE_CHECKING:
    from torch import Tensor

    from fedlas.calibrated.before_after import BeforeAfter
    from fedlas.calibrated.calibration import AnyCalibrator, Calibration
    from fedlas.calibrated.tables.missing import MissingPolicy
    from fedlas.predictions.any_predictions import AnyPredictions
    from fedlas.predictions.covariates import Covariates

QUANTILE_LEVELS = np.linspace(0.05, 0.95, 19)


@dataclass(frozen=True)
class FitScores:
    """Distribution of the scores of the second of two classes at the fit.

    Attributes:
        quantiles: Their quantiles at 5, 10, ... 95 %.
        auroc: AUROC of that class.
    """

    quantiles: tuple[float, ...]
    auroc: float

    @classmethod
    def from_predictions(cls, val: AnyPredictions) -> Self | None:
        """Return the score distribution of two-class predictions, or None if a class does not occur."""
        if (
            not isinstance(val, Predictions)
            or val.num_classes != 2
            or len(val.tensors().target.unique()) < 2
        ):
            return None
        from fedlas.binary import auroc

        return cls(tuple(_quantiles(val.tensors().probs[:, 1])), auroc(val, event=1).value)

    @classmethod
    def from_dict(cls, content: Mapping[str, Any] | None) -> Self | None:
        """Return the scores from a dict of plain values, or None if an earlier version saved none.

        Raises:
            ValueError: If they are no such values.
        """
        if content is None:
            return None
        quantiles = tuple(float(value) for value in content["quantiles"])
        if len(quantiles) != len(QUANTILE_LEVELS):
            raise ValueError(f"fit_scores must have {len(QUANTILE_LEVELS)} quantiles")
        return cls(quantiles, float(content["auroc"]))


@dataclass(frozen=True, eq=False, repr=False)
class TableFit:
    """Calibrator of a table of scores, with the columns, classes and units of the fit.

    The fields are those of :class:`TableCalibration`.
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
    words: Mapping[str, float] = field(default_factory=dict)

    @property
    def calibrator(self) -> AnyCalibrator:
        """The fitted calibrator."""
        return self.fitted.required_calibrator

    @property
    def notes(self) -> tuple[str, ...]:
        """Notes about the table and the fit, one sentence each."""
        return self.fitted.notes

    @property
    def label_names(self) -> tuple[str, ...] | None:
        """Names of the labels of a multi-label table, or None for one label per sample."""
        return self.classes if self.fitted.multi_label else None

    @property
    def added(self) -> tuple[str, ...]:
        """Names of the columns that :meth:`TableCalibration.apply` adds: ``calibrated_`` and the score's name."""
        return tuple(f"{ADDED}{name}" for name in self.scores)

    @property
    def missing(self) -> MissingPolicy:
        """Default policy for rows without a score: ``"empty"`` for answers of language models, else ``"error"``."""
        of_answers = self.columns.confidence_as != "number" or self.columns.format == "lm-eval"
        return "empty" if of_answers else "error"

    def edge_count(self) -> EdgeCount:
        """Return an empty counter of rows whose covariates are outside the range of the fit."""
        return EdgeCount(self.calibrator, self.covariates.names if self.covariates else ())


def _quantiles(values: Tensor) -> list[float]:
    return [float(value) for value in np.quantile(values.double().cpu().numpy(), QUANTILE_LEVELS)]
