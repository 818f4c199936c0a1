"""The Brier skill score: how much better a model is than saying the prevalence each time."""

from __future__ import annotations

import math
from dataclasses import replace

from fedlas.binary.positive import normal_interval, positive_class
from fedlas.predictions import Predictions
from fedlas.stats.intervals import Interval


def brier_skill(predictions: Predictions, *, positive: int | None = None, confidence_level: float = 0.95) -> Interval:
    """``1 - B / (q (1 - q))``, where ``B = mean (p - y)**2`` and ``q`` is the share of positives among the samples.

    Args:
        predictions: Logits ``(N, C)`` and target ``(N,)``.
        positive: The class to set against the rest; None: class 1 of two.
        confidence_level: Confidence level of the interval, in ``(0, 1)``.

    Returns:
        At most 1, which only a perfect model has; 0 is as good as the prevalence, below 0 is worse. The interval is
        that of the delta method, which counts the chance in ``q`` too.

    Raises:
        InputError: If only one outcome occurs, or as all functions here, for predictions of other than two classes
            without ``positive``.

    Note:
        The Brier score of one column, half of :func:`~fedlas.metrics.brier_score` for two classes. Also known as the
        index of prediction accuracy. The prevalence is that of these samples: after a change of prevalence the same
        model has another skill.

    Example:
        >>> p = Predictions([[0.0, 2.0], [0.0, 2.0], [0.0, -2.0], [0.0, -2.0], [0.0, 2.0]], [1, 1, 0, 0, 0])
        >>> round(brier_skill(p).value, 2)
        0.31

    Source:
        Brier 1950; Murphy, "Skill scores based on the mean square error", Monthly Weather Review 116 (1988); Kattan and
        Gerds, "The index of prediction accuracy", Diagnostic and Prognostic Research 2 (2018).
    """
    found = positive_class("brier_skill", predictions, positive, both_outcomes=True)
    squares = (found.probability - found.outcome) ** 2
    brier, prevalence = float(squares.mean()), float(found.outcome.mean())
    spread = prevalence * (1.0 - prevalence)
    # What each sample moves the score by: through its own square, and through the prevalence.
    influence = -(squares - brier) / spread + brier * (1.0 - 2.0 * prevalence) / spread**2 * (
        found.outcome - prevalence
    )
    interval = normal_interval(
        1.0 - brier / spread, float(influence.std()) / math.sqrt(found.num_samples), confidence_level=confidence_level
    )
    # No skill is above 1, so to cut the end off there loses no coverage.
    return replace(interval, high=min(interval.high, 1.0))
