"""Proper scores: best in expectation at the true probabilities, so they reward accuracy and calibration together."""

from __future__ import annotations

from fedlas.metrics.row_mean import row_mean
from fedlas.metrics.scan import METRICS
from fedlas.predictions import Predictions

_NLL = row_mean("negative_log_likelihood", lambda chunk: chunk.nll)
_BRIER = row_mean("brier_score", lambda chunk: chunk.squared_error)


@METRICS.register("nll", title="NLL", percent=False, paper="Good 1952, Rational decisions", one_pass=_NLL)
def negative_log_likelihood(predictions: Predictions) -> float:
    """Mean negative log-likelihood of the labels, ``mean_i -log p_i[y_i]``.

    Args:
        predictions: Logits ``(N, C)`` and target ``(N,)``.

    Returns:
        Nats per sample, in ``[0, inf)``; ``log C`` for uniform predictions.

    Example:
        >>> round(negative_log_likelihood(Predictions([[0.0, 0.0]], [1])), 4)
        0.6931
    """
    return _NLL(predictions)


@METRICS.register(
    "brier",
    title="Brier",
    percent=False,
    paper="Brier 1950, Verification of forecasts expressed in terms of probability",
    one_pass=_BRIER,
)
def brier_score(predictions: Predictions) -> float:
    """Brier score summed over classes, ``mean_i sum_k (p_ik - 1[k = y_i])**2``.

    Args:
        predictions: Logits ``(N, C)`` and target ``(N,)``.

    Returns:
        A number in ``[0, 2]``.

    Note:
        Brier's own form. Some libraries average over classes (divide by ``C``), and for two classes some count only one
        column (divide by 2).

    Example:
        >>> brier_score(Predictions([[0.0, 0.0]], [1]))
        0.5
    """
    return _BRIER(predictions)
