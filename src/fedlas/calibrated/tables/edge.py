"""Counts rows of a table whose covariates lie where the fit of the calibration saw hardly any."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from fedlas._core.check import few
from fedlas._core.row_check import RowCheck
from fedlas.calibrators import Calibrator, MultiLabelCalibration
from fedlas.predictions.tables.table import Values

USUAL = 0.10
"""Share of rows like those of the fit that lie beyond the edge: 7 to 11 % of new rows in ten tables."""
_CHANCE = 3.0
"""Standard errors above that share from which on the count is noted."""


class EdgeCount(RowCheck[Values]):
    """Rows beyond the edge of the fit's covariates, where the calibration falls back to the scores alone.

    Args:
        calibrator: A fitted one; without covariates nothing is counted.
        names: Names of its features.

    State:
        ``rows`` that were counted, those ``beyond`` the edge, and how many are beyond that of each of the ``columns``.

    Example:
        >>> from fedlas import Predictions
        >>> from fedlas.calibrators import TemperatureScaling
        >>> calibrator = TemperatureScaling().fit(Predictions([[2.0, 0.0]] * 100, [0, 0, 0, 1] * 25))
        >>> EdgeCount(calibrator).plain()
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
        """Count some rows, whose ``features (n, D)`` are in the order of the names."""
        features = rows.get("features")
        if self._side is None or features is None:
            return
        numbers = features.cpu().double()
        beyond = self._side.is_beyond(numbers)
        self.rows += len(numbers)
        self.beyond += int(beyond.sum())
        counts = self._side.beyond_by_column(numbers).sum(dim=0).tolist()
        for name, count in zip(self._names, counts, strict=True):
            if count:
                self.columns[name] += count

    @property
    def is_unusual(self) -> bool:
        """Whether more rows are beyond the edge than of a table like that of the fit."""
        error = (USUAL * (1 - USUAL) * self.rows) ** 0.5
        return self.beyond > USUAL * self.rows + _CHANCE * error

    def notes(self) -> list[str]:
        """Return a sentence if there are unusually many such rows."""
        if not self.is_unusual:
            return []
        columns = [f"{name!r} ({count:,})" for name, count in self.columns.most_common()]
        where = f" By column: {few(columns, 4)}." if columns else ""
        share = 100 * self.beyond / self.rows
        return [
            f"{self.beyond:,} of {self.rows:,} rows ({share:.0f} %) have covariates unlike those of the fit, where the "
            f"correction by covariates fades; about {100 * USUAL:.0f} % are usual.{where}"
        ]

    def plain(self) -> dict[str, Any]:
        """Return the counts as plain values for JSON."""
        return {
            "rows": self.rows,
            "beyond": self.beyond,
            "columns": dict(self.columns.most_common()),
        }
