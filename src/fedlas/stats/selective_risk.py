"""From which confidence on a model may be trusted: thresholds with a wanted risk, by a bound that holds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedlas._core.check import InputError, check_count, describe
from fedlas._core.extras import require
from fedlas.stats.intervals import check_level

GRID, STARTS = 200, 10
"""Thresholds that are tried, and at how many of them a sequence of tests starts."""
_TOP = 12.0  # log-odds of the highest threshold, a confidence of 0.999994


@dataclass(frozen=True)
class RiskThreshold:
    """What may be accepted for a wanted risk.

    Attributes:
        risk: Wanted: the largest share of wrong predictions among those accepted, in (0, 1).
        confidence_level: Confidence that it is kept.
        threshold: Accept predictions at least so confident; None if no threshold can be vouched for.
        selected: How many of the samples that is; 0 if None.
        wrong: How many of these are wrong.
        samples: How many there were.
        needed: Samples without one mistake that it takes to vouch for a threshold on its own.
    """

    risk: float
    confidence_level: float
    threshold: float | None
    selected: int
    wrong: int
    samples: int
    needed: int

    @property
    def coverage(self) -> float:
        """Share of the samples that are accepted."""
        return self.selected / self.samples


def threshold_grid(num_classes: int) -> NDArray[np.float64]:
    """Descending confidences from nearly 1 to ``1 / C``, where all is accepted; evenly spaced in log-odds.

    It looks at no data, which the tests need.
    """
    bottom = -math.log(num_classes - 1) if num_classes > 1 else -_TOP
    grid = 1 / (1 + np.exp(-np.linspace(_TOP, bottom, GRID)))
    # It is set exactly, since the exponential may round to a number above the confidence of a uniform prediction.
    grid[-1] = 1 / num_classes
    return grid


def risk_threshold(
    confidence: NDArray[Any],
    correct: NDArray[Any],
    *,
    risk: float,
    num_classes: int,
    confidence_level: float = 0.95,
) -> RiskThreshold:
    """The lowest threshold on confidence for which the risk of what is accepted is at most ``risk``, surely enough.

    With probability ``confidence_level`` over the draw of the samples, the share of wrong predictions among all that
    have at least this confidence is at most ``risk`` (in the population, not in the sample). For each threshold of a
    fixed grid the hypothesis "its risk is above" has the exact p-value ``P(Binomial(n, risk) <= k)``, where ``k`` of
    ``n`` accepted samples are wrong. Fixed-sequence tests go from high thresholds to lower ones and stop at the first
    failure; ten of them start at evenly spaced thresholds, each with a tenth of ``1 - confidence_level``, since at the
    highest there may be too few samples to show anything.

    Args:
        confidence: ``(N,)`` in ``[0, 1]``; of samples that neither the model nor its calibration has seen.
        correct: ``(N,)`` bool.
        risk: Wanted, in (0, 1).
        num_classes: ``C``: no confidence is below ``1 / C``.
        confidence_level: In (0, 1).

    Returns:
        The threshold, or None in its place.

    Raises:
        InputError: If the arrays do not fit, or a number is out of range.

    Note:
        The bound is for one wanted risk, and for samples drawn like these: after a shift it says nothing.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> confidence = rng.uniform(0.5, 1, 5000)
        >>> found = risk_threshold(confidence, rng.random(5000) < confidence, risk=0.1, num_classes=2)
        >>> 0.8 < found.threshold < 0.85  # a calibrated model is right 9 times of 10 above 0.8
        True

    Source:
        Angelopoulos, Bates, Candès, Jordan, Lei, "Learn then Test: Calibrating predictive algorithms to achieve risk
        control" (2021), sections 2.2 (fixed-sequence testing, several starts) and 4 (selective classification);
        https://arxiv.org/abs/2110.01052
    """
    owner = "risk_threshold"
    check_level(owner, risk, name="risk")
    check_level(owner, confidence_level)
    check_count(owner, "num_classes", num_classes)
    found, right = np.asarray(confidence, dtype=np.float64), np.asarray(correct, dtype=bool)
    if found.ndim != 1 or found.shape != right.shape or not len(found):
        raise InputError(
            owner,
            "confidence and correct must be (N,) with at least one sample",
            f"{describe(confidence)} and {describe(correct)}",
            "Pass those of one set of predictions.",
        )
    grid = threshold_grid(num_classes)
    # Errors among the k most confident are counted for every k, so that each threshold costs one look-up.
    order = np.argsort(-found, kind="stable")
    ordered, errors = found[order], np.concatenate([[0], (~right[order]).cumsum()])
    # A float32 confidence of 1 / C may lie below 1 / C: the last threshold accepts all there is.
    selected = np.searchsorted(-ordered, -grid, side="right")
    selected[-1] = len(found)
    wrong = errors[selected]
    # A threshold that accepts nothing has no evidence: its p-value of 1 ends the sequence.
    p_values = np.where(
        selected > 0, require("scipy.stats", extra="stats").binom.cdf(wrong, np.maximum(selected, 1), risk), 1.0
    )
    # Only the starts share the level: within a sequence every test may spend it all, as the first failure ends it.
    budget = (1 - confidence_level) / STARTS
    last = -1
    for start in np.linspace(0, GRID - 1, STARTS).astype(int):
        failures = np.flatnonzero(p_values[start:] > budget)
        end = start + (failures[0] if len(failures) else GRID - start) - 1
        last = max(last, int(end)) if end >= start else last
    # Without a mistake the p-value is (1 - risk) ** n; log1p keeps the digits of a small risk.
    needed = math.ceil(math.log(budget) / math.log1p(-risk))
    if last < 0:
        return RiskThreshold(risk, confidence_level, None, 0, 0, len(found), needed)
    return RiskThreshold(
        risk, confidence_level, float(grid[last]), int(selected[last]), int(wrong[last]), len(found), needed
    )


DEFAULT_RISKS: Sequence[float] = (0.005, 0.01, 0.02, 0.05, 0.1)
"""Wanted risks that a card answers."""
