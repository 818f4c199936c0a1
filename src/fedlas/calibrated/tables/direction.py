"""Check that a score column is about the same of two classes as in the fit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from fedlas._core.check import InputError, truncated_list
from fedlas._core.row_check import RowCheck
from fedlas.binary import auroc
from fedlas.binary.discrimination import check_score_direction
from fedlas.predictions import Columns, Predictions, ScoreTable
from fedlas.predictions.any_predictions import AnyPredictions
from fedlas.predictions.tables.formats.format import Format
from fedlas.predictions.tables.read import predictions_from_values
from fedlas.predictions.tables.table import Values

_LEVELS = np.linspace(0.05, 0.95, 19)
_FAR = 0.2
"""Mean distance between the score quantiles and the quantiles at the fit, below which there is no note."""
_CELLS = 2000
"""Number of probability bins in which the rows are counted."""
_FEWEST = 20
"""Fewest rows for which the score distributions are compared."""


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
        if not isinstance(val, Predictions) or val.num_classes != 2 or len(val.target.unique()) < 2:
            return None
        return cls(tuple(_quantiles(val.probs[:, 1])), auroc(val, event=1).value)

    @classmethod
    def from_dict(cls, content: Mapping[str, Any] | None) -> Self | None:
        """Return the scores from a dict of plain values, or None if an earlier version saved none.

        Raises:
            ValueError: If they are no such values.
        """
        if content is None:
            return None
        quantiles = tuple(float(value) for value in content["quantiles"])
        if len(quantiles) != len(_LEVELS):
            raise ValueError(f"fit_scores must have {len(_LEVELS)} quantiles")
        return cls(quantiles, float(content["auroc"]))


class ScoreDirection(RowCheck[Values]):
    """Check whether the scores of a table are about the other class than at the fit.

    Args:
        calibration: The ``TableCalibration``.
        source: The live table; where it has the labels of the fit, its first rows are compared with them.

    Raises:
        InputError: If its labels show that the scores rank the other class above, beyond chance.
    """

    def __init__(self, calibration: Any, source: Format) -> None:
        self._calibration = calibration
        # The places of choices in logs of language models are no classes.
        is_log = calibration.columns.format == "lm-eval"
        self._fit: FitScores | None = None if is_log else calibration.fit_scores
        self._counts: NDArray[np.int64] = np.zeros(_CELLS, dtype=np.int64)
        if self._fit is not None and self._fit.auroc >= 0.5:
            _check_labels(calibration, source)

    def add(self, rows: Values) -> None:
        """Count the scores of a chunk of rows."""
        if self._fit is not None:
            val: Any = predictions_from_values(rows, replace(self._calibration.columns, event=None))
            probs = val.probs
            cells = (probs[:, 1].double().numpy() * _CELLS).astype(np.int64).clip(0, _CELLS - 1)
            self._counts += np.bincount(cells, minlength=_CELLS)

    def notes(self) -> list[str]:
        """Return a note if ``1 - score`` is distributed as the scores of the fit, but the scores are not."""
        fit = self._fit
        rows = int(self._counts.sum())
        if fit is None or rows < _FEWEST:
            return []
        places = np.searchsorted(np.cumsum(self._counts), _LEVELS * rows)
        quantiles = (places + 0.5) / _CELLS
        away, turned = (
            float(np.abs(live - np.array(fit.quantiles)).mean())
            for live in (quantiles, 1 - quantiles[::-1])
        )
        if away < _FAR or turned > away / 4:
            return []
        names = self._calibration.classes or ("0", "1")
        return [
            f"{truncated_list(self._calibration.scores)} may hold the probability of {names[0]!r}: the median is "
            f"{quantiles[9]:.3g}, at the fit it was {fit.quantiles[9]:.3g}. Check which class the column is about."
        ]


def _check_labels(calibration: Any, source: Format) -> None:
    columns = calibration.columns
    if columns.target is None or columns.target not in source.names:
        return
    names = list(calibration.scores)
    scores: dict[str, Any] = {columns.kind or "probs": names[0] if len(names) == 1 else names}
    live = Columns(
        target=columns.target,
        classes=() if calibration.in_lists else calibration.classes,
        normalize=columns.normalize,
        percent=columns.percent,
        separator=columns.separator,
        drop_missing=True,
        **scores,
    )
    try:
        values: Values = next(ScoreTable(source, live).samples(), {})
    except InputError:  # no label is needed, so that the column may hold anything else
        return
    if "outcome" not in values:
        return
    val = predictions_from_values(values, replace(columns, event=None))
    if isinstance(val, Predictions):
        check_score_direction(
            val._replace_fields(classes=calibration.classes or None, event=1),
            truncated_list(calibration.scores),
            calibration.classes,
            fix="The column looks like the probability of {other}; pass the score column of the fit.",
        )


def _quantiles(values: Tensor) -> list[float]:
    return [float(value) for value in np.quantile(values.double().cpu().numpy(), _LEVELS)]
