"""scikit-learn scorers for calibration metrics."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from fedlas._core.check import InputError, check_count
from fedlas.integrations._scores import predictions_from_scores
from fedlas.metrics import METRICS
from fedlas.metrics.evaluation import compute_metrics
from fedlas.metrics.metric import resolve_metric
from fedlas.predictions import Predictions


@dataclass(frozen=True)
class CalibrationScorer:
    """scikit-learn scorer for a metric of this library; higher is better.

    scikit-learn maximizes scores, so a metric that is better when lower has its sign changed.

    Args:
        metric: Registry name of a metric that has a direction; ``fedlas list metrics`` prints them.
        num_bins: Number of bins, for metrics that have any, at least 1.

    Raises:
        InputError: For an unknown metric, or one where 0 is best or that needs true probabilities. When called, for an
            estimator without ``predict_proba``.

    Note:
        Unlike a function in ``make_scorer`` it knows the classes of the estimator, so that a test fold may lack some.

    Example:
        >>> from sklearn.datasets import load_iris
        >>> from sklearn.model_selection import cross_val_score
        >>> from sklearn.naive_bayes import GaussianNB
        >>> X, y = load_iris(return_X_y=True)
        >>> cross_val_score(GaussianNB(), X, y, scoring=CalibrationScorer("ece"), cv=3).round(2)
        array([-0.06, -0.05, -0.05])
    """

    metric: str
    num_bins: int = 15

    def __post_init__(self) -> None:
        check_count("num_bins", self.num_bins)
        if METRICS[self.metric].higher_is_better is None or METRICS[self.metric].needs:
            raise InputError(
                "metric must be one where higher or lower is better",
                self.metric,
                f"Choose one of {', '.join(_metrics_with_direction())}.",
            )

    @property
    def name(self) -> str:
        """Name of the metric, prefixed by ``neg_`` if its sign is flipped."""
        entry = METRICS[self.metric]
        return entry.name if entry.higher_is_better else f"neg_{entry.name}"

    def __call__(self, estimator: Any, X: Any, y: Any) -> float:  # noqa: N803
        """Return the score of a fitted classifier on ``X (N, ...)`` with labels ``y (N,)``."""
        return _score_all([self], _predict(estimator, X, y))[self.name]


def calibration_scores(estimator: Any, X: Any, y: Any) -> dict[str, float]:  # noqa: N803
    """Return the scores of all :data:`scorers` by name, from one prediction: ``cross_validate(..., scoring=this)``.

    Args:
        estimator: A fitted classifier with ``predict_proba``.
        X: What it takes ``(N, ...)``.
        y: Labels ``(N,)``.

    Raises:
        InputError: If the estimator has no ``predict_proba``, or a label is none of its classes.

    Example:
        >>> from sklearn.datasets import load_iris
        >>> from sklearn.naive_bayes import GaussianNB
        >>> X, y = load_iris(return_X_y=True)
        >>> scores = calibration_scores(GaussianNB().fit(X, y), X, y)
        >>> round(scores["accuracy"], 2), round(scores["neg_ece"], 3)
        (0.96, -0.033)
    """
    return _score_all(list(scorers.values()), _predict(estimator, X, y))


def _metrics_with_direction() -> list[str]:
    # Event metrics are undefined for more than two classes; CalibrationScorer takes them by name.
    entries = [each for each in METRICS.entries() if each.subject != "event"]
    return [e.name for e in entries if e.higher_is_better is not None and not e.needs]


scorers: dict[str, CalibrationScorer] = {
    each.name: each for each in map(CalibrationScorer, _metrics_with_direction())
}
"""A scorer for every metric with a direction, by name: ``"accuracy"``, ``"neg_ece"``, ``"neg_nll"`` and so on."""


def _score_all(which: list[CalibrationScorer], predictions: Predictions) -> dict[str, float]:
    entries = [resolve_metric(each.metric, predictions) for each in which]
    values = compute_metrics(predictions, entries, which[0].num_bins)
    signs = [1 if entry.higher_is_better else -1 for entry in entries]
    return {
        each.name: sign * values[entry.name]
        for each, entry, sign in zip(which, entries, signs, strict=True)
    }


def _predict(estimator: Any, X: Any, y: Any) -> Predictions:  # noqa: N803
    if not hasattr(estimator, "predict_proba"):
        raise InputError(
            "the estimator must have predict_proba",
            type(estimator).__name__,
            "Wrap it in a CalibratedClassifier, which has predict_proba.",
        )
    return predictions_from_scores(
        estimator.predict_proba(X), "predict_proba", y, np.asarray(estimator.classes_)
    )
