"""ICI, E50, E90 and Emax as functions and registered metrics, and their replicates."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from fedlas.binary.cells import Loess
from fedlas.binary.curve_distances import SPAN, integrated_calibration
from fedlas.binary.event_records import (
    REPLICATES_OF_ONE,
    ReplicatedMeasure,
    register_named_measure,
)
from fedlas.binary.positive import positive_class
from fedlas.predictions.event import event_index
from fedlas.stats.estimates import CONFIDENCE_LEVEL, Estimate

if TYPE_CHECKING:
    from fedlas._core.types import FloatArray
    from fedlas.predictions import Predictions
    from fedlas.stats.cell_sums import OutcomeCells
    from fedlas.stats.replicates import RowReplicates
    from fedlas.stats.rows import Rows

_CELLS = 1024


def _fit_loess(rows: Rows) -> tuple[Loess, OutcomeCells]:
    event = event_index(rows.multiclass_predictions)
    data = positive_class(rows.multiclass_predictions, None)
    smoother = Loess(data, SPAN, max_cells=_CELLS)
    return smoother, rows.cells(smoother.cell, data.probability, data.outcome, event)


def _loess_distances(block: RowReplicates) -> dict[str, FloatArray]:
    """Return ICI, E50, E90 and Emax of every replicate ``(R,)``, with the loess windows of the data."""
    smoother, cells = block.rows.table(_fit_loess)
    sums = block.over(cells)
    curves = smoother.curves(*np.broadcast_arrays(sums.count, sums.outcome))
    return smoother.distances(curves, sums.count)


def _replicate_function(name: str) -> Callable[[RowReplicates], FloatArray]:
    return lambda block: block.table(_loess_distances)[name]


def _register_distance(name: str, text: str, *record: Any, **fields: Any) -> ReplicatedMeasure:
    """Register a distance between probability and loess-smoothed frequency as a measure."""

    def measure(
        predictions: Predictions,
        *,
        event: int | str | None = None,
        confidence_level: float = CONFIDENCE_LEVEL,
        replicates: int = REPLICATES_OF_ONE,
        seed: int = 0,
    ) -> Estimate:
        curve = integrated_calibration(
            predictions,
            event=event,
            confidence_level=confidence_level,
            replicates=replicates,
            seed=seed,
        )
        estimate: Estimate = getattr(curve, name)
        return estimate

    about: dict[str, Any] = {
        "percent": True, "places": 4, "higher_is_better": False, "between": (0.0, 1.0), "several_labels": False,
        "zero_if_calibrated": True, "paper": "Austin and Steyerberg 2019", "replicated": _replicate_function(name),
    }  # fmt: skip
    return register_named_measure(name, text, measure, *record, **about, **fields)


ici = _register_distance(
    "ici",
    """Integrated calibration index: mean distance between the probability and the loess-smoothed frequency.

    Returns:
        The integrated calibration index in ``[0, 1]``, see :func:`~fedlas.binary.integrated_calibration`.

    Example:
        >>> from fedlas import Predictions
        >>> p = Predictions([[0.0, 0.0]] * 10, [0, 1] * 5)
        >>> round(ici(p, replicates=0).value, 6)
        0.0
    """,
    "ICI (loess)",
    60,
)

e50 = _register_distance(
    "e50",
    """Median distance between the probability and the loess-smoothed frequency.

    Returns:
        In ``[0, 1]``, with noise floor and test.

    Example:
        >>> from fedlas import Predictions
        >>> p = Predictions([[0.0, k / 4] for k in range(-10, 10)], [0, 1] * 10)
        >>> round(e50(p, replicates=39).value, 2)
        0.27
    """,
    "E50",
    70,
    detail=True,
)

e90 = _register_distance(
    "e90",
    """90th percentile of the distance between the probability and the loess-smoothed frequency.

    Returns:
        In ``[0, 1]``, with noise floor and test.

    Example:
        >>> from fedlas import Predictions
        >>> p = Predictions([[0.0, k / 4] for k in range(-10, 10)], [0, 1] * 10)
        >>> round(e90(p, replicates=39).value, 2)
        0.32
    """,
    "E90",
    80,
    detail=True,
)

emax = _register_distance(
    "emax",
    """Largest distance between the probability and the loess-smoothed frequency.

    Returns:
        In ``[0, 1]``, with noise floor and test.

    Example:
        >>> from fedlas import Predictions
        >>> p = Predictions([[0.0, k / 4] for k in range(-10, 10)], [0, 1] * 10)
        >>> round(emax(p, replicates=39).value, 2)
        0.32
    """,
    "Emax",
    90,
    detail=True,
)
