"""Everything with one number that is asked of a model of two outcomes."""

from __future__ import annotations

import math
from dataclasses import replace

from fedlas._core.check import InputError
from fedlas.binary.integrated_calibration import integrated_calibration
from fedlas.binary.positive import normal_interval, positive_class
from fedlas.binary.recalibration import logistic_recalibration
from fedlas.predictions import Predictions
from fedlas.stats.estimates import Estimate
from fedlas.stats.intervals import Interval


def measures(
    predictions: Predictions, *, positive: int | None = None, replicates: int = 199, seed: int = 0
) -> dict[str, Estimate]:
    """Compute calibration slope, intercept and in the large, ICI, E50, E90 and Brier skill, with 95 % intervals.

    Args:
        predictions: Logits ``(N, C)`` and target ``(N,)``.
        positive: The class to set against the rest; None: class 1 of two.
        replicates: Of ICI, E50 and E90, as in :func:`~fedlas.binary.integrated_calibration`.
        seed: As there.

    Returns:
        Estimate by name: ``slope``, ``intercept``, ``in_the_large``, ``observed_to_expected``, ``ici``, ``e50``,
        ``e90`` and ``brier_skill``. Those that these samples cannot give are missing: the first four where a threshold
        separates the outcomes, and all where only one outcome occurs or there are fewer than 10 samples.

    Raises:
        InputError: As all functions here, for predictions of other than two classes without ``positive``.

    Example:
        >>> import torch
        >>> logits = torch.randn(1000, 2, generator=torch.Generator().manual_seed(0))
        >>> happened = torch.bernoulli(logits.softmax(1)[:, 1], generator=torch.Generator().manual_seed(1)).long()
        >>> list(measures(Predictions(logits, happened)))
        ['slope', 'intercept', 'in_the_large', 'observed_to_expected', 'ici', 'e50', 'e90', 'brier_skill']
    """
    outcome = positive_class("measures", predictions, positive).outcome
    if len(outcome) < 10 or outcome.min() == outcome.max():
        return {}
    try:
        line = logistic_recalibration(predictions, positive=positive)
        names = ("slope", "intercept", "in_the_large", "observed_to_expected")
        numbers = {name: _estimate(getattr(line, name)) for name in names}
    except InputError:  # the outcomes can be separated; all else was checked above
        numbers = {}
    curve = integrated_calibration(predictions, positive=positive, replicates=replicates, seed=seed)
    numbers |= {"ici": curve.ici, "e50": curve.e50, "e90": curve.e90}
    return numbers | {"brier_skill": _estimate(brier_skill(predictions, positive=positive))}


def _estimate(interval: Interval) -> Estimate:
    return Estimate(interval.value, interval.low, interval.high)


def brier_skill(predictions: Predictions, *, positive: int | None = None, confidence_level: float = 0.95) -> Interval:
    """Return ``1 - B / (q (1 - q))``, with ``B = mean (p - y)**2`` and the share ``q`` of positive samples.

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
    data = positive_class("brier_skill", predictions, positive, both_outcomes=True)
    squares = (data.probability - data.outcome) ** 2
    brier, prevalence = float(squares.mean()), float(data.outcome.mean())
    spread = prevalence * (1.0 - prevalence)
    # What each sample moves the score by: through its own square, and through the prevalence.
    influence = -(squares - brier) / spread + brier * (1.0 - 2.0 * prevalence) / spread**2 * (data.outcome - prevalence)
    interval = normal_interval(
        1.0 - brier / spread, float(influence.std()) / math.sqrt(data.num_samples), confidence_level=confidence_level
    )
    # No skill is above 1, so to cut the end off there loses no coverage.
    return replace(interval, high=min(interval.high, 1.0))
