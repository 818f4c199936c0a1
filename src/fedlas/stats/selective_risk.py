"""The reject option: thresholds on confidence that keep a risk, by a bound that holds, and their effect on others."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedlas._core.check import InputError, as_numbers, check_count, describe
from fedlas._core.defaults import RISKS
from fedlas._core.extras import require
from fedlas.metrics.sums import check_takes_weights
from fedlas.predictions import Predictions
from fedlas.predictions.any_predictions import AnyPredictions, check_measurable
from fedlas.resample.clusters import check_independent
from fedlas.stats.intervals import check_level
from fedlas.stats.proportion import clopper_pearson

GRID = 200
STARTS = 10
"""Thresholds that are tried, and at how many of them a sequence of tests starts."""
_TOP = 12.0  # log-odds of the highest threshold, a confidence of 0.999994


@dataclass(frozen=True)
class RiskThreshold:
    """Threshold for a target risk.

    Attributes:
        risk: Target: the largest share of wrong predictions among those accepted, in (0, 1).
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
    """Return descending confidences from nearly 1 to ``1 / C``, where all is accepted; even in log-odds."""
    # It looks at no data, which the tests need.
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
    """Return the lowest threshold on confidence that keeps the risk of accepted samples at ``risk`` or below.

    With probability ``confidence_level`` over the draw of the samples, the share of wrong predictions among all that
    have at least this confidence is at most ``risk`` (in the population, not in the sample). For each threshold of a
    fixed grid the hypothesis "its risk is above" has the exact p-value ``P(Binomial(n, risk) <= k)``, where ``k`` of
    ``n`` accepted samples are wrong. Fixed-sequence tests go from high thresholds to lower ones and stop at the first
    failure; ten of them start at evenly spaced thresholds, each with a tenth of ``1 - confidence_level``, since at the
    highest there may be too few samples to show anything.

    Args:
        confidence: ``(N,)`` in ``[0, 1]``; of samples that neither the model nor its calibration has seen.
        correct: ``(N,)`` bool.
        risk: Target, in (0, 1).
        num_classes: ``C``: no confidence is below ``1 / C``.
        confidence_level: In (0, 1).

    Returns:
        The threshold, or None in its place.

    Raises:
        InputError: If the arrays do not fit, or a number is out of range.

    Note:
        The bound is for one target risk, and for samples drawn like these: after a shift it says nothing.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> confidence = rng.uniform(0.5, 1, 5000)
        >>> chosen = risk_threshold(confidence, rng.random(5000) < confidence, risk=0.1, num_classes=2)
        >>> 0.8 < chosen.threshold < 0.85  # a calibrated model is right 9 times of 10 above 0.8
        True

    Source:
        Angelopoulos, Bates, Candès, Jordan, Lei, "Learn then Test: Calibrating predictive algorithms to achieve risk
        control" (2021), sections 2.2 (fixed-sequence testing, several starts) and 4 (selective classification);
        https://arxiv.org/abs/2110.01052
    """
    check_level(risk, name="risk")
    check_level(confidence_level)
    check_count("num_classes", num_classes)
    scores = as_numbers(confidence)
    right = as_numbers(correct).astype(bool)
    if scores.ndim != 1 or scores.shape != right.shape or not len(scores):
        raise InputError(
            "confidence and correct must be (N,) with at least one sample",
            f"{describe(confidence)} and {describe(correct)}",
            "Pass those of one set of predictions.",
        )
    grid = threshold_grid(num_classes)
    # Errors among the k most confident are counted for every k, so that each threshold costs one look-up.
    order = np.argsort(-scores, kind="stable")
    ordered = scores[order]
    errors = np.concatenate([[0], (~right[order]).cumsum()])
    # A float32 confidence of 1 / C may lie below 1 / C: the last threshold accepts all there is.
    selected = np.searchsorted(-ordered, -grid, side="right")
    selected[-1] = len(scores)
    wrong = errors[selected]
    # A threshold that accepts nothing has no evidence: its p-value of 1 ends the sequence.
    p_values = np.where(
        selected > 0,
        require("scipy.stats", extra="tables").binom.cdf(wrong, np.maximum(selected, 1), risk),
        1.0,
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
        return RiskThreshold(risk, confidence_level, None, 0, 0, len(scores), needed)
    return RiskThreshold(
        risk,
        confidence_level,
        float(grid[last]),
        int(selected[last]),
        int(wrong[last]),
        len(scores),
        needed,
    )


DEFAULT_RISKS = RISKS
"""Target risks of a card."""


@dataclass(frozen=True)
class RejectOption:
    """A threshold, and what it accepts of test predictions. Also called selective classification, or abstention.

    Attributes:
        chosen: The threshold and what it accepted of the validation predictions.
        samples: Test samples.
        accepted: How many of them are at least so confident; 0 without a threshold.
        wrong: How many of these are wrong.
        upper: One-sided upper bound (Clopper-Pearson, of the same level) of the risk of what is accepted, from the test
            samples alone. 1 if none is accepted.
    """

    chosen: RiskThreshold
    samples: int
    accepted: int
    wrong: int
    upper: float

    @property
    def threshold(self) -> float | None:
        """Accept predictions at least so confident; None if no threshold can be vouched for."""
        return self.chosen.threshold

    @property
    def coverage(self) -> float:
        """Share of the test samples that are accepted."""
        return self.accepted / self.samples

    @property
    def risk(self) -> float | None:
        """Share of wrong predictions among those accepted; None if none is."""
        return self.wrong / self.accepted if self.accepted else None

    def plain(self) -> dict[str, Any]:
        """Return the numbers as a dict for JSON."""
        chosen = self.chosen
        val = {"accepted": chosen.selected, "wrong": chosen.wrong, "coverage": chosen.coverage}
        row = {
            "risk": chosen.risk,
            "threshold": chosen.threshold,
            "val": val,
            "needed": chosen.needed,
        }
        if chosen.threshold is None:
            return row
        test = {
            "accepted": self.accepted,
            "wrong": self.wrong,
            "coverage": self.coverage,
            "risk": self.risk,
        }
        return {**row, "test": {**test, "upper": self.upper}}


def reject_option(
    val: AnyPredictions, test: AnyPredictions, *, risk: float, confidence_level: float = 0.95
) -> RejectOption:
    """Choose a threshold for a target risk on ``val`` by :func:`risk_threshold`, and apply it to ``test``.

    Args:
        val: Predictions ``(N, C)``, or top labels ``(N,)``, that neither the model nor, strictly, its calibration has
            seen.
        test: Others of the same model, which have no part in the choice.
        risk: Target: the largest share of wrong predictions among those accepted, in (0, 1).
        confidence_level: Confidence that the risk is kept, and of the bound from the test samples; in (0, 1).

    Raises:
        InputError: For other than labeled predictions, a number out of range, or samples with weights, with which no
            bound holds.

    Example:
        >>> import torch
        >>> from fedlas import Predictions
        >>> logits = torch.randn(4000, 2, generator=torch.Generator().manual_seed(0)).double() * 2
        >>> uniform = torch.rand(4000, generator=torch.Generator().manual_seed(1)).double()
        >>> target = (uniform < logits.softmax(1)[:, 1]).long()
        >>> val, test = Predictions(logits[:2000], target[:2000]), Predictions(logits[2000:], target[2000:])
        >>> option = reject_option(val, test, risk=0.1)
        >>> round(option.threshold, 2), round(option.coverage, 2), round(option.risk, 3), round(option.upper, 3)
        (0.78, 0.67, 0.075, 0.088)
    """
    val = check_measurable(val)
    test = check_measurable(test)
    for part in (val, test):
        check_takes_weights(part, takes_weights=False)  # a bound of weighted counts is not exact
        check_independent(part)
    confidence, correct = _arrays(val)
    # Without the number of classes the grid ends at 0.001; its last threshold accepts everything in any case.
    classes = val.num_classes if isinstance(val, Predictions) else 1000
    chosen = risk_threshold(
        confidence, correct, risk=risk, num_classes=classes, confidence_level=confidence_level
    )
    confidence, correct = _arrays(test)
    accepted = (
        np.zeros(len(confidence), dtype=bool)
        if chosen.threshold is None
        else confidence >= chosen.threshold
    )
    number = int(accepted.sum())
    wrong = int((accepted & ~correct).sum())
    # Test samples have no part in the choice, so their bound needs no correction for the thresholds that were tried.
    upper = clopper_pearson(wrong, number, confidence_level=confidence_level, sides=1)[1]
    return RejectOption(chosen, len(confidence), number, wrong, upper)


def _arrays(predictions: AnyPredictions) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    return predictions.confidence.cpu().double().numpy(), predictions.correct.cpu().numpy()
