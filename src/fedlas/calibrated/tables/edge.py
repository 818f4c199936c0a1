"""Count of rows whose covariates are outside the range of the fit."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from fedlas._core.check import truncated_list
from fedlas._core.row_check import RowCheck
from fedlas.calibrators import Calibrator, MultiLabelCalibration
from fedlas.predictions.tables.table import Values

USUAL = 0.10
"""Expected share of rows out of range if the table is like the one of the fit: 7 to 11 % in ten tables."""
_CHANCE = 3.0
"""Standard errors above the expected share from which on there is a note."""


class EdgeCount(RowCheck[Values]):
    """Count of rows with covariates outside the range of the fit, where only the scores are calibrated.

    Args:
        calibrator: A fitted one; without covariates nothing is counted.
        names: Names of its features.

    State:
        ``rows`` that were counted, those ``beyond`` the edge, and how many are beyond that of each of the ``columns``.

    Example:
        >>> from fedlas import Predictions
        >>> from fedlas.calibrators import TemperatureScaling
        >>> calibrator = TemperatureScaling().fit(Predictions([[2.0, 0.0]] * 100, [0, 0, 0, 1] * 25))
        >>> EdgeCount(calibrator).to_dict()
        {'rows': 0, 'beyond': 0, 'columns': {}}
    """

    def __init__(
        self, calibrator: Calibrator | MultiLabelCalibration, names: Sequence[str] = ()
    ) -> None:
        fitted = calibrator.map if isinstance(calibrator, Calibrator) else None
        self._side = getattr(fitted, "side", None)
        self._names = tuple(names)
        self.rows = 0
        self.beyond = 0
        self.columns: Counter[str] = Counter()

    def add(self, rows: Values) -> None:
        """Count the rows of a chunk that are outside the range; ``features (n, D)`` are in the order of the names."""
        import torch

        features = rows.get("features")
        if self._side is None or features is None:
            return
        numbers = torch.from_numpy(np.asarray(features, np.float64))
        beyond = self._side.is_out_of_range(numbers)
        self.rows += len(numbers)
        self.beyond += int(beyond.sum())
        counts = self._side.is_column_out_of_range(numbers).sum(dim=0).tolist()
        for name, count in zip(self._names, counts, strict=True):
            if count:
                self.columns[name] += count

    @property
    def is_unusual(self) -> bool:
        """Whether significantly more rows are out of range than in a table like the one of the fit."""
        error = (USUAL * (1 - USUAL) * self.rows) ** 0.5
        return self.beyond > USUAL * self.rows + _CHANCE * error

    def notes(self) -> list[str]:
        """Return a note if unusually many rows are out of range."""
        if not self.is_unusual:
            return []
        columns = [f"{name!r} ({count:,})" for name, count in self.columns.most_common()]
        where = f" By column: {truncated_list(columns, 4)}." if columns else ""
        share = 100 * self.beyond / self.rows
        return [
            f"{self.beyond:,} of {self.rows:,} rows ({share:.0f} %) have covariates outside the range of the fit, "
            f"where the correction by covariates fades; about {100 * USUAL:.0f} % are expected.{where}"
        ]

    def to_dict(self) -> dict[str, Any]:
        """Return the counts as a dict of plain values for JSON."""
        return {
            "rows": self.rows,
            "beyond": self.beyond,
            "columns": dict(self.columns.most_common()),
        }
