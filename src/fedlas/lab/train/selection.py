"""Which epoch is the best: by a metric of the validation part, or by what a temperature cannot repair."""

from __future__ import annotations

from fedlas._core.check import InputError, suggestion
from fedlas.calibrators import TemperatureScaling
from fedlas.calibrators.notes import fit_with_notes
from fedlas.metrics import METRICS
from fedlas.metrics.proper import negative_log_likelihood
from fedlas.predictions import Predictions

__all__ = ["REFINED", "check_metric", "check_select", "merit", "refined_nll"]

REFINED = "refined_nll"
"""Selects by :func:`refined_nll`; it is no metric of a test set, because it fits what it measures."""


def check_metric(metric: str) -> str:
    """Return ``metric`` if it is registered, and computed from logits and target alone.

    Raises:
        InputError: Otherwise; the message names the nearest metric that is.
    """
    return _check(metric, "a registered metric of logits and target alone", [])


def check_select(metric: str) -> str:
    """Return ``metric`` if it can choose the best epoch: as :func:`check_metric`, or ``refined_nll``.

    Raises:
        InputError: Otherwise; the message names the nearest one that can.
    """
    return _check(metric, f"a registered metric of logits and target alone, or {REFINED}", [REFINED])


def _check(metric: str, expected: str, others: list[str]) -> str:
    able = [e.name for e in METRICS.entries() if e.metadata.get("default", True) and not e.metadata.get("needs")]
    able += others
    if (name := str(metric).lower()) in able:
        return name
    fix = f"Choose one of: {', '.join(able)}." if metric in METRICS else suggestion(metric, able)
    raise InputError("train.select", f"it must be {expected}", repr(metric), fix)


def merit(metric: str, value: float) -> float:
    """A number that is higher for a better value of what selects; a metric with a sign is best at 0."""
    higher = False if metric == REFINED else METRICS[metric].metadata["higher_is_better"]
    return -abs(value) if higher is None else value if higher else -value


def refined_nll(predictions: Predictions) -> float:
    """NLL after the temperature that is best for the same predictions: what is left when calibration is repaired.

    Args:
        predictions: Of the validation part.

    Source:
        Berta, Holzmüller, Jordan, Bach 2025, "Rethinking Early Stopping: Refine, Then Calibrate" (arXiv 2501.19195).

    Example:
        >>> import torch
        >>> logits, target = torch.tensor([[9.0, 0.0]] * 4), torch.tensor([0, 0, 0, 1])
        >>> round(refined_nll(Predictions(logits, target)), 4)  # that of 3/4, however sure the logits are
        0.5623
    """
    fitted, _ = fit_with_notes(TemperatureScaling(), predictions)
    return negative_log_likelihood(fitted.transform(predictions))
