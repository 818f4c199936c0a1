"""ICI, E50, E90 and Emax of an event, each a function of its name, and their replicates."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from fedlas.binary.cells import Loess
from fedlas.binary.event_records import event_measure
from fedlas.binary.integrated_calibration import SPAN, integrated_calibration
from fedlas.binary.positive import Floats, positive_class
from fedlas.predictions import Predictions
from fedlas.predictions.event import event_number
from fedlas.stats.cell_sums import OutcomeCells
from fedlas.stats.estimates import CONFIDENCE_LEVEL, Estimate
from fedlas.stats.replicates import RowReplicates
from fedlas.stats.rows import Rows

_SHARE = (0.0, 1.0)
_REPLICATES = 199
_CELLS = 1024


def _smoother(rows: Rows) -> tuple[Loess, OutcomeCells]:
    event = event_number(rows.all_classes)
    data = positive_class(rows.all_classes, None)
    smoother = Loess(data, SPAN, most=_CELLS)
    return smoother, rows.cells(smoother.cell, data.probability, data.outcome, event)


def _distances(block: RowReplicates) -> dict[str, Floats]:
    """Return ICI, E50, E90 and Emax of every replicate ``(R,)``; the windows of the loess are those of the rows."""
    smoother, cells = block.rows.table(_smoother)
    sums = block.over(cells)
    curves = smoother.curves(*np.broadcast_arrays(sums.count, sums.outcome))
    return smoother.distances(curves, sums.count)


def _replicated(name: str) -> Callable[[RowReplicates], Floats]:
    return lambda block: block.table(_distances)[name]  # type: ignore[arg-type]


_DISTANCE: dict[str, Any] = {
    "percent": True, "places": 4, "higher_is_better": False, "between": _SHARE, "several_labels": False,
    "zero_if_calibrated": True, "paper": "Austin and Steyerberg 2019",
}  # fmt: skip


@event_measure("ICI (loess)", 60, replicated=_replicated("ici"), **_DISTANCE)
def ici(
    predictions: Predictions,
    *,
    event: int | str | None = None,
    confidence_level: float = CONFIDENCE_LEVEL,
    replicates: int = _REPLICATES,
    seed: int = 0,
) -> Estimate:
    """Mean distance of the probability from the frequency, which a loess smooths.

    Args:
        predictions: As in :func:`~fedlas.binary.integrated_calibration`, and so are the other arguments.
        event: As there.
        confidence_level: As there.
        replicates: As there.
        seed: As there.

    Returns:
        The integrated calibration index in ``[0, 1]``, with noise floor and test.

    Raises:
        InputError: As there.

    Example:
        >>> p = Predictions([[0.0, 0.0]] * 10, [0, 1] * 5)
        >>> round(ici(p, replicates=0).value, 6)
        0.0
    """
    options: dict[str, Any] = {"replicates": replicates, "seed": seed}
    return _curve(predictions, event, confidence_level, options).ici


@event_measure("E50", 70, replicated=_replicated("e50"), detail=True, **_DISTANCE)
def e50(
    predictions: Predictions,
    *,
    event: int | str | None = None,
    confidence_level: float = CONFIDENCE_LEVEL,
    replicates: int = _REPLICATES,
    seed: int = 0,
) -> Estimate:
    """Median distance of the probability from the frequency, which a loess smooths.

    Args:
        predictions: As in :func:`ici`, and so are the other arguments.
        event: As there.
        confidence_level: As there.
        replicates: As there.
        seed: As there.

    Returns:
        In ``[0, 1]``, with noise floor and test.

    Example:
        >>> p = Predictions([[0.0, k / 4] for k in range(-10, 10)], [0, 1] * 10)
        >>> round(e50(p, replicates=39).value, 2)
        0.27
    """
    options: dict[str, Any] = {"replicates": replicates, "seed": seed}
    return _curve(predictions, event, confidence_level, options).e50


@event_measure("E90", 80, replicated=_replicated("e90"), detail=True, **_DISTANCE)
def e90(
    predictions: Predictions,
    *,
    event: int | str | None = None,
    confidence_level: float = CONFIDENCE_LEVEL,
    replicates: int = _REPLICATES,
    seed: int = 0,
) -> Estimate:
    """90th percentile of the distances of the probability from the frequency, which a loess smooths.

    Args:
        predictions: As in :func:`ici`, and so are the other arguments.
        event: As there.
        confidence_level: As there.
        replicates: As there.
        seed: As there.

    Returns:
        In ``[0, 1]``, with noise floor and test.

    Example:
        >>> p = Predictions([[0.0, k / 4] for k in range(-10, 10)], [0, 1] * 10)
        >>> round(e90(p, replicates=39).value, 2)
        0.32
    """
    options: dict[str, Any] = {"replicates": replicates, "seed": seed}
    return _curve(predictions, event, confidence_level, options).e90


@event_measure("Emax", 90, replicated=_replicated("emax"), detail=True, **_DISTANCE)
def emax(
    predictions: Predictions,
    *,
    event: int | str | None = None,
    confidence_level: float = CONFIDENCE_LEVEL,
    replicates: int = _REPLICATES,
    seed: int = 0,
) -> Estimate:
    """Largest distance of the probability from the frequency, which a loess smooths.

    Args:
        predictions: As in :func:`ici`, and so are the other arguments.
        event: As there.
        confidence_level: As there.
        replicates: As there.
        seed: As there.

    Returns:
        In ``[0, 1]``, with noise floor and test.

    Example:
        >>> p = Predictions([[0.0, k / 4] for k in range(-10, 10)], [0, 1] * 10)
        >>> round(emax(p, replicates=39).value, 2)
        0.32
    """
    options: dict[str, Any] = {"replicates": replicates, "seed": seed}
    return _curve(predictions, event, confidence_level, options).emax


def _curve(predictions: Predictions, event: Any, level: float, options: dict[str, Any]) -> Any:
    return integrated_calibration(predictions, event=event, confidence_level=level, **options)
