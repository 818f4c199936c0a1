"""Everything with one number that is asked of a model of two outcomes."""

from __future__ import annotations

from fedlas._core.check import InputError
from fedlas.binary.brier_skill import brier_skill
from fedlas.binary.integrated_calibration import integrated_calibration
from fedlas.binary.positive import positive_class
from fedlas.binary.recalibration import logistic_recalibration
from fedlas.predictions import Predictions
from fedlas.stats.estimates import Estimate
from fedlas.stats.intervals import Interval


def measures(
    predictions: Predictions, *, positive: int | None = None, replicates: int = 199, seed: int = 0
) -> dict[str, Estimate]:
    """Calibration slope and intercept, calibration in the large, ICI, E50, E90 and Brier skill, with 95 % intervals.

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
        found = {name: _estimate(getattr(line, name)) for name in names}
    except InputError:  # the outcomes can be separated; all else was checked above
        found = {}
    curve = integrated_calibration(predictions, positive=positive, replicates=replicates, seed=seed)
    found |= {"ici": curve.ici, "e50": curve.e50, "e90": curve.e90}
    return found | {"brier_skill": _estimate(brier_skill(predictions, positive=positive))}


def _estimate(interval: Interval) -> Estimate:
    return Estimate(interval.value, interval.low, interval.high)
