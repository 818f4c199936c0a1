"""Check that a score column is about the same of two classes as in the fit."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fedlas._core.check import InputError, truncated_list
from fedlas._core.row_check import RowCheck
from fedlas.calibrated.tables.table_fit import QUANTILE_LEVELS, FitScores, TableFit
from fedlas.predictions import Columns, Predictions, ScoreTable
from fedlas.predictions.tables.read import predictions_from_values
from fedlas.predictions.tables.table import Values

if TYPE_CHECKING:
    from fedlas.predictions.tables.formats.format import Format

_FAR = 0.2
"""Mean distance between the score quantiles and the quantiles at the fit, below which there is no note."""
_CELLS = 2000
"""Number of probability bins in which the rows are counted."""
_FEWEST = 20
"""Fewest rows for which the score distributions are compared."""


class ScoreDirection(RowCheck[Values]):
    """Check whether the scores of a table are about the other class than at the fit.

    Args:
        calibration: The calibration of a table.
        source: The live table; where it has the labels of the fit, its first rows are compared with them.

    Raises:
        InputError: If its labels show that the scores rank the other class above, beyond chance.
    """

    def __init__(self, calibration: TableFit, source: Format) -> None:
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
            probs = val.tensors().probs
            cells = (probs[:, 1].double().numpy() * _CELLS).astype(np.int64).clip(0, _CELLS - 1)
            self._counts += np.bincount(cells, minlength=_CELLS)

    def notes(self) -> list[str]:
        """Return a note if ``1 - score`` is distributed as the scores of the fit, but the scores are not."""
        fit = self._fit
        rows = int(self._counts.sum())
        if fit is None or rows < _FEWEST:
            return []
        places = np.searchsorted(np.cumsum(self._counts), QUANTILE_LEVELS * rows)
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


def _check_labels(calibration: TableFit, source: Format) -> None:
    from fedlas.binary.discrimination import check_score_direction

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
